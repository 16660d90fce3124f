//! Network groups and security admin rules (NSG-43).

use std::collections::HashMap;

use crate::check::Scope;
use crate::check::names;
use crate::check::nsgs::LONGEST_DESCRIPTION;
use crate::check::rule_fields::{Word, address, ports};
use crate::config;
use crate::problems::{Problems, join};
use crate::topology::{
    AdminAccess, AdminRule, AdminRuleCollection, Direction, Profile, RuleAddress, RuleProtocol,
    SecurityAdminConfiguration, Topology, VnetIndex,
};

/// The bounds of a security admin rule's priority.
const PRIORITIES: std::ops::RangeInclusive<u16> = 1..=4096;

/// Fills `topology.security_admin_configurations`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let sections = [
        ("networkGroups", scope.config.network_groups.is_empty()),
        (
            "securityAdminConfigurations",
            scope.config.security_admin_configurations.is_empty(),
        ),
    ];
    for (section, empty) in sections {
        if !empty && topology.profile != Profile::Azure2025 {
            problems
                .error("Sim.NSG-43", section, "azure-2018 has no security admin rules")
                .on_key()
                .help("write `profile: azure-2025`, or remove the section");
        }
    }
    let groups = groups(scope, problems);
    for (name, configuration) in &scope.config.security_admin_configurations {
        let at = join("securityAdminConfigurations", name);
        names::resource_name(name, &at, true, problems);
        let mut rule_collections = Vec::new();
        for (name, collection) in &configuration.rule_collections {
            let at = join(&join(&at, "ruleCollections"), name);
            names::resource_name(name, &at, true, problems);
            rule_collections.push(AdminRuleCollection {
                name: name.clone(),
                applies_to: applies_to(scope, collection, &groups, &at, problems),
                rules: rules(scope, collection, &at, problems),
            });
        }
        topology
            .security_admin_configurations
            .push(SecurityAdminConfiguration {
                name: name.clone(),
                rule_collections,
            });
    }
}

/// By network group: its members.
fn groups(scope: &Scope<'_>, problems: &mut Problems) -> Vec<Vec<VnetIndex>> {
    let mut groups = Vec::new();
    for (name, group) in &scope.config.network_groups {
        let at = join("networkGroups", name);
        names::resource_name(name, &at, true, problems);
        let members = group.members.iter().enumerate().filter_map(|(index, member)| {
            let at = join(&join(&at, "members"), &index.to_string());
            scope.vnets.find(member, &at, problems).map(VnetIndex)
        });
        groups.push(members.collect());
    }
    groups
}

fn applies_to(
    scope: &Scope<'_>,
    collection: &config::AdminRuleCollection,
    groups: &[Vec<VnetIndex>],
    at: &str,
    problems: &mut Problems,
) -> Vec<VnetIndex> {
    let named = collection.applies_to_groups.iter().enumerate();
    let found = named.filter_map(|(index, name)| {
        let at = join(&join(at, "appliesToGroups"), &index.to_string());
        scope.network_groups.find(name, &at, problems)
    });
    let mut vnets: Vec<VnetIndex> = found
        .flat_map(|group| groups.get(group).into_iter().flatten().copied())
        .collect();
    vnets.sort_unstable();
    vnets.dedup();
    vnets
}

fn rules(
    scope: &Scope<'_>,
    collection: &config::AdminRuleCollection,
    at: &str,
    problems: &mut Problems,
) -> Vec<AdminRule> {
    let mut rules = Vec::new();
    let mut taken: HashMap<(u16, Direction), &str> = HashMap::new();
    for (name, rule) in &collection.rules {
        let at = join(&join(at, "rules"), name);
        names::resource_name(name, &at, true, problems);
        let rule = resolve(scope, name, rule, &at, problems);
        if !PRIORITIES.contains(&rule.priority) && !problems.unreadable(&at) {
            let message = format!(
                "rule {name} has priority {}, which is not from 1 to 4096",
                rule.priority
            );
            problems
                .error("Sim.NSG-43", join(&at, "priority"), message)
                .help("the lowest number decides first");
        }
        if let Some(old) = taken.insert((rule.priority, rule.direction), name)
            && !problems.unreadable(&at)
        {
            let message = format!("rules {old} and {name} have the same priority and direction");
            problems
                .error("Sim.NSG-43", join(&at, "priority"), message)
                .help("give one of the two another priority");
        }
        rules.push(rule);
    }
    rules
}

fn resolve(
    scope: &Scope<'_>,
    name: &str,
    rule: &config::AdminRule,
    at: &str,
    problems: &mut Problems,
) -> AdminRule {
    if (rule.description.as_ref()).is_some_and(|text| text.chars().count() > LONGEST_DESCRIPTION) {
        problems
            .error(
                "Sim.NSG-02",
                join(at, "description"),
                "the description is longer than 140 characters",
            )
            .help("shorten it");
    }
    AdminRule {
        name: name.to_owned(),
        priority: rule.priority,
        direction: match rule.direction {
            config::Direction::Inbound => Direction::Inbound,
            config::Direction::Outbound => Direction::Outbound,
        },
        access: match rule.access {
            config::AdminAccess::Allow => AdminAccess::Allow,
            config::AdminAccess::AlwaysAllow => AdminAccess::AlwaysAllow,
            config::AdminAccess::Deny => AdminAccess::Deny,
        },
        protocol: match rule.protocol {
            config::AdminProtocol::Any => RuleProtocol::Any,
            config::AdminProtocol::Tcp => RuleProtocol::Tcp,
            config::AdminProtocol::Udp => RuleProtocol::Udp,
            config::AdminProtocol::Icmp => RuleProtocol::Icmp,
            config::AdminProtocol::Esp => RuleProtocol::Esp,
            config::AdminProtocol::Ah => RuleProtocol::Ah,
        },
        sources: addresses(scope, &rule.sources, &join(at, "sources"), problems),
        source_ports: ports(scope, "source", None, &rule.source_port_ranges, at, problems),
        destinations: addresses(scope, &rule.destinations, &join(at, "destinations"), problems),
        destination_ports: ports(
            scope,
            "destination",
            None,
            &rule.destination_port_ranges,
            at,
            problems,
        ),
    }
}

/// Any when none is given. What is written as of one type must be of it.
fn addresses(
    scope: &Scope<'_>,
    items: &[config::AddressPrefixItem],
    at: &str,
    problems: &mut Problems,
) -> Vec<RuleAddress> {
    let mut addresses = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = join(&join(at, &index.to_string()), "addressPrefix");
        let tag_meant = item.address_prefix_type == config::AddressPrefixType::ServiceTag;
        let word = address(&item.address_prefix, &at, &scope.service_tags, problems);
        match (word, tag_meant) {
            (Some(Word::Any), false) => addresses.push(RuleAddress::Any),
            (Some(Word::Net(net)), false) => addresses.push(RuleAddress::Prefixes(vec![net])),
            (Some(Word::Tag(tag)), true) => addresses.push(RuleAddress::Tag(tag)),
            (Some(_), _) => {
                let (found, other) = if tag_meant {
                    ("no service tag", "IPPrefix")
                } else {
                    ("a service tag", "ServiceTag")
                };
                problems
                    .error("Sim.NSG-05", at, format!("'{}' is {found}", item.address_prefix))
                    .help(format!("write `addressPrefixType: {other}`"));
            }
            (None, _) => {}
        }
    }
    if items.is_empty() {
        addresses.push(RuleAddress::Any);
    }
    addresses
}
