//! Subnet peering: every subnet of the VNet sees the routes, packets pass between peered subnets only (PEER-40).

use ipnet::IpNet;
use model::Topology;
use model::topology::{PeeringIndex, PeeringState, SubnetIndex};

/// By subnet: the subnet peerings of its VNet that do not join it, in the order of the lab.
pub(crate) fn closed(topology: &Topology) -> Vec<Vec<PeeringIndex>> {
    let mut closed = vec![Vec::new(); topology.subnets.len()];
    for (index, peering) in topology.peerings.iter().enumerate() {
        if peering.subnets.is_none() || peering.state != PeeringState::Connected {
            continue;
        }
        for subnet in &topology.vnets[peering.from.0].subnets {
            if !joins(topology, PeeringIndex(index), *subnet, true) {
                closed[subnet.0].push(PeeringIndex(index));
            }
        }
    }
    closed
}

/// The route leads to a subnet that the other side does not peer.
pub(crate) fn leads_nowhere(topology: &Topology, peering: PeeringIndex, prefix: IpNet) -> bool {
    let Some(subnets) = &topology.peerings[peering.0].subnets else {
        return false;
    };
    let target = subnets.remote.iter().find(|subnet| {
        let prefixes = &topology.subnets[subnet.0].prefixes;
        prefixes.iter().any(|it| it.contains(&prefix))
    });
    target.is_some_and(|subnet| !joins(topology, peering, *subnet, false))
}

/// Both directions name the subnet, `local` or remote to the peering.
fn joins(topology: &Topology, peering: PeeringIndex, subnet: SubnetIndex, local: bool) -> bool {
    let own = &topology.peerings[peering.0];
    let named = |peering: &model::topology::Peering, local: bool| {
        let subnets = peering.subnets.as_ref();
        subnets.is_none_or(|it| if local { &it.local } else { &it.remote }.contains(&subnet))
    };
    let theirs = own.reverse.map(|reverse| &topology.peerings[reverse.0]);
    named(own, local) && theirs.is_none_or(|theirs| named(theirs, !local))
}
