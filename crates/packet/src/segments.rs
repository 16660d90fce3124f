//! Software segmentation: what a network card would do with a super-packet or a partial checksum.

use crate::buffer::Packet;
use crate::checksum::{self, change16, update_partial};
use crate::key::Protocol;
use crate::parse::{Fault, Headers};
use crate::vnet_header::VnetHeader;

const TCP_FIN: u8 = 0x01;
pub(crate) const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// Hands the wire packets of `packet`, checksums finished, one after the other to `emit`, each built in `scratch`.
/// A packet that is no super-packet gives one.
///
/// # Errors
/// The packet cannot be read, or the first error of `emit`, which ends the matter.
pub fn segments<E: From<Fault>>(
    packet: &Packet,
    scratch: &mut Packet,
    emit: impl FnMut(&mut Packet) -> Result<(), E>,
) -> Result<(), E> {
    let headers = Headers::parse(packet.bytes(), &packet.vnet)?;
    cut(packet, &headers, true, scratch, emit)
}

/// As [`segments`], but a partial checksum stays one, of each segment: whoever takes the segments on finishes it.
/// `headers` are the packet's own.
///
/// # Errors
/// The first error of `emit`.
pub fn partial_segments<E>(
    packet: &Packet,
    headers: &Headers,
    scratch: &mut Packet,
    emit: impl FnMut(&mut Packet) -> Result<(), E>,
) -> Result<(), E> {
    cut(packet, headers, !packet.vnet.needs_checksum(), scratch, emit)
}

/// Finishes a partial checksum of a packet that is no super-packet. `headers` are its own.
pub fn finish_checksum(packet: &mut Packet, headers: &Headers) {
    if packet.vnet.needs_checksum() {
        packet.vnet = VnetHeader::default();
        complete_checksum(packet.bytes_mut(), headers);
    }
}

fn cut<E>(
    packet: &Packet,
    headers: &Headers,
    finish: bool,
    scratch: &mut Packet,
    mut emit: impl FnMut(&mut Packet) -> Result<(), E>,
) -> Result<(), E> {
    let bytes = &packet.bytes()[..headers.length as usize];
    if !packet.vnet.is_gso() {
        scratch.copy_from(bytes, packet.vnet);
        if finish {
            finish_checksum(scratch, headers);
        }
        return emit(scratch);
    }
    let vnet = if finish {
        VnetHeader::default()
    } else {
        VnetHeader {
            gso_type: VnetHeader::GSO_NONE,
            gso_size: 0,
            header_length: 0,
            ..packet.vnet
        }
    };
    let transport = usize::from(headers.transport_offset);
    let transport_header = match headers.protocol {
        Protocol::TCP => usize::from(bytes[transport + 12] >> 4) * 4,
        _ => 8,
    };
    let (header, payload) = bytes.split_at(transport + transport_header);
    let last = headers.wire_packets - 1;
    for (index, part) in (0..=last).zip(payload.chunks(usize::from(packet.vnet.gso_size))) {
        scratch.set_length(header.len() + part.len());
        scratch.vnet = vnet;
        let segment = scratch.bytes_mut();
        segment[..header.len()].copy_from_slice(header);
        segment[header.len()..].copy_from_slice(part);
        number_ip(segment, headers, index);
        match headers.protocol {
            Protocol::TCP => {
                let offset = index * u32::from(packet.vnet.gso_size);
                number_tcp(&mut segment[transport..], offset, index == 0, index == last);
            }
            _ => write16(segment, transport + 4, (8 + part.len()) as u16),
        }
        shorten_pseudo_header(segment, headers, bytes.len());
        if finish {
            complete_checksum(segment, headers);
        }
        emit(scratch)?;
    }
    Ok(())
}

/// Turns the partial checksum of a TCP or UDP packet into a complete one.
fn complete_checksum(bytes: &mut [u8], headers: &Headers) {
    let Some(at) = headers.transport_checksum_offset() else {
        return;
    };
    let sum = checksum::sum(&bytes[usize::from(headers.transport_offset)..], 0);
    let field = match checksum::finish(sum) {
        0 if headers.protocol == Protocol::UDP => 0xffff, // zero means "none" (RFC 768)
        field => field,
    };
    write16(bytes, at, field);
}

/// Lengths, and for IPv4 the identification of segment `index` and the header checksum.
fn number_ip(segment: &mut [u8], headers: &Headers, index: u32) {
    let length = segment.len() as u16;
    if headers.ipv6 {
        write16(segment, 4, length - 40);
        return;
    }
    let identification = read16(segment, 4).wrapping_add(index as u16);
    write16(segment, 2, length);
    write16(segment, 4, identification);
    write16(segment, 10, 0);
    let header_length = usize::from(segment[0] & 15) * 4;
    let checksum = checksum::finish(checksum::sum(&segment[..header_length], 0));
    write16(segment, 10, checksum);
}

/// Sequence number and flags: the window was reduced once (CWR, first), the end comes once (FIN and PSH, last).
fn number_tcp(tcp: &mut [u8], offset: u32, first: bool, last: bool) {
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(offset);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !first {
        tcp[13] &= !TCP_CWR;
    }
    if !last {
        tcp[13] &= !(TCP_FIN | TCP_PSH);
    }
}

/// The partial checksum of a super-packet counts its whole length, `whole` bytes of IP; that of a segment, its own.
/// The difference goes in, so that a wrong checksum stays wrong.
fn shorten_pseudo_header(segment: &mut [u8], headers: &Headers, whole: usize) {
    let Some(at) = headers.transport_checksum_offset() else {
        return;
    };
    let transport = usize::from(headers.transport_offset);
    let change = change16((whole - transport) as u16, (segment.len() - transport) as u16);
    let partial = update_partial(read16(segment, at), change);
    write16(segment, at, partial);
}

pub(crate) fn read16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn write16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
