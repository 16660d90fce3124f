//! Connections: which ends they may join, and what passes (GW-02, GW-04, GW-12).

use ipnet::IpNet;

use crate::check::{Scope, names};
use crate::config::{self, ConnectionType};
use crate::problems::{Problems, join};
use crate::topology::{Connection, Far, Gateway, GatewayIndex, GatewayKind, SiteIndex, Topology};

/// NET-03: what fits through a VPN tunnel, and everywhere else.
const TUNNEL_MTU: u16 = 1400;
const MTU: u16 = 1500;

/// Pairs of ranges of one connection, which each packet is compared with in turn: as many as two lists of 32 give.
const MOST_SELECTORS: usize = 1024;

/// Fills `topology.connections`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    for (name, given) in &scope.config.connections {
        let at = join("connections", name);
        names::resource_name(name, &at, true, problems);
        let gateway = scope
            .gateways
            .find(&given.gateway, &join(&at, "gateway"), problems);
        let far = far(scope, given, &at, problems);
        let (Some(gateway), Some(far)) = (gateway, far) else {
            continue;
        };
        let circuit = matches!(far, Far::Circuit { .. });
        let connection = Connection {
            name: name.clone(),
            gateway: GatewayIndex(gateway),
            selectors: selectors(given, &topology.gateways[gateway], &far, &at, topology, problems),
            bgp: circuit || given.enable_bgp == Some(true),
            mtu: if circuit { MTU } else { TUNNEL_MTU },
            far,
        };
        ends(&connection, given, &at, topology, problems);
        topology.connections.push(connection);
    }
}

/// The other end, from the properties that the type takes; an error for each it needs or does not take.
fn far(scope: &Scope<'_>, given: &config::Connection, at: &str, problems: &mut Problems) -> Option<Far> {
    let kind = given.connection_type.unwrap_or_default();
    let (needs, takes): (&str, &[&str]) = match kind {
        ConnectionType::Ipsec => ("site", &["site"]),
        ConnectionType::Vnet2Vnet => ("remoteGateway", &["remoteGateway"]),
        ConnectionType::ExpressRoute => ("circuit", &["circuit", "site"]),
        ConnectionType::VpnClient => {
            problems
                .error(
                    "Sim.GW-02",
                    join(at, "connectionType"),
                    "point-to-site clients have no connection object here",
                )
                .help("use a site with connectionType IPsec");
            return None;
        }
    };
    let properties = [
        ("site", given.site.is_some()),
        ("remoteGateway", given.remote_gateway.is_some()),
        ("circuit", given.circuit.is_some()),
    ];
    for (property, present) in properties {
        if present && !takes.contains(&property) {
            problems
                .error(
                    "Sim.GW-02",
                    join(at, property),
                    format!("a connection of type {} has no '{property}'", kind.word()),
                )
                .help(format!("remove '{property}', or change 'connectionType'"));
        } else if !present && property == needs {
            problems
                .error(
                    "Sim.GW-02",
                    at,
                    format!("a connection of type {} needs '{property}'", kind.word()),
                )
                .on_key()
                .help(format!("add '{property}'"));
        }
    }
    let site = given
        .site
        .as_ref()
        .and_then(|site| scope.sites.find(site, &join(at, "site"), problems))
        .map(SiteIndex);
    match kind {
        ConnectionType::Vnet2Vnet => {
            let remote = given.remote_gateway.as_ref()?;
            let remote = scope
                .gateways
                .find(remote, &join(at, "remoteGateway"), problems)?;
            Some(Far::Gateway(GatewayIndex(remote)))
        }
        ConnectionType::ExpressRoute => Some(Far::Circuit {
            name: given.circuit.clone()?,
            site,
        }),
        ConnectionType::Ipsec | ConnectionType::VpnClient => site.map(Far::Site),
    }
}

/// What the gateways at the ends must be (GW-02), and BGP's own needs.
fn ends(it: &Connection, given: &config::Connection, at: &str, topology: &Topology, problems: &mut Problems) {
    let gateway = &topology.gateways[it.gateway.0];
    let wrong = |problems: &mut Problems, property: &str, message: String, help: &str| {
        problems
            .error("Sim.GW-02", join(at, property), message)
            .help(help);
    };
    if gateway.is_vpn() == matches!(it.far, Far::Circuit { .. }) {
        let message = format!(
            "{} is {} gateway",
            gateway.name,
            if gateway.is_vpn() {
                "a VPN"
            } else {
                "an ExpressRoute"
            }
        );
        wrong(
            problems,
            "gateway",
            message,
            "an ExpressRoute connection needs an ExpressRoute gateway, any other a VPN gateway",
        );
        return;
    }
    let remote = match it.far {
        Far::Gateway(remote) => Some(&topology.gateways[remote.0]),
        _ => None,
    };
    if let Some(remote) = remote {
        let policy = [gateway, remote]
            .into_iter()
            .find(|it| it.kind != GatewayKind::RouteBasedVpn);
        if it.far == Far::Gateway(it.gateway) {
            wrong(
                problems,
                "remoteGateway",
                format!("{} is connected with itself", gateway.name),
                "name another gateway",
            );
        } else if let Some(policy) = policy {
            let message = format!(
                "{} is no RouteBased VPN gateway, which Vnet2Vnet needs at both ends",
                policy.name
            );
            wrong(problems, "remoteGateway", message, "use vpnType RouteBased");
        }
    }
    if given.enable_bgp != Some(true) || !gateway.is_vpn() {
        return;
    }
    if gateway.kind == GatewayKind::PolicyBasedVpn {
        wrong(
            problems,
            "enableBgp",
            format!("{} is PolicyBased and cannot speak BGP", gateway.name),
            "use vpnType RouteBased",
        );
    }
    let asn = match &it.far {
        Far::Site(site) => topology.sites[site.0].asn,
        _ => remote.map(|remote| remote.asn),
    };
    match asn {
        None => wrong(
            problems,
            "enableBgp",
            "BGP needs the site's 'asn'".to_owned(),
            "add 'asn' to the site",
        ),
        Some(asn) if asn == gateway.asn => {
            let message = format!("both ends have ASN {asn}, and BGP between them needs two");
            wrong(problems, "enableBgp", message, "give one of them another 'asn'");
        }
        Some(_) => {}
    }
}

/// GW-12.
fn selectors(
    given: &config::Connection,
    gateway: &Gateway,
    far: &Far,
    at: &str,
    topology: &Topology,
    problems: &mut Problems,
) -> Option<Vec<(IpNet, IpNet)>> {
    let policy = gateway.kind == GatewayKind::PolicyBasedVpn;
    let wanted = policy || given.use_policy_based_traffic_selectors == Some(true);
    let Far::Site(site) = *far else {
        if given.use_policy_based_traffic_selectors == Some(true) {
            problems
                .error(
                    "Sim.GW-02",
                    join(at, "usePolicyBasedTrafficSelectors"),
                    "traffic selectors are of IPsec connections to sites only",
                )
                .help("remove it");
        }
        return None;
    };
    if !wanted {
        if !given.traffic_selector_policies.is_empty() {
            problems
                .error(
                    "Sim.GW-12",
                    join(at, "trafficSelectorPolicies"),
                    "traffic selectors need a PolicyBased gateway or usePolicyBasedTrafficSelectors",
                )
                .help("add 'usePolicyBasedTrafficSelectors: true'");
        }
        return None;
    }
    let azure = &topology.vnets[gateway.vnet.0].address_space;
    let azure = azure.iter().copied().filter(|range| range.addr().is_ipv4());
    let nets = |list: &[config::Cidr]| -> Vec<IpNet> { list.iter().map(|cidr| cidr.0).collect() };
    let policies: Vec<(Vec<IpNet>, Vec<IpNet>)> = match &given.traffic_selector_policies[..] {
        [] => vec![(azure.collect(), topology.sites[site.0].prefixes.clone())],
        given => given
            .iter()
            .map(|it| (nets(&it.local_address_ranges), nets(&it.remote_address_ranges)))
            .collect(),
    };
    let counts = policies.iter().map(|(azure, site)| azure.len() * site.len());
    let count: usize = counts.sum();
    if count > MOST_SELECTORS {
        problems
            .error(
                "Sim.GW-12",
                at,
                format!("the connection has {count} pairs of traffic selectors"),
            )
            .on_key()
            .help(format!("use larger ranges: at most {MOST_SELECTORS} pairs"));
        return None;
    }
    let pairs = policies.iter().flat_map(|(azure, site)| {
        let with = move |&azure: &IpNet| site.iter().map(move |&site| (azure, site));
        azure.iter().flat_map(with)
    });
    Some(pairs.collect())
}
