//! What a guest does with a packet: Linux with the addresses and routes that a lab gives its VMs.

use std::net::IpAddr;

use model::Topology;
use model::topology::{NicIndex, VmIndex};
use packet::FlowKey;
use packet::key::unmapped;

use super::walk::Node;
use crate::compile::balancers::floating;

/// What becomes of a packet that reached a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The guest has the destination address, on this NIC.
    Delivered(Node),
    /// The guest forwards it by this NIC.
    Forwarded(NicIndex),
    /// It claims to come from the guest itself.
    Martian,
    /// The guest does not forward.
    NotForwarding,
    /// The guest has no route for it.
    NoRoute,
}

/// The interface by which a guest sends to an address: the longest connected subnet; of equal ones `preferred`, else the
/// first; else the default route, which is eth0's alone (VNET-11). None: the family is off there.
pub(super) fn egress(
    topology: &Topology,
    vm: VmIndex,
    destination: IpAddr,
    preferred: Option<NicIndex>,
) -> Option<NicIndex> {
    let nics = &topology.vms[vm.0].nics;
    let connected = nics.iter().filter_map(|&nic| {
        let subnet = &topology.subnets[topology.nics[nic.0].subnet.0];
        let on_link = subnet.prefixes.iter().filter(|prefix| {
            prefix.contains(&destination)
                && topology.nics[nic.0]
                    .addresses
                    .iter()
                    .any(|address| prefix.contains(address))
        });
        let length = on_link.map(|prefix| prefix.prefix_len()).max()?;
        Some(((length, Some(nic) == preferred), nic))
    });
    let longest = connected.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let default = || {
        nics.first()
            .copied()
            .filter(|&nic| speaks(topology, nic, destination))
    };
    longest.map(|(_, nic)| nic).or_else(default)
}

/// The fate of a packet at the guest behind a NIC.
pub(super) fn receive(topology: &Topology, nic: NicIndex, key: &FlowKey) -> Fate {
    let destination = unmapped(key.destination);
    let Some(vm) = topology.nics[nic.0].vm else {
        // Behind a VNet port nobody forwards, and the fabric has checked the destination.
        return Fate::Delivered(Node::Nic(nic));
    };
    let guest = &topology.vms[vm.0];
    // A guest answers for all its addresses, whichever interface the packet came by.
    let owner = |address: IpAddr| {
        guest
            .nics
            .iter()
            .copied()
            .find(|own| topology.nics[own.0].addresses.contains(&address))
    };
    // Linux looks at the source before it forwards or delivers (`accept_local` is 0), but only for IPv4.
    if destination.is_ipv4() && owner(unmapped(key.source)).is_some() {
        return Fate::Martian;
    }
    if let Some(own) = owner(destination) {
        return Fate::Delivered(Node::Nic(own));
    }
    if floating(topology, nic).contains(&destination) {
        return Fate::Delivered(Node::Nic(nic));
    }
    if !guest.forwarding {
        return Fate::NotForwarding;
    }
    if !speaks(topology, nic, destination) {
        return Fate::NoRoute;
    }
    egress(topology, vm, destination, None).map_or(Fate::NoRoute, Fate::Forwarded)
}

/// Whether the address is the guest's own, on whichever interface.
pub(super) fn has(topology: &Topology, vm: VmIndex, address: IpAddr) -> bool {
    let nics = &topology.vms[vm.0].nics;
    nics.iter().any(|&nic| {
        // LB-04: a backend has the frontend of a floating IP on its loopback.
        topology.nics[nic.0].addresses.contains(&address) || floating(topology, nic).contains(&address)
    })
}

/// Whether the interface has an address of the family; IPv6 is off where it has none.
fn speaks(topology: &Topology, nic: NicIndex, like: IpAddr) -> bool {
    topology.nics[nic.0]
        .addresses
        .iter()
        .any(|address| address.is_ipv4() == like.is_ipv4())
}
