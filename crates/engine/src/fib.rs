//! The compiled forwarding table: longest-prefix match to a route, and what its next hop means.

use packet::Prefix;

use crate::snapshot::{NicId, PeeringId};

/// What a winning route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// The own VNet: the destination address names the NIC (ROUTE-16).
    VnetLocal,
    /// A peered VNet: the destination address names the NIC there (ROUTE-06).
    Peering(PeeringId),
    /// An appliance's NIC, in the own VNet or, over the peering, in another (ROUTE-13). None: not reachable (ROUTE-18).
    Appliance(Option<(NicId, Option<PeeringId>)>),
    Internet,
    /// The route leads to a gateway that is not there.
    NoGateway,
    /// ROUTE-14.
    None,
}

/// One route of a table as given to [`Fib::compile`]: winners only, at most one per prefix.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub prefix: Prefix,
    pub next_hop: NextHop,
}

/// Position of a route in the list a [`Fib`] was compiled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

impl RouteId {
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Immutable longest-prefix-match table. Route numbers are positions in the compiled list.
#[derive(Debug)]
pub struct Fib {
    routes: Vec<Route>,
}

impl Fib {
    #[must_use]
    pub fn compile(routes: Vec<Route>) -> Self {
        Self { routes }
    }

    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The longest prefix that holds the address (ROUTE-20).
    #[must_use]
    pub fn lookup(&self, address: u128) -> Option<RouteId> {
        let matching = (0..)
            .zip(&self.routes)
            .filter(|(_, route)| route.prefix.contains(address));
        matching
            .max_by_key(|(_, route)| route.prefix.length())
            .map(|(at, _)| RouteId(at))
    }
}
