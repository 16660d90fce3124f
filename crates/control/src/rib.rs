//! The candidate routes of one route table scope, with their source, by prefixes that nest; losers are remembered.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::gateways::InUse;
use model::service_tags::service_tag_of;
use model::topology::{PeeringIndex, PeeringState, Profile, Subnet, SubnetIndex, Topology, Udr, UdrNextHop};

use crate::select::{select, tag_rank};
use crate::surroundings::Surroundings;

/// What the routes of a subnet, and the `VirtualNetwork` of its rules, follow from. Subnets that share a VNet and a route table
/// share a scope (ROUTE-02).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub profile: Profile,
    /// The VNet's address space.
    pub ranges: Vec<IpNet>,
    pub peerings: Vec<PeeringInput>,
    /// Learned by, or configured at, the gateway in use (ROUTE-08).
    pub gateway_routes: Vec<GatewayRoute>,
    /// The prefixes of the enabled service endpoints (ROUTE-09).
    pub service_endpoints: Vec<IpNet>,
    /// The None defaults (ROUTE-03).
    pub none_defaults: Vec<IpNet>,
    pub user_routes: Arc<[Udr]>,
    /// Where user routes of type VirtualNetworkGateway lead (ROUTE-17).
    pub vpn_gateway: Option<InUse>,
    pub disable_bgp_route_propagation: bool,
    /// ROUTE-35.
    pub disable_peering_route: bool,
    /// `settings.tagIncludesDefaultRoute`, for rules.
    pub tag_includes_default_route: bool,
    /// A classic VNet follows its peering and service endpoint routes without ever listing them (PEER-32).
    pub classic: bool,
}

/// A peering as its local VNet's routes see it, in any state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeeringInput {
    /// The peering, for [`Route::peering`].
    pub index: Option<PeeringIndex>,
    pub state: PeeringState,
    pub global: bool,
    /// The local side's access flag, for rules (PEER-20).
    pub access: bool,
    pub remote_space: Vec<IpNet>,
}

/// A route the gateway offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRoute {
    pub prefix: IpNet,
    /// As shown: one for an active-passive gateway.
    pub next_hops: Vec<IpAddr>,
    /// The gateway, for [`Route::gateway`].
    pub gateway: Option<InUse>,
}

/// Who made a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSource {
    Default,
    VirtualNetworkGateway,
    User,
}

/// Whether a row takes part in the choice (ROUTE-26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteState {
    Active,
    Invalid,
}

/// The next hop type of an effective route (ROUTE-38).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteType {
    VnetLocal,
    VnetPeering,
    VnetGlobalPeering,
    VirtualNetworkServiceEndpoint,
    VirtualNetworkGateway,
    VirtualAppliance,
    VirtualApplianceEcmp,
    Internet,
    None,
}

/// One row: a candidate with its source.
#[derive(Clone, Debug)]
pub struct Route {
    /// The user route's name.
    pub name: Option<String>,
    /// The service tag that a user route's prefix comes from (ROUTE-33).
    pub tag: Option<String>,
    pub prefix: IpNet,
    pub source: RouteSource,
    pub kind: RouteType,
    /// The addresses of the appliance, or appliances, or of the gateway.
    pub next_hops: Vec<IpAddr>,
    /// Of a peering route.
    pub peering: Option<PeeringIndex>,
    /// Of a route that leads to a gateway that exists.
    pub gateway: Option<InUse>,
    pub state: RouteState,
    /// False for rows that act without being shown (PEER-32).
    pub listed: bool,
}

/// All candidates of one scope.
pub struct Rib {
    profile: Profile,
    routes: Vec<Route>,
    /// Positions in `routes`: by prefix, then as they come.
    order: Vec<usize>,
    /// In order, so that a prefix comes before those inside it.
    prefixes: Vec<Nested>,
}

/// A prefix that routes have.
struct Nested {
    prefix: IpNet,
    /// The next larger one that holds it, by position.
    around: Option<usize>,
    /// Where its routes stand in [`Rib::order`].
    routes: Range<usize>,
}

/// The scope of a subnet.
#[must_use]
pub fn scope(topology: &Topology, subnet: SubnetIndex) -> Scope {
    Surroundings::of(topology).scope(subnet)
}

impl Rib {
    /// All rows of a scope (ROUTE-01..09, 26..32).
    #[must_use]
    pub fn new(scope: &Scope) -> Self {
        let mut routes = system_rows(scope);
        if !scope.disable_bgp_route_propagation {
            // ROUTE-32
            routes.extend(scope.gateway_routes.iter().flat_map(gateway_rows));
        }
        routes.extend(scope.user_routes.iter().map(|udr| user_row(scope, udr)));
        settle(scope.profile, &mut routes);
        let keeps = [default_prefix(true), default_prefix(false)].map(|default| keeps_none(&routes, default));
        routes.retain(|route| {
            let lost = route.state == RouteState::Invalid;
            let family = usize::from(route.prefix.addr().is_ipv6());
            // ROUTE-27 and ROUTE-28.
            !is_none_default(route) || (keeps[family] && !lost)
        });
        Self::of(scope.profile, routes)
    }

    /// A table of rows as they are, states included.
    #[must_use]
    pub fn of(profile: Profile, routes: Vec<Route>) -> Self {
        let mut order: Vec<usize> = (0..routes.len()).collect();
        order.sort_by_key(|&position| routes[position].prefix.trunc());
        let mut prefixes: Vec<Nested> = Vec::with_capacity(order.len());
        for (at, &position) in order.iter().enumerate() {
            let prefix = routes[position].prefix.trunc();
            if let Some(last) = prefixes.last_mut().filter(|last| last.prefix == prefix) {
                last.routes.end = at + 1;
                continue;
            }
            let last = prefixes.len().checked_sub(1);
            prefixes.push(Nested {
                prefix,
                around: holding(&prefixes, last, prefix),
                routes: at..at + 1,
            });
        }
        Self {
            profile,
            routes,
            order,
            prefixes,
        }
    }

    /// All rows: system, gateway, user.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The route a packet to `destination` takes. None: lost (ROUTE-25).
    #[must_use]
    pub fn lookup(&self, destination: IpAddr) -> Option<&Route> {
        select(self.profile, &self.matching(IpNet::from(destination)))
    }

    /// Whether 0.0.0.0/0 leads where the system has it lead (NSG-18).
    #[must_use]
    pub fn internet_by_default(&self) -> bool {
        let best = select(self.profile, &self.matching(default_prefix(true)));
        best.is_some_and(|route| route.source == RouteSource::Default)
    }

    /// The rows that plain longest-prefix match needs to choose as [`Rib::lookup`] does: a row that never wins, like a
    /// gateway's inside a peering's (ROUTE-22), is left out. At most one per prefix.
    #[must_use]
    pub fn winners(&self) -> Vec<&Route> {
        let best = |nested: &Nested| {
            let own = &self.order[nested.routes.clone()];
            let best = select(self.profile, &self.matching(nested.prefix))?;
            own.iter()
                .copied()
                .find(|&position| std::ptr::eq(&self.routes[position], best))
        };
        let mut winners: Vec<usize> = self.prefixes.iter().filter_map(best).collect();
        winners.sort_unstable();
        winners
            .into_iter()
            .map(|position| &self.routes[position])
            .collect()
    }

    /// The rows whose prefix contains all of `prefix`.
    fn matching(&self, prefix: IpNet) -> Vec<&Route> {
        let wanted = prefix.trunc();
        let after = self.prefixes.partition_point(|nested| nested.prefix <= wanted);
        let mut next = holding(&self.prefixes, after.checked_sub(1), wanted);
        let mut rows = Vec::new();
        while let Some(nested) = next.map(|at| &self.prefixes[at]) {
            let own = self.order[nested.routes.clone()].iter();
            rows.extend(own.map(|&position| &self.routes[position]));
            next = nested.around;
        }
        rows
    }
}

/// The smallest prefix that holds `prefix`, of the one at `from`, which is the last that is not after it, and those around that.
fn holding(prefixes: &[Nested], from: Option<usize>, prefix: IpNet) -> Option<usize> {
    let mut next = from;
    while let Some(at) = next.filter(|&at| !prefixes[at].prefix.contains(&prefix)) {
        next = prefixes[at].around;
    }
    next
}

impl std::fmt::Debug for Rib {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rib")
            .field("profile", &self.profile)
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

/// ROUTE-09: the prefixes of the services' tags, each once; IPv6 where the VNet has it.
pub(crate) fn service_endpoints(topology: &Topology, subnet: &Subnet) -> Vec<IpNet> {
    let ranges = &topology.vnets[subnet.vnet.0].address_space;
    let ipv6 = ranges.iter().any(|range| range.addr().is_ipv6());
    let tags = subnet
        .service_endpoints
        .iter()
        .filter_map(|service| service_tag_of(service));
    let mut prefixes: Vec<IpNet> = tags
        .flat_map(|tag| topology.service_tags.prefixes(tag))
        .copied()
        .filter(|prefix| ipv6 || prefix.addr().is_ipv4())
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// ROUTE-03.
pub(crate) fn none_defaults(topology: &Topology) -> Vec<IpNet> {
    if let Some(given) = &topology.settings.none_routes {
        return given.clone();
    }
    let v4 = |a, b, length| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length));
    let mut prefixes = vec![v4(10, 0, 8), v4(192, 168, 16), v4(100, 64, 10)];
    if topology.profile == Profile::Azure2025 {
        prefixes.push(v4(172, 16, 12));
    }
    prefixes
}

fn system_rows(scope: &Scope) -> Vec<Route> {
    let row = |prefix: IpNet, kind| Route {
        name: None,
        tag: None,
        prefix: prefix.trunc(),
        source: RouteSource::Default,
        kind,
        next_hops: Vec::new(),
        peering: None,
        gateway: None,
        state: RouteState::Active,
        listed: true,
    };
    let mut routes: Vec<Route> = scope
        .ranges
        .iter()
        .map(|&range| row(range, RouteType::VnetLocal))
        .collect();
    // PEER-07, ROUTE-35
    let connected = || {
        scope
            .peerings
            .iter()
            .filter(|peering| peering.state == PeeringState::Connected && !scope.disable_peering_route)
    };
    for peering in connected() {
        let kind = if peering.global {
            RouteType::VnetGlobalPeering
        } else {
            RouteType::VnetPeering
        };
        routes.extend(peering.remote_space.iter().map(|&range| Route {
            peering: peering.index,
            listed: !scope.classic,
            ..row(range, kind)
        }));
    }
    routes.extend(scope.service_endpoints.iter().map(|&prefix| Route {
        listed: !scope.classic,
        ..row(prefix, RouteType::VirtualNetworkServiceEndpoint)
    }));
    routes.push(row(default_prefix(true), RouteType::Internet));
    if scope.ranges.iter().any(|range| range.addr().is_ipv6()) {
        routes.push(row(default_prefix(false), RouteType::Internet));
    }
    // ROUTE-04 and ROUTE-05; a peer's range counts like the VNet's own, or PEER-42 would not hold in it.
    let taken = |none: &IpNet| {
        scope
            .ranges
            .iter()
            .chain(connected().flat_map(|peering| &peering.remote_space))
            .any(|range| range.contains(none))
    };
    routes.extend(
        scope
            .none_defaults
            .iter()
            .filter(|none| !taken(none))
            .map(|&prefix| row(prefix, RouteType::None)),
    );
    routes
}

/// One row for each next hop shown: an active-active gateway has two (ROUTE-08).
fn gateway_rows(route: &GatewayRoute) -> impl Iterator<Item = Route> + '_ {
    let shown = route.next_hops.iter().map(|&next_hop| vec![next_hop]);
    let bare = route.next_hops.is_empty().then(Vec::new);
    shown.chain(bare).map(|next_hops| Route {
        name: None,
        tag: None,
        prefix: route.prefix.trunc(),
        source: RouteSource::VirtualNetworkGateway,
        kind: RouteType::VirtualNetworkGateway,
        next_hops,
        peering: None,
        gateway: route.gateway,
        state: RouteState::Active,
        listed: true,
    })
}

fn user_row(scope: &Scope, udr: &Udr) -> Route {
    let (kind, next_hops) = match &udr.next_hop {
        UdrNextHop::VirtualNetworkGateway => (RouteType::VirtualNetworkGateway, Vec::new()),
        UdrNextHop::VnetLocal => (RouteType::VnetLocal, Vec::new()),
        UdrNextHop::Internet => (RouteType::Internet, Vec::new()),
        UdrNextHop::VirtualAppliance(address) => (RouteType::VirtualAppliance, vec![*address]),
        UdrNextHop::VirtualApplianceEcmp(addresses) => (RouteType::VirtualApplianceEcmp, addresses.clone()),
        UdrNextHop::None => (RouteType::None, Vec::new()),
    };
    Route {
        name: Some(udr.name.clone()),
        tag: udr.tag.clone(),
        prefix: udr.prefix.trunc(),
        source: RouteSource::User,
        kind,
        next_hops,
        peering: None,
        gateway: scope
            .vpn_gateway
            .filter(|_| udr.next_hop == UdrNextHop::VirtualNetworkGateway),
        state: RouteState::Active,
        listed: true,
    }
}

/// Marks the rows that lose their prefix Invalid (ROUTE-26). Two rows of an active-active gateway both stay.
fn settle(profile: Profile, routes: &mut [Route]) {
    let mut by_prefix: HashMap<IpNet, Vec<usize>> = HashMap::new();
    for (position, route) in routes.iter().enumerate() {
        by_prefix.entry(route.prefix).or_default().push(position);
    }
    for positions in by_prefix.values().filter(|positions| positions.len() > 1) {
        let rivals: Vec<&Route> = positions.iter().map(|&position| &routes[position]).collect();
        let equal = |route: &Route| (route.source, route.kind, tag_rank(route));
        let best = select(profile, &rivals).map(equal);
        for &position in positions {
            if best != Some(equal(&routes[position])) {
                routes[position].state = RouteState::Invalid;
            }
        }
    }
}

/// ROUTE-28: a default route to an appliance or a gateway takes the private ranges with it. ROUTE-29: one to None
/// or Internet does not.
fn keeps_none(routes: &[Route], default: IpNet) -> bool {
    let mut best = routes
        .iter()
        .filter(|route| route.prefix == default && route.state == RouteState::Active);
    !best.any(|route| {
        matches!(
            route.kind,
            RouteType::VirtualAppliance | RouteType::VirtualApplianceEcmp | RouteType::VirtualNetworkGateway
        )
    })
}

fn is_none_default(route: &Route) -> bool {
    route.source == RouteSource::Default && route.kind == RouteType::None
}

fn default_prefix(v4: bool) -> IpNet {
    if v4 {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))
    } else {
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0))
    }
}
