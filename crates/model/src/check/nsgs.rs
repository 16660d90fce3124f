//! Network and application security groups: NSG-02..07, NSG-34, NET-10.

use std::collections::{HashMap, HashSet};

use crate::check::Scope;
use crate::check::names;
use crate::check::rule_fields::{Field, ports};
use crate::config;
use crate::limits::Limit;
use crate::problems::{Problems, join};
use crate::topology::{
    Access, Asg, Direction, Nsg, RuleAddress, RuleProtocol, SecurityRule, SubnetIndex, Topology,
};

/// NSG-02.
const PRIORITIES: std::ops::RangeInclusive<u16> = 100..=4096;
pub(crate) const LONGEST_DESCRIPTION: usize = 140;

/// Fills `topology.nsgs` and `topology.asgs`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let (most_asgs, most_nsgs) = (scope.limits.most(Limit::Asgs), scope.limits.most(Limit::Nsgs));
    for (index, name) in scope.config.application_security_groups.keys().enumerate() {
        let at = join("applicationSecurityGroups", name);
        names::resource_key(name, &at, problems);
        if index == most_asgs {
            problems
                .error(
                    "Sim.NSG-34",
                    &at,
                    format!("at most {most_asgs} application security groups"),
                )
                .on_key();
        }
        topology.asgs.push(Asg { name: name.clone() });
    }
    for (index, (name, nsg)) in scope.config.network_security_groups.iter().enumerate() {
        let at = join("networkSecurityGroups", name);
        names::resource_key(name, &at, problems);
        if index == most_nsgs {
            problems
                .error(
                    "Sim.NSG-34",
                    &at,
                    format!("at most {most_nsgs} network security groups"),
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

/// NSG-33: a rule with lists works in Resource Manager VNets only.
pub(crate) fn plain_where_classic(topology: &Topology, problems: &mut Problems) {
    let classic = |subnet: SubnetIndex| {
        let subnet = topology.subnets.get(subnet.0)?;
        let vnet = topology.vnets.get(subnet.vnet.0)?;
        vnet.classic.then_some((vnet, subnet))
    };
    let subnets = (0..topology.subnets.len()).filter_map(|index| {
        let (vnet, subnet) = classic(SubnetIndex(index))?;
        Some((subnet.nsg?, format!("subnet {}/{}", vnet.name, subnet.name)))
    });
    let nics = topology.nics.iter().filter_map(|nic| {
        classic(nic.subnet)?;
        Some((nic.nsg?, format!("NIC {}", nic.name)))
    });
    let mut told = HashSet::new();
    for (nsg, place) in subnets.chain(nics) {
        let nsg = &topology.nsgs[nsg.0];
        let augmented = nsg.rules.iter().filter(|rule| is_augmented(rule));
        for rule in augmented {
            let at = join(
                &join(&join("networkSecurityGroups", &nsg.name), "securityRules"),
                &rule.name,
            );
            if told.insert(at.clone()) {
                let message = format!("rule {} has lists, and {place} is of a classic VNet", rule.name);
                problems
                    .error("Sim.NSG-33", at, message)
                    .on_key()
                    .help("write one rule for each address and each range of ports");
            }
        }
    }
}

fn is_augmented(rule: &SecurityRule) -> bool {
    let several = |address: &RuleAddress| match address {
        RuleAddress::Prefixes(prefixes) => prefixes.len() > 1,
        RuleAddress::Asgs(_) => true,
        RuleAddress::Any | RuleAddress::Tag(_) => false,
    };
    several(&rule.source)
        || several(&rule.destination)
        || rule.source_ports.len() > 1
        || rule.destination_ports.len() > 1
}

fn rules(scope: &Scope<'_>, nsg: &config::Nsg, at: &str, problems: &mut Problems) -> Vec<SecurityRule> {
    let mut rules = Vec::new();
    let mut taken: HashMap<(u16, Direction), &str> = HashMap::new();
    let most_rules = scope.limits.most(Limit::Rules);
    named_groups(scope, nsg, at, problems);
    for (index, (name, rule)) in nsg.security_rules.iter().enumerate() {
        let at = join(&join(at, "securityRules"), name);
        names::resource_name(name, &at, true, problems);
        if index == most_rules {
            problems
                .error(
                    "Sim.NSG-34",
                    &at,
                    format!("an NSG holds at most {most_rules} rules"),
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

/// NSG-34: application security groups that all rules of one NSG name.
fn named_groups(scope: &Scope<'_>, nsg: &config::Nsg, at: &str, problems: &mut Problems) {
    let most = scope.limits.most(Limit::NsgAsgs);
    let rules = nsg.security_rules.values();
    let named = rules.flat_map(|rule| {
        let source = &rule.source_application_security_groups;
        source.iter().chain(&rule.destination_application_security_groups)
    });
    let distinct: HashSet<String> = named.map(|name| name.to_lowercase()).collect();
    if distinct.len() > most {
        let message = format!("the rules of an NSG name at most {most} application security groups");
        problems.error(Limit::NsgAsgs.code(), at, message).on_key();
    }
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
        source.resolve(scope, problems),
        destination.resolve(scope, problems),
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
        protocol: protocol(rule.protocol),
        source,
        source_ports: ports(
            scope,
            "source",
            rule.source_port_range.as_deref(),
            &rule.source_port_ranges,
            at,
            problems,
        ),
        destination,
        destination_ports: ports(
            scope,
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

fn protocol(protocol: config::RuleProtocol) -> RuleProtocol {
    match protocol {
        config::RuleProtocol::Any => RuleProtocol::Any,
        config::RuleProtocol::Tcp => RuleProtocol::Tcp,
        config::RuleProtocol::Udp => RuleProtocol::Udp,
        config::RuleProtocol::Icmp => RuleProtocol::Icmp,
        config::RuleProtocol::Esp => RuleProtocol::Esp,
        config::RuleProtocol::Ah => RuleProtocol::Ah,
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
