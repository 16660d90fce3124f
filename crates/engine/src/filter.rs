//! One direction of one NSG, compiled.

use std::ops::RangeInclusive;

use packet::{Prefix, Protocol};

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

/// The rules of one NSG in one direction, in order of priority, default rules last.
#[derive(Debug)]
pub struct Filter {
    rules: Vec<Rule>,
}
