//! Between steps 3 and 4: later fragments, which have no ports, share the fate of their first (NET-04).
//! Reads: the sending port, addresses, protocol and identification. Writes: a bounded table of datagrams in progress.
//! Ends with: `FragmentOrphan`, `FragmentOutOfOrder`, or whatever ended the first fragment.

use packet::{Fragment, Headers};

use crate::hash::Hasher;
use crate::reason::DropReason;
use crate::route::Hop;
use crate::snapshot::{NicId, PortId};
use crate::stats::Lost;

/// Datagrams that may share one place in the table; the oldest makes room.
const WAYS: usize = 8;
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
        let same = set
            .iter()
            .position(|way| way.is_some_and(|way| way.datagram == datagram));
        let oldest = || (0..WAYS).min_by_key(|&way| set[way].map_or(0, |way| way.since_ns + 1));
        let way = same.or_else(oldest).unwrap_or_default();
        set[way] = Some(Progress {
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
        let set = self.sets.get_mut(datagram.set(&self.hasher)).ok_or(orphan)?;
        let way = set
            .iter_mut()
            .find(|way| way.is_some_and(|way| way.datagram == datagram))
            .ok_or(orphan)?;
        let progress = way
            .take()
            .filter(|way| now_ns.saturating_sub(way.since_ns) <= LIFETIME_NS);
        let progress = progress.ok_or(orphan)?;
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
}

impl Datagram {
    fn of(port: PortId, headers: &Headers, identification: u32) -> Self {
        Self {
            source: headers.key.source,
            destination: headers.key.destination,
            identification,
            port,
            protocol: headers.protocol.0,
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
