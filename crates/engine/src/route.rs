//! Step 6: longest-prefix match, and where its next hop leads.
//! Reads: the sender's FIB, addresses of VNets and of the Internet, gateways. Writes: nothing.
//! Ends with: `NoRoute`, `RouteNone`, `NextHopUnreachable`, `NoDestination`, `NoInternet`, `NoGateway`, `NoBackend`,
//! `PlatformReserved`.

use packet::FlowKey;

use crate::balance::{Balanced, through_frontend, to_frontend};
use crate::classify::is_probed;
use crate::fib::{Fib, NextHop, RouteId};
use crate::gateway::{Gateways, Passed, speaker, through};
use crate::hash::symmetric;
use crate::reason::DropReason;
use crate::rewrite::Rewrite;
use crate::snapshot::{FibId, GatewayId, NicId, PeeringId, PortId, Snapshot, VnetId};

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The receiving NIC; None: the Internet, the platform, a site, or a gateway's own namespace, behind
    /// the port.
    pub to: Option<NicId>,
    /// The port it is written to.
    pub port: PortId,
    /// The peering it crosses on its last leg, seen from the sender or the last gateway.
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
    /// Gateways passed on the way.
    pub gateways: Gateways,
}

impl Hop {
    /// Nothing of a packet changes on the way, so a burst of its flow may follow it unlooked.
    pub(crate) fn is_cacheable(&self) -> bool {
        self.rewrite.is_none() && self.balanced.is_none() && self.gateways.is_empty()
    }

    /// The peerings that count the packet (PEER-37). What a gateway takes to a site or, `from_nic` being false, brings
    /// from one is no peering traffic.
    pub(crate) fn metered(&self, from_nic: bool) -> [Option<PeeringId>; 2] {
        if self.gateways.is_empty() || (from_nic && self.to.is_some()) {
            [self.gateways.over, self.peering]
        } else {
            [None, None]
        }
    }

    /// To somebody who is no NIC: the Internet, the platform, a site, a gateway.
    pub(crate) fn beyond(port: PortId) -> Self {
        Self {
            to: None,
            port,
            peering: None,
            rewrite: Rewrite::default(),
            mtu: PATH_MTU,
            narrowed_by: None,
            balanced: None,
            gateways: Gateways::default(),
        }
    }
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

/// Routes a packet that a NIC sends (ROUTE-20, ROUTE-24): the sender's table decides, once (ROUTE-18, ROUTE-42), and
/// then the tables of the gateways it leads to. `flow` is the packet's own key, or that of the packet an ICMP error
/// quotes: it chooses where several next hops share a route. `keep` is the backend that a balanced flow went to so far
/// (LB-02).
#[must_use]
pub fn route(snapshot: &Snapshot, from: NicId, key: &FlowKey, flow: &FlowKey, keep: Option<NicId>) -> Routed {
    route_and_tell(snapshot, from, key, flow, keep, |_| {})
}

/// As [`route`], and says what each gateway on the way does.
#[must_use]
pub fn route_and_tell(
    snapshot: &Snapshot,
    from: NicId,
    key: &FlowKey,
    flow: &FlowKey,
    keep: Option<NicId>,
    told: impl FnMut(Passed),
) -> Routed {
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
    let outcome = match next_hop(fib, found, flow) {
        NextHop::Internet => to_internet(snapshot, from, key),
        NextHop::ServiceEndpoint => to_service(snapshot, from, key),
        NextHop::Gateway(gateway, over) => through(snapshot, gateway, over, key, told),
        next_hop => follow(snapshot, nic.vnet, next_hop, key, keep),
    };
    Routed {
        route: Some((nic.fib, found)),
        outcome,
    }
}

/// Takes a packet from a gateway into its VNet, by a route of GatewaySubnet's table. To the Internet there is no way:
/// a gateway does not translate addresses (GW-13); nor to itself or to the gateway beside it.
pub(crate) fn inside(
    snapshot: &Snapshot,
    gateway: GatewayId,
    fib: FibId,
    route: RouteId,
    key: &FlowKey,
    gateways: Gateways,
) -> Result<Hop, DropReason> {
    let vnet = snapshot.gateways[gateway.index()].vnet;
    match next_hop(&snapshot.fibs[fib.index()], route, key) {
        NextHop::Internet | NextHop::Gateway(..) => Err(DropReason::NoRoute),
        next_hop => follow(snapshot, vnet, next_hop, key, None).map(|hop| gateways.applied_to(hop, snapshot)),
    }
}

/// The next hop of a route; where several share it that of the flow: both directions have the same, whoever asks
/// (ROUTE-36). None is left out for being unreachable: Azure does not probe them.
fn next_hop(fib: &Fib, route: RouteId, flow: &FlowKey) -> NextHop {
    match fib.routes()[route.index()].next_hop {
        NextHop::Shared(id) => fib.share(id, symmetric(flow)),
        next_hop => next_hop,
    }
}

/// Next hops that stay inside a VNet and its peers.
fn follow(
    snapshot: &Snapshot,
    vnet: VnetId,
    next_hop: NextHop,
    key: &FlowKey,
    keep: Option<NicId>,
) -> Result<Hop, DropReason> {
    match next_hop {
        NextHop::VnetLocal => within(snapshot, vnet, None, key, keep),
        NextHop::Peering(peering) => {
            let remote = snapshot.peerings[peering.index()].remote;
            within(snapshot, remote, Some(peering), key, keep)
        }
        NextHop::Appliance(Some((to, peering))) => Ok(deliver(snapshot, to, peering)),
        // Shared next hops do not nest.
        NextHop::Appliance(None) | NextHop::Shared(_) => Err(DropReason::NextHopUnreachable),
        NextHop::Balancer(frontend, peering) => through_frontend(snapshot, frontend, peering, key, keep),
        NextHop::None => Err(DropReason::RouteNone),
        NextHop::NoGateway
        | NextHop::Internet
        | NextHop::ServiceEndpoint
        | NextHop::Gateway(..)
        | NextHop::Connection(_) => Err(DropReason::NoGateway),
    }
}

/// Where the destination address leads in a VNet: to its NIC, to a gateway's BGP speaker, or behind a load balancer
/// (LB-01). `peering` is the one
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
    let own = &snapshot.vnets[vnet.index()];
    if let Some(to) = own.nic_of(key.destination) {
        return Ok(deliver(snapshot, to, peering));
    }
    match speaker(snapshot, &own.gateways, key.destination) {
        Some(port) => Ok(Hop {
            peering,
            ..Hop::beyond(port)
        }),
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

/// Routes a packet that the Internet sends: to the NIC that has the destination as its public address, or from a service
/// to the private address of a NIC that has an endpoint for it (ROUTE-09).
///
/// # Errors
/// `NoDestination`: nobody has it.
pub fn from_internet(snapshot: &Snapshot, key: &FlowKey) -> Result<Hop, DropReason> {
    let Some((to, private)) = behind_public(snapshot, key.destination) else {
        return endpoint_client(snapshot, key)
            .map(|to| deliver(snapshot, to, None))
            .ok_or(DropReason::NoDestination);
    };
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
        peering,
        ..Hop::beyond(port)
    }
}

/// To 168.63.129.16 no route applies, a user's neither (VNET-08).
fn to_platform(snapshot: &Snapshot, vnet: VnetId) -> Result<Hop, DropReason> {
    let ports = &snapshot.platform;
    let at = ports.binary_search_by_key(&vnet, |&(vnet, _)| vnet);
    let (_, port) = ports[at.map_err(|_| DropReason::PlatformReserved)?];
    Ok(Hop::beyond(port))
}

/// ROUTE-09: the service sees the private source, which is the NIC's own, and needs no public address for it.
fn to_service(snapshot: &Snapshot, from: NicId, key: &FlowKey) -> Result<Hop, DropReason> {
    let internet = snapshot.internet.as_ref().ok_or(DropReason::NoInternet)?;
    if !snapshot.nics[from.index()].addresses.contains(&key.source) {
        return Err(DropReason::NoInternet);
    }
    if internet.addresses.binary_search(&key.destination).is_err() {
        return Err(DropReason::NoDestination);
    }
    Ok(Hop::beyond(internet.port))
}

/// The NIC that a service answers: it has the address, and its table sends the service's over an endpoint.
fn endpoint_client(snapshot: &Snapshot, key: &FlowKey) -> Option<NicId> {
    let clients = &snapshot.internet.as_ref()?.endpoint_clients;
    let at = clients
        .binary_search_by_key(&key.destination, |&(address, _)| address)
        .ok()?;
    let (_, nic) = clients[at];
    let fib = &snapshot.fibs[snapshot.nics[nic.index()].fib.index()];
    let route = &fib.routes()[fib.lookup(key.source)?.index()];
    (route.next_hop == NextHop::ServiceEndpoint).then_some(nic)
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
        rewrite,
        ..Hop::beyond(internet.port)
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
