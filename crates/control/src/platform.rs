//! What a VM reaches of the platform whatever its rules say (NSG-14, NSG-18): DHCP, DNS, the metadata service, and key
//! management, unless a rule denies it by the platform's own tag.
//!
//! A compiled filter has this in front of its rules: for each service first the rules that name its tag, cut down to that
//! service, then a rule that allows it. Probes are no such service: a rule may deny them (NSG-14).

use std::net::Ipv4Addr;

use engine::filter;
use ipnet::{IpNet, Ipv4Net};
use model::topology::{Direction, RuleAddress};
use packet::{Prefix, Protocol};

use crate::rules::{NamedRule, Place, engine_rule, prefixes};

/// One service.
struct Service {
    /// Of the rule that allows it.
    name: &'static str,
    /// By which rules may deny it; its prefixes are where the service is. None: DHCP, which no tag names.
    tag: Option<&'static str>,
    protocols: &'static [Protocol],
    port: u16,
}

const SERVICES: [Service; 3] = [
    Service {
        name: "platformRules/AllowDhcp",
        tag: None,
        protocols: &[Protocol::UDP],
        port: 67,
    },
    Service {
        name: "platformRules/AllowDns",
        tag: Some("AzurePlatformDNS"),
        protocols: &[Protocol::UDP, Protocol::TCP],
        port: 53,
    },
    Service {
        name: "platformRules/AllowImds",
        tag: Some("AzurePlatformIMDS"),
        protocols: &[Protocol::TCP],
        port: 80,
    },
];

/// NSG-18.
const KEY_MANAGEMENT: Service = Service {
    name: "platformRules/AllowKeyManagement",
    tag: Some("AzurePlatformLKM"),
    protocols: &[Protocol::TCP],
    port: 1688,
};

/// VNET-08: where DHCP answers.
const HOST: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32));

/// What stands in front of the rules of a direction, with names.
#[must_use]
pub fn exemptions(
    direction: Direction,
    rules: &[NamedRule<'_>],
    place: &Place<'_>,
) -> Vec<(String, filter::Rule)> {
    let mut front = Vec::new();
    if direction == Direction::Inbound {
        return front;
    }
    // NSG-18: only while the Internet is reached by the system's own route.
    let key_management = place.internet_by_default.then_some(&KEY_MANAGEMENT);
    for service in SERVICES.iter().chain(key_management) {
        let places = match service.tag {
            None => vec![HOST],
            Some(tag) => place.tags.expand(tag).to_vec(),
        };
        let named = rules.iter().filter(|named| match &named.rule.destination {
            RuleAddress::Tag(tag) => service.tag == Some(tag.as_str()),
            _ => false,
        });
        for &protocol in service.protocols {
            let own = named.clone().filter_map(|named| {
                let rule = engine_rule(&named.rule, place);
                Some((named.name.clone(), cut(rule, protocol, service.port)?))
            });
            front.extend(own);
            let allowed = allow(prefixes(&places), protocol, service.port);
            front.push((service.name.to_owned(), allowed));
        }
    }
    front
}

/// The part of a rule that speaks of one protocol and destination port.
fn cut(rule: filter::Rule, protocol: Protocol, port: u16) -> Option<filter::Rule> {
    let speaks = rule.protocol.is_none_or(|own| own == protocol)
        && rule.destination_ports.iter().any(|range| range.contains(&port));
    speaks.then(|| filter::Rule {
        protocol: Some(protocol),
        destination_ports: vec![port..=port],
        ..rule
    })
}

fn allow(destinations: Vec<Prefix>, protocol: Protocol, port: u16) -> filter::Rule {
    filter::Rule {
        access: filter::Access::Allow,
        protocol: Some(protocol),
        sources: prefixes(&crate::rules::ANY),
        destinations,
        source_ports: vec![0..=u16::MAX],
        destination_ports: vec![port..=port],
    }
}
