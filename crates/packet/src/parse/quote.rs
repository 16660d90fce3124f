//! The packet an ICMP error quotes. It may be cut short and its checksums are not looked at, but it names one flow.

use super::ipv6::HEADER;
use super::{Fault, address, be16, mapped};
use crate::key::{FlowKey, Protocol};

/// The flow of a quoted IPv4 packet, as that packet was sent (RFC 792: the header and 64 bits of data).
#[cold]
pub(super) fn ipv4(quote: &[u8]) -> Result<FlowKey, Fault> {
    let header = quote.first_chunk::<20>().ok_or(Fault::MalformedHeader)?;
    let header_length = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || header_length < header.len() {
        return Err(Fault::MalformedHeader);
    }
    let key = FlowKey {
        source: mapped([header[12], header[13], header[14], header[15]]),
        destination: mapped([header[16], header[17], header[18], header[19]]),
        source_port: 0,
        destination_port: 0,
        protocol: Protocol(header[9]),
    };
    if be16(header, 6) & 0x1fff != 0 {
        return Ok(key); // a later fragment has no ports
    }
    with_ports(key, quote.get(header_length..).unwrap_or_default())
}

/// As [`ipv4`], past the quoted extension headers (RFC 4443 2.4(c): as much of the packet as fits).
#[cold]
pub(super) fn ipv6(quote: &[u8]) -> Result<FlowKey, Fault> {
    let header = quote.first_chunk::<HEADER>().ok_or(Fault::MalformedHeader)?;
    let (source, destination) = super::ipv6::addresses(header);
    if header[0] >> 4 != 6 || address::is_nobody(source) || address::is_nobody(destination) {
        return Err(Fault::MalformedHeader);
    }
    let chain = super::ipv6::walk(quote)?;
    let key = FlowKey {
        source,
        destination,
        source_port: 0,
        destination_port: 0,
        protocol: Protocol(chain.protocol),
    };
    if chain.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return Ok(key);
    }
    with_ports(key, &quote[chain.transport_offset..])
}

/// Where the transport header of a quoted packet begins; None for a later fragment, which has none.
pub(crate) fn transport_offset(quote: &[u8], ipv6: bool) -> Option<usize> {
    if ipv6 {
        let chain = super::ipv6::walk(quote).ok()?;
        let later = chain.fragment.is_some_and(|fragment| fragment.offset != 0);
        return (!later).then_some(chain.transport_offset);
    }
    let header = quote.first_chunk::<20>()?;
    (be16(header, 6) & 0x1fff == 0).then_some(usize::from(header[0] & 15) * 4)
}

fn with_ports(mut key: FlowKey, transport: &[u8]) -> Result<FlowKey, Fault> {
    let header = transport.first_chunk::<8>().ok_or(Fault::MalformedHeader)?;
    match (key.protocol, header[0]) {
        (Protocol::TCP | Protocol::UDP, _) => {
            key.source_port = be16(header, 0);
            key.destination_port = be16(header, 2);
        }
        (Protocol::ICMP, 0 | 8) | (Protocol::ICMPV6, 128 | 129) => {
            key.source_port = be16(header, 4);
            key.destination_port = key.source_port;
        }
        _ => {}
    }
    Ok(key)
}
