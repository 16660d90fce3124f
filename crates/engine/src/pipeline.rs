//! The packet path, read from top to bottom: the steps of one packet in order, by name.
//!
//! Parsing, and the packets that hit a cached decision, are taken burst by burst in `worker.rs`; what is said here
//! holds for them too, since a decision is only cached when these steps made it and nothing they read has changed.

use packet::{FlowKey, Fragment, Headers, Packet};

use crate::admit::admit;
use crate::backbone::Backbone;
use crate::classify::{Sender, classify, is_probed};
use crate::errors::Errors;
use crate::filter::{self, Access, Filtered};
use crate::flow::{Balancing, Cached, Flows, Seen, Slot};
use crate::fragment::Fragments;
use crate::gateway::{from_gateway, from_site};
use crate::link::{self, Way};
use crate::reason::DropReason;
use crate::rewrite::rewrite;
use crate::route::{Hop, from_internet, from_platform, route};
use crate::snapshot::{LogRuleId, NicId, Port, PortId, Snapshot};
use crate::stats::Lost;

/// A packet that was read and parsed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now_ns: u64,
    pub(crate) port: PortId,
    pub(crate) headers: &'a Headers,
}

/// What the path remembers from packet to packet.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) flows: Flows,
    pub(crate) fragments: Fragments,
    pub(crate) errors: Errors,
    pub(crate) backbone: Backbone,
}

/// Who sent a packet and where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) from: Option<NicId>,
    pub(crate) hop: Hop,
    /// The fabric cuts it into fragments of this size.
    pub(crate) fragment: Option<u16>,
    /// How it gets there, if not at once.
    pub(crate) way: Option<Way>,
}

/// All steps from classify to transmit.
pub(crate) fn forward(state: &mut State, arrival: &Arrival<'_>, packet: &mut Packet) -> Result<Path, Lost> {
    let Arrival {
        snapshot,
        now_ns,
        port,
        headers,
    } = *arrival;
    let sender = classify(snapshot, port, &headers.key).map_err(|reason| Lost {
        reason,
        nic: owner(snapshot, port),
    })?;
    let from = sender.nic();
    let fate = match (headers.fragment, headers.quoted) {
        (Fragment::Later { .. }, _) => state.fragments.follow(port, headers, from, now_ns),
        (Fragment::First { identification }, _)
            if state.fragments.repeats(port, headers, identification, now_ns) =>
        {
            return Err(Lost {
                reason: DropReason::FragmentOutOfOrder,
                nic: from,
            });
        }
        (_, Some(quoted)) => related(state, arrival, sender, &quoted),
        (_, None) => decide(state, arrival, sender),
    };
    let fate = fate.and_then(|hop| {
        let fragment = rewrite(&mut state.errors, arrival, packet, from, &hop);
        let fragment = fragment.map_err(|reason| Lost { reason, nic: from })?;
        Ok((hop, fragment))
    });
    if let Fragment::First { identification } = headers.fragment {
        state
            .fragments
            .begin(port, headers, identification, fate.map(|(hop, _)| hop), now_ns);
    }
    let (hop, fragment) = fate?;
    let way = link::way(&state.backbone, snapshot, from, &hop);
    Ok(Path {
        from,
        hop,
        fragment,
        way,
    })
}

/// The steps from flow to inbound filter.
fn decide(state: &mut State, arrival: &Arrival<'_>, sender: Sender) -> Result<Hop, Lost> {
    let Arrival {
        snapshot,
        port,
        headers,
        ..
    } = *arrival;
    let (from, key, flags) = (sender.nic(), &headers.key, headers.tcp_flags);
    let own = from.and_then(|nic| state.flows.find(port, key, nic, flags));
    if let Some(hop) = own.and_then(|own| cached(state, snapshot, own, headers)) {
        return Ok(hop);
    }
    if own.is_none() && from.is_some() && is_probed(key) {
        let reason = DropReason::PlatformReserved;
        return Err(Lost { reason, nic: from });
    }
    let mut logged = [None; 2];
    if let (Some(nic), None) = (from, own) {
        let filtered = filter::outbound(snapshot, nic, key);
        logged[0] = judge(state, snapshot, nic, &filtered, DropReason::NsgOutbound, key)?;
    }
    let balancing = own.map(|own| state.flows.balanced_so_far(own, flags));
    let (mut hop, mut seen) = next_hop(snapshot, sender, key, key, balancing.unwrap_or_default())?;
    if from.is_none()
        && let Some(known) = known_backend(&mut state.flows, snapshot, &hop, headers)
    {
        (hop, seen) = (known, known.rewrite.apply(key));
    }
    let record = hop
        .to
        .and_then(|nic| state.flows.find(hop.port, &seen.reversed(), nic, flags));
    if sender == Sender::Internet && record.is_none() && hop.rewrite.destination.is_none() {
        // A service answers a private address and never speaks first (ROUTE-09).
        return Err(Lost {
            reason: DropReason::NoDestination,
            nic: None,
        });
    }
    if let (Some(nic), None) = (hop.to, record) {
        let filtered = filter::inbound(snapshot, nic, &seen);
        logged[1] = judge(state, snapshot, nic, &filtered, DropReason::NsgInbound, &seen)?;
    }
    let ends = Ends {
        from,
        own,
        hop: &hop,
        seen: &seen,
        record,
        logged,
    };
    let (own, record) = remember(state, arrival, ends)?;
    balanced(&mut state.flows, &hop, key, own, record);
    if let Some(balanced) = hop.balanced {
        let minutes = snapshot.idle_minutes(balanced);
        let ends = own.into_iter().chain(record);
        ends.for_each(|slot| state.flows.outlast(slot, minutes));
    }
    Ok(hop)
}

/// Where a balanced flow from a site went so far (LB-02): it has no record at a sender that would say so, but one at its
/// backend. None: it is new, or not balanced.
fn known_backend(flows: &mut Flows, snapshot: &Snapshot, hop: &Hop, headers: &Headers) -> Option<Hop> {
    let (key, flags) = (&headers.key, headers.tcp_flags);
    let minutes = snapshot.idle_minutes(hop.balanced?);
    let mut backends = hop.at_backends(snapshot, key);
    backends.find(|hop| {
        let seen = hop.rewrite.apply(key);
        let record = hop
            .to
            .and_then(|nic| flows.find(hop.port, &seen.reversed(), nic, flags));
        record.is_some_and(|record| {
            let answer = flows.balancing(record).and_then(|balancing| balancing.answer);
            // A flow straight to the backend, on the same ports, is another.
            answer == hop.answer(key)
                && flows.is_remembered(record, minutes, flags)
                && admit(snapshot, hop, &seen).is_ok()
        })
    })
}

/// Keeps the backend of a balanced flow at its sender and the source of its replies at its backend (LB-01, LB-02). A
/// flow that reaches the backend directly on the same ports takes the place of a balanced one.
fn balanced(flows: &mut Flows, hop: &Hop, key: &FlowKey, own: Option<Slot>, record: Option<Slot>) {
    if let Some(own) = own {
        let answer = flows.balancing(own).and_then(|balancing| balancing.answer);
        let keep = hop.to.filter(|_| hop.balanced.is_some());
        // Each packet of a logged flow is counted at both ends.
        let logged = flows.is_logged(own) || record.is_some_and(|record| flows.is_logged(record));
        let whole = hop
            .to
            .filter(|_| (!hop.rewrite.is_none() || keep.is_some()) && !logged);
        flows.set_balancing(own, keep, answer, whole.map(|_| *hop));
        if answer.is_some() {
            return;
        }
    }
    if let Some(record) = record
        && own != Some(record)
    {
        let keep = flows.balancing(record).and_then(|balancing| balancing.keep);
        flows.set_balancing(record, keep, hop.answer(key), None);
    }
}

/// An ICMP error passes where the packet it quotes has passed: its sender received that, its receiver sent it.
fn related(state: &mut State, arrival: &Arrival<'_>, sender: Sender, quoted: &FlowKey) -> Result<Hop, Lost> {
    let Arrival {
        snapshot,
        port,
        headers,
        ..
    } = *arrival;
    let mut balancing = Balancing::default();
    if let Some(nic) = sender.nic() {
        let known = state.flows.find(port, &quoted.reversed(), nic, 0);
        let own = known.ok_or(Lost {
            reason: DropReason::IcmpUnrelated,
            nic: Some(nic),
        })?;
        balancing = state.flows.balancing(own).copied().unwrap_or_default();
    }
    // What is said about a balanced flow goes to its backend, though the frontend balances no ICMP.
    let routed = if balancing.keep.is_some() && quoted.source == headers.key.destination {
        quoted.reversed()
    } else {
        headers.key
    };
    let (hop, _) = next_hop(snapshot, sender, &routed, quoted, balancing)?;
    if let Some(nic) = hop.to {
        let form = hop.rewrite.apply_to_quoted(quoted, &headers.key);
        let known = state.flows.find(hop.port, &form, nic, 0);
        known.ok_or(Lost {
            reason: DropReason::IcmpUnrelated,
            nic: hop.to,
        })?;
    }
    Ok(hop)
}

/// Route and admit; also the key as the receiver sees it. `flow` as for [`route`].
fn next_hop(
    snapshot: &Snapshot,
    sender: Sender,
    key: &FlowKey,
    flow: &FlowKey,
    balancing: Balancing,
) -> Result<(Hop, FlowKey), Lost> {
    let from = sender.nic();
    let outcome = match sender {
        Sender::Nic(nic) => route(snapshot, nic, key, flow, balancing.keep).outcome,
        Sender::Internet => from_internet(snapshot, key),
        Sender::Platform(vnet) => from_platform(snapshot, vnet, key),
        Sender::Site(connection) => from_site(snapshot, connection, key, |_| {}),
        Sender::Gateway(gateway) => from_gateway(snapshot, gateway, key),
    };
    let mut hop = outcome.map_err(|reason| Lost { reason, nic: from })?;
    if let Some(answer) = balancing.answer
        && hop.rewrite.is_none()
    {
        hop.rewrite = answer;
    }
    let seen = hop.rewrite.apply(key);
    admit(snapshot, &hop, &seen).map_err(|reason| {
        let nic = if reason == DropReason::NotForNic {
            hop.to
        } else {
            from
        };
        Lost { reason, nic }
    })?;
    Ok((hop, seen))
}

/// Step 4 for a packet that is not the first of its tick: the decision kept in its entry, if it still holds. That of
/// a balanced flow holds for the tick: health may have changed (LB-07).
fn cached(state: &mut State, snapshot: &Snapshot, own: Slot, headers: &Headers) -> Option<Hop> {
    if state.flows.balancing(own).is_some() {
        let hop = state.flows.balanced(own, headers.tcp_flags)?;
        state.flows.sent(own, Seen::of(headers));
        return Some(hop);
    }
    let (decision, record) = state.flows.decision(snapshot, own)?;
    let port = snapshot.nics.get(decision.to.index())?.port;
    let seen = Seen::of(headers);
    state.flows.sent(own, seen);
    state.flows.received(record, seen);
    if link::is_immediate(&state.backbone, snapshot, decision.from, decision.peering) {
        state.flows.renew(own, record);
    }
    Some(Hop {
        to: Some(decision.to),
        port,
        peering: decision.peering,
        ..Hop::beyond(port)
    })
}

/// What the steps found out about a packet that passes.
struct Ends<'a> {
    from: Option<NicId>,
    own: Option<Slot>,
    hop: &'a Hop,
    seen: &'a FlowKey,
    record: Option<Slot>,
    /// The rules of flow logs that allowed the packet, at the sender and at the receiver.
    logged: [Option<LogRuleId>; 2],
}

/// Makes the records of both NICs where they are missing, or none of them, and keeps the decision. What the edge or a
/// gateway rewrites is decided anew for each packet: its state passes the filters, its route is looked up.
fn remember(
    state: &mut State,
    arrival: &Arrival<'_>,
    ends: Ends<'_>,
) -> Result<(Option<Slot>, Option<Slot>), Lost> {
    let Arrival {
        snapshot,
        port,
        headers,
        ..
    } = *arrival;
    let flows = &mut state.flows;
    let full = |nic| Lost {
        reason: DropReason::FlowLimit,
        nic,
    };
    let own = match (ends.own, ends.from) {
        (None, Some(nic)) => {
            let own = flows
                .open(port, &headers.key, nic, false, ends.record)
                .map_err(|_| full(ends.from))?;
            flows.set_idle(snapshot, own, nic);
            Some(own)
        }
        (own, _) => own,
    };
    let back = ends.seen.reversed();
    let record = match (ends.record, ends.hop.to) {
        // A NIC that talks to itself from and to one port: both its ends are one entry.
        (None, Some(_)) if (ends.hop.port, back) == (port, headers.key) => own,
        (None, Some(nic)) => match flows.open(ends.hop.port, &back, nic, true, own) {
            Ok(record) => {
                flows.set_idle(snapshot, record, nic);
                Some(record)
            }
            Err(_) => {
                if let (Some(own), None) = (own, ends.own) {
                    flows.close(own);
                }
                return Err(full(Some(nic)));
            }
        },
        (record, _) => record,
    };
    let made = [
        (own, ends.own, ends.logged[0]),
        (record, ends.record, ends.logged[1]),
    ];
    for (slot, before, rule) in made {
        if let (Some(slot), None, Some(rule)) = (slot, before, rule) {
            flows.follow(slot, rule);
        }
    }
    if let (Some(own), Some(record), Some(from), Some(to)) = (own, record, ends.from, ends.hop.to)
        && ends.hop.is_cacheable()
    {
        flows.set_decision(
            snapshot,
            own,
            record,
            Cached {
                from,
                to,
                peering: ends.hop.peering,
            },
        );
        if link::is_immediate(&state.backbone, snapshot, from, ends.hop.peering) {
            flows.renew(own, record);
        }
    }
    let seen = Seen::of(headers);
    own.into_iter().for_each(|own| flows.sent(own, seen));
    record.into_iter().for_each(|record| flows.received(record, seen));
    Ok((own, record))
}

/// Lets a packet pass a NIC's filters, or not. Returns what flow logs call the rule that allowed it, if they ask.
fn judge(
    state: &mut State,
    snapshot: &Snapshot,
    nic: NicId,
    filtered: &Filtered,
    reason: DropReason,
    key: &FlowKey,
) -> Result<Option<LogRuleId>, Lost> {
    let rule = filter::logged(snapshot, filtered, key);
    if filtered.access != Access::Deny {
        return Ok(rule);
    }
    if let Some(rule) = rule {
        let inbound = reason == DropReason::NsgInbound;
        state.flows.denied(rule, nic, inbound, *key);
    }
    Err(Lost {
        reason,
        nic: Some(nic),
    })
}

/// The NIC whose port this is, if it is one NIC's.
pub(crate) fn owner(snapshot: &Snapshot, port: PortId) -> Option<NicId> {
    match snapshot.ports.get(port.index()) {
        Some(&Port::Nic(nic)) => Some(nic),
        _ => None,
    }
}
