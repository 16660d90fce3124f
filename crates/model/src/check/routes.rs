//! Route tables and user routes: ROUTE-10..13, ROUTE-33, ROUTE-34.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::check::Scope;
use crate::check::names;
use crate::check::tags;
use crate::config::{self, NextHopType};
use crate::problems::{Problems, join};
use crate::topology::{Profile, RouteTable, Topology, Udr, UdrNextHop};
use crate::values::host_bits;
use crate::words::shown;

/// ROUTE-34: the most both profiles allow.
const MOST_TABLES: usize = 200;
const MOST_ROUTES: usize = 400;

/// Fills `topology.route_tables`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    for (index, (name, table)) in scope.config.route_tables.iter().enumerate() {
        let at = join("routeTables", name);
        names::resource_name(name, &at, true, problems);
        if index == MOST_TABLES {
            let message = format!("a subscription holds at most {MOST_TABLES} route tables");
            problems.error("Sim.ROUTE-34", &at, message).on_key();
        }
        let routes = routes(topology.profile, name, table, &at, problems);
        topology.route_tables.push(RouteTable {
            name: name.clone(),
            disable_bgp_route_propagation: table.disable_bgp_route_propagation.unwrap_or(false),
            routes,
        });
    }
}

fn routes(
    profile: Profile,
    table_name: &str,
    table: &config::RouteTable,
    at: &str,
    problems: &mut Problems,
) -> Vec<Udr> {
    let mut routes = Vec::new();
    let mut by_prefix: HashMap<IpNet, &str> = HashMap::new();
    if problems.unreadable(at) {
        return routes;
    }
    for (index, (name, route)) in table.routes.iter().enumerate() {
        let at = join(&join(at, "routes"), name);
        names::resource_name(name, &at, true, problems);
        if index == MOST_ROUTES {
            let message = format!("route table {table_name} holds more than {MOST_ROUTES} routes");
            problems.error("Sim.ROUTE-34", &at, message).on_key();
        }
        let prefix = prefix(&route.address_prefix, &join(&at, "addressPrefix"), problems);
        let next_hop = next_hop(profile, route, prefix, &at, problems);
        let Some(prefix) = prefix else { continue };
        if let Some(first) = by_prefix.insert(prefix, name) {
            let message =
                format!("routes '{first}' and '{name}' of {table_name} have the same prefix {prefix}");
            problems
                .error("Sim.ROUTE-10", join(&at, "addressPrefix"), message)
                .help("remove one of the two");
        }
        if let Some(next_hop) = next_hop {
            routes.push(Udr {
                name: name.clone(),
                prefix,
                next_hop,
            });
        }
    }
    routes
}

fn prefix(text: &str, at: &str, problems: &mut Problems) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(net) if net.addr() != net.network() => host_bits(net, at, problems),
        Ok(net) => return Some(net),
        Err(_) if tags::canonical(text).is_some() => {
            let message = format!(
                "this version does not carry out a service tag as prefix ('{}')",
                shown(text)
            );
            problems
                .error("Sim.Unsupported", at, message)
                .help("write the address prefixes instead (ROUTE-33)");
        }
        Err(_) => {
            let message = format!(
                "expected an address prefix such as 10.2.0.0/16, found '{}'",
                shown(text)
            );
            problems.error("Sim.Value", at, message);
        }
    }
    None
}

fn next_hop(
    profile: Profile,
    route: &config::Route,
    prefix: Option<IpNet>,
    at: &str,
    problems: &mut Problems,
) -> Option<UdrNextHop> {
    let place = join(at, "nextHopType");
    let next_hop = match route.next_hop_type {
        NextHopType::VirtualAppliance => return appliance(route, prefix, at, problems),
        NextHopType::VirtualApplianceEcmp if profile == Profile::Azure2025 => {
            problems
                .error(
                    "Sim.Unsupported",
                    place,
                    "this version does not carry out VirtualApplianceEcmp",
                )
                .help("use VirtualAppliance with one next hop (ROUTE-36)");
            return None;
        }
        NextHopType::VirtualApplianceEcmp => {
            problems
                .error(
                    "Sim.ROUTE-11",
                    place,
                    "azure-2018 has no next hop type VirtualApplianceEcmp",
                )
                .help("use VirtualAppliance");
            return None;
        }
        NextHopType::VnetPeering | NextHopType::VnetGlobalPeering | NextHopType::ServiceEndpoint => {
            problems
                .error(
                    "Sim.ROUTE-12",
                    place,
                    "a user route cannot lead to a peering or a service endpoint",
                )
                .help("such routes come from peerings and service endpoints by themselves");
            return None;
        }
        NextHopType::VirtualNetworkGateway => UdrNextHop::VirtualNetworkGateway,
        NextHopType::VnetLocal => UdrNextHop::VnetLocal,
        NextHopType::Internet => UdrNextHop::Internet,
        NextHopType::None => UdrNextHop::None,
    };
    if route.next_hop_ip_address.is_some() {
        problems
            .error(
                "Sim.ROUTE-11",
                join(at, "nextHopIpAddress"),
                "a next hop address is valid only with VirtualAppliance",
            )
            .help("remove 'nextHopIpAddress', or use VirtualAppliance");
    }
    Some(next_hop)
}

/// ROUTE-13.
fn appliance(
    route: &config::Route,
    prefix: Option<IpNet>,
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
    if prefix.is_some_and(|net| net.addr().is_ipv4() != address.0.is_ipv4()) {
        let message = format!("the next hop {} is of another family than the prefix", address.0);
        problems
            .error("Sim.ROUTE-13", join(at, "nextHopIpAddress"), message)
            .help("give the appliance's address of the prefix's family");
    }
    Some(UdrNextHop::VirtualAppliance(address.0))
}
