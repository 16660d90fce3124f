//! What a worker counts, as plain data: wire packets and IP bytes, per NIC and per drop reason, and the latest drops.

use std::collections::VecDeque;

use packet::FlowKey;

use crate::delay_error::DelayError;
use crate::reason::DropReason;
use crate::snapshot::{NicId, PeeringId, Snapshot};

/// A copy of a worker's counters since it started.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// By [`NicId`]; `tx` and `rx` are the NIC's own view: sent into and received from the fabric.
    pub nics: Vec<NicStats>,
    /// By [`PeeringId`]: what crossed it, from its local VNet to the remote one.
    pub peerings: Vec<PeeringStats>,
    /// By [`crate::snapshot::LinkId`]; as far as packets have come.
    pub links: Vec<LinkStats>,
    /// Only what is not zero.
    pub drops: Vec<DropCount>,
    /// The latest, oldest first; at most a few thousand.
    pub recent_drops: Vec<RecentDrop>,
    /// Entries of the flow table in use, and the most there can be.
    pub flows: u32,
    pub flow_capacity: u32,
    /// Of packets by the link that they came out of last, by [`crate::snapshot::LinkId`]; None: no packet has entered it.
    pub delay_errors: Vec<Option<DelayError>>,
    /// Of those that waited at their VM's cap and crossed no link then.
    pub cap_delay_error: DelayError,
}

impl Stats {
    /// Of everything that was under way.
    #[must_use]
    pub fn delay_error(&self) -> DelayError {
        let mut all = self.cap_delay_error.clone();
        self.delay_errors
            .iter()
            .flatten()
            .for_each(|error| all.add(error));
        all
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicStats {
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub rx_bytes: u64,
}

/// What crossed a peering in its direction (PEER-37).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeeringStats {
    pub packets: u64,
    pub bytes: u64,
}

/// One direction of a link. What has entered it and its copies have come out, were lost, found no place, or wait:
/// entered + duplicated = packets + lost + queue_full + waiting_packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// What came out at the far end.
    pub packets: u64,
    pub bytes: u64,
    /// By chance.
    pub lost: u64,
    pub duplicated: u64,
    /// Came out before one that had entered earlier.
    pub reordered: u64,
    pub corrupted: u64,
    /// Told of congestion (ECN) instead of dropped.
    pub marked: u64,
    /// No room in the queue or, for its management, no more patience.
    pub queue_full: u64,
    /// Came while the link was down.
    pub down: u64,
    /// Have entered and not come out.
    pub waiting_packets: u64,
    pub waiting_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropCount {
    pub reason: DropReason,
    /// Where it was lost: the receiver for `NsgInbound`, `NotForNic` and losses at its port, else the sender.
    /// None: the Internet, or nobody's port.
    pub nic: Option<NicId>,
    pub packets: u64,
    pub bytes: u64,
}

/// One lost packet (or super-packet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentDrop {
    /// As it was sent.
    pub key: FlowKey,
    pub reason: DropReason,
    pub nic: Option<NicId>,
    pub now_ns: u64,
}

/// One record of NSG state: a flow as one NIC sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// None: the Internet side of a flow that began there.
    pub nic: Option<NicId>,
    /// Which direction, seen from the NIC, the first packet had.
    pub inbound: bool,
    /// As the first packet had it, with private addresses.
    pub key: FlowKey,
    /// Sent by this NIC in this flow.
    pub packets: u64,
    pub bytes: u64,
    pub idle_ms: u64,
}

/// Why and where a packet was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) reason: DropReason,
    pub(crate) nic: Option<NicId>,
}

/// Latest drops kept: what a person or a test asks about happened within the last few thousand.
const RECENT: usize = 4096;

/// Wire packets and their IP bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    packets: u64,
    bytes: u64,
}

/// Running counters of a worker. Rows exist for every NIC and peering of the newest snapshot seen.
#[derive(Debug)]
pub(crate) struct Counters {
    nics: Vec<NicStats>,
    peerings: Vec<PeeringStats>,
    /// By reason, row by row: row 0 is nobody's, row n + 1 that of NIC n.
    drops: Vec<[Count; DropReason::ALL.len()]>,
    recent: VecDeque<RecentDrop>,
    pub(crate) cap_delay_error: DelayError,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            nics: Vec::new(),
            peerings: Vec::new(),
            drops: Vec::new(),
            recent: VecDeque::with_capacity(RECENT),
            cap_delay_error: DelayError::default(),
        }
    }

    /// Makes the rows a snapshot needs.
    #[inline]
    pub(crate) fn fit(&mut self, snapshot: &Snapshot) {
        if self.drops.len() < snapshot.nics.len() + 1 {
            self.nics.resize(snapshot.nics.len(), NicStats::default());
            self.drops
                .resize(snapshot.nics.len() + 1, [Count::default(); DropReason::ALL.len()]);
        }
        if self.peerings.len() < snapshot.peerings.len() {
            self.peerings
                .resize(snapshot.peerings.len(), PeeringStats::default());
        }
    }

    #[inline]
    pub(crate) fn forwarded(&mut self, from: Option<NicId>, to: Option<NicId>, packets: u32, bytes: u32) {
        if let Some(nic) = from.and_then(|nic| self.nics.get_mut(nic.index())) {
            nic.tx_packets += u64::from(packets);
            nic.tx_bytes += u64::from(bytes);
        }
        if let Some(nic) = to.and_then(|nic| self.nics.get_mut(nic.index())) {
            nic.rx_packets += u64::from(packets);
            nic.rx_bytes += u64::from(bytes);
        }
    }

    /// A packet crossed a peering. What is lost behind it has crossed it all the same.
    #[inline]
    pub(crate) fn crossed(&mut self, peering: Option<PeeringId>, packets: u32, bytes: u32) {
        if let Some(peering) = peering.and_then(|peering| self.peerings.get_mut(peering.index())) {
            peering.packets += u64::from(packets);
            peering.bytes += u64::from(bytes);
        }
    }

    /// Takes back what [`Counters::forwarded`] gave a receiver.
    pub(crate) fn not_received(&mut self, nic: Option<NicId>, packets: u32, bytes: u32) {
        if let Some(nic) = nic.and_then(|nic| self.nics.get_mut(nic.index())) {
            nic.rx_packets = nic.rx_packets.saturating_sub(u64::from(packets));
            nic.rx_bytes = nic.rx_bytes.saturating_sub(u64::from(bytes));
        }
    }

    /// `key`: None when the packet could not be read.
    pub(crate) fn dropped(
        &mut self,
        lost: Lost,
        key: Option<FlowKey>,
        packets: u32,
        bytes: u32,
        now_ns: u64,
    ) {
        let row = lost.nic.map_or(0, |nic| nic.index() + 1);
        let row = if row < self.drops.len() { row } else { 0 };
        if let Some(row) = self.drops.get_mut(row) {
            let count = &mut row[lost.reason as usize];
            count.packets += u64::from(packets);
            count.bytes += u64::from(bytes);
        }
        let Some(key) = key else { return };
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(RecentDrop {
            key,
            reason: lost.reason,
            nic: lost.nic,
            now_ns,
        });
    }

    pub(crate) fn copy(&self) -> Stats {
        let mut drops = Vec::new();
        for (row, counts) in self.drops.iter().enumerate() {
            let nic = row
                .checked_sub(1)
                .and_then(|nic| u32::try_from(nic).ok())
                .map(NicId);
            for (&reason, count) in DropReason::ALL
                .iter()
                .zip(counts)
                .filter(|(_, count)| count.packets > 0)
            {
                drops.push(DropCount {
                    reason,
                    nic,
                    packets: count.packets,
                    bytes: count.bytes,
                });
            }
        }
        Stats {
            nics: self.nics.clone(),
            peerings: self.peerings.clone(),
            drops,
            recent_drops: self.recent.iter().copied().collect(),
            cap_delay_error: self.cap_delay_error.clone(),
            ..Stats::default()
        }
    }
}
