//! The packet path, read from top to bottom: the steps of one packet in order, by name.

use packet::Burst;

use crate::reason::DropReason;
use crate::snapshot::{NicId, PortId, Snapshot};
use crate::stats::{Flow, Stats};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Forward {
        port: PortId,
        /// None: the Internet.
        nic: Option<NicId>,
    },
    Drop(DropReason),
}

/// Sizes and times of a worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// Entries of the flow table; a connection takes one at each NIC it passes (NET-13).
    pub flow_capacity: u32,
    /// Idle time after which a TCP record ends, in nanoseconds (NSG-19).
    pub tcp_idle_ns: u64,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            // NET-13: 500,000 inbound and 500,000 outbound.
            flow_capacity: 1_000_000,
            // NSG-19: four minutes.
            tcp_idle_ns: 240_000_000_000,
        }
    }
}

/// One thread's packet path and all its state. A NIC and a port keep their ids from generation to generation.
#[derive(Debug)]
pub struct Worker {
    options: WorkerOptions,
}

impl Worker {
    /// `seed` keys the hash tables; it must not be guessable by those whose packets are forwarded.
    #[must_use]
    pub fn new(options: WorkerOptions, seed: u64) -> Self {
        let _ = seed;
        Self { options }
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
        let _ = (snapshot, now_ns, in_port);
        verdicts.clear();
        verdicts.resize(burst.length, Verdict::Drop(DropReason::UnknownNic));
    }

    /// Reports that packet `index` of the burst processed last was to be forwarded but could not be written.
    pub fn lost(&mut self, index: usize, reason: DropReason, now_ns: u64) {
        let _ = (index, reason, now_ns);
    }

    /// A copy of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            flow_capacity: self.options.flow_capacity,
            ..Stats::default()
        }
    }

    /// The records of NSG state, in no order.
    #[must_use]
    pub fn flows(&self, now_ns: u64) -> Vec<Flow> {
        let _ = now_ns;
        Vec::new()
    }
}
