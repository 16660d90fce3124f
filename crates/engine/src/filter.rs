//! Steps 5 and 8: one direction of one NSG, compiled, and the two of them a packet meets at a NIC.
//! Reads: the NIC's filters, the flow key. Writes: nothing.
//! Ends with: `NsgOutbound`, `NsgInbound`.

use std::ops::RangeInclusive;

use packet::{FlowKey, Prefix, Protocol};

use crate::snapshot::{FilterId, NicId, Snapshot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Allow,
    Deny,
}

/// A rule, expanded: tags, ASGs and lists are prefixes and ranges by now. An empty list matches nothing.
#[derive(Clone, Debug)]
pub struct Rule {
    pub access: Access,
    /// None: any protocol.
    pub protocol: Option<Protocol>,
    pub sources: Vec<Prefix>,
    pub destinations: Vec<Prefix>,
    /// Ignored for protocols without ports (NSG-07).
    pub source_ports: Vec<RangeInclusive<u16>>,
    pub destination_ports: Vec<RangeInclusive<u16>>,
}

/// What a filter says of a packet, and which rule, by position, said it. None: no rule matched, which denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub access: Access,
    pub rule: Option<u16>,
}

/// What the filters of a NIC say, in the order asked; a deny ends the questions (NSG-20, NSG-21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filtered {
    pub access: Access,
    /// None: no NSG at that level, which allows (NSG-22), or not asked.
    pub decisions: [Option<(FilterId, Decision)>; 2],
}

/// The rules of one NSG in one direction, in order of priority, default rules last.
#[derive(Debug)]
pub struct Filter {
    rules: Vec<Rule>,
}

/// Asks the NSG of the NIC, then that of its subnet (NSG-21). State is not considered.
#[must_use]
pub fn outbound(snapshot: &Snapshot, nic: NicId, key: &FlowKey) -> Filtered {
    ask(snapshot, snapshot.nics[nic.index()].outbound, key)
}

/// Asks the NSG of the subnet, then that of the NIC (NSG-20). State is not considered. `key` is as the NIC sees
/// it, with private addresses (NSG-15).
#[must_use]
pub fn inbound(snapshot: &Snapshot, nic: NicId, key: &FlowKey) -> Filtered {
    ask(snapshot, snapshot.nics[nic.index()].inbound, key)
}

impl Filter {
    #[must_use]
    pub fn compile(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The first rule that matches decides (NSG-04).
    #[must_use]
    pub fn decide(&self, key: &FlowKey) -> Decision {
        linear(&self.rules, key)
    }
}

fn ask(snapshot: &Snapshot, filters: [Option<FilterId>; 2], key: &FlowKey) -> Filtered {
    let mut decisions = [None; 2];
    for (slot, filter) in decisions.iter_mut().zip(filters) {
        let Some(filter) = filter else { continue };
        let decision = snapshot.filters[filter.index()].decide(key);
        *slot = Some((filter, decision));
        if decision.access == Access::Deny {
            return Filtered {
                access: Access::Deny,
                decisions,
            };
        }
    }
    Filtered {
        access: Access::Allow,
        decisions,
    }
}

/// Whether rules look at ports of this protocol (NSG-07); the identifier of an ICMP echo is not a port.
fn has_ports(protocol: Protocol) -> bool {
    protocol == Protocol::TCP || protocol == Protocol::UDP
}

fn linear(rules: &[Rule], key: &FlowKey) -> Decision {
    let ports = has_ports(key.protocol);
    let found = rules.iter().position(|rule| {
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
    let access = found.map_or(Access::Deny, |at| rules[at].access);
    Decision {
        access,
        rule: found.and_then(|at| u16::try_from(at).ok()),
    }
}
