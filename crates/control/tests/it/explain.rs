//! `explain`: verdicts, hops, drops and findings.

use std::net::IpAddr;

use control::explain::DEFAULT_SOURCE_PORT;
use control::present::Explanation;
use control::{Query, compile, explain};
use model::Topology;
use model::topology::{
    Access, Direction, Endpoint, NicIndex, Nsg, NsgIndex, PeeringState, PortRange, Profile, RuleAddress,
    RuleProtocol, SecurityRule, SubnetIndex, TestProtocol, UdrNextHop, VnetIndex,
};
use serde_json::{Value, json};

use crate::common::{lab, nets, peer, routes, subnet, vm};

const HUB: VnetIndex = VnetIndex(0);
const SPOKE1: VnetIndex = VnetIndex(1);
const SPOKE2: VnetIndex = VnetIndex(2);
const NVA: NicIndex = NicIndex(0);
const WEB: NicIndex = NicIndex(1);
const DB: NicIndex = NicIndex(2);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A hub with an appliance that forwards, and two spokes peered with the hub only; both families.
fn hub_and_spokes(profile: Profile) -> Topology {
    let mut topology = lab(profile);
    for (name, v4, v6) in [
        ("hub", "10.0.0.0/16", "fd00:a::/48"),
        ("spoke1", "10.1.0.0/16", "fd00:b::/48"),
        ("spoke2", "10.2.0.0/16", "fd00:c::/48"),
    ] {
        let ranges = nets(&[v4, v6]);
        let prefixes = nets(&[&v4.replace("/16", "/24"), &v6.replace("/48", "/64")]);
        subnet(&mut topology, name, &ranges, &prefixes);
    }
    for (index, name) in ["nva", "web", "db"].into_iter().enumerate() {
        let family = ["a", "b", "c"][index];
        let addresses = [
            address(&format!("10.{index}.0.4")),
            address(&format!("fd00:{family}::4")),
        ];
        vm(&mut topology, name, SubnetIndex(index), &addresses);
    }
    peer(&mut topology, HUB, SPOKE1);
    peer(&mut topology, HUB, SPOKE2);
    topology.nics[NVA.0].ip_forwarding = true;
    topology.vms[0].forwarding = true;
    topology
}

/// The same with user routes through the appliance in both spokes, and forwarded traffic allowed.
fn chained(profile: Profile) -> Topology {
    let mut topology = hub_and_spokes(profile);
    let nva = UdrNextHop::VirtualAppliance(address("10.0.0.4"));
    let nva6 = UdrNextHop::VirtualAppliance(address("fd00:a::4"));
    routes(
        &mut topology,
        SubnetIndex(1),
        &[("10.2.0.0/16", nva.clone()), ("fd00:c::/48", nva6.clone())],
    );
    routes(
        &mut topology,
        SubnetIndex(2),
        &[("10.1.0.0/16", nva), ("fd00:b::/48", nva6)],
    );
    for peering in &mut topology.peerings {
        peering.allow_forwarded_traffic = peering.to == HUB;
    }
    topology
}

fn ask(topology: &Topology, source: Endpoint, destination: Endpoint, protocol: TestProtocol) -> Explanation {
    let query = Query {
        source,
        destination,
        protocol,
        source_port: DEFAULT_SOURCE_PORT,
        port: 80,
    };
    explain(topology, &compile(topology, 1), &query).unwrap()
}

fn between(topology: &Topology, source: NicIndex, destination: NicIndex) -> Explanation {
    ask(
        topology,
        Endpoint::Nic(source),
        Endpoint::Nic(destination),
        TestProtocol::Tcp,
    )
}

fn reason(explanation: &Explanation) -> Option<(&str, &str, &str)> {
    let drop = explanation.drop.as_ref()?;
    Some((drop.path, drop.at.as_str(), drop.reason.unwrap_or("in the guest")))
}

fn codes(explanation: &Explanation) -> Vec<&str> {
    explanation.findings.iter().map(|finding| finding.code).collect()
}

fn passed(hops: &[control::present::Hop]) -> Vec<(&str, &str)> {
    hops.iter()
        .map(|hop| (hop.nic.as_deref().or(hop.node.as_deref()).unwrap(), hop.direction))
        .collect()
}

fn empty_nsg(topology: &mut Topology, rules: Vec<SecurityRule>) -> NsgIndex {
    let name = format!("nsg{}", topology.nsgs.len());
    topology.nsgs.push(Nsg { name, rules });
    NsgIndex(topology.nsgs.len() - 1)
}

fn rule(priority: u16, direction: Direction, access: Access) -> SecurityRule {
    let all = vec![PortRange {
        first: 0,
        last: u16::MAX,
    }];
    SecurityRule {
        name: format!("r{priority}"),
        priority,
        direction,
        access,
        protocol: RuleProtocol::Any,
        source: RuleAddress::Any,
        source_ports: all.clone(),
        destination: RuleAddress::Any,
        destination_ports: all,
    }
}

#[test]
fn peered_vnets_reach_each_other_in_the_shape_of_the_contract() {
    let mut topology = hub_and_spokes(Profile::Azure2018);
    let nsg = empty_nsg(&mut topology, Vec::new());
    topology.nics[WEB.0].nsg = Some(nsg);
    let explanation = between(&topology, WEB, NVA);
    let expected = json!({
        "verdict": "Allow",
        "forward": [
            {
                "nic": "web-nic", "direction": "Outbound",
                "nsg": "nsg0", "rule": "defaultSecurityRules/AllowVnetOutBound",
                "evaluated": [{
                    "nsg": "nsg0", "association": "NetworkInterface",
                    "rule": "defaultSecurityRules/AllowVnetOutBound", "access": "Allow"
                }],
                "route": {
                    "addressPrefix": "10.0.0.0/16", "source": "Default", "nextHopType": "VNetPeering",
                    "nextHopIpAddress": []
                },
                "link": "spoke1/spoke1-to-hub"
            },
            { "nic": "nva-nic", "direction": "Inbound", "nsg": null, "rule": null, "evaluated": [] }
        ],
        "return": [
            {
                "nic": "nva-nic", "direction": "Outbound", "nsg": null, "rule": "state", "evaluated": [],
                "route": {
                    "addressPrefix": "10.1.0.0/16", "source": "Default", "nextHopType": "VNetPeering",
                    "nextHopIpAddress": []
                },
                "link": "hub/hub-to-spoke1"
            },
            { "nic": "web-nic", "direction": "Inbound", "nsg": null, "rule": "state", "evaluated": [] }
        ],
        "drop": null,
        "findings": []
    });
    assert_eq!(serde_json::to_value(&explanation).unwrap(), expected);
}

/// Shows: PEER-12.
#[test]
fn peering_is_not_transitive() {
    let mut topology = hub_and_spokes(Profile::Azure2018);
    let explanation = between(&topology, WEB, DB);
    assert_eq!(reason(&explanation), Some(("forward", "web-nic", "RouteNone")));
    assert_eq!(codes(&explanation), ["NotTransitive"]);
    let drop = serde_json::to_value(&explanation).unwrap()["drop"].clone();
    assert_eq!(drop["route"]["addressPrefix"], "10.0.0.0/8");
    // With default rules at the sender the NSG is asked first (NSG-24).
    let nsg = empty_nsg(&mut topology, Vec::new());
    topology.subnets[1].nsg = Some(nsg);
    let explanation = between(&topology, WEB, DB);
    assert_eq!(reason(&explanation), Some(("forward", "web-nic", "NsgOutbound")));
    let drop = explanation.drop.unwrap();
    assert_eq!(drop.rule.as_deref(), Some("defaultSecurityRules/DenyAllOutBound"));
    assert_eq!(drop.nsg.as_deref(), Some("nsg0"));
}

/// Shows: NVA-04.
#[test]
fn an_appliance_joins_spokes_in_both_families() {
    for profile in [Profile::Azure2018, Profile::Azure2025] {
        let mut topology = chained(profile);
        let nsg = empty_nsg(&mut topology, Vec::new());
        for nic in &mut topology.nics {
            nic.nsg = Some(nsg);
        }
        for (destination, protocol) in [
            ("10.2.0.4", TestProtocol::Tcp),
            ("10.2.0.4", TestProtocol::Icmp),
            ("fd00:c::4", TestProtocol::Udp),
            ("fd00:c::4", TestProtocol::Icmp),
        ] {
            let explanation = ask(
                &topology,
                Endpoint::Nic(WEB),
                Endpoint::Address(address(destination)),
                protocol,
            );
            assert_eq!(
                explanation.verdict, "Allow",
                "{destination} {protocol:?} {explanation:#?}"
            );
            let way = [
                ("web-nic", "Outbound"),
                ("nva-nic", "Inbound"),
                ("nva-nic", "Outbound"),
                ("db-nic", "Inbound"),
            ];
            assert_eq!(passed(&explanation.forward), way);
            assert_eq!(passed(&explanation.reply).len(), 4);
            assert!(
                explanation
                    .reply
                    .iter()
                    .all(|hop| hop.rule.as_deref() == Some("state"))
            );
            assert!(explanation.findings.is_empty());
        }
    }
}

/// NVA-NO-IPFWD.
/// Shows: NVA-01.
#[test]
fn an_appliance_without_ip_forwarding_gets_nothing() {
    let mut topology = chained(Profile::Azure2018);
    topology.nics[NVA.0].ip_forwarding = false;
    let explanation = between(&topology, WEB, DB);
    assert_eq!(reason(&explanation), Some(("forward", "nva-nic", "NotForNic")));
    assert_eq!(codes(&explanation), ["IpForwardingOff"]);
}

/// Shows: NVA-02.
#[test]
fn a_guest_that_does_not_forward_swallows_the_packet() {
    let mut topology = chained(Profile::Azure2018);
    topology.vms[0].forwarding = false;
    let explanation = between(&topology, WEB, DB);
    assert_eq!(explanation.verdict, "Deny");
    assert_eq!(reason(&explanation), Some(("forward", "nva-nic", "in the guest")));
    assert_eq!(codes(&explanation), ["GuestNotForwarding"]);
}

/// NVA-NO-AFT-SPOKE2.
/// Shows: PEER-21.
#[test]
fn a_spoke_refuses_forwarded_traffic() {
    let mut topology = chained(Profile::Azure2018);
    for peering in &mut topology.peerings {
        peering.allow_forwarded_traffic = peering.from == SPOKE1;
    }
    let there = between(&topology, WEB, DB);
    assert_eq!(
        reason(&there),
        Some(("forward", "nva-nic", "ForwardedTrafficOff"))
    );
    let back = between(&topology, DB, WEB);
    assert_eq!(reason(&back), Some(("return", "nva-nic", "ForwardedTrafficOff")));
    assert_eq!(passed(&back.forward).last(), Some(&("web-nic", "Inbound")));
    topology.settings.forwarded_semantics = model::topology::ForwardedSemantics::Tag;
    assert_eq!(between(&topology, WEB, DB).verdict, "Allow");
}

/// Shows: NVA-05, ROUTE-42.
#[test]
fn a_route_in_one_direction_only_loses_the_reply() {
    let mut topology = chained(Profile::Azure2018);
    topology.subnets[2].route_table = None;
    let explanation = between(&topology, WEB, DB);
    assert_eq!(reason(&explanation), Some(("return", "db-nic", "RouteNone")));
    assert!(codes(&explanation).contains(&"OneDirectionAppliance"));
}

/// Shows: NVA-05.
#[test]
fn a_reply_that_takes_the_peering_is_asymmetric() {
    let mut topology = chained(Profile::Azure2018);
    peer(&mut topology, SPOKE1, SPOKE2);
    topology.subnets[2].route_table = None;
    let explanation = between(&topology, WEB, DB);
    assert_eq!(explanation.verdict, "Allow");
    assert_eq!(
        passed(&explanation.reply),
        [("db-nic", "Outbound"), ("web-nic", "Inbound")]
    );
    assert_eq!(codes(&explanation), ["AsymmetricPath", "OneDirectionAppliance"]);
}

/// Shows: PEER-07.
#[test]
fn a_one_sided_peering_carries_nothing() {
    let mut topology = hub_and_spokes(Profile::Azure2018);
    topology.peerings.truncate(1);
    topology.peerings[0].state = PeeringState::Initiated;
    topology.peerings[0].reverse = None;
    for (from, to) in [(WEB, NVA), (NVA, WEB)] {
        let explanation = between(&topology, from, to);
        assert_eq!(reason(&explanation).unwrap().2, "RouteNone");
        assert_eq!(codes(&explanation), ["OneSidedPeering"]);
    }
}

/// PEER-20.
/// Shows: PEER-20.
#[test]
fn the_access_flag_means_what_its_profile_says() {
    let mut topology = hub_and_spokes(Profile::Azure2018);
    // hub/hub-to-spoke1
    topology.peerings[0].allow_virtual_network_access = false;
    assert_eq!(
        reason(&between(&topology, WEB, NVA)),
        Some(("forward", "web-nic", "PeeringAccessOff"))
    );
    assert_eq!(
        reason(&between(&topology, NVA, WEB)),
        Some(("forward", "nva-nic", "PeeringAccessOff"))
    );
    topology.profile = Profile::Azure2025;
    assert_eq!(between(&topology, WEB, NVA).verdict, "Allow");
    let nsg = empty_nsg(&mut topology, Vec::new());
    topology.nics[NVA.0].nsg = Some(nsg);
    assert_eq!(
        reason(&between(&topology, WEB, NVA)),
        Some(("forward", "nva-nic", "NsgInbound"))
    );
    assert_eq!(
        reason(&between(&topology, NVA, WEB)),
        Some(("forward", "nva-nic", "NsgOutbound"))
    );
    topology.nsgs[0]
        .rules
        .push(rule(100, Direction::Inbound, Access::Allow));
    assert_eq!(between(&topology, WEB, NVA).verdict, "Allow");
}

/// Shows: NVA-08.
#[test]
fn a_loop_ends_with_the_time_to_live() {
    let mut topology = chained(Profile::Azure2018);
    let own = UdrNextHop::VirtualAppliance(address("10.0.0.4"));
    routes(&mut topology, SubnetIndex(0), &[("10.2.0.0/16", own)]);
    let explanation = between(&topology, WEB, DB);
    assert_eq!(explanation.verdict, "Deny");
    assert_eq!(codes(&explanation), ["RoutingLoop"]);
    // The sender's 64 fall to 1 in 63 guests; the 64th does not pass it on.
    assert_eq!(explanation.forward.len(), 2 * 64);
}

/// Linux drops IPv4 packets that come back with the guest's own source; of IPv6 it makes a loop.
#[test]
fn a_packet_that_returns_to_its_sender_is_dropped_there() {
    let mut topology = chained(Profile::Azure2018);
    topology.nics[WEB.0].ip_forwarding = true;
    topology.vms[1].forwarding = true;
    let web = UdrNextHop::VirtualAppliance(address("10.1.0.4"));
    let web6 = UdrNextHop::VirtualAppliance(address("fd00:b::4"));
    routes(
        &mut topology,
        SubnetIndex(1),
        &[("10.2.0.0/16", web), ("fd00:c::/48", web6)],
    );
    let explanation = between(&topology, WEB, DB);
    assert_eq!(reason(&explanation), Some(("forward", "web-nic", "in the guest")));
    assert_eq!(codes(&explanation), ["MartianSource"]);
    let to = Endpoint::Address(address("fd00:c::4"));
    let explanation = ask(&topology, Endpoint::Nic(WEB), to, TestProtocol::Icmp);
    assert_eq!(codes(&explanation), ["RoutingLoop"]);
}

/// Only eth0 has a default route (VNET-11).
/// Shows: VNET-11, NVA-01.
#[test]
fn a_second_interface_answers_by_the_first() {
    let mut topology = hub_and_spokes(Profile::Azure2018);
    let prefixes = nets(&["10.0.9.0/24"]);
    topology.subnets.push(model::topology::Subnet {
        name: "back".to_owned(),
        prefixes,
        ..topology.subnets[0].clone()
    });
    let second = vm(&mut topology, "spare", SubnetIndex(3), &[address("10.0.9.4")]);
    topology.vms.pop();
    topology.nics[second.0].vm = topology.nics[NVA.0].vm;
    topology.vms[0].nics.push(second);
    topology.nics[NVA.0].ip_forwarding = false;
    let explanation = between(&topology, WEB, second);
    assert_eq!(reason(&explanation), Some(("return", "nva-nic", "SpoofedSource")));
    // From its own subnet it answers by itself.
    let near = vm(&mut topology, "near", SubnetIndex(3), &[address("10.0.9.5")]);
    assert_eq!(between(&topology, near, second).verdict, "Allow");
    // With IP forwarding the fabric lets it, over an asymmetric path.
    topology.nics[NVA.0].ip_forwarding = true;
    let explanation = between(&topology, WEB, second);
    assert_eq!(
        (explanation.verdict, codes(&explanation)),
        ("Allow", vec!["AsymmetricPath"])
    );
    assert_eq!(codes(&between(&topology, NVA, second)), ["WithinGuest"]);
}

/// VNET-07: VNets that are not peered may use the same addresses.
/// Shows: VNET-07.
#[test]
fn overlapping_vnets_never_leak() {
    let mut topology = lab(Profile::Azure2018);
    let ranges = nets(&["10.0.0.0/16"]);
    for vnet in ["a", "b"] {
        let subnet = subnet(&mut topology, vnet, &ranges, &nets(&["10.0.0.0/24"]));
        vm(&mut topology, &format!("{vnet}1"), subnet, &[address("10.0.0.4")]);
        vm(&mut topology, &format!("{vnet}2"), subnet, &[address("10.0.0.5")]);
    }
    let [a1, a2, b1, b2] = [0, 1, 2, 3].map(NicIndex);
    for (one, other) in [(a1, a2), (b1, b2)] {
        let explanation = between(&topology, one, other);
        assert_eq!(explanation.verdict, "Allow");
        let last = explanation.forward.last().unwrap().nic.as_deref().unwrap();
        assert_eq!(last, topology.nics[other.0].name);
    }
    for (one, other) in [(a1, b2), (b2, a1)] {
        let explanation = between(&topology, one, other);
        assert_eq!(
            (explanation.verdict, codes(&explanation)),
            ("Deny", vec!["DeliveredElsewhere"])
        );
    }
    let own = between(&topology, a1, b1);
    assert_eq!(
        (own.verdict, codes(&own)),
        ("Deny", vec!["WithinGuest", "DeliveredElsewhere"])
    );
    let query = Query {
        source: Endpoint::Address(address("10.0.0.4")),
        destination: Endpoint::Nic(b2),
        protocol: TestProtocol::Icmp,
        source_port: 1,
        port: 0,
    };
    let error = explain(&topology, &compile(&topology, 1), &query).unwrap_err();
    assert!(
        error.0.contains("a1-nic") && error.0.contains("b1-nic"),
        "{error}"
    );
}

/// Shows: ROUTE-15.
#[test]
fn the_internet_is_reached_by_public_addresses_only() {
    let mut topology = hub_and_spokes(Profile::Azure2018);
    topology.internet = Some(vec![address("198.51.100.7")]);
    topology.nics[WEB.0].public_addresses = vec![address("203.0.113.5")];
    let out = ask(
        &topology,
        Endpoint::Nic(WEB),
        Endpoint::Internet,
        TestProtocol::Tcp,
    );
    assert_eq!(out.verdict, "Allow", "{out:#?}");
    assert_eq!(
        passed(&out.forward),
        [("web-nic", "Outbound"), ("internet", "Inbound")]
    );
    assert_eq!(
        passed(&out.reply),
        [("internet", "Outbound"), ("web-nic", "Inbound")]
    );
    let back = ask(
        &topology,
        Endpoint::Internet,
        Endpoint::Nic(WEB),
        TestProtocol::Tcp,
    );
    assert_eq!(back.verdict, "Allow");
    let without = ask(
        &topology,
        Endpoint::Nic(DB),
        Endpoint::Internet,
        TestProtocol::Tcp,
    );
    assert_eq!(reason(&without), Some(("forward", "db-nic", "NoInternet")));
    let into = ask(
        &topology,
        Endpoint::Internet,
        Endpoint::Nic(DB),
        TestProtocol::Tcp,
    );
    assert_eq!(reason(&into), Some(("forward", "internet", "NoDestination")));
    // One public address to the other, and back, over the edge.
    topology.nics[DB.0].public_addresses = vec![address("203.0.113.6")];
    let over = ask(
        &topology,
        Endpoint::Nic(WEB),
        Endpoint::Address(address("203.0.113.6")),
        TestProtocol::Udp,
    );
    assert_eq!(over.verdict, "Allow", "{over:#?}");
}

#[test]
fn nobody_answers_at_a_free_address() {
    let topology = hub_and_spokes(Profile::Azure2018);
    for (destination, expected) in [
        ("10.1.0.99", "NoDestination"),
        ("10.0.77.1", "NoDestination"),
        ("192.168.1.1", "RouteNone"),
        ("8.8.8.8", "NoInternet"),
        ("168.63.129.16", "PlatformReserved"),
        ("224.0.0.5", "UnsupportedProtocol"),
        ("ff02::1", "UnsupportedProtocol"),
        ("2001:db8::1", "NoInternet"),
    ] {
        let destination = Endpoint::Address(address(destination));
        let explanation = ask(&topology, Endpoint::Nic(WEB), destination, TestProtocol::Tcp);
        assert_eq!(reason(&explanation), Some(("forward", "web-nic", expected)));
    }
}

/// Shows: NSG-20.
#[test]
fn a_deny_names_its_rule() {
    let mut topology = hub_and_spokes(Profile::Azure2018);
    let rules = vec![rule(200, Direction::Inbound, Access::Deny)];
    let subnet_nsg = empty_nsg(&mut topology, Vec::new());
    let nic_nsg = empty_nsg(&mut topology, rules);
    topology.subnets[0].nsg = Some(subnet_nsg);
    topology.nics[NVA.0].nsg = Some(nic_nsg);
    let explanation = serde_json::to_value(between(&topology, WEB, NVA)).unwrap();
    let evaluated = |nsg: &str, association: &str, rule: &str, access: &str| -> Value {
        json!({ "nsg": nsg, "association": association, "rule": rule, "access": access })
    };
    assert_eq!(
        explanation["forward"][1]["evaluated"],
        json!([
            evaluated("nsg0", "Subnet", "defaultSecurityRules/AllowVnetInBound", "Allow"),
            evaluated("nsg1", "NetworkInterface", "securityRules/r200", "Deny"),
        ])
    );
    assert_eq!(
        explanation["drop"],
        json!({ "at": "nva-nic", "path": "forward", "reason": "NsgInbound", "nsg": "nsg1", "rule": "securityRules/r200" })
    );
}
