//! Step 6: longest-prefix match, and where its next hop leads.
//! Reads: the sender's FIB, addresses of VNets and of the Internet. Writes: nothing.
//! Ends with: `NoRoute`, `RouteNone`, `NextHopUnreachable`, `NoDestination`, `NoInternet`, `NoGateway`, `NoBackend`,
//! `PlatformReserved`.

use packet::FlowKey;

use crate::balance::{Balanced, through_frontend, to_frontend};
use crate::classify::is_probed;
use crate::fib::{NextHop, RouteId};
use crate::reason::DropReason;
use crate::rewrite::Rewrite;
use crate::snapshot::{FibId, NicId, PeeringId, PortId, Snapshot, VnetId};

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The receiving NIC; None: the packet leaves for the Internet or the platform.
    pub to: Option<NicId>,
    /// The port it is written to.
    pub port: PortId,
    /// The peering it crosses, seen from the sender.
    pub peering: Option<PeeringId>,
    /// Addresses and ports changed on the way, at the Internet edge or by a load balancer.
    pub rewrite: Rewrite,
    /// The largest IP packet that passes, in bytes (NET-03).
    pub mtu: u16,
    /// Who says so to the sender of a larger one: the address of the gateway that owns the narrow place (128-bit form).
    /// None: the fabric, in the name of the sender's router.
    pub narrowed_by: Option<u128>,
    /// The load balancing rule that chose the receiver.
    pub balanced: Option<Balanced>,
}

/// What routing says, and by which route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// None: no route matches.
    pub route: Option<(FibId, RouteId)>,
    pub outcome: Result<Hop, DropReason>,
}

/// NET-03: the path MTU between VMs, over peerings and to the Internet.
pub const PATH_MTU: u16 = 1500;

/// Routes a packet that a NIC sends (ROUTE-20, ROUTE-24): the sender's table decides, once (ROUTE-18, ROUTE-42). `keep`
/// is the backend that a balanced flow went to so far (LB-02).
#[must_use]
pub fn route(snapshot: &Snapshot, from: NicId, key: &FlowKey, keep: Option<NicId>) -> Routed {
    let nic = &snapshot.nics[from.index()];
    if is_probed(key) {
        return Routed {
            route: None,
            outcome: to_platform(snapshot, nic.vnet),
        };
    }
    let fib = &snapshot.fibs[nic.fib.index()];
    let Some(found) = fib.lookup(key.destination) else {
        return Routed {
            route: None,
            outcome: Err(DropReason::NoRoute),
        };
    };
    let outcome = match fib.routes()[found.index()].next_hop {
        NextHop::VnetLocal => within(snapshot, nic.vnet, None, key, keep),
        NextHop::Peering(peering) => {
            let remote = snapshot.peerings[peering.index()].remote;
            within(snapshot, remote, Some(peering), key, keep)
        }
        NextHop::Appliance(Some((to, peering))) => Ok(deliver(snapshot, to, peering)),
        NextHop::Appliance(None) => Err(DropReason::NextHopUnreachable),
        NextHop::Balancer(frontend, peering) => through_frontend(snapshot, frontend, peering, key, keep),
        NextHop::Internet => to_internet(snapshot, from, key),
        NextHop::NoGateway => Err(DropReason::NoGateway),
        NextHop::None => Err(DropReason::RouteNone),
    };
    Routed {
        route: Some((nic.fib, found)),
        outcome,
    }
}

/// Where the destination address leads in a VNet: to its NIC, or behind a load balancer (LB-01). `peering` is the one
/// crossed on the way there.
///
/// # Errors
/// `NoDestination`, `NoBackend`.
pub fn within(
    snapshot: &Snapshot,
    vnet: VnetId,
    peering: Option<PeeringId>,
    key: &FlowKey,
    keep: Option<NicId>,
) -> Result<Hop, DropReason> {
    match snapshot.vnets[vnet.index()].nic_of(key.destination) {
        Some(to) => Ok(deliver(snapshot, to, peering)),
        None => to_frontend(snapshot, vnet, peering, key, keep),
    }
}

/// Routes a packet that the platform sends to a NIC of a VNet (VNET-08): no table is asked.
///
/// # Errors
/// `NoDestination`: nobody in the VNet has the address.
pub fn from_platform(snapshot: &Snapshot, vnet: VnetId, key: &FlowKey) -> Result<Hop, DropReason> {
    let to = snapshot.vnets[vnet.index()].nic_of(key.destination);
    to.map(|to| deliver(snapshot, to, None))
        .ok_or(DropReason::NoDestination)
}

/// Routes a packet that the Internet sends: to the NIC that has the destination as its public address.
///
/// # Errors
/// `NoDestination`: nobody has it.
pub fn from_internet(snapshot: &Snapshot, key: &FlowKey) -> Result<Hop, DropReason> {
    let (to, private) = behind_public(snapshot, key.destination).ok_or(DropReason::NoDestination)?;
    let rewrite = Rewrite {
        destination: Some(private),
        ..Rewrite::default()
    };
    Ok(Hop {
        rewrite,
        ..deliver(snapshot, to, None)
    })
}

pub(crate) fn deliver(snapshot: &Snapshot, to: NicId, peering: Option<PeeringId>) -> Hop {
    let port = snapshot.nics[to.index()].port;
    Hop {
        to: Some(to),
        port,
        peering,
        rewrite: Rewrite::default(),
        mtu: PATH_MTU,
        narrowed_by: None,
        balanced: None,
    }
}

/// To 168.63.129.16 no route applies, a user's neither (VNET-08).
fn to_platform(snapshot: &Snapshot, vnet: VnetId) -> Result<Hop, DropReason> {
    let ports = &snapshot.platform;
    let at = ports.binary_search_by_key(&vnet, |&(vnet, _)| vnet);
    let (_, port) = ports[at.map_err(|_| DropReason::PlatformReserved)?];
    Ok(Hop {
        to: None,
        port,
        peering: None,
        rewrite: Rewrite::default(),
        balanced: None,
        mtu: PATH_MTU,
        narrowed_by: None,
    })
}

/// The edge: the source becomes the sender's public address; another NIC's public address leads back in.
fn to_internet(snapshot: &Snapshot, from: NicId, key: &FlowKey) -> Result<Hop, DropReason> {
    let internet = snapshot.internet.as_ref().ok_or(DropReason::NoInternet)?;
    let source = Some(public_of(snapshot, from, key.source).ok_or(DropReason::NoInternet)?);
    if let Some((to, private)) = behind_public(snapshot, key.destination) {
        let rewrite = Rewrite {
            source,
            destination: Some(private),
            ..Rewrite::default()
        };
        return Ok(Hop {
            rewrite,
            ..deliver(snapshot, to, None)
        });
    }
    if internet.addresses.binary_search(&key.destination).is_err() {
        return Err(DropReason::NoDestination);
    }
    let rewrite = Rewrite {
        source,
        ..Rewrite::default()
    };
    Ok(Hop {
        to: None,
        port: internet.port,
        peering: None,
        rewrite,
        mtu: PATH_MTU,
        narrowed_by: None,
        balanced: None,
    })
}

/// The public address that stands for a private one: only the NIC's first address of a family has one, and
/// a packet an appliance forwards in another's name has none (NVA-03).
fn public_of(snapshot: &Snapshot, nic: NicId, private: u128) -> Option<u128> {
    let nic = &snapshot.nics[nic.index()];
    if first_of_family(&nic.addresses, private) != Some(private) {
        return None;
    }
    first_of_family(&nic.public, private)
}

fn behind_public(snapshot: &Snapshot, public: u128) -> Option<(NicId, u128)> {
    let all = &snapshot.public_addresses;
    let (_, nic) = all[all.binary_search_by_key(&public, |&(address, _)| address).ok()?];
    let private = first_of_family(&snapshot.nics[nic.index()].addresses, public)?;
    Some((nic, private))
}

fn first_of_family(addresses: &[u128], like: u128) -> Option<u128> {
    let ipv4 = |address: u128| address >> 32 == 0xffff;
    addresses
        .iter()
        .copied()
        .find(|&address| ipv4(address) == ipv4(like))
}
