//! Steps 5 and 8: one direction of one NSG, compiled, and the two of them a packet meets at a NIC.
//! Reads: the NIC's filters, the flow key. Writes: nothing.
//! Ends with: `NsgOutbound`, `NsgInbound`.

use std::ops::RangeInclusive;

use packet::{FlowKey, Prefix, Protocol};

use crate::classes::Field;
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
///
/// Compiled per field: each value of a field belongs to a class, and a class is a set of rules, one bit each. A packet's five
/// classes are intersected; the first bit left is the first rule that matches. Neither the order of rules nor the length of
/// their lists nor the packet changes the work.
#[derive(Debug)]
pub struct Filter {
    rules: Vec<Rule>,
    /// 64-bit words per set.
    words: usize,
    sources: Field<u128, 8>,
    destinations: Field<u128, 8>,
    source_ports: Field<u16, 32>,
    destination_ports: Field<u16, 32>,
    protocols: Field<u8, 64>,
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
        let prefixes = |prefixes: &[Prefix]| {
            prefixes
                .iter()
                .map(|prefix| (prefix.first(), prefix.last()))
                .collect()
        };
        let ports = |ranges: &[RangeInclusive<u16>]| {
            ranges
                .iter()
                .map(|range| (*range.start(), *range.end()))
                .collect()
        };
        let protocols =
            |protocol: Option<Protocol>| vec![protocol.map_or((0, u8::MAX), |Protocol(only)| (only, only))];
        Self {
            words: rules.len().div_ceil(64),
            sources: Field::new(rules.iter().map(|rule| prefixes(&rule.sources)), 0, |at| {
                at.checked_add(1)
            }),
            destinations: Field::new(rules.iter().map(|rule| prefixes(&rule.destinations)), 0, |at| {
                at.checked_add(1)
            }),
            source_ports: Field::new(rules.iter().map(|rule| ports(&rule.source_ports)), 0, |at| {
                at.checked_add(1)
            }),
            destination_ports: Field::new(rules.iter().map(|rule| ports(&rule.destination_ports)), 0, |at| {
                at.checked_add(1)
            }),
            protocols: Field::new(rules.iter().map(|rule| protocols(rule.protocol)), 0, |at| {
                at.checked_add(1)
            }),
            rules,
        }
    }

    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The first rule that matches decides (NSG-04).
    #[must_use]
    pub fn decide(&self, key: &FlowKey) -> Decision {
        let words = self.words;
        let addresses = [
            self.sources.class(key.source, words),
            self.destinations.class(key.destination, words),
            self.protocols.class(key.protocol.0, words),
        ];
        // NSG-07: without ports, only the other fields count.
        let ports = has_ports(key.protocol).then(|| {
            let source = self.source_ports.class(key.source_port, words);
            [source, self.destination_ports.class(key.destination_port, words)]
        });
        for word in 0..words {
            let mut left = addresses.iter().fold(u64::MAX, |left, set| left & set[word]);
            if let Some(ports) = ports {
                left &= ports[0][word] & ports[1][word];
            }
            if left != 0 {
                return self.decision(word * 64 + left.trailing_zeros() as usize);
            }
        }
        Decision {
            access: Access::Deny,
            rule: None,
        }
    }

    fn decision(&self, at: usize) -> Decision {
        Decision {
            access: self.rules[at].access,
            rule: u16::try_from(at).ok(),
        }
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
