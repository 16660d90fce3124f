//! Small UDP packets over IPv4, as bytes.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;

/// 64 bytes of IPv4: the smallest Ethernet frame without its Ethernet.
pub(crate) const LENGTH: usize = 64;

#[expect(clippy::expect_used, reason = "a bench may stop; neither can happen")]
pub(crate) fn udp(source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16)) -> [u8; LENGTH] {
    let mut bytes = Vec::with_capacity(LENGTH);
    PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        .udp(ports.0, ports.1)
        .write(&mut bytes, &[0; LENGTH - 28])
        .expect("a vector takes all bytes");
    bytes.try_into().expect("headers of 28 bytes and the payload")
}
