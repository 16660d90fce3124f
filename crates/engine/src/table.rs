//! The flow table's memory: 64-byte buckets of tags and indexes over slots that never move, of fixed capacity.

use packet::{FlowKey, Protocol};

use crate::hash::Hasher;
use crate::simd::prefetch;
use crate::snapshot::PortId;

/// "No slot", in links and answers.
pub const NONE: u32 = u32::MAX;
/// Tags per bucket: eight tags of 16 bits and eight indexes of 32 fit a cache line with room for a counter.
const WIDTH: usize = 8;
/// Buckets of an empty table: 8 KiB.
const FIRST_BUCKETS: usize = 128;

/// The line of a flow that every packet reads and writes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Hot {
    source: u128,
    destination: u128,
    ports: [u16; 2],
    port: PortId,
    /// Until when the decision may be used without a further look; 0: there is none.
    pub(crate) stamp: u32,
    /// NIC ids; [`NONE`]: the Internet, or not known yet.
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// The peering crossed, or [`NONE`].
    pub(crate) peering: u32,
    protocol: u8,
    /// Not yet added to the cold counters.
    pub(crate) packets: u16,
    pub(crate) bytes: u32,
}

/// The line of a flow that changes of state and housekeeping use.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Cold {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Generations of the sender's and the receiver's VNet at the decision; meaningless without a peer.
    pub(crate) generations: [u64; 2],
    /// Counts the flows this slot has held, so that a link to an old one is known for stale.
    pub(crate) serial: u32,
    /// The receiver's record, and its serial.
    pub(crate) peer: u32,
    pub(crate) peer_serial: u32,
    /// Neighbours in the list of the flow's class; `next` also chains free slots.
    pub(crate) previous: u32,
    pub(crate) next: u32,
    /// Tick at which it entered the list.
    pub(crate) queued: u32,
    /// When last seen, in ticks.
    pub(crate) tick: u32,
    pub(crate) class: u8,
    /// The first packet was received by this NIC, not sent.
    pub(crate) inbound: bool,
    /// A flow log follows it.
    pub(crate) logged: bool,
    /// Minutes after which a quiet TCP flow is over (NSG-19).
    pub(crate) tcp_idle_minutes: u8,
    pub(crate) used: bool,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Bucket {
    /// Zero: empty.
    tags: [u16; WIDTH],
    slots: [u32; WIDTH],
    /// How many entries went past this bucket because it was full; a search may stop where this is zero.
    passed: u32,
}

/// Flows by port and key. Public for tests and benches; the packet path is its only other user.
#[derive(Debug)]
pub struct Table {
    hasher: Hasher,
    buckets: Vec<Bucket>,
    pub(crate) hot: Vec<Hot>,
    pub(crate) cold: Vec<Cold>,
    free: u32,
    used: u32,
    capacity: u32,
}

impl Table {
    /// `capacity`: slots at most; memory for them is reserved now and used when needed. `seed` keys the hash.
    #[must_use]
    pub fn new(capacity: u32, seed: u64) -> Self {
        // Reserved, not touched: the system gives pages as slots are used, and slots never move.
        Self {
            hasher: Hasher::new(seed),
            buckets: vec![Bucket::default(); FIRST_BUCKETS],
            hot: Vec::with_capacity(capacity as usize),
            cold: Vec::with_capacity(capacity as usize),
            free: NONE,
            used: 0,
            capacity,
        }
    }

    /// Slots in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used == self.capacity
    }

    #[inline]
    #[must_use]
    pub fn hash(&self, port: PortId, key: &FlowKey) -> u64 {
        self.hasher.flow(port, key)
    }

    /// Asks for the bucket that a search will look at.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[home(hash, self.buckets.len())]);
    }

    /// The first slot that may hold a key of this hash; asks for its line. [`NONE`]: not in the home bucket.
    #[inline]
    #[must_use]
    pub fn candidate(&self, hash: u64) -> u32 {
        let bucket = &self.buckets[home(hash, self.buckets.len())];
        let hits = matches(&bucket.tags, tag(hash));
        if hits == 0 {
            return NONE;
        }
        let slot = bucket.slots[hits.trailing_zeros() as usize % WIDTH];
        if let Some(hot) = self.hot.get(slot as usize) {
            prefetch(hot);
        }
        slot
    }

    /// The slot of a key. `hash` is [`Table::hash`] of both.
    #[must_use]
    pub fn find(&self, hash: u64, port: PortId, key: &FlowKey) -> Option<u32> {
        let mut at = home(hash, self.buckets.len());
        loop {
            let bucket = &self.buckets[at];
            let mut hits = matches(&bucket.tags, tag(hash));
            while hits != 0 {
                let slot = bucket.slots[hits.trailing_zeros() as usize % WIDTH];
                if self.hot[slot as usize].is(port, key) {
                    return Some(slot);
                }
                hits &= hits - 1;
            }
            if bucket.passed == 0 {
                return None;
            }
            at = (at + 1) & (self.buckets.len() - 1);
        }
    }

    /// Adds a key that is not in the table. None: no slot is free.
    pub fn insert(&mut self, hash: u64, port: PortId, key: &FlowKey) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let hot = Hot::new(port, key);
        let slot = if self.free == NONE {
            let slot = u32::try_from(self.hot.len()).ok()?;
            self.hot.push(hot);
            self.cold.push(Cold {
                peer: NONE,
                used: true,
                ..Cold::default()
            });
            slot
        } else {
            let slot = self.free;
            let cold = &mut self.cold[slot as usize];
            self.free = cold.next;
            *cold = Cold {
                serial: cold.serial,
                peer: NONE,
                used: true,
                ..Cold::default()
            };
            self.hot[slot as usize] = hot;
            slot
        };
        self.used += 1;
        // Three quarters full: beyond that, searches pass ever more buckets.
        if self.used as usize > self.buckets.len() * WIDTH * 3 / 4 {
            self.grow();
        } else {
            place(&mut self.buckets, hash, slot);
        }
        Some(slot)
    }

    /// Frees a slot that is in use.
    pub fn remove(&mut self, slot: u32) {
        let hot = &mut self.hot[slot as usize];
        let hash = self.hasher.flow(hot.port, &hot.key());
        // No burst comes from this port: the slot cannot be hit by mistake.
        hot.port = PortId(NONE);
        displace(&mut self.buckets, hash, slot);
        let cold = &mut self.cold[slot as usize];
        cold.used = false;
        cold.serial = cold.serial.wrapping_add(1);
        cold.next = self.free;
        self.free = slot;
        self.used -= 1;
    }

    /// Slots in use.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> {
        (0..)
            .zip(&self.cold)
            .filter(|(_, cold)| cold.used)
            .map(|(slot, _)| slot)
    }

    fn grow(&mut self) {
        let mut buckets = vec![Bucket::default(); self.buckets.len() * 2];
        for slot in self.slots() {
            let hot = &self.hot[slot as usize];
            place(&mut buckets, self.hasher.flow(hot.port, &hot.key()), slot);
        }
        self.buckets = buckets;
    }
}

impl Hot {
    fn new(port: PortId, key: &FlowKey) -> Self {
        Self {
            source: key.source,
            destination: key.destination,
            ports: [key.source_port, key.destination_port],
            port,
            stamp: 0,
            from: NONE,
            to: NONE,
            peering: NONE,
            protocol: key.protocol.0,
            packets: 0,
            bytes: 0,
        }
    }

    #[inline]
    pub(crate) fn is(&self, port: PortId, key: &FlowKey) -> bool {
        self.source == key.source
            && self.destination == key.destination
            && self.ports == [key.source_port, key.destination_port]
            && self.port == port
            && self.protocol == key.protocol.0
    }

    pub(crate) fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }

    pub(crate) fn key(&self) -> FlowKey {
        FlowKey {
            source: self.source,
            destination: self.destination,
            source_port: self.ports[0],
            destination_port: self.ports[1],
            protocol: self.protocol(),
        }
    }
}

/// Buckets are a power of two.
#[expect(clippy::cast_possible_truncation, reason = "masked to the number of buckets")]
#[inline]
fn home(hash: u64, buckets: usize) -> usize {
    hash as usize & (buckets - 1)
}

/// From bits that do not choose the bucket; never zero, which means empty.
#[inline]
fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16 | 1
}

/// One bit for each equal tag.
#[inline]
fn matches(tags: &[u16; WIDTH], tag: u16) -> u32 {
    (0..)
        .zip(tags)
        .fold(0, |hits, (at, &each)| hits | u32::from(each == tag) << at)
}

fn place(buckets: &mut [Bucket], hash: u64, slot: u32) {
    let mut at = home(hash, buckets.len());
    loop {
        let bucket = &mut buckets[at];
        let empty = matches(&bucket.tags, 0);
        if empty != 0 {
            let free = empty.trailing_zeros() as usize % WIDTH;
            bucket.tags[free] = tag(hash);
            bucket.slots[free] = slot;
            return;
        }
        bucket.passed += 1;
        at = (at + 1) & (buckets.len() - 1);
    }
}

fn displace(buckets: &mut [Bucket], hash: u64, slot: u32) {
    let mut at = home(hash, buckets.len());
    loop {
        let bucket = &mut buckets[at];
        let held = (0..WIDTH).find(|&each| bucket.tags[each] == tag(hash) && bucket.slots[each] == slot);
        if let Some(held) = held {
            bucket.tags[held] = 0;
            return;
        }
        if bucket.passed == 0 {
            return;
        }
        bucket.passed -= 1;
        at = (at + 1) & (buckets.len() - 1);
    }
}
