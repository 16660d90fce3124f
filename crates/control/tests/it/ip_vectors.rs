//! The published cases of appliances, TTL and MTU, as data: real packets through the engine's worker, guests played here.

use model::topology::NicIndex;
use model::{Source, Topology};
use packet::key::mapped;
use packet::{FlowKey, Protocol};
use serde_json::Value;

use crate::world::{End, Place, World, key_of, packet};

fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn load(text: &str) -> Topology {
    let source = Source::Text {
        name: "vector".to_owned(),
        text: text.to_owned(),
    };
    model::load(source)
        .unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
        .topology
}

fn place(topology: &Topology, name: &str) -> Place {
    let nics = &topology.nics;
    Place::Nic(NicIndex(nics.iter().position(|nic| nic.name == name).unwrap()))
}

/// A UDP packet between two NICs, and its answer if it arrives: how each ends, and the bytes as they arrived.
fn exchange(topology: &Topology, from: &str, to: &str) -> (End, Option<End>, Vec<u8>) {
    let compiled = control::compile(topology, 1);
    let mut world = World::new(topology, &compiled);
    let (Place::Nic(source), Place::Nic(destination)) = (place(topology, from), place(topology, to)) else {
        unreachable!()
    };
    let first_address = |nic: NicIndex| mapped(topology.nics[nic.0].addresses[0]);
    let key = FlowKey {
        source: first_address(source),
        destination: first_address(destination),
        source_port: 50000,
        destination_port: 80,
        protocol: Protocol::UDP,
    };
    let (end, _, arrived) = world.travel(Place::Nic(source), None, packet(&key, true));
    let End::Delivered(at) = end else {
        return (end, None, arrived);
    };
    let answer = packet(&key_of(&arrived).reversed(), false);
    let (reply, ..) = world.travel(at, None, answer);
    (End::Delivered(at), Some(reply), arrived)
}

/// A flag of the case; the others are what NVA-04 asks for.
fn flag(case: &Value, name: &str) -> bool {
    case.get(name).is_none_or(|value| value.as_bool().unwrap())
}

fn hub_and_spokes(case: &Value) -> Topology {
    let access = case["allVnetAccessFlags"] != false;
    let forwarded = |name: &str, otherwise: bool| {
        case.get(name)
            .or(case.get("allForwardedFlags"))
            .map_or(otherwise, |value| value.as_bool().unwrap())
    };
    let (to_hub1, to_hub2) = (
        forwarded("spoke1->hub.allowForwardedTraffic", true),
        forwarded("spoke2->hub.allowForwardedTraffic", true),
    );
    let of_hub = forwarded("hub->spokes.allowForwardedTraffic", false);
    let (forwards, guest) = (flag(case, "nvaNicIpForwarding"), flag(case, "guestForwards"));
    load(&format!(
        r#"
apiVersion: peerlane/v1
kind: Lab
name: vector
profile: azure-2018
vnets:
  hub: {{ addressSpace: [10.0.0.0/16], subnets: {{ nva: {{ addressPrefix: 10.0.1.0/24 }} }} }}
  spoke1: {{ addressSpace: [10.1.0.0/16], subnets: {{ vms: {{ addressPrefix: 10.1.0.0/24, routeTable: one }} }} }}
  spoke2: {{ addressSpace: [10.2.0.0/16], subnets: {{ vms: {{ addressPrefix: 10.2.0.0/24, routeTable: two }} }} }}
peerings:
  - {{ name: h1, from: hub, to: spoke1, allowVirtualNetworkAccess: {access}, allowForwardedTraffic: {of_hub} }}
  - {{ name: s1, from: spoke1, to: hub, allowVirtualNetworkAccess: {access}, allowForwardedTraffic: {to_hub1} }}
  - {{ name: h2, from: hub, to: spoke2, allowVirtualNetworkAccess: {access}, allowForwardedTraffic: {of_hub} }}
  - {{ name: s2, from: spoke2, to: hub, allowVirtualNetworkAccess: {access}, allowForwardedTraffic: {to_hub2} }}
routeTables:
  one: {{ routes: {{ r: {{ addressPrefix: 10.2.0.0/16, nextHopType: VirtualAppliance, nextHopIpAddress: 10.0.1.4 }} }} }}
  two: {{ routes: {{ r: {{ addressPrefix: 10.1.0.0/16, nextHopType: VirtualAppliance, nextHopIpAddress: 10.0.1.4 }} }} }}
vms:
  nva: {{ forwarding: {guest}, nics: [ {{ name: nva-nic, subnet: hub/nva, privateIPAddress: 10.0.1.4, enableIPForwarding: {forwards} }} ] }}
  one: {{ subnet: spoke1/vms, privateIPAddress: 10.1.0.4 }}
  two: {{ subnet: spoke2/vms, privateIPAddress: 10.2.0.4 }}
"#
    ))
}

/// Shows: NVA-01, NVA-02, NVA-04.
#[test]
fn nva_forwarding() {
    let document = document(include_str!("../../../../tests/vectors/nva_forwarding.json"));
    let dropped = |reason: &'static str, nic: &str| End::Dropped(reason, nic.to_owned());
    for case in document["cases"].as_array().unwrap() {
        let topology = hub_and_spokes(case);
        let (there, back) = (
            exchange(&topology, "one-nic", "two-nic"),
            exchange(&topology, "two-nic", "one-nic"),
        );
        let delivered = |(end, reply, _): &(End, Option<End>, Vec<u8>)| {
            matches!((end, reply), (End::Delivered(_), Some(End::Delivered(_))))
        };
        match case["id"].as_str().unwrap() {
            "NVA-FWD-OK" => assert!(delivered(&there) && delivered(&back), "{case}"),
            "NVA-NO-IPFWD" => {
                assert_eq!(
                    (there.0, back.0),
                    (dropped("NotForNic", "nva-nic"), dropped("NotForNic", "nva-nic"))
                );
            }
            "NVA-NO-AFT-SPOKE2" => {
                assert_eq!(there.0, dropped("ForwardedTrafficOff", "nva-nic"));
                assert!(matches!(back.0, End::Delivered(_)), "its requests reach spoke1");
                assert_eq!(back.1, Some(dropped("ForwardedTrafficOff", "nva-nic")));
            }
            "NVA-SOURCE-SPOOF" => {
                // The appliance as a sender without forwarding: a packet in the name of another.
                let compiled = control::compile(&topology, 1);
                let mut world = World::new(&topology, &compiled);
                let mut key = FlowKey {
                    source: mapped("10.1.0.99".parse().unwrap()),
                    destination: mapped("10.0.1.4".parse().unwrap()),
                    source_port: 1,
                    destination_port: 2,
                    protocol: Protocol::UDP,
                };
                let one = place(&topology, "one-nic");
                assert_eq!(
                    world.travel(one, None, packet(&key, true)).0,
                    dropped("SpoofedSource", "one-nic")
                );
                key.source = mapped("10.1.0.4".parse().unwrap());
                assert!(matches!(
                    world.travel(one, None, packet(&key, true)).0,
                    End::Delivered(_)
                ));
            }
            "NVA-ACCESS-FLAG-OFF" => assert!(!delivered(&there) && !delivered(&back), "{case}"),
            other => panic!("{other} is new"),
        }
    }
}

/// Two VNets with a VM and a VPN gateway each and a tunnel; in the first another VM, an appliance, and a peer.
const PATHS: &str = r#"
apiVersion: peerlane/v1
kind: Lab
name: paths
profile: azure-2025
vnets:
  a:
    addressSpace: [10.4.0.0/16]
    subnets:
      vms: { addressPrefix: 10.4.1.0/24, routeTable: by-nva }
      others: { addressPrefix: 10.4.2.0/24 }
      nva: { addressPrefix: 10.4.3.0/24 }
      GatewaySubnet: { addressPrefix: 10.4.0.0/27 }
  b: { addressSpace: [10.5.0.0/16], subnets: { vms: { addressPrefix: 10.5.1.0/24 }, GatewaySubnet: { addressPrefix: 10.5.0.0/27 } } }
  peer: { addressSpace: [10.6.0.0/16], subnets: { vms: { addressPrefix: 10.6.1.0/24 } } }
  spoke1: { addressSpace: [10.1.0.0/16], subnets: { vms: { addressPrefix: 10.1.1.0/24, routeTable: to-spoke2 } } }
  spoke2: { addressSpace: [10.2.0.0/16], subnets: { vms: { addressPrefix: 10.2.1.0/24, routeTable: to-spoke1 } } }
peerings:
  - a <-> peer
  - { name: a-to-spoke1, from: a, to: spoke1, allowGatewayTransit: true, allowForwardedTraffic: true }
  - { name: spoke1-to-a, from: spoke1, to: a, useRemoteGateways: true, allowForwardedTraffic: true }
  - { name: a-to-spoke2, from: a, to: spoke2, allowGatewayTransit: true, allowForwardedTraffic: true }
  - { name: spoke2-to-a, from: spoke2, to: a, useRemoteGateways: true, allowForwardedTraffic: true }
routeTables:
  by-nva: { routes: { r: { addressPrefix: 10.4.2.128/25, nextHopType: VirtualAppliance, nextHopIpAddress: 10.4.3.4 } } }
  to-spoke1: { routes: { r: { addressPrefix: 10.1.0.0/16, nextHopType: VirtualNetworkGateway } } }
  to-spoke2: { routes: { r: { addressPrefix: 10.2.0.0/16, nextHopType: VirtualNetworkGateway } } }
gateways:
  a-vpn: { vnet: a, gatewayType: Vpn, vpnType: RouteBased, asn: 65515, publicIPAddresses: [203.0.113.1] }
  b-vpn: { vnet: b, gatewayType: Vpn, vpnType: RouteBased, asn: 65516, publicIPAddresses: [203.0.113.2] }
connections:
  a-b: { gateway: a-vpn, remoteGateway: b-vpn, connectionType: Vnet2Vnet }
vms:
  one: { subnet: a/vms, privateIPAddress: 10.4.1.4 }
  two: { subnet: a/others, privateIPAddress: 10.4.2.4 }
  behind: { subnet: a/others, privateIPAddress: 10.4.2.200 }
  nva: { forwarding: true, nics: [ { name: nva-nic, subnet: a/nva, privateIPAddress: 10.4.3.4, enableIPForwarding: true } ] }
  far: { subnet: b/vms, privateIPAddress: 10.5.1.4 }
  peered: { subnet: peer/vms, privateIPAddress: 10.6.1.4 }
  s1: { subnet: spoke1/vms, privateIPAddress: 10.1.1.4 }
  s2: { subnet: spoke2/vms, privateIPAddress: 10.2.1.4 }
"#;

/// Shows: NET-08, NET-03.
#[test]
fn ttl_mtu() {
    let document = document(include_str!("../../../../tests/vectors/ttl_mtu.json"));
    let topology = load(PATHS);
    for case in document["cases"].as_array().unwrap() {
        let Some(path) = case["path"].as_str() else {
            assert_eq!(
                (&case["ping"], &case["reply"]),
                (&"x.x.x.1 of the subnet".into(), &false.into())
            );
            continue; // NET-06 has a lab of its own
        };
        let (from, to) = match path {
            "VM -> VM same VNet" => ("one-nic", "two-nic"),
            "VM -> peered VM (direct)" => ("one-nic", "peered-nic"),
            "VM -> NVA VM (Linux) -> VM" => ("one-nic", "behind-nic"),
            "VM -> one Azure VPN gateway -> VM in another spoke" => ("s1-nic", "s2-nic"),
            "VM -> gateway A -> tunnel -> gateway B -> VM" => ("one-nic", "far-nic"),
            // Managed routing appliances are no part of a lab.
            "VM -> managed routing appliance x2 -> VM over global peering" => continue,
            other => panic!("{other} is new"),
        };
        let (end, _, arrived) = exchange(&topology, from, to);
        assert_eq!(end, End::Delivered(place(&topology, to)), "{path}");
        let expected = match case["decrement"].as_u64() {
            Some(decrement) => 64 - decrement,
            None => case["receivedTtl"].as_u64().unwrap(),
        };
        assert_eq!(u64::from(arrived[8]), expected, "{path}");
    }
    let mtu = |name: &str| u16::try_from(document["mtu"][name].as_u64().unwrap()).unwrap();
    let snapshot = control::compile(&topology, 1).snapshot;
    let hop = |from: &str, to: &str| {
        let (Place::Nic(from), Place::Nic(to)) = (place(&topology, from), place(&topology, to)) else {
            unreachable!()
        };
        let key = FlowKey {
            source: mapped(topology.nics[from.0].addresses[0]),
            destination: mapped(topology.nics[to.0].addresses[0]),
            source_port: 1,
            destination_port: 2,
            protocol: Protocol::TCP,
        };
        let from = engine::snapshot::NicId(u32::try_from(from.0).unwrap());
        engine::route::route(&snapshot, from, &key, &key, None)
            .outcome
            .unwrap()
    };
    assert_eq!(hop("one-nic", "two-nic").mtu, mtu("default"));
    assert_eq!(
        hop("one-nic", "peered-nic").mtu,
        mtu("overPeeringGatewayInternet")
    );
    assert_eq!(hop("s1-nic", "s2-nic").mtu, mtu("overPeeringGatewayInternet"));
    assert_eq!(hop("one-nic", "far-nic").mtu, mtu("vpnTunnelMtu"));
}

#[test]
fn explain_says_where_the_path_is_narrow() {
    let topology = load(PATHS);
    let compiled = control::compile(&topology, 1);
    let findings = |from: &str, to: &str| {
        let query = control::Query {
            source: topology.endpoint(from).unwrap(),
            destination: topology.endpoint(to).unwrap(),
            protocol: model::topology::TestProtocol::Udp,
            source_port: 50000,
            port: 80,
        };
        let explanation = control::explain(&topology, &compiled, &query).unwrap();
        assert_eq!(explanation.verdict, "Allow", "{explanation:#?}");
        let told = explanation.findings.into_iter();
        told.filter(|finding| finding.code == "PathMtu")
            .map(|finding| finding.message)
            .collect::<Vec<_>>()
    };
    let told = findings("one", "far");
    assert_eq!(told.len(), 2, "there and back: {told:?}");
    assert!(
        told[0].contains("1400 bytes") && told[0].contains("10.4.0.4"),
        "{told:?}"
    );
    assert!(told[1].contains("10.5.0.4"), "{told:?}");
    assert_eq!(findings("one", "peered"), [""; 0]);
}

#[test]
fn what_is_narrow_both_ways_is_said_once() {
    let topology = load(
        r#"
apiVersion: peerlane/v1
kind: Lab
name: once
profile: azure-2025
vnets:
  hub:
    addressSpace: [10.0.0.0/16]
    subnets: { s: { addressPrefix: 10.0.0.0/24 }, GatewaySubnet: { addressPrefix: 10.0.255.0/27 } }
vms: { web: { subnet: hub/s } }
gateways: { vpn: { vnet: hub, gatewayType: Vpn, vpnType: RouteBased, publicIPAddresses: [203.0.113.10] } }
sites: { dc: { addressPrefixes: [192.168.0.0/24] } }
connections: { one: { gateway: vpn, site: dc, connectionType: IPsec } }
"#,
    );
    let query = control::Query {
        source: topology.endpoint("web").unwrap(),
        destination: topology.endpoint("dc").unwrap(),
        protocol: model::topology::TestProtocol::Udp,
        source_port: 50000,
        port: 80,
    };
    let explanation = control::explain(&topology, &control::compile(&topology, 1), &query).unwrap();
    assert!(!explanation.reply.is_empty(), "{explanation:#?}");
    let codes: Vec<_> = explanation.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["PathMtu"], "{explanation:#?}");
}
