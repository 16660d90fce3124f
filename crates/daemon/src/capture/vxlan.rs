//! What the packets of a link would look like on a backbone that carries them in VXLAN (RFC 7348).
//!
//! VNets have layer 3 only, so the Ethernet header inside is made up, as are the tunnel's ends: one per VNet.

use std::net::Ipv4Addr;

use engine::snapshot::VnetId;

use super::filter::Seen;

/// The destination port (RFC 7348, 5).
const PORT: u16 = 4789;
/// VXLAN with a valid VNI.
const FLAGS: u32 = 0x0800_0000;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const VXLAN: usize = 8;
/// The MAC address that every Azure NIC sees as its router, of both ends.
const INNER_MAC: [u8; 6] = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc];
/// The longest packet that still fits, with its own Ethernet header, into an outer IPv4 packet.
pub(super) const LONGEST: usize = 65_535 - IPV4 - UDP - VXLAN - ETHERNET;

/// The network identifier of a VNet; 0 stays free.
pub(super) fn vni(vnet: VnetId) -> u32 {
    (vnet.0 + 1) & 0x00ff_ffff
}

/// The tunnel end of a VNet, out of 100.64.0.0/10 (RFC 6598), which no VNet should have.
pub(super) fn tunnel_end(vnet: VnetId) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) | (vni(vnet) & 0x003f_ffff))
}

/// Puts a packet of at most [`LONGEST`] bytes, from one VNet to another, into `frame`, in place of what was there. The
/// VNI is that of the VNet that gets it.
pub(super) fn encapsulate(packet: &[u8], from: VnetId, to: VnetId, frame: &mut Vec<u8>) {
    let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let udp_length = UDP + VXLAN + ETHERNET + packet.len();
    frame.clear();
    for vnet in [to, from] {
        let [_, high, middle, low] = vni(vnet).to_be_bytes();
        frame.extend([0x02, 0x00, 0x00, high, middle, low]);
    }
    frame.extend([0x08, 0x00]);
    let ip = frame.len();
    frame.extend([0x45, 0]);
    frame.extend(length16(IPV4 + udp_length));
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(tunnel_end(from).octets());
    frame.extend(tunnel_end(to).octets());
    let checksum = packet::checksum::finish(packet::checksum::sum(&frame[ip..], 0));
    frame[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(source_port(packet).to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend(length16(udp_length));
    // No checksum, as RFC 7348 wants it.
    frame.extend([0, 0]);
    frame.extend(FLAGS.to_be_bytes());
    frame.extend((vni(to) << 8).to_be_bytes());
    frame.extend(INNER_MAC);
    frame.extend(INNER_MAC);
    frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend(packet);
}

/// Of the dynamic range, the same for every packet of a flow (RFC 7348, 5).
fn source_port(packet: &[u8]) -> u16 {
    let Some(seen) = Seen::of(packet) else {
        return 49_152;
    };
    let (source, destination) = seen.ports.unwrap_or_default();
    let mut hash = u32::from(seen.protocol) << 16 ^ u32::from(source) << 8 ^ u32::from(destination);
    for address in [seen.source, seen.destination] {
        let address = packet::key::mapped(address);
        for shift in [0, 32, 64, 96] {
            hash = (hash ^ (address >> shift) as u32).wrapping_mul(0x9e37_79b1);
        }
    }
    49_152 | (hash >> 18) as u16
}

fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_headers_of_rfc_7348() {
        let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 4, 10, 1, 0, 4];
        packet.extend([0, 1, 0, 2]);
        let mut frame = vec![1, 2, 3];
        encapsulate(&packet, VnetId(0), VnetId(4), &mut frame);
        assert_eq!(frame.len(), 64 + packet.len());
        assert_eq!(frame[64..], packet);
        // Ethernet, IPv4 with a right checksum, UDP to 4789 of the right length without a checksum.
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(
            packet::checksum::finish(packet::checksum::sum(&frame[14..34], 0)),
            0
        );
        assert_eq!(frame[26..34], [100, 64, 0, 1, 100, 64, 0, 5]);
        assert_eq!(frame[36..42], [0x12, 0xb5, 0, 54, 0, 0]);
        assert!(frame[34] >= 0xc0);
        // The I flag and the VNI of the receiver, then an Ethernet frame of IPv4.
        assert_eq!(frame[42..50], [8, 0, 0, 0, 0, 0, 5, 0]);
        assert_eq!(frame[50..64], [&INNER_MAC[..], &INNER_MAC[..], &[8, 0]].concat());
    }

    #[test]
    fn a_flow_keeps_its_source_port() {
        let port = |source_port: u8| {
            let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 4, 10, 1, 0, 4];
            packet.extend([0, source_port, 0, 2]);
            super::source_port(&packet)
        };
        assert_eq!(port(1), port(1));
        let different: std::collections::BTreeSet<u16> = (0..100).map(port).collect();
        assert!(different.len() > 90 && different.first() >= Some(&49_152));
    }
}
