//! Flows that would fare otherwise: those under way, with the state they have, and those of `tests:`.

use std::collections::{BTreeMap, HashMap};

use model::Topology;
use model::topology::{Endpoint, NicIndex, Test, TestProtocol};
use packet::key::unmapped;
use packet::{FlowKey, Protocol};

use super::{Fate, FlowChange, Origin, Record};
use crate::compile::Compiled;
use crate::explain::{self, DEFAULT_SOURCE_PORT, Query, State};
use crate::present::{Explanation, Hop};

/// One of the two labs.
pub(super) struct Lab<'a> {
    topology: &'a Topology,
    compiled: &'a Compiled,
    nics: HashMap<&'a str, NicIndex>,
    /// Whose state lets which packets pass: the NIC, and the key of packets it sends.
    state: State,
}

impl<'a> Lab<'a> {
    pub(super) fn new(topology: &'a Topology, compiled: &'a Compiled, records: &[Record]) -> Self {
        let nics: HashMap<&str, NicIndex> = topology
            .nics
            .iter()
            .enumerate()
            .map(|(index, nic)| (nic.name.as_str(), NicIndex(index)))
            .collect();
        let state = records.iter().filter_map(|record| {
            let key = record.key;
            let sent = if record.inbound { key.reversed() } else { key };
            Some((*nics.get(record.nic.as_str())?, sent))
        });
        Self {
            state: state.collect(),
            topology,
            compiled,
            nics,
        }
    }

    /// A flow under way from a NIC.
    fn flow(&self, nic: &str, key: FlowKey) -> Fate {
        match self.nics.get(nic) {
            None => gone(nic),
            Some(&nic) => told(&explain::explain_flow(
                self.topology,
                self.compiled,
                &self.state,
                nic,
                key,
            )),
        }
    }

    /// A test by the names of its ends, which mean other positions in another lab.
    fn test(&self, test: &Test, from: &str, to: &str) -> Fate {
        let (Ok(source), Ok(destination)) = (self.topology.endpoint(from), self.topology.endpoint(to)) else {
            return gone(from);
        };
        let query = Query {
            source,
            destination,
            protocol: test.protocol,
            source_port: test.source_port.unwrap_or(DEFAULT_SOURCE_PORT),
            port: test.port.unwrap_or_default(),
        };
        explain::explain(self.topology, self.compiled, &query).map_or_else(|_| gone(from), |it| told(&it))
    }

    fn name(&self, endpoint: &Endpoint) -> String {
        self.topology.endpoint_name(endpoint)
    }
}

pub(super) fn difference(old: &Lab<'_>, new: &Lab<'_>, records: &[Record]) -> Vec<FlowChange> {
    let mut changes = Vec::new();
    // Appliances on the way have records of the same flow; the sender's own address says who began it.
    let mut begun: BTreeMap<FlowKeyOrder, &Record> = BTreeMap::new();
    for record in records.iter().filter(|record| !record.inbound) {
        let owner = old
            .nics
            .get(record.nic.as_str())
            .map(|nic| &old.topology.nics[nic.0]);
        if owner.is_some_and(|nic| nic.addresses.contains(&unmapped(record.key.source))) {
            begun.insert(order(record), record);
        }
    }
    for record in begun.into_values() {
        let key = record.key;
        let [before, after] = [old, new].map(|lab| lab.flow(&record.nic, key));
        if before != after {
            let (source_port, port) = (key.source_port, key.destination_port);
            changes.push(FlowChange {
                origin: Origin::Flow,
                from: record.nic.clone(),
                to: unmapped(key.destination).to_string(),
                protocol: protocol_name(key.protocol),
                source_port,
                port,
                before,
                after,
            });
        }
    }
    let both = [new, old].map(|lab| lab.topology.tests.iter().map(move |test| (lab, test)));
    let mut seen = std::collections::HashSet::new();
    for (lab, test) in both.into_iter().flatten() {
        let (from, to) = (lab.name(&test.from), lab.name(&test.to));
        let source_port = test.source_port.unwrap_or(DEFAULT_SOURCE_PORT);
        if !seen.insert(format!(
            "{from} {to} {:?} {:?} {source_port}",
            test.protocol, test.port
        )) {
            continue;
        }
        let [before, after] = [old, new].map(|lab| lab.test(test, &from, &to));
        if before != after {
            changes.push(FlowChange {
                origin: Origin::Test,
                from,
                to,
                protocol: test_protocol(test.protocol).to_owned(),
                source_port,
                port: test.port.unwrap_or_default(),
                before,
                after,
            });
        }
    }
    changes
}

type FlowKeyOrder = (String, u128, u128, u8, u16, u16);

fn order(record: &Record) -> FlowKeyOrder {
    let key = record.key;
    let ports = (key.source_port, key.destination_port);
    (
        record.nic.clone(),
        key.source,
        key.destination,
        key.protocol.0,
        ports.0,
        ports.1,
    )
}

fn told(explanation: &Explanation) -> Fate {
    let place = |hop: &Hop| hop.nic.clone().or_else(|| hop.node.clone());
    let hops = explanation.forward.iter().chain(&explanation.reply);
    let path = hops.flat_map(|hop| place(hop).into_iter().chain(hop.link.clone()));
    let drop = explanation.drop.as_ref();
    Fate {
        verdict: explanation.verdict.to_owned(),
        reason: drop.and_then(|drop| drop.reason).map(str::to_owned),
        at: drop.map(|drop| drop.at.clone()),
        path: path.collect(),
    }
}

/// One of its ends is not there.
fn gone(name: &str) -> Fate {
    Fate {
        verdict: "Deny".to_owned(),
        reason: None,
        at: Some(name.to_owned()),
        path: Vec::new(),
    }
}

const fn test_protocol(protocol: TestProtocol) -> &'static str {
    match protocol {
        TestProtocol::Tcp => "Tcp",
        TestProtocol::Udp => "Udp",
        TestProtocol::Icmp => "Icmp",
    }
}

fn protocol_name(protocol: Protocol) -> String {
    match protocol {
        Protocol::TCP => "Tcp".to_owned(),
        Protocol::UDP => "Udp".to_owned(),
        Protocol::ICMP | Protocol::ICMPV6 => "Icmp".to_owned(),
        Protocol(number) => number.to_string(),
    }
}
