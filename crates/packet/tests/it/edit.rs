//! Edits leave checksums as a recomputation would.

use etherparse::PacketBuilder;
use packet::edit::{decrement_ttl, set_address, set_quoted_address};
use packet::{Headers, Packet, Side, VnetHeader};
use proptest::prelude::*;

use crate::support::{Kind, Sample, assert_checksums, make_partial, packets};

/// An address of the sample's family.
fn address(sample: &Sample, random: u128) -> u128 {
    if sample.ipv6 {
        0xfd << 120 | random >> 8
    } else {
        0xffff_0a00_0000 | random & 0xff_ffff
    }
}

proptest! {
    #[test]
    fn complete_checksums_stay_right(sample in packets(0..200), random: u128, source: bool) {
        let mut packet = Packet::from_bytes(&sample.bytes);
        let headers = packet.parse().unwrap();
        let side = if source { Side::Source } else { Side::Destination };
        set_address(&mut packet, &headers, side, address(&sample, random));
        assert_checksums(packet.bytes());
        prop_assert!(decrement_ttl(&mut packet, &headers));
        assert_checksums(packet.bytes());
        let after = packet.parse().unwrap();
        let (changed, kept) = if source {
            (after.key.source, after.key.destination == headers.key.destination)
        } else {
            (after.key.destination, after.key.source == headers.key.source)
        };
        prop_assert_eq!(changed, address(&sample, random));
        prop_assert!(kept && after.ttl == 63);
        if sample.kind == Kind::UdpWithoutChecksum {
            let at = headers.transport_checksum_offset().unwrap();
            prop_assert_eq!(&packet.bytes()[at..at + 2], &[0, 0]);
        }
    }

    #[test]
    fn partial_checksums_follow_the_pseudo_header(sample in packets(0..200), random: u128) {
        let mut packet = Packet::from_bytes(&sample.bytes);
        let headers = packet.parse().unwrap();
        prop_assume!(sample.kind != Kind::Echo);
        make_partial(&mut packet, &headers);
        let headers = packet.parse().unwrap();
        set_address(&mut packet, &headers, Side::Source, address(&sample, random));
        let at = headers.transport_checksum_offset().unwrap();
        let field = packet.bytes()[at..at + 2].to_vec();
        make_partial(&mut packet, &headers); // from the addresses that are there now
        prop_assert_eq!(&packet.bytes()[at..at + 2], &field);
    }

    #[test]
    fn quotes_are_rewritten_with_all_their_checksums(sample in packets(0..200), random: u128, cut in 8usize..300) {
        let quoted = Headers::parse(&sample.bytes, &VnetHeader::default()).unwrap();
        let length = (usize::from(quoted.transport_offset) + cut).min(sample.bytes.len());
        let mut bytes = Vec::new();
        if sample.ipv6 {
            PacketBuilder::ipv6([0xfd; 16], quoted.key.source.to_be_bytes(), 64)
                .icmpv6_raw(1, 0, [0; 4]).write(&mut bytes, &sample.bytes[..length]).unwrap();
        } else {
            PacketBuilder::ipv4([10, 9, 9, 9], (quoted.key.source as u32).to_be_bytes(), 64)
                .icmpv4_raw(3, 1, [0; 4]).write(&mut bytes, &sample.bytes[..length]).unwrap();
        }
        let mut packet = Packet::from_bytes(&bytes);
        let headers = packet.parse().unwrap();
        set_quoted_address(&mut packet, &headers, Side::Source, address(&sample, random));
        assert_checksums(packet.bytes());
        let after = packet.parse().unwrap();
        prop_assert_eq!(after.quoted.unwrap().source, address(&sample, random));
        prop_assert_eq!(after.quoted.unwrap().destination, quoted.key.destination);
        if length == sample.bytes.len() {
            assert_checksums(&packet.bytes()[usize::from(headers.transport_offset) + 8..]);
        }
    }
}

#[test]
fn a_udp_checksum_that_becomes_zero_is_written_as_all_ones() {
    let mut found = 0;
    for host in 0..=u16::MAX {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 4], [10, 1, 0, 4], 64)
            .udp(1, 2)
            .write(&mut bytes, b"x")
            .unwrap();
        let mut packet = Packet::new();
        packet.copy_from(&bytes, VnetHeader::default());
        let headers = packet.parse().unwrap();
        set_address(
            &mut packet,
            &headers,
            Side::Source,
            0xffff_0a00_0000 | u128::from(host),
        );
        let field = &packet.bytes()[26..28];
        assert_ne!(field, [0, 0]);
        if field == [0xff, 0xff] {
            found += 1;
            assert_checksums(packet.bytes());
            break;
        }
    }
    assert_eq!(found, 1, "one of 65,536 addresses gives the corner case");
}

#[test]
fn the_last_hop_is_left_as_it_is() {
    for ttl in [0, 1] {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 4], [10, 1, 0, 4], ttl)
            .udp(1, 2)
            .write(&mut bytes, b"x")
            .unwrap();
        let mut packet = Packet::from_bytes(&bytes);
        let headers = packet.parse().unwrap();
        assert!(!decrement_ttl(&mut packet, &headers));
        assert_eq!(packet.bytes(), bytes);
    }
}
