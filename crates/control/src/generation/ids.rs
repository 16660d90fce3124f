//! Who has which id: given once, to one object, for as long as the lab runs.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use model::Topology;
use model::topology::{LinkOn, NicIndex, Peering};

use crate::compile::{LinkOrigin, LogRule, PortOwner, Provenance, dense};

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
    object: Arc<Object>,
    /// In the present topology; None: it is gone.
    position: Option<usize>,
}

#[derive(Debug)]
struct Object {
    /// What makes it this object and no other, in lower case.
    key: String,
    /// For people.
    name: String,
}

impl Ids {
    /// Objects of `previous` keep their ids, new ones get ids that nobody has had.
    pub(super) fn next(previous: Option<&Self>, topology: &Topology, provenance: &Provenance) -> Self {
        let previous = |of: fn(&Self) -> &Names| previous.map(of);
        let vnet = |at: usize| topology.vnets[at].name.as_str();
        let ports = &provenance.ports;
        let peerings = peerings(topology, provenance);
        let links = provenance.links.iter();
        let connections: Vec<&LinkOrigin> = links
            .filter(|origin| matches!(origin.on, LinkOn::Connection(_)))
            .collect();
        let rules = &provenance.log_rules;
        Self {
            vnets: Names::next(
                previous(|ids| &ids.vnets),
                topology.vnets.len(),
                |at, key| key.push_str(vnet(at)),
                |at| vnet(at).to_owned(),
            ),
            nics: Names::next(
                previous(|ids| &ids.nics),
                topology.nics.len(),
                |at, key| nic_key(topology, NicIndex(at), key),
                |at| topology.nics[at].name.clone(),
            ),
            ports: Names::next(
                previous(|ids| &ids.ports),
                ports.len(),
                |at, key| port_key(topology, &ports[at], key),
                |at| {
                    let mut name = String::new();
                    port_key(topology, &ports[at], &mut name);
                    name
                },
            ),
            peerings: Names::next(
                previous(|ids| &ids.peerings),
                peerings.len(),
                |at, key| peering_key(topology, peerings[at], key),
                |at| peering_name(topology, peerings[at]),
            ),
            // A link is its peering's as long as that is the same object.
            links: Names::next(
                previous(|ids| &ids.links),
                peerings.len() + connections.len(),
                |at, key| match peerings.get(at) {
                    Some(&peering) => peering_key(topology, peering, key),
                    None => {
                        let origin = connections[at - peerings.len()];
                        let name = origin.name(topology);
                        write(key, format_args!("connection {name} {}", origin.back));
                    }
                },
                |at| match peerings.get(at) {
                    Some(&peering) => peering_name(topology, peering),
                    None => connections[at - peerings.len()].name(topology),
                },
            ),
            log_rules: Names::next(
                previous(|ids| &ids.log_rules),
                rules.len(),
                |at, key| {
                    let name = log_rule(topology, &rules[at]);
                    write(key, format_args!("{name} {:?}", rules[at].direction));
                },
                |at| log_rule(topology, &rules[at]),
            ),
        }
    }
}

impl Names {
    /// `count` objects in the order of their positions; `key` writes the key of one.
    fn next(
        previous: Option<&Self>,
        count: usize,
        key: impl Fn(usize, &mut String),
        name: impl Fn(usize) -> String,
    ) -> Self {
        let before = previous.map_or(&[][..], |previous| &previous.ids);
        let mut known = previous.map_or_else(Vec::new, |previous| previous.known.clone());
        for object in &mut known {
            object.position = None;
        }
        let mut ids = Vec::with_capacity(count);
        // Most objects are where they were, or one place from it; only the others are looked up by key.
        let (mut next, mut alive) = (0, None);
        let mut text = String::new();
        for position in 0..count {
            text.clear();
            key(position, &mut text);
            lower(&mut text);
            let near = (next..next + 2).find(|&at| {
                let known = before.get(at).map(|&id| &known[id as usize]);
                known.is_some_and(|it| it.position.is_none() && it.object.key == text)
            });
            let found = near.map(|at| before[at]).or_else(|| {
                let alive = alive.get_or_insert_with(|| by_key(previous));
                let id = *alive.get(text.as_str())?;
                // No two objects ever share an id.
                known[id as usize].position.is_none().then_some(id)
            });
            next = near.map_or(next, |at| at + 1);
            let id = found.unwrap_or_else(|| {
                let object = Object {
                    key: text.clone(),
                    name: name(position),
                };
                known.push(Known {
                    object: Arc::new(object),
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

    /// By position.
    pub(super) fn present(&self) -> &[u32] {
        &self.ids
    }

    /// Of the object at a position; of a position past the last, which leads nowhere, an id that nobody has.
    pub(super) fn id(&self, position: usize) -> u32 {
        self.ids.get(position).copied().unwrap_or(u32::MAX)
    }

    pub(super) fn position(&self, id: u32) -> Option<usize> {
        self.known.get(id as usize)?.position
    }

    pub(super) fn name(&self, id: u32) -> Option<&str> {
        self.known
            .get(id as usize)
            .map(|known| known.object.name.as_str())
    }
}

/// Objects of the topology before, by key.
fn by_key(previous: Option<&Names>) -> HashMap<&str, u32> {
    let Some(previous) = previous else {
        return HashMap::new();
    };
    let alive = previous.ids.iter();
    alive
        .map(|&id| (previous.known[id as usize].object.key.as_str(), id))
        .collect()
}

fn lower(text: &mut String) {
    if text.is_ascii() {
        text.make_ascii_lowercase();
    } else {
        *text = text.to_lowercase();
    }
}

/// Writing to a string does not fail.
fn write(to: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = to.write_fmt(what);
}

/// A NIC stays the same when its addresses, rules or subnet change, but in no other VNet or VM.
fn nic_key(topology: &Topology, nic: NicIndex, key: &mut String) {
    let nic = &topology.nics[nic.0];
    let vnet = &topology.vnets[topology.subnets[nic.subnet.0].vnet.0].name;
    let vm = nic.vm.map_or("", |vm| &topology.vms[vm.0].name);
    write(key, format_args!("{vnet} {vm} {}", nic.name));
}

/// A port is one TUN.
fn port_key(topology: &Topology, owner: &PortOwner, key: &mut String) {
    match *owner {
        PortOwner::Vm { interface, nic, .. } => {
            key.push_str("nic ");
            nic_key(topology, nic, key);
            write(key, format_args!(" {interface}"));
        }
        PortOwner::Vnet(vnet) => {
            let vnet = &topology.vnets[vnet.0];
            write(key, format_args!("vnet {} {:?}", vnet.name, vnet.tun));
        }
        PortOwner::Internet => key.push_str("internet"),
        PortOwner::Platform(vnet) => write(key, format_args!("platform {}", topology.vnets[vnet.0].name)),
        PortOwner::Connection(connection) => {
            let connection = &topology.connections[connection.0];
            let site = connection.site().map(|site| topology.sites[site.0].name.as_str());
            let site = site.unwrap_or_default();
            write(key, format_args!("connection {} {site}", connection.name));
        }
        PortOwner::Gateway(gateway) => {
            write(key, format_args!("gateway {}", topology.gateways[gateway.0].name));
        }
    }
}

/// One id for each local VNet of an object; a peering with a classic VNet has two. With which of its ends each is.
fn peerings<'a>(topology: &'a Topology, provenance: &Provenance) -> Vec<(&'a Peering, &'static str)> {
    let mut seen = vec![false; topology.peerings.len()];
    let keyed = provenance.peerings.iter().map(|&index| {
        let first = !std::mem::replace(&mut seen[index.0], true);
        (&topology.peerings[index.0], if first { "from" } else { "to" })
    });
    keyed.collect()
}

fn peering_key(topology: &Topology, (peering, end): (&Peering, &str), key: &mut String) {
    let ends = [peering.from, peering.to].map(|vnet| topology.vnets[vnet.0].name.as_str());
    write(
        key,
        format_args!("{} {} {} {end}", ends[0], peering.name, ends[1]),
    );
}

fn peering_name(topology: &Topology, (peering, _): (&Peering, &str)) -> String {
    format!("{}/{}", topology.vnets[peering.from.0].name, peering.name)
}

/// `<NSG>/<rule>`, as flow logs name it; an NSG may have two rules of a name, one in each direction.
fn log_rule(topology: &Topology, rule: &LogRule) -> String {
    format!("{}/{}", topology.nsgs[rule.nsg.0].name, rule.name)
}
