//! Compiling: ids, sharing, next hops, and the same tables every time.

use std::net::IpAddr;

use control::compile;
use control::compile::PortOwner;
use control::present::{effective_nsgs, effective_routes, peerings};
use engine::fib::NextHop;
use engine::snapshot::{FibId, NicId, PeeringId, Port, PortId};
use model::Topology;
use model::topology::{
    Asg, AsgIndex, ForwardedSemantics, NicIndex, Nsg, NsgIndex, PeeringIndex, PortNamespace, Profile,
    RuleAddress, SubnetIndex, UdrNextHop, VmIndex, VnetIndex, VnetPort,
};
use packet::key::mapped;
use serde_json::json;

use crate::common::{lab, nets, peer, routes, subnet, vm};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `count` VNets `10.<n>.0.0/16`, a VM in each.
fn vnets(profile: Profile, count: usize) -> Topology {
    let mut topology = lab(profile);
    for vnet in 0..count {
        let range = nets(&[&format!("10.{vnet}.0.0/16")]);
        let subnet = subnet(&mut topology, &format!("v{vnet}"), &range, &range);
        vm(
            &mut topology,
            &format!("vm{vnet}"),
            subnet,
            &[address(&format!("10.{vnet}.0.4"))],
        );
    }
    topology
}

/// What a NIC's table does with a destination.
fn next_hop(topology: &Topology, nic: NicIndex, destination: &str) -> NextHop {
    let snapshot = compile(topology, 1).snapshot;
    let fib = &snapshot.fibs[snapshot.nics[nic.0].fib.index()];
    fib.routes()[fib.lookup(mapped(address(destination))).unwrap().index()].next_hop
}

#[test]
fn ports_count_vm_nics_then_vnets_then_the_internet() {
    let mut topology = vnets(Profile::Azure2018, 2);
    let second = vm(&mut topology, "x", SubnetIndex(0), &[address("10.0.0.5")]);
    topology.vms.pop();
    topology.nics[second.0].vm = Some(VmIndex(0));
    topology.vms[0].nics.push(second);
    let behind = vm(&mut topology, "x", SubnetIndex(1), &[address("10.1.0.9")]);
    topology.vms.pop();
    topology.nics[behind.0].vm = None;
    topology.vnets[1].tun = Some(VnetPort {
        interface: "pl-v1".to_owned(),
        namespace: PortNamespace::Lab,
    });
    topology.internet = Some(vec![address("198.51.100.7")]);
    let compiled = compile(&topology, 9);
    let own = |vm, interface, nic| PortOwner::Vm {
        vm: VmIndex(vm),
        interface,
        nic: NicIndex(nic),
    };
    assert_eq!(
        compiled.provenance.ports,
        [
            own(0, 0, 0),
            own(1, 0, 1),
            own(0, 1, 2),
            PortOwner::Vnet(VnetIndex(1)),
            PortOwner::Internet
        ]
    );
    let snapshot = &compiled.snapshot;
    assert_eq!(snapshot.generation, 9);
    assert_eq!(snapshot.ports[1], Port::Nic(NicId(1)));
    assert_eq!(snapshot.nics[behind.0].port, PortId(3));
    assert_eq!(snapshot.internet.as_ref().unwrap().port, PortId(4));
    assert_eq!(format!("{compiled:?}"), format!("{:?}", compile(&topology, 9)));
}

/// Shows: ROUTE-10.
#[test]
fn subnets_share_tables_by_vnet_and_route_table() {
    let mut topology = vnets(Profile::Azure2018, 2);
    for index in 0..3 {
        let mut extra = topology.subnets[0].clone();
        extra.name = format!("extra{index}");
        topology.subnets.push(extra);
        let at = SubnetIndex(topology.subnets.len() - 1);
        vm(
            &mut topology,
            &format!("e{index}"),
            at,
            &[address(&format!("10.0.9.{index}"))],
        );
    }
    routes(
        &mut topology,
        SubnetIndex(3),
        &[("10.9.0.0/16", UdrNextHop::None)],
    );
    topology.subnets[4].route_table = topology.subnets[3].route_table;
    let compiled = compile(&topology, 1);
    let fibs: Vec<FibId> = compiled.snapshot.nics.iter().map(|nic| nic.fib).collect();
    assert_eq!(fibs, [0, 1, 0, 2, 2].map(FibId));
}

/// Shows: ROUTE-02.
#[test]
fn all_subnets_have_the_routes_of_their_vnet_and_none_of_their_own() {
    let mut topology = lab(Profile::Azure2018);
    let ranges = nets(&["10.1.0.0/16", "10.9.0.0/16"]);
    let first = subnet(&mut topology, "v", &ranges, &nets(&["10.1.1.0/24"]));
    let mut second = topology.subnets[first.0].clone();
    (second.name, second.prefixes) = ("second".to_owned(), nets(&["10.9.2.0/24"]));
    topology.subnets.push(second);
    vm(&mut topology, "one", first, &[address("10.1.1.4")]);
    vm(&mut topology, "two", SubnetIndex(1), &[address("10.9.2.4")]);
    let local = |nic| -> Vec<String> {
        let routes = effective_routes(&topology, NicIndex(nic)).value.into_iter();
        let local = routes.filter(|row| row.next_hop_type == "VnetLocal");
        local.flat_map(|row| row.address_prefix).collect()
    };
    assert_eq!(local(0), ["10.1.0.0/16", "10.9.0.0/16"]);
    assert_eq!(local(0), local(1));
}

#[test]
fn filters_are_shared_by_content() {
    let mut topology = vnets(Profile::Azure2018, 2);
    topology.nsgs.push(Nsg {
        name: "n".to_owned(),
        rules: Vec::new(),
    });
    topology.asgs.push(Asg { name: "a".to_owned() });
    for index in 0..2 {
        topology.subnets[index].nsg = Some(NsgIndex(0));
        topology.nics[index].nsg = Some(NsgIndex(0));
    }
    // Two VNets, two meanings of VirtualNetwork; inbound and outbound.
    assert_eq!(compile(&topology, 1).snapshot.filters.len(), 4);
    // No rule names the ASG, so membership makes no difference.
    let twin = vm(&mut topology, "twin", SubnetIndex(0), &[address("10.0.0.5")]);
    topology.nics[twin.0].asgs = vec![AsgIndex(0)];
    topology.nics[twin.0].nsg = Some(NsgIndex(0));
    assert_eq!(compile(&topology, 1).snapshot.filters.len(), 4);
    // Rules without tags mean the same in both, but for the default rules after them.
    topology.vnets[1].address_space = topology.vnets[0].address_space.clone();
    assert_eq!(compile(&topology, 1).snapshot.filters.len(), 2);
}

/// ROUTE-13, ROUTE-18.
/// Shows: ROUTE-13, ROUTE-18.
#[test]
fn appliances_are_found_in_the_own_vnet_and_direct_peers() {
    let mut topology = vnets(Profile::Azure2018, 4);
    peer(&mut topology, VnetIndex(1), VnetIndex(0));
    peer(&mut topology, VnetIndex(1), VnetIndex(2));
    let to = |text| UdrNextHop::VirtualAppliance(address(text));
    routes(
        &mut topology,
        SubnetIndex(0),
        &[
            ("20.0.0.0/8", to("10.0.0.4")),
            ("21.0.0.0/8", to("10.1.0.4")),
            ("22.0.0.0/8", to("10.2.0.4")),
            ("23.0.0.0/8", to("10.1.0.77")),
            ("24.0.0.0/8", UdrNextHop::VirtualNetworkGateway),
        ],
    );
    let hop = |destination| next_hop(&topology, NicIndex(0), destination);
    assert_eq!(hop("20.1.1.1"), NextHop::Appliance(Some((NicId(0), None))));
    // v0-to-v1 is the second object.
    assert_eq!(
        hop("21.1.1.1"),
        NextHop::Appliance(Some((NicId(1), Some(PeeringId(1)))))
    );
    assert_eq!(hop("22.1.1.1"), NextHop::Appliance(None));
    assert_eq!(hop("23.1.1.1"), NextHop::Appliance(None));
    assert_eq!(hop("24.1.1.1"), NextHop::NoGateway);
    assert_eq!(hop("25.1.1.1"), NextHop::Internet);
    assert_eq!(hop("10.1.0.4"), NextHop::Peering(PeeringId(1)));
    assert_eq!(hop("10.2.0.4"), NextHop::None);
}

/// PEER-20 and PEER-21.
/// Shows: PEER-20, PEER-21.
#[test]
fn flags_are_read_on_the_side_that_owns_them() {
    let mut topology = vnets(Profile::Azure2018, 2);
    peer(&mut topology, VnetIndex(0), VnetIndex(1));
    topology.peerings[0].allow_forwarded_traffic = true;
    let flags = |topology: &Topology| -> Vec<(bool, bool)> {
        let snapshot = compile(topology, 1).snapshot;
        snapshot
            .peerings
            .iter()
            .map(|peering| (peering.access, peering.forwarded_accepted))
            .collect()
    };
    // v0 takes forwarded traffic from v1: said by v0's object, read by packets from v1.
    assert_eq!(flags(&topology), [(true, false), (true, true)]);
    topology.peerings[1].allow_virtual_network_access = false;
    assert_eq!(flags(&topology), [(false, false), (false, true)]);
    topology.profile = Profile::Azure2025;
    topology.settings.forwarded_semantics = ForwardedSemantics::Tag;
    assert_eq!(flags(&topology), [(true, true), (true, true)]);
}

/// PEER-31 and PEER-32: one object joins a VNet with a classic one; the classic side never lists the route it follows.
/// Shows: PEER-31, PEER-32.
#[test]
fn a_classic_vnet_needs_no_object_of_its_own() {
    let mut topology = vnets(Profile::Azure2018, 2);
    peer(&mut topology, VnetIndex(0), VnetIndex(1));
    topology.peerings.pop();
    topology.peerings[0].reverse = None;
    topology.vnets[1].classic = true;
    let compiled = compile(&topology, 1);
    assert_eq!(compiled.provenance.peerings, [PeeringIndex(0), PeeringIndex(0)]);
    let reverses: Vec<Option<PeeringId>> = compiled
        .snapshot
        .peerings
        .iter()
        .map(|peering| peering.reverse)
        .collect();
    assert_eq!(reverses, [Some(PeeringId(1)), Some(PeeringId(0))]);
    assert_eq!(
        next_hop(&topology, NicIndex(0), "10.1.0.4"),
        NextHop::Peering(PeeringId(0))
    );
    assert_eq!(
        next_hop(&topology, NicIndex(1), "10.0.0.4"),
        NextHop::Peering(PeeringId(1))
    );
    let types = |nic| -> Vec<&str> {
        effective_routes(&topology, NicIndex(nic))
            .value
            .iter()
            .map(|row| row.next_hop_type)
            .collect()
    };
    assert_eq!(types(0)[..2], ["VnetLocal", "VNetPeering"]);
    assert!(!types(1).contains(&"VNetPeering"));
}

/// ROUTE-01 and ROUTE-07.
/// Shows: ROUTE-01, ROUTE-03, ROUTE-06, ROUTE-07, ROUTE-37, ROUTE-38, ROUTE-40, DIAG-06.
#[test]
fn both_families_have_system_routes() {
    let mut topology = vnets(Profile::Azure2025, 2);
    for vnet in 0..2 {
        topology.vnets[vnet]
            .address_space
            .extend(nets(&[&format!("fd00:{vnet}::/48")]));
    }
    peer(&mut topology, VnetIndex(0), VnetIndex(1));
    topology.peerings[0].global = true;
    let shown = effective_routes(&topology, NicIndex(0));
    let rows: Vec<(&str, &str)> = shown
        .value
        .iter()
        .map(|row| (row.address_prefix[0].as_str(), row.next_hop_type))
        .collect();
    let expected = [
        ("10.0.0.0/16", "VnetLocal"),
        ("fd00::/48", "VnetLocal"),
        ("10.1.0.0/16", "VNetGlobalPeering"),
        ("fd00:1::/48", "VNetGlobalPeering"),
        ("0.0.0.0/0", "Internet"),
        ("::/0", "Internet"),
        ("10.0.0.0/8", "None"),
        ("192.168.0.0/16", "None"),
        ("100.64.0.0/10", "None"),
        ("172.16.0.0/12", "None"),
    ];
    assert_eq!(rows, expected);
    let first = serde_json::to_value(&shown).unwrap();
    assert_eq!(
        (&first["nextLink"], &first["value"][0]),
        (
            &json!(null),
            &json!({
                "addressPrefix": ["10.0.0.0/16"], "destinationServiceTags": [], "disableBgpRoutePropagation": false,
                "hasBgpOverride": false, "name": null, "nextHopIpAddress": [], "nextHopType": "VnetLocal",
                "source": "Default", "state": "Active", "tagMap": {}
            })
        )
    );
    topology.profile = Profile::Azure2018;
    topology.settings.none_routes = Some(nets(&["198.18.0.0/15"]));
    let shown = effective_routes(&topology, NicIndex(0));
    let none: Vec<&str> = shown
        .value
        .iter()
        .filter(|row| row.next_hop_type == "None")
        .map(|row| row.address_prefix[0].as_str())
        .collect();
    assert_eq!(none, ["198.18.0.0/15"]);
}

/// NSG-35.
/// Shows: NSG-10, NSG-12, NSG-13, NSG-35, DIAG-06.
#[test]
fn effective_rules_have_the_shape_of_azures_tools() {
    let mut topology = vnets(Profile::Azure2018, 1);
    topology.nsgs.push(Nsg {
        name: "n".to_owned(),
        rules: Vec::new(),
    });
    topology.nics[0].nsg = Some(NsgIndex(0));
    let shown = serde_json::to_value(effective_nsgs(&topology, NicIndex(0))).unwrap();
    let [nsg] = &shown["value"].as_array().unwrap()[..] else {
        panic!("one NSG: {shown}")
    };
    let group =
        "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/t/providers/Microsoft.Network";
    assert_eq!(
        nsg["association"],
        json!({
            "networkInterface": { "id": format!("{group}/networkInterfaces/vm0-nic"), "resourceGroup": "t" },
            "networkManager": null,
            "subnet": null
        })
    );
    assert_eq!(
        nsg["networkSecurityGroup"]["id"],
        format!("{group}/networkSecurityGroups/n")
    );
    let rules = nsg["effectiveSecurityRules"].as_array().unwrap();
    assert_eq!(rules.len(), 6);
    assert_eq!(
        rules[1],
        json!({
            "access": "Allow",
            "destinationAddressPrefix": "0.0.0.0/0",
            "destinationAddressPrefixes": ["0.0.0.0/0"],
            "destinationPortRange": "0-65535",
            "destinationPortRanges": ["0-65535"],
            "direction": "Inbound",
            "expandedDestinationAddressPrefix": null,
            "expandedSourceAddressPrefix": ["168.63.129.16/32"],
            "name": "defaultSecurityRules/AllowAzureLoadBalancerInBound",
            "priority": 65001,
            "protocol": "All",
            "sourceAddressPrefix": "AzureLoadBalancer",
            "sourceAddressPrefixes": ["AzureLoadBalancer"],
            "sourcePortRange": "0-65535",
            "sourcePortRanges": ["0-65535"]
        })
    );
    // NSG-13: the beginning of the published expansion.
    let internet = rules[4]["expandedDestinationAddressPrefix"].as_array().unwrap();
    let published = [
        "1.0.0.0/8",
        "2.0.0.0/7",
        "4.0.0.0/6",
        "8.0.0.0/7",
        "11.0.0.0/8",
        "12.0.0.0/6",
    ];
    assert_eq!(internet[..6], published.map(|prefix| json!(prefix)));
    assert_eq!(
        nsg["tagMap"]["VirtualNetwork"],
        json!(["10.0.0.0/16", "168.63.129.16/32"])
    );
}

/// Shows: PEER-01, PEER-18.
#[test]
fn peerings_are_listed_in_the_shape_of_the_contract() {
    let mut topology = vnets(Profile::Azure2025, 2);
    peer(&mut topology, VnetIndex(0), VnetIndex(1));
    topology.peerings[0].remote_address_space = nets(&["10.1.0.0/24"]);
    let shown = serde_json::to_value(peerings(&topology)).unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 2);
    let guid = shown[0]["resourceGuid"].clone();
    assert!(guid.as_str().is_some_and(|guid| guid.len() == 36), "{guid}");
    assert_eq!(
        shown[0],
        json!({
            "name": "v0-to-v1", "from": "v0", "to": "v1", "peeringState": "Connected",
            "provisioningState": "Succeeded", "peeringSyncLevel": "FullyInSync", "allowVirtualNetworkAccess": true, "allowForwardedTraffic": false,
            "allowGatewayTransit": false, "useRemoteGateways": false, "remoteAddressSpace": ["10.1.0.0/24"],
            "remoteVirtualNetworkAddressSpace": ["10.1.0.0/16"], "global": false, "latency_us": 0, "latencySource": null,
            "peerCompleteVnets": true, "enableOnlyIPv6Peering": false, "localSubnetNames": [], "remoteSubnetNames": [],
            "doNotVerifyRemoteGateways": false, "resourceGuid": guid
        })
    );
}

/// NSG-31: at an appliance that forwards for a member of an ASG, a rule that names the ASG does not apply.
/// Shows: NSG-31.
#[test]
fn a_rule_that_names_an_asg_applies_to_members_only() {
    let mut topology = vnets(Profile::Azure2018, 1);
    topology.asgs.push(Asg {
        name: "web".to_owned(),
    });
    let member = vm(&mut topology, "web", SubnetIndex(0), &[address("10.0.0.9")]);
    topology.nics[member.0].asgs = vec![AsgIndex(0)];
    let all = vec![model::topology::PortRange {
        first: 0,
        last: u16::MAX,
    }];
    topology.nsgs.push(Nsg {
        name: "n".to_owned(),
        rules: vec![model::topology::SecurityRule {
            name: "deny-web".to_owned(),
            priority: 100,
            direction: model::topology::Direction::Inbound,
            access: model::topology::Access::Deny,
            protocol: model::topology::RuleProtocol::Any,
            source: RuleAddress::Any,
            source_ports: all.clone(),
            destination: RuleAddress::Asgs(vec![AsgIndex(0)]),
            destination_ports: all,
        }],
    });
    topology.subnets[0].nsg = Some(NsgIndex(0));
    let compiled = compile(&topology, 1);
    let key = packet::FlowKey {
        source: mapped(address("10.0.0.5")),
        destination: mapped(address("10.0.0.9")),
        source_port: 1,
        destination_port: 2,
        protocol: packet::Protocol::TCP,
    };
    let access = |nic| engine::filter::inbound(&compiled.snapshot, NicId(nic), &key).access;
    assert_eq!(access(0), engine::filter::Access::Allow);
    assert_eq!(access(1), engine::filter::Access::Deny);
}
