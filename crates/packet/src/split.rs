//! Cutting an IPv4 packet into fragments (RFC 791 3.2), and what they come to.

use crate::buffer::Packet;
use crate::checksum::{finish, sum};
use crate::parse::Headers;
use crate::vnet_header::VnetHeader;

const HEADER: usize = 20;
const LONGEST_HEADER: usize = 60;
/// More fragments, in the field of flags and offset.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
/// An option with this bit goes into every fragment, others only into the first.
const COPIED: u8 = 0x80;

/// How the fragments of one packet are cut.
struct Cut {
    /// Header lengths of the first fragment and of the others.
    first: usize,
    later: usize,
    mtu: usize,
}

/// Hands the fragments of `packet`, none larger than `mtu`, in order to `emit`, each built in `scratch`. A packet that
/// fits, or that is not IPv4, is handed on as it is. The packet was parsed and has no offloads; whether it may be cut is
/// the caller's question. Of a fragment come smaller ones, with its identification.
///
/// # Errors
/// The first error of `emit`, which ends the matter.
pub fn fragments<E>(
    packet: &mut Packet,
    mtu: u16,
    scratch: &mut Packet,
    mut emit: impl FnMut(&mut Packet) -> Result<(), E>,
) -> Result<(), E> {
    let bytes = packet.bytes();
    let (cut, later) = match Cut::of(bytes, mtu) {
        Some(found) if bytes.len() > usize::from(mtu) => found,
        _ => return emit(packet),
    };
    let field = u16::from_be_bytes([bytes[6], bytes[7]]);
    let end = bytes.len();
    let (mut at, mut header) = (cut.first, &bytes[..cut.first]);
    while at < end {
        let room = cut.room(header.len());
        let length = room.min(end - at);
        let last = at + length == end;
        scratch.vnet = VnetHeader::default();
        scratch.set_length(header.len() + length);
        let piece = scratch.bytes_mut();
        piece[..header.len()].copy_from_slice(header);
        piece[header.len()..].copy_from_slice(&bytes[at..at + length]);
        // Both are multiples of eight bytes; the sum stays below 8,192 as the packet is at most 65,535 long.
        let offset = (field & OFFSET) + ((at - cut.first) / 8) as u16;
        let more = if last { field & MORE } else { MORE };
        finish_header(piece, header.len(), offset & OFFSET | more);
        emit(scratch)?;
        at += length;
        header = &later[..cut.later];
    }
    Ok(())
}

/// Wire packets and IP bytes of what [`fragments`] makes of `packet`, or of the segments of a super-packet.
#[must_use]
pub fn wire(packet: &Packet, headers: &Headers, mtu: u16) -> (u32, u32) {
    let Some((cut, _)) = Cut::of(packet.bytes(), mtu) else {
        return (headers.wire_packets, headers.wire_bytes);
    };
    let whole = headers.wire_packets.saturating_sub(1);
    let largest = headers.largest_wire_packet;
    let last = headers.wire_bytes.saturating_sub(whole.saturating_mul(largest));
    let (of_whole, of_last) = (cut.count(largest as usize), cut.count(last as usize));
    (whole * of_whole.0 + of_last.0, whole * of_whole.1 + of_last.1)
}

impl Cut {
    /// Also the header of later fragments, in a buffer of the longest possible.
    fn of(bytes: &[u8], mtu: u16) -> Option<(Self, [u8; LONGEST_HEADER])> {
        let fixed = bytes.first_chunk::<HEADER>()?;
        let first = usize::from(fixed[0] & 15) * 4;
        if fixed[0] >> 4 != 4 || first < HEADER || first > bytes.len() {
            return None;
        }
        let mut header = [END_OF_OPTIONS; LONGEST_HEADER];
        header[..HEADER].copy_from_slice(fixed);
        let options = copied_options(&bytes[HEADER..first], &mut header[HEADER..]);
        let later = HEADER + options.next_multiple_of(4);
        header[0] = 0x40 | (later / 4) as u8;
        let mtu = usize::from(mtu);
        Some((Self { first, later, mtu }, header))
    }

    /// Data bytes of a fragment that is not the last. The least MTU of IPv4, 68, has room for eight (RFC 791 3.2).
    fn room(&self, header: usize) -> usize {
        (self.mtu.saturating_sub(header) & !7).max(8)
    }

    /// Fragments of a packet of so many bytes, and their bytes.
    fn count(&self, length: usize) -> (u32, u32) {
        if length <= self.mtu {
            return (1, length as u32);
        }
        let data = length - self.first;
        let rest = data.saturating_sub(self.room(self.first));
        let others = rest.div_ceil(self.room(self.later));
        (1 + others as u32, (length + others * self.later) as u32)
    }
}

/// Copies the options that belong into every fragment; returns their length. One that runs out of the header ends them.
fn copied_options(options: &[u8], copy: &mut [u8]) -> usize {
    let (mut at, mut copied) = (0, 0);
    while let Some(&kind) = options.get(at) {
        if kind == END_OF_OPTIONS {
            break;
        }
        if kind == NO_OPERATION {
            at += 1;
            continue;
        }
        let length = options.get(at + 1).map_or(0, |&length| usize::from(length));
        let Some(option) = options.get(at..at + length).filter(|_| length >= 2) else {
            break;
        };
        if kind & COPIED != 0 {
            copy[copied..copied + length].copy_from_slice(option);
            copied += length;
        }
        at += length;
    }
    copied
}

/// Length, flags and offset, and the checksum over all.
fn finish_header(piece: &mut [u8], header_length: usize, field: u16) {
    let length = piece.len() as u16;
    piece[2..4].copy_from_slice(&length.to_be_bytes());
    piece[6..8].copy_from_slice(&field.to_be_bytes());
    piece[10..12].copy_from_slice(&[0, 0]);
    let checksum = finish(sum(&piece[..header_length], 0));
    piece[10..12].copy_from_slice(&checksum.to_be_bytes());
}
