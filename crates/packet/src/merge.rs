//! The opposite of segmentation: packets of one flow become one super-packet, whose segments are these packets again.

use crate::buffer::{CAPACITY, Packet};
use crate::checksum::{self, change16, update_partial};
use crate::segments::{TCP_PSH, read16, write16};
use crate::vnet_header::VnetHeader;

/// Segments of one UDP super-packet that every kernel takes: `UDP_MAX_SEGMENTS` before Linux 6.9.
const MOST_SEGMENTS: usize = 64;
/// As [`crate::Headers::parse`] has it: smaller segments of TCP are nobody's.
const TCP_LEAST_SEGMENT: usize = 8;

const TCP_ACK: u8 = 0x10;

/// Builds in `whole` a super-packet of the longest run of `packets`, from the first, that segmentation would make of it,
/// and returns how many that is. 1: nothing was built.
///
/// A run is of TCP or UDP packets whose checksums are partial, of the same size but for a smaller last one, and which
/// differ in nothing but what segmentation numbers. Of datagrams that nobody may fragment the identification may be
/// anything, for it means nothing (RFC 6864).
#[inline]
pub fn merge(packets: &[Packet], whole: &mut Packet) -> usize {
    let [first, second, ..] = packets else {
        return 1;
    };
    // Most packets go alone; that is to cost next to nothing.
    if first.vnet != second.vnet || !first.vnet.needs_checksum() || first.vnet.is_gso() {
        return 1;
    }
    build(packets, whole)
}

/// What the packets of a run have in common.
struct Run<'a> {
    first: &'a [u8],
    ipv6: bool,
    tcp: bool,
    /// Bytes of the IP header.
    transport: usize,
    /// Bytes of all headers.
    header: usize,
    /// Bytes of payload of all but the last.
    size: usize,
}

/// Where a packet stands in a run.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Middle,
    Last,
}

fn build(packets: &[Packet], whole: &mut Packet) -> usize {
    let Some(run) = packets.first().and_then(Run::begin) else {
        return 1;
    };
    let mut length = run.first.len();
    let mut count = 1;
    let mut pushed = 0;
    for packet in packets.iter().take(MOST_SEGMENTS).skip(1) {
        let bytes = packet.bytes();
        let Some(place) = (packet.vnet == packets[0].vnet)
            .then(|| run.place(bytes, count))
            .flatten()
        else {
            break;
        };
        let payload = &bytes[run.header..];
        // An IPv4 packet, or the payload of an IPv6 one, has at most 65,535 bytes.
        if length + payload.len() > CAPACITY - 40 {
            break;
        }
        if count == 1 {
            whole.space_mut()[..length].copy_from_slice(run.first);
        }
        whole.space_mut()[length..length + payload.len()].copy_from_slice(payload);
        length += payload.len();
        count += 1;
        if place == Place::Last {
            pushed = if run.tcp {
                bytes[run.transport + 13] & TCP_PSH
            } else {
                0
            };
            break;
        }
    }
    if count > 1 {
        whole.set_length(length);
        whole.vnet = run.vnet(&packets[0].vnet);
        run.complete(whole.bytes_mut(), pushed);
    }
    count
}

impl<'a> Run<'a> {
    /// None: a packet that begins no run.
    fn begin(packet: &'a Packet) -> Option<Self> {
        let first = packet.bytes();
        let (ipv6, transport, protocol) = match first.first()? {
            0x45 if first.len() >= 20 => (false, 20, first[9]),
            byte if byte >> 4 == 6 && first.len() >= 40 => (true, 40, first[6]),
            _ => return None,
        };
        let tcp = match (protocol, packet.vnet.checksum_offset) {
            (6, 16) => true,
            (17, 6) => false,
            _ => return None,
        };
        if usize::from(packet.vnet.checksum_start) != transport {
            return None;
        }
        let header = match tcp {
            true => transport + usize::from(first.get(transport + 12)? >> 4) * 4,
            false => transport + 8,
        };
        let least = if tcp { TCP_LEAST_SEGMENT } else { 1 };
        let size = first.len().checked_sub(header).filter(|size| *size >= least)?;
        let run = Self {
            first,
            ipv6,
            tcp,
            transport,
            header,
            size,
        };
        // Its own next but for the numbers: an ordinary packet, and none that must be the last.
        (run.is_plain(first) && (!tcp || first[transport + 13] == TCP_ACK)).then_some(run)
    }

    /// Whether the lengths in the headers are those of the packet, and nothing is fragmented.
    fn is_plain(&self, bytes: &[u8]) -> bool {
        let ip_length = match self.ipv6 {
            true => usize::from(read16(bytes, 4)) + 40,
            false => usize::from(read16(bytes, 2)),
        };
        let udp_length = || usize::from(read16(bytes, self.transport + 4)) == bytes.len() - self.transport;
        let whole = self.ipv6 || read16(bytes, 6) & 0x3fff == 0;
        ip_length == bytes.len() && whole && (self.tcp || udp_length())
    }

    /// Where a packet stands as number `index` of the run; None: it is none of it.
    fn place(&self, bytes: &[u8], index: usize) -> Option<Place> {
        let size = bytes.len().checked_sub(self.header).filter(|size| *size > 0)?;
        if size > self.size || !self.same_ip(bytes, index) || !self.is_plain(bytes) {
            return None;
        }
        let (own, first) = (&bytes[self.transport..], &self.first[self.transport..]);
        let mut last = size < self.size;
        if self.tcp {
            let sequence = |tcp: &[u8]| u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            let offset = (index * self.size) as u32;
            let same = own[..4] == first[..4]
                && sequence(own) == sequence(first).wrapping_add(offset)
                && own[8..13] == first[8..13]
                && own[13] & !TCP_PSH == TCP_ACK
                && own[14..16] == first[14..16]
                && own[18..self.header - self.transport] == first[18..self.header - self.transport];
            if !same {
                return None;
            }
            last |= own[13] & TCP_PSH != 0;
        } else if own[..4] != first[..4] {
            return None;
        }
        let at = if self.tcp { 16 } else { 6 };
        let change = change16(first.len() as u16, own.len() as u16);
        let expected = match size == self.size {
            true => read16(first, at),
            false => update_partial(read16(first, at), change),
        };
        (read16(own, at) == expected).then_some(if last { Place::Last } else { Place::Middle })
    }

    /// Whether the IP header is that of packet `index` of the run, but for what the length changes.
    fn same_ip(&self, bytes: &[u8], index: usize) -> bool {
        if self.ipv6 {
            return bytes[..4] == self.first[..4] && bytes[6..40] == self.first[6..40];
        }
        let dont_fragment = bytes[6] & 0x40 != 0;
        bytes[..2] == self.first[..2]
            && (dont_fragment || read16(bytes, 4) == read16(self.first, 4).wrapping_add(index as u16))
            && bytes[6..10] == self.first[6..10]
            && bytes[12..20] == self.first[12..20]
    }

    fn vnet(&self, of_first: &VnetHeader) -> VnetHeader {
        let gso_type = match (self.tcp, self.ipv6) {
            (true, false) => VnetHeader::GSO_TCPV4,
            (true, true) => VnetHeader::GSO_TCPV6,
            (false, _) => VnetHeader::GSO_UDP_L4,
        };
        VnetHeader {
            gso_type,
            header_length: self.header as u16,
            gso_size: self.size as u16,
            ..*of_first
        }
    }

    /// Writes what a super-packet says of its whole length.
    fn complete(&self, bytes: &mut [u8], pushed: u8) {
        let length = bytes.len();
        if self.ipv6 {
            write16(bytes, 4, (length - 40) as u16);
        } else {
            write16(bytes, 2, length as u16);
            write16(bytes, 10, 0);
            let checksum = checksum::finish(checksum::sum(&bytes[..20], 0));
            write16(bytes, 10, checksum);
        }
        let (from, to) = (self.first.len() - self.transport, length - self.transport);
        let at = self.transport + if self.tcp { 16 } else { 6 };
        let partial = update_partial(read16(bytes, at), change16(from as u16, to as u16));
        write16(bytes, at, partial);
        match self.tcp {
            true => bytes[self.transport + 13] |= pushed,
            false => write16(bytes, self.transport + 4, to as u16),
        }
    }
}
