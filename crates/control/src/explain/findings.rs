//! What is worth knowing about a path beyond its verdict.

use model::Topology;
use model::topology::{Endpoint, NicIndex, PeeringState, VnetIndex};

use super::walk::{Node, Walk, name};
use crate::present::{Drop, Finding};

/// All findings: those made on the way, then those that both ways and the peerings show.
pub(super) fn all(
    topology: &Topology,
    forward: &Walk<'_>,
    reply: &Walk<'_>,
    drop: Option<&Drop>,
    from: Node,
    to: &Endpoint,
) -> Vec<Finding> {
    let mut findings = forward.findings.clone();
    // What both ways show is said once.
    for finding in &reply.findings {
        let same = |known: &Finding| known.code == finding.code && known.message == finding.message;
        if !findings.iter().any(same) {
            findings.push(finding.clone());
        }
    }
    if !reply.nodes.is_empty() {
        findings.extend(asymmetry(topology, forward, reply));
        findings.extend(one_direction(topology, forward, reply, drop));
    }
    if let (Some(from), Some(to)) = (vnet_of(topology, from), asked_vnet(topology, to))
        && from != to
    {
        findings.extend(one_sided(topology, from, to));
        let stopped = drop.and_then(|drop| drop.reason);
        if forward.nodes.len() == 1 && matches!(stopped, Some("RouteNone" | "NsgOutbound")) {
            findings.extend(not_transitive(topology, from, to));
        }
    }
    findings.extend(stopped(topology, from, to));
    if let Some(drop) = drop {
        findings.extend(flags(
            topology,
            drop,
            if drop.path == "forward" { forward } else { reply },
        ));
    }
    findings
}

/// Who sends or is asked for is a VM that does not run.
fn stopped(topology: &Topology, from: Node, to: &Endpoint) -> Vec<Finding> {
    let to = match to {
        Endpoint::Nic(nic) => Some(*nic),
        Endpoint::Address(address) => topology.nic_at(*address),
        Endpoint::Internet | Endpoint::Site(_) => None,
    };
    let from = match from {
        Node::Nic(nic) => Some(nic),
        _ => None,
    };
    let vms = [from, to].into_iter().flatten();
    let vms = vms.filter_map(|nic| topology.nics[nic.0].vm.map(|vm| &topology.vms[vm.0]));
    let stopped = vms.filter(|vm| !vm.running).map(|vm| Finding {
        code: "VmStopped",
        message: format!(
            "VM {} is stopped: it sends nothing, and nobody finds its addresses",
            vm.name
        ),
    });
    stopped.collect()
}

/// It reached somebody who has the address, but not the one who was asked for.
pub(super) fn elsewhere(topology: &Topology, at: Node, what: &str) -> Finding {
    Finding {
        code: "DeliveredElsewhere",
        message: format!(
            "{what} reaches {}, not the endpoint that was asked for: another NIC has that address, or it was rewritten",
            name(topology, at)
        ),
    }
}

/// The reply passes other NICs than the packet did (ROUTE-42, NVA-05).
fn asymmetry(topology: &Topology, forward: &Walk<'_>, reply: &Walk<'_>) -> Option<Finding> {
    let same = forward
        .nodes
        .iter()
        .rev()
        .zip(&reply.nodes)
        .all(|(one, other)| one == other)
        && reply.nodes.len() <= forward.nodes.len();
    let listed = |nodes: &[Node]| {
        nodes
            .iter()
            .map(|&node| name(topology, node))
            .collect::<Vec<_>>()
            .join(", ")
    };
    (!same).then(|| Finding {
        code: "AsymmetricPath",
        message: format!(
            "the packet passes {}; the reply {}",
            listed(&forward.nodes),
            listed(&reply.nodes)
        ),
    })
}

/// An appliance sees one direction only: a stateful one breaks the connection (NVA-05).
fn one_direction(
    topology: &Topology,
    forward: &Walk<'_>,
    reply: &Walk<'_>,
    drop: Option<&Drop>,
) -> Option<Finding> {
    let vms = |walk: &Walk<'_>| -> Vec<_> {
        walk.appliances
            .iter()
            .filter_map(|nic| topology.nics[nic.0].vm)
            .collect()
    };
    let (there, back) = (vms(forward), vms(reply));
    // A reply that a rule stopped did not get as far as showing its way.
    let complete = drop.is_none_or(|drop| drop.route.is_some());
    let missed = there.iter().find(|vm| complete && !back.contains(vm));
    let alone = missed.or_else(|| back.iter().find(|vm| !there.contains(vm)))?;
    Some(Finding {
        code: "OneDirectionAppliance",
        message: format!(
            "{} forwards only {}; give the other direction a user route through it too",
            topology.vms[alone.0].name,
            if missed.is_some() {
                "the packet, not the reply"
            } else {
                "the reply, not the packet"
            }
        ),
    })
}

/// A peering that is not Connected carries nothing (PEER-03, PEER-05, PEER-07).
fn one_sided(topology: &Topology, from: VnetIndex, to: VnetIndex) -> Vec<Finding> {
    let between = topology.peerings.iter().filter(|peering| {
        (peering.from, peering.to) == (from, to) || (peering.from, peering.to) == (to, from)
    });
    let idle = between.filter(|peering| peering.state != PeeringState::Connected);
    let finding = |peering: &model::topology::Peering| {
        let (local, remote) = (
            &topology.vnets[peering.from.0].name,
            &topology.vnets[peering.to.0].name,
        );
        let (state, remedy) = match peering.state {
            PeeringState::Disconnected => {
                ("Disconnected", "delete it and create both sides again".to_owned())
            }
            _ => ("Initiated", format!("create a peering from {remote} to {local}")),
        };
        Finding {
            code: "OneSidedPeering",
            message: format!(
                "{local}/{} is {state} and carries nothing; {remedy}",
                peering.name
            ),
        }
    };
    idle.map(finding).collect()
}

/// PEER-12.
fn not_transitive(topology: &Topology, from: VnetIndex, to: VnetIndex) -> Option<Finding> {
    let connected = |a: VnetIndex, b: VnetIndex| {
        topology.peerings.iter().any(|peering| {
            peering.state == PeeringState::Connected
                && ((peering.from, peering.to) == (a, b) || (peering.from, peering.to) == (b, a))
        })
    };
    if connected(from, to) {
        return None;
    }
    let middle = (0..topology.vnets.len())
        .map(VnetIndex)
        .find(|&middle| connected(from, middle) && connected(middle, to))?;
    let vnet = |vnet: VnetIndex| &topology.vnets[vnet.0].name;
    Some(Finding {
        code: "NotTransitive",
        message: format!(
            "{0} and {1} are each peered with {2}, but peering is not transitive; peer {0} with {1}, or route both \
             through an appliance in {2}",
            vnet(from),
            vnet(to),
            vnet(middle)
        ),
    })
}

/// Which switch a drop asks for.
fn flags(topology: &Topology, drop: &Drop, walk: &Walk<'_>) -> Option<Finding> {
    let link = walk.hops.last().and_then(|hop| hop.link.as_deref());
    match drop.reason? {
        "ForwardedTrafficOff" => Some(Finding {
            code: "ForwardedTrafficOff",
            message: format!(
                "the packet crosses {} with a source of another VNet; the peering in the opposite direction needs \
                 allowForwardedTraffic",
                link?
            ),
        }),
        "PeeringAccessOff" => Some(Finding {
            code: "PeeringAccessOff",
            message: if joins_subnets(topology, link?) {
                format!(
                    "{} joins some subnets only, though all have its routes; name the subnet on both sides to join it",
                    link?
                )
            } else {
                format!(
                    "{} or the peering in the opposite direction has allowVirtualNetworkAccess off",
                    link?
                )
            },
        }),
        "NotForNic" => {
            let nic = topology.nics.iter().find(|nic| nic.name == drop.at)?;
            Some(Finding {
                code: "IpForwardingOff",
                message: format!(
                    "a route leads to {}, which does not forward; set enableIPForwarding on it and forwarding on its VM",
                    nic.name
                ),
            })
        }
        _ => None,
    }
}

/// PEER-40.
fn joins_subnets(topology: &Topology, link: &str) -> bool {
    let named = |it: &&model::topology::Peering| {
        link.strip_suffix(&it.name)
            .and_then(|rest| rest.strip_suffix('/'))
            == Some(&topology.vnets[it.from.0].name)
    };
    topology
        .peerings
        .iter()
        .find(named)
        .is_some_and(|it| it.subnets.is_some())
}

fn vnet_of(topology: &Topology, node: Node) -> Option<VnetIndex> {
    match node {
        Node::Nic(nic) => Some(topology.subnets[topology.nics[nic.0].subnet.0].vnet),
        Node::Gateway(gateway) => Some(topology.gateways[gateway.0].vnet),
        Node::Internet | Node::Site(_) => None,
    }
}

/// The VNet of the endpoint asked for; of an address only where one NIC has it.
fn asked_vnet(topology: &Topology, to: &Endpoint) -> Option<VnetIndex> {
    match *to {
        Endpoint::Nic(nic) => vnet_of(topology, Node::Nic(nic)),
        Endpoint::Internet | Endpoint::Site(_) => None,
        Endpoint::Address(address) => {
            let mut nics = (0..)
                .zip(&topology.nics)
                .filter(|(_, nic)| nic.addresses.contains(&address));
            match (nics.next(), nics.next()) {
                (Some((index, _)), None) => vnet_of(topology, Node::Nic(NicIndex(index))),
                _ => None,
            }
        }
    }
}
