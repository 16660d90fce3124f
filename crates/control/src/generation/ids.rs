//! Who has which id: given once, to one object, for as long as the lab runs.

use std::collections::HashMap;

use model::Topology;
use model::topology::{LinkOn, NicIndex};

use crate::compile::{PortOwner, Provenance, dense};

/// The ids of what flows keep, and of what they refer to.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    pub(crate) vnets: Names,
    pub(crate) nics: Names,
    pub(crate) ports: Names,
    pub(crate) peerings: Names,
    pub(crate) links: Names,
    pub(crate) log_rules: Names,
}

/// The ids of one kind of object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// By position in the present topology.
    ids: Vec<u32>,
    /// By id, of those that are gone too.
    known: Vec<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    /// What makes it this object and no other.
    key: String,
    /// For people.
    name: String,
    /// In the present topology; None: it is gone.
    position: Option<usize>,
}

impl Ids {
    /// Objects of `previous` keep their ids, new ones get ids that nobody has had.
    pub(super) fn next(previous: Option<&Self>, topology: &Topology, provenance: &Provenance) -> Self {
        let next = |of: fn(&Self) -> &Names, objects| Names::next(previous.map(of), objects);
        let vnets = topology.vnets.iter().map(|vnet| same(&vnet.name)).collect();
        let nics = (0..topology.nics.len()).map(|nic| {
            let nic = NicIndex(nic);
            (nic_key(topology, nic), topology.nics[nic.0].name.clone())
        });
        let ports = provenance
            .ports
            .iter()
            .map(|owner| same(&port_key(topology, owner)));
        Self {
            vnets: next(|ids| &ids.vnets, vnets),
            nics: next(|ids| &ids.nics, nics.collect()),
            ports: next(|ids| &ids.ports, ports.collect()),
            peerings: next(|ids| &ids.peerings, peerings(topology, provenance)),
            links: next(|ids| &ids.links, links(topology, provenance)),
            log_rules: next(|ids| &ids.log_rules, log_rules(topology, provenance)),
        }
    }
}

impl Names {
    /// `objects` are keys and names, in the order of their positions.
    fn next(previous: Option<&Self>, objects: Vec<(String, String)>) -> Self {
        let mut known = previous
            .map(|previous| previous.known.clone())
            .unwrap_or_default();
        let mut alive = HashMap::new();
        for (id, object) in (0..).zip(&mut known) {
            if object.position.take().is_some() {
                alive.insert(object.key.clone(), id);
            }
        }
        let mut ids = Vec::with_capacity(objects.len());
        for (position, (key, name)) in objects.into_iter().enumerate() {
            let key = key.to_lowercase();
            // Taken out, so that no two objects ever share an id.
            let id = alive.remove(&key).unwrap_or_else(|| {
                known.push(Known {
                    key,
                    name,
                    position: None,
                });
                dense(known.len() - 1)
            });
            known[id as usize].position = Some(position);
            ids.push(id);
        }
        Self { ids, known }
    }

    /// How many rows there are, of the living and of those that are gone.
    pub(super) fn rows(&self) -> usize {
        self.known.len()
    }

    /// Of the object at a position; of a position past the last, which leads nowhere, an id that nobody has.
    pub(super) fn id(&self, position: usize) -> u32 {
        self.ids.get(position).copied().unwrap_or(u32::MAX)
    }

    pub(super) fn position(&self, id: u32) -> Option<usize> {
        self.known.get(id as usize)?.position
    }

    pub(super) fn name(&self, id: u32) -> Option<&str> {
        self.known.get(id as usize).map(|object| object.name.as_str())
    }
}

fn same(name: &str) -> (String, String) {
    (name.to_owned(), name.to_owned())
}

/// A NIC stays the same when its addresses, rules or subnet change, but in no other VNet or VM.
fn nic_key(topology: &Topology, nic: NicIndex) -> String {
    let nic = &topology.nics[nic.0];
    let vnet = &topology.vnets[topology.subnets[nic.subnet.0].vnet.0].name;
    let vm = nic.vm.map_or("", |vm| &topology.vms[vm.0].name);
    format!("{vnet} {vm} {}", nic.name)
}

/// A port is one TUN.
fn port_key(topology: &Topology, owner: &PortOwner) -> String {
    match *owner {
        PortOwner::Vm { interface, nic, .. } => format!("nic {} {interface}", nic_key(topology, nic)),
        PortOwner::Vnet(vnet) => {
            let vnet = &topology.vnets[vnet.0];
            format!("vnet {} {:?}", vnet.name, vnet.tun)
        }
        PortOwner::Internet => "internet".to_owned(),
        PortOwner::Platform(vnet) => format!("platform {}", topology.vnets[vnet.0].name),
        PortOwner::Connection(connection) => {
            let connection = &topology.connections[connection.0];
            let site = connection.site().map(|site| topology.sites[site.0].name.as_str());
            format!("connection {} {}", connection.name, site.unwrap_or_default())
        }
        PortOwner::Gateway(gateway) => format!("gateway {}", topology.gateways[gateway.0].name),
    }
}

/// One id for each local VNet of an object; a peering with a classic VNet has two.
fn peerings(topology: &Topology, provenance: &Provenance) -> Vec<(String, String)> {
    let mut seen = std::collections::HashSet::new();
    let keyed = provenance.peerings.iter().map(|&index| {
        let peering = &topology.peerings[index.0];
        let end = if seen.insert(index) { "from" } else { "to" };
        let name = |vnet: usize| topology.vnets[vnet].name.as_str();
        let (from, to) = (name(peering.from.0), name(peering.to.0));
        (
            format!("{from} {} {to} {end}", peering.name),
            format!("{from}/{}", peering.name),
        )
    });
    keyed.collect()
}

/// What waits on a link stays on it whatever the link does to packets.
fn links(topology: &Topology, provenance: &Provenance) -> Vec<(String, String)> {
    // A link is its peering's as long as that is the same object.
    let of_peerings = peerings(topology, provenance).into_iter();
    let of_connections = provenance.links.iter().filter_map(|origin| match origin.on {
        LinkOn::Connection(_) => {
            let name = origin.name(topology);
            Some((format!("connection {name} {}", origin.back), name))
        }
        LinkOn::Peering(_) => None,
    });
    of_peerings.chain(of_connections).collect()
}

/// `<NSG>/<rule>`, as flow logs name it; an NSG may have two rules of a name, one in each direction.
fn log_rules(topology: &Topology, provenance: &Provenance) -> Vec<(String, String)> {
    let keyed = provenance.log_rules.iter().map(|rule| {
        let name = format!("{}/{}", topology.nsgs[rule.nsg.0].name, rule.name);
        (format!("{name} {:?}", rule.direction), name)
    });
    keyed.collect()
}
