//! Service tags as prefixes, as an NSG at one subnet sees them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::Topology;
use model::service_tags::ServiceTags;
use model::topology::{PeeringState, SubnetIndex};

use crate::rib::{Scope, scope};

/// VNET-08: probes, DNS, DHCP and the agent live here.
pub(crate) const PLATFORM: IpNet = v4(168, 63, 129, 16, 32);

/// What stands for it in IPv6, in tags and rules too: probes come from there (LB-05).
pub(crate) const PLATFORM_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x1234, 0x5678, 0x9abc),
    128,
));

/// What is never in `Internet`, whatever the VNet (NSG-13): RFC 1918, RFC 6598, and 0.0.0.0/8, which the published
/// expansion leaves out too.
const NOT_INTERNET: [IpNet; 5] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v4(100, 64, 0, 0, 10),
];

/// The global unicast space, of which `Internet` is a part (ROUTE-01).
const GLOBAL_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3));

/// What the tags of a subnet follow from.
#[derive(Clone, Debug, Default)]
pub struct TagScope {
    pub ranges: Vec<IpNet>,
    /// Ranges of Connected peers, and whether the local side's access flag is on (PEER-20).
    pub peers: Vec<(Vec<IpNet>, bool)>,
    /// Of the gateway in use.
    pub gateway_prefixes: Vec<IpNet>,
    /// Of the user routes of the subnet's table.
    pub user_prefixes: Vec<IpNet>,
    /// `settings.tagIncludesDefaultRoute`: a user or learned route for everything counts.
    pub includes_default_route: bool,
}

/// The tags of one place.
#[derive(Clone, Debug)]
pub struct Tags {
    virtual_network: Vec<IpNet>,
    internet: Vec<IpNet>,
    services: ServiceTags,
}

impl From<&Scope> for TagScope {
    fn from(scope: &Scope) -> Self {
        let connected = scope
            .peerings
            .iter()
            .filter(|peering| peering.state == PeeringState::Connected);
        Self {
            ranges: scope.ranges.clone(),
            peers: connected
                .map(|peering| (peering.remote_space.clone(), peering.access))
                .collect(),
            gateway_prefixes: scope.gateway_routes.iter().map(|route| route.prefix).collect(),
            user_prefixes: scope.user_routes.iter().map(|route| route.prefix).collect(),
            includes_default_route: scope.tag_includes_default_route,
        }
    }
}

/// `VirtualNetwork` (NSG-11), without duplicates.
#[must_use]
pub fn virtual_network(scope: &TagScope) -> Vec<IpNet> {
    let peers = scope
        .peers
        .iter()
        .filter(|(_, access)| *access)
        .flat_map(|(ranges, _)| ranges);
    let counts = |prefix: &&IpNet| scope.includes_default_route || prefix.prefix_len() > 0;
    let gateway = scope.gateway_prefixes.iter().filter(counts);
    let user = scope.user_prefixes.iter().filter(counts);
    let all = scope
        .ranges
        .iter()
        .chain([&PLATFORM])
        .chain(peers)
        .chain(gateway)
        .chain(user);
    let mut seen = std::collections::HashSet::new();
    all.map(IpNet::trunc)
        .filter(|prefix| seen.insert(*prefix))
        .collect()
}

impl Tags {
    /// The tags of a subnet.
    #[must_use]
    pub fn of(topology: &Topology, subnet: SubnetIndex) -> Self {
        Self::in_scope(&scope(topology, subnet), topology.service_tags.clone())
    }

    pub(crate) fn in_scope(scope: &Scope, services: ServiceTags) -> Self {
        Self::new(virtual_network(&scope.into()), services)
    }

    /// All tags that follow from this `VirtualNetwork`, and those that data says.
    #[must_use]
    pub fn new(virtual_network: Vec<IpNet>, services: ServiceTags) -> Self {
        let mut holes = NOT_INTERNET.to_vec();
        holes.extend(&virtual_network);
        let holes = IpNet::aggregate(&holes);
        let mut internet = Vec::new();
        subtract(v4(0, 0, 0, 0, 0), &holes, &mut internet);
        subtract(GLOBAL_V6, &holes, &mut internet);
        Self {
            virtual_network,
            internet,
            services,
        }
    }

    /// The prefixes of a tag in Azure's spelling; none: nothing is known of it.
    #[must_use]
    pub fn expand(&self, tag: &str) -> &[IpNet] {
        match tag {
            "VirtualNetwork" => &self.virtual_network,
            "Internet" => &self.internet,
            // NSG-12
            "AzureLoadBalancer" => &[PLATFORM],
            // NSG-05
            _ => self.services.prefixes(tag),
        }
    }
}

/// Appends the fewest prefixes that cover `base` less `holes`, in address order.
pub(crate) fn subtract(base: IpNet, holes: &[IpNet], rest: &mut Vec<IpNet>) {
    if holes.iter().any(|hole| hole.contains(&base)) {
        return;
    }
    let inside: Vec<IpNet> = holes.iter().copied().filter(|hole| base.contains(hole)).collect();
    if inside.is_empty() {
        rest.push(base);
        return;
    }
    // A host prefix has nothing strictly inside it, so there are two halves.
    for half in base.subnets(base.prefix_len() + 1).into_iter().flatten() {
        subtract(half, &inside, rest);
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

/// The prefix of one address.
pub(crate) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
