//! Random labs: small address spaces, so that routes, peerings and machines meet.

use std::net::{IpAddr, Ipv4Addr};

use model::Topology;
use model::topology::{
    Access, Direction, Nsg, NsgIndex, PeeringState, PortNamespace, PortRange, Profile, RuleAddress,
    RuleProtocol, SecurityRule, Subnet, SubnetIndex, UdrNextHop, VnetIndex, VnetPort,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::common;

const VNETS: usize = 4;
/// In every VNet `10.<vnet>.<subnet>.0/24` and, but for the last VNet, `fd00:<vnet>:0:<subnet>::/64`.
const SUBNETS: usize = 2;
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

fn subnet_prefixes(vnet: usize, subnet: usize) -> Vec<String> {
    let v6 = (vnet + 1 < VNETS).then(|| format!("fd00:{vnet}:0:{subnet}::/64"));
    [Some(format!("10.{vnet}.{subnet}.0/24")), v6]
        .into_iter()
        .flatten()
        .collect()
}

fn nic_addresses(vnet: usize, subnet: usize, host: usize) -> Vec<IpAddr> {
    let v4 = format!("10.{vnet}.{subnet}.{}", 4 + host).parse().unwrap();
    let v6 = (vnet + 1 < VNETS).then(|| format!("fd00:{vnet}:0:{subnet}::{:x}", 4 + host).parse().unwrap());
    [Some(v4), v6].into_iter().flatten().collect()
}

/// A machine: its VNet, the subnets of its NICs, IP forwarding in the fabric and in the guest, a public address.
pub(crate) type Machine = (usize, Vec<usize>, bool, bool, bool);
/// A peering: from, to, both sides, access, forwarded and the same of the other direction.
pub(crate) type Pair = (usize, usize, bool, [bool; 4]);
/// A user route: its subnet, its prefix, and the machine it leads to, or another next hop.
pub(crate) type Way = (usize, String, usize);

/// An NSG: the subnet or NIC it is at, and its rule, if any.
pub(crate) type Placed = (usize, Option<(Direction, Access, RuleProtocol, Option<u16>)>);

pub(crate) fn machines() -> impl Strategy<Value = Vec<Machine>> {
    let often = || prop::bool::weighted(0.8);
    vec(
        (
            0..VNETS,
            vec(0..SUBNETS, 1..3),
            often(),
            often(),
            prop::bool::weighted(0.3),
        ),
        3..7,
    )
}

pub(crate) fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let often = || prop::bool::weighted(0.85);
    vec(
        (0..VNETS, 0..VNETS, often(), [often(), often(), often(), often()]),
        4..12,
    )
}

pub(crate) fn ways() -> impl Strategy<Value = Vec<Way>> {
    let mut prefixes: Vec<String> = ["0.0.0.0/0", "::/0", "10.0.0.0/8", "fd00::/16"]
        .map(str::to_owned)
        .into();
    for vnet in 0..VNETS {
        prefixes.extend([format!("10.{vnet}.0.0/16"), format!("fd00:{vnet}::/48")]);
        prefixes.extend((0..SUBNETS).flat_map(|subnet| subnet_prefixes(vnet, subnet)));
    }
    vec((0..VNETS * SUBNETS, select(prefixes), 0..12_usize), 8..40)
}

pub(crate) fn nsgs() -> impl Strategy<Value = Vec<Placed>> {
    let rule = (
        select(vec![Direction::Inbound, Direction::Outbound]),
        select(vec![Access::Allow, Access::Deny]),
        select(vec![
            RuleProtocol::Any,
            RuleProtocol::Tcp,
            RuleProtocol::Udp,
            RuleProtocol::Icmp,
        ]),
        prop::option::of(select(vec![80_u16, 50000])),
    );
    vec((0..20_usize, prop::option::of(rule)), 0..3)
}

pub(crate) fn build(
    profile: Profile,
    machines: &[Machine],
    pairs: &[Pair],
    ways: &[Way],
    nsgs: &[Placed],
) -> Topology {
    let mut topology = common::lab(profile);
    topology.internet = Some(vec![PUBLIC]);
    for vnet in 0..VNETS {
        let v6 = (vnet + 1 < VNETS).then(|| format!("fd00:{vnet}::/48"));
        let ranges: Vec<String> = [Some(format!("10.{vnet}.0.0/16")), v6]
            .into_iter()
            .flatten()
            .collect();
        let ranges: Vec<&str> = ranges.iter().map(String::as_str).collect();
        common::subnet(&mut topology, &format!("v{vnet}"), &common::nets(&ranges), &[]);
        let namespace = PortNamespace::Lab;
        topology.vnets[vnet].tun = Some(VnetPort {
            interface: format!("pl-v{vnet}"),
            namespace,
        });
    }
    topology.subnets.clear();
    for index in 0..VNETS * SUBNETS {
        let prefixes = subnet_prefixes(index / SUBNETS, index % SUBNETS);
        topology.subnets.push(Subnet {
            name: format!("s{index}"),
            vnet: VnetIndex(index / SUBNETS),
            prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            nsg: None,
            route_table: None,
            service_endpoints: Vec::new(),
        });
    }
    add_machines(&mut topology, machines);
    add_peerings(&mut topology, pairs);
    add_routes(&mut topology, ways);
    for (index, (place, rule)) in nsgs.iter().enumerate() {
        let all = || {
            vec![PortRange {
                first: 0,
                last: u16::MAX,
            }]
        };
        let rule = rule
            .as_ref()
            .map(|&(direction, access, protocol, port)| SecurityRule {
                name: "r".to_owned(),
                priority: 100,
                direction,
                access,
                protocol,
                source: RuleAddress::Any,
                source_ports: all(),
                destination: RuleAddress::Any,
                destination_ports: port.map_or_else(all, |port| {
                    vec![PortRange {
                        first: port,
                        last: port,
                    }]
                }),
            });
        topology.nsgs.push(Nsg {
            name: format!("n{index}"),
            rules: rule.into_iter().collect(),
        });
        let count = topology.nics.len();
        match place.checked_sub(VNETS * SUBNETS) {
            None => topology.subnets[*place].nsg = Some(NsgIndex(index)),
            Some(nic) => topology.nics[nic % count].nsg = Some(NsgIndex(index)),
        }
    }
    topology
}

fn add_machines(topology: &mut Topology, machines: &[Machine]) {
    for (host, (vnet, subnets, ip_forwarding, forwarding, public)) in machines.iter().enumerate() {
        let mut vm = None;
        for (interface, subnet) in subnets.iter().enumerate() {
            let addresses = nic_addresses(*vnet, *subnet, host * 2 + interface);
            let at = SubnetIndex(vnet * SUBNETS + subnet);
            let nic = common::vm(topology, &format!("m{host}i{interface}"), at, &addresses);
            topology.nics[nic.0].ip_forwarding = *ip_forwarding;
            if interface == 0 {
                vm = topology.nics[nic.0].vm;
                if *public {
                    topology.nics[nic.0].public_addresses =
                        vec![Ipv4Addr::new(203, 0, 113, u8::try_from(host).unwrap()).into()];
                }
            } else {
                topology.vms.pop();
                topology.nics[nic.0].vm = vm;
                topology.vms[vm.unwrap().0].nics.push(nic);
            }
        }
        topology.vms[vm.unwrap().0].forwarding = *forwarding;
    }
    // The last machine's NICs stand behind its VNet's port instead; such NICs do not forward.
    let last = topology.vms.pop().unwrap();
    for nic in last.nics {
        topology.nics[nic.0].vm = None;
        topology.nics[nic.0].ip_forwarding = false;
    }
}

fn add_peerings(topology: &mut Topology, pairs: &[Pair]) {
    let mut seen = Vec::new();
    for &(from, to, both, [access, forwarded, other_access, other_forwarded]) in pairs {
        if from == to || seen.contains(&(from, to)) || seen.contains(&(to, from)) {
            continue;
        }
        seen.push((from, to));
        let [own, other] = common::peer(topology, VnetIndex(from), VnetIndex(to));
        topology.peerings[own.0].allow_virtual_network_access = access;
        topology.peerings[own.0].allow_forwarded_traffic = forwarded;
        topology.peerings[other.0].allow_virtual_network_access = other_access;
        topology.peerings[other.0].allow_forwarded_traffic = other_forwarded;
        if !both {
            topology.peerings.pop();
            topology.peerings[own.0].state = PeeringState::Initiated;
            topology.peerings[own.0].reverse = None;
        }
    }
}

fn add_routes(topology: &mut Topology, ways: &[Way]) {
    for subnet in 0..topology.subnets.len() {
        let mut own: Vec<(&str, UdrNextHop)> = Vec::new();
        for (_, prefix, to) in ways.iter().filter(|way| way.0 == subnet) {
            let v4 = !prefix.contains(':');
            let address = topology.nics[to % topology.nics.len()]
                .addresses
                .iter()
                .find(|a| a.is_ipv4() == v4);
            let next_hop = match (to, address) {
                (9, _) => UdrNextHop::None,
                (10, _) => UdrNextHop::VnetLocal,
                (11, _) => UdrNextHop::Internet,
                (_, Some(&address)) => UdrNextHop::VirtualAppliance(address),
                _ => continue,
            };
            if own.iter().all(|(other, _)| other != prefix) {
                own.push((prefix, next_hop));
            }
        }
        if !own.is_empty() {
            common::routes(topology, SubnetIndex(subnet), &own);
        }
    }
}
