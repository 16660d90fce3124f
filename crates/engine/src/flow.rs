//! Step 4: NSG state and cached decisions, one entry for a flow at a NIC.
//! Reads: the port, the flow key, the time. Writes: entries, their class and their counters.
//! Ends with: `FlowLimit`.
//!
//! An entry is found by port and *outbound form* of the key: the key of packets the NIC sends in this flow, so a
//! packet it receives is looked up by its reversed key. A port with several NICs tells them by their source address,
//! so port and key also name the NIC. The same entry is
//! - the NIC's record of NSG state (NSG-08), whichever direction began; its presence lets packets of both pass, and
//! - the cached decision for packets the NIC sends: where they go, valid while neither VNet changed.
//!
//! The decision is linked to the receiver's record. A packet that hits a decision touches its own entry only; the
//! record is touched once per tick, and at changes of state.

mod balancing;

use packet::{FlowKey, Headers, Protocol};

use crate::flow_log::{FlowChange, FlowEvent, FlowLog};
use crate::snapshot::{LogRuleId, NicId, PeeringId, PortId, Snapshot, Vnet};
use crate::stats::Flow;
use crate::table::{Hot, NONE, Table};

pub(crate) use balancing::Balancing;

/// 2^28 ns, about a quarter of a second: times of flows are kept this coarse, so that four minutes are exact to 0.1 %.
const TICK_SHIFT: u32 = 28;
const MINUTE_NS: u64 = 60_000_000_000;
/// UDP and ICMP records end after four minutes. No VNet has less for TCP (NSG-19).
const DATAGRAM_IDLE_NS: u64 = 4 * MINUTE_NS;
/// After FIN or RST.
const CLOSING_IDLE_NS: u64 = 10_000_000_000;
/// A UDP or ICMP flow quiet for so long may go when the table is full.
const QUIET_NS: u64 = 30_000_000_000;
/// Entries looked at in one search for room or for expired ones: bounds the work per packet.
const LOOK_AT: usize = 16;
/// Entries of a class looked at for expired ones when a tick begins, of which there are four a second.
const LOOK_AT_PER_TICK: usize = 256;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Who goes first when the table is full, in this order; [`ESTABLISHED`] never does.
const HALF_OPEN: u8 = 0;
const CLOSING: u8 = 1;
const DATAGRAM: u8 = 2;
const ESTABLISHED: u8 = 3;
const CLASSES: usize = 4;

/// A place in the table. Valid until the next insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const NONE: Self = Self(NONE);
}

/// What of a packet changes a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) tcp_flags: u8,
    pub(crate) packets: u32,
    pub(crate) bytes: u32,
}

/// The NIC has as many flows as it may have, or the table is full of established ones (NET-13).
#[derive(Debug)]
pub(crate) struct Full;

/// A cached decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cached {
    pub(crate) from: NicId,
    pub(crate) to: NicId,
    pub(crate) peering: Option<PeeringId>,
}

/// Oldest and newest entry of a class, in the order of [`crate::table::Cold::queued`].
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

#[derive(Debug)]
pub(crate) struct Flows {
    table: Table,
    lists: [List; CLASSES],
    log: FlowLog,
    now_ns: u64,
    tick: u32,
    generation: u64,
    /// By NIC: its records, and how many it may have.
    per_nic: Vec<u32>,
    most_per_nic: u32,
    /// By slot, as far as balanced flows have come. Beside the table: flows without a load balancer have no room for it.
    balancing: Vec<Balancing>,
    /// Counts ticks and generations: a decision that carries the present one was checked against both. Never zero.
    stamp: u32,
}

impl Flows {
    pub(crate) fn new(capacity: u32, seed: u64) -> Self {
        Self {
            table: Table::new(capacity, seed),
            lists: [List {
                first: NONE,
                last: NONE,
            }; CLASSES],
            log: FlowLog::default(),
            now_ns: 0,
            tick: 0,
            generation: 0,
            per_nic: Vec::new(),
            most_per_nic: 0,
            balancing: Vec::new(),
            stamp: 1,
        }
    }

    /// Sets the time and the generation of what follows, and takes out some of what is over.
    pub(crate) fn begin(&mut self, snapshot: &Snapshot, now_ns: u64) {
        self.now_ns = now_ns;
        let (tick, generation) = (ticks(now_ns), snapshot.generation);
        if (tick, generation) == (self.tick, self.generation) {
            return;
        }
        self.stamp = self.stamp.wrapping_add(1).max(1);
        self.generation = generation;
        self.most_per_nic = snapshot.flows_per_nic;
        if self.per_nic.len() < snapshot.nics.len() {
            self.per_nic.resize(snapshot.nics.len(), 0);
        }
        if tick != self.tick {
            self.tick = tick;
            (0..CLASSES).for_each(|class| self.expire(class, LOOK_AT_PER_TICK));
            while let Some((slot, rule, counts)) = self.log.next_due(tick) {
                self.tell(slot, rule, FlowChange::Continues(counts));
            }
        }
    }

    #[inline]
    pub(crate) fn hash(&self, port: PortId, key: &FlowKey) -> u64 {
        self.table.hash(port, key)
    }

    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.table.prefetch(hash);
    }

    /// A guess at the slot, to be confirmed by [`Flows::hit`].
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> Slot {
        Slot(self.table.candidate(hash))
    }

    /// The decision for a plain packet, if the slot holds this flow and it was checked at this generation in this tick.
    #[inline]
    pub(crate) fn hit(&mut self, slot: Slot, port: PortId, key: &FlowKey, seen: Seen) -> Option<Cached> {
        let hot = self.table.hot.get_mut(slot.0 as usize)?;
        if hot.stamp != self.stamp || !hot.is(port, key) || seen.tcp_flags & (FIN | SYN | RST) != 0 {
            return None;
        }
        // What overflows the pending counters goes the long way, which adds them up.
        let packets = hot.packets.checked_add(u16::try_from(seen.packets).ok()?)?;
        hot.bytes = hot.bytes.checked_add(seen.bytes)?;
        hot.packets = packets;
        Some(cached(hot))
    }

    /// The entry of a packet that `nic` sends (`key`) or receives (the key reversed), unless its time is over. A new
    /// connection on the ports of one that is closing has no entry, nor has a NIC that got the address of another.
    pub(crate) fn find(&mut self, port: PortId, key: &FlowKey, nic: NicId, tcp_flags: u8) -> Option<Slot> {
        let slot = self.table.find(self.table.hash(port, key), port, key)?;
        let reopened = self.table.cold[slot as usize].class == CLOSING && tcp_flags & (SYN | ACK) == SYN;
        let inherited = self.table.hot[slot as usize].from != nic.0;
        if reopened || inherited || self.is_over(slot) {
            self.remove(slot);
            return None;
        }
        Some(Slot(slot))
    }

    /// The decision kept in an entry and the record it is linked to, if it holds in this snapshot: the generations of
    /// both VNets are those it was made at, and the record is alive.
    pub(crate) fn decision(&self, snapshot: &Snapshot, slot: Slot) -> Option<(Cached, Slot)> {
        let cold = &self.table.cold[slot.0 as usize];
        let peer = self.table.cold.get(cold.peer as usize)?;
        let decision = cached(&self.table.hot[slot.0 as usize]);
        let generations = [
            generation(snapshot, decision.from)?,
            generation(snapshot, decision.to)?,
        ];
        let valid =
            peer.serial == cold.peer_serial && cold.generations == generations && !self.is_over(cold.peer);
        valid.then_some((decision, Slot(cold.peer)))
    }

    /// Makes room for, and makes, the record at `nic` of a flow that rules just allowed. `keep` is not evicted for it.
    /// What the NIC may have at most is Azure's limit; what the table holds is ours.
    pub(crate) fn open(
        &mut self,
        port: PortId,
        key: &FlowKey,
        nic: NicId,
        inbound: bool,
        keep: Option<Slot>,
    ) -> Result<Slot, Full> {
        if self.is_at_limit(nic) {
            (0..CLASSES).for_each(|class| self.expire(class, LOOK_AT));
            if self.is_at_limit(nic) {
                return Err(Full);
            }
        }
        if self.table.is_full() {
            self.evict(keep.map_or(NONE, |slot| slot.0))?;
        }
        let slot = self
            .table
            .insert(self.table.hash(port, key), port, key)
            .ok_or(Full)?;
        let cold = &mut self.table.cold[slot as usize];
        (cold.inbound, cold.tick) = (inbound, self.tick);
        self.table.hot[slot as usize].from = nic.0;
        if let Some(count) = self.per_nic.get_mut(nic.index()) {
            *count += 1;
        }
        self.push(slot, HALF_OPEN);
        Ok(Slot(slot))
    }

    /// Takes back an entry that [`Flows::open`] made for a packet that is dropped after all.
    pub(crate) fn close(&mut self, slot: Slot) {
        self.remove(slot.0);
    }

    /// How long a quiet TCP flow of the NIC is remembered: as its VNet says now (NSG-19).
    pub(crate) fn set_idle(&mut self, snapshot: &Snapshot, slot: Slot, nic: NicId) {
        let minutes = vnet(snapshot, nic).map_or(0, |vnet| vnet.tcp_idle_minutes);
        self.table.cold[slot.0 as usize].tcp_idle_minutes = minutes;
    }

    /// Keeps a decision of this generation: packets of `own` go to the NIC whose record is `peer`.
    pub(crate) fn set_decision(&mut self, snapshot: &Snapshot, own: Slot, peer: Slot, decision: Cached) {
        let generations = [decision.from, decision.to].map(|nic| generation(snapshot, nic));
        let [Some(from), Some(to)] = generations else {
            return;
        };
        let peer_serial = self.table.cold[peer.0 as usize].serial;
        let cold = &mut self.table.cold[own.0 as usize];
        cold.generations = [from, to];
        (cold.peer, cold.peer_serial) = (peer.0, peer_serial);
        let hot = &mut self.table.hot[own.0 as usize];
        (hot.from, hot.to) = (decision.from.0, decision.to.0);
        hot.peering = decision.peering.map_or(NONE, |peering| peering.0);
    }

    /// Lets packets of this flow hit the decision, which holds, until the tick or the generation ends; unless one of
    /// its two records is logged.
    pub(crate) fn renew(&mut self, slot: Slot, record: Slot) {
        if !self.is_logged(slot) && !self.is_logged(record) {
            self.table.hot[slot.0 as usize].stamp = self.stamp;
        }
    }

    pub(crate) fn is_logged(&self, slot: Slot) -> bool {
        self.table.cold[slot.0 as usize].logged
    }

    /// Lets the flow log follow a record that one of its rules has just allowed.
    pub(crate) fn follow(&mut self, slot: Slot, rule: LogRuleId) {
        let cold = &mut self.table.cold[slot.0 as usize];
        cold.logged = true;
        self.log.follow(slot.0, cold.serial, rule, self.tick);
        self.tell(slot.0, rule, FlowChange::Began);
    }

    /// Tells the flow log of a packet that one of its rules has denied.
    pub(crate) fn denied(&mut self, rule: LogRuleId, nic: NicId, inbound: bool, key: FlowKey) {
        self.log.tell(FlowEvent {
            rule,
            nic,
            inbound,
            key,
            now_ns: self.now_ns,
            change: FlowChange::Denied,
        });
    }

    /// What happened to logged flows since the last call, and how much of it was not kept.
    pub(crate) fn take_events(&mut self) -> (Vec<FlowEvent>, u64) {
        self.log.take()
    }

    fn tell(&mut self, slot: u32, rule: LogRuleId, change: FlowChange) {
        let flow = self.describe(slot, self.tick);
        let Some(nic) = flow.nic else { return };
        self.log.tell(FlowEvent {
            rule,
            nic,
            inbound: flow.inbound,
            key: flow.key,
            now_ns: self.now_ns,
            change,
        });
    }

    /// A packet was sent in this flow: counts it, keeps the entry alive and moves it through its states.
    pub(crate) fn sent(&mut self, slot: Slot, seen: Seen) {
        let cold = &mut self.table.cold[slot.0 as usize];
        let hot = &mut self.table.hot[slot.0 as usize];
        cold.packets += u64::from(hot.packets) + u64::from(seen.packets);
        cold.bytes += u64::from(hot.bytes) + u64::from(seen.bytes);
        (hot.packets, hot.bytes) = (0, 0);
        let reply = cold.inbound;
        if cold.logged {
            self.log.count(slot.0, seen, !reply);
        }
        self.touch(slot, seen.tcp_flags, reply);
    }

    /// A packet of this flow was received by the NIC that the entry belongs to.
    pub(crate) fn received(&mut self, slot: Slot, seen: Seen) {
        let cold = &self.table.cold[slot.0 as usize];
        let reply = !cold.inbound;
        if cold.logged {
            self.log.count(slot.0, seen, !reply);
        }
        self.touch(slot, seen.tcp_flags, reply);
    }

    pub(crate) fn used(&self) -> u32 {
        self.table.used()
    }

    /// All records alive at `now_ns`.
    pub(crate) fn list(&self, now_ns: u64) -> Vec<Flow> {
        let now = ticks(now_ns);
        let alive = self.table.slots().filter(|&slot| !self.is_over_at(slot, now));
        alive.map(|slot| self.describe(slot, now)).collect()
    }

    fn describe(&self, slot: u32, now: u32) -> Flow {
        let (hot, cold) = (&self.table.hot[slot as usize], &self.table.cold[slot as usize]);
        Flow {
            nic: (hot.from != NONE).then_some(NicId(hot.from)),
            inbound: cold.inbound,
            key: if cold.inbound {
                hot.key().reversed()
            } else {
                hot.key()
            },
            packets: cold.packets + u64::from(hot.packets),
            bytes: cold.bytes + u64::from(hot.bytes),
            idle_ms: (u64::from(age(now, cold.tick)) << TICK_SHIFT) / 1_000_000,
        }
    }

    fn touch(&mut self, slot: Slot, tcp_flags: u8, reply: bool) {
        let cold = &mut self.table.cold[slot.0 as usize];
        cold.tick = self.tick;
        if tcp_flags & (FIN | RST) != 0 && cold.class != CLOSING {
            self.requeue(slot.0, CLOSING);
        } else if reply && cold.class == HALF_OPEN {
            let tcp = self.table.hot[slot.0 as usize].protocol() == Protocol::TCP;
            self.requeue(slot.0, if tcp { ESTABLISHED } else { DATAGRAM });
        }
    }

    fn is_over(&self, slot: u32) -> bool {
        self.is_over_at(slot, self.tick)
    }

    fn is_over_at(&self, slot: u32, now: u32) -> bool {
        let cold = &self.table.cold[slot as usize];
        let limit = if cold.class == CLOSING {
            CLOSING_IDLE_NS
        } else if self.table.hot[slot as usize].protocol() == Protocol::TCP {
            u64::from(cold.tcp_idle_minutes) * MINUTE_NS
        } else {
            DATAGRAM_IDLE_NS
        };
        age(now, cold.tick) > ticks(limit)
    }

    /// The list is in the order of queueing, and who was seen since goes to its end: only what has waited can be over.
    fn expire(&mut self, class: usize, look_at: usize) {
        let wait = ticks(if class == usize::from(CLOSING) {
            CLOSING_IDLE_NS
        } else {
            DATAGRAM_IDLE_NS
        });
        for _ in 0..look_at {
            let slot = self.lists[class].first;
            if slot == NONE || age(self.tick, self.table.cold[slot as usize].queued) <= wait {
                return;
            }
            if self.is_over(slot) {
                self.remove(slot);
            } else {
                self.requeue(slot, self.table.cold[slot as usize].class);
            }
        }
    }

    /// Half-open first, then closing, then quiet UDP and ICMP, each oldest first; never `keep`.
    fn evict(&mut self, keep: u32) -> Result<(), Full> {
        for class in [HALF_OPEN, CLOSING] {
            let first = self.lists[usize::from(class)].first;
            let second = if first == NONE {
                NONE
            } else {
                self.table.cold[first as usize].next
            };
            let victim = if first == keep { second } else { first };
            if victim != NONE {
                self.remove(victim);
                return Ok(());
            }
        }
        for class in [DATAGRAM, ESTABLISHED] {
            for _ in 0..LOOK_AT {
                let slot = self.lists[usize::from(class)].first;
                if slot == NONE {
                    break;
                }
                let quiet = class == DATAGRAM
                    && age(self.tick, self.table.cold[slot as usize].tick) > ticks(QUIET_NS);
                if slot != keep && (quiet || self.is_over(slot)) {
                    self.remove(slot);
                    return Ok(());
                }
                self.requeue(slot, class);
            }
        }
        Err(Full)
    }

    fn is_at_limit(&self, nic: NicId) -> bool {
        self.per_nic
            .get(nic.index())
            .is_some_and(|&count| count >= self.most_per_nic)
    }

    fn remove(&mut self, slot: u32) {
        if self.table.cold[slot as usize].logged
            && let Some((rule, counts)) = self.log.leave(slot)
        {
            self.tell(slot, rule, FlowChange::Ended(counts));
        }
        let nic = NicId(self.table.hot[slot as usize].from);
        if let Some(count) = self.per_nic.get_mut(nic.index()) {
            *count = count.saturating_sub(1);
        }
        self.unlink(slot);
        self.table.remove(slot);
    }

    fn requeue(&mut self, slot: u32, class: u8) {
        self.unlink(slot);
        self.push(slot, class);
    }

    fn push(&mut self, slot: u32, class: u8) {
        let last = self.lists[usize::from(class)].last;
        let cold = &mut self.table.cold[slot as usize];
        (cold.class, cold.queued, cold.previous, cold.next) = (class, self.tick, last, NONE);
        if last == NONE {
            self.lists[usize::from(class)].first = slot;
        } else {
            self.table.cold[last as usize].next = slot;
        }
        self.lists[usize::from(class)].last = slot;
    }

    fn unlink(&mut self, slot: u32) {
        let cold = self.table.cold[slot as usize];
        let list = &mut self.lists[usize::from(cold.class)];
        if cold.previous == NONE {
            list.first = cold.next;
        } else {
            self.table.cold[cold.previous as usize].next = cold.next;
        }
        if cold.next == NONE {
            list.last = cold.previous;
        } else {
            self.table.cold[cold.next as usize].previous = cold.previous;
        }
    }
}

impl Seen {
    #[inline]
    pub(crate) fn of(headers: &Headers) -> Self {
        Self {
            tcp_flags: headers.tcp_flags,
            packets: headers.wire_packets,
            bytes: headers.wire_bytes,
        }
    }
}

#[inline]
fn cached(hot: &Hot) -> Cached {
    let peering = (hot.peering != NONE).then_some(PeeringId(hot.peering));
    Cached {
        from: NicId(hot.from),
        to: NicId(hot.to),
        peering,
    }
}

fn generation(snapshot: &Snapshot, nic: NicId) -> Option<u64> {
    Some(vnet(snapshot, nic)?.generation)
}

fn vnet(snapshot: &Snapshot, nic: NicId) -> Option<&Vnet> {
    snapshot.vnets.get(snapshot.nics.get(nic.index())?.vnet.index())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "ticks wrap after 36 years and are only compared by age"
)]
const fn ticks(nanoseconds: u64) -> u32 {
    (nanoseconds >> TICK_SHIFT) as u32
}

/// Ticks from `then` to `now`; zero if the clock went back.
fn age(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX / 2 { 0 } else { age }
}
