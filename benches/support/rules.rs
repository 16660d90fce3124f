//! Rule sets as people write them: service tags, subnets and hosts, port lists, two defaults at the end; and the usual scan.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use engine::filter::{Access, Decision, Rule};
use packet::{FlowKey, Prefix, Protocol};

use super::random::Random;

fn prefix(bits: u32, length: u8) -> Prefix {
    Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(bits)), length)
}

fn any() -> Vec<Prefix> {
    vec![prefix(0, 0)]
}

/// One of twelve service tags, of 8 to 40 prefixes.
fn tag(number: u32) -> Vec<Prefix> {
    let mut random = Random::new(u64::from(number));
    let count = 8 + random.below(33);
    (0..count)
        .map(|_| {
            prefix(
                0x1400_0000 | random.below(1 << 24) << 4,
                20 + random.below(9) as u8,
            )
        })
        .collect()
}

/// A subnet of the VNet, a host, a tag, or anything.
fn addresses(random: &mut Random) -> Vec<Prefix> {
    match random.below(8) {
        0 => any(),
        1 | 2 => tag(random.below(12)),
        3..=5 => vec![prefix(0x0a00_0000 | random.below(64) << 8, 24)],
        _ => vec![prefix(0x0a00_0000 | random.below(1 << 14), 32)],
    }
}

fn ports(random: &mut Random) -> Vec<RangeInclusive<u16>> {
    let port = |random: &mut Random| random.below(10_000) as u16;
    match random.below(4) {
        0 => vec![0..=u16::MAX],
        1 => {
            let first = port(random);
            vec![first..=first + random.below(100) as u16]
        }
        2 => vec![port(random); 1]
            .into_iter()
            .map(|port| port..=port)
            .collect(),
        _ => (0..3 + random.below(4))
            .map(|_| port(random))
            .map(|port| port..=port)
            .collect(),
    }
}

/// `count` rules, the last two being "inside the VNet: allow" and "deny"; with one rule, only the first of these.
pub(crate) fn rules(count: usize, random: &mut Random) -> Vec<Rule> {
    let mut rules: Vec<Rule> = (0..count.saturating_sub(2))
        .map(|_| Rule {
            access: if random.below(2) == 0 {
                Access::Allow
            } else {
                Access::Deny
            },
            protocol: *random.pick(&[None, Some(Protocol::TCP), Some(Protocol::UDP)]),
            sources: addresses(random),
            destinations: addresses(random),
            source_ports: vec![0..=u16::MAX],
            destination_ports: ports(random),
        })
        .collect();
    let vnet = vec![prefix(0x0a00_0000, 8)];
    for (access, side) in [(Access::Allow, vnet), (Access::Deny, any())] {
        rules.push(Rule {
            access,
            protocol: None,
            sources: side.clone(),
            destinations: side,
            source_ports: vec![0..=u16::MAX],
            destination_ports: vec![0..=u16::MAX],
        });
    }
    rules.truncate(count.max(1));
    rules
}

/// The usual way: rule by rule, list by list, until one matches.
pub(crate) fn scan(rules: &[Rule], key: &FlowKey) -> Decision {
    let ports = key.protocol == Protocol::TCP || key.protocol == Protocol::UDP;
    let rule = rules.iter().position(|rule| {
        rule.protocol.is_none_or(|protocol| protocol == key.protocol)
            && rule.sources.iter().any(|prefix| prefix.contains(key.source))
            && rule
                .destinations
                .iter()
                .any(|prefix| prefix.contains(key.destination))
            && (!ports
                || rule
                    .source_ports
                    .iter()
                    .any(|range| range.contains(&key.source_port)))
            && (!ports
                || rule
                    .destination_ports
                    .iter()
                    .any(|range| range.contains(&key.destination_port)))
    });
    let access = rule.map_or(Access::Deny, |rule| rules[rule].access);
    Decision {
        access,
        rule: rule.map(|rule| rule as u16),
    }
}
