//! Security admin rules (NSG-43): which of them a VNet has, in order of evaluation, before its NSGs.

use engine::filter;
use ipnet::IpNet;
use model::Topology;
use model::topology::{AdminAccess, AdminRule, Direction, VnetIndex};

use crate::rules::{Place, addresses, port_ranges, prefixes, protocol};

/// A rule, and the configuration and collection it comes from.
#[derive(Clone, Debug)]
pub struct NamedAdminRule<'a> {
    /// Position among the topology's configurations.
    pub configuration: usize,
    pub collection: &'a str,
    pub rule: &'a AdminRule,
}

/// The rules of one direction that apply to a VNet: configuration by configuration, by priority in each.
#[must_use]
pub fn applying(topology: &Topology, vnet: VnetIndex, direction: Direction) -> Vec<NamedAdminRule<'_>> {
    let mut all = Vec::new();
    for (index, configuration) in topology.security_admin_configurations.iter().enumerate() {
        let mut own = Vec::new();
        for collection in &configuration.rule_collections {
            if collection.applies_to.binary_search(&vnet).is_err() {
                continue;
            }
            let rules = collection.rules.iter().filter(|rule| rule.direction == direction);
            own.extend(rules.map(|rule| NamedAdminRule {
                configuration: index,
                collection: &collection.name,
                rule,
            }));
        }
        own.sort_by_key(|named| named.rule.priority);
        all.extend(own);
    }
    all
}

impl NamedAdminRule<'_> {
    /// `<configuration>/<collection>`: what stands where an NSG's name would.
    #[must_use]
    pub fn owner(&self, topology: &Topology) -> String {
        let configuration = &topology.security_admin_configurations[self.configuration].name;
        format!("{configuration}/{}", self.collection)
    }

    /// `securityAdminRules/<name>`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("securityAdminRules/{}", self.rule.name)
    }

    /// What the rule's addresses mean at a place: sources and destinations.
    #[must_use]
    pub fn expand(&self, place: &Place<'_>) -> [Vec<IpNet>; 2] {
        [&self.rule.sources, &self.rule.destinations].map(|side| {
            side.iter()
                .flat_map(|address| addresses(address, place))
                .collect()
        })
    }

    /// The rule as the engine takes it.
    #[must_use]
    pub fn engine_rule(&self, place: &Place<'_>) -> filter::Rule {
        let [sources, destinations] = self.expand(place);
        filter::Rule {
            access: match self.rule.access {
                AdminAccess::Allow => filter::Access::Allow,
                AdminAccess::AlwaysAllow => filter::Access::AlwaysAllow,
                AdminAccess::Deny => filter::Access::Deny,
            },
            protocol: protocol(self.rule.protocol),
            sources: prefixes(&sources),
            destinations: prefixes(&destinations),
            source_ports: port_ranges(&self.rule.source_ports),
            destination_ports: port_ranges(&self.rule.destination_ports),
        }
    }
}
