//! Edits in place: addresses, ports, time to live and MSS, with every checksum that covers them kept right.
//!
//! *Reads* `Headers` of the same packet. *Writes* its bytes. *Ends with* nothing: a packet that was parsed can be edited.
//!
//! Checksums change by the difference (RFC 1624), so a wrong one stays wrong and is noticed by the receiver. A partial
//! one (vnet `NEEDS_CHECKSUM`) holds the sum of the pseudo-header, so the difference goes in without complement.

use crate::buffer::Packet;
use crate::checksum::{change16, change32, change128, update, update_partial};
use crate::key::Protocol;
use crate::parse::{Fragment, Headers, checksum_field, quoted_transport_offset};

/// One of the two addresses of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

/// Offset of the IPv4 header checksum.
const IPV4_CHECKSUM: usize = 10;

/// Replaces an address (128-bit form, of the packet's family) and corrects the IP and transport checksums.
/// `headers.key` stays as parsed.
pub fn set_address(packet: &mut Packet, headers: &Headers, side: Side, address: u128) {
    let partial = packet.vnet.needs_checksum();
    let bytes = packet.bytes_mut();
    let Some(change) = replace_address(bytes, headers.ipv6, side, address) else {
        return;
    };
    if let Some(at) = headers.transport_checksum_offset() {
        update_transport(bytes, at, headers.protocol, change, partial);
    }
}

/// Replaces a port of TCP or UDP and corrects the transport checksum; nothing happens to packets without ports. A
/// partial checksum covers no ports. `headers.key` stays as parsed.
pub fn set_port(packet: &mut Packet, headers: &Headers, side: Side, port: u16) {
    let later = matches!(headers.fragment, Fragment::Later { .. });
    if later || !has_ports(headers.protocol) {
        return;
    }
    let partial = packet.vnet.needs_checksum();
    let bytes = packet.bytes_mut();
    let at = usize::from(headers.transport_offset);
    let Some(change) = replace_port(bytes, at, side, port) else {
        return;
    };
    if let (false, Some(at)) = (partial, headers.transport_checksum_offset()) {
        update_transport(bytes, at, headers.protocol, change, false);
    }
}

/// Replaces a port in the packet that an ICMP error quotes, as [`set_quoted_address`] does an address.
pub fn set_quoted_port(packet: &mut Packet, headers: &Headers, side: Side, port: u16) {
    let Some(quoted) = headers.quoted.filter(|quoted| has_ports(quoted.protocol)) else {
        return;
    };
    let icmp = usize::from(headers.transport_offset);
    let bytes = packet.bytes_mut();
    let Some(quote) = bytes.get_mut(icmp + 8..) else {
        return;
    };
    let Some(change) =
        quoted_transport_offset(quote, headers.ipv6).and_then(|at| replace_port(quote, at, side, port))
    else {
        return;
    };
    let mut error_change = change;
    if let Some(at) = quoted_checksum_offset(quote, headers.ipv6, quoted.protocol)
        && let Some((old, new)) = update_transport(quote, at, quoted.protocol, change, false)
    {
        error_change += change16(old, new);
    }
    patch(bytes, icmp + 2, |field| update(field, error_change));
}

/// Replaces an address in the packet that an ICMP error quotes, in the quoted checksums as far as they are there, and
/// corrects the error's own checksum. Nothing happens to a packet that is not an ICMP error.
pub fn set_quoted_address(packet: &mut Packet, headers: &Headers, side: Side, address: u128) {
    let Some(quoted) = headers.quoted else {
        return;
    };
    let icmp = usize::from(headers.transport_offset);
    let bytes = packet.bytes_mut();
    let Some(quote) = bytes.get_mut(icmp + 8..) else {
        return;
    };
    let Some(change) = replace_address(quote, headers.ipv6, side, address) else {
        return;
    };
    // The header checksum absorbed `change` exactly, so in IPv4 address and header checksum together changed nothing.
    let mut error_change = if headers.ipv6 { change } else { 0 };
    if let Some(at) = quoted_checksum_offset(quote, headers.ipv6, quoted.protocol)
        && let Some((old, new)) = update_transport(quote, at, quoted.protocol, change, false)
    {
        error_change += change16(old, new);
    }
    if error_change != 0 {
        patch(bytes, icmp + 2, |field| update(field, error_change));
    }
}

/// Lowers the maximum segment size that a TCP SYN announces to `most`; nothing happens to one that announces less or
/// none, nor to any other packet.
pub fn clamp_mss(packet: &mut Packet, headers: &Headers, most: u16) {
    const SYN: u8 = 2;
    let later = matches!(headers.fragment, Fragment::Later { .. });
    if headers.protocol != Protocol::TCP || headers.tcp_flags & SYN == 0 || later {
        return;
    }
    let partial = packet.vnet.needs_checksum();
    let bytes = packet.bytes_mut();
    let tcp = usize::from(headers.transport_offset);
    let Some(at) = mss_offset(bytes.get(tcp..).unwrap_or_default()) else {
        return;
    };
    let lower = |announced: u16| announced.min(most);
    let Some((old, new)) = patch(bytes, tcp + at, lower) else {
        return;
    };
    // A partial checksum covers no options. In a sum, a field at an odd offset counts with its bytes swapped.
    if let (false, Some(checksum)) = (partial, headers.transport_checksum_offset()) {
        let (old, new) = if at % 2 == 0 {
            (old, new)
        } else {
            (old.swap_bytes(), new.swap_bytes())
        };
        update_transport(bytes, checksum, headers.protocol, change16(old, new), false);
    }
}

/// Takes one off the time to live or hop limit; false, and nothing changed, when it is already at most one.
pub fn decrement_ttl(packet: &mut Packet, headers: &Headers) -> bool {
    let bytes = packet.bytes_mut();
    if headers.ipv6 {
        match bytes.get_mut(7) {
            Some(limit) if *limit > 1 => {
                *limit -= 1;
                true
            }
            _ => false,
        }
    } else {
        let Some([ttl, protocol]) = bytes.get(8..10).and_then(|two| two.first_chunk::<2>().copied()) else {
            return false;
        };
        if ttl <= 1 {
            return false;
        }
        bytes[8] = ttl - 1;
        let change = change16(
            u16::from_be_bytes([ttl, protocol]),
            u16::from_be_bytes([ttl - 1, protocol]),
        );
        patch(bytes, IPV4_CHECKSUM, |field| update(field, change));
        true
    }
}

/// Says that the packet met congestion (RFC 3168), if its sender allows it to be told so; false: it does not.
pub fn mark_congestion(packet: &mut Packet) -> bool {
    const EXPERIENCED: u8 = 3;
    let bytes = packet.bytes_mut();
    let Some(&[first, second]) = bytes.first_chunk() else {
        return false;
    };
    if first >> 4 == 6 {
        // Two bits of the traffic class, which lies across the first bytes.
        let capable = second >> 4 & EXPERIENCED != 0;
        bytes[1] |= if capable { EXPERIENCED << 4 } else { 0 };
        return capable;
    }
    let capable = first >> 4 == 4 && bytes.len() > IPV4_CHECKSUM + 1 && second & EXPERIENCED != 0;
    if capable {
        let before = u16::from_be_bytes([first, second]);
        bytes[1] |= EXPERIENCED;
        let after = u16::from_be_bytes([first, bytes[1]]);
        let checksum = u16::from_be_bytes([bytes[IPV4_CHECKSUM], bytes[IPV4_CHECKSUM + 1]]);
        let checksum = update(checksum, change16(before, after)).to_be_bytes();
        bytes[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum);
    }
    capable
}

/// Where the value of the MSS option lies in a TCP header (RFC 9293 3.2).
fn mss_offset(tcp: &[u8]) -> Option<usize> {
    const FIXED: usize = 20;
    let length = usize::from(tcp.get(12)? >> 4) * 4;
    let options = tcp.get(..length)?;
    let mut at = FIXED;
    loop {
        match *options.get(at)? {
            0 => return None,
            1 => at += 1,
            2 if options.get(at + 1) == Some(&4) && at + 4 <= length => return Some(at + 2),
            _ => at += usize::from(*options.get(at + 1).filter(|&&length| length >= 2)?),
        }
    }
}

/// Replaces an address of the IP header at the start of `bytes` and corrects its header checksum. Returns what that adds
/// to a sum over the pseudo-header.
fn replace_address(bytes: &mut [u8], ipv6: bool, side: Side, address: u128) -> Option<u64> {
    if ipv6 {
        let at = if side == Side::Source { 8 } else { 24 };
        let field = bytes.get_mut(at..)?.first_chunk_mut::<16>()?;
        let change = change128(u128::from_be_bytes(*field), address);
        *field = address.to_be_bytes();
        return Some(change);
    }
    let at = if side == Side::Source { 12 } else { 16 };
    let address = address as u32;
    let field = bytes.get_mut(at..)?.first_chunk_mut::<4>()?;
    let change = change32(u32::from_be_bytes(*field), address);
    *field = address.to_be_bytes();
    patch(bytes, IPV4_CHECKSUM, |field| update(field, change));
    Some(change)
}

/// Replaces a port of the transport header at `at`, if it is there. Returns what that adds to a sum.
fn replace_port(bytes: &mut [u8], at: usize, side: Side, port: u16) -> Option<u64> {
    let at = if side == Side::Source { at } else { at + 2 };
    let (old, new) = patch(bytes, at, |_| port)?;
    Some(change16(old, new))
}

fn has_ports(protocol: Protocol) -> bool {
    protocol == Protocol::TCP || protocol == Protocol::UDP
}

/// Corrects the transport checksum at `at`, if it is there; returns the field before and after.
fn update_transport(
    bytes: &mut [u8],
    at: usize,
    protocol: Protocol,
    change: u64,
    partial: bool,
) -> Option<(u16, u16)> {
    patch(bytes, at, |field| match (protocol, partial, field) {
        (_, true, _) => update_partial(field, change),
        (Protocol::UDP, _, 0) => 0, // the sender made none (RFC 768)
        (Protocol::UDP, ..) => match update(field, change) {
            0 => 0xffff,
            updated => updated,
        },
        _ => update(field, change),
    })
}

/// Where the quoted packet's transport checksum would lie, were the quote long enough.
fn quoted_checksum_offset(quote: &[u8], ipv6: bool, protocol: Protocol) -> Option<usize> {
    Some(quoted_transport_offset(quote, ipv6)? + checksum_field(protocol)?)
}

/// Applies `change` to the 16 bits at `at`, if they are there; returns them before and after.
fn patch(bytes: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) -> Option<(u16, u16)> {
    let field = bytes.get_mut(at..)?.first_chunk_mut::<2>()?;
    let old = u16::from_be_bytes(*field);
    let new = change(old);
    *field = new.to_be_bytes();
    Some((old, new))
}
