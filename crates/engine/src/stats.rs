//! What a worker counts, as plain data: wire packets and IP bytes, per NIC and per drop reason, and the latest drops.

use packet::{FlowKey, Protocol};

use crate::reason::DropReason;
use crate::snapshot::NicId;

/// A copy of a worker's counters since it started.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// By [`NicId`]; `tx` and `rx` are the NIC's own view: sent into and received from the fabric.
    pub nics: Vec<NicStats>,
    /// Only what is not zero.
    pub drops: Vec<DropCount>,
    /// The latest, oldest first; at most a few thousand.
    pub recent_drops: Vec<RecentDrop>,
    /// Entries of the flow table in use, and the most there can be.
    pub flows: u32,
    pub flow_capacity: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicStats {
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub rx_bytes: u64,
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

impl Flow {
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.key.protocol
    }
}
