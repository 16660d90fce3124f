//! Packets under way: what has left its sender and is not yet at its receiver.
//!
//! A packet passes its sender's cap and then link after link; when it comes out of one is known as it enters it. Packets on
//! one of these arrive in the order they left, so it is a queue, and only the heads of the queues have to be kept in
//! order of time; what may overtake waits beside them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use packet::segments::{finish_checksum, partial_segments, segments};
use packet::{Fault, FlowKey, Headers, Packet, VnetHeader, split};

use crate::delay_error::DelayError;
use crate::fifo::{Fifo, Pool};
use crate::link::lane::{Lane, Wire};
use crate::link::{Legs, Way};
use crate::reason::DropReason;
use crate::snapshot::{EgressCap, Link, LinkId, NicId, PortId, Snapshot};
use crate::stats::LinkStats;
use crate::wheel::Wheel;

/// Where a packet goes, and who lets it go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journey {
    pub(crate) from: Option<NicId>,
    pub(crate) port: PortId,
    pub(crate) nic: Option<NicId>,
    /// It travels in IP fragments of at most so many bytes.
    pub(crate) fragment: Option<u16>,
    /// As it is counted everywhere.
    pub(crate) wire: Wire,
}

/// A packet that has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traveller {
    pub(crate) arrives_ns: u64,
    pub(crate) journey: Journey,
    /// What it came out of last; None: out of its sender's cap.
    pub(crate) link: Option<LinkId>,
}

/// A packet that was lost on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) reason: DropReason,
    pub(crate) from: Option<NicId>,
    pub(crate) wire: Wire,
    /// As it was when it was lost; None for one that has just been sent, which its sender knows.
    pub(crate) key: Option<FlowKey>,
}

/// A packet at one end of a link, as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtLink {
    pub link: LinkId,
    /// At its far end.
    pub out: bool,
    /// It goes no further than into the link, and counts as lost at the NIC that sent it.
    pub lost: Option<(DropReason, Option<NicId>)>,
    /// It travels in IP fragments of at most so many bytes.
    pub fragment: Option<u16>,
    pub vnet: VnetHeader,
    pub bytes: Arc<[u8]>,
}

/// What becomes of a packet that enters the backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// All of it that was not lost.
    UnderWay,
    /// All of it was lost.
    Lost,
    /// Nothing is in its way any more.
    There,
}

/// What waits at a VM's cap at most, by how long it would wait: about what a host's queue takes before it drops.
const CAP_QUEUE_NS: u64 = 20_000_000;
/// Bytes of a block, and of a block of travellers about: a queue in use holds two to four blocks more than it needs.
const BLOCK_BYTES: usize = 1 << 14;
/// Blocks of either kind that are kept when nothing is under way: 4 MiB, so that a busy link asks for memory seldom.
const KEPT_BLOCKS: usize = 128;

/// What a packet waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stage {
    /// Out of the VM whose first NIC this is.
    Cap(NicId),
    Link(LinkId),
}

/// A packet that waits, without its bytes and the links after this one, which precede them.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    arrives_ns: u64,
    journey: Journey,
    vnet: VnetHeader,
    legs: u32,
    length: u32,
}

/// A packet that overtakes, with the links after this one and its bytes.
#[derive(Debug)]
struct Stray {
    link: LinkId,
    waiting: Waiting,
    bytes: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Fifo<Waiting>,
    bytes: Fifo<u8>,
}

#[derive(Debug)]
pub(crate) struct Backbone {
    stages: Stages,
    /// Wire packets of what cannot pass whole are made here.
    segment: Packet,
    fragment: Packet,
    lost: Vec<Loss>,
}

#[derive(Debug)]
struct Stages {
    queues: HashMap<Stage, Queue>,
    /// The head of every queue that has one.
    heads: Wheel<Stage>,
    /// What overtakes, by when it arrives and the order in which it came.
    strays: BTreeMap<(u64, u64), Stray>,
    /// How many packets have entered anything.
    entered: u64,
    /// By [`LinkId`]; None: no packet has entered it.
    lanes: Vec<Option<Box<Lane>>>,
    busy_until_ns: HashMap<NicId, u64>,
    waiting: Pool<Waiting>,
    bytes: Pool<u8>,
    used_bytes: u64,
    capacity_bytes: u64,
    /// What was seen at the ends of links, while somebody watches.
    watched: Option<Vec<AtLink>>,
}

impl Backbone {
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self {
            stages: Stages {
                queues: HashMap::new(),
                heads: Wheel::new(),
                strays: BTreeMap::new(),
                entered: 0,
                lanes: Vec::new(),
                busy_until_ns: HashMap::new(),
                waiting: Pool::new(BLOCK_BYTES / size_of::<Waiting>(), KEPT_BLOCKS),
                bytes: Pool::new(BLOCK_BYTES, KEPT_BLOCKS),
                used_bytes: 0,
                capacity_bytes,
                watched: None,
            },
            segment: Packet::new(),
            fragment: Packet::new(),
            lost: Vec::new(),
        }
    }

    /// Nothing waits on the link.
    pub(crate) fn is_empty(&self, link: LinkId) -> bool {
        let lane = self.stages.lanes.get(link.index()).and_then(Option::as_deref);
        lane.is_none_or(|lane| lane.stats.waiting_packets == 0)
    }

    /// Sends a packet on its way. What of it is lost at once is in [`Backbone::take_lost`].
    pub(crate) fn depart(
        &mut self,
        snapshot: &Snapshot,
        now_ns: u64,
        way: Way,
        journey: &Journey,
        packet: &mut Packet,
    ) -> Entered {
        let before = self.stages.entered;
        let entered = match way.cap {
            None => self.cross(snapshot, now_ns, way.legs, journey, packet),
            Some(cap) => {
                (self.stages).pass_cap(cap, now_ns, way.legs, journey, packet, &mut self.lost);
                Entered::UnderWay
            }
        };
        if entered == Entered::UnderWay && self.stages.entered == before {
            return Entered::Lost;
        }
        entered
    }

    /// When the next packet comes out of something; None: none is under way.
    #[inline]
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let head = self.stages.heads.next_ns();
        if self.stages.strays.is_empty() {
            return head;
        }
        let stray = self.stages.strays.first_key_value().map(|((at_ns, _), _)| *at_ns);
        head.into_iter().chain(stray).min()
    }

    /// The next packet that is at its receiver by now, its bytes in `packet`. What is lost meanwhile is in
    /// [`Backbone::take_lost`].
    pub(crate) fn arrive(
        &mut self,
        snapshot: &Snapshot,
        now_ns: u64,
        packet: &mut Packet,
    ) -> Option<Traveller> {
        loop {
            let at_ns = self.next_ns().filter(|at_ns| *at_ns <= now_ns)?;
            let (traveller, legs) = self.stages.take_out(at_ns, packet)?;
            if legs.as_slice().is_empty() {
                return Some(traveller);
            }
            let known = self.lost.len();
            if self.cross(snapshot, at_ns, legs, &traveller.journey, packet) == Entered::There {
                return Some(traveller);
            }
            if self.lost.len() > known {
                let key = packet.parse().ok().map(|headers| headers.key);
                self.lost[known..].iter_mut().for_each(|loss| loss.key = key);
            }
        }
    }

    /// Whether somebody watches the ends of links from now on.
    pub(crate) fn watch(&mut self, on: bool) {
        self.stages.watched = on.then(Vec::new);
    }

    /// What was seen at the ends of links since the last call, in order.
    pub(crate) fn take_watched(&mut self) -> impl Iterator<Item = AtLink> {
        self.stages
            .watched
            .iter_mut()
            .flat_map(|watched| watched.drain(..))
    }

    /// What was lost since the last call.
    pub(crate) fn take_lost(&mut self) -> std::vec::Drain<'_, Loss> {
        self.lost.drain(..)
    }

    /// A packet that came out of the link was so late.
    pub(crate) fn late(&mut self, link: LinkId, error_ns: u64) {
        if let Some(Some(lane)) = self.stages.lanes.get_mut(link.index()) {
            lane.delay_error.record(error_ns);
        }
    }

    /// How late packets came out of every link that one has entered, by [`LinkId`].
    pub(crate) fn delay_errors(&self) -> Vec<Option<DelayError>> {
        let lanes = self.stages.lanes.iter();
        lanes
            .map(|lane| lane.as_ref().map(|lane| lane.delay_error.clone()))
            .collect()
    }

    /// Counters of every link that a packet has entered, by [`LinkId`].
    pub(crate) fn stats(&self) -> Vec<LinkStats> {
        let lanes = self.stages.lanes.iter();
        lanes
            .map(|lane| lane.as_ref().map_or_else(LinkStats::default, |lane| lane.stats))
            .collect()
    }

    /// Enters the next link that is not free, packet by packet where it tells them apart.
    fn cross(
        &mut self,
        snapshot: &Snapshot,
        now_ns: u64,
        mut legs: Legs,
        journey: &Journey,
        packet: &mut Packet,
    ) -> Entered {
        let next = std::iter::from_fn(|| legs.pop()).find_map(|id| {
            let link = snapshot.links.get(id.index())?;
            let next = (!link.is_free() || !self.is_empty(id)).then_some((id, link));
            if next.is_none() {
                self.stages.seen(id, false, None, journey, packet);
                self.stages.seen(id, true, None, journey, packet);
            }
            next
        });
        let Some((id, link)) = next else {
            return Entered::There;
        };
        let Self {
            stages,
            segment,
            fragment,
            lost,
        } = self;
        let mut enter = |packet: &mut Packet, journey: &Journey| {
            stages.pass_link((id, link), now_ns, legs, journey, packet, lost);
            Ok::<_, Fault>(())
        };
        let whole = journey.fragment.is_none() && !packet.vnet.is_gso();
        if whole || !link.tells_packets_apart() {
            let _ = enter(packet, journey);
            return Entered::UnderWay;
        }
        let mut one = |packet: &mut Packet| {
            let wire = Wire {
                packets: 1,
                bytes: u32::try_from(packet.bytes().len()).unwrap_or(u32::MAX),
            };
            let journey = Journey {
                fragment: None,
                wire,
                ..*journey
            };
            enter(packet, &journey)
        };
        // It was parsed when it was sent, and edited since in ways that leave it readable.
        let _ = match journey.fragment {
            Some(mtu) => segments(packet, segment, |segment| {
                split::fragments(segment, mtu, fragment, &mut one)
            }),
            None => Headers::parse(packet.bytes(), &packet.vnet)
                .and_then(|headers| partial_segments(packet, &headers, segment, one)),
        };
        Entered::UnderWay
    }
}

impl Stages {
    /// NET-12: the whole of a packet passes the cap, whatever it crosses then.
    fn pass_cap(
        &mut self,
        cap: EgressCap,
        now_ns: u64,
        legs: Legs,
        journey: &Journey,
        packet: &Packet,
        lost: &mut Vec<Loss>,
    ) {
        let room = self.has_room(packet);
        let busy_until_ns = self.busy_until_ns.entry(cap.meter).or_default();
        let begins_ns = now_ns.max(*busy_until_ns);
        let reason = match room {
            true if begins_ns - now_ns <= CAP_QUEUE_NS => None,
            true => Some(DropReason::VmEgressCap),
            false => Some(DropReason::LinkQueueFull),
        };
        if let Some(reason) = reason {
            lost.push(Loss::of(reason, journey));
            return;
        }
        let bits = u64::from(journey.wire.bytes) * 8;
        let arrives_ns = begins_ns + bits * 1_000_000_000 / cap.bits_per_second.max(1);
        *busy_until_ns = arrives_ns;
        self.put(Stage::Cap(cap.meter), arrives_ns, legs, journey, packet);
    }

    /// One wire packet, or a super-packet that passes whole.
    fn pass_link(
        &mut self,
        (id, link): (LinkId, &Link),
        now_ns: u64,
        legs: Legs,
        journey: &Journey,
        packet: &mut Packet,
        lost: &mut Vec<Loss>,
    ) {
        if self.lanes.len() <= id.index() {
            self.lanes.resize_with(id.index() + 1, || None);
        }
        let fresh = || Box::new(Lane::new(link.seed));
        if link.down {
            let lane = self.lanes[id.index()].get_or_insert_with(fresh);
            lane.stats.down += u64::from(journey.wire.packets);
            lost.push(Loss::of(DropReason::LinkDown, journey));
            self.seen(id, false, Some(DropReason::LinkDown), journey, packet);
            return;
        }
        let lane = self.lanes[id.index()].get_or_insert_with(fresh);
        let (fate, copy) = if link.tells_packets_apart() {
            lane.luck.draw(link)
        } else {
            Default::default()
        };
        lane.stats.duplicated += u64::from(copy.is_some());
        for (is_copy, fate) in [(false, Some(fate)), (true, copy)] {
            let Some(fate) = fate else { continue };
            let room = self.has_room(packet);
            let lane = self.lanes[id.index()].get_or_insert_with(fresh);
            let passed = lane.pass(link, now_ns, journey.wire, fate, packet, room);
            // A copy comes out and has not come in, unless that is where it is lost.
            if !is_copy || passed.is_err() {
                self.seen(id, false, passed.err(), journey, packet);
            }
            match passed {
                Err(reason) => lost.push(Loss::of(reason, journey)),
                Ok(passage) => {
                    let flipped = passage.corrupt.and_then(|random| flip(packet, random));
                    if passage.overtakes {
                        self.stray(id, passage.arrives_ns, legs, journey, packet);
                    } else {
                        self.put(Stage::Link(id), passage.arrives_ns, legs, journey, packet);
                    }
                    if let Some((byte, bit)) = flipped {
                        packet.bytes_mut()[byte] ^= bit;
                    }
                }
            }
        }
    }

    /// Tells whoever watches of a packet at the end of a link.
    #[inline]
    fn seen(
        &mut self,
        link: LinkId,
        out: bool,
        lost: Option<DropReason>,
        journey: &Journey,
        packet: &Packet,
    ) {
        if let Some(watched) = &mut self.watched {
            watched.push(AtLink {
                link,
                out,
                lost: lost.map(|reason| (reason, journey.from)),
                fragment: journey.fragment,
                vnet: packet.vnet,
                bytes: Arc::from(packet.bytes()),
            });
        }
    }

    fn has_room(&self, packet: &Packet) -> bool {
        self.used_bytes.saturating_add(size(packet.bytes().len())) <= self.capacity_bytes
    }

    /// At the end of a queue.
    fn put(&mut self, stage: Stage, arrives_ns: u64, legs: Legs, journey: &Journey, packet: &Packet) {
        self.used_bytes += size(packet.bytes().len());
        self.entered += 1;
        let queue = self.queues.entry(stage).or_default();
        if queue.waiting.is_empty() {
            self.heads.push(arrives_ns, stage);
        }
        let waiting = Waiting::new(arrives_ns, legs, journey, packet);
        queue.waiting.push(&mut self.waiting, &[waiting]);
        for link in legs.as_slice() {
            queue.bytes.push(&mut self.bytes, &link.0.to_ne_bytes());
        }
        queue.bytes.push(&mut self.bytes, packet.bytes());
    }

    /// Beside the queue of its link.
    fn stray(&mut self, link: LinkId, arrives_ns: u64, legs: Legs, journey: &Journey, packet: &Packet) {
        self.used_bytes += size(packet.bytes().len());
        let links = legs.as_slice().iter().flat_map(|link| link.0.to_ne_bytes());
        let bytes = links.chain(packet.bytes().iter().copied()).collect();
        let waiting = Waiting::new(arrives_ns, legs, journey, packet);
        self.entered += 1;
        self.strays
            .insert((arrives_ns, self.entered), Stray { link, waiting, bytes });
    }

    /// What comes out of something at this time, its bytes in `packet`, and the links that are before it.
    fn take_out(&mut self, at_ns: u64, packet: &mut Packet) -> Option<(Traveller, Legs)> {
        let mut legs = Legs::default();
        let stray = self.strays.first_entry().filter(|entry| entry.key().0 == at_ns);
        let (stage, waiting) = if let Some(entry) = stray {
            let Stray { link, waiting, bytes } = entry.remove();
            let (links, bytes) = bytes.split_at(waiting.legs as usize * size_of::<LinkId>());
            for link in links.chunks_exact(size_of::<LinkId>()) {
                let id = link.try_into().map_or(u32::MAX, u32::from_ne_bytes);
                legs.push(LinkId(id));
            }
            packet.space_mut()[..bytes.len()].copy_from_slice(bytes);
            (Stage::Link(link), waiting)
        } else {
            let (_, stage) = self.heads.pop(at_ns)?;
            let queue = self.queues.get_mut(&stage)?;
            let waiting = queue.waiting.pop(&mut self.waiting)?;
            // The queue has as many bytes as what waits says.
            for _ in 0..waiting.legs {
                let mut id = [0; size_of::<LinkId>()];
                queue.bytes.take(&mut self.bytes, &mut id);
                legs.push(LinkId(u32::from_ne_bytes(id)));
            }
            let length = waiting.length as usize;
            queue
                .bytes
                .take(&mut self.bytes, &mut packet.space_mut()[..length]);
            if let Some(next) = queue.waiting.first() {
                self.heads.push(next.arrives_ns, stage);
            }
            (stage, waiting)
        };
        packet.set_length(waiting.length as usize);
        packet.vnet = waiting.vnet;
        self.used_bytes -= size(waiting.length as usize);
        let Waiting {
            arrives_ns, journey, ..
        } = waiting;
        let link = match stage {
            Stage::Cap(_) => None,
            Stage::Link(link) => Some(link),
        };
        if let Some(id) = link
            && let Some(Some(lane)) = self.lanes.get_mut(id.index())
        {
            lane.left(journey.wire);
            self.seen(id, true, None, &journey, packet);
        }
        let traveller = Traveller {
            arrives_ns,
            journey,
            link,
        };
        Some((traveller, legs))
    }
}

impl Waiting {
    fn new(arrives_ns: u64, legs: Legs, journey: &Journey, packet: &Packet) -> Self {
        Self {
            arrives_ns,
            journey: *journey,
            vnet: packet.vnet,
            legs: legs.as_slice().len() as u32,
            length: u32::try_from(packet.bytes().len()).unwrap_or(u32::MAX),
        }
    }
}

impl Loss {
    fn of(reason: DropReason, journey: &Journey) -> Self {
        Self {
            reason,
            from: journey.from,
            wire: journey.wire,
            key: None,
        }
    }
}

/// Memory that a packet takes while it waits.
fn size(length: usize) -> u64 {
    (size_of::<Waiting>() + length) as u64
}

/// Changes one bit behind the IP header, so that the packet finds its receiver, whose checksum finds the bit. Returns the
/// byte and the bit in it; None: there is nothing behind the header.
fn flip(packet: &mut Packet, random: u64) -> Option<(usize, u8)> {
    let headers = packet.parse().ok()?;
    finish_checksum(packet, &headers);
    let begin = usize::from(headers.transport_offset);
    let bits = (packet.bytes().len().checked_sub(begin)? * 8) as u64;
    let at = (random % bits.max(1)) as usize;
    let (byte, bit) = (begin + at / 8, 1 << (at % 8));
    *packet.bytes_mut().get_mut(byte)? ^= bit;
    Some((byte, bit))
}
