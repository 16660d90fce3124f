//! The IPv6 header and its chain of extension headers (RFC 8200).

use super::{Fault, Fragment, Headers, address};
use crate::key::{FlowKey, Protocol};

/// Bytes of the fixed header.
pub(super) const HEADER: usize = 40;

/// Extension headers accepted in one packet: RFC 8200 4.1 orders four kinds, one of them twice; more is an attack.
const CHAIN_LIMIT: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Where a chain of extension headers ends: at the upper-layer header, or at the data of a later fragment.
pub(super) struct Chain {
    pub(super) protocol: u8,
    pub(super) transport_offset: usize,
    pub(super) fragment: Option<FragmentHeader>,
}

/// The fragment extension header.
pub(super) struct FragmentHeader {
    pub(super) identification: u32,
    /// In bytes.
    pub(super) offset: u16,
    pub(super) more: bool,
    /// Where the fragment's data begin, from the first byte of the IPv6 header.
    pub(super) data_offset: usize,
}

/// The IPv6 headers. Ports are left zero.
#[inline]
pub(super) fn read(bytes: &[u8]) -> Result<Headers, Fault> {
    let header = bytes.first_chunk::<HEADER>().ok_or(Fault::MalformedHeader)?;
    let length = HEADER + usize::from(super::be16(header, 4));
    if length > bytes.len() {
        return Err(Fault::MalformedHeader);
    }
    let (source, destination) = addresses(header);
    address::check_ipv6(source, destination)?;
    let (mut protocol, mut transport_offset, mut fragment) = (header[6], HEADER, Fragment::Whole);
    if is_extension(protocol) {
        let chain = walk(&bytes[..length])?;
        (protocol, transport_offset) = (chain.protocol, chain.transport_offset);
        if let Some(found) = chain.fragment {
            let data = length - found.data_offset;
            fragment = super::fragment(found.identification, found.offset, found.more, data)?;
        }
    }
    let protocol = Protocol(protocol);
    if protocol == Protocol::ICMP {
        return Err(Fault::UnsupportedProtocol);
    }
    Ok(Headers {
        key: FlowKey {
            source,
            destination,
            source_port: 0,
            destination_port: 0,
            protocol,
        },
        quoted: None,
        protocol,
        fragment,
        ipv6: true,
        dont_fragment: true,
        ttl: header[7],
        tcp_flags: 0,
        transport_offset: transport_offset as u16,
        length: length as u32,
        wire_packets: 1,
        wire_bytes: length as u32,
        largest_wire_packet: length as u32,
    })
}

/// Source and destination.
#[inline]
pub(super) fn addresses(header: &[u8; HEADER]) -> (u128, u128) {
    match header.last_chunk::<32>().map(|both| both.as_chunks::<16>().0) {
        Some([source, destination]) => (u128::from_be_bytes(*source), u128::from_be_bytes(*destination)),
        _ => (0, 0), // not reached: the last 32 of 40 bytes are two times 16
    }
}

#[inline]
pub(super) fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Walks the extension headers of `packet`, which may be cut short anywhere after the fixed header.
/// AH and ESP end the walk: the fabric carries them as upper-layer protocols (NET-01).
#[cold]
pub(super) fn walk(packet: &[u8]) -> Result<Chain, Fault> {
    let mut chain = Chain {
        protocol: *packet.get(6).ok_or(Fault::MalformedHeader)?,
        transport_offset: HEADER,
        fragment: None,
    };
    let mut count = 0;
    while is_extension(chain.protocol) {
        let extension = packet
            .get(chain.transport_offset..)
            .and_then(|rest| rest.first_chunk::<8>())
            .ok_or(Fault::MalformedHeader)?;
        // Hop-by-hop options only come first; a routing header of type 0 is forbidden (RFC 5095).
        let misplaced = chain.protocol == HOP_BY_HOP && count > 0;
        let forbidden = chain.protocol == ROUTING && extension[2] == 0;
        let repeated = chain.protocol == FRAGMENT && chain.fragment.is_some();
        count += 1;
        if misplaced || forbidden || repeated || count > CHAIN_LIMIT {
            return Err(Fault::MalformedHeader);
        }
        let is_fragment = chain.protocol == FRAGMENT;
        chain.protocol = extension[0];
        chain.transport_offset += if is_fragment {
            8
        } else {
            (usize::from(extension[1]) + 1) * 8
        };
        if chain.transport_offset > packet.len() {
            return Err(Fault::MalformedHeader);
        }
        if is_fragment {
            let field = super::be16(extension, 2);
            let found = FragmentHeader {
                identification: u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]),
                offset: field & 0xfff8,
                more: field & 1 != 0,
                data_offset: chain.transport_offset,
            };
            let later = found.offset != 0;
            chain.fragment = Some(found);
            if later {
                break; // what follows is data
            }
        }
    }
    Ok(chain)
}
