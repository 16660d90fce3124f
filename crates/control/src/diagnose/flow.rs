//! IP flow verify (DIAG-02): NSGs alone, no routes.

use std::net::IpAddr;

use engine::filter::{Access, inbound, outbound};
use engine::snapshot::NicId;
use model::Topology;
use model::topology::{Direction, NicIndex, TestProtocol};
use packet::key::mapped;
use packet::{FlowKey, Protocol};
use schemars::JsonSchema;
use serde::Serialize;

use crate::compile::Compiled;
use crate::explain::DEFAULT_SOURCE_PORT;

/// A packet of a NIC.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub direction: Direction,
    pub protocol: TestProtocol,
    /// The NIC's own address and port, whatever the direction. A port `*` is None.
    pub local: (IpAddr, Option<u16>),
    pub remote: (IpAddr, Option<u16>),
}

/// The body of the answer.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowVerdict {
    /// `Allow` or `Deny`; `Unknown` for a local address that is not the NIC's.
    pub access: &'static str,
    /// The rule that denied, or the last that allowed; none without an NSG.
    pub rule_name: Option<String>,
}

/// What the NSGs of a NIC say of a first packet. A source port `*` stands for one that no rule names, as a client's would.
#[must_use]
pub fn ip_flow(topology: &Topology, compiled: &Compiled, nic: NicIndex, flow: &Flow) -> FlowVerdict {
    let (local, remote) = (flow.local.0, flow.remote.0);
    if !topology.nics[nic.0].addresses.contains(&local) || local.is_ipv4() != remote.is_ipv4() {
        return FlowVerdict {
            access: "Unknown",
            rule_name: None,
        };
    }
    let port = |port: Option<u16>| port.unwrap_or(DEFAULT_SOURCE_PORT);
    let key = FlowKey {
        source: mapped(local),
        destination: mapped(remote),
        source_port: port(flow.local.1),
        destination_port: port(flow.remote.1),
        protocol: match flow.protocol {
            TestProtocol::Tcp => Protocol::TCP,
            TestProtocol::Udp => Protocol::UDP,
            TestProtocol::Icmp if local.is_ipv4() => Protocol::ICMP,
            TestProtocol::Icmp => Protocol::ICMPV6,
        },
    };
    let (snapshot, id) = (
        &compiled.snapshot,
        NicId(u32::try_from(nic.0).unwrap_or(u32::MAX)),
    );
    let filtered = match flow.direction {
        Direction::Outbound => outbound(snapshot, id, &key),
        Direction::Inbound => inbound(snapshot, id, &key.reversed()),
    };
    let last = filtered.decisions.into_iter().flatten().last();
    let rule_name = last.and_then(|(filter, decision)| {
        let rules = &compiled.provenance.filters.get(filter.index())?.rules;
        Some(rules.get(usize::from(decision.rule?))?.name.clone())
    });
    FlowVerdict {
        access: if filtered.access == Access::Deny {
            "Deny"
        } else {
            "Allow"
        },
        rule_name,
    }
}
