//! Effective rules of an NSG at a place: default rules appended, tags and ASGs expanded.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use engine::filter;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::Topology;
use model::topology::{Access, AsgIndex, Direction, Nsg, PortRange, RuleAddress, RuleProtocol, SecurityRule};
use packet::{Prefix, Protocol};

use crate::tags::{PLATFORM, PLATFORM_V6, Tags, host, subtract};

/// All ports.
const ALL_PORTS: PortRange = PortRange {
    first: 0,
    last: u16::MAX,
};

/// `*`.
pub(crate) const ANY: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// Where the rules apply: what their tags and ASGs mean depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub tags: &'a Tags,
    /// By ASG: the private addresses of its members (NSG-30).
    pub members: &'a [Vec<IpAddr>],
    /// The ASGs the NIC is a member of.
    pub member_of: &'a [AsgIndex],
    /// 0.0.0.0/0 is the system's own route (NSG-18).
    pub internet_by_default: bool,
}

/// A rule of an NSG, with its full name.
#[derive(Clone, Debug)]
pub struct NamedRule<'a> {
    /// `securityRules/<name>` or `defaultSecurityRules/<name>` (NSG-36).
    pub name: String,
    pub rule: Cow<'a, SecurityRule>,
}

/// What a rule's two address fields mean at a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expanded {
    pub sources: Vec<IpNet>,
    pub destinations: Vec<IpNet>,
}

/// The rules of one direction in order of evaluation: by priority, default rules last (NSG-04, NSG-10).
#[must_use]
pub fn ordered(nsg: &Nsg, direction: Direction) -> Vec<NamedRule<'_>> {
    let mut rules: Vec<NamedRule<'_>> = nsg
        .rules
        .iter()
        .filter(|rule| rule.direction == direction)
        .map(|rule| NamedRule {
            name: format!("securityRules/{}", rule.name),
            rule: Cow::Borrowed(rule),
        })
        .collect();
    rules.sort_by_key(|named| named.rule.priority);
    rules.extend(default_rules(direction).into_iter().map(|rule| NamedRule {
        name: format!("defaultSecurityRules/{}", rule.name),
        rule: Cow::Owned(rule),
    }));
    rules
}

/// By ASG of the lab: the private addresses of its members (NSG-30).
#[must_use]
pub fn asg_members(topology: &Topology) -> Vec<Vec<IpAddr>> {
    let mut members = vec![Vec::new(); topology.asgs.len()];
    for nic in &topology.nics {
        for asg in &nic.asgs {
            members[asg.0].extend(&nic.addresses);
        }
    }
    members
}

/// The addresses a rule speaks of at a place. A rule whose near side (the source of an outbound rule, the destination
/// of an inbound one) names ASGs does not apply to a NIC outside them (NSG-31), not even to one that forwards for a
/// member: both lists are empty then.
#[must_use]
pub fn expand(rule: &SecurityRule, place: &Place<'_>) -> Expanded {
    let near = match rule.direction {
        Direction::Inbound => &rule.destination,
        Direction::Outbound => &rule.source,
    };
    if let RuleAddress::Asgs(asgs) = near
        && !asgs.iter().any(|asg| place.member_of.contains(asg))
    {
        return Expanded {
            sources: Vec::new(),
            destinations: Vec::new(),
        };
    }
    Expanded {
        sources: addresses(&rule.source, place),
        destinations: addresses(&rule.destination, place),
    }
}

/// The rule as the engine takes it.
#[must_use]
pub fn engine_rule(rule: &SecurityRule, place: &Place<'_>) -> filter::Rule {
    let expanded = expand(rule, place);
    filter::Rule {
        access: match rule.access {
            Access::Allow => filter::Access::Allow,
            Access::Deny => filter::Access::Deny,
        },
        protocol: protocol(rule.protocol),
        sources: prefixes(&expanded.sources),
        destinations: prefixes(&expanded.destinations),
        source_ports: port_ranges(&rule.source_ports),
        destination_ports: port_ranges(&rule.destination_ports),
    }
}

pub(crate) fn port_ranges(ranges: &[PortRange]) -> Vec<RangeInclusive<u16>> {
    ranges.iter().map(|range| range.first..=range.last).collect()
}

/// NSG-10.
fn default_rules(direction: Direction) -> [SecurityRule; 3] {
    let tag = |name: &str| RuleAddress::Tag(name.to_owned());
    let rule = |name: &str, priority, access, source, destination| SecurityRule {
        name: name.to_owned(),
        priority,
        direction,
        access,
        protocol: RuleProtocol::Any,
        source,
        source_ports: vec![ALL_PORTS],
        destination,
        destination_ports: vec![ALL_PORTS],
    };
    let any = || RuleAddress::Any;
    let vnet = || tag("VirtualNetwork");
    match direction {
        Direction::Inbound => [
            rule("AllowVnetInBound", 65000, Access::Allow, vnet(), vnet()),
            rule(
                "AllowAzureLoadBalancerInBound",
                65001,
                Access::Allow,
                tag("AzureLoadBalancer"),
                any(),
            ),
            rule("DenyAllInBound", 65500, Access::Deny, any(), any()),
        ],
        Direction::Outbound => [
            rule("AllowVnetOutBound", 65000, Access::Allow, vnet(), vnet()),
            rule(
                "AllowInternetOutBound",
                65001,
                Access::Allow,
                any(),
                tag("Internet"),
            ),
            rule("DenyAllOutBound", 65500, Access::Deny, any(), any()),
        ],
    }
}

pub(crate) fn addresses(address: &RuleAddress, place: &Place<'_>) -> Vec<IpNet> {
    match address {
        RuleAddress::Any => ANY.to_vec(),
        RuleAddress::Prefixes(prefixes) => prefixes.iter().map(IpNet::trunc).collect(),
        RuleAddress::Tag(tag) => place.tags.expand(tag).to_vec(),
        RuleAddress::Asgs(asgs) => asgs
            .iter()
            .flat_map(|asg| &place.members[asg.0])
            .copied()
            .map(host)
            .collect(),
    }
}

/// NET-10: `Icmp` is ICMP for IPv4; no protocol names ICMPv6, only `*` covers it.
pub(crate) const fn protocol(protocol: RuleProtocol) -> Option<Protocol> {
    match protocol {
        RuleProtocol::Any => None,
        RuleProtocol::Tcp => Some(Protocol::TCP),
        RuleProtocol::Udp => Some(Protocol::UDP),
        RuleProtocol::Icmp => Some(Protocol::ICMP),
        RuleProtocol::Esp => Some(Protocol::ESP),
        RuleProtocol::Ah => Some(Protocol::AH),
    }
}

/// The engine holds IPv4 inside IPv6's `::ffff:0:0/96`, so an IPv6 prefix around that must leave it out, or `::/0`
/// would match IPv4 packets too. `*` is one prefix.
pub(crate) fn prefixes(nets: &[IpNet]) -> Vec<Prefix> {
    if nets == ANY {
        return vec![Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0)];
    }
    let mapped = IpNet::V6(Ipv6Net::new_assert(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96));
    let mut exact = Vec::with_capacity(nets.len());
    for net in nets {
        match net {
            IpNet::V4(_) => exact.push(*net),
            IpNet::V6(_) => subtract(*net, &[mapped], &mut exact),
        }
    }
    if nets.contains(&PLATFORM) {
        exact.push(PLATFORM_V6);
    }
    exact
        .iter()
        .map(|net| Prefix::new(net.addr(), net.prefix_len()))
        .collect()
}
