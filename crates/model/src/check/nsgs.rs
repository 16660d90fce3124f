//! Network and application security groups: NSG-02..07, NSG-34, NET-10.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::check::names::{self, Names};
use crate::check::{Scope, tags};
use crate::config;
use crate::decode::{closest, host_bits, shown};
use crate::problems::{Problems, join};
use crate::topology::{
    Access, Asg, AsgIndex, Direction, Nsg, PortRange, RuleAddress, RuleProtocol, SecurityRule, Topology,
};

/// NSG-34: the most both profiles allow.
const MOST_NSGS: usize = 5000;
const MOST_RULES: usize = 1000;
const MOST_ASGS: usize = 3000;
const MOST_ADDRESSES: usize = 4000;
const MOST_ASGS_PER_FIELD: usize = 10;

/// NSG-02.
const PRIORITIES: std::ops::RangeInclusive<u16> = 100..=4096;
const LONGEST_DESCRIPTION: usize = 140;

/// Fills `topology.nsgs` and `topology.asgs`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    for (index, name) in scope.config.application_security_groups.keys().enumerate() {
        let at = join("applicationSecurityGroups", name);
        names::resource_name(name, &at, true, problems);
        if index == MOST_ASGS {
            problems
                .error(
                    "Sim.NSG-34",
                    &at,
                    format!("at most {MOST_ASGS} application security groups"),
                )
                .on_key();
        }
        topology.asgs.push(Asg { name: name.clone() });
    }
    for (index, (name, nsg)) in scope.config.network_security_groups.iter().enumerate() {
        let at = join("networkSecurityGroups", name);
        names::resource_name(name, &at, true, problems);
        if index == MOST_NSGS {
            problems
                .error(
                    "Sim.NSG-34",
                    &at,
                    format!("at most {MOST_NSGS} network security groups"),
                )
                .on_key();
        }
        let rules = if problems.unreadable(&at) {
            Vec::new()
        } else {
            rules(scope, nsg, &at, problems)
        };
        topology.nsgs.push(Nsg {
            name: name.clone(),
            rules,
        });
    }
}

fn rules(scope: &Scope<'_>, nsg: &config::Nsg, at: &str, problems: &mut Problems) -> Vec<SecurityRule> {
    let mut rules = Vec::new();
    let mut taken: HashMap<(u16, Direction), &str> = HashMap::new();
    for (index, (name, rule)) in nsg.security_rules.iter().enumerate() {
        let at = join(&join(at, "securityRules"), name);
        names::resource_name(name, &at, true, problems);
        if index == MOST_RULES {
            problems
                .error(
                    "Sim.NSG-34",
                    &at,
                    format!("an NSG holds at most {MOST_RULES} rules"),
                )
                .on_key();
        }
        let rule = resolve(scope, name, rule, &at, problems);
        if !PRIORITIES.contains(&rule.priority) {
            let message = format!(
                "rule {name} has priority {}, which is not from 100 to 4096",
                rule.priority
            );
            problems
                .error("Sim.NSG-02", join(&at, "priority"), message)
                .help("the lowest number decides first");
        }
        if let Some(old) = taken.insert((rule.priority, rule.direction), name) {
            let message = format!(
                "Security rule {name} conflicts with rule {old}. Rules cannot have the same Priority and Direction."
            );
            problems
                .error("SecurityRuleConflict", join(&at, "priority"), message)
                .help("give one of the two another priority");
        }
        rules.push(rule);
    }
    rules
}

fn resolve(
    scope: &Scope<'_>,
    name: &str,
    rule: &config::SecurityRule,
    at: &str,
    problems: &mut Problems,
) -> SecurityRule {
    if rule
        .description
        .as_ref()
        .is_some_and(|text| text.chars().count() > LONGEST_DESCRIPTION)
    {
        problems
            .error(
                "Sim.NSG-02",
                join(at, "description"),
                "the description is longer than 140 characters",
            )
            .help("shorten it");
    }
    let source = Field {
        at,
        side: "source",
        prefix: rule.source_address_prefix.as_deref(),
        prefixes: &rule.source_address_prefixes,
        asgs: &rule.source_application_security_groups,
    };
    let destination = Field {
        at,
        side: "destination",
        prefix: rule.destination_address_prefix.as_deref(),
        prefixes: &rule.destination_address_prefixes,
        asgs: &rule.destination_application_security_groups,
    };
    let (source, destination) = (
        source.resolve(&scope.asgs, problems),
        destination.resolve(&scope.asgs, problems),
    );
    one_family(&[&source, &destination], at, problems);
    SecurityRule {
        name: name.to_owned(),
        priority: rule.priority,
        direction: match rule.direction {
            config::Direction::Inbound => Direction::Inbound,
            config::Direction::Outbound => Direction::Outbound,
        },
        access: access(rule.access),
        protocol: match rule.protocol {
            config::RuleProtocol::Any => RuleProtocol::Any,
            config::RuleProtocol::Tcp => RuleProtocol::Tcp,
            config::RuleProtocol::Udp => RuleProtocol::Udp,
            config::RuleProtocol::Icmp => RuleProtocol::Icmp,
            config::RuleProtocol::Esp => RuleProtocol::Esp,
            config::RuleProtocol::Ah => RuleProtocol::Ah,
        },
        source,
        source_ports: ports(
            "source",
            rule.source_port_range.as_deref(),
            &rule.source_port_ranges,
            at,
            problems,
        ),
        destination,
        destination_ports: ports(
            "destination",
            rule.destination_port_range.as_deref(),
            &rule.destination_port_ranges,
            at,
            problems,
        ),
    }
}

pub(crate) fn access(access: config::Access) -> Access {
    match access {
        config::Access::Allow => Access::Allow,
        config::Access::Deny => Access::Deny,
    }
}

/// NET-10: no rule holds prefixes of both families.
fn one_family(fields: &[&RuleAddress], at: &str, problems: &mut Problems) {
    let nets = || {
        fields
            .iter()
            .filter_map(|field| match field {
                RuleAddress::Prefixes(list) => Some(list),
                _ => None,
            })
            .flatten()
    };
    if nets().any(|net| net.addr().is_ipv4()) && nets().any(|net| net.addr().is_ipv6()) {
        problems
            .error("Sim.NET-10", at, "one rule cannot hold IPv4 and IPv6 prefixes")
            .on_key()
            .help("write one rule for each family");
    }
}

/// The address side of a rule: one of its three forms (NSG-05). Any when none is given, as `az` has it.
struct Field<'a> {
    at: &'a str,
    side: &'static str,
    prefix: Option<&'a str>,
    prefixes: &'a [String],
    asgs: &'a [String],
}

impl Field<'_> {
    fn place(&self, property: &str) -> String {
        join(self.at, &format!("{}{property}", self.side))
    }

    fn resolve(&self, asgs: &Names, problems: &mut Problems) -> RuleAddress {
        let given = [
            self.prefix.is_some(),
            !self.prefixes.is_empty(),
            !self.asgs.is_empty(),
        ];
        if given.iter().filter(|given| **given).count() > 1 {
            let property = if self.asgs.is_empty() {
                "AddressPrefixes"
            } else {
                "ApplicationSecurityGroups"
            };
            problems
                .error(
                    "Sim.NSG-05",
                    self.place(property),
                    format!("the {} of the rule is given in two ways", self.side),
                )
                .help("give one of AddressPrefix, AddressPrefixes and ApplicationSecurityGroups");
        }
        if !self.asgs.is_empty() {
            return self.groups(asgs, problems);
        }
        if let Some(text) = self.prefix {
            return match address(text, &self.place("AddressPrefix"), problems) {
                Some(Word::Any) | None => RuleAddress::Any,
                Some(Word::Tag(tag)) => RuleAddress::Tag(tag),
                Some(Word::Net(net)) => RuleAddress::Prefixes(vec![net]),
            };
        }
        if self.prefixes.is_empty() {
            RuleAddress::Any
        } else {
            self.list(problems)
        }
    }

    fn groups(&self, asgs: &Names, problems: &mut Problems) -> RuleAddress {
        let at = self.place("ApplicationSecurityGroups");
        if self.asgs.len() > MOST_ASGS_PER_FIELD {
            problems.error(
                "Sim.NSG-34",
                &at,
                format!("at most {MOST_ASGS_PER_FIELD} groups in one field"),
            );
        }
        let found = self.asgs.iter().enumerate();
        let found = found.filter_map(|(i, name)| {
            asgs.find(name, &join(&at, &i.to_string()), problems)
                .map(AsgIndex)
        });
        RuleAddress::Asgs(found.collect())
    }

    /// Several prefixes, or one tag.
    fn list(&self, problems: &mut Problems) -> RuleAddress {
        let at = self.place("AddressPrefixes");
        if self.prefixes.len() > MOST_ADDRESSES {
            problems.error(
                "Sim.NSG-34",
                &at,
                format!("at most {MOST_ADDRESSES} addresses in one field"),
            );
        }
        let mut nets = Vec::new();
        for (index, text) in self.prefixes.iter().enumerate() {
            let at = join(&at, &index.to_string());
            match address(text, &at, problems) {
                Some(Word::Net(net)) => nets.push(net),
                Some(Word::Any) if self.prefixes.len() == 1 => return RuleAddress::Any,
                Some(Word::Tag(tag)) if self.prefixes.len() == 1 => return RuleAddress::Tag(tag),
                Some(_) => {
                    let message = format!("'{}' cannot stand in a list with other addresses", shown(text));
                    problems
                        .error("Sim.NSG-05", at, message)
                        .help("write a rule of its own for it");
                }
                None => {}
            }
        }
        RuleAddress::Prefixes(nets)
    }
}

enum Word {
    Any,
    Tag(String),
    Net(IpNet),
}

fn address(text: &str, at: &str, problems: &mut Problems) -> Option<Word> {
    if text == "*" || text.eq_ignore_ascii_case("any") {
        return Some(Word::Any);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Word::Net(IpNet::from(address)));
    }
    if let Ok(net) = text.parse::<IpNet>() {
        if net.addr() != net.network() {
            host_bits(net, at, problems);
            return None;
        }
        return Some(Word::Net(net));
    }
    if let Some(tag) = tags::canonical(text) {
        if tags::without_addresses(&tag) {
            problems.note(
                at,
                format!("no address of a lab belongs to the service tag {tag}"),
            );
        }
        return Some(Word::Tag(tag));
    }
    let message = format!("'{}' is no address, prefix or service tag", shown(text));
    let problem = problems.error("Sim.NSG-05", at, message);
    match closest(text, tags::all()) {
        Some(tag) => problem.help(format!("did you mean '{tag}'?")),
        None => problem
            .help("write '*', an address, a prefix such as 10.0.0.0/8, or a tag such as VirtualNetwork"),
    };
    None
}

/// NSG-07. Any port when none is given, as `az` has it.
fn ports(
    side: &str,
    single: Option<&str>,
    list: &[String],
    at: &str,
    problems: &mut Problems,
) -> Vec<PortRange> {
    const ALL: PortRange = PortRange {
        first: 0,
        last: u16::MAX,
    };
    let list_at = join(at, &format!("{side}PortRanges"));
    if single.is_some() && !list.is_empty() {
        problems
            .error(
                "Sim.NSG-07",
                &list_at,
                format!("the {side} ports of the rule are given in two ways"),
            )
            .help("give one of PortRange and PortRanges");
    }
    if list.len() > MOST_ADDRESSES {
        problems.error(
            "Sim.NSG-34",
            &list_at,
            format!("at most {MOST_ADDRESSES} port ranges in one field"),
        );
    }
    let single = single.map(|text| (text, join(at, &format!("{side}PortRange"))));
    let list = list
        .iter()
        .enumerate()
        .map(|(i, text)| (text.as_str(), join(&list_at, &i.to_string())));
    let mut ranges = Vec::new();
    let mut given = false;
    for (text, at) in single.into_iter().chain(list) {
        given = true;
        match port_range(text) {
            Some(range) => ranges.push(range),
            None => {
                let message = format!("'{}' is no port or range of ports", shown(text));
                problems
                    .error("Sim.NSG-07", at, message)
                    .help("write '*', 80 or 8000-8099, from 0 to 65535");
            }
        }
    }
    if given { ranges } else { vec![ALL] }
}

fn port_range(text: &str) -> Option<PortRange> {
    if text == "*" {
        return Some(PortRange {
            first: 0,
            last: u16::MAX,
        });
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
    };
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    (first <= last).then_some(PortRange { first, last })
}
