//! Later fragments share the fate of the first (NET-04).

use engine::DropReason;
use engine::Verdict;

use crate::support::*;

/// A UDP datagram of 48 payload bytes, cut into fragments of 24 and 16 and the rest, 8 bytes of UDP header included.
fn pieces(ports: (u16, u16), identification: u16) -> [Vec<u8>; 3] {
    let whole = udp_with(WEB_IP, OTHER_IP, ports, &[7; 48]);
    let (header, data) = whole.split_at(20);
    let cut = |range: std::ops::Range<usize>, more: bool| {
        let mut bytes = header.to_vec();
        let field = u16::try_from(range.start / 8).unwrap() | if more { 0x2000 } else { 0 };
        bytes[2..4].copy_from_slice(&u16::try_from(20 + range.len()).unwrap().to_be_bytes());
        bytes[4..6].copy_from_slice(&identification.to_be_bytes());
        bytes[6..8].copy_from_slice(&field.to_be_bytes());
        let sum = etherparse::Ipv4Header::from_slice(&bytes)
            .unwrap()
            .0
            .calc_header_checksum();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend_from_slice(&data[range]);
        bytes
    };
    [cut(0..24, true), cut(24..40, true), cut(40..56, false)]
}

#[test]
fn in_order_they_pass() {
    let mut lab = Lab::new();
    let [first, second, third] = pieces((1, 2), 42);
    assert_eq!(lab.send_all(WEB, &[&first, &second, &third]), [to(OTHER); 3]);
    lab.refused(WEB, &third, DropReason::FragmentOrphan, Some(WEB));
}

/// Shows: NET-04.
#[test]
fn out_of_order_they_do_not() {
    let mut lab = Lab::new();
    let [first, second, third] = pieces((1, 2), 42);
    assert_eq!(lab.send(WEB, &first), to(OTHER));
    lab.refused(WEB, &third, DropReason::FragmentOutOfOrder, Some(WEB));
    lab.refused(WEB, &second, DropReason::FragmentOrphan, Some(WEB));
}

#[test]
fn without_the_first_they_are_orphans() {
    let mut lab = Lab::new();
    let [first, second, _] = pieces((1, 2), 42);
    lab.refused(WEB, &second, DropReason::FragmentOrphan, Some(WEB));
    assert_eq!(lab.send(WEB, &first), to(OTHER));
    let [_, of_another, _] = pieces((1, 2), 43);
    lab.refused(WEB, &of_another, DropReason::FragmentOrphan, Some(WEB));
    lab.pass(31);
    lab.refused(WEB, &second, DropReason::FragmentOrphan, Some(WEB));
}

#[test]
fn of_a_refused_datagram_they_are_refused() {
    let mut lab = Lab::new();
    lab.deny_inbound(OTHER);
    for piece in pieces((1, 2), 42) {
        lab.refused(WEB, &piece, DropReason::NsgInbound, Some(OTHER));
    }
}

#[test]
fn of_a_spoofed_source_they_are_refused() {
    let mut lab = Lab::new();
    let [first, second, _] = pieces((1, 2), 42);
    assert_eq!(lab.send(WEB, &first), to(OTHER));
    lab.refused(DB, &second, DropReason::SpoofedSource, Some(DB));
    assert_eq!(
        lab.send(NVA, &second),
        Verdict::Drop(DropReason::FragmentOrphan),
        "another sender's datagram"
    );
}

#[test]
fn a_flood_of_first_fragments_is_bounded() {
    let mut lab = Lab::new();
    for identification in 0..20_000 {
        let [first, ..] = pieces((1, 2), identification);
        assert_eq!(lab.send(WEB, &first), to(OTHER));
    }
    let [first, second, third] = pieces((1, 2), 20_001);
    assert_eq!(lab.send_all(WEB, &[&first, &second, &third]), [to(OTHER); 3]);
}

#[test]
fn datagrams_do_not_mix() {
    let mut lab = Lab::new();
    let datagrams: Vec<[Vec<u8>; 3]> = (0..64)
        .map(|identification| pieces((1, 2), identification))
        .collect();
    for piece in 0..3 {
        for datagram in &datagrams {
            assert_eq!(lab.send(WEB, &datagram[piece]), to(OTHER));
        }
    }
}
