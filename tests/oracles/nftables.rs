//! The rules of a case in the language of nftables, from the definitions of tags and groups and not from our tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use packet::Protocol;
use serde_json::Value;

use crate::namespace;
use crate::rules::{Case, Field, Ports, Rule, vm_addresses};

/// Cases in one table. The DSCP of a packet, 6 bits in both families, names its case; with more cases than these nft, which
/// searches its sets by name, gets slower per case.
pub(crate) const LANES: usize = 16;

/// What a counter has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Count {
    pub(crate) fn add(&mut self, packet: &[u8]) {
        self.packets += 1;
        self.bytes += packet.len() as u64;
    }
}

/// The counter of a rule at a level (0 is met first) of a lane.
pub(crate) fn counter(lane: usize, level: usize, rule: &str) -> String {
    format!("l{lane}_{level}_{rule}")
}

/// The counter of what all levels let pass.
pub(crate) fn arrived(lane: usize) -> String {
    format!("l{lane}_arrived")
}

/// Replaces the namespace's ruleset by these cases.
pub(crate) fn load(cases: &[Case]) {
    namespace::must(&["nft", "-f", "-"], &script(cases));
}

/// All counters by name.
pub(crate) fn counts() -> BTreeMap<String, Count> {
    let listed = namespace::must(&["nft", "-j", "list", "counters"], "");
    let listed: Value = serde_json::from_str(&listed).expect("nft -j prints JSON");
    let objects = listed["nftables"].as_array().expect("a list of objects").iter();
    objects
        .filter_map(|object| object.get("counter"))
        .map(|counter| {
            let number = |field: &str| counter[field].as_u64().expect("a number");
            let count = Count {
                packets: number("packets"),
                bytes: number("bytes"),
            };
            (counter["name"].as_str().expect("a name").to_owned(), count)
        })
        .collect()
}

/// Three chains meet each packet in turn: the two levels, where `accept` goes on to the next chain, and the end.
pub(crate) fn script(cases: &[Case]) -> String {
    let mut script = "flush ruleset\ntable inet o {\n".to_owned();
    let mut chains = String::new();
    for (lane, case) in cases.iter().enumerate() {
        for (level, rules) in case.levels().into_iter().enumerate() {
            writeln!(chains, "chain l{lane}_{level} {{").unwrap();
            for rule in rules.map(|rules| in_order(case, rules)).unwrap_or_default() {
                let name = counter(lane, level, &rule.name);
                writeln!(script, "counter {name} {{ }}").unwrap();
                for matching in matches(case, &rule) {
                    let verdict = if rule.allow { "accept" } else { "drop" };
                    writeln!(chains, "{matching} counter name \"{name}\" {verdict}").unwrap();
                }
            }
            // Without an NSG; with one, the default rules have spoken.
            writeln!(chains, "accept\n}}").unwrap();
        }
        let name = arrived(lane);
        writeln!(script, "counter {name} {{ }}").unwrap();
        writeln!(chains, "chain l{lane}_2 {{\ncounter name \"{name}\" drop\n}}").unwrap();
    }
    script.push_str(&chains);
    for level in 0..3 {
        let to: Vec<String> = (0..cases.len())
            .map(|lane| format!("{lane} : goto l{lane}_{level}"))
            .collect();
        let to = to.join(", ");
        // Before connection tracking.
        let priority = level - 300;
        writeln!(
            script,
            "chain at{level} {{\ntype filter hook prerouting priority {priority}; policy drop;\n\
             ip dscp vmap {{ {to} }}\nip6 dscp vmap {{ {to} }}\n}}"
        )
        .unwrap();
    }
    script.push_str("}\n");
    script
}

/// Rules that apply to this NIC (NSG-31) by priority (NSG-04), then the default rules (NSG-10).
fn in_order(case: &Case, rules: &[Rule]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = rules.to_vec();
    rules.retain(|rule| {
        match if case.inbound {
            &rule.destination
        } else {
            &rule.source
        } {
            Field::Groups(groups) => groups.iter().any(|group| case.members[0].contains(group)),
            _ => true,
        }
    });
    rules.sort_by_key(|rule| rule.priority);
    let tag = Field::Tag;
    let defaults = if case.inbound {
        [
            (
                "AllowVnetInBound",
                true,
                tag("VirtualNetwork"),
                tag("VirtualNetwork"),
            ),
            (
                "AllowAzureLoadBalancerInBound",
                true,
                tag("AzureLoadBalancer"),
                Field::Any,
            ),
            ("DenyAllInBound", false, Field::Any, Field::Any),
        ]
    } else {
        [
            (
                "AllowVnetOutBound",
                true,
                tag("VirtualNetwork"),
                tag("VirtualNetwork"),
            ),
            ("AllowInternetOutBound", true, Field::Any, tag("Internet")),
            ("DenyAllOutBound", false, Field::Any, Field::Any),
        ]
    };
    rules.extend(defaults.map(|(name, allow, source, destination)| Rule {
        name: name.to_owned(),
        priority: 65_000,
        allow,
        protocol: None,
        source,
        source_ports: Vec::new(),
        destination,
        destination_ports: Vec::new(),
    }));
    rules
}

/// The alternatives that make up a rule: per family, and with and without ports.
fn matches(case: &Case, rule: &Rule) -> Vec<String> {
    let mut found = Vec::new();
    for (family, ip) in [("ipv4", "ip"), ("ipv6", "ip6")] {
        let source = address(case, &rule.source, ip, "saddr");
        let destination = address(case, &rule.destination, ip, "daddr");
        let (Some(source), Some(destination)) = (source, destination) else {
            continue;
        };
        for kind in kinds(rule) {
            found.push(format!("meta nfproto {family} {source} {destination} {kind}"));
        }
    }
    found
}

/// Ports are ignored where there are none (NSG-07).
fn kinds(rule: &Rule) -> Vec<String> {
    let number = |ports: &Ports| {
        let ranges: Vec<String> = ports
            .iter()
            .map(|(first, last)| format!("{first}-{last}"))
            .collect();
        format!("{{ {} }}", ranges.join(", "))
    };
    let mut ports = String::new();
    for (side, list) in [("sport", &rule.source_ports), ("dport", &rule.destination_ports)] {
        if !list.is_empty() {
            write!(ports, " th {side} {}", number(list)).unwrap();
        }
    }
    match rule.protocol {
        Some(protocol @ (Protocol::TCP | Protocol::UDP)) => {
            vec![format!("meta l4proto {}{ports}", protocol.0)]
        }
        Some(protocol) => vec![format!("meta l4proto {}", protocol.0)],
        None if ports.is_empty() => vec![String::new()],
        None => vec![
            format!("meta l4proto {{ 6, 17 }}{ports}"),
            "meta l4proto != { 6, 17 }".to_owned(),
        ],
    }
}

/// The expression for an address field in one family; None when it can mean no address of the family.
fn address(case: &Case, field: &Field, ip: &str, side: &str) -> Option<String> {
    let of_family = |nets: Vec<IpNet>| -> Vec<String> {
        let nets: Vec<IpNet> = nets
            .into_iter()
            .filter(|net| net.addr().is_ipv4() == (ip == "ip"))
            .collect();
        IpNet::aggregate(&nets).iter().map(IpNet::to_string).collect()
    };
    let among = |nets: Vec<IpNet>| {
        let nets = of_family(nets);
        (!nets.is_empty()).then(|| format!("{ip} {side} {{ {} }}", nets.join(", ")))
    };
    match field {
        Field::Any => Some(String::new()),
        Field::Prefixes(nets) => among(nets.clone()),
        Field::Groups(groups) => {
            let members =
                (0..case.members.len()).filter(|&vm| groups.iter().any(|it| case.members[vm].contains(it)));
            among(
                members
                    .flat_map(vm_addresses)
                    .map(|it: IpAddr| it.into())
                    .collect(),
            )
        }
        Field::Tag("AzureLoadBalancer") => among(vec![platform()]),
        Field::Tag("VirtualNetwork") => among(virtual_network(case)),
        // NSG-13: public, and not of the VNet.
        Field::Tag(_) => {
            let mut outside = virtual_network(case);
            let private = [
                "0.0.0.0/8",
                "10.0.0.0/8",
                "172.16.0.0/12",
                "192.168.0.0/16",
                "100.64.0.0/10",
            ];
            outside.extend(private.map(|net| net.parse::<IpNet>().unwrap()));
            let outside = of_family(outside).join(", ");
            let public = if ip == "ip" {
                String::new()
            } else {
                format!("ip6 {side} 2000::/3 ")
            };
            Some(format!("{public}{ip} {side} != {{ {outside} }}"))
        }
    }
}

fn platform() -> IpNet {
    "168.63.129.16/32".parse().unwrap()
}

/// NSG-11 without peers and gateways.
fn virtual_network(case: &Case) -> Vec<IpNet> {
    let more = case.user_route.into_iter().chain([platform()]);
    case.ranges.iter().copied().chain(more).collect()
}
