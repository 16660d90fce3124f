//! The body of `az network nic list-effective-nsg` (NSG-35, NSG-36).

use std::collections::BTreeMap;

use model::Topology;
use model::topology::NicIndex;
use serde::Serialize;

/// The whole body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveNsgs {
    pub next_link: Option<String>,
    pub value: Vec<EffectiveNsg>,
}

/// One NSG at the NIC or its subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveNsg {
    pub association: Association,
    pub effective_security_rules: Vec<EffectiveRule>,
    pub network_security_group: Reference,
    /// Tag -> prefixes.
    pub tag_map: BTreeMap<String, Vec<String>>,
}

/// Where the NSG is: exactly one is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Association {
    pub network_interface: Option<Reference>,
    pub network_manager: Option<Reference>,
    pub subnet: Option<Reference>,
}

/// An ARM id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    pub id: String,
    pub resource_group: String,
}

/// One rule, expanded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
pub fn effective_nsgs(_topology: &Topology, _nic: NicIndex) -> EffectiveNsgs {
    EffectiveNsgs {
        next_link: None,
        value: Vec::new(),
    }
}
