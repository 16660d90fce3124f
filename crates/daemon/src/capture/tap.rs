//! Where a worker lays packets aside for captures: copies into a bounded ring, and a count of those that do not fit.
//!
//! The worker never waits for a reader. Without a capture all of this is one branch per burst.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::channel::Sender;
use engine::snapshot::{LinkId, NicId, PortId};
use engine::{DropReason, Told, Verdict};
use packet::{Burst, Headers, Packet, VnetHeader};

use super::filter::Filter;

/// Captures of one lab at once: each copies packets.
pub(crate) const CAPTURES: usize = 8;
/// Bytes that wait for one reader at most: a quarter of a second of 1 Gbit/s.
pub(crate) const RING_BYTES: usize = 32 << 20;
/// Packets that wait for one reader at most, about 100 bytes each besides their own.
pub(crate) const RING_RECORDS: usize = 1 << 16;

/// Where a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    Port(PortId),
    /// One direction of a link.
    Link(LinkId),
}

/// As seen from the NIC; into a link is outbound, out of it inbound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Outbound,
    Inbound,
}

/// What became of a packet there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passed,
    /// Towards this port.
    To(PortId),
    /// Into this link.
    Over(LinkId),
    /// Into this link, and lost there; the link's own record counts the loss.
    LostOver(LinkId, DropReason),
    /// Lost here, at this NIC.
    Lost(DropReason, Option<NicId>),
    /// An ICMP error of the fabric's own.
    OfFabric,
}

/// One packet, or super-packet, as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Of CLOCK_MONOTONIC.
    pub(crate) at_ns: u64,
    pub(crate) place: Place,
    pub(crate) direction: Direction,
    pub(crate) fate: Fate,
    /// It travels in IP fragments of at most so many bytes.
    pub(crate) fragment: Option<u16>,
    pub(crate) vnet: VnetHeader,
    pub(crate) bytes: Arc<[u8]>,
    /// Wire packets at this place, since the one before, that did not fit into the ring.
    pub(crate) missed: u64,
}

/// Of which places a capture wants packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// By [`PortId`] and [`LinkId`].
    pub(crate) ports: Vec<bool>,
    pub(crate) links: Vec<bool>,
    /// Only those that are lost there.
    pub(crate) drops_only: bool,
}

/// A capture as a worker sees it.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) id: u32,
    pub(crate) selection: Arc<Selection>,
    pub(crate) filter: Option<Arc<Filter>>,
    pub(crate) ring: Sender<Record>,
    /// Bytes in the ring; the reader takes off what it takes out.
    pub(crate) queued: Arc<AtomicUsize>,
    /// Not in the ring, and not yet told of.
    pub(crate) missed: HashMap<Place, u64>,
}

/// The captures of one worker.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    taps: Vec<Tap>,
    /// The burst as it was read, where a capture may want it: before the engine rewrites it.
    read: Vec<Option<(VnetHeader, Arc<[u8]>)>>,
}

impl Selection {
    pub(super) fn has(&self, place: Place) -> bool {
        let selected = match place {
            Place::Port(port) => self.ports.get(port.index()),
            Place::Link(link) => self.links.get(link.index()),
        };
        selected == Some(&true)
    }
}

impl Tap {
    /// Whether it wants a packet, which may be lost there.
    fn wants(&self, place: Place, may_be_lost: bool, packet: &[u8]) -> bool {
        self.selection.has(place)
            && (may_be_lost || !self.selection.drops_only)
            && self.filter.as_ref().is_none_or(|filter| filter.matches(packet))
    }

    fn take(&mut self, mut record: Record) {
        if let Fate::LostOver(link, reason) = record.fate
            && !self.selection.has(Place::Link(link))
        {
            // This is the only record of it that there will be.
            record.fate = Fate::Lost(reason, None);
        }
        if self.selection.drops_only && !matches!(record.fate, Fate::Lost(..)) {
            return;
        }
        let size = record.bytes.len();
        let place = record.place;
        record.missed = self.missed.get(&place).copied().unwrap_or(0);
        let told = record.missed;
        let room = self.queued.load(Ordering::Relaxed) + size <= RING_BYTES;
        if room {
            // Before it can be taken out.
            self.queued.fetch_add(size, Ordering::Relaxed);
        }
        match room.then(|| self.ring.try_send(record.clone())) {
            Some(Ok(())) => {
                if told > 0 {
                    self.missed.remove(&place);
                }
            }
            refused => {
                if refused.is_some() {
                    self.queued.fetch_sub(size, Ordering::Relaxed);
                }
                let headers = Headers::parse(&record.bytes, &record.vnet);
                let packets = headers.map_or(1, |headers| headers.wire_packets);
                *self.missed.entry(place).or_default() += u64::from(packets);
            }
        }
    }
}

impl Taps {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }

    pub(crate) fn open(&mut self, tap: Tap) {
        self.taps.push(tap);
    }

    /// Ends a capture here. Returns what did not fit and was not told of.
    pub(crate) fn close(&mut self, id: u32) -> HashMap<Place, u64> {
        let position = self.taps.iter().position(|tap| tap.id == id);
        position.map_or_else(HashMap::new, |position| self.taps.swap_remove(position).missed)
    }

    pub(crate) fn select(&mut self, id: u32, selection: &Arc<Selection>) {
        for tap in self.taps.iter_mut().filter(|tap| tap.id == id) {
            tap.selection = Arc::clone(selection);
        }
    }

    /// Keeps a burst as it was read from `port`.
    pub(crate) fn read(&mut self, port: PortId, burst: &Burst) {
        let place = Place::Port(port);
        let Self { taps, read } = self;
        read.clear();
        read.extend(burst.filled().iter().map(|packet| {
            let bytes = packet.bytes();
            let wanted = taps.iter().any(|tap| tap.wants(place, true, bytes));
            wanted.then(|| (packet.vnet, Arc::from(bytes)))
        }));
    }

    /// Takes the burst that was read from `port` with what became of it, and what of it entered a link. `packets` are
    /// as the engine left them.
    pub(crate) fn decided(
        &mut self,
        at_ns: u64,
        port: PortId,
        packets: &[Packet],
        verdicts: &[Verdict],
        told: &[Told],
    ) {
        let read = std::mem::take(&mut self.read);
        for (index, (kept, verdict)) in read.iter().zip(verdicts).enumerate() {
            let Some((vnet, bytes)) = kept else { continue };
            let entered = over(told, index);
            let fate = match *verdict {
                Verdict::Forward { port, .. } => entered.map_or(Fate::To(port), Fate::Over),
                Verdict::UnderWay => entered.map_or(Fate::Passed, Fate::Over),
                Verdict::Drop(reason) => match (lost_at(told, index), entered) {
                    (None, Some(link)) => Fate::LostOver(link, reason),
                    (nic, _) => Fate::Lost(reason, nic.flatten()),
                },
            };
            self.offer(&Record {
                at_ns,
                place: Place::Port(port),
                direction: Direction::Outbound,
                fate,
                fragment: None,
                vnet: *vnet,
                bytes: Arc::clone(bytes),
                missed: 0,
            });
        }
        self.read = read;
        for told in told {
            let Told::Over {
                packet,
                link,
                fragment,
                at_once: true,
            } = *told
            else {
                continue;
            };
            if let Some(packet) = packets.get(packet) {
                for direction in [Direction::Outbound, Direction::Inbound] {
                    let at = (at_ns, Place::Link(link), direction);
                    self.seen(at, Fate::Passed, fragment, packet);
                }
            }
        }
        self.passed(at_ns, told);
    }

    /// Takes what came to the ends of links.
    pub(crate) fn passed(&mut self, at_ns: u64, told: &[Told]) {
        for told in told {
            let Told::AtLink(seen) = told else { continue };
            self.offer(&Record {
                at_ns,
                place: Place::Link(seen.link),
                direction: if seen.out {
                    Direction::Inbound
                } else {
                    Direction::Outbound
                },
                fate: match seen.lost {
                    Some((reason, nic)) => Fate::Lost(reason, nic),
                    None => Fate::Passed,
                },
                fragment: seen.fragment,
                vnet: seen.vnet,
                bytes: Arc::clone(&seen.bytes),
                missed: 0,
            });
        }
    }

    /// Takes what was written to ports; `lost` says which could not be, in order.
    pub(crate) fn written(
        &mut self,
        at_ns: u64,
        packets: &[Packet],
        verdicts: &[Verdict],
        lost: &[(usize, DropReason)],
    ) {
        let mut lost = lost.iter().peekable();
        for (index, (packet, verdict)) in packets.iter().zip(verdicts).enumerate() {
            let Verdict::Forward { port, nic, fragment } = *verdict else {
                continue;
            };
            let fate = match lost.next_if(|(lost, _)| *lost == index) {
                Some(&(_, reason)) => Fate::Lost(reason, nic),
                None => Fate::Passed,
            };
            let at = (at_ns, Place::Port(port), Direction::Inbound);
            self.seen(at, fate, fragment, packet);
        }
    }

    /// Takes what the fabric itself said to the senders behind `port`.
    pub(crate) fn replied(&mut self, at_ns: u64, port: PortId, packets: &[Packet]) {
        for packet in packets {
            let at = (at_ns, Place::Port(port), Direction::Inbound);
            self.seen(at, Fate::OfFabric, None, packet);
        }
    }

    fn seen(
        &mut self,
        (at_ns, place, direction): (u64, Place, Direction),
        fate: Fate,
        fragment: Option<u16>,
        packet: &Packet,
    ) {
        let lost = matches!(fate, Fate::Lost(..));
        let bytes = packet.bytes();
        if self.taps.iter().any(|tap| tap.wants(place, lost, bytes)) {
            self.offer(&Record {
                at_ns,
                place,
                direction,
                fate,
                fragment,
                vnet: packet.vnet,
                bytes: Arc::from(bytes),
                missed: 0,
            });
        }
    }

    fn offer(&mut self, record: &Record) {
        let lost = matches!(record.fate, Fate::Lost(..) | Fate::LostOver(..));
        for tap in &mut self.taps {
            if tap.wants(record.place, lost, &record.bytes) {
                tap.take(record.clone());
            }
        }
    }
}

/// The first link that a packet of the burst goes over.
fn over(told: &[Told], index: usize) -> Option<LinkId> {
    told.iter().find_map(|told| match *told {
        Told::Over { packet, link, .. } if packet == index => Some(link),
        _ => None,
    })
}

/// The NIC at which a packet of the burst was lost; None: it was not, or on a link.
fn lost_at(told: &[Told], index: usize) -> Option<Option<NicId>> {
    told.iter().find_map(|told| match *told {
        Told::Lost { packet, nic } if packet == index => Some(nic),
        _ => None,
    })
}
