//! Compiling after an earlier compilation gives what compiling alone gives, whatever lies between the two labs.

use control::compile::Pieces;
use control::{compile, compile_after};
use model::Topology;
use model::change::{Operation, apply};
use model::config::{Access, Address, Direction, NextHopType, Peering, Route, RouteTable, SecurityRule};
use model::topology::{Asg, AsgIndex, PortRange, Profile, RuleAddress, RuleProtocol};
use model::{Loaded, Source};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::random::{Machine, Pair, Placed, Way, build, machines, nsgs, pairs, ways};

/// A lab and its tables, as one text.
fn told(before: &Pieces, topology: &Topology) -> (String, Pieces) {
    let compiled = compile_after(before, topology, 3);
    let text = format!("{:#?} {:#?}", compiled.snapshot, compiled.provenance);
    (text, compiled.pieces)
}

/// The lab has them as members, and rules that name the ASG on either side.
fn with_asgs(topology: &mut Topology, members: &[usize]) {
    topology.asgs.push(Asg {
        name: "web".to_owned(),
    });
    let count = topology.nics.len();
    for member in members {
        topology.nics[member % count].asgs = vec![AsgIndex(0)];
    }
    for (at, nsg) in topology.nsgs.iter_mut().enumerate() {
        let asgs = || RuleAddress::Asgs(vec![AsgIndex(0)]);
        let sides = [(asgs(), RuleAddress::Any), (RuleAddress::Any, asgs())];
        for (rule, (source, destination)) in nsg.rules.iter_mut().zip(sides.into_iter().skip(at % 2)) {
            rule.protocol = RuleProtocol::Any;
            rule.source_ports = vec![PortRange {
                first: 0,
                last: u16::MAX,
            }];
            (rule.source, rule.destination) = (source, destination);
        }
    }
}

type Parts = (Vec<Machine>, Vec<Pair>, Vec<Way>, Vec<Placed>, Vec<usize>);

fn parts() -> impl Strategy<Value = Parts> {
    (machines(), pairs(), ways(), nsgs(), vec(0..20_usize, 0..3))
}

fn lab((machines, pairs, ways, nsgs, members): &Parts) -> Topology {
    let mut topology = build(Profile::Azure2025, machines, pairs, ways, nsgs);
    with_asgs(&mut topology, members);
    topology
}

/// The lab with one thing taken out.
fn less(parts: &Parts, what: usize, which: usize) -> Parts {
    fn without<T>(list: &mut Vec<T>, which: usize) {
        if !list.is_empty() {
            list.remove(which % list.len());
        }
    }
    let mut parts = parts.clone();
    match what {
        0 => without(&mut parts.1, which),
        1 => without(&mut parts.2, which),
        2 => without(&mut parts.3, which),
        3 => without(&mut parts.4, which),
        _ if parts.0.len() > 1 => without(&mut parts.0, which),
        _ => {}
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// From any lab to any other, and by one change at a time, out and in again.
    #[test]
    fn pieces_change_nothing(
        start in parts(),
        other in parts(),
        changes in vec((0..5_usize, any::<usize>()), 1..5),
    ) {
        let (_, mut pieces) = told(&Pieces::default(), &lab(&other));
        let mut way = vec![start];
        for (what, which) in changes {
            let smaller = less(way.last().unwrap(), what, which);
            way.push(smaller);
        }
        let back: Vec<Parts> = way.iter().rev().cloned().collect();
        for parts in way.iter().chain(&back) {
            let topology = lab(parts);
            let (after, next) = told(&pieces, &topology);
            let (alone, _) = told(&Pieces::default(), &topology);
            prop_assert_eq!(after, alone);
            pieces = next;
        }
    }
}

/// A hub with a gateway, spokes that use it, and everything else that tables follow from.
fn hub() -> Loaded {
    let text = "
apiVersion: peerlane/v1
kind: Lab
name: hub
profile: azure-2025
vnets:
  hub:
    addressSpace: [10.0.0.0/16]
    subnets:
      s: { addressPrefix: 10.0.0.0/24, networkSecurityGroup: guard }
      GatewaySubnet: { addressPrefix: 10.0.255.0/27 }
  one: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24, networkSecurityGroup: guard, routeTable: way } } }
  two: { addressSpace: [10.2.0.0/16], subnets: { s: { addressPrefix: 10.2.0.0/24, serviceEndpoints: [Microsoft.Storage] } } }
  three: { addressSpace: [10.3.0.0/16], subnets: { s: { addressPrefix: 10.3.0.0/24, networkSecurityGroup: guard } } }
peerings:
  - { name: to-one, from: hub, to: one, allowGatewayTransit: true }
  - { name: to-hub, from: one, to: hub, useRemoteGateways: true }
  - hub <-> two
  - { name: to-three, from: hub, to: three, allowGatewayTransit: true }
  - { name: to-hub, from: three, to: hub, useRemoteGateways: true }
gateways: { vpn: { vnet: hub, gatewayType: Vpn, vpnType: RouteBased, publicIPAddresses: [203.0.113.10] } }
sites: { dc: { addressPrefixes: [192.168.10.0/24] } }
connections: { c: { gateway: vpn, site: dc, connectionType: IPsec } }
networkSecurityGroups: { guard: { securityRules: {} }, spare: { securityRules: {} } }
routeTables:
  way: { routes: { r: { addressPrefix: 10.2.0.0/16, nextHopType: VirtualAppliance, nextHopIpAddress: 10.0.0.4 } } }
vms:
  a: { subnet: hub/s, privateIPAddress: 10.0.0.4, enableIPForwarding: true }
  b: { subnet: one/s, privateIPAddress: 10.1.0.4 }
  c: { subnet: two/s, privateIPAddress: 10.2.0.4 }
  d: { subnet: three/s, privateIPAddress: 10.3.0.4, networkSecurityGroup: spare }
";
    let name = "hub.vnet.yaml".to_owned();
    model::load(Source::Text {
        name,
        text: text.to_owned(),
    })
    .unwrap_or_else(|errors| panic!("{errors}"))
}

/// One of many operations; one that the lab forbids at this moment is left out.
fn operation(kind: usize, number: u8) -> Operation {
    let vnet = ["hub", "one", "two", "three"][usize::from(number) % 4].to_owned();
    let spoke = ["one", "two", "three"][usize::from(number) % 3];
    let nsg = ["guard", "spare"][usize::from(number) % 2].to_owned();
    match kind {
        0 => Operation::DeletePeering {
            vnet,
            name: ["to-hub", "to-one", "to-three", "hub-to-two"][usize::from(number / 4) % 4].to_owned(),
        },
        1 => Operation::PutPeering {
            peering: Box::new(Peering {
                name: format!("to-{spoke}"),
                from: "hub".to_owned(),
                to: spoke.to_owned(),
                allow_gateway_transit: Some(true),
                allow_virtual_network_access: Some(number.is_multiple_of(2)),
                ..Peering::default()
            }),
        },
        2 => Operation::PutPeering {
            peering: Box::new(Peering {
                name: "to-hub".to_owned(),
                from: spoke.to_owned(),
                to: "hub".to_owned(),
                use_remote_gateways: Some(number.is_multiple_of(2)),
                ..Peering::default()
            }),
        },
        3 => Operation::PutRoute {
            table: "way".to_owned(),
            name: format!("r{}", number % 3),
            route: Box::new(Route {
                address_prefix: format!("10.{}.0.0/16", number % 8),
                next_hop_type: NextHopType::VirtualAppliance,
                next_hop_ip_address: Some(Address([10, 0, 0, 4].into())),
                ..Route::default()
            }),
        },
        4 => Operation::DeleteRoute {
            table: "way".to_owned(),
            name: format!("r{}", number % 3),
        },
        5 => Operation::PutRule {
            nsg,
            name: format!("rule{}", number % 3),
            rule: Box::new(rule(number)),
        },
        6 => Operation::DeleteVnet { name: vnet },
        _ => Operation::PutRouteTable {
            name: format!("t{}", number % 3),
            table: Box::new(RouteTable::default()),
        },
    }
}

fn rule(number: u8) -> SecurityRule {
    let any = || Some("*".to_owned());
    SecurityRule {
        priority: 100 + u16::from(number % 3),
        direction: if number & 8 == 0 {
            Direction::Inbound
        } else {
            Direction::Outbound
        },
        access: if number & 16 == 0 {
            Access::Allow
        } else {
            Access::Deny
        },
        source_address_prefix: Some("VirtualNetwork".to_owned()),
        source_port_range: any(),
        destination_address_prefix: any(),
        destination_port_range: any(),
        ..SecurityRule::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Changes as the API makes them, of a hub with a gateway.
    #[test]
    fn changes_compiled_one_after_the_other_give_what_the_lab_gives(
        changes in vec((0..8_usize, any::<u8>()), 1..24),
    ) {
        let Loaded { mut config, topology, .. } = hub();
        let (_, mut pieces) = told(&Pieces::default(), &topology);
        let mut made = 0;
        for (kind, number) in changes {
            let Ok(changed) = apply(&config, &[operation(kind, number)], None) else {
                continue;
            };
            made += 1;
            config = changed.config;
            let (after, next) = told(&pieces, &changed.topology);
            let (alone, _) = told(&Pieces::default(), &changed.topology);
            prop_assert_eq!(after, alone, "after {} changes", made);
            pieces = next;
        }
    }
}

/// A change of one spoke makes the tables of that spoke and of the hub anew, and no others.
#[test]
fn what_a_change_does_not_touch_is_not_made_again() {
    let Loaded { config, topology, .. } = hub();
    let first = compile(&topology, 1);
    let delete = Operation::DeletePeering {
        vnet: "three".to_owned(),
        name: "to-hub".to_owned(),
    };
    let changed = apply(&config, &[delete], None).unwrap();
    let second = compile_after(&first.pieces, &changed.topology, 2);
    assert_eq!(second.pieces.shared_with(&first.pieces), ["one", "two"]);
    let again = compile_after(&second.pieces, &changed.topology, 3);
    assert_eq!(
        again.pieces.shared_with(&second.pieces),
        ["hub", "one", "three", "two"]
    );
}
