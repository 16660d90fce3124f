//! The Internet edge: a NIC's public address stands for its private one, 1:1, and nothing else is translated.

use engine::{DropReason, Verdict};
use etherparse::SlicedPacket;
use packet::Headers;
use packet::key::mapped;

use crate::support::*;

const TO_INTERNET: Verdict = Verdict::Forward {
    port: INTERNET,
    nic: None,
    fragment: None,
};

/// Addresses of a packet, after its checksums were found right by an independent parser.
fn checked(bytes: &[u8]) -> (u128, u128) {
    let sliced = SlicedPacket::from_ip(bytes).unwrap();
    let (pair, sums): ((u128, u128), bool) = match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (etherparse::NetSlice::Ipv4(ip), transport) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let sum = match transport {
                etherparse::TransportSlice::Udp(udp) => {
                    let header = udp.to_header();
                    header
                        .calc_checksum_ipv4(&ip.header().to_header(), udp.payload())
                        .unwrap()
                        == header.checksum
                }
                etherparse::TransportSlice::Tcp(tcp) => {
                    let header = tcp.to_header();
                    header
                        .calc_checksum_ipv4(&ip.header().to_header(), tcp.payload())
                        .unwrap()
                        == header.checksum
                }
                etherparse::TransportSlice::Icmpv4(icmp) => {
                    let header = icmp.header();
                    header.icmp_type.calc_checksum(icmp.payload()) == header.checksum
                }
                _ => false,
            };
            let pair = (header.source.into(), header.destination.into());
            let pair: (std::net::Ipv4Addr, std::net::Ipv4Addr) = pair;
            ((mapped(pair.0.into()), mapped(pair.1.into())), sum)
        }
        (etherparse::NetSlice::Ipv6(ip), etherparse::TransportSlice::Udp(udp)) => {
            let (ip, header) = (ip.header().to_header(), udp.to_header());
            let sum = header.calc_checksum_ipv6(&ip, udp.payload()).unwrap() == header.checksum;
            (
                (
                    u128::from_be_bytes(ip.source),
                    u128::from_be_bytes(ip.destination),
                ),
                sum,
            )
        }
        other => panic!("{other:?}"),
    };
    assert!(sums, "a checksum is wrong");
    pair
}

#[test]
fn out_and_back() {
    for family in [|address: &str| address.to_owned(), |address: &str| v6(address)] {
        let mut lab = Lab::new();
        let (web, public, client) = (family(WEB_IP), family(WEB_PUBLIC), family(CLIENT));
        lab.deny_inbound(WEB);
        let stranger = udp(&client, &public, (53, 9));
        lab.refused(INTERNET, &stranger, DropReason::NsgInbound, Some(WEB));
        for _ in 0..3 {
            assert_eq!(lab.send(WEB, &udp(&web, &client, (9, 53))), TO_INTERNET);
            assert_eq!(checked(lab.left(0)), (ip(&public), ip(&client)));
            assert_eq!(
                lab.send(INTERNET, &stranger),
                to(WEB),
                "the answer passes by state"
            );
            assert_eq!(checked(lab.left(0)), (ip(&client), ip(&web)));
        }
    }
}

#[test]
fn in_and_back() {
    let mut lab = Lab::new();
    lab.deny_outbound(WEB);
    lab.refused(
        WEB,
        &tcp(WEB_IP, CLIENT, (80, 9), SYN | ACK),
        DropReason::NsgOutbound,
        Some(WEB),
    );
    for flags in [SYN, ACK] {
        assert_eq!(
            lab.send(INTERNET, &tcp(CLIENT, WEB_PUBLIC, (9, 80), flags)),
            to(WEB)
        );
        assert_eq!(checked(lab.left(0)), (ip(CLIENT), ip(WEB_IP)));
        assert_eq!(
            lab.send(WEB, &tcp(WEB_IP, CLIENT, (80, 9), flags | ACK)),
            TO_INTERNET
        );
        assert_eq!(checked(lab.left(0)), (ip(WEB_PUBLIC), ip(CLIENT)));
    }
}

/// Shows: NSG-15.
#[test]
fn inbound_rules_see_the_private_address() {
    let mut lab = Lab::new();
    let mut private_only = rule(engine::filter::Access::Allow, None, None);
    private_only.destinations = vec![prefix("10.1.0.4/32")];
    lab.nic(WEB).inbound[0] = lab.filter(vec![private_only]);
    assert_eq!(
        lab.send(INTERNET, &udp(CLIENT, WEB_PUBLIC, (9, 80))),
        to(WEB),
        "NSG-15"
    );
}

#[test]
fn from_public_to_public_address() {
    let mut lab = Lab::new();
    lab.deny_outbound(OTHER);
    for _ in 0..2 {
        assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_PUBLIC, (1, 2))), to(OTHER));
        assert_eq!(checked(lab.left(0)), (ip(WEB_PUBLIC), ip(OTHER_IP)));
        assert_eq!(lab.send(OTHER, &udp(OTHER_IP, WEB_PUBLIC, (2, 1))), to(WEB));
        assert_eq!(checked(lab.left(0)), (ip(OTHER_PUBLIC), ip(WEB_IP)));
    }
}

#[test]
fn errors_are_translated_inside_and_out() {
    let mut lab = Lab::new();
    assert_eq!(lab.send(WEB, &udp(WEB_IP, CLIENT, (9, 53))), TO_INTERNET);
    let on_the_wire = lab.left(0).to_vec();
    assert_eq!(
        lab.send(INTERNET, &unreachable(CLIENT, WEB_PUBLIC, &on_the_wire)),
        to(WEB)
    );
    assert_eq!(checked(lab.left(0)), (ip(CLIENT), ip(WEB_IP)));
    let quoted = Headers::parse(lab.left(0), &packet::VnetHeader::default())
        .unwrap()
        .quoted
        .unwrap();
    assert_eq!((quoted.source, quoted.destination), (ip(WEB_IP), ip(CLIENT)));

    assert_eq!(lab.send(INTERNET, &udp(CLIENT, WEB_PUBLIC, (7, 8))), to(WEB));
    let received = lab.left(0).to_vec();
    assert_eq!(
        lab.send(WEB, &unreachable(WEB_IP, CLIENT, &received)),
        TO_INTERNET
    );
    assert_eq!(checked(lab.left(0)), (ip(WEB_PUBLIC), ip(CLIENT)));
    let quoted = Headers::parse(lab.left(0), &packet::VnetHeader::default())
        .unwrap()
        .quoted
        .unwrap();
    assert_eq!((quoted.source, quoted.destination), (ip(CLIENT), ip(WEB_PUBLIC)));

    let never = udp(WEB_PUBLIC, CLIENT, (1, 1));
    lab.refused(
        INTERNET,
        &unreachable(CLIENT, WEB_PUBLIC, &never),
        DropReason::IcmpUnrelated,
        Some(WEB),
    );
    // Ports and peer as in WEB's flow, but another had sent it.
    let of_another = udp(OTHER_PUBLIC, CLIENT, (9, 53));
    let error = unreachable(CLIENT, WEB_PUBLIC, &of_another);
    lab.refused(INTERNET, &error, DropReason::IcmpUnrelated, Some(WEB));
}

/// Shows: NET-08, PEER-36.
#[test]
fn inside_the_fabric_nothing_changes() {
    let mut lab = Lab::new();
    let bytes = udp(WEB_IP, DB_IP, (1, 2));
    assert_eq!(lab.send(WEB, &bytes), to(NVA));
    assert_eq!(lab.left(0), bytes, "NET-08: not even the time to live");
}

/// Shows: NET-04.
#[test]
fn fragments_are_translated_like_their_first() {
    let mut lab = Lab::new();
    let whole = udp_with(WEB_IP, CLIENT, (9, 53), &[7; 40]);
    let cut = |range: std::ops::Range<usize>, more| {
        let mut bytes = [&whole[..20], &whole[20..][range.clone()]].concat();
        let length = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        fragment(&bytes, u16::try_from(range.start).unwrap(), more, 7)
    };
    let mut together = Vec::new();
    for piece in [cut(0..24, true), cut(24..40, true), cut(40..48, false)] {
        assert_eq!(lab.send(WEB, &piece), TO_INTERNET);
        let left = lab.left(0);
        let header = etherparse::Ipv4Header::from_slice(left).unwrap().0;
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(
            ip(&std::net::Ipv4Addr::from(header.source).to_string()),
            ip(WEB_PUBLIC)
        );
        together.extend_from_slice(&left[20..]);
    }
    // Put together, the datagram is the one that would have left whole.
    assert_eq!(lab.send(WEB, &whole), TO_INTERNET);
    assert_eq!(together, lab.left(0)[20..]);
}

/// Quotes as short as they come (RFC 792: the header and eight bytes), and errors about errors.
#[test]
fn short_quotes_relate_and_nested_ones_do_not() {
    let mut lab = Lab::new();
    for (web, other) in [
        (WEB_IP.to_owned(), OTHER_IP.to_owned()),
        (v6(WEB_IP), v6(OTHER_IP)),
    ] {
        let sent = udp_with(&web, &other, (9, 53), &[7; 400]);
        assert_eq!(lab.send(WEB, &sent), to(OTHER));
        let header = if web.contains(':') { 40 } else { 20 };
        assert_eq!(
            lab.send(OTHER, &unreachable(&other, &web, &sent[..header + 8])),
            to(WEB)
        );
        let short = unreachable(&other, &web, &sent[..header + 7]);
        lab.refused(OTHER, &short, DropReason::MalformedHeader, Some(OTHER));
        // About the error that WEB has just received: it never was part of a flow.
        let nested = unreachable(&web, &other, &unreachable(&other, &web, &sent));
        lab.refused(WEB, &nested, DropReason::IcmpUnrelated, Some(WEB));
        // A flow that was, from the wrong end of it, and in the wrong direction.
        let own = unreachable(&web, &other, &sent);
        lab.refused(WEB, &own, DropReason::IcmpUnrelated, Some(WEB));
        let by_third = unreachable(
            &if web.contains(':') {
                v6(DB_IP)
            } else {
                DB_IP.to_owned()
            },
            &web,
            &sent,
        );
        lab.refused(DB, &by_third, DropReason::IcmpUnrelated, Some(DB));
        // Related, but to nobody who has sent it.
        let astray = unreachable(
            &other,
            &if web.contains(':') {
                v6(P1_IP)
            } else {
                P1_IP.to_owned()
            },
            &sent,
        );
        lab.refused(OTHER, &astray, DropReason::IcmpUnrelated, Some(P1));
    }
    // IPv6 errors beyond unreachable: too big, time exceeded, parameter problem.
    let (web, other) = (v6(WEB_IP), v6(OTHER_IP));
    let sent = udp(&web, &other, (9, 54));
    for kind in 1..=4 {
        let error = |kind: u8| {
            let mut bytes = unreachable(&other, &web, &sent);
            bytes[40] = kind;
            bytes
        };
        let mut lab = Lab::new();
        lab.refused(OTHER, &error(kind), DropReason::IcmpUnrelated, Some(OTHER));
        assert_eq!(lab.send(WEB, &sent), to(OTHER));
        assert_eq!(lab.send(OTHER, &error(kind)), to(WEB), "type {kind}");
    }
}
