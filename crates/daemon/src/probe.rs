//! `POST /v1/probe`: packets between real sockets, and for those that got lost the engine's own record of why.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use engine::stats::{RecentDrop, Stats};
use packet::key::mapped;
use packet::{FlowKey, Protocol};
use tokio::sync::{Semaphore, oneshot};

use crate::api::{ProbeOutcome, ProbeProtocol, ProbeRequest, ProbeResult};
use crate::exchange::{Exchange, Listeners, Receiver, SOURCE_PORT, Seen};
use crate::learned;
use crate::running::Lab;
use crate::worker::monotonic_ns;

/// Probes under way at once; the others wait their turn. Each has a thread and two sockets, and its packets must not
/// wait for each other on two cores, or an answer could come later than a second.
const AT_ONCE: usize = 32;

/// What the lab's programs get to open their ports before a probe may take one.
const PROGRAMS_START: Duration = Duration::from_secs(2);

/// What BGP gets to tell its routes: sessions take a second or two, on a busy machine some more.
const ROUTES_START: Duration = Duration::from_secs(10);

/// Who probes, and what is under way.
#[derive(Debug)]
pub(crate) struct Prober {
    turns: Semaphore,
    listeners: Listeners,
    flows: Flows,
    identifier: AtomicU16,
}

/// One 5-tuple, whoever sends it: VNets with the same addresses (VNET-07) have the same ones, and the records of drops
/// do not tell them apart.
type Tuple = (IpAddr, u16, IpAddr, u16, ProbeProtocol);

/// The 5-tuples under way: of two probes with the same one neither could tell its answer or its drop.
#[derive(Debug, Default)]
struct Flows {
    busy: Mutex<HashSet<Tuple>>,
    freed: Condvar,
}

struct Busy<'a> {
    flows: &'a Flows,
    tuples: HashSet<Tuple>,
}

impl Prober {
    pub(crate) fn new() -> Self {
        Self {
            turns: Semaphore::new(AT_ONCE),
            listeners: Listeners::default(),
            flows: Flows::default(),
            identifier: AtomicU16::new(1),
        }
    }
}

/// Carries out one probe.
///
/// # Errors
/// The request names a namespace or address that the sender does not have, for people.
pub(crate) async fn probe(lab: &Arc<Lab>, request: ProbeRequest) -> Result<ProbeResult, String> {
    check(lab, &request)?;
    await_programs(lab, &request).await;
    await_routes(lab).await;
    let _turn = lab
        .prober
        .turns
        .acquire()
        .await
        .map_err(|error| error.to_string())?;
    let (sender, receiver) = oneshot::channel();
    let (thread_lab, thread_request) = (Arc::clone(lab), request.clone());
    std::thread::Builder::new()
        .name(String::from("probe"))
        .spawn(move || sender.send(exchange(&thread_lab, &thread_request)))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    let (seen, time_ns) = receiver
        .await
        .map_err(|_| String::from("the probe ended without a result"))??;
    let source_port = (request.protocol != ProbeProtocol::Icmp).then_some(seen.source_port);
    if let Some(latency) = seen.answered {
        return Ok(ProbeResult {
            result: ProbeOutcome::Allow,
            reason: None,
            nic: None,
            path: None,
            latency_us: Some(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
            source_port,
        });
    }
    let stats = lab.workers.stats().await;
    let lost = find_drop(&stats, &request, seen.source_port, &time_ns);
    Ok(ProbeResult {
        result: ProbeOutcome::Deny,
        reason: lost.map(|(drop, _)| drop.reason.name().to_owned()),
        nic: lost.and_then(|(drop, _)| lab.nic_name(drop.nic)),
        path: lost.map(|(_, path)| path.to_owned()),
        latency_us: None,
        source_port,
    })
}

fn check(lab: &Lab, request: &ProbeRequest) -> Result<(), String> {
    let backends = request.backends.iter().map(|backend| &backend.namespace);
    for name in std::iter::once(&request.from).chain(&request.to).chain(backends) {
        if lab.namespace(name).is_none() {
            return Err(format!("lab {} has no namespace {name}", lab.name));
        }
    }
    if request.source.is_ipv4() != request.destination.is_ipv4() {
        return Err(format!(
            "{} and {} are of different families",
            request.source, request.destination
        ));
    }
    if request.protocol != ProbeProtocol::Icmp && request.port == 0 {
        return Err(String::from("Tcp and Udp need a port from 1 to 65535"));
    }
    Ok(())
}

/// A listener of ours on a port that a program of the VM is about to take would keep the program from starting. And
/// what health probes say of a load balancer's backends has to be known before a packet can tell anything.
async fn await_programs(lab: &Lab, request: &ProbeRequest) {
    lab.health.settled(lab).await;
    let backends = request.backends.iter().map(|backend| backend.namespace.as_str());
    if backends
        .chain(request.to.as_deref())
        .any(|to| lab.has_programs(to))
    {
        tokio::time::sleep(PROGRAMS_START.saturating_sub(lab.started.elapsed())).await;
    }
}

/// What BGP has not told yet is no answer to how the lab forwards. A neighbour that says nothing is waited for once.
async fn await_routes(lab: &Lab) {
    let mut generations = lab.generations();
    let heard = async {
        while !learned::heard_all(&lab.current().generation.topology) {
            if generations.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(ROUTES_START.saturating_sub(lab.started.elapsed()), heard).await;
}

/// On a thread of its own: the sockets of one probe, and the time in which the 5-tuple was its alone.
fn exchange(lab: &Lab, request: &ProbeRequest) -> Result<(Seen, RangeInclusive<u64>), String> {
    let prober = &lab.prober;
    let wanted = request.source_port.unwrap_or(SOURCE_PORT);
    let to = receivers(lab, request);
    // A backend tells flows apart by its own address and port.
    let destinations = std::iter::once(SocketAddr::new(request.destination, request.port))
        .chain(to.iter().map(|receiver| receiver.address));
    let tuples = destinations
        .map(|to| (request.source, wanted, to.ip(), to.port(), request.protocol))
        .collect();
    // Echoes differ by their identifier.
    let busy = match request.protocol {
        ProbeProtocol::Icmp => None,
        _ => Some(prober.flows.take(tuples)),
    };
    let missing = || format!("lab {} has no namespace {}", lab.name, request.from);
    let from = lab.namespace(&request.from).ok_or_else(missing)?;
    let exchange = Exchange {
        from: &from,
        source: request.source,
        to: &to,
        destination: request.destination,
        protocol: request.protocol,
        port: request.port,
        source_port: request.source_port,
        identifier: prober.identifier.fetch_add(1, Ordering::Relaxed),
    };
    let started_ns = monotonic_ns();
    let seen = exchange.run(&prober.listeners)?;
    let time_ns = started_ns..=monotonic_ns();
    drop(busy);
    Ok((seen, time_ns))
}

/// Where the packet may arrive.
fn receivers(lab: &Lab, request: &ProbeRequest) -> Vec<Receiver> {
    let named = request.to.iter().map(|to| {
        let listen = request.listen.unwrap_or(request.destination);
        (to, SocketAddr::new(listen, request.port))
    });
    let backends = (request.backends.iter())
        .map(|backend| (&backend.namespace, SocketAddr::new(backend.address, backend.port)));
    let receiver = |(name, address): (&String, SocketAddr)| {
        Some(Receiver {
            name: name.clone(),
            namespace: lab.namespace(name)?,
            address,
        })
    };
    named.chain(backends).filter_map(receiver).collect()
}

impl Flows {
    /// Waits until nobody else uses one of the 5-tuples.
    fn take(&self, tuples: HashSet<Tuple>) -> Busy<'_> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.is_disjoint(&tuples) {
            busy = self.freed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        busy.extend(&tuples);
        Busy { flows: self, tuples }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut busy = self.flows.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|tuple| !self.tuples.contains(tuple));
        self.flows.freed.notify_all();
    }
}

/// The latest loss of the packet (`forward`) or of its reply (`return`) in the time of the probe.
fn find_drop<'a>(
    stats: &'a [Stats],
    request: &ProbeRequest,
    source_port: u16,
    time_ns: &RangeInclusive<u64>,
) -> Option<(&'a RecentDrop, &'static str)> {
    let protocol = match (request.protocol, request.destination) {
        (ProbeProtocol::Tcp, _) => Protocol::TCP,
        (ProbeProtocol::Udp, _) => Protocol::UDP,
        (ProbeProtocol::Icmp, IpAddr::V4(_)) => Protocol::ICMP,
        (ProbeProtocol::Icmp, IpAddr::V6(_)) => Protocol::ICMPV6,
    };
    // An echo has its identifier in both ports.
    let destination_port = match request.protocol {
        ProbeProtocol::Icmp => source_port,
        _ => request.port,
    };
    let to = |destination, destination_port| FlowKey {
        source: mapped(request.source),
        destination: mapped(destination),
        source_port,
        destination_port,
        protocol,
    };
    // The receiver's own address and port differ from those sent to where the fabric rewrites them.
    let mut forward = vec![
        to(request.destination, destination_port),
        to(request.listen.unwrap_or(request.destination), destination_port),
    ];
    forward.extend(
        request
            .backends
            .iter()
            .map(|backend| to(backend.address, backend.port)),
    );
    let path = |key: &FlowKey| {
        if forward.contains(key) {
            Some("forward")
        } else {
            forward.contains(&key.reversed()).then_some("return")
        }
    };
    let drops = stats.iter().flat_map(|stats| &stats.recent_drops);
    let ours = drops.filter(|drop| time_ns.contains(&drop.now_ns));
    ours.filter_map(|drop| path(&drop.key).map(|path| (drop, path)))
        .max_by_key(|(drop, _)| drop.now_ns)
}

#[cfg(test)]
mod tests {
    use engine::DropReason;
    use engine::snapshot::NicId;

    use super::*;

    fn request() -> ProbeRequest {
        ProbeRequest {
            from: String::from("web"),
            source: "10.0.0.4".parse().unwrap(),
            to: Some(String::from("db")),
            destination: "10.1.0.4".parse().unwrap(),
            listen: None,
            backends: Vec::new(),
            protocol: ProbeProtocol::Tcp,
            port: 5432,
            source_port: None,
        }
    }

    fn drop_of(key: FlowKey, reason: DropReason, now_ns: u64) -> RecentDrop {
        RecentDrop {
            key,
            reason,
            nic: Some(NicId(0)),
            now_ns,
        }
    }

    #[test]
    fn a_denial_is_explained_by_the_latest_drop_of_its_own_packet_or_reply() {
        let key = FlowKey {
            source: mapped("10.0.0.4".parse().unwrap()),
            destination: mapped("10.1.0.4".parse().unwrap()),
            source_port: SOURCE_PORT,
            destination_port: 5432,
            protocol: Protocol::TCP,
        };
        let other = FlowKey {
            destination_port: 22,
            ..key
        };
        let stats = |recent_drops| {
            [Stats {
                recent_drops,
                ..Stats::default()
            }]
        };
        let find = |stats: &[Stats]| {
            find_drop(stats, &request(), SOURCE_PORT, &(100..=200)).map(|(drop, path)| (drop.reason, path))
        };
        let before = drop_of(key, DropReason::RouteNone, 99);
        let foreign = drop_of(other, DropReason::FlowLimit, 120);
        let after = drop_of(key, DropReason::NsgOutbound, 201);
        assert_eq!(find(&stats(vec![before, foreign, after])), None);
        let forward = drop_of(key, DropReason::NsgInbound, 110);
        assert_eq!(
            find(&stats(vec![before, forward, foreign])),
            Some((DropReason::NsgInbound, "forward"))
        );
        let back = drop_of(key.reversed(), DropReason::NoRoute, 130);
        assert_eq!(
            find(&stats(vec![forward, foreign, back])),
            Some((DropReason::NoRoute, "return"))
        );
    }
}
