//! One thread's packet path over bursts: parses a whole burst, asks for the memory of its flows, then decides packet
//! by packet; and what the thread counts.

use packet::{Burst, Fault, FlowKey, Fragment, Headers, Packet, split};

use crate::backbone::{AtLink, Backbone, Entered, Journey};
use crate::errors::Errors;
use crate::flow::{Flows, Seen, Slot};
use crate::flow_log::FlowEvent;
use crate::fragment::Fragments;
use crate::link::Way;
use crate::link::lane::Wire;
use crate::pipeline::{self, Arrival, Path, State};
use crate::reason::DropReason;
use crate::snapshot::{LinkId, NicId, PortId, Snapshot};
use crate::stats::{Counters, Flow, Lost, Stats};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Forward {
        port: PortId,
        /// The receiver; None: the Internet.
        nic: Option<NicId>,
        /// The fabric cuts it into IP fragments of at most so many bytes (NET-03).
        fragment: Option<u16>,
    },
    /// It is under way; [`Worker::arrive`] hands it over when it is there.
    UnderWay,
    Drop(DropReason),
}

/// What happened to packets beyond their verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A packet of the burst processed last goes over this link, as it is now; `at_once`: it is through already, and
    /// nothing else is told of it there.
    Over {
        packet: usize,
        link: LinkId,
        fragment: Option<u16>,
        at_once: bool,
    },
    /// A packet of the burst processed last was lost at this NIC, if at one, and not on a link.
    Lost {
        packet: usize,
        nic: Option<NicId>,
    },
    AtLink(AtLink),
}

/// Sizes and times of a worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// Entries of the flow table, at most; a connection takes one at each NIC it leaves or enters (NET-13).
    /// Memory is taken as it is used, 128 bytes and about 11 of index per entry.
    pub flow_capacity: u32,
    /// Bytes under way, at most: on links with latency, and waiting at the caps of VMs.
    pub under_way_bytes: u64,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            // NET-13: 500,000 inbound and 500,000 outbound.
            flow_capacity: 1_000_000,
            // 10 Gbit/s over 200 ms.
            under_way_bytes: 256 << 20,
        }
    }
}

/// One thread's packet path and all its state.
///
/// State outlives snapshots, so a NIC and a port must keep their ids from one to the next, and a change in what a VNet's
/// packets depend on, ids of peerings included, must change that VNet's generation.
#[derive(Debug)]
pub struct Worker {
    state: State,
    counters: Counters,
    flow_capacity: u32,
    /// What was read of the burst processed last.
    read: Vec<Read>,
    verdicts: Vec<Verdict>,
    /// When each packet of the last [`Worker::arrive`] was due, and the link that it came out of.
    due: Vec<(u64, Option<LinkId>)>,
    /// Whether somebody listens to `told`.
    telling: bool,
    told: Vec<Told>,
}

#[derive(Debug)]
struct Read {
    headers: Result<Headers, Fault>,
    hash: u64,
    slot: Slot,
}

impl Worker {
    /// `seed` keys the hash tables; it must not be guessable by those whose packets are forwarded.
    #[must_use]
    pub fn new(options: WorkerOptions, seed: u64) -> Self {
        let WorkerOptions {
            flow_capacity,
            under_way_bytes,
        } = options;
        Self {
            state: State {
                flows: Flows::new(flow_capacity, seed),
                fragments: Fragments::new(seed),
                errors: Errors::new(),
                backbone: Backbone::new(under_way_bytes),
            },
            counters: Counters::new(),
            flow_capacity,
            read: Vec::new(),
            verdicts: Vec::new(),
            due: Vec::new(),
            telling: false,
            told: Vec::new(),
        }
    }

    /// Whether [`Worker::told`] is kept from now on. It costs something per packet.
    pub fn tell(&mut self, on: bool) {
        self.telling = on;
        self.told.clear();
        self.state.backbone.watch(on);
    }

    /// What was to be told of the last [`Worker::process`] or [`Worker::arrive`], in order. Empty unless [`Worker::tell`] is on.
    #[must_use]
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// Decides every packet of a burst read from `in_port`, in order, and rewrites those that need it.
    /// Afterwards `verdicts` holds one verdict per packet. `now_ns` is monotonic, from any start.
    pub fn process(
        &mut self,
        snapshot: &Snapshot,
        now_ns: u64,
        in_port: PortId,
        burst: &mut Burst,
        verdicts: &mut Vec<Verdict>,
    ) {
        self.state.flows.begin(snapshot, now_ns);
        self.state.errors.begin(snapshot);
        self.counters.fit(snapshot);
        self.parse(in_port, burst);
        verdicts.clear();
        if self.telling {
            self.told.clear();
            self.decide::<true>(snapshot, now_ns, in_port, burst, verdicts);
            self.told
                .extend(self.state.backbone.take_watched().map(Told::AtLink));
        } else {
            self.decide::<false>(snapshot, now_ns, in_port, burst, verdicts);
        }
        self.verdicts.clone_from(verdicts);
    }

    #[inline]
    fn decide<const TELL: bool>(
        &mut self,
        snapshot: &Snapshot,
        now_ns: u64,
        in_port: PortId,
        burst: &mut Burst,
        verdicts: &mut Vec<Verdict>,
    ) {
        for index in 0..self.read.len() {
            let verdict = match self.hit::<TELL>(snapshot, in_port, index) {
                Some(verdict) => verdict,
                None => self.step_by_step(snapshot, now_ns, in_port, burst, index),
            };
            verdicts.push(verdict);
        }
    }

    /// Reports that packet `index` of the burst processed last was to be forwarded but could not be written.
    pub fn lost(&mut self, index: usize, reason: DropReason, now_ns: u64) {
        let Some(Read {
            headers: Ok(headers), ..
        }) = self.read.get(index)
        else {
            return;
        };
        let Some(&Verdict::Forward { nic, .. }) = self.verdicts.get(index) else {
            return;
        };
        let (packets, bytes) = (headers.wire_packets, headers.wire_bytes);
        self.counters.not_received(nic, packets, bytes);
        self.counters
            .dropped(Lost { reason, nic }, Some(headers.key), packets, bytes, now_ns);
        self.verdicts[index] = Verdict::Drop(reason);
    }

    /// When the next packet that is under way arrives; None: none is.
    #[must_use]
    pub fn next_arrival_ns(&self) -> Option<u64> {
        self.state.backbone.next_ns()
    }

    /// Fills `burst` with packets that were under way and have arrived by now, as [`Worker::process`] would leave them.
    /// [`Worker::delivered`] says when they were written.
    pub fn arrive(
        &mut self,
        snapshot: &Snapshot,
        now_ns: u64,
        burst: &mut Burst,
        verdicts: &mut Vec<Verdict>,
    ) {
        burst.clear();
        verdicts.clear();
        self.read.clear();
        self.due.clear();
        self.told.clear();
        while let Some(packet) = burst.vacant_mut() {
            let Some(traveller) = self.state.backbone.arrive(snapshot, now_ns, packet) else {
                break;
            };
            let Journey {
                port,
                nic,
                fragment,
                wire,
                ..
            } = traveller.journey;
            let mut headers = packet.parse();
            if let Ok(headers) = &mut headers {
                (headers.wire_packets, headers.wire_bytes) = (wire.packets, wire.bytes);
            }
            self.counters.forwarded(None, nic, wire.packets, wire.bytes);
            self.read.push(Read {
                headers,
                hash: 0,
                slot: Slot::NONE,
            });
            verdicts.push(Verdict::Forward { port, nic, fragment });
            self.due.push((traveller.arrives_ns, traveller.link));
            burst.length += 1;
        }
        self.count_losses(None, now_ns);
        self.told
            .extend(self.state.backbone.take_watched().map(Told::AtLink));
        self.verdicts.clone_from(verdicts);
    }

    /// Counts how late the packets of the last [`Worker::arrive`] were, all of which had been written by `now_ns`.
    pub fn delivered(&mut self, now_ns: u64) {
        for (due_ns, link) in self.due.drain(..) {
            let error_ns = now_ns.saturating_sub(due_ns);
            match link {
                Some(link) => self.state.backbone.late(link, error_ns),
                None => self.counters.cap_delay_error.record(error_ns),
            }
        }
    }

    /// ICMP errors about packets of the burst processed last, to be written to the port it came from. They are the
    /// fabric's own: no counter knows them, and one that cannot be written is not missed.
    pub fn replies_mut(&mut self) -> &mut Burst {
        self.state.errors.replies_mut()
    }

    /// A copy of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            flows: self.state.flows.used(),
            flow_capacity: self.flow_capacity,
            links: self.state.backbone.stats(),
            delay_errors: self.state.backbone.delay_errors(),
            ..self.counters.copy()
        }
    }

    /// The records of NSG state that are alive, in no order.
    #[must_use]
    pub fn flows(&self, now_ns: u64) -> Vec<Flow> {
        self.state.flows.list(now_ns)
    }

    /// What happened to logged flows since the last call, in order, and how many events were not kept. Time passes here
    /// too: flows end, and are reported, where no packet comes any more.
    pub fn take_flow_events(&mut self, snapshot: &Snapshot, now_ns: u64) -> (Vec<FlowEvent>, u64) {
        self.state.flows.begin(snapshot, now_ns);
        self.state.flows.take_events()
    }

    /// Reads all headers, and has the lines of the flow table fetched meanwhile.
    fn parse(&mut self, port: PortId, burst: &mut Burst) {
        let flows = &self.state.flows;
        self.read.clear();
        for packet in burst.filled_mut() {
            let headers = packet.parse();
            let hash = headers
                .as_ref()
                .map_or(0, |headers| flows.hash(port, &headers.key));
            flows.prefetch(hash);
            self.read.push(Read {
                headers,
                hash,
                slot: Slot::NONE,
            });
        }
        for read in &mut self.read {
            read.slot = flows.candidate(read.hash);
        }
    }

    /// Step 4 for the common packet: whole, no ICMP error, not too big for any path, and its flow was looked at in this tick and generation.
    #[inline]
    fn hit<const TELL: bool>(&mut self, snapshot: &Snapshot, port: PortId, index: usize) -> Option<Verdict> {
        let Read { headers, slot, .. } = &self.read[index];
        let headers = headers.as_ref().ok()?;
        let large = headers.largest_wire_packet > u32::from(snapshot.least_mtu());
        if headers.fragment != Fragment::Whole || headers.quoted.is_some() || large {
            return None;
        }
        let cached = self
            .state
            .flows
            .hit(*slot, port, &headers.key, Seen::of(headers))?;
        let out = snapshot.nics.get(cached.to.index())?.port;
        let (packets, bytes) = (headers.wire_packets, headers.wire_bytes);
        self.counters
            .forwarded(Some(cached.from), Some(cached.to), packets, bytes);
        self.counters.crossed(cached.peering, packets, bytes);
        if TELL && let Some(peering) = cached.peering.and_then(|id| snapshot.peerings.get(id.index())) {
            self.tell_way(index, std::slice::from_ref(&peering.link), None, true);
        }
        Some(Verdict::Forward {
            port: out,
            nic: Some(cached.to),
            fragment: None,
        })
    }

    fn step_by_step(
        &mut self,
        snapshot: &Snapshot,
        now_ns: u64,
        port: PortId,
        burst: &mut Burst,
        index: usize,
    ) -> Verdict {
        let packet = &mut burst.packets[index];
        let headers = match &mut self.read[index].headers {
            Ok(headers) => headers,
            Err(fault) => {
                let lost = Lost {
                    reason: (*fault).into(),
                    nic: pipeline::owner(snapshot, port),
                };
                let bytes = u32::try_from(packet.bytes().len()).unwrap_or(u32::MAX);
                self.counters.dropped(lost, None, 1, bytes, now_ns);
                self.tell_loss(index, lost.nic);
                return Verdict::Drop(lost.reason);
            }
        };
        let (packets, bytes) = (headers.wire_packets, headers.wire_bytes);
        let arrival = Arrival {
            snapshot,
            now_ns,
            port,
            headers: &*headers,
        };
        match pipeline::forward(&mut self.state, &arrival, packet) {
            Ok(path) => {
                self.counters.forwarded(path.from, None, packets, bytes);
                let (packets, bytes) = match path.fragment {
                    Some(mtu) => split::wire(packet, headers, mtu),
                    None => (packets, bytes),
                };
                (headers.wire_packets, headers.wire_bytes) = (packets, bytes);
                let key = headers.key;
                let hop = &path.hop;
                if self.telling {
                    let legs = hop.legs(snapshot);
                    self.tell_way(index, legs.as_slice(), path.fragment, path.way.is_none());
                }
                let wire = Wire { packets, bytes };
                if let Some(way) = path.way {
                    let (entered, lost) = self.depart(snapshot, now_ns, (way, wire), &path, key, packet);
                    let (packets, bytes) =
                        (packets - lost.packets.min(packets), bytes - lost.bytes.min(bytes));
                    if let Some(reason) = entered {
                        // Of a loss on a link the link tells.
                        if way.cap.is_some() {
                            self.tell_loss(index, path.from);
                        }
                        return Verdict::Drop(reason);
                    }
                    for peering in hop.metered(path.from.is_some()) {
                        self.counters.crossed(peering, packets, bytes);
                    }
                    return Verdict::UnderWay;
                }
                for peering in hop.metered(path.from.is_some()) {
                    self.counters.crossed(peering, packets, bytes);
                }
                self.counters.forwarded(None, hop.to, packets, bytes);
                Verdict::Forward {
                    port: hop.port,
                    nic: hop.to,
                    fragment: path.fragment,
                }
            }
            Err(lost) => {
                self.counters
                    .dropped(lost, Some(headers.key), packets, bytes, now_ns);
                self.tell_loss(index, lost.nic);
                Verdict::Drop(lost.reason)
            }
        }
    }

    /// Sends a packet on its way, and counts what of it is lost at once. Returns why, if that is all of it, and how much.
    fn depart(
        &mut self,
        snapshot: &Snapshot,
        now_ns: u64,
        (way, wire): (Way, Wire),
        path: &Path,
        key: FlowKey,
        packet: &mut Packet,
    ) -> (Option<DropReason>, Wire) {
        let journey = Journey {
            from: path.from,
            port: path.hop.port,
            nic: path.hop.to,
            fragment: path.fragment,
            wire,
        };
        let backbone = &mut self.state.backbone;
        let entered = backbone.depart(snapshot, now_ns, way, &journey, packet);
        let (reason, lost) = self.count_losses(Some(key), now_ns);
        (reason.filter(|_| entered == Entered::Lost), lost)
    }

    /// Counts what was lost under way; `key` is that of packets which have just been sent. Returns the first reason, and how
    /// much was lost.
    fn count_losses(&mut self, key: Option<FlowKey>, now_ns: u64) -> (Option<DropReason>, Wire) {
        let mut reason = None;
        let mut all = Wire { packets: 0, bytes: 0 };
        for loss in self.state.backbone.take_lost() {
            let lost = Lost {
                reason: loss.reason,
                nic: loss.from,
            };
            let Wire { packets, bytes } = loss.wire;
            self.counters
                .dropped(lost, loss.key.or(key), packets, bytes, now_ns);
            reason = reason.or(Some(loss.reason));
            all.packets += packets;
            all.bytes += bytes;
        }
        (reason, all)
    }

    fn tell_way(&mut self, packet: usize, links: &[LinkId], fragment: Option<u16>, at_once: bool) {
        self.told.extend(links.iter().map(|&link| Told::Over {
            packet,
            link,
            fragment,
            at_once,
        }));
    }

    fn tell_loss(&mut self, packet: usize, nic: Option<NicId>) {
        if self.telling {
            self.told.push(Told::Lost { packet, nic });
        }
    }
}
