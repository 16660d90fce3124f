//! The published cases of routes and rules, as data, through the public functions.

use std::net::IpAddr;
use std::path::Path;

use control::compile;
use control::present::effective_route;
use control::rib::{GatewayRoute, PeeringInput, Rib, Route, RouteSource, RouteState, RouteType, Scope};
use control::rules::ordered;
use control::tags::{TagScope, virtual_network};
use engine::filter::{inbound, outbound};
use engine::snapshot::NicId;
use ipnet::IpNet;
use model::Topology;
use model::topology::{
    Access, Asg, AsgIndex, Direction, Nsg, NsgIndex, PeeringState, PortRange, Profile, RuleAddress,
    RuleProtocol, SecurityRule, Udr, UdrNextHop,
};
use packet::key::mapped;
use packet::{FlowKey, Protocol};
use serde_json::{Value, json};

use crate::world::{Place, World, packet};

pub(crate) fn document(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn cases(document: &Value) -> &[Value] {
    document["cases"].as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

fn nets(value: &Value) -> Vec<IpNet> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .map(|net| text(net).parse().unwrap())
        .collect()
}

fn addresses(value: &Value) -> Vec<IpAddr> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .map(|address| text(address).parse().unwrap())
        .collect()
}

fn udr(value: &Value) -> Udr {
    let next_hop = match text(&value["nextHopType"]) {
        "VirtualAppliance" => UdrNextHop::VirtualAppliance(text(&value["nextHopIp"]).parse().unwrap()),
        "VnetLocal" => UdrNextHop::VnetLocal,
        "Internet" => UdrNextHop::Internet,
        "VirtualNetworkGateway" => UdrNextHop::VirtualNetworkGateway,
        "None" => UdrNextHop::None,
        other => panic!("next hop type {other}"),
    };
    Udr {
        tag: None,
        name: text(&value["name"]).to_owned(),
        prefix: text(&value["prefix"]).parse().unwrap(),
        next_hop,
    }
}

fn state(value: &Value) -> PeeringState {
    match text(value) {
        "Initiated" => PeeringState::Initiated,
        "Connected" => PeeringState::Connected,
        "Disconnected" => PeeringState::Disconnected,
        other => panic!("peering state {other}"),
    }
}

/// What a case of effective_routes.json describes.
fn scope(case: &Value, profile: Profile) -> Scope {
    let vnet = &case["vnet"];
    let peerings = vnet["peerings"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|peering| PeeringInput {
            index: None,
            state: state(&peering["state"]),
            global: peering["global"].as_bool().unwrap(),
            access: true,
            remote_space: nets(&peering["remoteAddressSpace"]),
        });
    let gateways = [&vnet["gateway"], &vnet["remoteGateway"]];
    let gateway_routes = gateways
        .into_iter()
        .filter(|gateway| gateway.is_object())
        .flat_map(|gateway| {
            nets(&gateway["learnedPrefixes"])
                .into_iter()
                .map(|prefix| GatewayRoute {
                    prefix,
                    next_hops: vec![text(&gateway["nextHopIp"]).parse().unwrap()],
                    gateway: None,
                })
        });
    Scope {
        disable_peering_route: false,
        profile,
        ranges: nets(&vnet["addressSpace"]),
        peerings: peerings.collect(),
        gateway_routes: gateway_routes.collect(),
        service_endpoints: nets(&case["serviceEndpointPrefixes"]),
        none_defaults: nets(&case["defaultNone"]),
        vpn_gateway: None,
        user_routes: case["udr"].as_array().into_iter().flatten().map(udr).collect(),
        disable_bgp_route_propagation: case["disableBgpRoutePropagation"].as_bool().unwrap(),
        tag_includes_default_route: true,
        classic: false,
    }
}

/// The fields that the vectors compare, in one text, so that lists compare as multisets.
fn compared(row: &Value) -> String {
    let fields = [
        "source",
        "state",
        "addressPrefix",
        "nextHopType",
        "nextHopIpAddress",
        "name",
    ];
    fields.map(|field| row[field].to_string()).join(" ")
}

/// Shows: ROUTE-01, ROUTE-04, ROUTE-06, ROUTE-07, ROUTE-26, ROUTE-27, ROUTE-32, ROUTE-40, PEER-07.
#[test]
fn effective_routes() {
    let document = document("effective_routes.json");
    assert_eq!(cases(&document).len(), 9);
    for case in cases(&document) {
        // The None defaults are given, and nothing else here differs by profile.
        for profile in [Profile::Azure2018, Profile::Azure2025] {
            let rib = Rib::new(&scope(case, profile));
            let shown = |route: &Route| serde_json::to_value(effective_route(route, false)).unwrap();
            let mut actual: Vec<String> = rib.routes().iter().map(|route| compared(&shown(route))).collect();
            let mut expected: Vec<String> = case["expected"]
                .as_array()
                .unwrap()
                .iter()
                .map(compared)
                .collect();
            actual.sort();
            expected.sort();
            assert_eq!(actual, expected, "{} {profile:?}", case["id"]);
        }
    }
}

fn route(value: &Value) -> Route {
    let kind = match text(&value["nextHopType"]) {
        "VnetLocal" => RouteType::VnetLocal,
        "VNetPeering" => RouteType::VnetPeering,
        "VNetGlobalPeering" => RouteType::VnetGlobalPeering,
        "VirtualNetworkServiceEndpoint" => RouteType::VirtualNetworkServiceEndpoint,
        "VirtualNetworkGateway" => RouteType::VirtualNetworkGateway,
        "VirtualAppliance" => RouteType::VirtualAppliance,
        "Internet" => RouteType::Internet,
        "None" => RouteType::None,
        other => panic!("next hop type {other}"),
    };
    let [prefix] = nets(&value["addressPrefix"])[..] else {
        panic!("one prefix: {value}")
    };
    Route {
        name: value["name"].as_str().map(str::to_owned),
        tag: None,
        prefix,
        source: match text(&value["source"]) {
            "Default" => RouteSource::Default,
            "VirtualNetworkGateway" => RouteSource::VirtualNetworkGateway,
            "User" => RouteSource::User,
            other => panic!("source {other}"),
        },
        kind,
        next_hops: addresses(&value["nextHopIpAddress"]),
        peering: None,
        gateway: None,
        state: match text(&value["state"]) {
            "Active" => RouteState::Active,
            "Invalid" => RouteState::Invalid,
            other => panic!("state {other}"),
        },
        listed: true,
    }
}

/// Shows: ROUTE-20, ROUTE-21, ROUTE-22, ROUTE-23, ROUTE-25, ROUTE-33.
#[test]
fn route_selection() {
    let document = document("route_selection.json");
    assert_eq!(cases(&document).len(), 12);
    let mut lookups = 0;
    for case in cases(&document) {
        let id = text(&case["id"]);
        if id == "RS-SERVICE-TAG-TIES" {
            service_tag_ties(case);
            continue;
        }
        let routes: Vec<Route> = case["routes"].as_array().unwrap().iter().map(route).collect();
        for profile in [Profile::Azure2018, Profile::Azure2025] {
            if id == "RS-SERVICE-ENDPOINT-BEATS-USER" && profile == Profile::Azure2018 {
                // ROUTE-23 is azure-2025 only: in the earlier profile the longer user route wins.
                let rib = Rib::of(profile, routes.clone());
                let found = rib.lookup("20.150.4.4".parse().unwrap()).unwrap();
                assert_eq!(found.source, RouteSource::User);
                continue;
            }
            let rib = Rib::of(profile, routes.clone());
            let undecided = undecided(profile, case, &routes);
            for lookup in case["lookups"].as_array().unwrap() {
                let chosen = |rib: &Rib| {
                    let shown = effective_route(rib.lookup(text(&lookup["dst"]).parse().unwrap())?, false);
                    let shown = serde_json::to_value(shown).unwrap();
                    Some(json!([
                        shown["addressPrefix"][0],
                        shown["source"],
                        shown["nextHopType"]
                    ]))
                };
                let actual = chosen(&rib);
                if let Some(rib) = &undecided {
                    assert_eq!(
                        chosen(rib),
                        actual,
                        "{id} {profile:?}: rivals of {}",
                        lookup["dst"]
                    );
                }
                let expected = (!lookup["expectedPrefix"].is_null()).then(|| {
                    json!([
                        lookup["expectedPrefix"],
                        lookup["expectedSource"],
                        lookup["expectedNextHopType"]
                    ])
                });
                assert_eq!(actual, expected, "{id} {profile:?} {}", lookup["dst"]);
                lookups += 1;
            }
        }
    }
    assert_eq!(lookups, 2 * 20 - 1);
}

/// The rows of a case about equal prefixes as they are before one of each prefix has won: the vectors give losers as
/// Invalid, and the choice must not need that (ROUTE-21).
fn undecided(profile: Profile, case: &Value, routes: &[Route]) -> Option<Rib> {
    let about_ties = case["rules"].as_array()?.contains(&json!("ROUTE-21"));
    let active = |route: &Route| Route {
        state: RouteState::Active,
        ..route.clone()
    };
    about_ties.then(|| Rib::of(profile, routes.iter().map(active).collect()))
}

/// One prefix, of a route for each kind of destination in the order the case lists them: the best of those left wins,
/// whatever the order of the rows.
fn service_tag_ties(case: &Value) {
    assert_eq!(case["appliesWhen"], "identical prefix among user routes");
    let kinds = case["orderedPreference"].as_array().unwrap();
    let rows: Vec<Route> = kinds
        .iter()
        .map(|kind| {
            // The tag stands in brackets, but for AzureCloud itself and what is no tag.
            let text = text(kind);
            let tag = match text.split_once('(') {
                Some((_, tag)) => Some(tag.trim_end_matches(')')),
                None => (text == "AzureCloud").then_some(text),
            };
            Route {
                tag: tag.map(str::to_owned),
                ..route(&json!({
                    "name": text, "source": "User", "state": "Active", "addressPrefix": ["20.150.68.0/24"],
                    "nextHopType": "None", "nextHopIpAddress": [],
                }))
            }
        })
        .collect();
    assert_eq!(rows.iter().filter(|row| row.tag.is_none()).count(), 1);
    assert_eq!(rows.len(), 5);
    for best in 0..rows.len() {
        for turn in 0..rows.len() - best {
            let mut left = rows[best..].to_vec();
            left.rotate_left(turn);
            let rib = Rib::of(Profile::Azure2025, left);
            let found = rib.lookup("20.150.68.4".parse().unwrap()).unwrap();
            assert_eq!(found.name, rows[best].name);
        }
    }
}

/// Shows: NSG-11.
#[test]
fn virtual_network_tag() {
    let document = document("nsg_virtualnetwork_tag.json");
    assert_eq!(cases(&document).len(), 4);
    for case in cases(&document) {
        let peers = case["peered"].as_array().unwrap().iter().map(|peer| {
            (
                nets(&peer["prefixes"]),
                peer["allowVirtualNetworkAccess"].as_bool().unwrap(),
            )
        });
        let mut scope = TagScope {
            ranges: nets(&case["vnetAddressSpace"]),
            peers: peers.collect(),
            gateway_prefixes: Vec::new(),
            user_prefixes: nets(&case["udrPrefixes"]),
            includes_default_route: true,
        };
        let sorted = |mut nets: Vec<IpNet>| {
            nets.sort();
            nets
        };
        let expected = sorted(nets(&case["expected"]));
        assert_eq!(sorted(virtual_network(&scope)), expected, "{}", case["id"]);
        // The switch of the last case changes no other.
        scope.includes_default_route = false;
        let default: IpNet = "0.0.0.0/0".parse().unwrap();
        let without: Vec<IpNet> = expected.into_iter().filter(|net| *net != default).collect();
        assert_eq!(
            sorted(virtual_network(&scope)),
            without,
            "{} switched off",
            case["id"]
        );
    }
}

fn ports(value: &Value) -> Vec<PortRange> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        PortRange {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        }
    };
    match text(value) {
        "*" => vec![PortRange {
            first: 0,
            last: u16::MAX,
        }],
        list => list.split(',').map(range).collect(),
    }
}

fn rule_address(value: &Value, asgs: &[String]) -> RuleAddress {
    match text(value) {
        "*" => RuleAddress::Any,
        text => match text.strip_prefix("asg:") {
            Some(name) => RuleAddress::Asgs(vec![AsgIndex(asgs.iter().position(|asg| asg == name).unwrap())]),
            None => text.parse().map_or_else(
                |_| RuleAddress::Tag(text.to_owned()),
                |net| RuleAddress::Prefixes(vec![net]),
            ),
        },
    }
}

fn rule(value: &Value, asgs: &[String]) -> SecurityRule {
    SecurityRule {
        name: text(&value["name"]).to_owned(),
        priority: value["priority"].as_u64().unwrap().try_into().unwrap(),
        direction: direction(&value["direction"]),
        access: match text(&value["access"]) {
            "Allow" => Access::Allow,
            "Deny" => Access::Deny,
            other => panic!("access {other}"),
        },
        protocol: match text(&value["protocol"]) {
            "*" => RuleProtocol::Any,
            "Tcp" => RuleProtocol::Tcp,
            "Udp" => RuleProtocol::Udp,
            other => panic!("protocol {other}"),
        },
        source: rule_address(&value["source"], asgs),
        source_ports: ports(&value["sourcePorts"]),
        destination: rule_address(&value["destination"], asgs),
        destination_ports: ports(&value["destinationPorts"]),
    }
}

fn direction(value: &Value) -> Direction {
    match text(value) {
        "Inbound" => Direction::Inbound,
        "Outbound" => Direction::Outbound,
        other => panic!("direction {other}"),
    }
}

fn key(packet: &Value) -> FlowKey {
    let address = |field: &str| mapped(text(&packet[field]).parse().unwrap());
    let port = |field: &str| packet[field].as_u64().unwrap().try_into().unwrap();
    FlowKey {
        source: address("src"),
        destination: address("dst"),
        source_port: port("srcPort"),
        destination_port: port("dstPort"),
        protocol: match text(&packet["protocol"]) {
            "Tcp" => Protocol::TCP,
            "Udp" => Protocol::UDP,
            other => panic!("protocol {other}"),
        },
    }
}

/// Shows: NSG-10.
#[test]
fn default_rules() {
    let document = document("nsg_evaluation.json");
    let empty = Nsg {
        name: "empty".to_owned(),
        rules: Vec::new(),
    };
    let actual: Vec<SecurityRule> = [Direction::Inbound, Direction::Outbound]
        .into_iter()
        .flat_map(|direction| ordered(&empty, direction))
        .map(|named| named.rule.into_owned())
        .collect();
    let expected: Vec<SecurityRule> = document["defaultRules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| rule(value, &[]))
        .collect();
    assert_eq!(format!("{actual:?}"), format!("{expected:?}"));
}

/// A lab in which NIC 0 is the place of a case of nsg_evaluation.json: its VNet spans the VirtualNetwork tag (but for
/// the platform's address, which every tag has), and every ASG member has a NIC.
fn lab(case: &Value, near: IpAddr) -> Topology {
    let platform: IpNet = "168.63.129.16/32".parse().unwrap();
    let mut ranges = nets(&case["tags"]["VirtualNetwork"]);
    let before = ranges.len();
    ranges.retain(|net| *net != platform);
    assert_eq!(ranges.len(), before - 1, "the tag holds the platform's address");
    let mut topology = crate::common::lab(Profile::Azure2025);
    let subnet = crate::common::subnet(&mut topology, "v", &ranges, &ranges[..1]);
    let asgs: Vec<String> = case["asgMembers"].as_object().unwrap().keys().cloned().collect();
    topology.asgs = asgs.iter().map(|name| Asg { name: name.clone() }).collect();
    let members: Vec<Vec<IpAddr>> = asgs
        .iter()
        .map(|asg| addresses(&case["asgMembers"][asg]))
        .collect();
    for level in ["subnetNsg", "nicNsg"] {
        let Some(rules) = case[level].as_array() else {
            continue;
        };
        let nsg = NsgIndex(topology.nsgs.len());
        let rules = rules.iter().map(|value| rule(value, &asgs)).collect();
        topology.nsgs.push(Nsg {
            name: level.trim_end_matches("Nsg").to_owned(),
            rules,
        });
        if level == "subnetNsg" {
            topology.subnets[subnet.0].nsg = Some(nsg);
        }
    }
    let mut all = vec![near];
    all.extend(members.iter().flatten().filter(|&&member| member != near));
    for address in all {
        let nic = crate::common::vm(&mut topology, &format!("at-{address}"), subnet, &[address]);
        let member_of = (0..asgs.len()).filter(|&asg| members[asg].contains(&address));
        topology.nics[nic.0].asgs = member_of.map(AsgIndex).collect();
        topology.nics[nic.0].nsg = topology
            .nsgs
            .iter()
            .position(|nsg| nsg.name == "nic")
            .map(NsgIndex);
    }
    topology
}

/// Shows: NSG-04, NSG-06, NSG-07, NSG-20, NSG-21, NSG-22, NSG-30, NSG-31.
#[test]
fn nsg_evaluation() {
    let document = document("nsg_evaluation.json");
    assert_eq!(cases(&document).len(), 23);
    for case in cases(&document) {
        let key = key(&case["packet"]);
        let direction = direction(&case["direction"]);
        let near = match direction {
            Direction::Inbound => key.destination,
            Direction::Outbound => key.source,
        };
        let topology = lab(case, packet::key::unmapped(near));
        let compiled = compile(&topology, 1);
        let filtered = match direction {
            Direction::Inbound => inbound(&compiled.snapshot, NicId(0), &key),
            Direction::Outbound => outbound(&compiled.snapshot, NicId(0), &key),
        };
        let (filter, decision) = filtered.decisions.into_iter().flatten().last().unwrap();
        let origin = &compiled.provenance.filters[filter.index()];
        let rule = &origin.rules[usize::from(decision.rule.unwrap())];
        let decided = json!({
            "access": format!("{:?}", filtered.access),
            "decidedBy": topology.nsgs[origin.nsg.unwrap().0].name,
            "rule": rule.name.split_once('/').unwrap().1,
        });
        assert_eq!(decided, case["expected"], "{}", case["id"]);
    }
}

/// The packets of a sequence pass one NIC that has an NSG of default rules only, and, for the far end, a public address.
/// Shows: NSG-08, NSG-15.
#[test]
fn nsg_state() {
    let document = document("nsg_evaluation.json");
    let [sequence] = &document["sequences"].as_array().unwrap()[..] else {
        panic!("one sequence")
    };
    let public: IpAddr = "203.0.113.4".parse().unwrap();
    let mut topology = crate::common::lab(Profile::Azure2018);
    let ranges = crate::common::nets(&["10.0.0.0/16"]);
    let subnet = crate::common::subnet(&mut topology, "v", &ranges, &ranges);
    let near: IpAddr = "10.0.0.4".parse().unwrap();
    let nic = crate::common::vm(&mut topology, "vm", subnet, &[near]);
    topology.nics[nic.0].public_addresses = vec![public];
    topology.nics[nic.0].nsg = Some(NsgIndex(0));
    topology.nsgs.push(Nsg {
        name: "defaults".to_owned(),
        rules: Vec::new(),
    });
    topology.internet = Some(vec!["198.51.100.7".parse().unwrap()]);
    let compiled = compile(&topology, 1);
    let mut world = World::new(&topology, &compiled);
    let steps = sequence["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3);
    for step in steps {
        assert_eq!(
            (&step["do"], &step["nicNsg"]),
            (&json!("packet"), &json!("defaults"))
        );
        let mut key = key(&step["packet"]);
        let from = match direction(&step["direction"]) {
            Direction::Outbound => Place::Nic(nic),
            Direction::Inbound => {
                // NSG-15: rules see the private address, the Internet the public one.
                assert_eq!(key.destination, mapped(near));
                key.destination = mapped(public);
                Place::Internet
            }
        };
        let outcome = world.carry(from, &packet(&key, from != Place::Internet));
        let expected = text(&step["expect"]);
        let actual = match outcome {
            Ok(_) => "Allow",
            Err((engine::DropReason::NsgInbound, Some(_))) => "Deny",
            Err(other) => panic!("{other:?}"),
        };
        assert!(expected.starts_with(actual), "{expected}: {actual}");
    }
}
