//! The body of `az network nic list-effective-nsg` (NSG-35, NSG-36).

use std::collections::BTreeMap;

use ipnet::IpNet;
use model::Topology;
use model::topology::{Access, Direction, NicIndex, Nsg, PortRange, RuleAddress, RuleProtocol, SecurityRule};
use schemars::JsonSchema;
use serde::Serialize;

use crate::rules::{Place, asg_members, expand, ordered};
use crate::tags::{Tags, tag_scope, virtual_network};

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

/// The effective NSG rules of a NIC: its subnet's NSG, then its own.
#[must_use]
pub fn effective_nsgs(topology: &Topology, nic: NicIndex) -> EffectiveNsgs {
    let nic = &topology.nics[nic.0];
    let subnet = &topology.subnets[nic.subnet.0];
    let vnet = &topology.vnets[subnet.vnet.0];
    let tags = Tags::new(virtual_network(&tag_scope(topology, nic.subnet)));
    let members = asg_members(topology);
    let place = Place {
        tags: &tags,
        members: &members,
        member_of: &nic.asgs,
    };
    let reference =
        |kind_and_name: &str| reference(&vnet.subscription, &topology.resource_group, kind_and_name);
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
            tag_map: tag_map(nsg, &tags),
        })
    });
    EffectiveNsgs {
        next_link: None,
        value: value.collect(),
    }
}

fn effective_rules(nsg: &Nsg, place: &Place<'_>) -> Vec<EffectiveRule> {
    [Direction::Inbound, Direction::Outbound]
        .into_iter()
        .flat_map(|direction| ordered(nsg, direction))
        .map(|named| effective_rule(&named.name, &named.rule, place))
        .collect()
}

fn effective_rule(name: &str, rule: &SecurityRule, place: &Place<'_>) -> EffectiveRule {
    let expanded = expand(rule, place);
    let source = shown(&rule.source, &expanded.sources);
    let destination = shown(&rule.destination, &expanded.destinations);
    let source_ports = ports(&rule.source_ports);
    let destination_ports = ports(&rule.destination_ports);
    EffectiveRule {
        access: match rule.access {
            Access::Allow => "Allow",
            Access::Deny => "Deny",
        },
        destination_address_prefix: only(&destination),
        destination_address_prefixes: destination,
        destination_port_range: only(&destination_ports),
        destination_port_ranges: destination_ports,
        direction: match rule.direction {
            Direction::Inbound => "Inbound",
            Direction::Outbound => "Outbound",
        },
        expanded_destination_address_prefix: expansion(&rule.destination, &expanded.destinations),
        expanded_source_address_prefix: expansion(&rule.source, &expanded.sources),
        name: name.to_owned(),
        priority: rule.priority,
        protocol: match rule.protocol {
            RuleProtocol::Any => "All",
            RuleProtocol::Tcp => "Tcp",
            RuleProtocol::Udp => "Udp",
            RuleProtocol::Icmp => "Icmp",
            RuleProtocol::Esp => "Esp",
            RuleProtocol::Ah => "Ah",
        },
        source_address_prefix: only(&source),
        source_address_prefixes: source,
        source_port_range: only(&source_ports),
        source_port_ranges: source_ports,
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

fn tag_map(nsg: &Nsg, tags: &Tags) -> BTreeMap<String, Vec<String>> {
    let rules = [Direction::Inbound, Direction::Outbound]
        .into_iter()
        .flat_map(|direction| ordered(nsg, direction));
    let mut map = BTreeMap::new();
    for named in rules {
        for address in [&named.rule.source, &named.rule.destination] {
            if let RuleAddress::Tag(tag) = address {
                map.entry(tag.clone())
                    .or_insert_with(|| texts(tags.expand(tag).unwrap_or_default()));
            }
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

fn reference(subscription: &str, group: &str, kind_and_name: &str) -> Reference {
    Reference {
        id: format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Network/{kind_and_name}"
        ),
        resource_group: group.to_owned(),
    }
}
