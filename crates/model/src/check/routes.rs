//! Route tables and user routes: ROUTE-10..13, ROUTE-33..36.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::check::Scope;
use crate::check::names;
use crate::check::tags;
use crate::config::{self, NextHopType};
use crate::limits::Limit;
use crate::problems::{Problems, join};
use crate::topology::{Profile, RouteTable, Topology, Udr, UdrNextHop};
use crate::values::host_bits;
use crate::words::shown;

/// ROUTE-33.
const MOST_TAGS: usize = 25;

/// ROUTE-36.
const ECMP_NEXT_HOPS: std::ops::RangeInclusive<usize> = 2..=64;

/// Fills `topology.route_tables`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    for (index, (name, table)) in scope.config.route_tables.iter().enumerate() {
        let at = join("routeTables", name);
        names::resource_key(name, &at, problems);
        if index == scope.limits.most(Limit::RouteTables) {
            let message = format!("a subscription holds at most {index} route tables");
            problems.error("Sim.ROUTE-34", &at, message).on_key();
        }
        let routes = routes(scope, topology.profile, name, table, &at, problems);
        topology.route_tables.push(RouteTable {
            name: name.clone(),
            disable_bgp_route_propagation: table.disable_bgp_route_propagation.unwrap_or(false),
            disable_peering_route: disable_peering_route(topology.profile, table, &at, problems),
            routes,
        });
    }
}

/// ROUTE-35.
fn disable_peering_route(
    profile: Profile,
    table: &config::RouteTable,
    at: &str,
    problems: &mut Problems,
) -> bool {
    if table.disable_peering_route.is_some() && profile != Profile::Azure2025 {
        problems
            .error(
                "Sim.ROUTE-35",
                join(at, "disablePeeringRoute"),
                "azure-2018 has no disablePeeringRoute",
            )
            .help("remove it, or write `profile: azure-2025`");
    }
    table.disable_peering_route == Some(config::DisablePeeringRoute::All)
}

fn routes(
    scope: &Scope<'_>,
    profile: Profile,
    table_name: &str,
    table: &config::RouteTable,
    at: &str,
    problems: &mut Problems,
) -> Vec<Udr> {
    let mut routes = Vec::new();
    let mut by_prefix: HashMap<Destination, &str> = HashMap::new();
    let mut tags = 0;
    if problems.unreadable(at) {
        return routes;
    }
    for (index, (name, route)) in table.routes.iter().enumerate() {
        let at = join(&join(at, "routes"), name);
        names::resource_name(name, &at, true, problems);
        if index == scope.limits.most(Limit::Routes) {
            let message = format!("route table {table_name} holds more than {index} routes");
            problems.error("Sim.ROUTE-34", &at, message).on_key();
        }
        let prefix_at = join(&at, "addressPrefix");
        let destination = destination(scope, &route.address_prefix, &prefix_at, problems);
        let next_hop = next_hop(profile, route, destination.as_ref(), &at, problems);
        let Some(destination) = destination else { continue };
        if let Destination::Tag(tag) = &destination {
            tags += 1;
            if tags == MOST_TAGS + 1 {
                let message = format!("route table {table_name} holds more than {MOST_TAGS} service tags");
                problems
                    .error("Sim.ROUTE-33", &prefix_at, message)
                    .help(format!("write prefixes instead of {tag}"));
            }
        }
        if let Some(first) = by_prefix.insert(destination.clone(), name) {
            let message =
                format!("routes '{first}' and '{name}' of {table_name} have the same prefix {destination}");
            problems
                .error("Sim.ROUTE-10", prefix_at, message)
                .help("remove one of the two");
        }
        if let Some(next_hop) = next_hop {
            routes.extend(udrs(scope, name, destination, &next_hop));
        }
    }
    routes
}

/// What a route is for.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Destination {
    Prefix(IpNet),
    /// In Azure's spelling.
    Tag(String),
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(net) => net.fmt(out),
            Self::Tag(tag) => tag.fmt(out),
        }
    }
}

/// One route, or one for each prefix of the tag (ROUTE-33): those of the next hop's family, where it has one.
fn udrs(scope: &Scope<'_>, name: &str, destination: Destination, next_hop: &UdrNextHop) -> Vec<Udr> {
    let udr = |prefix, tag| Udr {
        name: name.to_owned(),
        prefix,
        tag,
        next_hop: next_hop.clone(),
    };
    let reached = |net: &IpNet| match next_hop {
        UdrNextHop::VirtualAppliance(address) => address.is_ipv6() == net.addr().is_ipv6(),
        UdrNextHop::VirtualApplianceEcmp(addresses) => {
            (addresses.iter()).all(|address| address.is_ipv6() == net.addr().is_ipv6())
        }
        _ => true,
    };
    match destination {
        Destination::Prefix(net) => vec![udr(net, None)],
        Destination::Tag(tag) => {
            let prefixes = scope
                .service_tags
                .prefixes(&tag)
                .iter()
                .filter(|net| reached(net));
            prefixes.map(|&net| udr(net, Some(tag.clone()))).collect()
        }
    }
}

fn destination(scope: &Scope<'_>, text: &str, at: &str, problems: &mut Problems) -> Option<Destination> {
    match text.parse::<IpNet>() {
        Ok(net) if net.addr() != net.network() => {
            host_bits(net, at, problems);
            return None;
        }
        Ok(net) => return Some(Destination::Prefix(net)),
        Err(_) => {}
    }
    let Some(tag) = tags::canonical(text, &scope.service_tags) else {
        let message = format!(
            "expected an address prefix such as 10.2.0.0/16 or a service tag, found '{}'",
            shown(text)
        );
        problems.error("Sim.Value", at, message);
        return None;
    };
    if scope.service_tags.prefixes(&tag).is_empty() {
        let message = if tags::computed(&tag) {
            format!("the service tag {tag} cannot be the prefix of a route")
        } else {
            format!("no prefix of the service tag {tag} is known")
        };
        problems
            .error("Sim.ROUTE-33", at, message)
            .help("write the address prefixes, or a tag that 'serviceTags' has");
        return None;
    }
    Some(Destination::Tag(tag))
}

fn next_hop(
    profile: Profile,
    route: &config::Route,
    destination: Option<&Destination>,
    at: &str,
    problems: &mut Problems,
) -> Option<UdrNextHop> {
    let place = join(at, "nextHopType");
    only_with(
        route.next_hop_ip_address.is_some(),
        (route.next_hop_type, NextHopType::VirtualAppliance),
        &join(at, "nextHopIpAddress"),
        problems,
    );
    only_with(
        route.next_hop.is_some(),
        (route.next_hop_type, NextHopType::VirtualApplianceEcmp),
        &join(at, "nextHop"),
        problems,
    );
    let (code, message, help) = match route.next_hop_type {
        NextHopType::VirtualAppliance => return appliance(route, destination, at, problems),
        NextHopType::VirtualApplianceEcmp if profile == Profile::Azure2025 => {
            return appliances(route, destination, at, problems);
        }
        NextHopType::VirtualNetworkGateway => return Some(UdrNextHop::VirtualNetworkGateway),
        NextHopType::VnetLocal => return Some(UdrNextHop::VnetLocal),
        NextHopType::Internet => return Some(UdrNextHop::Internet),
        NextHopType::None => return Some(UdrNextHop::None),
        NextHopType::VirtualApplianceEcmp => (
            "Sim.ROUTE-11",
            "azure-2018 has no next hop type VirtualApplianceEcmp",
            "use VirtualAppliance",
        ),
        NextHopType::VnetPeering | NextHopType::VnetGlobalPeering | NextHopType::ServiceEndpoint => (
            "Sim.ROUTE-12",
            "a user route cannot lead to a peering or a service endpoint",
            "such routes come from peerings and service endpoints by themselves",
        ),
    };
    problems.error(code, place, message).help(help);
    None
}

/// ROUTE-11: a next hop's address belongs to the type it is for.
fn only_with(given: bool, (found, wanted): (NextHopType, NextHopType), at: &str, problems: &mut Problems) {
    if given && found != wanted {
        let message = format!("a next hop address is valid only with {wanted:?}");
        let property = at.rsplit('.').next().unwrap_or(at);
        problems
            .error("Sim.ROUTE-11", at, message)
            .help(format!("remove '{property}', or use {wanted:?}"));
    }
}

/// ROUTE-13.
fn appliance(
    route: &config::Route,
    destination: Option<&Destination>,
    at: &str,
    problems: &mut Problems,
) -> Option<UdrNextHop> {
    let Some(address) = route.next_hop_ip_address else {
        problems
            .error(
                "Sim.ROUTE-13",
                join(at, "nextHopType"),
                "NextHopIpAddress cannot be Null or Empty in route when NextHopType is VirtualAppliance",
            )
            .help("add 'nextHopIpAddress', the private address of the appliance");
        return None;
    };
    same_family(destination, address.0, &join(at, "nextHopIpAddress"), problems);
    Some(UdrNextHop::VirtualAppliance(address.0))
}

/// ROUTE-36.
fn appliances(
    route: &config::Route,
    destination: Option<&Destination>,
    at: &str,
    problems: &mut Problems,
) -> Option<UdrNextHop> {
    let place = join(&join(at, "nextHop"), "nextHopIpAddresses");
    let given: Vec<IpAddr> = (route.next_hop.iter())
        .flat_map(|hops| hops.next_hop_ip_addresses.iter().map(|address| address.0))
        .collect();
    if !ECMP_NEXT_HOPS.contains(&given.len()) {
        let target = if route.next_hop.is_some() {
            place.clone()
        } else {
            join(at, "nextHopType")
        };
        let message = format!(
            "VirtualApplianceEcmp needs 2 to 64 next hops, not {}",
            given.len()
        );
        problems
            .error("Sim.ROUTE-36", target, message)
            .help("write `nextHop: { nextHopIpAddresses: [10.0.1.4, 10.0.1.5] }`");
        return None;
    }
    for (index, &address) in given.iter().enumerate() {
        let at = join(&place, &index.to_string());
        same_family(destination, address, &at, problems);
        if given[..index].contains(&address) {
            problems
                .error(
                    "Sim.ROUTE-36",
                    at,
                    format!("the next hop {address} is given twice"),
                )
                .help("remove one of the two");
        } else if address.is_ipv6() != given[0].is_ipv6() {
            problems
                .error("Sim.ROUTE-36", at, "next hops of both families in one route")
                .help("write one route for each family");
        }
    }
    Some(UdrNextHop::VirtualApplianceEcmp(given))
}

fn same_family(destination: Option<&Destination>, address: IpAddr, at: &str, problems: &mut Problems) {
    if let Some(Destination::Prefix(net)) = destination
        && net.addr().is_ipv6() != address.is_ipv6()
    {
        let message = format!("the next hop {address} is of another family than the prefix");
        problems
            .error("Sim.ROUTE-13", at, message)
            .help("give the appliance's address of the prefix's family");
    }
}
