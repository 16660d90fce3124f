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

/// Immutable longest-prefix-match table. Route numbers are positions in the compiled list.
#[derive(Debug)]
pub struct Fib {
    routes: Vec<Route>,
}
