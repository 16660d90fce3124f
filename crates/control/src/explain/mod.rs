//! What happens to a packet and to its reply, hop by hop, told by the engine's own steps on the compiled tables.

mod findings;
mod guest;
mod links;
mod walk;

use std::net::IpAddr;

use model::Topology;
use model::topology::{Endpoint, NicIndex, TestProtocol};
use packet::key::{mapped, unmapped};
use packet::{FlowKey, Protocol};

use crate::compile::Compiled;
use crate::present::{Explanation, Finding};
pub(crate) use walk::State;
use walk::{End, Node, Walk};

/// Source port when none is asked for.
pub const DEFAULT_SOURCE_PORT: u16 = 50000;

/// A first packet to explain.
#[derive(Clone, Debug)]
pub struct Query {
    pub source: Endpoint,
    pub destination: Endpoint,
    pub protocol: TestProtocol,
    /// [`DEFAULT_SOURCE_PORT`] unless asked for; the echo identifier of Icmp.
    pub source_port: u16,
    /// Ignored for Icmp.
    pub port: u16,
}

/// Why a query has no answer. The text is for people and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError(pub String);

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for QueryError {}

/// Follows the packet and its reply. The reply comes from whoever gets the packet, and the state that the packet
/// left at the NICs it passed counts for the reply (NSG-08).
///
/// # Errors
/// The endpoints share no address family, the source is an address that nobody or that several have, or the lab has
/// no Internet that could send or receive.
pub fn explain(topology: &Topology, compiled: &Compiled, query: &Query) -> Result<Explanation, QueryError> {
    let (from, source, destination) = resolve(topology, query)?;
    let key = flow_key(query, source, destination);
    if let Node::Nic(nic) = from
        && let Some(vm) = topology.nics[nic.0].vm
        && guest::has(topology, vm, destination)
    {
        let asked = is_asked(topology, &query.destination, from);
        return Ok(within_guest(topology, from, &topology.vms[vm.0].name, asked));
    }
    Ok(follow(
        topology,
        compiled,
        &State::new(),
        from,
        key,
        &query.destination,
    ))
}

/// What happens to the next packet of a flow under way that `from` began, and to the reply: where `state` has it, rules
/// are not asked again (NSG-09). None as `from`: a site or the Internet began it; and as the answer: nobody there has its source.
pub(crate) fn explain_flow(
    topology: &Topology,
    compiled: &Compiled,
    state: &State,
    from: Option<NicIndex>,
    key: FlowKey,
) -> Option<Explanation> {
    let from = match from {
        Some(nic) => Node::Nic(nic),
        None => owner(topology, unmapped(key.source))
            .ok()
            .filter(|node| !matches!(node, Node::Nic(_)))?,
    };
    let destination = Endpoint::Address(unmapped(key.destination));
    Some(follow(topology, compiled, state, from, key, &destination))
}

/// What stands where a NIC's name would, for a flow that [`explain_flow`] takes without one.
pub(crate) fn outside_name(topology: &Topology, address: IpAddr) -> Option<String> {
    let node = owner(topology, address).ok()?;
    (!matches!(node, Node::Nic(_))).then(|| walk::name(topology, node))
}

fn follow(
    topology: &Topology,
    compiled: &Compiled,
    state: &State,
    from: Node,
    key: FlowKey,
    destination: &Endpoint,
) -> Explanation {
    let mut forward = Walk::new(topology, compiled, state, "forward");
    let mut end = forward.send(from, key);
    let mut reply = forward.reply("return");
    if let End::Delivered(at, seen) = end {
        if is_asked(topology, destination, at) {
            end = reply.send(at, seen.reversed());
            if let End::Delivered(back, answer) = end
                && !(same_guest(topology, back, from) && answer == key.reversed())
            {
                reply
                    .findings
                    .push(findings::elsewhere(topology, back, "the reply"));
                end = End::Lost(walk::lost_silently(topology, back, "return"));
            }
        } else {
            forward
                .findings
                .push(findings::elsewhere(topology, at, "the packet"));
            end = End::Lost(walk::lost_silently(topology, at, "forward"));
        }
    }
    let drop = match end {
        End::Delivered(..) => None,
        End::Lost(drop) => Some(*drop),
    };
    let findings = findings::all(topology, &forward, &reply, drop.as_ref(), from, destination);
    Explanation {
        verdict: if drop.is_none() { "Allow" } else { "Deny" },
        forward: forward.hops,
        reply: reply.hops,
        drop,
        findings,
    }
}

/// Who sends, and with which addresses.
fn resolve(topology: &Topology, query: &Query) -> Result<(Node, IpAddr, IpAddr), QueryError> {
    let (from, source) = match query.source {
        Endpoint::Nic(nic) => (Node::Nic(nic), None),
        Endpoint::Internet => (Node::Internet, None),
        Endpoint::Site(site) => (Node::Site(site), None),
        Endpoint::Address(address) => (owner(topology, address)?, Some(address)),
    };
    let sources = source.map_or_else(|| addresses(topology, from), |source| vec![source]);
    let destinations = match query.destination {
        Endpoint::Address(address) => vec![address],
        Endpoint::Internet => addresses(topology, Node::Internet),
        Endpoint::Site(site) => addresses(topology, Node::Site(site)),
        Endpoint::Nic(nic) => {
            let nic = &topology.nics[nic.0];
            // The Internet knows a NIC by its public address.
            let public = if from == Node::Internet {
                &nic.public_addresses[..]
            } else {
                &[]
            };
            public.iter().chain(&nic.addresses).copied().collect()
        }
    };
    if sources.is_empty() || destinations.is_empty() {
        return Err(QueryError(
            "the lab has no `internet:`; add one with `addresses`".to_owned(),
        ));
    }
    for v4 in [true, false] {
        let of_family = |all: &[IpAddr]| all.iter().copied().find(|address| address.is_ipv4() == v4);
        if let (Some(source), Some(destination)) = (of_family(&sources), of_family(&destinations)) {
            return Ok((from, source, destination));
        }
    }
    Err(QueryError(
        "source and destination have no address family in common; give both an IPv4 or both an IPv6 address"
            .to_owned(),
    ))
}

fn addresses(topology: &Topology, node: Node) -> Vec<IpAddr> {
    match node {
        Node::Nic(nic) => topology.nics[nic.0].addresses.clone(),
        Node::Internet => topology.internet.clone().unwrap_or_default(),
        Node::Site(site) => topology.sites[site.0].addresses.clone(),
        Node::Gateway(gateway) => topology.gateways[gateway.0].addresses.clone(),
    }
}

/// Who sends from an address.
fn owner(topology: &Topology, address: IpAddr) -> Result<Node, QueryError> {
    if let (None, Some(site)) = (topology.nic_at(address), topology.site_at(address)) {
        return Ok(Node::Site(site));
    }
    let mut nics = (0..)
        .zip(&topology.nics)
        .filter(|(_, nic)| nic.addresses.contains(&address));
    match (nics.next(), nics.next()) {
        (Some((index, _)), None) => Ok(Node::Nic(NicIndex(index))),
        (Some((_, one)), Some((_, other))) => Err(QueryError(format!(
            "{address} is an address of {} and of {}; name the NIC instead",
            one.name, other.name
        ))),
        (None, _)
            if topology
                .internet
                .iter()
                .flatten()
                .any(|public| *public == address) =>
        {
            Ok(Node::Internet)
        }
        (None, _) => Err(QueryError(format!(
            "nobody has the address {address}; send from a NIC, a VM, or an address of one"
        ))),
    }
}

fn flow_key(query: &Query, source: IpAddr, destination: IpAddr) -> FlowKey {
    let (protocol, source_port, destination_port) = match query.protocol {
        TestProtocol::Tcp => (Protocol::TCP, query.source_port, query.port),
        TestProtocol::Udp => (Protocol::UDP, query.source_port, query.port),
        // An echo request carries its identifier in both places.
        TestProtocol::Icmp if source.is_ipv4() => (Protocol::ICMP, query.source_port, query.source_port),
        TestProtocol::Icmp => (Protocol::ICMPV6, query.source_port, query.source_port),
    };
    FlowKey {
        source: mapped(source),
        destination: mapped(destination),
        source_port,
        destination_port,
        protocol,
    }
}

/// A packet to an address of its own machine never meets the fabric.
fn within_guest(topology: &Topology, at: Node, vm: &str, asked: bool) -> Explanation {
    let finding = Finding {
        code: "WithinGuest",
        message: format!(
            "the address is {vm}'s own; such packets stay in the guest and meet no rule or route"
        ),
    };
    let elsewhere = (!asked).then(|| findings::elsewhere(topology, at, "the packet"));
    Explanation {
        verdict: if asked { "Allow" } else { "Deny" },
        forward: Vec::new(),
        reply: Vec::new(),
        drop: (!asked).then(|| *walk::lost_silently(topology, at, "forward")),
        findings: std::iter::once(finding).chain(elsewhere).collect(),
    }
}

/// Two VNets may use the same addresses (VNET-07): a packet for one of them must not count as the other's.
fn is_asked(topology: &Topology, asked: &Endpoint, at: Node) -> bool {
    match *asked {
        Endpoint::Nic(nic) => same_guest(topology, at, Node::Nic(nic)),
        Endpoint::Internet => at == Node::Internet,
        Endpoint::Site(site) => at == Node::Site(site),
        Endpoint::Address(_) => true,
    }
}

fn same_guest(topology: &Topology, one: Node, other: Node) -> bool {
    match (one, other) {
        (Node::Nic(one), Node::Nic(other)) => {
            let vm = topology.nics[one.0].vm;
            one == other || (vm.is_some() && vm == topology.nics[other.0].vm)
        }
        _ => one == other,
    }
}
