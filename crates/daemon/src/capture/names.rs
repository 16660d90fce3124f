//! What the places of a capture are called, in one generation, and which of them a request means.

use std::collections::BTreeMap;
use std::net::IpAddr;

use control::Generation;
use control::compile::PortOwner;
use engine::Snapshot;
use engine::snapshot::{Far, GatewayId, LinkId, NicId, VnetId};

use super::tap::{Place, Selection};
use crate::api::CaptureRequest;
use crate::running::Current;

/// The ports and links of a generation.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) generation: u64,
    places: BTreeMap<Place, Named>,
    /// By [`NicId`].
    nics: Vec<Option<String>>,
}

#[derive(Debug)]
pub(crate) struct Named {
    /// Of a port: its NIC, VNet, connection or gateway, or `internet`; of a link: `vnet/peering` or its connection.
    pub(crate) name: String,
    /// For people.
    pub(crate) description: String,
    /// The VM whose NIC is behind a port.
    vm: Option<String>,
    /// The VNets that a link joins, in its direction.
    pub(crate) ends: Option<(VnetId, VnetId)>,
}

impl Places {
    pub(crate) fn of(current: &Current) -> Self {
        let generation = &current.generation;
        let ports = 0..generation.provenance.ports.len();
        let ports = ports.map(|port| (Place::Port(generation.port_id(port)), port_named(current, port)));
        let links = (0..generation.provenance.links.len()).map(|link| {
            let link = generation.link_id(link);
            (Place::Link(link), link_named(generation, link))
        });
        Self {
            generation: generation.snapshot.generation,
            places: ports.chain(links).collect(),
            nics: (0..generation.snapshot.nics.len())
                .map(|nic| {
                    generation
                        .nic_name(NicId(u32::try_from(nic).ok()?))
                        .map(str::to_owned)
                })
                .collect(),
        }
    }

    pub(crate) fn nic(&self, nic: NicId) -> Option<&str> {
        self.nics.get(nic.index())?.as_deref()
    }

    pub(crate) fn get(&self, place: Place) -> Option<&Named> {
        self.places.get(&place)
    }

    pub(crate) fn name(&self, place: Place) -> &str {
        // It has just gone, or has just come.
        self.get(place).map_or("-", |named| &named.name)
    }

    /// Which places a request means: all, or those it names. What is not there yet may come with a change.
    pub(crate) fn select(&self, request: &CaptureRequest) -> Selection {
        let mut selection = Selection {
            drops_only: request.drops,
            ..Selection::default()
        };
        let all = request.ports.is_empty() && request.links.is_empty();
        let wanted = |names: &[String], named: &Named| all || names.iter().any(|name| named.is(name));
        for (place, named) in &self.places {
            let (list, index, wanted) = match place {
                Place::Port(port) => {
                    let wanted = wanted(&request.ports, named) && !request.vxlan;
                    (&mut selection.ports, port.index(), wanted)
                }
                Place::Link(link) => {
                    // Only between VNets there is VXLAN.
                    let wanted = wanted(&request.links, named) && (!request.vxlan || named.ends.is_some());
                    (&mut selection.links, link.index(), wanted)
                }
            };
            if list.len() <= index {
                list.resize(index + 1, false);
            }
            list[index] = wanted;
        }
        selection
    }

    /// The places of a selection, ports first.
    pub(crate) fn selected(&self, selection: &Selection) -> impl Iterator<Item = Place> {
        let places = self.places.keys().copied();
        places.filter(|place| selection.has(*place))
    }

    /// What a request names and the lab does not have.
    pub(crate) fn unknown(&self, request: &CaptureRequest) -> Option<String> {
        let known = |wanted_link: bool, name: &str| {
            let places = self.places.iter();
            places
                .filter(|(place, _)| matches!(place, Place::Link(_)) == wanted_link)
                .any(|(_, named)| named.is(name))
        };
        if let Some(name) = request.ports.iter().find(|name| !known(false, name)) {
            return Some(format!(
                "no VM, NIC or other port is called {name}; {}",
                self.known(false)
            ));
        }
        let name = request.links.iter().find(|name| !known(true, name))?;
        Some(format!("no link is called {name}; {}", self.known(true)))
    }

    fn known(&self, links: bool) -> String {
        let places = self.places.iter();
        let names: Vec<&str> = places
            .filter(|(place, _)| matches!(place, Place::Link(_)) == links)
            .map(|(_, named)| named.name.as_str())
            .collect();
        match names.is_empty() {
            true => String::from("the lab has none"),
            false => format!("there are {}", names.join(", ")),
        }
    }
}

impl Named {
    fn is(&self, name: &str) -> bool {
        let own = [Some(&self.name), self.vm.as_ref()];
        own.into_iter()
            .flatten()
            .any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// The private addresses of a VM or a NIC, for filters.
pub(crate) fn addresses(generation: &Generation, name: &str) -> Vec<IpAddr> {
    let topology = &generation.topology;
    let nics = topology.nics.iter().filter(|nic| {
        let vm = nic.vm.map(|vm| topology.vms[vm.0].name.as_str());
        [Some(nic.name.as_str()), vm]
            .into_iter()
            .flatten()
            .any(|own| own.eq_ignore_ascii_case(name))
    });
    nics.flat_map(|nic| nic.addresses.clone()).collect()
}

fn port_named(current: &Current, port: usize) -> Named {
    let topology = &current.generation.topology;
    let vm = match current.generation.provenance.ports.get(port) {
        Some(PortOwner::Vm { nic, .. }) => topology.nics[nic.0].vm.map(|vm| topology.vms[vm.0].name.clone()),
        _ => None,
    };
    let place = current
        .ports
        .devices
        .get(port)
        .map_or_else(String::new, |device| {
            format!("{} in {}", device.interface, device.namespace)
        });
    Named {
        name: current.port_name(port),
        description: place,
        vm,
        ends: None,
    }
}

fn link_named(generation: &Generation, link: LinkId) -> Named {
    let ends = ends(&generation.snapshot, link);
    let vnets = &generation.topology.vnets;
    let vnet = |id: VnetId| {
        let mut vnets = vnets.iter().enumerate();
        vnets
            .find(|(index, _)| generation.vnet_id(model::topology::VnetIndex(*index)) == id)
            .map_or("-", |(_, vnet)| vnet.name.as_str())
    };
    let description = ends.map_or_else(String::new, |(from, to)| {
        let (vni, address) = (super::vxlan::vni(to), super::vxlan::tunnel_end(to));
        format!("{} to {}; VXLAN VNI {vni} at {address}", vnet(from), vnet(to))
    });
    Named {
        name: generation.link_name(link).unwrap_or("-").to_owned(),
        description,
        vm: None,
        ends,
    }
}

/// The VNets that a link joins, in its direction; None: a site is at one end of it.
fn ends(snapshot: &Snapshot, link: LinkId) -> Option<(VnetId, VnetId)> {
    let mut peerings = snapshot.peerings.iter();
    if let Some(peering) = peerings.find(|peering| peering.link == link) {
        return Some((peering.local, peering.remote));
    }
    let mut connections = snapshot.connections.iter();
    let connection = connections.find(|connection| [connection.out, connection.back].contains(&link))?;
    let Far::Gateway(far) = connection.far else {
        return None;
    };
    let vnet = |gateway: GatewayId| Some(snapshot.gateways.get(gateway.index())?.vnet);
    let (own, far) = (vnet(connection.gateway)?, vnet(far)?);
    Some(if connection.out == link {
        (own, far)
    } else {
        (far, own)
    })
}
