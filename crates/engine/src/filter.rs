//! Steps 5 and 8: one direction of one NSG, compiled, and the two of them a packet meets at a NIC.
//! Reads: the NIC's filters, the flow key. Writes: nothing.
//! Ends with: `NsgOutbound`, `NsgInbound`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use packet::{FlowKey, Prefix, Protocol};

use crate::classes::{Addresses, Numbers};
use crate::snapshot::{FilterId, LogRuleId, NicId, Snapshot};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Allow,
    Deny,
    /// Of a security admin rule: it passes, and no further filter is asked (NSG-43).
    AlwaysAllow,
}

/// A rule, expanded: tags, ASGs and lists are prefixes and ranges by now. An empty list matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// What the filters of a NIC say, in the order asked: security admin rules, then the two levels of NSGs. A deny ends the
/// questions (NSG-20, NSG-21), as does an `AlwaysAllow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// Allow or Deny.
    pub access: Access,
    /// None: no NSG at that level, which allows (NSG-22), no security admin rule that matches, or not asked.
    pub decisions: [Option<(FilterId, Decision)>; 3],
}

/// The rules of one NSG in one direction, in order of priority, default rules last.
///
/// Compiled per field: each value of a field belongs to a class, and a class is a set of rules, one bit each. A packet's five
/// classes are intersected; the first bit left is the first rule that matches. Neither the order of rules nor the length of
/// their lists nor the packet changes the work. Cheap to copy.
#[derive(Clone, Debug)]
pub struct Filter(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    rules: Vec<Rule>,
    sources: Addresses,
    destinations: Addresses,
    source_ports: Numbers,
    destination_ports: Numbers,
    protocols: Numbers,
}

/// Asks the NSG of the NIC, then that of its subnet (NSG-21). State is not considered.
#[must_use]
pub fn outbound(snapshot: &Snapshot, nic: NicId, key: &FlowKey) -> Filtered {
    let nic = &snapshot.nics[nic.index()];
    ask(snapshot, nic.admin_outbound, nic.outbound, key)
}

/// Asks the NSG of the subnet, then that of the NIC (NSG-20). State is not considered. `key` is as the NIC sees
/// it, with private addresses (NSG-15).
#[must_use]
pub fn inbound(snapshot: &Snapshot, nic: NicId, key: &FlowKey) -> Filtered {
    let nic = &snapshot.nics[nic.index()];
    ask(snapshot, nic.admin_inbound, nic.inbound, key)
}

/// What flow logs call the rule that decided: the NSG that denied, or the last one asked (NSG-42). None: its NSG has no
/// flow log, or flow logs do not know the protocol.
pub(crate) fn logged(snapshot: &Snapshot, filtered: &Filtered, key: &FlowKey) -> Option<LogRuleId> {
    if snapshot.log_rules.is_empty() || !has_ports(key.protocol) {
        return None;
    }
    let (filter, decision) = *filtered.decisions.iter().flatten().next_back()?;
    let rules = snapshot.log_rules.get(filter.index())?;
    *rules.get(usize::from(decision.rule?))?
}

impl Filter {
    #[must_use]
    pub fn compile(rules: Vec<Rule>) -> Self {
        let all = || rules.iter();
        Self(Arc::new(Compiled {
            sources: Addresses::new(all().map(|rule| prefix_ends(&rule.sources))),
            destinations: Addresses::new(all().map(|rule| prefix_ends(&rule.destinations))),
            source_ports: Numbers::new(all().map(|rule| port_ends(&rule.source_ports))),
            destination_ports: Numbers::new(all().map(|rule| port_ends(&rule.destination_ports))),
            protocols: Numbers::new(all().map(|rule| vec![protocol_ends(rule.protocol)])),
            rules,
        }))
    }

    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    /// The first rule that matches decides (NSG-04).
    #[must_use]
    pub fn decide(&self, key: &FlowKey) -> Decision {
        let tables = &*self.0;
        // Without ports only the other fields count (NSG-07): the addresses stand in for them.
        let sources = tables.sources.class(key.source);
        let destinations = tables.destinations.class(key.destination);
        let protocols = tables.protocols.class(u16::from(key.protocol.0));
        let (from, to) = if has_ports(key.protocol) {
            (
                tables.source_ports.class(key.source_port),
                tables.destination_ports.class(key.destination_port),
            )
        } else {
            (sources, destinations)
        };
        let addresses = sources.iter().zip(destinations);
        let others = protocols.iter().zip(from).zip(to);
        for (word, ((source, destination), ((protocol, from), to))) in addresses.zip(others).enumerate() {
            let left = source & destination & protocol & from & to;
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
            access: self.0.rules[at].access,
            rule: u16::try_from(at).ok(),
        }
    }
}

fn ask(snapshot: &Snapshot, admin: Option<FilterId>, nsgs: [Option<FilterId>; 2], key: &FlowKey) -> Filtered {
    let mut decisions = [None; 3];
    let decide = |filter: FilterId| (filter, snapshot.filters[filter.index()].decide(key));
    // What no security admin rule matches is left to the NSGs.
    decisions[0] = admin.map(decide).filter(|(_, decision)| decision.rule.is_some());
    let mut last = decisions[0];
    for (slot, filter) in decisions[1..].iter_mut().zip(nsgs) {
        if last.is_some_and(|(_, decision)| decision.access != Access::Allow) {
            break;
        }
        *slot = filter.map(decide);
        last = slot.or(last);
    }
    let denied = last.is_some_and(|(_, decision)| decision.access == Access::Deny);
    Filtered {
        access: if denied { Access::Deny } else { Access::Allow },
        decisions,
    }
}

fn prefix_ends(prefixes: &[Prefix]) -> Vec<(u128, u128)> {
    prefixes
        .iter()
        .map(|prefix| (prefix.first(), prefix.last()))
        .collect()
}

fn port_ends(ports: &[RangeInclusive<u16>]) -> Vec<(u16, u16)> {
    ports.iter().map(|range| (*range.start(), *range.end())).collect()
}

fn protocol_ends(protocol: Option<Protocol>) -> (u16, u16) {
    protocol.map_or((0, u16::MAX), |Protocol(only)| (only.into(), only.into()))
}

/// Whether rules look at ports of this protocol (NSG-07); the identifier of an ICMP echo is not a port.
fn has_ports(protocol: Protocol) -> bool {
    protocol == Protocol::TCP || protocol == Protocol::UDP
}
