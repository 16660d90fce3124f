//! What the parser reads of valid packets.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use packet::key::mapped;
use packet::{FlowKey, Headers, Packet, Protocol, VnetHeader};
use proptest::prelude::*;

use crate::support::{Kind, packets};

const NO_OFFLOAD: VnetHeader = VnetHeader {
    flags: 0,
    gso_type: 0,
    header_length: 0,
    gso_size: 0,
    checksum_start: 0,
    checksum_offset: 0,
};

/// The key etherparse gives, to compare with ours.
fn key_by_etherparse(bytes: &[u8]) -> FlowKey {
    let packet = SlicedPacket::from_ip(bytes).unwrap();
    let (source, destination) = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Arp(_) => unreachable!(),
    };
    let (source_port, destination_port, protocol) = match packet.transport.unwrap() {
        TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port(), Protocol::TCP),
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port(), Protocol::UDP),
        TransportSlice::Icmpv4(icmp) => {
            let [a, b, ..] = icmp.bytes5to8();
            (
                u16::from_be_bytes([a, b]),
                u16::from_be_bytes([a, b]),
                Protocol::ICMP,
            )
        }
        TransportSlice::Icmpv6(icmp) => {
            let [a, b, ..] = icmp.bytes5to8();
            (
                u16::from_be_bytes([a, b]),
                u16::from_be_bytes([a, b]),
                Protocol::ICMPV6,
            )
        }
        TransportSlice::Igmp(_) => unreachable!(),
    };
    FlowKey {
        source: mapped(source),
        destination: mapped(destination),
        source_port,
        destination_port,
        protocol,
    }
}

proptest! {
    #[test]
    fn agrees_with_etherparse(sample in packets(0..300), padding in 0usize..60) {
        let mut bytes = sample.bytes.clone();
        let headers = Headers::parse(&bytes, &NO_OFFLOAD).unwrap();
        prop_assert_eq!(headers.key, key_by_etherparse(&bytes));
        prop_assert_eq!(headers.ipv6, sample.ipv6);
        prop_assert_eq!((headers.wire_packets, headers.wire_bytes as usize), (1, bytes.len()));
        let transport_header = match sample.kind {
            Kind::Tcp => usize::from(bytes[usize::from(headers.transport_offset) + 12] >> 4) * 4,
            _ => 8,
        };
        prop_assert_eq!(usize::from(headers.transport_offset) + transport_header + sample.payload.len(), bytes.len());
        // Padding is not part of the packet.
        let length = bytes.len();
        bytes.resize(length + padding, 0xaa);
        let padded = Headers::parse(&bytes, &NO_OFFLOAD).unwrap();
        prop_assert_eq!((padded.key, padded.length as usize), (headers.key, length));
        let mut packet = Packet::from_bytes(&bytes);
        packet.parse().unwrap();
        prop_assert_eq!(packet.bytes(), sample.bytes);
    }

    #[test]
    fn an_icmp_error_names_the_flow_it_quotes(
        sample in packets(0..300), kind in 0usize..4, cut in 8usize..300
    ) {
        let quoted = Headers::parse(&sample.bytes, &NO_OFFLOAD).unwrap();
        let length = (usize::from(quoted.transport_offset) + cut).min(sample.bytes.len());
        let quote = &sample.bytes[..length];
        let mut bytes = Vec::new();
        if sample.ipv6 {
            let router = [0xfd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
            PacketBuilder::ipv6(router, quoted.key.source.to_be_bytes(), 64)
                .icmpv6_raw([1, 2, 3, 4][kind], 0, [0; 4])
                .write(&mut bytes, quote)
                .unwrap();
        } else {
            PacketBuilder::ipv4([10, 9, 9, 9], (quoted.key.source as u32).to_be_bytes(), 64)
                .icmpv4_raw([3, 11, 12, 3][kind], 1, [0; 4])
                .write(&mut bytes, quote)
                .unwrap();
        }
        let error = Headers::parse(&bytes, &NO_OFFLOAD).unwrap();
        prop_assert_eq!(error.quoted, Some(quoted.key));
        prop_assert_eq!((error.key.source_port, error.key.destination_port), (0, 0));
        prop_assert_eq!(error.key.destination, quoted.key.source);
    }
}

#[test]
fn tcp_flags_and_time_to_live() {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 4], [10, 1, 0, 4], 17)
        .tcp(1000, 80, 1, 512)
        .syn()
        .ack(5)
        .write(&mut bytes, b"")
        .unwrap();
    let headers = Headers::parse(&bytes, &NO_OFFLOAD).unwrap();
    assert_eq!((headers.tcp_flags, headers.ttl), (0x12, 17));
    assert!(headers.dont_fragment, "etherparse sets DF");
    assert_eq!(headers.largest_wire_packet, 40);
}
