//! Which addresses may stand in a packet between two hosts (NET-01, RFC 1812 5.3.7, RFC 4291 2).

use super::Fault;
use crate::key::FlowKey;

/// First octets of IPv4 addresses that need a closer look: 0, 127 and 224 to 239 never stand for one host; 255 may not.
const SPECIAL_FIRST_OCTETS: [bool; 256] = {
    let mut special = [false; 256];
    special[0] = true;
    special[127] = true;
    special[255] = true;
    let mut octet = 224;
    while octet < 240 {
        special[octet] = true;
        octet += 1;
    }
    special
};

/// Whether packets with these addresses travel at all: what [`super::Headers::parse`] asks of a packet, for one that is
/// only thought of. Both addresses of the key are of one family.
///
/// # Errors
/// `UnsupportedProtocol` for a multicast or broadcast destination, `MalformedHeader` for what is not a host's address.
pub fn check(key: &FlowKey) -> Result<(), Fault> {
    let ipv4 = |address: u128| (address >> 32 == 0xffff).then(|| (address as u32).to_be_bytes());
    match (ipv4(key.source), ipv4(key.destination)) {
        (Some(source), Some(destination)) => check_ipv4(source, destination),
        _ => check_ipv6(key.source, key.destination),
    }
}

/// True for addresses whose first octet says all there is to know.
#[inline]
pub(super) fn is_ordinary(address: [u8; 4]) -> bool {
    !SPECIAL_FIRST_OCTETS[usize::from(address[0])]
}

/// The destination is looked at first, so that a host that asks for an address (0.0.0.0 to 255.255.255.255) is told that
/// the fabric has no broadcast, not that its packet is broken.
#[cold]
pub(super) fn check_ipv4(source: [u8; 4], destination: [u8; 4]) -> Result<(), Fault> {
    if destination == [255; 4] || (224..240).contains(&destination[0]) {
        return Err(Fault::UnsupportedProtocol);
    }
    let nobody = |address: [u8; 4]| matches!(address[0], 0 | 127) || address == [255; 4];
    if nobody(source) || nobody(destination) || (224..240).contains(&source[0]) {
        return Err(Fault::MalformedHeader);
    }
    Ok(())
}

/// As [`check_ipv4`]. IPv4-mapped addresses never travel in IPv6, and here they would name the flow of an IPv4 packet.
#[inline]
pub(super) fn check_ipv6(source: u128, destination: u128) -> Result<(), Fault> {
    if destination >> 120 == 0xff {
        return Err(Fault::UnsupportedProtocol);
    }
    if source >> 120 == 0xff || is_nobody(source) || is_nobody(destination) {
        return Err(Fault::MalformedHeader);
    }
    Ok(())
}

/// Unspecified, loopback or IPv4-mapped.
#[inline]
pub(super) fn is_nobody(address: u128) -> bool {
    address <= 1 || address >> 32 == 0xffff
}
