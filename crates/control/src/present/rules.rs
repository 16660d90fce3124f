//! The body of `az network nic list-effective-nsg` (NSG-35, NSG-36).

use std::collections::BTreeMap;

use ipnet::IpNet;
use model::Topology;
use model::topology::{
    Access, AdminAccess, Direction, NicIndex, Nsg, PortRange, RuleAddress, RuleProtocol,
    SecurityAdminConfiguration, SecurityRule, VnetIndex,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::rules::{NamedRule, Place, asg_members, expand, ordered};
use crate::security_admin::{NamedAdminRule, applying};
use crate::tags::Tags;

/// The whole body.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveNsgs {
    pub next_link: Option<String>,
    pub value: Vec<EffectiveNsg>,
}

/// One NSG at the NIC or its subnet.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveNsg {
    pub association: Association,
    pub effective_security_rules: Vec<EffectiveRule>,
    pub network_security_group: Reference,
    /// Tag -> prefixes.
    pub tag_map: BTreeMap<String, Vec<String>>,
}

/// Where the NSG is: exactly one is given.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Association {
    pub network_interface: Option<Reference>,
    pub network_manager: Option<Reference>,
    pub subnet: Option<Reference>,
}

/// An ARM id.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    pub id: String,
    pub resource_group: String,
}

/// One rule, expanded.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveRule {
    pub access: &'static str,
    pub destination_address_prefix: Option<String>,
    pub destination_address_prefixes: Vec<String>,
    pub destination_port_range: Option<String>,
    pub destination_port_ranges: Vec<String>,
    pub direction: &'static str,
    pub expanded_destination_address_prefix: Option<Vec<String>>,
    pub expanded_source_address_prefix: Option<Vec<String>>,
    pub name: String,
    pub priority: u16,
    pub protocol: &'static str,
    pub source_address_prefix: Option<String>,
    pub source_address_prefixes: Vec<String>,
    pub source_port_range: Option<String>,
    pub source_port_ranges: Vec<String>,
}

/// The effective NSG rules of a NIC: security admin rules, its subnet's NSG, then its own.
#[must_use]
pub fn effective_nsgs(topology: &Topology, nic: NicIndex) -> EffectiveNsgs {
    let nic = &topology.nics[nic.0];
    let subnet = &topology.subnets[nic.subnet.0];
    let vnet = &topology.vnets[subnet.vnet.0];
    let tags = Tags::of(topology, nic.subnet);
    let members = asg_members(topology);
    let place = Place {
        tags: &tags,
        members: &members,
        member_of: &nic.asgs,
        // No rule that is shown depends on it.
        internet_by_default: true,
    };
    let reference = |kind_and_name: &str| reference(topology, &vnet.subscription, kind_and_name);
    let at_subnet = Association {
        network_interface: None,
        network_manager: None,
        subnet: Some(reference(&format!(
            "virtualNetworks/{}/subnets/{}",
            vnet.name, subnet.name
        ))),
    };
    let at_nic = Association {
        network_interface: Some(reference(&format!("networkInterfaces/{}", nic.name))),
        network_manager: None,
        subnet: None,
    };
    let places = [(subnet.nsg, at_subnet), (nic.nsg, at_nic)];
    let value = places.into_iter().filter_map(|(nsg, association)| {
        let nsg = &topology.nsgs[nsg?.0];
        Some(EffectiveNsg {
            association,
            effective_security_rules: effective_rules(nsg, &place),
            network_security_group: reference(&format!("networkSecurityGroups/{}", nsg.name)),
            tag_map: tag_map(&all_rules(nsg), &tags),
        })
    });
    let admin = admin_rules(topology, subnet.vnet, &place, &reference);
    EffectiveNsgs {
        next_link: None,
        value: admin.into_iter().chain(value).collect(),
    }
}

fn effective_rules(nsg: &Nsg, place: &Place<'_>) -> Vec<EffectiveRule> {
    all_rules(nsg)
        .iter()
        .map(|named| effective_rule(&named.name, &named.rule, place))
        .collect()
}

/// NSG-43: one entry for each configuration with rules for the VNet.
fn admin_rules(
    topology: &Topology,
    vnet: VnetIndex,
    place: &Place<'_>,
    reference: &impl Fn(&str) -> Reference,
) -> Vec<EffectiveNsg> {
    let rules: Vec<NamedAdminRule<'_>> = [Direction::Inbound, Direction::Outbound]
        .into_iter()
        .flat_map(|direction| applying(topology, vnet, direction))
        .collect();
    let manager = format!("networkManagers/{}", topology.name);
    let entry = |(index, configuration): (usize, &SecurityAdminConfiguration)| {
        let own = || rules.iter().filter(move |named| named.configuration == index);
        own().next()?;
        Some(EffectiveNsg {
            association: Association {
                network_interface: None,
                network_manager: Some(reference(&manager)),
                subnet: None,
            },
            effective_security_rules: own().map(|named| effective_admin_rule(named, place)).collect(),
            network_security_group: reference(&format!(
                "{manager}/securityAdminConfigurations/{}",
                configuration.name
            )),
            tag_map: prefixes_of_tags(
                own().flat_map(|named| named.rule.sources.iter().chain(&named.rule.destinations)),
                place.tags,
            ),
        })
    };
    let configurations = topology.security_admin_configurations.iter().enumerate();
    configurations.filter_map(entry).collect()
}

fn effective_admin_rule(named: &NamedAdminRule<'_>, place: &Place<'_>) -> EffectiveRule {
    let rule = named.rule;
    let side = |addresses: &[RuleAddress], expanded: &[IpNet]| {
        let each = addresses.iter();
        let texts: Vec<String> = each.flat_map(|address| shown(address, &given(address))).collect();
        let tags = addresses
            .iter()
            .any(|address| matches!(address, RuleAddress::Tag(_)));
        Side {
            shown: texts,
            expanded: tags.then(|| self::texts(expanded)),
        }
    };
    let [sources, destinations] = named.expand(place);
    let access = match rule.access {
        AdminAccess::Allow => "Allow",
        AdminAccess::AlwaysAllow => "AlwaysAllow",
        AdminAccess::Deny => "Deny",
    };
    EffectiveRule {
        access,
        priority: rule.priority,
        direction: direction_name(rule.direction),
        protocol: protocol_name(rule.protocol),
        ..fields(
            named.name(),
            (
                side(&rule.sources, &sources),
                side(&rule.destinations, &destinations),
            ),
            (&rule.source_ports, &rule.destination_ports),
        )
    }
}

/// The prefixes of a field as written.
fn given(address: &RuleAddress) -> Vec<IpNet> {
    match address {
        RuleAddress::Prefixes(prefixes) => prefixes.clone(),
        _ => Vec::new(),
    }
}

fn all_rules(nsg: &Nsg) -> Vec<NamedRule<'_>> {
    [Direction::Inbound, Direction::Outbound]
        .into_iter()
        .flat_map(|direction| ordered(nsg, direction))
        .collect()
}

fn effective_rule(name: &str, rule: &SecurityRule, place: &Place<'_>) -> EffectiveRule {
    let expanded = expand(rule, place);
    let side = |address: &RuleAddress, expanded: &[IpNet]| Side {
        shown: shown(address, expanded),
        expanded: expansion(address, expanded),
    };
    EffectiveRule {
        access: match rule.access {
            Access::Allow => "Allow",
            Access::Deny => "Deny",
        },
        priority: rule.priority,
        direction: direction_name(rule.direction),
        protocol: protocol_name(rule.protocol),
        ..fields(
            name.to_owned(),
            (
                side(&rule.source, &expanded.sources),
                side(&rule.destination, &expanded.destinations),
            ),
            (&rule.source_ports, &rule.destination_ports),
        )
    }
}

/// The addresses of one side of a rule.
struct Side {
    shown: Vec<String>,
    /// Of tags.
    expanded: Option<Vec<String>>,
}

/// Name, addresses and ports.
fn fields(
    name: String,
    (source, destination): (Side, Side),
    (source_ports, destination_ports): (&[PortRange], &[PortRange]),
) -> EffectiveRule {
    let (source_ports, destination_ports) = (ports(source_ports), ports(destination_ports));
    EffectiveRule {
        access: "",
        destination_address_prefix: only(&destination.shown),
        destination_address_prefixes: destination.shown,
        destination_port_range: only(&destination_ports),
        destination_port_ranges: destination_ports,
        direction: "",
        expanded_destination_address_prefix: destination.expanded,
        expanded_source_address_prefix: source.expanded,
        name,
        priority: 0,
        protocol: "",
        source_address_prefix: only(&source.shown),
        source_address_prefixes: source.shown,
        source_port_range: only(&source_ports),
        source_port_ranges: source_ports,
    }
}

const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "Inbound",
        Direction::Outbound => "Outbound",
    }
}

const fn protocol_name(protocol: RuleProtocol) -> &'static str {
    match protocol {
        RuleProtocol::Any => "All",
        RuleProtocol::Tcp => "Tcp",
        RuleProtocol::Udp => "Udp",
        RuleProtocol::Icmp => "Icmp",
        RuleProtocol::Esp => "Esp",
        RuleProtocol::Ah => "Ah",
    }
}

/// A field as the tools show it: `*` is 0.0.0.0/0, a tag its name, an ASG the addresses it means here.
fn shown(address: &RuleAddress, expanded: &[IpNet]) -> Vec<String> {
    match address {
        RuleAddress::Any => vec!["0.0.0.0/0".to_owned()],
        RuleAddress::Tag(tag) => vec![tag.clone()],
        RuleAddress::Prefixes(_) | RuleAddress::Asgs(_) => texts(expanded),
    }
}

/// Only tags are shown expanded.
fn expansion(address: &RuleAddress, expanded: &[IpNet]) -> Option<Vec<String>> {
    matches!(address, RuleAddress::Tag(_)).then(|| texts(expanded))
}

fn tag_map(rules: &[NamedRule<'_>], tags: &Tags) -> BTreeMap<String, Vec<String>> {
    let fields = rules
        .iter()
        .flat_map(|named| [&named.rule.source, &named.rule.destination]);
    prefixes_of_tags(fields, tags)
}

fn prefixes_of_tags<'a>(
    fields: impl Iterator<Item = &'a RuleAddress>,
    tags: &Tags,
) -> BTreeMap<String, Vec<String>> {
    let mut map = BTreeMap::new();
    for address in fields {
        if let RuleAddress::Tag(tag) = address {
            map.entry(tag.clone()).or_insert_with(|| texts(tags.expand(tag)));
        }
    }
    map
}

fn texts(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

/// `a-b`, also for one port (NSG-35).
fn ports(ranges: &[PortRange]) -> Vec<String> {
    ranges
        .iter()
        .map(|range| format!("{}-{}", range.first, range.last))
        .collect()
}

/// The single form beside a list: given only where the list has one entry.
fn only(list: &[String]) -> Option<String> {
    match list {
        [one] => Some(one.clone()),
        _ => None,
    }
}

/// The ARM id of a network resource, such as `networkSecurityGroups/web`.
#[must_use]
pub fn resource_id(topology: &Topology, subscription: &str, kind_and_name: &str) -> String {
    let (group, path) = group_and_path(topology, kind_and_name);
    format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Network/{path}")
}

/// The resource group and the path in it. Paths are pairs of kind and name: an odd one begins with a key of the file that is
/// `group/name`, which is in a group of its own.
pub(crate) fn group_and_path(topology: &Topology, path: &str) -> (String, String) {
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        [kind, group, rest @ ..] if segments.len() % 2 == 1 && !rest.is_empty() => {
            ((*group).to_owned(), format!("{kind}/{}", rest.join("/")))
        }
        [kind, name, ..] => (topology.groups.group(kind, name).to_owned(), path.to_owned()),
        _ => (topology.resource_group.clone(), path.to_owned()),
    }
}

fn reference(topology: &Topology, subscription: &str, kind_and_name: &str) -> Reference {
    Reference {
        id: resource_id(topology, subscription, kind_and_name),
        resource_group: group_and_path(topology, kind_and_name).0,
    }
}
