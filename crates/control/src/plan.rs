//! What a change would do before it is done: objects that differ, and flows whose verdict or path would. The tables that
//! would forward are compiled and asked by the engine's own steps, as `explain` does.

mod flows;
mod objects;

use model::{Config, Topology};
use packet::FlowKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{compile, compile_after};

/// A lab as it is declared, and what follows from that.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'a> {
    pub config: &'a Config,
    pub topology: &'a Topology,
}

/// A record of NSG state of a running lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// By name.
    pub nic: String,
    pub inbound: bool,
    /// As the first packet had it.
    pub key: FlowKey,
}

/// The body of `plan -o json`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Plan {
    pub objects: Vec<ObjectChange>,
    /// Flows of the running lab and of `tests:` that would fare otherwise.
    pub flows: Vec<FlowChange>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ObjectChange {
    pub action: Action,
    /// ARM's type, or the section of the lab file where ARM has none.
    #[serde(rename = "type")]
    pub kind: String,
    /// `vnet/subnet` for what lies in something.
    pub name: String,
    /// What differs; of an object that is new, all it has.
    pub properties: Vec<PropertyChange>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub enum Action {
    Create,
    Update,
    Delete,
}

/// A property, null where it is not given.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PropertyChange {
    pub name: String,
    pub before: Value,
    pub after: Value,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowChange {
    pub origin: Origin,
    /// The NIC that began it, as a VM or NIC is named; an address, or `internet`.
    pub from: String,
    pub to: String,
    /// `Tcp`, `Udp`, `Icmp`, or the protocol's number.
    pub protocol: String,
    pub source_port: u16,
    pub port: u16,
    pub before: Fate,
    pub after: Fate,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Origin {
    /// Of the live flow table: rules have no say, state passes (NSG-09).
    Flow,
    /// Of `tests:`: a first packet.
    Test,
}

/// What becomes of a flow.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// `Allow` when a packet arrives and its reply returns.
    pub verdict: String,
    /// For Deny: a drop reason of the contract.
    pub reason: Option<String>,
    /// Where it was lost.
    pub at: Option<String>,
    /// NICs and peerings passed, forward and then in return.
    pub path: Vec<String>,
}

/// The way from one lab to another. `records` are those of the running lab.
#[must_use]
pub fn plan(before: Declared<'_>, after: Declared<'_>, records: &[Record]) -> Plan {
    let old = compile(before.topology, 1);
    let new = compile_after(&old.pieces, after.topology, 1);
    let old = flows::Lab::new(before.topology, &old, records);
    let new = flows::Lab::new(after.topology, &new, records);
    Plan {
        objects: objects::difference(before, after),
        flows: flows::difference(&old, &new, records),
    }
}

impl Plan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.flows.is_empty()
    }
}
