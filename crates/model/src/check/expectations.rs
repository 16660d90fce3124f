//! `tests:`: who talks to whom, and what must come of it.

use crate::check::Scope;
use crate::check::nsgs::access;
use crate::config;
use crate::endpoint::EndpointIndex;
use crate::problems::{Problems, join};
use crate::topology::{Access, Endpoint, Test, TestProtocol, Topology};
use crate::words::{closest, shown};

/// The contract's closed list, which the engine's own is compared with.
pub const DROP_REASONS: &[&str] = &[
    "MalformedHeader",
    "MalformedVnetHeader",
    "UnsupportedProtocol",
    "UnknownNic",
    "SpoofedSource",
    "NsgOutbound",
    "NoRoute",
    "RouteNone",
    "NextHopUnreachable",
    "NoDestination",
    "NoInternet",
    "NoGateway",
    "NoBackend",
    "PeeringAccessOff",
    "ForwardedTrafficOff",
    "NotForNic",
    "NsgInbound",
    "PlatformReserved",
    "FragmentOutOfOrder",
    "FragmentOrphan",
    "IcmpUnrelated",
    "FlowLimit",
    "TtlExpired",
    "TooBig",
    "VmEgressCap",
    "LinkDown",
    "LinkLoss",
    "LinkQueueFull",
    "PortFull",
    "PortGone",
];

/// Fills `topology.tests`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let index = EndpointIndex::new(topology);
    let mut tests = Vec::new();
    for (position, test) in scope.config.tests.iter().enumerate() {
        let at = format!("tests.{position}");
        if problems.unreadable(&at) {
            continue;
        }
        let from = endpoint(&index, &test.from, &join(&at, "from"), problems);
        let to = endpoint(&index, &test.to, &join(&at, "to"), problems);
        if let Some(Endpoint::Address(address)) = from {
            sender(topology, address, &join(&at, "from"), problems);
        }
        let protocol = match test.protocol.unwrap_or_default() {
            config::TestProtocol::Tcp => TestProtocol::Tcp,
            config::TestProtocol::Udp => TestProtocol::Udp,
            config::TestProtocol::Icmp => TestProtocol::Icmp,
        };
        ports(test, protocol, &at, problems);
        let reason = reason(test, &at, problems);
        let (Some(from), Some(to)) = (from, to) else {
            continue;
        };
        tests.push(Test {
            from,
            to,
            protocol,
            port: test.port,
            source_port: test.source_port,
            expect: access(test.expect),
            reason,
        });
    }
    topology.tests = tests;
}

fn endpoint(index: &EndpointIndex<'_>, word: &str, at: &str, problems: &mut Problems) -> Option<Endpoint> {
    match index.find(word) {
        Ok(endpoint) => Some(endpoint),
        Err(unknown) => {
            let message = format!("there is no VM, NIC or address '{}'", shown(word));
            let problem = problems.error("InvalidResourceReference", at, message);
            match unknown.suggestion {
                Some(name) => problem.help(format!("did you mean '{name}'?")),
                None => problem.help("name a VM, a NIC, an address, or internet where the lab has one"),
            };
            None
        }
    }
}

/// Only who has an address can send from it.
fn sender(topology: &Topology, address: std::net::IpAddr, at: &str, problems: &mut Problems) {
    let internet = topology.internet.iter().flatten().any(|it| *it == address);
    if !internet && topology.nic_at(address).is_none() {
        problems
            .error(
                "InvalidResourceReference",
                at,
                format!("not exactly one NIC has the address {address}"),
            )
            .help("name the VM or NIC that sends");
    }
}

fn ports(test: &config::Test, protocol: TestProtocol, at: &str, problems: &mut Problems) {
    for (property, port) in [("port", test.port), ("sourcePort", test.source_port)] {
        match (protocol, port) {
            (TestProtocol::Icmp, Some(_)) => {
                problems
                    .error("Sim.Value", join(at, property), "Icmp has no ports")
                    .help(format!("remove '{property}'"));
            }
            (TestProtocol::Tcp | TestProtocol::Udp, Some(0)) => {
                problems.error(
                    "Sim.Value",
                    join(at, property),
                    "a port is from 1 to 65535, found 0",
                );
            }
            (TestProtocol::Tcp | TestProtocol::Udp, None) if property == "port" => {
                problems
                    .error("Sim.Value", at, format!("a test of {protocol:?} needs a 'port'"))
                    .help("add 'port', or use protocol Icmp");
            }
            _ => {}
        }
    }
}

fn reason(test: &config::Test, at: &str, problems: &mut Problems) -> Option<String> {
    let word = test.reason.as_ref()?;
    let at = join(at, "reason");
    if access(test.expect) == Access::Allow {
        problems
            .error("Sim.Value", at, "what is allowed has no drop reason")
            .help("remove 'reason', or expect Deny");
        return None;
    }
    if let Some(name) = DROP_REASONS.iter().find(|name| name.eq_ignore_ascii_case(word)) {
        return Some((*name).to_owned());
    }
    let problem = problems.error("Sim.Value", at, format!("'{}' is no drop reason", shown(word)));
    match closest(word, DROP_REASONS.iter().copied()) {
        Some(name) => problem.help(format!("did you mean '{name}'?")),
        None => problem.help("such as NsgInbound, NsgOutbound, RouteNone, PeeringAccessOff"),
    };
    None
}
