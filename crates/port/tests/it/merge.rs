//! Merging packets of a flow loses none, invents none and keeps their order, whatever the packets are.

use packet::merge::merge;
use packet::{Burst, Packet, checksum, segments::partial_segments};
use port::memory::pair;
use port::{Offloads, WriteError};
use proptest::prelude::*;

use crate::gso::{segments, super_packet};
use crate::support::{Kind, Sample, packets};

/// The wire packets of a super-packet, their checksums still partial, as a kernel without segmentation offload sends them.
fn pieces(sample: &Sample, size: u16) -> Vec<Packet> {
    let mut packet = super_packet(sample, size);
    let headers = packet.parse().unwrap();
    let mut all = Vec::new();
    partial_segments(&packet, &headers, &mut Packet::new(), |piece| {
        all.push(piece.clone());
        Ok::<_, WriteError>(())
    })
    .unwrap();
    all
}

/// Few headers, so that packets of different trains are of one flow, or nearly.
fn trains() -> impl Strategy<Value = Vec<Packet>> {
    let train = packets(8..1000)
        .prop_filter("no ICMP", |sample| matches!(sample.kind, Kind::Tcp | Kind::Udp))
        .prop_flat_map(|sample| {
            let longest = sample.payload.len() as u16;
            (Just(sample), (longest / 40).max(8)..=longest)
        })
        .prop_map(|(sample, size)| pieces(&sample, size));
    proptest::collection::vec(train, 1..3).prop_map(|trains| trains.concat())
}

fn may_fragment(packets: &mut [Packet]) {
    for packet in packets {
        let bytes = packet.bytes_mut();
        if bytes[0] >> 4 == 4 {
            bytes[6] &= !0x40;
            complete_ipv4(bytes);
        }
    }
}

fn complete_ipv4(bytes: &mut [u8]) {
    let header = usize::from(bytes[0] & 15) * 4;
    bytes[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&bytes[..header], 0));
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// What arrives of it on the wire. The identification of a datagram that nobody may fragment says nothing.
fn wire(packet: &Packet) -> Vec<Vec<u8>> {
    let mut all = segments(packet);
    for bytes in &mut all {
        if bytes[0] >> 4 == 4 && bytes[6] & 0x40 != 0 {
            bytes[4..6].fill(0);
            bytes[10..12].fill(0);
        }
    }
    all
}

/// The packets after merging, and how many were built of others.
fn merged(packets: &[Packet]) -> (Vec<Packet>, usize) {
    let (mut rest, mut all, mut built) = (packets, Vec::new(), 0);
    let mut whole = Packet::new();
    while let [first, ..] = rest {
        let count = merge(rest, &mut whole);
        all.push(if count > 1 { whole.clone() } else { first.clone() });
        built += usize::from(count > 1);
        rest = &rest[count..];
    }
    (all, built)
}

fn assert_same(packets: &[Packet]) -> Result<usize, TestCaseError> {
    let (after, built) = merged(packets);
    for packet in &after {
        prop_assert!(packet.clone().parse().is_ok(), "{:?}", packet.vnet);
    }
    let before: Vec<_> = packets.iter().flat_map(wire).collect();
    let after: Vec<_> = after.iter().flat_map(wire).collect();
    prop_assert_eq!(before, after);
    Ok(built)
}

proptest! {
    #[test]
    fn what_comes_out_is_what_went_in(mut packets in trains(), atomic in any::<bool>()) {
        if !atomic {
            may_fragment(&mut packets);
        }
        assert_same(&packets)?;
    }

    #[test]
    fn a_packet_unlike_the_others_stays_itself(
        mut packets in trains(), at in any::<(prop::sample::Index, prop::sample::Index)>(), flip in 1u8.., repair in any::<bool>(),
    ) {
        let packet = at.0.get_mut(&mut packets);
        let headers = packet.bytes().len().min(60);
        let bytes = packet.bytes_mut();
        bytes[at.1.index(headers)] ^= flip;
        if repair && bytes[0] >> 4 == 4 && usize::from(bytes[0] & 15) * 4 <= bytes.len() {
            complete_ipv4(bytes);
        }
        packets.retain(|packet| packet.clone().parse().is_ok());
        assert_same(&packets)?;
    }

    #[test]
    fn packets_in_another_order_stay_in_it(packets in trains().prop_shuffle()) {
        assert_same(&packets)?;
    }
}

/// A datagram of `length` bytes, or a segment of TCP.
fn plain(kind: Kind, ipv6: bool, length: usize) -> Sample {
    crate::tun::sample(kind, ipv6, length)
}

#[test]
fn a_train_of_one_flow_is_one_packet() {
    for ipv6 in [false, true] {
        for kind in [Kind::Udp, Kind::Tcp] {
            for (length, size) in [(22 * 64, 22), (22 * 9 + 5, 22), (60_000, 1400)] {
                let train = pieces(&plain(kind, ipv6, length), size);
                let (after, built) = merged(&train);
                assert_eq!(
                    (after.len(), built),
                    (1, 1),
                    "{kind:?}, IPv6 {ipv6}, {length} by {size}"
                );
                let original = super_packet(&plain(kind, ipv6, length), size);
                assert_eq!(after[0].vnet, original.vnet);
                assert_eq!(after[0].bytes(), original.bytes());
            }
        }
    }
}

#[test]
fn no_super_packet_has_more_segments_or_bytes_than_kernels_take() {
    let mut train = pieces(&plain(Kind::Udp, false, 22 * 100), 22);
    assert_eq!(merge(&train, &mut Packet::new()), 64);
    train = pieces(&plain(Kind::Udp, false, 1400 * 40), 1400);
    let again = train.clone();
    train.extend(again);
    let mut whole = Packet::new();
    assert_eq!(merge(&train, &mut whole), 46);
    assert_eq!(whole.bytes().len(), 28 + 46 * 1400);
}

#[test]
fn a_push_and_a_short_segment_end_a_train() {
    let mut train = pieces(&plain(Kind::Tcp, false, 1000), 100);
    train[3].bytes_mut()[33] |= 8; // PSH; the partial checksum does not cover it
    let mut whole = Packet::new();
    assert_eq!(merge(&train, &mut whole), 4);
    assert_eq!(whole.bytes()[33] & 8, 8);
    assert_eq!(merge(&train[4..], &mut whole), 6);

    let train = [
        pieces(&plain(Kind::Udp, false, 250), 100),
        pieces(&plain(Kind::Udp, false, 300), 100),
    ]
    .concat();
    assert_eq!(merge(&train, &mut whole), 3);
}

#[test]
fn what_a_port_does_not_take_whole_is_not_merged_for_it() {
    for level in Offloads::DESCENDING {
        let (mut near, mut far) = pair(100, level);
        let mut train = pieces(&plain(Kind::Udp, false, 640), 64);
        let mut whole = Packet::new();
        let (count, written) = near.write_run(&mut train, &mut whole);
        let expected = if level == Offloads::Uso { 10 } else { 1 };
        assert_eq!((count, written), (expected, Ok(())), "{level}");
        let mut burst = Burst::new(16);
        assert_eq!(far.read_burst(&mut burst).unwrap(), 1);
        assert!(Offloads::needed_by(&burst.filled()[0].vnet) <= level);
    }
}
