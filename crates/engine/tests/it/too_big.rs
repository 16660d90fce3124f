//! Packets larger than the path or the fabric takes (NET-03, NET-04), and what their senders are told.

use engine::{DropReason, Verdict};
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

use crate::support::*;

const PAYLOAD: [u8; 1600] = [7; 1600];

/// A UDP packet of `length` bytes of IP, with DF or without.
fn sized(source: &str, destination: &str, length: usize, dont_fragment: bool) -> Vec<u8> {
    let headers = if source.contains(':') { 48 } else { 28 };
    let mut bytes = udp_with(source, destination, (1, 2), &PAYLOAD[..length - headers]);
    if !source.contains(':') {
        bytes[6] = if dont_fragment { 0x40 } else { 0 };
        renew_checksum(&mut bytes);
    }
    bytes
}

/// Source and destination, the MTU told, and the quote, once an independent parser found all checksums right.
fn told(lab: &mut Lab) -> (u128, u128, u32, Vec<u8>) {
    let replies = lab.worker.replies_mut();
    assert_eq!(replies.filled().len(), 1);
    let bytes = replies.filled()[0].bytes();
    let sliced = SlicedPacket::from_ip(bytes).unwrap();
    match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let parsed = icmp.header();
            assert_eq!(
                parsed.icmp_type.calc_checksum(icmp.payload()),
                parsed.checksum,
                "ICMP checksum"
            );
            let Icmpv4Type::DestinationUnreachable(
                etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu },
            ) = parsed.icmp_type
            else {
                panic!("{parsed:?}");
            };
            assert!(bytes.len() <= 576, "RFC 1812 4.3.2.3");
            let source = ip_of(header.source.into());
            (
                source,
                ip_of(header.destination.into()),
                next_hop_mtu.into(),
                icmp.payload().to_vec(),
            )
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let header = ip.header();
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            let Icmpv6Type::PacketTooBig { mtu } = icmp.header().icmp_type else {
                panic!("{:?}", icmp.header());
            };
            assert!(bytes.len() <= 1280, "RFC 4443 2.4(c)");
            let (source, destination) = (header.source_addr(), header.destination_addr());
            (
                ip_of(source.into()),
                ip_of(destination.into()),
                mtu,
                icmp.payload().to_vec(),
            )
        }
        other => panic!("{other:?}"),
    }
}

fn ip_of(address: std::net::IpAddr) -> u128 {
    packet::key::mapped(address)
}

/// Shows: NET-03, NET-04.
#[test]
fn the_path_takes_1500_bytes_and_says_so() {
    let mut lab = Lab::new();
    for (source, destination) in [
        (WEB_IP.to_owned(), OTHER_IP.to_owned()),
        (v6(WEB_IP), v6(OTHER_IP)),
    ] {
        let fits = sized(&source, &destination, 1500, true);
        for _ in 0..2 {
            assert_eq!(lab.send(WEB, &fits), to(OTHER));
            assert_eq!(lab.worker.replies_mut().filled().len(), 0);
        }
        let large = sized(&source, &destination, 1501, true);
        lab.refused(WEB, &large, DropReason::TooBig, Some(WEB));
        let (from, receiver, mtu, quote) = told(&mut lab);
        let router = if source.contains(':') {
            v6(&router(WEB_IP))
        } else {
            router(WEB_IP)
        };
        assert_eq!((from, receiver, mtu), (ip(&router), ip(&source), 1500));
        assert_eq!(quote, large[..quote.len()]);
        assert!(quote.len() >= 500);
    }
}

/// Shows: NET-03.
#[test]
fn without_df_it_travels_in_fragments() {
    let mut lab = Lab::new();
    let large = sized(WEB_IP, OTHER_IP, 1501, false);
    assert_eq!(lab.send(WEB, &large), in_fragments(OTHER, 1500));
    let nics = lab.worker.stats().nics;
    assert_eq!(
        (nics[WEB.index()].tx_packets, nics[WEB.index()].tx_bytes),
        (1, 1501)
    );
    assert_eq!(
        (nics[OTHER.index()].rx_packets, nics[OTHER.index()].rx_bytes),
        (2, 1521)
    );
    lab.worker.lost(0, DropReason::PortFull, lab.now_ns);
    assert_eq!(lab.worker.stats().nics[OTHER.index()].rx_packets, 0);
}

/// Shows: NET-03.
#[test]
fn the_fabric_fragments_at_1400_where_it_is_told_to() {
    let mut lab = Lab::new();
    let whole = sized(WEB_IP, OTHER_IP, 1401, false);
    let kept = sized(WEB_IP, OTHER_IP, 1500, true);
    assert_eq!(lab.send(WEB, &whole), to(OTHER));
    lab.snapshot.fabric_mtu = Some(1400);
    lab.publish();
    for _ in 0..2 {
        assert_eq!(lab.send(WEB, &whole), in_fragments(OTHER, 1400));
        assert_eq!(lab.send(WEB, &kept), to(OTHER));
        assert_eq!(lab.send(WEB, &sized(WEB_IP, OTHER_IP, 1400, false)), to(OTHER));
    }
    assert_eq!(
        lab.send(WEB, &sized(&v6(WEB_IP), &v6(OTHER_IP), 1500, true)),
        to(OTHER)
    );
}

#[test]
fn errors_are_not_told_about_errors_nor_later_fragments_nor_without_end() {
    let mut lab = Lab::new();
    let sent = sized(OTHER_IP, WEB_IP, 1500, true);
    assert_eq!(lab.send(OTHER, &sent), to(WEB));
    let mut error = unreachable(WEB_IP, OTHER_IP, &PAYLOAD);
    let quote = error.len() - PAYLOAD.len();
    error[quote..quote + 1500].copy_from_slice(&sent);
    error[6] = 0x40;
    renew_checksum(&mut error);
    lab.refused(WEB, &error, DropReason::TooBig, Some(WEB));
    assert_eq!(lab.worker.replies_mut().filled().len(), 0, "about an error");

    let large = sized(WEB_IP, OTHER_IP, 1501, true);
    let answered = |lab: &mut Lab, times: usize| {
        (0..times)
            .map(|_| {
                lab.send(WEB, &large);
                lab.worker.replies_mut().filled().len()
            })
            .sum::<usize>()
    };
    assert_eq!(answered(&mut lab, 1000), 32);
    assert_eq!(
        lab.send(OTHER, &sized(OTHER_IP, WEB_IP, 1501, true)),
        Verdict::Drop(DropReason::TooBig)
    );
    assert_eq!(
        lab.worker.replies_mut().filled().len(),
        1,
        "another port has its own allowance"
    );
    lab.now_ns += 100_000_000;
    assert_eq!(answered(&mut lab, 1000), 10);
    lab.pass(60);
    assert_eq!(answered(&mut lab, 1000), 32);
}
