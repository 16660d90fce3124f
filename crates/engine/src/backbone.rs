//! Packets under way: what has left its sender and is not yet at its receiver.
//!
//! Packets on one line arrive in the order they left, so a line is a queue, and only the heads of the queues have to be
//! kept in order of time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use packet::{Packet, VnetHeader};

use crate::fifo::{Fifo, Pool};
use crate::snapshot::{NicId, PeeringId, PortId};

/// What a packet travels on. Who waits at a cap keeps nobody waiting who shares the distance behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Line {
    /// Out of the VM whose first NIC this is.
    pub(crate) cap: Option<NicId>,
    /// From the local VNet to the remote one.
    pub(crate) peering: Option<PeeringId>,
}

/// A packet under way, without its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traveller {
    pub(crate) arrives_ns: u64,
    pub(crate) port: PortId,
    pub(crate) nic: Option<NicId>,
    pub(crate) fragment: Option<u16>,
    vnet: VnetHeader,
    length: u32,
}

/// Bytes of a block, and of a block of travellers about: a line in use holds two to four blocks more than it needs.
const BLOCK_BYTES: usize = 1 << 14;
/// Blocks of either kind that are kept when nothing is under way: 4 MiB, so that a busy link asks for memory seldom.
const KEPT_BLOCKS: usize = 128;

#[derive(Debug, Default)]
struct Queue {
    travellers: Fifo<Traveller>,
    bytes: Fifo<u8>,
}

#[derive(Debug)]
pub(crate) struct Backbone {
    queues: HashMap<Line, Queue>,
    /// The head of every queue that has one.
    heads: BinaryHeap<Reverse<(u64, Line)>>,
    busy_until_ns: HashMap<NicId, u64>,
    travellers: Pool<Traveller>,
    bytes: Pool<u8>,
    used_bytes: u64,
    capacity_bytes: u64,
}

/// There is no room for what is under way.
#[derive(Debug)]
pub(crate) struct Full;

impl Backbone {
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self {
            queues: HashMap::new(),
            heads: BinaryHeap::new(),
            busy_until_ns: HashMap::new(),
            travellers: Pool::new(BLOCK_BYTES / size_of::<Traveller>(), KEPT_BLOCKS),
            bytes: Pool::new(BLOCK_BYTES, KEPT_BLOCKS),
            used_bytes: 0,
            capacity_bytes,
        }
    }

    /// Until when a VM sends what it has sent so far.
    pub(crate) fn busy_until_mut(&mut self, meter: NicId) -> &mut u64 {
        self.busy_until_ns.entry(meter).or_default()
    }

    /// Puts a packet on its way. Nothing on a line overtakes: it arrives after what left before it.
    pub(crate) fn depart(
        &mut self,
        line: Line,
        arrives_ns: u64,
        (port, nic, fragment): (PortId, Option<NicId>, Option<u16>),
        packet: &Packet,
    ) -> Result<(), Full> {
        let size = size_of::<Traveller>() as u64 + packet.bytes().len() as u64;
        if self.used_bytes + size > self.capacity_bytes {
            return Err(Full);
        }
        self.used_bytes += size;
        let queue = self.queues.entry(line).or_default();
        let last = queue.travellers.last().map_or(0, |last| last.arrives_ns);
        let arrives_ns = arrives_ns.max(last);
        if queue.travellers.is_empty() {
            self.heads.push(Reverse((arrives_ns, line)));
        }
        let traveller = Traveller {
            arrives_ns,
            port,
            nic,
            fragment,
            vnet: packet.vnet,
            length: u32::try_from(packet.bytes().len()).unwrap_or(u32::MAX),
        };
        queue.travellers.push(&mut self.travellers, &[traveller]);
        queue.bytes.push(&mut self.bytes, packet.bytes());
        Ok(())
    }

    /// When the next packet arrives; None: none is under way.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.heads.peek().map(|Reverse((arrives_ns, _))| *arrives_ns)
    }

    /// The next packet that is there by now, its bytes in `packet`, and what it has travelled on.
    pub(crate) fn arrive(&mut self, now_ns: u64, packet: &mut Packet) -> Option<(Line, Traveller)> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let Reverse((_, line)) = self.heads.pop()?;
        let queue = self.queues.get_mut(&line)?;
        let traveller = queue.travellers.pop(&mut self.travellers)?;
        let length = traveller.length as usize;
        // The queue has as many bytes as its travellers say.
        queue
            .bytes
            .take(&mut self.bytes, &mut packet.space_mut()[..length]);
        packet.set_length(length);
        packet.vnet = traveller.vnet;
        self.used_bytes -= size_of::<Traveller>() as u64 + length as u64;
        if let Some(next) = queue.travellers.first() {
            self.heads.push(Reverse((next.arrives_ns, line)));
        }
        Some((line, traveller))
    }
}
