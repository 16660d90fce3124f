//! The transport header: ports, TCP flags, ICMP identifiers and quotes.

use super::{Fault, Fragment, Headers, be16, ipv6, quote};
use crate::key::Protocol;

/// Fills the ports, the TCP flags and the quoted key; `packet` is the IP packet without padding.
/// Returns the length of the transport header: 0 for a later fragment.
#[inline]
pub(super) fn read(headers: &mut Headers, packet: &[u8]) -> Result<usize, Fault> {
    let transport = packet
        .get(usize::from(headers.transport_offset)..)
        .ok_or(Fault::MalformedHeader)?;
    if let Fragment::Later { offset, .. } = headers.fragment {
        return later_fragment(headers, offset).map(|()| 0);
    }
    match headers.protocol {
        Protocol::TCP => {
            let header = transport.first_chunk::<20>().ok_or(Fault::MalformedHeader)?;
            let length = usize::from(header[12] >> 4) * 4;
            if length < header.len() || length > transport.len() {
                return Err(Fault::MalformedHeader);
            }
            headers.key.source_port = be16(header, 0);
            headers.key.destination_port = be16(header, 2);
            headers.tcp_flags = header[13];
            Ok(length)
        }
        Protocol::UDP => {
            let header = transport.first_chunk::<8>().ok_or(Fault::MalformedHeader)?;
            let length = usize::from(be16(header, 4));
            // The first fragment of a datagram does not hold all of it.
            if length < header.len() || (length > transport.len() && headers.fragment == Fragment::Whole) {
                return Err(Fault::MalformedHeader);
            }
            headers.key.source_port = be16(header, 0);
            headers.key.destination_port = be16(header, 2);
            Ok(header.len())
        }
        Protocol::ICMP | Protocol::ICMPV6 => icmp(headers, transport),
        Protocol::ESP if transport.len() >= 8 => Ok(8), // SPI and sequence number
        Protocol::AH if transport.len() >= 12 => Ok(12), // the fixed part
        Protocol::ESP | Protocol::AH => Err(Fault::MalformedHeader),
        _ => Err(Fault::UnsupportedProtocol),
    }
}

#[inline]
fn icmp(headers: &mut Headers, transport: &[u8]) -> Result<usize, Fault> {
    let header = transport.first_chunk::<8>().ok_or(Fault::MalformedHeader)?;
    match (headers.ipv6, header[0]) {
        (false, 0 | 8) | (true, 128 | 129) => {
            let identifier = be16(header, 4);
            headers.key.source_port = identifier;
            headers.key.destination_port = identifier;
        }
        (false, 3 | 11 | 12) => headers.quoted = Some(quote::ipv4(&transport[8..])?),
        (true, 1..=4) => headers.quoted = Some(quote::ipv6(&transport[8..])?),
        _ => {}
    }
    Ok(header.len())
}

/// An IPv6 fragment may begin with extension headers that only the first fragment shows.
#[cold]
fn later_fragment(headers: &Headers, offset: u16) -> Result<(), Fault> {
    match headers.protocol {
        // It would overwrite ports or flags that were already decided on (RFC 1858, RFC 3128).
        Protocol::TCP if offset < 20 => Err(Fault::MalformedHeader),
        Protocol::TCP | Protocol::UDP | Protocol::ICMP | Protocol::ICMPV6 | Protocol::ESP | Protocol::AH => {
            Ok(())
        }
        Protocol(next) if headers.ipv6 && ipv6::is_extension(next) => Ok(()),
        _ => Err(Fault::UnsupportedProtocol),
    }
}
