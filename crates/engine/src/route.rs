//! Step 6: longest-prefix match, and where its next hop leads.
//! Reads: the sender's FIB, addresses of VNets and of the Internet. Writes: nothing.
//! Ends with: `NoRoute`, `RouteNone`, `NextHopUnreachable`, `NoDestination`, `NoInternet`, `NoGateway`.

use packet::FlowKey;

use crate::fib::{NextHop, RouteId};
use crate::reason::DropReason;
use crate::rewrite::Rewrite;
use crate::snapshot::{FibId, NicId, PeeringId, PortId, Snapshot};

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The receiving NIC; None: the packet leaves for the Internet.
    pub to: Option<NicId>,
    /// The port it is written to.
    pub port: PortId,
    /// The peering it crosses, seen from the sender.
    pub peering: Option<PeeringId>,
    /// Addresses changed at the Internet edge on the way.
    pub rewrite: Rewrite,
    /// The largest IP packet that passes, in bytes (NET-03).
    pub mtu: u16,
    /// Who says so to the sender of a larger one: the address of the gateway that owns the narrow place (128-bit form).
    /// None: the fabric, in the name of the sender's router.
    pub narrowed_by: Option<u128>,
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

/// Routes a packet that a NIC sends (ROUTE-20, ROUTE-24): the sender's table decides, once (ROUTE-18, ROUTE-42).
#[must_use]
pub fn route(snapshot: &Snapshot, from: NicId, key: &FlowKey) -> Routed {
    let nic = &snapshot.nics[from.index()];
    let fib = &snapshot.fibs[nic.fib.index()];
    let Some(found) = fib.lookup(key.destination) else {
        return Routed {
            route: None,
            outcome: Err(DropReason::NoRoute),
        };
    };
    let outcome = match fib.routes()[found.index()].next_hop {
        NextHop::VnetLocal => snapshot.vnets[nic.vnet.index()]
            .nic_of(key.destination)
            .map(|to| deliver(snapshot, to, None))
            .ok_or(DropReason::NoDestination),
        NextHop::Peering(peering) => {
            let remote = snapshot.peerings[peering.index()].remote;
            (snapshot.vnets[remote.index()].nic_of(key.destination))
                .map(|to| deliver(snapshot, to, Some(peering)))
                .ok_or(DropReason::NoDestination)
        }
        NextHop::Appliance(Some((to, peering))) => Ok(deliver(snapshot, to, peering)),
        NextHop::Appliance(None) => Err(DropReason::NextHopUnreachable),
        NextHop::Internet => to_internet(snapshot, from, key),
        NextHop::NoGateway => Err(DropReason::NoGateway),
        NextHop::None => Err(DropReason::RouteNone),
    };
    Routed {
        route: Some((nic.fib, found)),
        outcome,
    }
}

/// Routes a packet that the Internet sends: to the NIC that has the destination as its public address.
///
/// # Errors
/// `NoDestination`: nobody has it.
pub fn from_internet(snapshot: &Snapshot, key: &FlowKey) -> Result<Hop, DropReason> {
    let (to, private) = behind_public(snapshot, key.destination).ok_or(DropReason::NoDestination)?;
    let rewrite = Rewrite {
        source: None,
        destination: Some(private),
    };
    Ok(Hop {
        rewrite,
        ..deliver(snapshot, to, None)
    })
}

fn deliver(snapshot: &Snapshot, to: NicId, peering: Option<PeeringId>) -> Hop {
    let port = snapshot.nics[to.index()].port;
    Hop {
        to: Some(to),
        port,
        peering,
        rewrite: Rewrite::default(),
        mtu: PATH_MTU,
        narrowed_by: None,
    }
}

/// The edge: the source becomes the sender's public address; another NIC's public address leads back in.
fn to_internet(snapshot: &Snapshot, from: NicId, key: &FlowKey) -> Result<Hop, DropReason> {
    let internet = snapshot.internet.as_ref().ok_or(DropReason::NoInternet)?;
    let source = Some(public_of(snapshot, from, key.source).ok_or(DropReason::NoInternet)?);
    if let Some((to, private)) = behind_public(snapshot, key.destination) {
        let rewrite = Rewrite {
            source,
            destination: Some(private),
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
        destination: None,
    };
    Ok(Hop {
        to: None,
        port: internet.port,
        peering: None,
        rewrite,
        mtu: PATH_MTU,
        narrowed_by: None,
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
