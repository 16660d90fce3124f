//! Segments are valid packets that together are the super-packet.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpSlice, TransportSlice};
use packet::{Packet, VnetHeader};
use port::memory::pair;
use port::{Offloads, WriteError, gso};
use proptest::prelude::*;

use crate::support::{Kind, Sample, assert_checksums, make_partial, packets};

/// The sample as a super-packet with segments of `size` bytes, its checksum partial.
pub(crate) fn super_packet(sample: &Sample, size: u16) -> Packet {
    let mut packet = Packet::from_bytes(&sample.bytes);
    let headers = packet.parse().unwrap();
    make_partial(&mut packet, &headers);
    packet.vnet.gso_size = size;
    packet.vnet.gso_type = match (sample.kind, sample.ipv6) {
        (Kind::Tcp, false) => VnetHeader::GSO_TCPV4,
        (Kind::Tcp, true) => VnetHeader::GSO_TCPV6,
        _ => VnetHeader::GSO_UDP_L4,
    };
    packet.vnet.header_length = (sample.bytes.len() - sample.payload.len()) as u16;
    packet
}

/// The wire packets of a packet.
pub(crate) fn segments(packet: &Packet) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    gso::segments(packet, &mut Packet::new(), |segment| {
        assert_eq!(segment.vnet, VnetHeader::default());
        all.push(segment.bytes().to_vec());
        Ok::<_, WriteError>(())
    })
    .unwrap();
    all
}

fn tcp(segment: &[u8]) -> TcpSlice<'_> {
    match SlicedPacket::from_ip(segment).unwrap().transport {
        Some(TransportSlice::Tcp(tcp)) => tcp,
        other => unreachable!("{other:?}"),
    }
}

fn identification(segment: &[u8]) -> Option<u16> {
    match SlicedPacket::from_ip(segment).unwrap().net {
        Some(NetSlice::Ipv4(ip)) => Some(ip.header().identification()),
        _ => None,
    }
}

/// TCP and UDP packets that may be super-packets.
fn divisible() -> impl Strategy<Value = (Sample, u16)> {
    packets(64..4000)
        .prop_filter("no ICMP", |sample| matches!(sample.kind, Kind::Tcp | Kind::Udp))
        .prop_flat_map(|sample| {
            let longest = sample.payload.len() as u16;
            (Just(sample), (longest / 100).max(8)..=longest)
        })
}

proptest! {
    #[test]
    fn segments_are_the_super_packet((sample, size) in divisible()) {
        let mut packet = super_packet(&sample, size);
        let headers = packet.parse().unwrap();
        let before = packet.framed().to_vec();
        let all = segments(&packet);
        prop_assert_eq!(packet.framed(), before);
        prop_assert_eq!(all.len(), headers.wire_packets as usize);
        prop_assert_eq!(all.iter().map(Vec::len).sum::<usize>(), headers.wire_bytes as usize);
        prop_assert_eq!(all.iter().map(Vec::len).max(), Some(headers.largest_wire_packet as usize));

        let header_length = sample.bytes.len() - sample.payload.len();
        let mut payload: Vec<u8> = Vec::new();
        for segment in &all {
            assert_checksums(segment);
            let mut parsed = Packet::from_bytes(segment);
            prop_assert_eq!(parsed.parse().unwrap().key, headers.key);
            payload.extend(&segment[header_length..]);
        }
        prop_assert_eq!(payload, sample.payload.clone());
        let first = identification(&all[0]);
        for (index, segment) in all.iter().enumerate() {
            prop_assert_eq!(identification(segment), first.map(|id| id.wrapping_add(index as u16)));
        }
    }

    #[test]
    fn tcp_segments_are_numbered_and_flagged_as_linux_does((sample, size) in divisible()) {
        prop_assume!(sample.kind == Kind::Tcp);
        let all = segments(&super_packet(&sample, size));
        let whole = tcp(&sample.bytes);
        for (index, segment) in all.iter().enumerate() {
            let (first, last) = (index == 0, index + 1 == all.len());
            let segment = tcp(segment);
            let expected = whole.sequence_number().wrapping_add(index as u32 * u32::from(size));
            prop_assert_eq!(segment.sequence_number(), expected);
            prop_assert_eq!(segment.fin(), whole.fin() && last);
            prop_assert_eq!(segment.psh(), whole.psh() && last);
            prop_assert_eq!(segment.cwr(), whole.cwr() && first);
            prop_assert!(segment.ack());
        }
    }

    #[test]
    fn a_completed_checksum_is_the_one_that_was_taken_out(sample in packets(0..300)) {
        prop_assume!(matches!(sample.kind, Kind::Tcp | Kind::Udp));
        let mut packet = Packet::from_bytes(&sample.bytes);
        let headers = packet.parse().unwrap();
        make_partial(&mut packet, &headers);
        prop_assert_eq!(segments(&packet), vec![sample.bytes]);
    }

    #[test]
    fn whatever_a_guest_sends_is_segmented_or_refused(
        bytes in packets(0..200), vnet in any::<[u8; 10]>(), damage in any::<(u8, u8)>()
    ) {
        let mut bytes = bytes.bytes;
        let at = usize::from(damage.0) % bytes.len();
        bytes[at] = damage.1;
        let mut packet = Packet::new();
        packet.copy_from(&bytes, VnetHeader::from_bytes(vnet));
        let result = gso::segments(&packet, &mut Packet::new(), |_| Ok::<_, WriteError>(()));
        prop_assert_eq!(result.is_ok(), packet.parse().is_ok());
    }
}

proptest! {
    #[test]
    fn a_port_gets_nothing_beyond_its_level((sample, size) in divisible()) {
        for level in Offloads::DESCENDING {
            let (mut near, mut far) = pair(4000, level);
            near.write(&mut super_packet(&sample, size)).unwrap();
            let mut burst = packet::Burst::new(16);
            let mut payload = 0;
            while far.read_burst(&mut burst).unwrap() > 0 {
                for packet in burst.filled_mut() {
                    prop_assert!(Offloads::needed_by(&packet.vnet) <= level);
                    payload += packet.bytes().len() - (sample.bytes.len() - sample.payload.len());
                }
                burst.clear();
            }
            prop_assert_eq!(payload, sample.payload.len());
        }
    }
}

#[test]
fn a_udp_checksum_that_comes_out_zero_is_written_as_all_ones() {
    let zero = (0..=u16::MAX).find_map(|word| {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 4], [10, 1, 0, 4], 64)
            .udp(1, 2)
            .write(&mut bytes, &word.to_be_bytes())
            .unwrap();
        (bytes[26..28] == [0xff, 0xff]).then_some(bytes) // etherparse follows RFC 768 too
    });
    let bytes = zero.expect("one of 65,536 payloads sums to zero");
    let mut packet = Packet::from_bytes(&bytes);
    let headers = packet.parse().unwrap();
    make_partial(&mut packet, &headers);
    assert_eq!(segments(&packet), [bytes]);
}
