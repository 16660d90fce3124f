//! Vnet headers that fit their packet and those that contradict it.

use etherparse::PacketBuilder;
use packet::{Fault, Headers, VnetHeader};
use proptest::prelude::*;

use crate::hostile::{parse, tcp4, with_ipv4};
use crate::support::{Kind, packets};

proptest! {
    #[test]
    fn a_vnet_header_is_accepted_only_where_the_checksum_is(sample in packets(50..100), start: u16, offset in 0u16..40) {
        let headers = parse(&sample.bytes).unwrap();
        let right = match sample.kind {
            Kind::Tcp => Some(16),
            Kind::Udp | Kind::UdpWithoutChecksum => Some(6),
            Kind::Echo => None,
        };
        for start in [start, headers.transport_offset] {
            let vnet = VnetHeader {
                flags: VnetHeader::NEEDS_CHECKSUM,
                checksum_start: start,
                checksum_offset: offset,
                ..VnetHeader::default()
            };
            let accepted = start == headers.transport_offset && right == Some(offset);
            prop_assert_eq!(Headers::parse(&sample.bytes, &vnet).is_ok(), accepted);
        }
    }
}

#[test]
fn super_packets_contradicted_by_their_vnet_header() {
    let bytes = tcp4();
    let right = VnetHeader {
        flags: VnetHeader::NEEDS_CHECKSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        header_length: 40,
        gso_size: 10,
        checksum_start: 20,
        checksum_offset: 16,
    };
    let headers = Headers::parse(&bytes, &right).unwrap();
    assert_eq!(
        (
            headers.wire_packets,
            headers.wire_bytes,
            headers.largest_wire_packet
        ),
        (4, 4 * 40 + 32, 50)
    );
    let ecn = VnetHeader {
        gso_type: right.gso_type | VnetHeader::GSO_ECN,
        ..right
    };
    assert!(Headers::parse(&bytes, &ecn).is_ok());
    for wrong in [
        VnetHeader { gso_size: 0, ..right },
        VnetHeader {
            gso_size: 33,
            ..right
        },
        VnetHeader { gso_size: 7, ..right },
        VnetHeader {
            gso_size: 0xffff,
            ..right
        },
        VnetHeader { flags: 0, ..right },
        VnetHeader {
            flags: VnetHeader::DATA_VALID,
            ..right
        },
        VnetHeader { flags: 5, ..right },
        VnetHeader {
            gso_type: VnetHeader::GSO_TCPV6,
            ..right
        },
        VnetHeader {
            gso_type: VnetHeader::GSO_UDP_L4,
            ..right
        },
        VnetHeader {
            gso_type: VnetHeader::GSO_UDP_L4 | VnetHeader::GSO_ECN,
            ..right
        },
        VnetHeader { gso_type: 3, ..right },
        VnetHeader {
            gso_type: VnetHeader::GSO_ECN,
            ..right
        },
        VnetHeader {
            header_length: 73,
            ..right
        },
        VnetHeader {
            checksum_start: 40,
            ..right
        },
        VnetHeader {
            checksum_offset: 6,
            ..right
        },
        VnetHeader {
            checksum_start: 0xffff,
            checksum_offset: 0xffff,
            ..right
        },
    ] {
        assert_eq!(
            Headers::parse(&bytes, &wrong).unwrap_err(),
            Fault::MalformedVnetHeader,
            "{wrong:?}"
        );
    }
    let fragment = with_ipv4(bytes.clone(), 6, &[0, 3]);
    assert_eq!(
        Headers::parse(&fragment, &right).unwrap_err(),
        Fault::MalformedVnetHeader
    );
}

#[test]
fn a_udp_super_packet_has_at_most_128_segments_and_fills_its_datagram() {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 4], [10, 1, 0, 4], 64)
        .udp(1, 2)
        .write(&mut bytes, &[0; 129])
        .unwrap();
    let vnet = |gso_size| VnetHeader {
        flags: VnetHeader::NEEDS_CHECKSUM,
        gso_type: VnetHeader::GSO_UDP_L4,
        header_length: 28,
        gso_size,
        checksum_start: 20,
        checksum_offset: 6,
    };
    assert_eq!(
        Headers::parse(&bytes, &vnet(1)).unwrap_err(),
        Fault::MalformedVnetHeader
    );
    assert_eq!(Headers::parse(&bytes, &vnet(2)).unwrap().wire_packets, 65);
    bytes[24..26].copy_from_slice(&136u16.to_be_bytes());
    assert_eq!(
        Headers::parse(&bytes, &vnet(2)).unwrap_err(),
        Fault::MalformedVnetHeader
    );
}
