//! The compiled forwarding table: longest-prefix match to a route, and what its next hop means.

use std::sync::Arc;

use packet::Prefix;

use crate::ranges::{AddressRanges, MAPPED};
use crate::snapshot::{ConnectionId, FrontendId, GatewayId, NicId, PeeringId};

/// What a winning route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// The own VNet: the destination address names the NIC (ROUTE-16).
    VnetLocal,
    /// A peered VNet: the destination address names the NIC there (ROUTE-06).
    Peering(PeeringId),
    /// An appliance's NIC, in the own VNet or, over the peering, in another (ROUTE-13). None: not reachable (ROUTE-18).
    Appliance(Option<(NicId, Option<PeeringId>)>),
    /// A frontend as next hop, in the own VNet or over the peering (ROUTE-19).
    Balancer(FrontendId, Option<PeeringId>),
    /// One of several of the above, each flow its own (ROUTE-36).
    Shared(SharedId),
    Internet,
    /// A gateway of the own VNet or, over the peering, of the VNet whose gateways it uses (ROUTE-08, GW-07).
    Gateway(GatewayId, Option<PeeringId>),
    /// At a gateway or on a circuit: over the connection, out of the VNet.
    Connection(ConnectionId),
    /// The Internet edge, with the private source (ROUTE-09).
    ServiceEndpoint,
    /// The route leads to a gateway that is not there.
    NoGateway,
    /// ROUTE-14.
    None,
}

/// One route of a table as given to [`Fib::compile`]: winners only, at most one per prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub prefix: Prefix,
    pub next_hop: NextHop,
}

/// Which of a table's lists of next hops a route shares its flows among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedId(pub u32);

/// Position of a route in the list a [`Fib`] was compiled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

impl RouteId {
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Immutable longest-prefix-match table. An IPv6 prefix holds no IPv4 address, however short it is.
#[derive(Clone, Debug)]
pub struct Fib {
    routes: Vec<Route>,
    /// Values are route numbers or [`NO_ROUTE`]. They follow from the prefixes alone, so tables with other next hops share them.
    ranges: Arc<AddressRanges>,
    /// By [`SharedId`].
    shared: Vec<Vec<NextHop>>,
}

const NO_ROUTE: u32 = u32::MAX;

impl Fib {
    /// Compiles the routes; of two with one prefix the last counts.
    #[must_use]
    pub fn compile(routes: Vec<Route>) -> Self {
        let mut order: Vec<(Prefix, u32)> = routes
            .iter()
            .zip(0..)
            .map(|(route, at)| (route.prefix, at))
            .collect();
        // Outer prefixes before those they hold.
        order.sort_unstable_by_key(|&(prefix, at)| (prefix.first(), prefix.length(), at));
        let (ipv4, ipv6): (Vec<_>, Vec<_>) = order.into_iter().partition(|&(prefix, _)| is_ipv4(prefix));
        let ipv4 = flatten(&ipv4, MAPPED, MAPPED | u128::from(u32::MAX));
        Self {
            ranges: Arc::new(AddressRanges::new(&ipv4, &flatten(&ipv6, 0, u128::MAX))),
            routes,
            shared: Vec::new(),
        }
    }

    /// The same table, whose [`NextHop::Shared`] are these.
    #[must_use]
    pub fn sharing(self, shared: Vec<Vec<NextHop>>) -> Self {
        Self { shared, ..self }
    }

    #[must_use]
    pub fn shared(&self) -> &[Vec<NextHop>] {
        &self.shared
    }

    /// The next hop of a flow whose hash is `hash`.
    #[must_use]
    pub fn share(&self, id: SharedId, hash: u64) -> NextHop {
        let all = self.shared.get(id.0 as usize).map_or(&[][..], Vec::as_slice);
        let at = usize::try_from(hash % (all.len() as u64).max(1)).unwrap_or(0);
        all.get(at).copied().unwrap_or(NextHop::Appliance(None))
    }

    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// A table of the same prefixes, whose next hops are these, by route; the work of compiling is not done again.
    #[must_use]
    pub fn leading(&self, next_hops: impl IntoIterator<Item = NextHop>) -> Self {
        let routes = self.routes.iter().zip(next_hops);
        Self {
            routes: routes
                .map(|(route, next_hop)| Route { next_hop, ..*route })
                .collect(),
            ranges: Arc::clone(&self.ranges),
            shared: Vec::new(),
        }
    }

    /// Changes next hops in place: which prefix wins does not depend on them.
    pub fn map_next_hops(&mut self, map: impl Fn(NextHop) -> NextHop) {
        for route in &mut self.routes {
            route.next_hop = map(route.next_hop);
        }
        for next_hop in self.shared.iter_mut().flatten() {
            *next_hop = map(*next_hop);
        }
    }

    /// The longest prefix that holds the address (ROUTE-20).
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: u128) -> Option<RouteId> {
        self.ranges
            .find(address)
            .filter(|&route| route != NO_ROUTE)
            .map(RouteId)
    }
}

fn is_ipv4(prefix: Prefix) -> bool {
    prefix.length() >= 96 && prefix.first() >> 32 == MAPPED >> 32
}

/// Disjoint ranges over `first..=last` from nested prefixes sorted from the outside in: each start with the route that
/// holds from there on.
fn flatten(sorted: &[(Prefix, u32)], first: u128, last: u128) -> Vec<(u128, u32)> {
    let mut ranges = vec![(first, NO_ROUTE)];
    let mut open: Vec<(u128, u32)> = vec![(last, NO_ROUTE)];
    for &(prefix, route) in sorted {
        close(&mut ranges, &mut open, prefix.first());
        begin(&mut ranges, prefix.first(), route);
        open.push((prefix.last(), route));
    }
    close(&mut ranges, &mut open, last);
    ranges
}

/// Ends the prefixes that end before `until`; what lies around each goes on after it.
fn close(ranges: &mut Vec<(u128, u32)>, open: &mut Vec<(u128, u32)>, until: u128) {
    while let Some(&(end, _)) = open.last().filter(|&&(end, _)| end < until) {
        open.pop();
        if let Some(&(_, around)) = open.last() {
            begin(ranges, end + 1, around);
        }
    }
}

/// From `start` on, `route` holds.
fn begin(ranges: &mut Vec<(u128, u32)>, start: u128, route: u32) {
    ranges.pop_if(|&mut (same, _)| same == start);
    if ranges.last().is_none_or(|&(_, before)| before != route) {
        ranges.push((start, route));
    }
}
