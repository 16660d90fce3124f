//! The operations that lead from one lab to another.

use indexmap::IndexMap;

use super::section::{position, value};
use super::{Operation, peerings, pin};
use crate::config::{Config, Peering, PeeringState, Profile};

/// What to do to `old`, a running lab's declared state, so that it declares what `new` does: peerings and machines that go, go
/// first; then what the rest refers to; peerings that come, last.
#[must_use]
pub fn between(old: &Config, new: &Config) -> Vec<Operation> {
    let (mut old, mut new) = (old.clone(), new.clone());
    for name in old.vnets.keys().cloned().collect::<Vec<_>>() {
        peerings::write_out(&mut old, &name);
    }
    for name in new.vnets.keys().cloned().collect::<Vec<_>>() {
        peerings::write_out(&mut new, &name);
    }
    // What the file says no address of keeps those it has.
    if pin::addresses(&mut old).is_err() {
        return Vec::new();
    }
    let mut operations = Vec::new();
    operations.extend(gone(&old.links, &new.links).map(|name| Operation::DeleteLink { name }));
    operations.extend(peerings_gone(&old, &new));
    let connections = gone(&old.connections, &new.connections);
    operations.extend(connections.map(|name| Operation::DeleteConnection { name }));
    operations.extend(gone(&old.gateways, &new.gateways).map(|name| Operation::DeleteGateway { name }));
    operations.extend(gone(&old.sites, &new.sites).map(|name| Operation::DeleteSite { name }));
    let balancers = gone(&old.load_balancers, &new.load_balancers);
    operations.extend(balancers.map(|name| Operation::DeleteLoadBalancer { name }));
    operations.extend(gone(&old.vms, &new.vms).map(|name| Operation::DeleteVm { name }));
    let nics = gone(&old.network_interfaces, &new.network_interfaces);
    operations.extend(nics.map(|name| Operation::DeleteNic { name }));
    let asgs = gone(&new.application_security_groups, &old.application_security_groups);
    operations.extend(asgs.map(|name| Operation::PutAsg { name }));
    operations.extend(
        changed(&old.network_security_groups, &new.network_security_groups).map(|(name, nsg)| {
            Operation::PutNsg {
                name,
                nsg: Box::new(nsg.clone()),
            }
        }),
    );
    operations.extend(
        changed(&old.route_tables, &new.route_tables).map(|(name, table)| Operation::PutRouteTable {
            name,
            table: Box::new(table.clone()),
        }),
    );
    operations.extend(vnets_put(&old, &new));
    operations.extend(machines_put(&old, &new));
    operations.extend(gateways_put(&old, &new));
    operations.extend(subnets_gone(&old, &new));
    operations.extend(gone(&old.vnets, &new.vnets).map(|name| Operation::DeleteVnet { name }));
    operations.extend(peerings_put(&old, &new));
    operations.extend(
        changed(&old.resources, &new.resources).map(|(key, it)| Operation::PutResource {
            key,
            resource: Box::new(it.clone()),
        }),
    );
    operations.extend(
        changed(&old.links, &new.links).map(|(name, link)| Operation::PutLink {
            name,
            link: Box::new(link.clone()),
        }),
    );
    let tables = gone(&old.route_tables, &new.route_tables);
    operations.extend(tables.map(|name| Operation::DeleteRouteTable { name }));
    let nsgs = gone(&old.network_security_groups, &new.network_security_groups);
    operations.extend(nsgs.map(|name| Operation::DeleteNsg { name }));
    let asgs = gone(&old.application_security_groups, &new.application_security_groups);
    operations.extend(asgs.map(|name| Operation::DeleteAsg { name }));
    // What is about objects goes with them.
    let resources = gone(&old.resources, &new.resources);
    operations.extend(resources.map(|key| Operation::DeleteResource { key }));
    operations
}

/// VNets with what they gain; subnets they lose go after the machines in them.
fn vnets_put(old: &Config, new: &Config) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (name, vnet) in &new.vnets {
        let mut grown = vnet.clone();
        if let Some(at) = position(&old.vnets, name) {
            let before = &old.vnets[at];
            for (subnet, it) in &before.subnets {
                if position(&vnet.subnets, subnet).is_none() {
                    grown.subnets.insert(subnet.clone(), it.clone());
                }
            }
            if *before == grown {
                continue;
            }
        }
        operations.push(Operation::PutVnet {
            name: name.clone(),
            vnet: Box::new(grown),
        });
    }
    operations
}

fn subnets_gone(old: &Config, new: &Config) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (name, vnet) in &new.vnets {
        if let Some(at) = position(&old.vnets, name) {
            operations.extend(gone(&old.vnets[at].subnets, &vnet.subnets).map(|subnet| {
                Operation::DeleteSubnet {
                    vnet: name.clone(),
                    name: subnet,
                }
            }));
        }
    }
    operations
}

fn machines_put(old: &Config, new: &Config) -> Vec<Operation> {
    let vms = new.vms.iter().filter_map(|(name, vm)| {
        let before = value(&old.vms, name);
        let vm = pin::kept(before, vm);
        (before != Some(&vm)).then(|| Operation::PutVm {
            name: name.clone(),
            vm: Box::new(vm),
        })
    });
    let nics = new.network_interfaces.iter().filter_map(|(name, nic)| {
        let before = value(&old.network_interfaces, name);
        let nic = pin::kept_nic(before, nic);
        (before != Some(&nic)).then(|| Operation::PutNic {
            name: name.clone(),
            nic: Box::new(nic),
        })
    });
    let balancers = new.load_balancers.iter().filter_map(|(name, balancer)| {
        let before = value(&old.load_balancers, name);
        let balancer = pin::kept_balancer(before, balancer);
        (before != Some(&balancer)).then(|| Operation::PutLoadBalancer {
            name: name.clone(),
            balancer: Box::new(balancer),
        })
    });
    vms.chain(nics).chain(balancers).collect()
}

fn gateways_put(old: &Config, new: &Config) -> Vec<Operation> {
    let gateways = changed(&old.gateways, &new.gateways).map(|(name, it)| Operation::PutGateway {
        name,
        gateway: Box::new(it.clone()),
    });
    let sites = changed(&old.sites, &new.sites).map(|(name, it)| Operation::PutSite {
        name,
        site: Box::new(it.clone()),
    });
    let connections =
        changed(&old.connections, &new.connections).map(|(name, it)| Operation::PutConnection {
            name,
            connection: Box::new(it.clone()),
        });
    gateways.chain(sites).chain(connections).collect()
}

fn peerings_gone(old: &Config, new: &Config) -> Vec<Operation> {
    let kept = objects(new);
    let objects = objects(old).into_iter();
    let gone = objects.filter(|(ends, it)| {
        // Another remote VNet means another peering (PEER-02).
        let same = kept
            .get(ends)
            .is_some_and(|new| new.to.eq_ignore_ascii_case(&it.to));
        !same
    });
    gone.map(|(_, it)| Operation::DeletePeering {
        vnet: it.from.clone(),
        name: it.name.clone(),
    })
    .collect()
}

/// A Disconnected peering that the file wants otherwise is put again, which is how it recovers (PEER-06). One whose
/// `remoteAddressSpace` is given is synchronised to it: that is what the remote VNet has, or the file would be refused.
fn peerings_put(old: &Config, new: &Config) -> Vec<Operation> {
    let before = objects(old);
    let mut operations = Vec::new();
    for (ends, it) in objects(new) {
        let writable = |it: &Peering| Peering {
            peering_state: None,
            remote_address_space: Vec::new(),
            ..it.clone()
        };
        let disconnected = |it: &Peering| it.peering_state == Some(PeeringState::Disconnected);
        let was = before.get(&ends);
        let recover = was.is_some_and(|old| disconnected(old) && !disconnected(it));
        let (vnet, name) = (it.from.clone(), it.name.clone());
        if recover && new.profile != Some(Profile::Azure2025) {
            operations.push(Operation::DeletePeering {
                vnet: vnet.clone(),
                name: name.clone(),
            });
        }
        if recover || was.is_none_or(|old| writable(old) != writable(it)) {
            operations.push(Operation::PutPeering {
                peering: Box::new(it.clone()),
            });
        }
        let stale = was.is_some_and(|old| old.remote_address_space != it.remote_address_space);
        if stale && !recover && !it.remote_address_space.is_empty() {
            operations.push(Operation::SyncPeering { vnet, name });
        }
    }
    operations
}

/// By VNet and name, in lower case.
fn objects(config: &Config) -> IndexMap<(String, String), &Peering> {
    let all = config.peerings.iter().filter_map(peerings::object);
    all.map(|it| ((it.from.to_lowercase(), it.name.to_lowercase()), it))
        .collect()
}

/// Names of `one` that `other` has not.
fn gone<'a, T>(
    one: &'a IndexMap<String, T>,
    other: &'a IndexMap<String, T>,
) -> impl Iterator<Item = String> + 'a {
    one.keys().filter(|name| position(other, name).is_none()).cloned()
}

/// What `new` has and `old` has not, or otherwise.
fn changed<'a, T: PartialEq>(
    old: &'a IndexMap<String, T>,
    new: &'a IndexMap<String, T>,
) -> impl Iterator<Item = (String, &'a T)> + 'a {
    new.iter()
        .filter(|(name, it)| position(old, name).is_none_or(|at| old[at] != **it))
        .map(|(name, it)| (name.clone(), it))
}
