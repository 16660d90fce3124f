//! The flow key: a 5-tuple that serves both address families.

use std::net::{IpAddr, Ipv6Addr};

/// IP protocol numbers the fabric knows (IANA protocol numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    pub const ICMP: Self = Self(1);
    pub const TCP: Self = Self(6);
    pub const UDP: Self = Self(17);
    pub const ESP: Self = Self(50);
    pub const AH: Self = Self(51);
    pub const ICMPV6: Self = Self(58);
}

/// A 5-tuple. Addresses are 128 bits wide; an IPv4 address is held IPv4-mapped (`::ffff:a.b.c.d`),
/// so one key, one table and one comparison serve both families.
///
/// ICMP echo carries its identifier in both ports, so that [`FlowKey::reversed`] of a request is the key of its reply.
/// Other protocols without ports carry zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey {
    pub source: u128,
    pub destination: u128,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: Protocol,
}

impl FlowKey {
    /// The key of the replies to this key's packets.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// The 128-bit form of an address, IPv4 mapped into `::ffff:0:0/96`.
#[must_use]
pub fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address behind its 128-bit form.
#[must_use]
pub fn unmapped(bits: u128) -> IpAddr {
    let v6 = Ipv6Addr::from_bits(bits);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}
