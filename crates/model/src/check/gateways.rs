//! Gateways and sites: GW-01, GW-02, NET-10, ROUTE-17.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::check::ranges::{forbidden, public, usable};
use crate::check::vnets::GATEWAY_SUBNET;
use crate::check::{Scope, connections, names, ranges};
use crate::config::{self, GatewayType, VpnType};
use crate::endpoint::INTERNET;
use crate::problems::{Problems, join};
use crate::topology::{Gateway, GatewayKind, Site, Subnet, Topology, UdrNextHop, VnetIndex};

/// The ASN of Azure's gateways unless given.
const AZURE_ASN: u32 = 65515;

/// GW-02: the SKU that can neither coexist with ExpressRoute nor speak BGP.
const BASIC: &str = "Basic";

/// Fills `topology.gateways`, `sites` and `connections`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    gateways(scope, topology, problems);
    sites(scope, topology, problems);
    connections::check(scope, topology, problems);
}

/// Whether the file puts a gateway into this VNet.
pub(crate) fn stands_in(scope: &Scope<'_>, vnet: usize) -> bool {
    let mut gateways = scope.config.gateways.values();
    gateways.any(|gateway| scope.vnets.position(&gateway.vnet) == Some(vnet))
}

/// ROUTE-17: the next hop type VirtualNetworkGateway means a VPN gateway, and only one. After the peerings.
pub(crate) fn user_routes(topology: &Topology, problems: &mut Problems) {
    for subnet in &topology.subnets {
        let Some(table) = subnet.route_table.map(|table| &topology.route_tables[table.0]) else {
            continue;
        };
        let led = |udr: &&crate::topology::Udr| udr.next_hop == UdrNextHop::VirtualNetworkGateway;
        let Some(udr) = table.routes.iter().find(led) else {
            continue;
        };
        let circuit = topology
            .gateways_in_use(subnet.vnet)
            .into_iter()
            .map(|used| &topology.gateways[used.gateway.0])
            .find(|gateway| gateway.kind == GatewayKind::ExpressRoute);
        if let Some(gateway) = circuit {
            let vnet = &topology.vnets[subnet.vnet.0].name;
            let at = join(
                &join(&join(&join("vnets", vnet), "subnets"), &subnet.name),
                "routeTable",
            );
            let message = format!(
                "route {} of {} leads to a virtual network gateway, but {vnet} uses the ExpressRoute gateway {}",
                udr.name, table.name, gateway.name
            );
            problems.error("Sim.ROUTE-17", at, message).help(
                "the next hop type VirtualNetworkGateway is for a VPN gateway without ExpressRoute beside it",
            );
        }
    }
}

fn gateways(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let mut public_owners: HashMap<IpAddr, String> = HashMap::new();
    for nic in &topology.nics {
        public_owners.extend(
            nic.public_addresses
                .iter()
                .map(|&address| (address, nic.name.clone())),
        );
    }
    for (name, given) in &scope.config.gateways {
        let at = join("gateways", name);
        names::resource_name(name, &at, true, problems);
        let vnet = scope.vnets.find(&given.vnet, &join(&at, "vnet"), problems);
        let kind = kind(given, &at, problems);
        let active_active = given.active_active.unwrap_or(given.public_ip_addresses.len() > 1);
        let public_addresses = public_addresses(name, given, &at, &mut public_owners, problems);
        if given.asn == Some(0) {
            problems.error("Sim.Value", join(&at, "asn"), "0 is no ASN");
        }
        let mut gateway = Gateway {
            name: name.clone(),
            vnet: VnetIndex(vnet.unwrap_or(0)),
            kind,
            asn: given.asn.unwrap_or(AZURE_ASN),
            addresses: Vec::new(),
            public_addresses,
        };
        if vnet.is_some() {
            beside_others(&gateway, given, &at, scope, topology, problems);
            let count = if active_active { 2 } else { 1 };
            gateway.addresses = instance_addresses(&gateway, count, &at, topology, problems);
        }
        topology.gateways.push(gateway);
    }
}

/// GW-02.
fn kind(given: &config::Gateway, at: &str, problems: &mut Problems) -> GatewayKind {
    let policy = given.vpn_type == Some(VpnType::PolicyBased);
    match given.gateway_type.unwrap_or_default() {
        GatewayType::ExpressRoute => {
            if policy {
                problems
                    .error(
                        "Sim.GW-02",
                        join(at, "vpnType"),
                        "an ExpressRoute gateway has no policies",
                    )
                    .help("remove 'vpnType'");
            }
            GatewayKind::ExpressRoute
        }
        GatewayType::Vpn if policy => {
            if given.active_active == Some(true) {
                problems
                    .error(
                        "Sim.GW-02",
                        join(at, "activeActive"),
                        "a PolicyBased gateway has one instance",
                    )
                    .help("use vpnType RouteBased");
            }
            GatewayKind::PolicyBasedVpn
        }
        GatewayType::Vpn => GatewayKind::RouteBasedVpn,
    }
}

fn public_addresses(
    name: &str,
    given: &config::Gateway,
    at: &str,
    owners: &mut HashMap<IpAddr, String>,
    problems: &mut Problems,
) -> Vec<IpAddr> {
    let at = join(at, "publicIPAddresses");
    let addresses: Vec<IpAddr> = given
        .public_ip_addresses
        .iter()
        .map(|address| address.0)
        .collect();
    let wanted = match given.active_active {
        Some(true) => 2..=2,
        Some(false) => 1..=1,
        None => 1..=2,
    };
    if !addresses.is_empty() && !wanted.contains(&addresses.len()) {
        let message = format!(
            "gateway {name} has {} public addresses; an active-active gateway has two, any other one",
            addresses.len()
        );
        problems
            .error("Sim.Value", &at, message)
            .help("give one public address for each instance, or none");
    }
    for (index, &address) in addresses.iter().enumerate() {
        let at = join(&at, &index.to_string());
        if !address.is_ipv4() || !public(address) {
            problems.error(
                "Sim.Value",
                &at,
                format!("{address} is not a public IPv4 address"),
            );
        } else if let Some(owner) = owners.insert(address, name.to_owned()) {
            problems
                .error(
                    "Sim.DuplicateName",
                    &at,
                    format!("the public address {address} belongs to {owner}"),
                )
                .help("give each its own");
        }
    }
    addresses
}

/// GW-01, GW-02: what the gateway's VNet must have, and may not have besides.
fn beside_others(
    gateway: &Gateway,
    given: &config::Gateway,
    at: &str,
    scope: &Scope<'_>,
    topology: &Topology,
    problems: &mut Problems,
) {
    let vnet = &topology.vnets[gateway.vnet.0].name;
    let Some(subnet) = gateway_subnet(topology, gateway.vnet) else {
        problems
            .error(
                "Sim.GW-01",
                join(at, "vnet"),
                format!("{vnet} has no subnet named exactly {GATEWAY_SUBNET}"),
            )
            .help(match subnet_in_other_case(topology, gateway.vnet) {
                Some(name) => format!("write '{GATEWAY_SUBNET}' instead of '{name}'"),
                None => format!("add '{GATEWAY_SUBNET}: {{ addressPrefix: … }}' of /27 to its subnets"),
            });
        return;
    };
    for other in topology.gateways_in(gateway.vnet) {
        let (earlier, declared) = (
            &topology.gateways[other.0],
            scope.config.gateways.get_index(other.0),
        );
        if earlier.is_vpn() == gateway.is_vpn() {
            let message = format!("{vnet} has a gateway of this type already: {}", earlier.name);
            problems
                .error("Sim.GW-02", at, message)
                .on_key()
                .help("a VNet has at most one VPN and one ExpressRoute gateway");
            continue;
        }
        let (vpn, of_vpn) = if gateway.is_vpn() {
            (gateway, Some(given))
        } else {
            (earlier, declared.map(|(_, given)| given))
        };
        let basic =
            of_vpn.is_some_and(|it| it.sku.as_ref().is_some_and(|sku| sku.eq_ignore_ascii_case(BASIC)));
        if vpn.kind == GatewayKind::PolicyBasedVpn || basic {
            let message = format!(
                "{} cannot stand beside an ExpressRoute gateway: it is {}",
                vpn.name,
                if basic { BASIC } else { "PolicyBased" }
            );
            problems
                .error("Sim.GW-02", at, message)
                .on_key()
                .help("use vpnType RouteBased and another sku");
        }
        if !subnet
            .prefixes
            .iter()
            .any(|prefix| prefix.addr().is_ipv4() && prefix.prefix_len() <= 27)
        {
            problems
                .error(
                    "Sim.GW-01",
                    at,
                    format!(
                        "the {GATEWAY_SUBNET} of {vnet} is too small for a VPN and an ExpressRoute gateway"
                    ),
                )
                .on_key()
                .help("make it /27 or larger");
        }
    }
}

/// The lowest free addresses of GatewaySubnet; nothing but gateways is in it.
fn instance_addresses(
    gateway: &Gateway,
    count: usize,
    at: &str,
    topology: &Topology,
    problems: &mut Problems,
) -> Vec<IpAddr> {
    let Some(subnet) = gateway_subnet(topology, gateway.vnet) else {
        return Vec::new();
    };
    let taken: HashSet<IpAddr> = topology
        .gateways_in(gateway.vnet)
        .flat_map(|other| &topology.gateways[other.0].addresses)
        .copied()
        .collect();
    let prefix = subnet.prefixes.iter().find(|prefix| prefix.addr().is_ipv4());
    let free = prefix
        .and_then(|&prefix| usable(prefix).map(|(first, last)| (prefix, first..=last)))
        .into_iter()
        .flat_map(|(prefix, numbers)| numbers.map(move |number| ranges::address(number, prefix)))
        .filter(|address| !taken.contains(address));
    let addresses: Vec<IpAddr> = free.take(count).collect();
    if addresses.len() < count {
        let message = format!(
            "Subnet {} with address prefix {} does not have enough capacity for {count} IP addresses.",
            subnet.name,
            prefix.map_or_else(String::new, ToString::to_string)
        );
        problems
            .error("SubnetIsFull", at, message)
            .on_key()
            .help("make GatewaySubnet /27");
    }
    addresses
}

fn gateway_subnet(topology: &Topology, vnet: VnetIndex) -> Option<&Subnet> {
    let mut subnets = topology.vnets[vnet.0].subnets.iter();
    subnets
        .find(|subnet| topology.subnets[subnet.0].name == GATEWAY_SUBNET)
        .map(|subnet| &topology.subnets[subnet.0])
}

/// A subnet that was meant to be the gateway's; names of other subnets match without regard to case.
fn subnet_in_other_case(topology: &Topology, vnet: VnetIndex) -> Option<&str> {
    let subnets = topology.vnets[vnet.0].subnets.iter();
    subnets
        .map(|subnet| topology.subnets[subnet.0].name.as_str())
        .find(|name| name.eq_ignore_ascii_case(GATEWAY_SUBNET))
}

fn sites(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    for (name, given) in &scope.config.sites {
        let at = join("sites", name);
        names::vm_name(name, &at, problems);
        let same = |other: &str| other.eq_ignore_ascii_case(name);
        let ports = topology.vnets.iter().filter(|vnet| vnet.tun.is_some());
        if same(INTERNET)
            || topology.vms.iter().any(|vm| same(&vm.name))
            || topology.nics.iter().any(|nic| same(&nic.name))
            || ports.into_iter().any(|vnet| same(&vnet.name))
        {
            let message = format!("something else of the lab is named '{name}'");
            problems
                .error("Sim.DuplicateName", &at, message)
                .on_key()
                .help("rename the site: it is a namespace of the lab, like a VM");
        }
        let prefixes: Vec<IpNet> = given.address_prefixes.iter().map(|cidr| cidr.0).collect();
        site_prefixes(name, &prefixes, &at, problems);
        if given.asn == Some(0) {
            problems.error("Sim.Value", join(&at, "asn"), "0 is no ASN");
        }
        let addresses = site_addresses(given, &prefixes, &at, problems);
        let first = addresses.first().copied().unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let site = Site {
            name: name.clone(),
            prefixes,
            addresses,
            asn: given.asn,
            bgp_address: given.bgp_peering_address.map_or(first, |address| address.0),
            run: given.run.clone(),
            withdrawn: withdrawn(name, given, &at, problems),
        };
        topology.sites.push(site);
    }
}

fn site_prefixes(name: &str, prefixes: &[IpNet], at: &str, problems: &mut Problems) {
    let at = join(at, "addressPrefixes");
    if prefixes.is_empty() && !problems.unreadable(&at) {
        problems
            .error("Sim.Value", &at, format!("site '{name}' has no address prefix"))
            .help("add 'addressPrefixes: [192.168.10.0/24]'");
    }
    for (index, prefix) in prefixes.iter().enumerate() {
        let at = join(&at, &index.to_string());
        if !prefix.addr().is_ipv4() {
            problems
                .error("Sim.NET-10", at, format!("{prefix}: gateways carry IPv4 only"))
                .help("remove it");
        } else if let Some(taken) = forbidden(*prefix).filter(|_| prefix.prefix_len() > 0) {
            problems
                .error(
                    "Sim.VNET-02",
                    at,
                    format!("the range {prefix} is not allowed: it intersects {taken}"),
                )
                .help("use a private range, such as 192.168.10.0/24");
        }
    }
}

fn withdrawn(name: &str, given: &config::Site, at: &str, problems: &mut Problems) -> Vec<IpNet> {
    let at = join(at, "withdrawnPrefixes");
    for (index, prefix) in given.withdrawn_prefixes.iter().enumerate() {
        if !given.address_prefixes.contains(prefix) {
            problems
                .error(
                    "Sim.Value",
                    join(&at, &index.to_string()),
                    format!("site '{name}' has no prefix {} that could be withdrawn", prefix.0),
                )
                .help("name one of its 'addressPrefixes'");
        }
    }
    given.withdrawn_prefixes.iter().map(|cidr| cidr.0).collect()
}

/// The addresses of the site's own interface.
fn site_addresses(
    given: &config::Site,
    prefixes: &[IpNet],
    at: &str,
    problems: &mut Problems,
) -> Vec<IpAddr> {
    let first = |prefix: &IpNet| prefix.hosts().next();
    let mut addresses: Vec<IpAddr> = given.addresses.iter().map(|address| address.0).collect();
    for (index, address) in addresses.iter().enumerate() {
        if !prefixes.iter().any(|prefix| prefix.contains(address)) && !problems.unreadable(at) {
            problems
                .error(
                    "Sim.Value",
                    join(&join(at, "addresses"), &index.to_string()),
                    format!("{address} lies in none of the site's prefixes"),
                )
                .help("give an address inside 'addressPrefixes'");
        }
    }
    if given.addresses.is_empty() {
        addresses = prefixes
            .iter()
            .filter(|prefix| prefix.prefix_len() > 0)
            .filter_map(first)
            .collect();
    }
    if addresses.is_empty() && !prefixes.is_empty() {
        problems
            .error("Sim.Value", at, "a site of 0.0.0.0/0 alone has no address")
            .help("add 'addresses', or the site's own prefix");
    }
    addresses
}
