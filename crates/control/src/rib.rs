//! The candidate routes of one route table scope, with their source, in a trie; losers are remembered.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::gateways::InUse;
use model::service_tags::service_tag_of;
use model::topology::{
    PeeringIndex, PeeringState, Profile, Subnet, SubnetIndex, Topology, Udr, UdrNextHop, VnetIndex,
};
use treebitmap::IpLookupTable;

use crate::gateways;
use crate::select::{select, tag_rank};

/// What the routes of a subnet follow from. Subnets that share a VNet and a route table share a scope (ROUTE-02).
#[derive(Clone, Debug)]
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
    pub user_routes: Vec<Udr>,
    /// Where user routes of type VirtualNetworkGateway lead (ROUTE-17).
    pub vpn_gateway: Option<InUse>,
    pub disable_bgp_route_propagation: bool,
    /// ROUTE-35.
    pub disable_peering_route: bool,
    /// A classic VNet follows its peering and service endpoint routes without ever listing them (PEER-32).
    pub classic: bool,
}

/// A peering as its local VNet's routes see it, in any state.
#[derive(Clone, Debug)]
pub struct PeeringInput {
    /// The peering, for [`Route::peering`].
    pub index: Option<PeeringIndex>,
    pub state: PeeringState,
    pub global: bool,
    pub remote_space: Vec<IpNet>,
}

/// A route the gateway offers.
#[derive(Clone, Debug)]
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
    /// Positions in `routes` by prefix.
    v4: IpLookupTable<Ipv4Addr, Vec<usize>>,
    v6: IpLookupTable<Ipv6Addr, Vec<usize>>,
}

/// The scope of a subnet.
#[must_use]
pub fn scope(topology: &Topology, subnet: SubnetIndex) -> Scope {
    let subnet = &topology.subnets[subnet.0];
    let vnet = subnet.vnet;
    let table = subnet.route_table.map(|table| &topology.route_tables[table.0]);
    Scope {
        profile: topology.profile,
        ranges: topology.vnets[vnet.0].address_space.clone(),
        peerings: peerings(topology, vnet),
        gateway_routes: gateways::routes(topology, vnet),
        service_endpoints: service_endpoints(topology, subnet),
        none_defaults: none_defaults(topology),
        user_routes: table.map_or_else(Vec::new, |table| table.routes.clone()),
        vpn_gateway: gateways::vpn(topology, vnet),
        disable_bgp_route_propagation: table.is_some_and(|table| table.disable_bgp_route_propagation),
        disable_peering_route: table.is_some_and(|table| table.disable_peering_route),
        classic: topology.vnets[vnet.0].classic,
    }
}

/// The peerings of a VNet, one that stands for both sides included.
pub(crate) fn peerings(topology: &Topology, vnet: VnetIndex) -> Vec<PeeringInput> {
    let own = topology
        .peerings
        .iter()
        .enumerate()
        .filter(|(_, peering)| peering.from == vnet);
    // A classic VNet has no peering object of its own (PEER-31).
    let classic = topology.vnets[vnet.0].classic;
    let implied = topology
        .peerings
        .iter()
        .enumerate()
        .filter(|(_, peering)| classic && peering.to == vnet && peering.reverse.is_none());
    let own = own.map(|(index, peering)| PeeringInput {
        index: Some(PeeringIndex(index)),
        state: peering.state,
        global: peering.global,
        remote_space: peering.remote_address_space.clone(),
    });
    let implied = implied.map(|(index, peering)| PeeringInput {
        index: Some(PeeringIndex(index)),
        state: peering.state,
        global: peering.global,
        remote_space: topology.vnets[peering.from.0].address_space.clone(),
    });
    own.chain(implied).collect()
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
        let mut rib = Self {
            profile,
            routes: Vec::new(),
            v4: IpLookupTable::new(),
            v6: IpLookupTable::new(),
        };
        for (position, route) in routes.iter().enumerate() {
            rib.remember(route.prefix, position);
        }
        rib.routes = routes;
        rib
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
        let wins = |route: &&Route| {
            select(self.profile, &self.matching(route.prefix)).is_some_and(|best| std::ptr::eq(best, *route))
        };
        self.routes.iter().filter(wins).collect()
    }

    /// The rows whose prefix contains all of `prefix`.
    fn matching(&self, prefix: IpNet) -> Vec<&Route> {
        let length = u32::from(prefix.prefix_len());
        let positions: Vec<&Vec<usize>> = match prefix {
            IpNet::V4(net) => self
                .v4
                .matches(net.network())
                .filter(|hit| hit.1 <= length)
                .map(|hit| hit.2)
                .collect(),
            IpNet::V6(net) => self
                .v6
                .matches(net.network())
                .filter(|hit| hit.1 <= length)
                .map(|hit| hit.2)
                .collect(),
        };
        positions
            .into_iter()
            .flatten()
            .map(|&position| &self.routes[position])
            .collect()
    }

    fn remember(&mut self, prefix: IpNet, position: usize) {
        let length = u32::from(prefix.prefix_len());
        match prefix {
            IpNet::V4(net) => match self.v4.exact_match_mut(net.network(), length) {
                Some(positions) => positions.push(position),
                None => drop(self.v4.insert(net.network(), length, vec![position])),
            },
            IpNet::V6(net) => match self.v6.exact_match_mut(net.network(), length) {
                Some(positions) => positions.push(position),
                None => drop(self.v6.insert(net.network(), length, vec![position])),
            },
        }
    }
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
fn service_endpoints(topology: &Topology, subnet: &Subnet) -> Vec<IpNet> {
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
fn none_defaults(topology: &Topology) -> Vec<IpNet> {
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
