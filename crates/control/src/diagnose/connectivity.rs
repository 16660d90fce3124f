//! Connection troubleshoot (DIAG-07): what real packets did, and by the explanation of their path, why.

use std::net::IpAddr;

use model::Topology;
use model::topology::{Endpoint, NicIndex};
use schemars::JsonSchema;
use serde::Serialize;

use super::{network_id, vnet_of};
use crate::present::{Drop, Explanation, Hop as Passed};

/// What packets did: one entry for each that was sent, with the microseconds until its answer; None: no answer.
#[derive(Clone, Debug, Default)]
pub struct Probes(pub Vec<Option<u64>>);

/// The body of the answer. Latencies are round trips of the packets that were answered, in whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connectivity {
    pub hops: Vec<Hop>,
    /// `Connected`, `Disconnected`, `Degraded`; `Unknown` when no packet was sent.
    pub connection_status: &'static str,
    pub avg_latency_in_ms: Option<u64>,
    pub min_latency_in_ms: Option<u64>,
    pub max_latency_in_ms: Option<u64>,
    pub probes_sent: usize,
    pub probes_failed: usize,
}

/// A place on the way of the packet.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// `Source`, `VirtualAppliance`, `VirtualNetworkGateway`, `VnetLocal`, or `Internet`, which is also all that lies beyond a
    /// gateway.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub id: String,
    pub address: Option<String>,
    pub resource_id: Option<String>,
    pub next_hop_ids: Vec<String>,
    pub previous_hop_ids: Vec<String>,
    pub links: Vec<Link>,
    pub previous_links: Vec<Link>,
    pub issues: Vec<Issue>,
}

/// From one hop to the next.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    pub next_hop_id: String,
    pub link_type: &'static str,
    pub issues: Vec<Issue>,
}

/// Why packets are lost at a hop.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Issue {
    /// `Local`, `Inbound` or `Outbound`.
    pub origin: &'static str,
    /// `Error` or `Warning`.
    pub severity: &'static str,
    /// `NetworkSecurityRule`, `UserDefinedRoute`, `GuestFirewall`, `Platform`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub context: Vec<Context>,
}

/// A detail of an issue.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Context {
    pub key: &'static str,
    pub value: String,
}

/// Puts packets and explanation together. `source` and `destination` are the addresses of the first packet.
#[must_use]
pub fn connectivity(
    topology: &Topology,
    explanation: &Explanation,
    (source, destination): (IpAddr, IpAddr),
    probes: &Probes,
) -> Connectivity {
    let answered: Vec<u64> = probes.0.iter().flatten().copied().collect();
    let failed = probes.0.len() - answered.len();
    // To the nearest: within one machine most round trips are shorter than a millisecond.
    let milliseconds = |us: u64| us.saturating_add(500) / 1000;
    let count = u64::try_from(answered.len()).unwrap_or(u64::MAX);
    Connectivity {
        hops: hops(topology, explanation, source, destination, failed),
        connection_status: match (probes.0.len(), failed) {
            (0, _) => "Unknown",
            (_, 0) => "Connected",
            (sent, failed) if sent == failed => "Disconnected",
            _ => "Degraded",
        },
        avg_latency_in_ms: answered.iter().sum::<u64>().checked_div(count).map(milliseconds),
        min_latency_in_ms: answered.iter().min().copied().map(milliseconds),
        max_latency_in_ms: answered.iter().max().copied().map(milliseconds),
        probes_sent: probes.0.len(),
        probes_failed: failed,
    }
}

/// Who is on the way: the sender, everybody the packet enters, and the destination even when it does not get there.
fn hops(
    topology: &Topology,
    explanation: &Explanation,
    source: IpAddr,
    destination: IpAddr,
    failed: usize,
) -> Vec<Hop> {
    // What a load balancer does shows nowhere but in who answers (NET-09).
    let mut passed = explanation
        .forward
        .iter()
        .filter(|hop| hop.load_balancer.is_none());
    let first = passed.next();
    let entered = passed.filter(|hop| hop.direction == "Inbound");
    let mut names: Vec<&str> = first.into_iter().chain(entered).map(passed_name).collect();
    let lost = explanation
        .drop
        .as_ref()
        .is_some_and(|drop| drop.path == "forward");
    let arrived = !lost
        || names
            .last()
            .is_some_and(|name| holds(topology, name, destination));
    let receiver = topology
        .nic_at(destination)
        .map(|nic| topology.nics[nic.0].name.as_str());
    if !arrived || names.len() < 2 {
        names.push(receiver.unwrap_or_else(|| {
            if public(topology, destination) {
                "internet"
            } else {
                ""
            }
        }));
    }
    let last = names.len() - 1;
    // Ids count the hops: the same question has the same answer.
    let id = |at: usize| format!("00000000-0000-0000-0000-{at:012}");
    let link = |to: usize| Link {
        next_hop_id: id(to),
        link_type: "VirtualNetwork",
        issues: Vec::new(),
    };
    let mut hops: Vec<Hop> = (0..)
        .zip(&names)
        .map(|(at, name)| {
            let nic = nic(topology, name);
            let address = match at {
                0 => Some(source),
                _ if at == last => Some(destination),
                _ => nic.and_then(|nic| own_address(topology, nic, source)),
            };
            let next = (at < last).then_some(at + 1);
            let previous = at.checked_sub(1);
            Hop {
                kind: match *name {
                    _ if at == 0 => "Source",
                    "internet" => "Internet",
                    _ if nic.is_none() && at < last => "VirtualNetworkGateway",
                    // A site.
                    _ if nic.is_none() && !name.is_empty() => "Internet",
                    _ if at < last => "VirtualAppliance",
                    _ => "VnetLocal",
                },
                id: id(at),
                address: address.map(|address| address.to_string()),
                resource_id: nic.map(|nic| {
                    let path = format!("networkInterfaces/{}", topology.nics[nic.0].name);
                    network_id(topology, vnet_of(topology, nic), &path)
                }),
                next_hop_ids: next.map(id).into_iter().collect(),
                previous_hop_ids: previous.map(id).into_iter().collect(),
                links: next.map(link).into_iter().collect(),
                previous_links: previous.map(link).into_iter().collect(),
                issues: Vec::new(),
            }
        })
        .collect();
    let issue = match &explanation.drop {
        Some(drop) => Some((
            names.iter().rposition(|name| *name == drop.at).unwrap_or(0),
            issue(drop),
        )),
        // The fabric lets everything through: whoever is silent is the destination.
        None if failed > 0 => Some((last, guest())),
        None => None,
    };
    if let Some((at, issue)) = issue
        && let Some(hop) = hops.get_mut(at)
    {
        hop.issues.push(issue);
    }
    hops
}

fn issue(drop: &Drop) -> Issue {
    let of = |origin, kind, key, value: String| Issue {
        origin,
        severity: "Error",
        kind,
        context: vec![Context { key, value }],
    };
    let rule = || drop.rule.as_deref().map_or_else(String::new, flow_rule_name);
    match drop.reason {
        Some("NsgOutbound") => of("Outbound", "NetworkSecurityRule", "RuleName", rule()),
        Some("NsgInbound") => of("Inbound", "NetworkSecurityRule", "RuleName", rule()),
        // Drops by system routes too.
        Some("RouteNone" | "NoRoute" | "NextHopUnreachable" | "NoGateway" | "NoInternet") => {
            let user = drop.route.as_ref().is_some_and(|route| route.source == "User");
            let value = if user { "User" } else { "System" };
            of("Outbound", "UserDefinedRoute", "RouteType", value.to_owned())
        }
        Some(reason @ "NotForNic") => of("Inbound", "Platform", "Reason", reason.to_owned()),
        Some(reason) => of("Outbound", "Platform", "Reason", reason.to_owned()),
        None => guest(),
    }
}

fn guest() -> Issue {
    Issue {
        origin: "Local",
        severity: "Error",
        kind: "GuestFirewall",
        context: Vec::new(),
    }
}

/// NSG-36: connection checks and flow logs call a rule `UserRule_<name>` or `DefaultRule_<name>`.
fn flow_rule_name(rule: &str) -> String {
    match rule.split_once('/') {
        Some(("defaultSecurityRules", name)) => format!("DefaultRule_{name}"),
        Some((_, name)) => format!("UserRule_{name}"),
        None => rule.to_owned(),
    }
}

fn passed_name(hop: &Passed) -> &str {
    hop.nic.as_deref().or(hop.node.as_deref()).unwrap_or_default()
}

fn nic(topology: &Topology, name: &str) -> Option<NicIndex> {
    match topology.endpoint(name) {
        Ok(Endpoint::Nic(nic)) => Some(nic),
        _ => None,
    }
}

fn own_address(topology: &Topology, nic: NicIndex, like: IpAddr) -> Option<IpAddr> {
    let addresses = &topology.nics[nic.0].addresses;
    addresses
        .iter()
        .copied()
        .find(|address| address.is_ipv4() == like.is_ipv4())
}

fn holds(topology: &Topology, name: &str, address: IpAddr) -> bool {
    match nic(topology, name) {
        Some(nic) => {
            let nic = &topology.nics[nic.0];
            nic.addresses.contains(&address) || nic.public_addresses.contains(&address)
        }
        None => name == "internet" && public(topology, address),
    }
}

fn public(topology: &Topology, address: IpAddr) -> bool {
    topology
        .internet
        .iter()
        .flatten()
        .any(|public| *public == address)
}
