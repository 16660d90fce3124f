//! Checks lengths once and makes `Headers`; afterwards no accessor can fail.
//!
//! *Reads* the bytes and the vnet header of a packet. *Writes* `Headers`. *Ends with* `MalformedHeader`,
//! `MalformedVnetHeader`, `UnsupportedProtocol`.

mod address;
mod ipv6;
mod offload;
mod quote;
mod transport;

use crate::checksum;
use crate::key::{FlowKey, Protocol};
use crate::vnet_header::VnetHeader;

pub use address::check as check_addresses;
pub(crate) use quote::transport_offset as quoted_transport_offset;

/// Why a packet could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A length, version or checksum of the IP or transport header is wrong, or no host may use the address.
    MalformedHeader,
    /// The vnet header contradicts the packet.
    MalformedVnetHeader,
    /// A protocol the fabric does not carry (NET-01): multicast, broadcast, IP-in-IP, GRE, ...
    UnsupportedProtocol,
}

/// Where a packet stands in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    /// Offset 0 with more to come; has the whole transport header (RFC 1858, RFC 7112).
    First {
        identification: u32,
    },
    /// A later one, without ports: `offset` in bytes.
    Later {
        identification: u32,
        offset: u16,
        last: bool,
    },
}

/// What the pipeline needs to know of a packet, read once.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    pub key: FlowKey,
    /// For an ICMP error, and only for one: the flow of the packet it quotes, as that packet was sent.
    pub quoted: Option<FlowKey>,
    pub protocol: Protocol,
    pub fragment: Fragment,
    pub ipv6: bool,
    /// IPv4's DF bit. Always true for IPv6, which nobody fragments in transit.
    pub dont_fragment: bool,
    pub ttl: u8,
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16; zero for other protocols.
    pub tcp_flags: u8,
    /// From the first byte of the IP header.
    pub transport_offset: u16,
    /// Bytes of the IP packet, headers included; what the buffer holds beyond them is padding.
    pub length: u32,
    /// IP packets this becomes on the wire: segments of a super-packet, else 1.
    pub wire_packets: u32,
    /// IP bytes of these, headers repeated.
    pub wire_bytes: u32,
    /// IP bytes of the largest of these: what a path MTU is compared with.
    pub largest_wire_packet: u32,
}

impl Headers {
    /// Reads one packet. Never panics, whatever the bytes; bytes beyond the IP packet (padding) change nothing.
    ///
    /// # Errors
    /// - [`Fault::MalformedHeader`]: version, lengths, IPv4 header checksum; a source that is not one host's address or a
    ///   destination of 0.0.0.0/8 or loopback (RFC 1812 5.3.7); IPv4-mapped addresses in IPv6, which would
    ///   collide with IPv4 keys; more than eight extension headers; a routing header of type 0 (RFC 5095); a first fragment
    ///   without the whole transport header (RFC 1858, RFC 7112); an ICMP error that does not quote eight transport bytes.
    /// - [`Fault::MalformedVnetHeader`]: unknown flags or GSO type; one that does not fit family and protocol; a
    ///   `gso_size` of zero or beyond the payload; a checksum place that is not the transport's; offloads on fragments.
    /// - [`Fault::UnsupportedProtocol`]: multicast, broadcast, and all but TCP, UDP, ICMP, ICMPv6, ESP, AH (NET-01).
    #[inline]
    pub fn parse(bytes: &[u8], vnet: &VnetHeader) -> Result<Self, Fault> {
        let mut headers = match bytes.first().map_or(0, |first| first >> 4) {
            4 => ipv4(bytes)?,
            6 => ipv6::read(bytes)?,
            _ => return Err(Fault::MalformedHeader),
        };
        let packet = &bytes[..headers.length as usize];
        let transport_length = transport::read(&mut headers, packet)?;
        if *vnet != VnetHeader::default() {
            offload::read(&mut headers, packet, vnet, transport_length)?;
        }
        Ok(headers)
    }

    /// Where the transport checksum lies from the first byte of the IP header; None where there is none that covers a
    /// pseudo-header (ICMP, ESP, AH), or where another fragment has it.
    #[inline]
    #[must_use]
    pub fn transport_checksum_offset(&self) -> Option<usize> {
        let field = checksum_field(self.protocol)?;
        if let Fragment::Later { .. } = self.fragment {
            return None;
        }
        Some(usize::from(self.transport_offset) + field)
    }
}

/// Offset of the checksum in the transport header, for protocols whose checksum covers a pseudo-header.
#[inline]
pub(crate) fn checksum_field(protocol: Protocol) -> Option<usize> {
    match protocol {
        Protocol::TCP => Some(16),
        Protocol::UDP => Some(6),
        Protocol::ICMPV6 => Some(2),
        _ => None,
    }
}

/// The IPv4 header. Ports are left zero.
#[inline]
fn ipv4(bytes: &[u8]) -> Result<Headers, Fault> {
    let header = bytes.first_chunk::<20>().ok_or(Fault::MalformedHeader)?;
    let header_length = usize::from(header[0] & 15) * 4;
    let length = usize::from(be16(header, 2));
    if header_length < 20 || length < header_length || length > bytes.len() {
        return Err(Fault::MalformedHeader);
    }
    if checksum::fold(header_sum(&bytes[..header_length], header)) != 0xffff {
        return Err(Fault::MalformedHeader);
    }
    let source = [header[12], header[13], header[14], header[15]];
    let destination = [header[16], header[17], header[18], header[19]];
    if !(address::is_ordinary(source) && address::is_ordinary(destination)) {
        address::check_ipv4(source, destination)?;
    }
    let fragment_field = be16(header, 6);
    let fragment = if fragment_field & 0x3fff == 0 {
        Fragment::Whole
    } else {
        fragment(
            u32::from(be16(header, 4)),
            (fragment_field & 0x1fff) << 3,
            fragment_field & 0x2000 != 0,
            length - header_length,
        )?
    };
    let protocol = Protocol(header[9]);
    if protocol == Protocol::ICMPV6 {
        return Err(Fault::UnsupportedProtocol);
    }
    Ok(Headers {
        key: FlowKey {
            source: mapped(source),
            destination: mapped(destination),
            source_port: 0,
            destination_port: 0,
            protocol,
        },
        quoted: None,
        protocol,
        fragment,
        ipv6: false,
        dont_fragment: fragment_field & 0x4000 != 0,
        ttl: header[8],
        tcp_flags: 0,
        transport_offset: header_length as u16,
        length: length as u32,
        wire_packets: 1,
        wire_bytes: length as u32,
        largest_wire_packet: length as u32,
    })
}

/// The sum of an IPv4 header, in the machine's byte order: whether it is all ones does not depend on that (RFC 1071).
#[inline]
fn header_sum(header: &[u8], fixed: &[u8; 20]) -> u64 {
    if header.len() != fixed.len() {
        return checksum::sum(header, 0);
    }
    let (words, _) = fixed.as_chunks::<4>();
    words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum()
}

/// A fragment of `length` bytes after the IP headers, at `offset` bytes into the datagram.
#[cold]
fn fragment(identification: u32, offset: u16, more: bool, length: usize) -> Result<Fragment, Fault> {
    // A fragment that is not the last ends on an 8-byte boundary; a datagram has at most 65,535 bytes.
    if length == 0 || (more && !length.is_multiple_of(8)) || usize::from(offset) + length > 65_535 {
        return Err(Fault::MalformedHeader);
    }
    Ok(match (offset, more) {
        (0, false) => Fragment::Whole, // IPv6 "atomic" fragment, RFC 6946
        (0, true) => Fragment::First { identification },
        _ => Fragment::Later {
            identification,
            offset,
            last: !more,
        },
    })
}

#[inline]
fn mapped(address: [u8; 4]) -> u128 {
    0xffff_0000_0000 | u128::from(u32::from_be_bytes(address))
}

/// The big-endian 16 bits at a constant offset of a header.
#[inline]
fn be16<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}
