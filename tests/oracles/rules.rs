//! Random NSGs at one NIC, and packets that meet them, written as a lab file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use packet::Protocol;
use serde_json::{Map, Value, json};

use crate::random::Random;

/// The VMs of the lab. The first has the NSGs; all may be members of the groups.
pub(crate) const VMS: usize = 4;

const GROUPS: usize = 3;

const TAGS: [&str; 3] = ["VirtualNetwork", "Internet", "AzureLoadBalancer"];

/// What a rule's address field says.
#[derive(Clone, Debug)]
pub(crate) enum Field {
    Any,
    Prefixes(Vec<IpNet>),
    Tag(&'static str),
    Groups(Vec<usize>),
}

/// What a rule's port field says: everything when empty.
pub(crate) type Ports = Vec<(u16, u16)>;

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) priority: u32,
    pub(crate) allow: bool,
    /// None: any.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) source: Field,
    pub(crate) source_ports: Ports,
    pub(crate) destination: Field,
    pub(crate) destination_ports: Ports,
}

/// A NIC's place: the rules of its direction at subnet and NIC, without the default rules. None: no NSG at that level.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) inbound: bool,
    pub(crate) ranges: Vec<IpNet>,
    /// A prefix of the subnet's user routes: part of the VirtualNetwork tag.
    pub(crate) user_route: Option<IpNet>,
    /// By VM: the groups it is in.
    pub(crate) members: [Vec<usize>; VMS],
    pub(crate) subnet: Option<Vec<Rule>>,
    pub(crate) nic: Option<Vec<Rule>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) ports: (u16, u16),
    /// Bytes after the transport header: they make the byte counters tell packets apart.
    pub(crate) payload: usize,
}

pub(crate) fn vm_addresses(vm: usize) -> [IpAddr; 2] {
    let host = 4 + vm as u8;
    [
        Ipv4Addr::new(10, 0, 0, host).into(),
        Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, host.into()).into(),
    ]
}

impl Case {
    pub(crate) fn random(random: &mut Random) -> Self {
        let mut ranges = vec!["10.0.0.0/16", "fd00:1::/48"];
        for more in [
            "172.16.0.0/13",
            "192.168.8.0/21",
            "20.1.0.0/16",
            "fd00:2::/47",
            "2001:db8::/33",
        ] {
            if random.below(3) == 0 {
                ranges.push(more);
            }
        }
        let members = std::array::from_fn(|_| (0..GROUPS).filter(|_| random.below(2) == 0).collect());
        let level = |random: &mut Random| (random.below(6) != 0).then(|| rules(random));
        Self {
            inbound: random.below(2) == 0,
            ranges: ranges.into_iter().map(|range| range.parse().unwrap()).collect(),
            user_route: (random.below(3) == 0).then(|| {
                let ipv6 = random.below(2) == 0;
                prefix(random, ipv6)
            }),
            members,
            subnet: level(random),
            nic: level(random),
        }
    }

    /// The levels in the order a packet meets them (NSG-20, NSG-21).
    pub(crate) fn levels(&self) -> [Option<&Vec<Rule>>; 2] {
        let (subnet, nic) = (self.subnet.as_ref(), self.nic.as_ref());
        if self.inbound {
            [subnet, nic]
        } else {
            [nic, subnet]
        }
    }

    /// The lab that has it, as a file.
    pub(crate) fn lab(&self) -> Value {
        let mut subnet = json!({ "addressPrefixes": ["10.0.0.0/24", "fd00:1::/64"], "routeTable": "t" });
        let mut nsgs = Map::new();
        let mut vms = Map::new();
        for (vm, groups) in self.members.iter().enumerate() {
            let groups: Vec<String> = groups.iter().map(group).collect();
            let mut nic = json!({
                "name": format!("n{vm}"), "subnet": "v/s", "privateIPAddresses": vm_addresses(vm),
                "applicationSecurityGroups": groups,
            });
            if vm == 0 && self.nic.is_some() {
                nic["networkSecurityGroup"] = json!("nic");
            }
            vms.insert(format!("m{vm}"), json!({ "nics": [nic] }));
        }
        for (name, rules) in [("subnet", &self.subnet), ("nic", &self.nic)] {
            if let Some(rules) = rules {
                let rules: Map<String, Value> = rules
                    .iter()
                    .map(|rule| (rule.name.clone(), rule.json(self.inbound)))
                    .collect();
                nsgs.insert(name.to_owned(), json!({ "securityRules": rules }));
            }
        }
        if self.subnet.is_some() {
            subnet["networkSecurityGroup"] = json!("subnet");
        }
        let routes: Map<String, Value> = self
            .user_route
            .iter()
            .map(|net| {
                (
                    "u".to_owned(),
                    json!({ "addressPrefix": net, "nextHopType": "None" }),
                )
            })
            .collect();
        json!({
            "apiVersion": "peerlane/v1", "kind": "Lab", "name": "filter", "profile": "azure-2025",
            "vnets": { "v": { "addressSpace": self.ranges, "subnets": { "s": subnet } } },
            "routeTables": { "t": { "routes": routes } },
            "applicationSecurityGroups": (0..GROUPS).map(|at| (group(&at), json!({}))).collect::<Map<_, _>>(),
            "networkSecurityGroups": nsgs,
            "vms": vms,
        })
    }

    /// A packet of the NIC's direction: its fields come from the rules' edges, or from nowhere in particular.
    pub(crate) fn packet(&self, random: &mut Random) -> Packet {
        let ipv6 = random.below(3) == 0;
        let rules: Vec<&Rule> = self.levels().into_iter().flatten().flatten().collect();
        let rule = (!rules.is_empty()).then(|| *random.pick(&rules));
        let mut address = |field: Option<&Field>| {
            match field {
                Some(Field::Prefixes(nets)) if random.below(4) != 0 => at_the_edge(random, nets, ipv6),
                _ => None,
            }
            .unwrap_or_else(|| anywhere(random, ipv6))
        };
        let source = address(rule.map(|rule| &rule.source));
        let destination = address(rule.map(|rule| &rule.destination));
        let mut port = |ports: Option<&Ports>| match ports {
            Some(ports) if !ports.is_empty() && random.below(4) != 0 => {
                let &(first, last) = random.pick(ports);
                *random.pick(&[first, last, first.wrapping_sub(1), last.wrapping_add(1)])
            }
            _ => random.below(12) as u16,
        };
        let ports = (
            port(rule.map(|rule| &rule.source_ports)),
            port(rule.map(|rule| &rule.destination_ports)),
        );
        // No ICMPv6, which no NSG filters (NET-10), and no AH in IPv6, where the kernel looks past it as past an option.
        let protocols: &[Protocol] = if ipv6 {
            &[Protocol::TCP, Protocol::UDP, Protocol::ESP]
        } else {
            &[
                Protocol::TCP,
                Protocol::UDP,
                Protocol::ICMP,
                Protocol::ESP,
                Protocol::AH,
            ]
        };
        let protocol = match rule.and_then(|rule| rule.protocol) {
            Some(protocol) if protocols.contains(&protocol) && random.below(3) != 0 => protocol,
            // Ports matter for two of them.
            _ if random.below(3) != 0 => protocols[random.below(2) as usize],
            _ => *random.pick(protocols),
        };
        Packet {
            source,
            destination,
            protocol,
            ports,
            payload: random.below(256) as usize,
        }
    }
}

impl Rule {
    fn json(&self, inbound: bool) -> Value {
        let ports = |ports: &Ports| match ports[..] {
            [] => json!(["*"]),
            _ => json!(
                ports
                    .iter()
                    .map(|(first, last)| format!("{first}-{last}"))
                    .collect::<Vec<_>>()
            ),
        };
        let mut rule = json!({
            "priority": self.priority,
            "direction": if inbound { "Inbound" } else { "Outbound" },
            "access": if self.allow { "Allow" } else { "Deny" },
            "protocol": match self.protocol {
                None => "*",
                Some(Protocol::TCP) => "Tcp",
                Some(Protocol::UDP) => "Udp",
                Some(Protocol::ICMP) => "Icmp",
                Some(Protocol::ESP) => "Esp",
                Some(_) => "Ah",
            },
            "sourcePortRanges": ports(&self.source_ports),
            "destinationPortRanges": ports(&self.destination_ports),
        });
        for (side, field) in [("source", &self.source), ("destination", &self.destination)] {
            let (key, value) = match field {
                Field::Any => ("AddressPrefix", json!("*")),
                Field::Tag(tag) => ("AddressPrefix", json!(tag)),
                Field::Prefixes(nets) => ("AddressPrefixes", json!(nets)),
                Field::Groups(groups) => (
                    "ApplicationSecurityGroups",
                    json!(groups.iter().map(group).collect::<Vec<_>>()),
                ),
            };
            rule[format!("{side}{key}")] = value;
        }
        rule
    }
}

fn group(at: &usize) -> String {
    format!("g{at}")
}

/// Up to a dozen rules, in an order that is not that of their priorities.
fn rules(random: &mut Random) -> Vec<Rule> {
    let mut rules: Vec<Rule> = (0..random.below(13)).map(|at| rule(random, at)).collect();
    for at in (1..rules.len()).rev() {
        let other = random.below(at as u32 + 1) as usize;
        let (one, two) = (rules[at].priority, rules[other].priority);
        (rules[at].priority, rules[other].priority) = (two, one);
    }
    rules
}

fn rule(random: &mut Random, at: u32) -> Rule {
    // One family per rule (NET-10).
    let ipv6 = random.below(3) == 0;
    Rule {
        name: format!("r{at}"),
        priority: 100 + at * 7,
        allow: random.below(2) == 0,
        protocol: match random.below(12) {
            0..4 => Some(Protocol::TCP),
            4..6 => Some(Protocol::UDP),
            6 => Some(Protocol::ICMP),
            7 => Some(Protocol::ESP),
            8 => Some(Protocol::AH),
            _ => None,
        },
        source: field(random, ipv6),
        source_ports: ports(random),
        destination: field(random, ipv6),
        destination_ports: ports(random),
    }
}

fn field(random: &mut Random, ipv6: bool) -> Field {
    match random.below(10) {
        0..3 => Field::Any,
        3..7 => Field::Prefixes(IpNet::aggregate(
            &(0..=random.below(3))
                .map(|_| prefix(random, ipv6))
                .collect::<Vec<_>>(),
        )),
        7..9 => Field::Tag(TAGS[random.below(3) as usize]),
        _ => Field::Groups(vec![random.below(GROUPS as u32) as usize]),
    }
}

fn ports(random: &mut Random) -> Ports {
    if random.below(2) == 0 {
        return Vec::new();
    }
    let range = |random: &mut Random| {
        let first = random.below(10) as u16;
        (first, first + random.below(4) as u16)
    };
    match random.below(8) {
        0 => vec![(0, 5), (8, u16::MAX)],
        1 => vec![range(random), (9000, 9010)],
        _ => vec![range(random)],
    }
}

/// Seldom as wide as a default route.
fn prefix(random: &mut Random, ipv6: bool) -> IpNet {
    let length = if ipv6 {
        16 + random.below(113)
    } else {
        6 + random.below(27)
    };
    IpNet::new(anywhere(random, ipv6), length as u8).unwrap().trunc()
}

/// One unicast address, mostly one that several fields mean.
fn anywhere(random: &mut Random, ipv6: bool) -> IpAddr {
    let low = random.below(10) as u8;
    if ipv6 {
        let net = *random.pick(&[
            [0xfd00, 1],
            [0xfd00, 2],
            [0xfd00, 9],
            [0x2001, 0xdb8],
            [0x2600, 1],
        ]);
        let middle = *random.pick(&[0, 0, 0x8000]);
        return Ipv6Addr::new(net[0], net[1], middle, 0, 0, 0, 0, low.into()).into();
    }
    let v4 = match random.below(9) {
        0..4 => [10, 0, 0, low],
        4 => [10, random.below(3) as u8, random.below(3) as u8, low],
        5 => [172, 16 + random.below(16) as u8, 0, low],
        6 => [192, 168, 8 * random.below(3) as u8, low],
        7 => [168, 63, 129, 14 + random.below(4) as u8],
        _ => [
            *random.pick(&[20, 100, 198]),
            *random.pick(&[1, 2, 64, 100]),
            0,
            low,
        ],
    };
    Ipv4Addr::from(v4).into()
}

/// The ends of one of the prefixes or just outside; none of another family, and no multicast.
fn at_the_edge(random: &mut Random, nets: &[IpNet], ipv6: bool) -> Option<IpAddr> {
    let found = match *random.pick(nets) {
        IpNet::V4(net) if !ipv6 => {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            let bits = *random.pick(&[first, last, first.wrapping_sub(1), last.wrapping_add(1)]);
            IpAddr::V4(bits.into())
        }
        IpNet::V6(net) if ipv6 => {
            let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
            let bits = *random.pick(&[first, last, first.wrapping_sub(1), last.wrapping_add(1)]);
            IpAddr::V6(bits.into())
        }
        _ => return None,
    };
    let unicast = match found {
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified() && !v6.is_loopback(),
    };
    unicast.then_some(found)
}
