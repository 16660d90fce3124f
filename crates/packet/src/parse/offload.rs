//! Does the vnet header fit the packet, and what does a super-packet become on the wire?

use super::{Fault, Fragment, Headers, checksum_field};
use crate::key::Protocol;
use crate::vnet_header::VnetHeader;

/// Smallest TCP segment payload Linux makes: `TCP_MIN_GSO_SIZE` (include/net/tcp.h), the least MSS less all options.
/// A smaller one would make one packet of a guest cost us tens of thousands.
const TCP_MIN_GSO_SIZE: usize = 8;

/// Most segments Linux makes of one UDP super-packet: `UDP_MAX_SEGMENTS` (include/linux/udp.h).
const UDP_MAX_SEGMENTS: usize = 128;

/// Checks `vnet` against the packet and counts its segments. `transport_length` is that of the transport header.
///
/// What no kernel writes is refused, though ours might pass it on: a guest with a packet socket chooses these bytes.
pub(super) fn read(
    headers: &mut Headers,
    packet: &[u8],
    vnet: &VnetHeader,
    transport_length: usize,
) -> Result<(), Fault> {
    let unknown_flags = vnet.flags & !(VnetHeader::NEEDS_CHECKSUM | VnetHeader::DATA_VALID) != 0;
    if unknown_flags || usize::from(vnet.header_length) > packet.len() {
        return Err(Fault::MalformedVnetHeader);
    }
    if vnet.needs_checksum() {
        check_checksum_place(headers, packet, vnet)?;
    }
    if vnet.is_gso() {
        count_segments(headers, packet, vnet, transport_length)?;
    }
    Ok(())
}

fn check_checksum_place(headers: &Headers, packet: &[u8], vnet: &VnetHeader) -> Result<(), Fault> {
    let field = match headers.protocol {
        Protocol::TCP | Protocol::UDP => checksum_field(headers.protocol),
        _ => None, // Linux completes all others before they leave
    };
    let at_transport = vnet.checksum_start == headers.transport_offset
        && field.is_some_and(|field| usize::from(vnet.checksum_offset) == field);
    if !at_transport || headers.fragment != Fragment::Whole {
        return Err(Fault::MalformedVnetHeader);
    }
    // The checksum is completed over all that follows, so a datagram must fill its packet.
    let transport = &packet[usize::from(headers.transport_offset)..];
    if headers.protocol == Protocol::UDP
        && transport.get(4..6) != Some(&(transport.len() as u16).to_be_bytes()[..])
    {
        return Err(Fault::MalformedVnetHeader);
    }
    Ok(())
}

fn count_segments(
    headers: &mut Headers,
    packet: &[u8],
    vnet: &VnetHeader,
    transport_length: usize,
) -> Result<(), Fault> {
    let fits = match vnet.gso_type & !VnetHeader::GSO_ECN {
        VnetHeader::GSO_TCPV4 => headers.protocol == Protocol::TCP && !headers.ipv6,
        VnetHeader::GSO_TCPV6 => headers.protocol == Protocol::TCP && headers.ipv6,
        VnetHeader::GSO_UDP_L4 => {
            headers.protocol == Protocol::UDP && vnet.gso_type & VnetHeader::GSO_ECN == 0
        }
        _ => false,
    };
    let header_length = usize::from(headers.transport_offset) + transport_length;
    let payload = packet.len() - header_length;
    let size = usize::from(vnet.gso_size);
    // Segmentation writes a checksum into every segment, so the packet must have left it to us.
    if !fits || !vnet.needs_checksum() || size == 0 || size > payload {
        return Err(Fault::MalformedVnetHeader);
    }
    let segments = payload.div_ceil(size);
    let too_many = match headers.protocol {
        Protocol::UDP => segments > UDP_MAX_SEGMENTS,
        _ => size < TCP_MIN_GSO_SIZE,
    };
    if too_many {
        return Err(Fault::MalformedVnetHeader);
    }
    headers.wire_packets = segments as u32;
    headers.wire_bytes = (packet.len() + (segments - 1) * header_length) as u32;
    headers.largest_wire_packet = (header_length + size) as u32;
    Ok(())
}
