//! What one direction of a link remembers from packet to packet, whatever the snapshot says of it meanwhile.

use packet::{Packet, edit};

use super::codel::Codel;
use super::luck::{Fate, Luck};
use super::serializer::Serializer;
use super::settings::{Link, Queue};
use crate::delay_error::DelayError;
use crate::reason::DropReason;
use crate::stats::LinkStats;

/// Size on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) packets: u32,
    pub(crate) bytes: u32,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) luck: Luck,
    serializer: Serializer,
    codel: Codel,
    /// When the last packet arrives of those that keep their place.
    last_ns: u64,
    pub(crate) stats: LinkStats,
    /// Of what has come out of it last.
    pub(crate) delay_error: DelayError,
}

/// How a packet that is not lost crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    pub(crate) arrives_ns: u64,
    /// Before one that came earlier.
    pub(crate) overtakes: bool,
    pub(crate) corrupt: Option<u64>,
}

impl Lane {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            luck: Luck::new(seed),
            serializer: Serializer::default(),
            codel: Codel::default(),
            last_ns: 0,
            stats: LinkStats::default(),
            delay_error: DelayError::default(),
        }
    }

    /// Lets a packet take its turn, and says when it arrives. `room`: there is memory for it.
    ///
    /// # Errors
    /// `LinkQueueFull`, `LinkLoss`.
    pub(crate) fn pass(
        &mut self,
        link: &Link,
        now_ns: u64,
        wire: Wire,
        fate: Fate,
        packet: &mut Packet,
        room: bool,
    ) -> Result<Passage, DropReason> {
        let packets = u64::from(wire.packets);
        let Some(leaves_ns) = self.queue(link, now_ns, wire, packet, room) else {
            self.stats.queue_full += packets;
            return Err(DropReason::LinkQueueFull);
        };
        if fate.lost {
            self.stats.lost += packets;
            return Err(DropReason::LinkLoss);
        }
        let arrives_ns = match link.jitter {
            // Without jitter nobody would overtake: what may takes no latency.
            None if fate.overtakes => leaves_ns,
            _ => leaves_ns
                .saturating_add(link.latency_ns)
                .saturating_add_signed(fate.delay_ns)
                .max(leaves_ns),
        };
        let overtakes = fate.overtakes && arrives_ns < self.last_ns;
        let arrives_ns = if overtakes {
            self.stats.reordered += packets;
            arrives_ns
        } else {
            arrives_ns.max(self.last_ns)
        };
        if !overtakes {
            self.last_ns = arrives_ns;
        }
        if fate.corrupt.is_some() {
            self.stats.corrupted += packets;
        }
        self.stats.waiting_packets += packets;
        self.stats.waiting_bytes += u64::from(wire.bytes);
        Ok(Passage {
            arrives_ns,
            overtakes,
            corrupt: fate.corrupt,
        })
    }

    /// A packet has come out at the far end.
    pub(crate) fn left(&mut self, wire: Wire) {
        let (packets, bytes) = (u64::from(wire.packets), u64::from(wire.bytes));
        self.stats.waiting_packets -= packets;
        self.stats.waiting_bytes -= bytes;
        self.stats.packets += packets;
        self.stats.bytes += bytes;
    }

    /// When the packet has left the queue and the sender; None: there is no place for it.
    fn queue(
        &mut self,
        link: &Link,
        now_ns: u64,
        wire: Wire,
        packet: &mut Packet,
        room: bool,
    ) -> Option<u64> {
        let bytes = u64::from(wire.bytes);
        let Some(rate_bps) = link.rate_bps else {
            let fits = match link.queue {
                Queue::Bytes(most) => self.stats.waiting_bytes.saturating_add(bytes) <= most,
                Queue::TimeNs(_) => true,
            };
            return (room && fits).then_some(now_ns);
        };
        let turn = self.serializer.turn(now_ns, rate_bps, wire.bytes);
        let waits_ns = turn.begins_ns - now_ns;
        let ahead = self.serializer.waiting_bytes(now_ns);
        let fits = match link.queue {
            // What is sent at once does not wait.
            Queue::Bytes(most) => ahead == 0 || ahead + bytes <= most,
            Queue::TimeNs(most) => waits_ns <= most,
        };
        if !room || !fits {
            return None;
        }
        if let Some(aqm) = link.aqm
            && self.codel.drops(aqm, turn.begins_ns, waits_ns, ahead)
        {
            if !(aqm.ecn && edit::mark_congestion(packet)) {
                return None;
            }
            self.stats.marked += u64::from(wire.packets);
        }
        self.serializer.take(turn, now_ns, rate_bps);
        Some(turn.ends_ns)
    }
}
