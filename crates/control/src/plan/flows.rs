//! Flows that would fare otherwise: those under way, with the state they have, and those of `tests:`.

use std::collections::{BTreeSet, HashMap};

use model::Topology;
use model::topology::{Endpoint, NicIndex, Test, TestProtocol};
use packet::key::{mapped, unmapped};
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

    /// A flow under way from a NIC; or, where it is none of this name, from outside.
    fn flow(&self, from: &Beginner, key: FlowKey) -> Fate {
        let nic = match from {
            Beginner::Nic(name) => match self.nics.get(name.as_str()) {
                Some(&nic) => Some(nic),
                None => return gone(name),
            },
            Beginner::Outside(_) => None,
        };
        let told_of = explain::explain_flow(self.topology, self.compiled, &self.state, nic, key);
        told_of.map_or_else(|| gone(from.name()), |it| told(&it))
    }

    /// What has the source of a flow that `record`'s NIC received and no NIC sent: a site, or the Internet, which knows the NIC by
    /// its public address.
    fn outside(&self, record: &Record) -> Option<(Beginner, FlowKey)> {
        let name = explain::outside_name(self.topology, unmapped(record.key.source))?;
        let nic = &self.topology.nics[self.nics.get(record.nic.as_str())?.0];
        // What an appliance passed on is told of once, by the NIC it is for.
        let destination = unmapped(record.key.destination);
        if !nic.addresses.contains(&destination) {
            return None;
        }
        let mut public = nic.public_addresses.iter();
        let public = public.find(|public| public.is_ipv4() == destination.is_ipv4());
        let by_internet = name.eq_ignore_ascii_case("internet");
        let key = FlowKey {
            destination: public
                .filter(|_| by_internet)
                .map_or(record.key.destination, |&public| mapped(public)),
            ..record.key
        };
        Some((Beginner::Outside(name), key))
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
    for (from, key) in begun(old, records) {
        let [before, after] = [old, new].map(|lab| lab.flow(&from, key));
        if before != after {
            let (source_port, port) = (key.source_port, key.destination_port);
            changes.push(FlowChange {
                origin: Origin::Flow,
                from: from.name().to_owned(),
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

/// Who began a flow.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Beginner {
    /// By name.
    Nic(String),
    /// A site, or the Internet.
    Outside(String),
}

impl Beginner {
    fn name(&self) -> &str {
        match self {
            Self::Nic(name) | Self::Outside(name) => name,
        }
    }
}

/// The flows under way, each once. Appliances on the way have records of the same flow; the sender's own address says who
/// began it.
fn begun(lab: &Lab<'_>, records: &[Record]) -> BTreeSet<(Beginner, FlowKey)> {
    let of_nic = |record: &&Record| {
        let owner = lab.nics.get(record.nic.as_str());
        owner.is_some_and(|nic| {
            let addresses = &lab.topology.nics[nic.0].addresses;
            addresses.contains(&unmapped(record.key.source))
        })
    };
    let sent = records.iter().filter(|record| !record.inbound).filter(of_nic);
    let mut begun: BTreeSet<(Beginner, FlowKey)> = sent
        .map(|record| (Beginner::Nic(record.nic.clone()), record.key))
        .collect();
    let received = records.iter().filter(|record| record.inbound);
    begun.extend(received.filter_map(|record| lab.outside(record)));
    begun
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
