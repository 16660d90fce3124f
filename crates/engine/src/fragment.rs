//! Between steps 3 and 4: later fragments, which have no ports, share the fate of their first (NET-04). Each has to begin
//! where the one before it ended, so none overlaps another, and what the receiver puts together is what was decided on.
//! Reads: the sending port, addresses, protocol and identification. Writes: a bounded table of datagrams in progress.
//! Ends with: `FragmentOrphan`, `FragmentOutOfOrder`, or whatever ended the first fragment.

use packet::{Fragment, Headers};

use crate::hash::Hasher;
use crate::reason::DropReason;
use crate::route::Hop;
use crate::snapshot::{NicId, PortId};
use crate::stats::Lost;

/// Datagrams that may share one place in the table.
const WAYS: usize = 8;
/// Of these, how many one port may have: its oldest makes room then, so that a flood leaves room for others.
const WAYS_OF_A_PORT: usize = 4;
/// 1,024 datagrams in progress: a burst of fragmented datagrams from every NIC of a large lab.
const SETS: usize = 128;
/// RFC 791 and Linux give up a datagram after 30 s.
const LIFETIME_NS: u64 = 30_000_000_000;

/// Names a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Datagram {
    source: u128,
    destination: u128,
    identification: u32,
    port: PortId,
    /// Zero in IPv6, where fragments of one datagram may name different ones (RFC 8200 4.5).
    protocol: u8,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    datagram: Datagram,
    /// Where the next fragment has to begin, in bytes.
    next: u32,
    since_ns: u64,
    fate: Result<Hop, Lost>,
}

/// Datagrams of which a first fragment was seen. Allocated with the first fragment.
#[derive(Debug)]
pub(crate) struct Fragments {
    hasher: Hasher,
    sets: Vec<[Option<Progress>; WAYS]>,
}

impl Fragments {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            hasher: Hasher::new(seed),
            sets: Vec::new(),
        }
    }

    /// Whether a first fragment repeats that of a datagram in progress. In IPv6 that is an overlap, and ends the datagram
    /// (RFC 5722); in IPv4, with so few identifications, it is the next datagram of that number.
    pub(crate) fn repeats(
        &mut self,
        port: PortId,
        headers: &Headers,
        identification: u32,
        now_ns: u64,
    ) -> bool {
        if !headers.ipv6 {
            return false;
        }
        let way = self.way(&Datagram::of(port, headers, identification));
        way.and_then(Option::take).is_some_and(|way| way.is_alive(now_ns))
    }

    /// Remembers what became of a first fragment.
    pub(crate) fn begin(
        &mut self,
        port: PortId,
        headers: &Headers,
        identification: u32,
        fate: Result<Hop, Lost>,
        now_ns: u64,
    ) {
        if self.sets.is_empty() {
            self.sets.resize(SETS, [None; WAYS]);
        }
        let datagram = Datagram::of(port, headers, identification);
        let set = &mut self.sets[datagram.set(&self.hasher)];
        set[room(set, &datagram)] = Some(Progress {
            datagram,
            next: payload(headers),
            since_ns: now_ns,
            fate,
        });
    }

    /// What becomes of a later fragment that `nic` sent. One that does not follow ends its datagram.
    pub(crate) fn follow(
        &mut self,
        port: PortId,
        headers: &Headers,
        nic: Option<NicId>,
        now_ns: u64,
    ) -> Result<Hop, Lost> {
        let orphan = Lost {
            reason: DropReason::FragmentOrphan,
            nic,
        };
        let Fragment::Later {
            identification,
            offset,
            last,
        } = headers.fragment
        else {
            return Err(orphan);
        };
        let datagram = Datagram::of(port, headers, identification);
        let way = self.way(&datagram).ok_or(orphan)?;
        let progress = way.take().filter(|way| way.is_alive(now_ns)).ok_or(orphan)?;
        if u32::from(offset) != progress.next {
            return Err(Lost {
                reason: DropReason::FragmentOutOfOrder,
                nic,
            });
        }
        if !last {
            *way = Some(Progress {
                next: progress.next + payload(headers),
                ..progress
            });
        }
        progress.fate
    }

    fn way(&mut self, datagram: &Datagram) -> Option<&mut Option<Progress>> {
        let set = self.sets.get_mut(datagram.set(&self.hasher))?;
        set.iter_mut()
            .find(|way| way.is_some_and(|way| way.datagram == *datagram))
    }
}

impl Progress {
    fn is_alive(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.since_ns) <= LIFETIME_NS
    }
}

/// Where a datagram goes: its own place, an empty one, or the oldest's, of its port where that has its share.
fn room(set: &[Option<Progress>; WAYS], datagram: &Datagram) -> usize {
    let mut ways = set.iter();
    if let Some(same) = ways.position(|way| way.is_some_and(|way| way.datagram == *datagram)) {
        return same;
    }
    let of_port = |way: &Progress| way.datagram.port == datagram.port;
    let full = set.iter().flatten().filter(|way| of_port(way)).count() >= WAYS_OF_A_PORT;
    let candidates = (0..WAYS).filter(|&way| !full || set[way].as_ref().is_some_and(of_port));
    let oldest = candidates.min_by_key(|&way| set[way].map_or(0, |way| way.since_ns + 1));
    oldest.unwrap_or_default()
}

impl Datagram {
    fn of(port: PortId, headers: &Headers, identification: u32) -> Self {
        Self {
            source: headers.key.source,
            destination: headers.key.destination,
            identification,
            port,
            protocol: if headers.ipv6 { 0 } else { headers.protocol.0 },
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "words are cut from 128 bits; masked to the number of sets"
    )]
    fn set(&self, hasher: &Hasher) -> usize {
        let addresses = hasher.words(self.source as u64, self.destination as u64);
        let upper = hasher.words((self.source >> 64) as u64, (self.destination >> 64) as u64);
        let rest = u64::from(self.identification) << 32 | u64::from(self.port.0);
        hasher.words(addresses ^ rest, upper ^ u64::from(self.protocol)) as usize % SETS
    }
}

/// Bytes of the datagram in this fragment.
fn payload(headers: &Headers) -> u32 {
    headers.length.saturating_sub(u32::from(headers.transport_offset))
}
