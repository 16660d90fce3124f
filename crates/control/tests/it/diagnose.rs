//! Network Watcher's diagnostics.

use std::net::IpAddr;

use control::diagnose::{
    Flow, NextHop, Probes, Profile as Traffic, Verbosity, configuration, connectivity, ip_flow, layout,
    next_hop, target,
};
use control::explain::DEFAULT_SOURCE_PORT;
use control::{Query, compile, explain};
use model::Topology;
use model::topology::{
    Access, Direction, Endpoint, NicIndex, Nsg, NsgIndex, PortRange, Profile, RuleAddress, RuleProtocol,
    SecurityRule, SubnetIndex, TestProtocol, UdrNextHop, VnetIndex,
};
use serde_json::{Value, json};

use crate::common::{lab, nets, peer, routes, subnet, vm};

const WEB: NicIndex = NicIndex(0);
const NVA: NicIndex = NicIndex(1);
const DB: NicIndex = NicIndex(2);

const GROUP: &str =
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/t/providers/Microsoft.Network";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `web` in a spoke reaches `db` in another through `nva` in the hub.
fn chained() -> Topology {
    let mut topology = lab(Profile::Azure2018);
    for (index, name) in ["spoke1", "hub", "spoke2"].into_iter().enumerate() {
        let range = nets(&[&format!("10.{index}.0.0/16")]);
        let subnet = subnet(&mut topology, name, &range, &range);
        let vm_name = ["web", "nva", "db"][index];
        vm(
            &mut topology,
            vm_name,
            subnet,
            &[address(&format!("10.{index}.0.4"))],
        );
    }
    let nva = UdrNextHop::VirtualAppliance(address("10.1.0.4"));
    for (spoke, other) in [(0, "10.2.0.0/16"), (2, "10.0.0.0/16")] {
        peer(&mut topology, VnetIndex(spoke), VnetIndex(1));
        routes(
            &mut topology,
            SubnetIndex(spoke),
            &[(other, nva.clone()), ("20.0.0.0/8", UdrNextHop::None)],
        );
    }
    for peering in &mut topology.peerings {
        peering.allow_forwarded_traffic = true;
    }
    topology.nics[NVA.0].ip_forwarding = true;
    topology.vms[1].forwarding = true;
    topology
}

fn deny(priority: u16, direction: Direction, ports: PortRange, source: RuleAddress) -> SecurityRule {
    let all = PortRange {
        first: 0,
        last: u16::MAX,
    };
    SecurityRule {
        name: format!("deny-{priority}"),
        priority,
        direction,
        access: Access::Deny,
        protocol: RuleProtocol::Tcp,
        source,
        source_ports: vec![all],
        destination: RuleAddress::Any,
        destination_ports: vec![ports],
    }
}

/// An NSG of these rules at a subnet and one of default rules at the NICs in it.
fn guarded(topology: &mut Topology, subnet: SubnetIndex, rules: Vec<SecurityRule>) {
    let first = topology.nsgs.len();
    topology.nsgs.push(Nsg {
        name: "subnet-nsg".to_owned(),
        rules,
    });
    topology.nsgs.push(Nsg {
        name: "nic-nsg".to_owned(),
        rules: Vec::new(),
    });
    topology.subnets[subnet.0].nsg = Some(NsgIndex(first));
    for nic in topology.nics.iter_mut().filter(|nic| nic.subnet == subnet) {
        nic.nsg = Some(NsgIndex(first + 1));
    }
}

const SSH: PortRange = PortRange { first: 22, last: 23 };

/// Shows: DIAG-01, DIAG-02.
#[test]
fn a_target_is_a_nic_of_a_running_vm() {
    let mut topology = chained();
    assert_eq!(target(&topology, "web"), Ok(WEB));
    assert_eq!(target(&topology, "nva-nic"), Ok(NVA));
    assert_eq!(target(&topology, "nobody").unwrap_err().code, "ResourceNotFound");
    // Behind a VNet port there is no VM that could run.
    topology.nics[WEB.0].vm = None;
    topology.vms[0].nics.clear();
    assert_eq!(target(&topology, "web-nic").unwrap_err().code, "Sim.DIAG-01");
    // With several NICs and one that forwards the NIC must be named.
    let second = vm(&mut topology, "spare", SubnetIndex(1), &[address("10.1.0.5")]);
    topology.vms.pop();
    topology.nics[second.0].vm = topology.nics[NVA.0].vm;
    topology.vms[1].nics.push(second);
    let refusal = target(&topology, "nva").unwrap_err();
    assert_eq!(refusal.code, "Sim.DIAG-02");
    assert!(refusal.message.contains("nva-nic, spare-nic"), "{refusal:?}");
    assert_eq!(target(&topology, "spare-nic"), Ok(second));
    topology.nics[NVA.0].ip_forwarding = false;
    assert_eq!(target(&topology, "nva"), Ok(NVA));
}

fn flow(
    topology: &Topology,
    direction: Direction,
    local: (&str, Option<u16>),
    remote: (&str, Option<u16>),
) -> Value {
    let flow = Flow {
        direction,
        protocol: TestProtocol::Tcp,
        local: (address(local.0), local.1),
        remote: (address(remote.0), remote.1),
    };
    serde_json::to_value(ip_flow(topology, &compile(topology, 1), DB, &flow)).unwrap()
}

/// Shows: DIAG-02.
#[test]
fn ip_flow_verify_asks_the_nsgs_and_no_route() {
    let mut topology = chained();
    let inbound = |topology: &Topology, from, port| {
        flow(
            topology,
            Direction::Inbound,
            ("10.2.0.4", Some(port)),
            (from, None),
        )
    };
    assert_eq!(
        inbound(&topology, "10.1.0.4", 22),
        json!({ "access": "Allow", "ruleName": null })
    );
    let hub = RuleAddress::Prefixes(nets(&["10.1.0.0/16"]));
    guarded(
        &mut topology,
        SubnetIndex(2),
        vec![deny(100, Direction::Inbound, SSH, hub)],
    );
    assert_eq!(
        inbound(&topology, "10.1.0.4", 22),
        json!({ "access": "Deny", "ruleName": "securityRules/deny-100" })
    );
    assert_eq!(
        inbound(&topology, "10.1.0.4", 24),
        json!({ "access": "Allow", "ruleName": "defaultSecurityRules/AllowVnetInBound" })
    );
    assert_eq!(
        inbound(&topology, "8.8.8.8", 24),
        json!({ "access": "Deny", "ruleName": "defaultSecurityRules/DenyAllInBound" })
    );
    let outbound = |remote| {
        flow(
            &topology,
            Direction::Outbound,
            ("10.2.0.4", None),
            (remote, Some(443)),
        )
    };
    // No lab has this Internet, and a user route drops 20.0.0.0/8: neither is asked.
    for (remote, rule) in [
        ("8.8.8.8", "AllowInternetOutBound"),
        ("20.1.1.1", "AllowVnetOutBound"),
    ] {
        assert_eq!(
            outbound(remote),
            json!({ "access": "Allow", "ruleName": format!("defaultSecurityRules/{rule}") })
        );
    }
    let foreign = flow(
        &topology,
        Direction::Outbound,
        ("10.2.0.5", None),
        ("8.8.8.8", Some(443)),
    );
    assert_eq!(foreign, json!({ "access": "Unknown", "ruleName": null }));
}

/// Shows: DIAG-03, DIAG-05.
#[test]
fn next_hop_names_type_address_and_table() {
    let topology = chained();
    let compiled = compile(&topology, 1);
    let ask =
        |source, destination| next_hop(&topology, &compiled, WEB, address(source), address(destination));
    let table = format!("{GROUP}/routeTables/rt0");
    for (destination, kind, ip, table) in [
        ("10.2.0.4", "VirtualAppliance", Some("10.1.0.4"), table.as_str()),
        ("20.1.1.1", "None", None, table.as_str()),
        ("10.0.0.9", "VnetLocal", None, "System Route"),
        ("10.1.0.4", "VnetPeering", None, "System Route"),
        ("8.8.8.8", "Internet", None, "System Route"),
        ("192.168.1.1", "None", None, "System Route"),
    ] {
        let expected = NextHop {
            next_hop_ip_address: ip.map(str::to_owned),
            next_hop_type: kind,
            route_table_id: table.to_owned(),
        };
        assert_eq!(ask("10.0.0.4", destination), Ok(expected), "{destination}");
    }
    let refusal = ask("10.0.0.5", "8.8.8.8").unwrap_err();
    assert_eq!(refusal.code, "SourceIpDoesNotMatchNicIp");
    assert!(refusal.message.contains("10.0.0.4"), "{refusal:?}");
}

fn traffic(direction: Direction, source: &str, port: PortRange) -> Traffic {
    Traffic {
        direction,
        protocol: "Tcp",
        source: source.parse().unwrap(),
        destination: "10.2.0.4/32".parse().unwrap(),
        destination_port: port,
    }
}

/// Shows: DIAG-08.
#[test]
fn the_configuration_diagnostic_tells_every_nsg_and_field() {
    let mut topology = chained();
    let hub = RuleAddress::Prefixes(nets(&["10.1.0.0/17"]));
    guarded(
        &mut topology,
        SubnetIndex(2),
        vec![deny(100, Direction::Inbound, SSH, hub)],
    );
    let one_port = |port| PortRange {
        first: port,
        last: port,
    };
    let ask = |profile, verbosity| {
        let told = configuration(&topology, DB, &[profile], verbosity);
        serde_json::to_value(told).unwrap()["results"][0].clone()
    };
    let refused = ask(traffic(Direction::Inbound, "10.1.0.0/24", SSH), Verbosity::Normal);
    assert_eq!(
        refused,
        json!({
            "profile": { "direction": "Inbound", "protocol": "Tcp", "source": "10.1.0.0/24",
                         "destination": "10.2.0.4/32", "destinationPort": "22-23" },
            "networkSecurityGroupResult": {
                "securityRuleAccessResult": "Deny",
                "evaluatedNetworkSecurityGroups": [{
                    "networkSecurityGroupId": format!("{GROUP}/networkSecurityGroups/subnet-nsg"),
                    "appliedTo": format!("{GROUP}/virtualNetworks/spoke2/subnets/s"),
                    "matchedRule": { "ruleName": "securityRules/deny-100", "action": "Deny" },
                    "rulesEvaluationResult": [{
                        "name": "securityRules/deny-100", "protocolMatched": true, "sourceMatched": true,
                        "sourcePortMatched": true, "destinationMatched": true, "destinationPortMatched": true
                    }]
                }]
            }
        })
    );
    // One port beyond the rule, or a source that it covers in part: the next rule decides, at both levels.
    for (source, ports, fields) in [
        (
            "10.1.0.0/24",
            PortRange { first: 22, last: 24 },
            [true, true, true, true, false],
        ),
        ("10.1.0.0/16", SSH, [true, false, true, true, true]),
    ] {
        let passed = ask(traffic(Direction::Inbound, source, ports), Verbosity::Normal);
        let result = &passed["networkSecurityGroupResult"];
        assert_eq!(result["securityRuleAccessResult"], "Allow");
        let [subnet, nic] = &result["evaluatedNetworkSecurityGroups"].as_array().unwrap()[..] else {
            panic!("two NSGs: {result:#}")
        };
        let first = &subnet["rulesEvaluationResult"][0];
        let matched = [
            "protocol",
            "source",
            "sourcePort",
            "destination",
            "destinationPort",
        ]
        .map(|field| first[format!("{field}Matched")].as_bool().unwrap());
        assert_eq!(matched, fields);
        assert_eq!(
            subnet["matchedRule"]["ruleName"],
            "defaultSecurityRules/AllowVnetInBound"
        );
        assert_eq!(nic["appliedTo"], format!("{GROUP}/networkInterfaces/db-nic"));
    }
    let listed = |verbosity| {
        let told = ask(
            traffic(Direction::Inbound, "10.1.0.0/24", one_port(80)),
            verbosity,
        );
        let nsgs = &told["networkSecurityGroupResult"]["evaluatedNetworkSecurityGroups"];
        nsgs[0]["rulesEvaluationResult"].as_array().unwrap().len()
    };
    assert_eq!(
        [Verbosity::Minimum, Verbosity::Normal, Verbosity::Full].map(listed),
        [0, 2, 4]
    );
    // Outbound the NIC's NSG comes first.
    let out = ask(
        traffic(Direction::Outbound, "10.2.0.4/32", one_port(80)),
        Verbosity::Normal,
    );
    let first = &out["networkSecurityGroupResult"]["evaluatedNetworkSecurityGroups"][0];
    assert_eq!(first["appliedTo"], format!("{GROUP}/networkInterfaces/db-nic"));
}

/// Asks about one packet in both ways: the diagnostic of the rules as shown, and the compiled tables.
/// Shows: DIAG-02, DIAG-08.
#[test]
fn both_ways_of_asking_the_nsgs_agree() {
    let mut topology = chained();
    let rules = vec![
        deny(
            100,
            Direction::Inbound,
            SSH,
            RuleAddress::Prefixes(nets(&["10.1.0.0/17"])),
        ),
        deny(
            110,
            Direction::Inbound,
            PortRange { first: 80, last: 90 },
            RuleAddress::Tag("VirtualNetwork".to_owned()),
        ),
        deny(120, Direction::Outbound, SSH, RuleAddress::Any),
    ];
    guarded(&mut topology, SubnetIndex(2), rules);
    let compiled = compile(&topology, 1);
    let mut denied = 0;
    for direction in [Direction::Inbound, Direction::Outbound] {
        for remote in [
            "10.0.0.4",
            "10.1.0.4",
            "10.1.200.4",
            "10.2.0.9",
            "8.8.8.8",
            "192.168.0.1",
            "168.63.129.16",
        ] {
            for port in [21, 22, 23, 24, 79, 80, 90, 91] {
                let inbound = direction == Direction::Inbound;
                let local = (address("10.2.0.4"), inbound.then_some(port));
                let remote = (address(remote), (!inbound).then_some(port));
                let flow = Flow {
                    direction,
                    protocol: TestProtocol::Tcp,
                    local,
                    remote,
                };
                let packet = ip_flow(&topology, &compiled, DB, &flow);
                let (source, destination) = if inbound {
                    (remote.0, local.0)
                } else {
                    (local.0, remote.0)
                };
                let profile = Traffic {
                    direction,
                    protocol: "Tcp",
                    source: source.into(),
                    destination: destination.into(),
                    destination_port: PortRange {
                        first: port,
                        last: port,
                    },
                };
                let told = configuration(&topology, DB, &[profile], Verbosity::Minimum);
                let result = &told.results[0].network_security_group_result;
                let last = result.evaluated_network_security_groups.last().unwrap();
                let rule = last.matched_rule.as_ref().map(|rule| rule.rule_name.clone());
                assert_eq!(
                    (result.security_rule_access_result, rule),
                    (packet.access, packet.rule_name),
                    "{flow:?}"
                );
                denied += usize::from(packet.access == "Deny");
            }
        }
    }
    assert!((20..100).contains(&denied), "{denied}");
}

/// Shows: NSG-07, DIAG-08.
#[test]
fn the_configuration_diagnostic_ignores_ports_of_icmp() {
    let mut topology = chained();
    let any = SecurityRule {
        protocol: RuleProtocol::Any,
        ..deny(100, Direction::Inbound, SSH, RuleAddress::Any)
    };
    guarded(&mut topology, SubnetIndex(2), vec![any]);
    for (protocol, access) in [("Icmp", "Deny"), ("Tcp", "Allow")] {
        let profile = Traffic {
            protocol,
            ..traffic(
                Direction::Inbound,
                "10.1.0.0/24",
                PortRange { first: 80, last: 80 },
            )
        };
        let told = configuration(&topology, DB, &[profile], Verbosity::Minimum);
        let result = &told.results[0].network_security_group_result;
        assert_eq!(result.security_rule_access_result, access, "{protocol}");
    }
}

/// Shows: DIAG-09.
#[test]
fn topology_tells_what_contains_what() {
    let mut topology = chained();
    guarded(&mut topology, SubnetIndex(2), Vec::new());
    let shown = layout(&topology, "7".to_owned(), "2026-01-02T03:04:05Z".to_owned());
    let shown = serde_json::to_value(shown).unwrap();
    assert_eq!(
        (&shown["id"], &shown["createdDateTime"]),
        (&json!("7"), &json!("2026-01-02T03:04:05Z"))
    );
    let of = |name: &str| {
        let all = shown["resources"].as_array().unwrap();
        let found: Vec<&Value> = all.iter().filter(|it| it["name"] == name).collect();
        assert_eq!(found.len(), 1, "{name}");
        let associations: Vec<(&str, &str)> = found[0]["associations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| {
                (
                    it["associationType"].as_str().unwrap(),
                    it["name"].as_str().unwrap(),
                )
            })
            .collect();
        (found[0]["id"].as_str().unwrap(), associations)
    };
    assert_eq!(
        of("spoke2"),
        (
            format!("{GROUP}/virtualNetworks/spoke2").as_str(),
            vec![("Contains", "s")]
        )
    );
    let vm = GROUP.replace("Network", "Compute");
    assert_eq!(
        of("db"),
        (
            format!("{vm}/virtualMachines/db").as_str(),
            vec![("Contains", "db-nic")]
        )
    );
    assert_eq!(of("db-nic").1, [("Associated", "s"), ("Associated", "nic-nsg")]);
    assert_eq!(of("nic-nsg").1, []);
    let subnets = shown["resources"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["name"] == "s");
    let ids: Vec<&str> = subnets.clone().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids[2], format!("{GROUP}/virtualNetworks/spoke2/subnets/s"));
    let last = &subnets.clone().nth(2).unwrap()["associations"];
    assert_eq!(
        last[0],
        json!({ "name": "subnet-nsg", "resourceId": format!("{GROUP}/networkSecurityGroups/subnet-nsg"), "associationType": "Associated" })
    );
    assert_eq!(last[1]["name"], "rt1");
    assert_eq!(of("rt1").0, format!("{GROUP}/routeTables/rt1"));
    assert_eq!(shown["lastModified"], "2026-01-02T03:04:05Z");
    let all = shown["resources"].as_array().unwrap();
    assert!(all.iter().all(|it| it["location"] == "westus2"), "{shown:#}");
}

fn check(topology: &Topology, probes: &[Option<u64>]) -> Value {
    let (source, destination) = (address("10.0.0.4"), address("10.2.0.4"));
    let query = Query {
        source: Endpoint::Nic(WEB),
        destination: Endpoint::Address(destination),
        protocol: TestProtocol::Tcp,
        source_port: DEFAULT_SOURCE_PORT,
        port: 22,
    };
    let explanation = explain(topology, &compile(topology, 1), &query).unwrap();
    let told = connectivity(
        topology,
        &explanation,
        (source, destination),
        &Probes(probes.to_vec()),
    );
    serde_json::to_value(told).unwrap()
}

/// The type, address and issues of every hop.
fn told(answer: &Value) -> Vec<(&str, &str, Vec<Value>)> {
    let hop = |hop: &'_ Value| hop["issues"].as_array().unwrap().clone();
    let hops = answer["hops"].as_array().unwrap();
    hops.iter()
        .map(|it| {
            (
                it["type"].as_str().unwrap(),
                it["address"].as_str().unwrap_or(""),
                hop(it),
            )
        })
        .collect()
}

fn issue(origin: &str, kind: &str, key: &str, value: &str) -> Value {
    json!({ "origin": origin, "severity": "Error", "type": kind, "context": [{ "key": key, "value": value }] })
}

/// Shows: DIAG-07, NSG-36.
#[test]
fn a_connection_check_shows_path_and_issue() {
    let mut topology = chained();
    let answer = check(&topology, &[Some(900), Some(1_600), Some(3_500)]);
    assert_eq!(
        told(&answer),
        [
            ("Source", "10.0.0.4", vec![]),
            ("VirtualAppliance", "10.1.0.4", vec![]),
            ("VnetLocal", "10.2.0.4", vec![])
        ]
    );
    let hops = &answer["hops"];
    assert_eq!(hops[0]["nextHopIds"][0], hops[1]["id"]);
    assert_eq!(hops[1]["links"][0]["nextHopId"], hops[2]["id"]);
    assert_eq!(hops[2]["previousHopIds"][0], hops[1]["id"]);
    assert_eq!(
        hops[1]["resourceId"],
        format!("{GROUP}/networkInterfaces/nva-nic")
    );
    let summary = |answer: &Value| {
        let fields = [
            "minLatencyInMs",
            "avgLatencyInMs",
            "maxLatencyInMs",
            "probesSent",
            "probesFailed",
        ];
        let numbers: Vec<Option<u64>> = fields.iter().map(|field| answer[field].as_u64()).collect();
        (answer["connectionStatus"].as_str().unwrap().to_owned(), numbers)
    };
    let numbers = |all: [u64; 5]| all.map(Some).to_vec();
    assert_eq!(
        summary(&answer),
        ("Connected".to_owned(), numbers([1, 2, 4, 3, 0]))
    );

    // Allowed by the fabric and without an answer: the guest.
    let half = check(&topology, &[Some(1_000), None]);
    assert_eq!(summary(&half), ("Degraded".to_owned(), numbers([1, 1, 1, 2, 1])));
    assert_eq!(half["hops"][2]["issues"][0]["type"], "GuestFirewall");

    guarded(
        &mut topology,
        SubnetIndex(2),
        vec![deny(100, Direction::Inbound, SSH, RuleAddress::Any)],
    );
    let refused = check(&topology, &[None, None]);
    assert_eq!(
        summary(&refused),
        (
            "Disconnected".to_owned(),
            vec![None, None, None, Some(2), Some(2)]
        )
    );
    let rule = issue("Inbound", "NetworkSecurityRule", "RuleName", "UserRule_deny-100");
    assert_eq!(told(&refused)[2], ("VnetLocal", "10.2.0.4", vec![rule]));

    topology.nsgs[0].rules.clear();
    topology.peerings[0].allow_forwarded_traffic = false;
    topology.peerings[2].allow_forwarded_traffic = false;
    let platform = issue("Outbound", "Platform", "Reason", "ForwardedTrafficOff");
    assert_eq!(
        told(&check(&topology, &[None]))[1],
        ("VirtualAppliance", "10.1.0.4", vec![platform])
    );

    // The user route gone, the None default drops: UserDefinedRoute says so of system routes too.
    topology.route_tables[0].routes.remove(0);
    let route = issue("Outbound", "UserDefinedRoute", "RouteType", "System");
    assert_eq!(
        told(&check(&topology, &[None])),
        [
            ("Source", "10.0.0.4", vec![route]),
            ("VnetLocal", "10.2.0.4", vec![])
        ]
    );

    guarded(&mut topology, SubnetIndex(0), vec![]);
    let rule = issue(
        "Outbound",
        "NetworkSecurityRule",
        "RuleName",
        "DefaultRule_DenyAllOutBound",
    );
    assert_eq!(
        told(&check(&topology, &[None]))[0],
        ("Source", "10.0.0.4", vec![rule])
    );
    assert_eq!(check(&topology, &[])["connectionStatus"], "Unknown");
}
