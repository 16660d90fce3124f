//! VNets and subnets: VNET-02..07, VNET-10, VNET-11, GW-01, ROUTE-31, NET-10.

use std::collections::HashMap;

use indexmap::IndexMap;
use ipnet::IpNet;

use crate::check::Scope;
use crate::check::names::{self, LONGEST_INTERFACE, Names};
use crate::check::ranges::{Sorted, forbidden};
use crate::check::service_endpoints;
use crate::config;
use crate::endpoint::INTERNET;
use crate::keys::{name_of, subscription_id};
use crate::limits::Limit;
use crate::problems::{Problems, join};
use crate::topology::{
    NsgIndex, PortNamespace, Profile, RouteTableIndex, Subnet, SubnetIndex, Topology, Vnet, VnetIndex,
    VnetPort,
};
use crate::values::host_bits;
use crate::words::shown;

/// A bound on what pairs of VNets cost; four subscriptions as full as VNET-10 lets them be.
pub(crate) const MOST_VNETS_OF_A_LAB: usize = 4000;

/// NSG-19.
const FLOW_TIMEOUTS: std::ops::RangeInclusive<u8> = 4..=30;

/// GW-01.
pub(crate) const GATEWAY_SUBNET: &str = "GatewaySubnet";

/// The directory of subscriptions that name none.
const DEFAULT_TENANT: &str = "default";

/// Fills `topology.vnets` and `topology.subnets`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    for (index, (name, vnet)) in scope.config.vnets.iter().enumerate() {
        let at = join("vnets", name);
        names::resource_key(name, &at, problems);
        let subnets = subnets(scope, vnet, VnetIndex(index), &at, topology, problems);
        let resolved = Vnet {
            name: name.clone(),
            location: location(scope, vnet, &at, problems),
            subscription: String::new(),
            tenant: String::new(),
            classic: vnet.deployment_model == Some(config::DeploymentModel::Classic),
            address_space: vnet.address_space.iter().map(|cidr| cidr.0).collect(),
            subnets,
            flow_timeout_minutes: flow_timeout(vnet, &at, problems),
            tun: vnet.tun.as_ref().map(|tun| port(tun, name, &at, problems)),
        };
        if !problems.unreadable(&at) {
            address_space(name, &resolved.address_space, &at, problems);
            subnet_ranges(topology.profile, vnet, &resolved, &at, topology, problems);
        }
        topology.vnets.push(resolved);
        subscription(scope, vnet, index, &at, topology, problems);
    }
    counts(scope, topology, problems);
    ports(topology, problems);
}

/// VNET-10: VNets of a subscription, and subnets of a VNet.
fn counts(scope: &Scope<'_>, topology: &Topology, problems: &mut Problems) {
    let (vnets, subnets) = (
        scope.limits.most(Limit::VirtualNetworks),
        scope.limits.most(Limit::Subnets),
    );
    let mut held: HashMap<&str, usize> = HashMap::new();
    for (index, vnet) in topology.vnets.iter().enumerate() {
        let at = join("vnets", &vnet.name);
        let held = held.entry(&vnet.subscription).or_default();
        *held += 1;
        if *held == vnets + 1 {
            let message = format!("a subscription holds at most {vnets} VNets");
            problems.error("VnetCountLimitReached", &at, message).on_key();
        } else if index == MOST_VNETS_OF_A_LAB {
            let message = format!("a lab holds at most {MOST_VNETS_OF_A_LAB} VNets");
            problems.error("VnetCountLimitReached", &at, message).on_key();
        }
        if vnet.subnets.len() > subnets {
            let message = format!("virtual network {} has more than {subnets} subnets", vnet.name);
            problems.error(Limit::Subnets.code(), at, message).on_key();
        }
    }
}

/// NSG-19.
fn flow_timeout(vnet: &config::Vnet, at: &str, problems: &mut Problems) -> Option<u8> {
    let minutes = vnet.flow_timeout_in_minutes?;
    let given = u8::try_from(minutes)
        .ok()
        .filter(|minutes| FLOW_TIMEOUTS.contains(minutes));
    if given.is_none() {
        problems
            .error(
                "Sim.NSG-19",
                join(at, "flowTimeoutInMinutes"),
                format!("{minutes} is not from 4 to 30"),
            )
            .help("give the minutes after which a quiet TCP flow is forgotten");
    }
    given
}

/// `West US 2` and `westus2` are the same place.
fn location(scope: &Scope<'_>, vnet: &config::Vnet, at: &str, problems: &mut Problems) -> String {
    let (written, target) = match &vnet.location {
        Some(location) => (location.as_str(), join(at, "location")),
        None => (
            scope.config.location.as_deref().unwrap_or("westus2"),
            "location".to_owned(),
        ),
    };
    let location = written.to_lowercase().replace(' ', "");
    if location.is_empty() || !location.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        problems
            .error(
                "Sim.Value",
                target,
                format!("'{}' is not a region", shown(written)),
            )
            .help("write it as westus2 or West US 2");
    }
    location
}

fn subscription(
    scope: &Scope<'_>,
    vnet: &config::Vnet,
    index: usize,
    at: &str,
    topology: &mut Topology,
    problems: &mut Problems,
) {
    let mut tenant = DEFAULT_TENANT.to_owned();
    if let Some(name) = &vnet.subscription
        && let Some(found) = scope
            .subscriptions
            .find(name, &join(at, "subscription"), problems)
        && let Some((_, subscription)) = scope.config.subscriptions.get_index(found)
    {
        tenant = subscription.tenant.clone().unwrap_or(tenant);
    }
    let id = subscription_id(scope.config, vnet.subscription.as_deref());
    topology.vnets[index].subscription = id;
    topology.vnets[index].tenant = tenant;
}

/// VNET-02, VNET-06, NET-10.
fn address_space(name: &str, space: &[IpNet], at: &str, problems: &mut Problems) {
    let at = join(at, "addressSpace");
    let entry = |index: usize| join(&at, &index.to_string());
    for (index, net) in space.iter().enumerate() {
        if net.addr() != net.network() {
            host_bits(*net, &entry(index), problems);
        } else if let Some(taken) = forbidden(*net) {
            let message = format!("the range {net} is not allowed: it intersects {taken}");
            problems
                .error("Sim.VNET-02", entry(index), message)
                .help("use a private range, such as 10.0.0.0/16");
        }
    }
    if space.is_empty() {
        problems
            .error("Sim.Value", &at, format!("VNet '{name}' has no address space"))
            .help("add 'addressSpace: [10.0.0.0/16]'");
    } else if !space.iter().any(|net| matches!(net, IpNet::V4(_))) {
        problems
            .error(
                "Sim.NET-10",
                &at,
                "a VNet needs an IPv4 range: IPv6 exists beside IPv4 only",
            )
            .help("add an IPv4 range to 'addressSpace'");
    }
    let ranges = space
        .iter()
        .enumerate()
        .map(|(index, net)| (*net, index))
        .collect();
    Sorted::new(ranges).nearest_overlaps(|(old, old_index), (new, new_index)| {
        let message = format!("the ranges {old} and {new} of one VNet overlap");
        problems
            .error("Sim.VNET-06", entry(old_index.max(new_index)), message)
            .help("remove one of them");
    });
}

fn subnets(
    scope: &Scope<'_>,
    vnet: &config::Vnet,
    owner: VnetIndex,
    at: &str,
    topology: &mut Topology,
    problems: &mut Problems,
) -> Vec<SubnetIndex> {
    let mut indices = Vec::new();
    for (name, subnet) in &vnet.subnets {
        let at = join(&join(at, "subnets"), name);
        names::resource_name(name, &at, true, problems);
        let prefixes: Vec<IpNet> = subnet
            .address_prefix
            .iter()
            .chain(&subnet.address_prefixes)
            .map(|cidr| cidr.0)
            .collect();
        if subnet.address_prefix.is_some() && !subnet.address_prefixes.is_empty() {
            problems
                .error(
                    "Sim.Value",
                    join(&at, "addressPrefixes"),
                    "both 'addressPrefix' and 'addressPrefixes' are given",
                )
                .help("keep one of the two");
        }
        let nsg = subnet.network_security_group.as_ref().and_then(|name| {
            scope
                .nsgs
                .find(name, &join(&at, "networkSecurityGroup"), problems)
                .map(NsgIndex)
        });
        let route_table = subnet.route_table.as_ref().and_then(|name| {
            scope
                .route_tables
                .find(name, &join(&at, "routeTable"), problems)
                .map(RouteTableIndex)
        });
        if name.eq_ignore_ascii_case(GATEWAY_SUBNET) {
            gateway_subnet(scope, nsg, route_table, &at, problems);
        }
        indices.push(SubnetIndex(topology.subnets.len()));
        topology.subnets.push(Subnet {
            name: name.clone(),
            vnet: owner,
            prefixes,
            nsg,
            route_table,
            service_endpoints: service_endpoints::resolve(scope, &subnet.service_endpoints, &at, problems),
        });
    }
    indices
}

/// GW-01, ROUTE-31.
fn gateway_subnet(
    scope: &Scope<'_>,
    nsg: Option<NsgIndex>,
    route_table: Option<RouteTableIndex>,
    at: &str,
    problems: &mut Problems,
) {
    if nsg.is_some() {
        problems
            .error(
                "Sim.GW-01",
                join(at, "networkSecurityGroup"),
                "GatewaySubnet must not have an NSG",
            )
            .help("remove 'networkSecurityGroup'");
    }
    let table = route_table.and_then(|index| scope.config.route_tables.get_index(index.0));
    let Some((name, table)) = table else { return };
    let default = |prefix: &str| prefix == "0.0.0.0/0";
    let message = if table.disable_bgp_route_propagation == Some(true) {
        format!("route table {name} disables BGP route propagation, which GatewaySubnet must not")
    } else if table.routes.values().any(|route| default(&route.address_prefix)) {
        format!("route table {name} has a route for 0.0.0.0/0, which GatewaySubnet must not")
    } else {
        return;
    };
    problems
        .error("Sim.ROUTE-31", join(at, "routeTable"), message)
        .help("give GatewaySubnet a table of its own");
}

/// VNET-04, VNET-05, and NET-10 for the subnets of one VNet.
fn subnet_ranges(
    profile: Profile,
    vnet: &config::Vnet,
    resolved: &Vnet,
    at: &str,
    topology: &Topology,
    problems: &mut Problems,
) {
    let name = &resolved.name;
    let space = Sorted::new(resolved.address_space.iter().map(|net| (*net, 0)).collect());
    let mut ranges: Vec<(IpNet, usize)> = Vec::new();
    let mut places: Vec<(String, &str)> = Vec::new();
    for (index, (subnet_name, declared)) in resolved.subnets.iter().zip(&vnet.subnets) {
        let at = join(&join(at, "subnets"), subnet_name);
        let prefixes = &topology.subnets[index.0].prefixes;
        if !prefixes.iter().any(|net| matches!(net, IpNet::V4(_))) {
            let (code, message) = if prefixes.is_empty() {
                (
                    "Sim.Value",
                    format!("subnet '{subnet_name}' has no address prefix"),
                )
            } else {
                (
                    "Sim.NET-10",
                    format!("subnet '{subnet_name}' needs an IPv4 prefix beside its IPv6 one"),
                )
            };
            problems
                .error(code, &at, message)
                .help("add 'addressPrefix', or the prefix to 'addressPrefixes'");
        }
        for (position, net) in prefixes.iter().enumerate() {
            let target = match declared.address_prefix {
                Some(_) => join(&at, "addressPrefix"),
                None => join(&at, &format!("addressPrefixes.{position}")),
            };
            if net.addr() != net.network() {
                host_bits(*net, &target, problems);
            } else if let Some(help) = wrong_size(profile, *net) {
                let message =
                    format!("Subnet '{subnet_name}' is not valid in virtual network '{name}': {net}.");
                problems.error("NetcfgInvalidSubnet", &target, message).help(help);
            } else if !space.holds(*net) {
                let message = format!(
                    "Subnet '{subnet_name}' is not valid because its IP address range is outside the IP address \
                     range of virtual network '{name}'."
                );
                problems
                    .error("Sim.VNET-05", &target, message)
                    .help(format!("put it inside one range of '{name}'"));
            }
            ranges.push((*net, places.len()));
            places.push((target, subnet_name));
        }
    }
    Sorted::new(ranges).nearest_overlaps(|(_, one), (_, other)| {
        let (old, new) = (one.min(other), one.max(other));
        let message = format!(
            "Subnet '{}' is not valid because its IP address range overlaps with that of an existing subnet '{}' \
             in virtual network '{name}'.",
            places[new].1, places[old].1
        );
        problems.error("NetcfgSubnetRangesOverlap", &places[new].0, message).help("give it a range of its own");
    });
}

/// VNET-04.
fn wrong_size(profile: Profile, net: IpNet) -> Option<&'static str> {
    match (net, profile) {
        (IpNet::V4(net), Profile::Azure2018) if !(8..=29).contains(&net.prefix_len()) => {
            Some("an IPv4 subnet is from /29 to /8")
        }
        (IpNet::V4(net), Profile::Azure2025) if !(2..=29).contains(&net.prefix_len()) => {
            Some("an IPv4 subnet is from /29 to /2")
        }
        (IpNet::V6(net), _) if net.prefix_len() != 64 => Some("an IPv6 subnet is exactly /64"),
        _ => None,
    }
}

/// The VNet port, with a name the kernel takes.
fn port(tun: &config::Tun, vnet: &str, at: &str, problems: &mut Problems) -> VnetPort {
    let at = join(at, "tun");
    let cut = || {
        format!("pl-{}", name_of(vnet))
            .chars()
            .take(LONGEST_INTERFACE)
            .collect()
    };
    let interface: String = tun.interface.clone().unwrap_or_else(cut);
    if !names::interface_name(&interface) && tun.interface.is_some() {
        let message = format!("'{}' cannot name an interface", shown(&interface));
        problems
            .error("Sim.Value", join(&at, "interface"), message)
            .help("at most 15 bytes, without blanks, '/', ':' and '%'");
    }
    let namespace = match tun.namespace.as_deref() {
        None => PortNamespace::Lab,
        Some(host) if host.eq_ignore_ascii_case("host") => PortNamespace::Host,
        Some(name) => {
            let path = name.starts_with('/') && !name.contains('\0') && name.len() < 4096;
            if !path && !names::namespace_name(name) {
                let message = format!("'{}' is no namespace", shown(name));
                problems
                    .error("Sim.Value", join(&at, "namespace"), message)
                    .help("give a name under /run/netns, an absolute path, or host");
            }
            PortNamespace::Existing(name.to_owned())
        }
    };
    VnetPort { interface, namespace }
}

/// Two TUNs of one namespace differ in name, and a namespace of the lab belongs to one thing.
fn ports(topology: &Topology, problems: &mut Problems) {
    let mut taken: HashMap<(String, &str), &str> = HashMap::new();
    for vnet in &topology.vnets {
        let Some(port) = &vnet.tun else { continue };
        let at = join(&join("vnets", &vnet.name), "tun");
        let namespace = match &port.namespace {
            PortNamespace::Lab => {
                if vnet.name.eq_ignore_ascii_case(INTERNET) {
                    let message = format!("the namespace '{INTERNET}' belongs to the lab's test addresses");
                    problems
                        .error("Sim.DuplicateName", &at, message)
                        .help("rename the VNet");
                }
                continue;
            }
            PortNamespace::Existing(name) => name.clone(),
            PortNamespace::Host => String::new(),
        };
        if let Some(other) = taken.insert((namespace, &port.interface), &vnet.name) {
            let message = format!(
                "VNet '{other}' has an interface '{}' in the same namespace",
                port.interface
            );
            problems
                .error("Sim.DuplicateName", join(&at, "interface"), message)
                .help("rename one of the two");
        }
    }
}

/// Subnets by name for every VNet.
pub(crate) fn subnet_names(vnets: &IndexMap<String, config::Vnet>) -> Vec<Names> {
    vnets
        .values()
        .map(|vnet| Names::new("subnet", vnet.subnets.keys()))
        .collect()
}
