//! Gateways on a packet's way: own table, connection, next gateway, until a site's port or a NIC (GW-08, GW-13).
//! Reads: gateways, connections, their tables, selectors. Writes: nothing.
//! Ends with: `NoRoute`, `NoDestination`, `TtlExpired`, and what the table of GatewaySubnet ends with.

use packet::FlowKey;

use crate::fib::{NextHop, RouteId};
use crate::link::{self, Legs};
use crate::reason::DropReason;
use crate::route::{Hop, inside};
use crate::snapshot::{Connection, ConnectionId, Far, FibId, GatewayId, LinkId, PeeringId, PortId, Snapshot};

/// More gateways in a row than any sensible lab has: beyond that, routes lead in a circle.
const MOST_GATEWAYS: usize = 8;

/// The gateways a packet passes, in order, and what they mean for it. None of them: the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateways {
    ids: [GatewayId; MOST_GATEWAYS],
    count: u8,
    /// The peering over which the sender reaches the first one. Such traffic is no peering traffic where it goes
    /// on to a site (PEER-37).
    pub over: Option<PeeringId>,
    /// The connection crossed last.
    pub connection: Option<ConnectionId>,
    /// Of the connections crossed, in order.
    links: Legs,
    /// The smallest MTU of the connections crossed, in bytes (NET-03), and the gateway before it.
    narrowest: Option<(u16, GatewayId)>,
}

/// What one gateway did with a packet, for whoever wants to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    pub gateway: GatewayId,
    /// The route that decided: of its own table, or of GatewaySubnet's. None: no route matched.
    pub route: Option<(FibId, RouteId)>,
    /// The connection it left by; None: into its VNet.
    pub connection: Option<ConnectionId>,
}

impl Default for Gateways {
    fn default() -> Self {
        Self {
            ids: [GatewayId(0); MOST_GATEWAYS],
            count: 0,
            over: None,
            connection: None,
            links: Legs::default(),
            narrowest: None,
        }
    }
}

impl Gateways {
    /// The gateways, first to last; each takes one from the time to live (GW-13).
    #[must_use]
    pub fn passed(&self) -> &[GatewayId] {
        &self.ids[..usize::from(self.count)]
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn pass(&mut self, gateway: GatewayId) -> Result<(), DropReason> {
        let free = self.ids.get_mut(usize::from(self.count));
        *free.ok_or(DropReason::TtlExpired)? = gateway;
        self.count += 1;
        Ok(())
    }

    /// The links of the connections crossed.
    pub(crate) fn links(&self) -> &Legs {
        &self.links
    }

    /// Over a connection whose `link` this is, from or to `gateway`.
    fn cross(&mut self, snapshot: &Snapshot, id: ConnectionId, link: LinkId, gateway: GatewayId) {
        self.connection = Some(id);
        self.links.push(link);
        let connection = &snapshot.connections[id.index()];
        let mtu = connection.mtu.min(link::mtu(snapshot, link));
        if self.narrowest.is_none_or(|(narrowest, _)| mtu < narrowest) {
            self.narrowest = Some((mtu, gateway));
        }
    }

    /// The hop as it is after all these gateways and connections.
    pub(crate) fn applied_to(self, hop: Hop, snapshot: &Snapshot) -> Hop {
        let narrow = self.narrowest.filter(|(mtu, _)| *mtu < hop.mtu);
        let teller = narrow.and_then(|(_, gateway)| snapshot.gateways[gateway.index()].addresses.first());
        Hop {
            mtu: narrow.map_or(hop.mtu, |(mtu, _)| mtu),
            narrowed_by: teller.copied().or(hop.narrowed_by),
            gateways: self,
            ..hop
        }
    }
}

/// Takes a packet on from a gateway it was sent to, over the peering `over` if the gateway is a peer's.
///
/// # Errors
/// `NoRoute`: neither the gateway nor GatewaySubnet has a route, or the connection's selectors do not name the packet, or
/// it is IPv6;
/// `TtlExpired`: too many gateways in a row; else as [`crate::route::route`].
pub fn through(
    snapshot: &Snapshot,
    gateway: GatewayId,
    over: Option<PeeringId>,
    key: &FlowKey,
    mut told: impl FnMut(Passed),
) -> Result<Hop, DropReason> {
    let gateways = Gateways {
        over,
        ..Gateways::default()
    };
    walk(snapshot, gateway, gateways, key, &mut told)
}

/// Routes a packet that a site sends into a connection.
///
/// # Errors
/// As [`through`].
pub fn from_site(
    snapshot: &Snapshot,
    from: ConnectionId,
    key: &FlowKey,
    mut told: impl FnMut(Passed),
) -> Result<Hop, DropReason> {
    let connection = &snapshot.connections[from.index()];
    let mut gateways = Gateways::default();
    if !selected(connection, key.destination, key.source) {
        return Err(DropReason::NoRoute);
    }
    let gateway = match connection.far {
        Far::Circuit(fib) => match circuit(snapshot, fib, key)? {
            NextHop::Gateway(gateway, _) => {
                attach(snapshot, from, fib, gateway, &mut gateways);
                gateway
            }
            NextHop::Connection(other) => {
                // From site to site: no gateway is on the way.
                gateways.connection = Some(from);
                return to_site(snapshot, other, gateways);
            }
            _ => return Err(DropReason::NoRoute),
        },
        Far::Site | Far::Gateway(_) => {
            gateways.cross(snapshot, from, connection.back, connection.gateway);
            connection.gateway
        }
    };
    walk(snapshot, gateway, gateways, key, &mut told)
}

/// Routes a packet that a gateway itself sends, its BGP speaker's: it passes no gateway on the way out of its own.
///
/// # Errors
/// As [`through`].
pub fn from_gateway(snapshot: &Snapshot, from: GatewayId, key: &FlowKey) -> Result<Hop, DropReason> {
    match decide(snapshot, from, key, &mut |_| {})? {
        Decision::Over(id) => leave(snapshot, from, id, Gateways::default(), key, &mut |_| {}),
        Decision::Inside(fib, route) => inside(snapshot, from, fib, route, key, Gateways::default()),
    }
}

/// A gateway in this VNet with the address, or rather its BGP speaker.
#[must_use]
pub fn speaker(snapshot: &Snapshot, candidates: &[GatewayId], address: u128) -> Option<PortId> {
    let mut gateways = candidates.iter().map(|id| &snapshot.gateways[id.index()]);
    gateways
        .find(|gateway| gateway.addresses.contains(&address))?
        .port
}

/// Where one gateway sends a packet.
enum Decision {
    Over(ConnectionId),
    Inside(FibId, RouteId),
}

fn walk(
    snapshot: &Snapshot,
    at: GatewayId,
    mut gateways: Gateways,
    key: &FlowKey,
    told: &mut impl FnMut(Passed),
) -> Result<Hop, DropReason> {
    if let Some(hop) = own(snapshot, at, key, gateways) {
        return hop;
    }
    gateways.pass(at)?;
    match decide(snapshot, at, key, told)? {
        Decision::Over(id) => leave(snapshot, at, id, gateways, key, told),
        Decision::Inside(fib, route) => inside(snapshot, at, fib, route, key, gateways),
    }
}

/// Over a connection to what is at its other end. Recursion ends by [`Gateways::pass`].
fn leave(
    snapshot: &Snapshot,
    at: GatewayId,
    id: ConnectionId,
    mut gateways: Gateways,
    key: &FlowKey,
    told: &mut impl FnMut(Passed),
) -> Result<Hop, DropReason> {
    let connection = &snapshot.connections[id.index()];
    let out = at == connection.gateway;
    let link = if out { connection.out } else { connection.back };
    gateways.cross(snapshot, id, link, at);
    if !selected(connection, key.source, key.destination) {
        return Err(DropReason::NoRoute);
    }
    match connection.far {
        Far::Site => to_site(snapshot, id, gateways),
        Far::Gateway(far) if at == connection.gateway => walk(snapshot, far, gateways, key, told),
        Far::Gateway(_) => walk(snapshot, connection.gateway, gateways, key, told),
        Far::Circuit(fib) => match circuit(snapshot, fib, key)? {
            NextHop::Gateway(far, _) => {
                attach(snapshot, id, fib, far, &mut gateways);
                walk(snapshot, far, gateways, key, told)
            }
            NextHop::Connection(other) => to_site(snapshot, other, gateways),
            _ => Err(DropReason::NoRoute),
        },
    }
}

/// The gateway's own table first: a tunnel is chosen before the network is asked.
fn decide(
    snapshot: &Snapshot,
    at: GatewayId,
    key: &FlowKey,
    told: &mut impl FnMut(Passed),
) -> Result<Decision, DropReason> {
    // NET-10: gateways carry IPv4 only.
    if key.destination >> 32 != 0xffff {
        return Err(DropReason::NoRoute);
    }
    let gateway = &snapshot.gateways[at.index()];
    let outside = &snapshot.fibs[gateway.outside.index()];
    let mut tell = |route, connection| {
        told(Passed {
            gateway: at,
            route,
            connection,
        });
    };
    if let Some(found) = outside.lookup(key.destination)
        && let NextHop::Connection(id) = outside.routes()[found.index()].next_hop
    {
        tell(Some((gateway.outside, found)), Some(id));
        return Ok(Decision::Over(id));
    }
    let found = snapshot.fibs[gateway.inside.index()].lookup(key.destination);
    tell(found.map(|found| (gateway.inside, found)), None);
    found
        .map(|found| Decision::Inside(gateway.inside, found))
        .ok_or(DropReason::NoRoute)
}

/// A packet for the gateway itself.
fn own(
    snapshot: &Snapshot,
    at: GatewayId,
    key: &FlowKey,
    gateways: Gateways,
) -> Option<Result<Hop, DropReason>> {
    let gateway = &snapshot.gateways[at.index()];
    if !gateway.addresses.contains(&key.destination) {
        return None;
    }
    let hop = (gateway.port).map(|port| gateways.applied_to(Hop::beyond(port), snapshot));
    Some(hop.ok_or(DropReason::NoDestination))
}

/// From a circuit to a gateway on it, over the gateway's own connection; `from` is the one that led to the circuit.
fn attach(snapshot: &Snapshot, from: ConnectionId, circuit: FibId, to: GatewayId, gateways: &mut Gateways) {
    let own = |it: &&Connection| it.gateway == to && it.far == Far::Circuit(circuit);
    let from = &snapshot.connections[from.index()];
    // Its own, where the site behind the circuit is told by it.
    let connections = std::iter::once(from).chain(&snapshot.connections);
    let id = |it: &Connection| {
        snapshot
            .connections
            .iter()
            .position(|other| std::ptr::eq(other, it))
    };
    if let Some(found) = connections.into_iter().find(own)
        && let Some(id) = id(found).and_then(|id| u32::try_from(id).ok())
    {
        gateways.cross(snapshot, ConnectionId(id), found.back, to);
    }
}

fn to_site(snapshot: &Snapshot, id: ConnectionId, gateways: Gateways) -> Result<Hop, DropReason> {
    let port = snapshot.connections[id.index()].port;
    let port = port.ok_or(DropReason::NoDestination)?;
    Ok(gateways.applied_to(Hop::beyond(port), snapshot))
}

fn circuit(snapshot: &Snapshot, fib: FibId, key: &FlowKey) -> Result<NextHop, DropReason> {
    let fib = &snapshot.fibs[fib.index()];
    let found = fib.lookup(key.destination).ok_or(DropReason::NoRoute)?;
    Ok(fib.routes()[found.index()].next_hop)
}

/// Whether the connection's selectors name this pair of addresses.
fn selected(connection: &Connection, azure: u128, site: u128) -> bool {
    let Some(selectors) = &connection.selectors else {
        return true;
    };
    let mut selectors = selectors.iter();
    selectors.any(|(local, remote)| local.contains(azure) && remote.contains(site))
}
