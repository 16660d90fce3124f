//! Every drop reason of the packet path as it is today, with its count.

use engine::fib::NextHop;
use engine::filter::Access;
use engine::snapshot::{NicId, PortId};
use engine::{DropReason, Verdict};
use packet::Protocol;

use crate::support::*;

#[test]
fn malformed_header() {
    let mut lab = Lab::new();
    let mut bytes = udp(WEB_IP, OTHER_IP, (1, 2));
    bytes[8] ^= 1;
    lab.refused(WEB, &bytes, DropReason::MalformedHeader, Some(WEB));
    bytes.truncate(3);
    lab.refused(P1, &bytes, DropReason::MalformedHeader, None);
}

#[test]
fn malformed_vnet_header() {
    let mut lab = Lab::new();
    let mut burst = packet::Burst::new(1);
    let vnet = packet::VnetHeader {
        gso_type: 0x7f,
        gso_size: 9,
        ..Default::default()
    };
    assert!(burst.push(&udp(WEB_IP, OTHER_IP, (1, 2)), vnet));
    let mut verdicts = Vec::new();
    lab.worker
        .process(&lab.snapshot, lab.now_ns, PortId(0), &mut burst, &mut verdicts);
    assert_eq!(verdicts, [Verdict::Drop(DropReason::MalformedVnetHeader)]);
}

/// Shows: NET-01.
#[test]
fn unsupported_protocol() {
    let mut lab = Lab::new();
    lab.refused(
        WEB,
        &udp(WEB_IP, "224.0.0.1", (1, 2)),
        DropReason::UnsupportedProtocol,
        Some(WEB),
    );
}

#[test]
fn unknown_nic() {
    let mut lab = Lab::new();
    assert_eq!(lab.send(P1, &udp(P1_IP, OTHER_IP, (1, 2))), to(OTHER));
    lab.refused(
        P1,
        &udp("10.1.1.99", OTHER_IP, (1, 2)),
        DropReason::UnknownNic,
        None,
    );
    // An address of the VNet, but of a NIC with a port of its own.
    lab.refused(P1, &udp(WEB_IP, OTHER_IP, (1, 2)), DropReason::UnknownNic, None);
}

/// Shows: NVA-01, NVA-02.
#[test]
fn spoofed_source() {
    let mut lab = Lab::new();
    lab.refused(
        WEB,
        &udp(OTHER_IP, DB_IP, (1, 2)),
        DropReason::SpoofedSource,
        Some(WEB),
    );
    // NVA-02: a NIC that forwards may send in any name.
    assert_eq!(lab.send(NVA, &udp(WEB_IP, DB_IP, (1, 2))), to(DB));
    lab.refused(
        INTERNET,
        &udp("192.0.2.1", WEB_PUBLIC, (1, 2)),
        DropReason::SpoofedSource,
        None,
    );
}

#[test]
fn spoofing_an_established_flow() {
    let mut lab = Lab::new();
    let honest = udp(WEB_IP, OTHER_IP, (1, 2));
    assert_eq!(lab.send(WEB, &honest), to(OTHER));
    assert_eq!(lab.send(WEB, &honest), to(OTHER));
    lab.refused(DB, &honest, DropReason::SpoofedSource, Some(DB));
}

/// Shows: NSG-06, NSG-07.
#[test]
fn nsg_outbound() {
    let mut lab = Lab::new();
    let allow = lab.filter(vec![rule(Access::Allow, None, None)]);
    let web_only = lab.filter(vec![rule(Access::Allow, Some(Protocol::TCP), Some(80))]);
    lab.nic(WEB).outbound = [allow, web_only];
    assert_eq!(lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (9, 80), SYN)), to(OTHER));
    lab.refused(
        WEB,
        &tcp(WEB_IP, OTHER_IP, (9, 81), SYN),
        DropReason::NsgOutbound,
        Some(WEB),
    );
    lab.refused(
        WEB,
        &udp(WEB_IP, OTHER_IP, (9, 80)),
        DropReason::NsgOutbound,
        Some(WEB),
    );
    assert_eq!(lab.worker.stats().flows, 2, "a refused packet leaves no record");
}

/// Shows: NSG-23.
#[test]
fn nsg_inbound() {
    let mut lab = Lab::new();
    lab.deny_inbound(OTHER);
    lab.refused(
        WEB,
        &udp(WEB_IP, OTHER_IP, (9, 80)),
        DropReason::NsgInbound,
        Some(OTHER),
    );
    assert_eq!(lab.worker.stats().flows, 0);
    // NSG-23: two NICs behind one port are filtered from each other.
    lab.deny_inbound(P2);
    lab.refused(P1, &udp(P1_IP, P2_IP, (9, 80)), DropReason::NsgInbound, Some(P2));
}

/// Shows: ROUTE-25.
#[test]
fn no_route() {
    let mut lab = Lab::new();
    lab.snapshot.fibs[0] = engine::fib::Fib::compile(vec![]);
    lab.refused(
        WEB,
        &udp(WEB_IP, OTHER_IP, (1, 2)),
        DropReason::NoRoute,
        Some(WEB),
    );
}

/// Shows: ROUTE-14.
#[test]
fn route_none() {
    let mut lab = Lab::new();
    lab.route(WEB, "10.1.0.5/32", NextHop::None);
    lab.refused(
        WEB,
        &udp(WEB_IP, OTHER_IP, (1, 2)),
        DropReason::RouteNone,
        Some(WEB),
    );
}

/// Shows: ROUTE-18.
#[test]
fn next_hop_unreachable() {
    let mut lab = Lab::new();
    lab.route(WEB, "10.1.0.5/32", NextHop::Appliance(None));
    lab.refused(
        WEB,
        &udp(WEB_IP, OTHER_IP, (1, 2)),
        DropReason::NextHopUnreachable,
        Some(WEB),
    );
}

#[test]
fn no_destination() {
    let mut lab = Lab::new();
    lab.refused(
        WEB,
        &udp(WEB_IP, "10.1.0.77", (1, 2)),
        DropReason::NoDestination,
        Some(WEB),
    );
    lab.refused(
        WEB,
        &udp(WEB_IP, "10.0.0.77", (1, 2)),
        DropReason::NoDestination,
        Some(WEB),
    );
    lab.refused(
        WEB,
        &udp(WEB_IP, "198.51.100.8", (1, 2)),
        DropReason::NoDestination,
        Some(WEB),
    );
    lab.refused(
        INTERNET,
        &udp(CLIENT, "203.0.113.99", (1, 2)),
        DropReason::NoDestination,
        None,
    );
}

#[test]
fn no_internet() {
    let mut lab = Lab::new();
    // DB has no public address.
    lab.refused(DB, &udp(DB_IP, CLIENT, (1, 2)), DropReason::NoInternet, Some(DB));
    // NVA-03: the appliance may not use the name of another.
    lab.nic(NVA).public = vec![ip("203.0.113.12")];
    lab.refused(
        NVA,
        &udp(WEB_IP, CLIENT, (1, 2)),
        DropReason::NoInternet,
        Some(NVA),
    );
    lab.snapshot.internet = None;
    lab.refused(
        WEB,
        &udp(WEB_IP, CLIENT, (1, 2)),
        DropReason::NoInternet,
        Some(WEB),
    );
}

#[test]
fn no_gateway() {
    let mut lab = Lab::new();
    lab.route(WEB, "192.168.0.0/16", NextHop::NoGateway);
    lab.refused(
        WEB,
        &udp(WEB_IP, "192.168.0.1", (1, 2)),
        DropReason::NoGateway,
        Some(WEB),
    );
}

/// Shows: PEER-20.
#[test]
fn peering_access_off() {
    let mut lab = Lab::new();
    lab.snapshot.peerings[A_TO_HUB.index()].access = false;
    lab.refused(
        WEB,
        &udp(WEB_IP, NVA_IP, (1, 2)),
        DropReason::PeeringAccessOff,
        Some(WEB),
    );
    lab.refused(
        WEB,
        &udp(WEB_IP, DB_IP, (1, 2)),
        DropReason::PeeringAccessOff,
        Some(WEB),
    );
}

/// Shows: PEER-21.
#[test]
fn forwarded_traffic_off() {
    let mut lab = Lab::new();
    lab.snapshot.peerings[HUB_TO_B.index()].forwarded_accepted = false;
    assert_eq!(lab.send(WEB, &udp(WEB_IP, DB_IP, (1, 2))), to(NVA));
    lab.refused(
        NVA,
        &udp(WEB_IP, DB_IP, (1, 2)),
        DropReason::ForwardedTrafficOff,
        Some(NVA),
    );
    assert_eq!(lab.send(NVA, &udp(NVA_IP, DB_IP, (1, 2))), to(DB));
}

/// Shows: NVA-01.
#[test]
fn not_for_nic() {
    let mut lab = Lab::new();
    lab.nic(NVA).ip_forwarding = false;
    lab.refused(WEB, &udp(WEB_IP, DB_IP, (1, 2)), DropReason::NotForNic, Some(NVA));
}

/// Shows: VNET-08.
#[test]
fn platform_reserved() {
    let mut lab = Lab::new();
    lab.deny_outbound(WEB);
    for platform in ["168.63.129.16", "169.254.169.254"] {
        lab.refused(
            WEB,
            &udp(WEB_IP, platform, (1, 53)),
            DropReason::PlatformReserved,
            Some(WEB),
        );
        lab.refused(
            NVA,
            &udp(platform, WEB_IP, (1, 53)),
            DropReason::PlatformReserved,
            Some(NVA),
        );
    }
}

/// Shows: NET-02.
#[test]
fn ports_reserved_to_the_platform() {
    let mut lab = Lab::new();
    for (source, destination) in [
        (WEB_IP.to_owned(), OTHER_IP.to_owned()),
        (v6(WEB_IP), v6(OTHER_IP)),
    ] {
        for (ports, reserved) in [
            ((68, 67), true),
            ((65330, 53), true),
            ((68, 53), false),
            ((53, 65330), false),
        ] {
            let packet = udp(&source, &destination, ports);
            if reserved {
                lab.refused(WEB, &packet, DropReason::PlatformReserved, Some(WEB));
            } else {
                assert_eq!(lab.send(WEB, &packet), to(OTHER));
            }
        }
        assert_eq!(
            lab.send(WEB, &tcp(&source, &destination, (65330, 80), SYN)),
            to(OTHER)
        );
        assert_eq!(
            lab.send(WEB, &tcp(&source, &destination, (68, 67), SYN)),
            to(OTHER)
        );
    }
}

/// An IP packet of any protocol between WEB and OTHER.
fn of_protocol(protocol: u8) -> Vec<u8> {
    let header = etherparse::Ipv4Header::new(
        40,
        64,
        etherparse::IpNumber(protocol),
        [10, 1, 0, 4],
        [10, 1, 0, 5],
    );
    let mut bytes = Vec::new();
    header.unwrap().write(&mut bytes).unwrap();
    // Also a whole UDP header and the first of any other: what is refused is the protocol.
    bytes.extend_from_slice(&[0, 1, 0, 2, 0, 40, 0, 0]);
    bytes.resize(60, 0x50);
    bytes
}

/// Shows: NET-01.
#[test]
fn only_tcp_udp_and_icmp_and_since_2025_ipsec() {
    for carries_ipsec in [false, true] {
        let mut lab = Lab::new();
        lab.snapshot.carries_ipsec = carries_ipsec;
        for protocol in 0..=255 {
            let packet = of_protocol(protocol);
            if matches!(protocol, 1 | 6 | 17) || (carries_ipsec && matches!(protocol, 50 | 51)) {
                assert_eq!(lab.send(WEB, &packet), to(OTHER), "{protocol}");
            } else {
                lab.refused(WEB, &packet, DropReason::UnsupportedProtocol, Some(WEB));
            }
        }
        for destination in ["224.0.0.5", "239.1.2.3", "255.255.255.255", "ff02::1", "ff05::2"] {
            let source = if destination.contains(':') {
                v6(WEB_IP)
            } else {
                WEB_IP.to_owned()
            };
            let packet = udp(&source, destination, (1, 2));
            lab.refused(WEB, &packet, DropReason::UnsupportedProtocol, Some(WEB));
        }
        // The broadcast address of a subnet is nobody's.
        lab.refused(
            WEB,
            &udp(WEB_IP, "10.1.0.255", (1, 2)),
            DropReason::NoDestination,
            Some(WEB),
        );
    }
}

/// Shows: NET-06.
#[test]
fn the_router_of_a_subnet_does_not_answer() {
    let mut lab = Lab::new();
    let packet = ping(WEB_IP, &router(WEB_IP), 1, false);
    lab.refused(WEB, &packet, DropReason::NoDestination, Some(WEB));
    assert_eq!(lab.worker.replies_mut().filled().len(), 0);
}

#[test]
fn icmp_unrelated() {
    let mut lab = Lab::new();
    let never_sent = udp(OTHER_IP, WEB_IP, (5, 6));
    let error = unreachable(WEB_IP, OTHER_IP, &never_sent);
    lab.refused(WEB, &error, DropReason::IcmpUnrelated, Some(WEB));
    assert_eq!(lab.send(OTHER, &never_sent), to(WEB));
    assert_eq!(lab.send(WEB, &error), to(OTHER));
}

#[test]
fn losses_at_the_port() {
    let mut lab = Lab::new();
    let bytes = udp(WEB_IP, OTHER_IP, (1, 2));
    assert_eq!(lab.send(WEB, &bytes), to(OTHER));
    lab.worker.lost(0, DropReason::PortFull, lab.now_ns);
    assert_eq!(
        lab.count(DropReason::PortFull, Some(OTHER)),
        (1, bytes.len() as u64)
    );
    assert_eq!(lab.worker.stats().nics[OTHER.index()].rx_packets, 0);
    assert_eq!(lab.worker.stats().nics[WEB.index()].tx_packets, 1);
    // A second report of the same packet, or one of no packet, counts nothing.
    lab.worker.lost(0, DropReason::PortFull, lab.now_ns);
    lab.worker.lost(1, DropReason::PortFull, lab.now_ns);
    assert_eq!(lab.count(DropReason::PortFull, Some(OTHER)).0, 1);
}

#[test]
fn recent_drops_keep_the_key() {
    let mut lab = Lab::new();
    lab.deny_inbound(OTHER);
    lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 2)));
    let stats = lab.worker.stats();
    let drop = stats.recent_drops.last().unwrap();
    assert_eq!(
        (drop.reason, drop.nic, drop.now_ns),
        (DropReason::NsgInbound, Some(OTHER), lab.now_ns)
    );
    assert_eq!(
        (drop.key.source, drop.key.destination),
        (ip(WEB_IP), ip(OTHER_IP))
    );
    assert_eq!((drop.key.source_port, drop.key.destination_port), (1, 2));
}

#[test]
fn traffic_is_counted_at_both_ends() {
    let mut lab = Lab::new();
    let bytes = udp(WEB_IP, OTHER_IP, (1, 2));
    (0..3).for_each(|_| assert_eq!(lab.send(WEB, &bytes), to(OTHER)));
    let nics = lab.worker.stats().nics;
    let length = 3 * bytes.len() as u64;
    assert_eq!(
        (nics[WEB.index()].tx_packets, nics[WEB.index()].tx_bytes),
        (3, length)
    );
    assert_eq!(
        (nics[OTHER.index()].rx_packets, nics[OTHER.index()].rx_bytes),
        (3, length)
    );
    let flows = lab.worker.flows(lab.now_ns);
    let sender = flows.iter().find(|flow| flow.nic == Some(WEB)).unwrap();
    assert_eq!((sender.inbound, sender.packets, sender.bytes), (false, 3, length));
    let receiver = flows.iter().find(|flow| flow.nic == Some(OTHER)).unwrap();
    assert_eq!(
        (receiver.inbound, receiver.packets, receiver.key),
        (true, 0, sender.key)
    );
}

#[test]
fn both_families_take_the_same_path() {
    let mut lab = Lab::new();
    assert_eq!(lab.send(WEB, &udp(&v6(WEB_IP), &v6(DB_IP), (1, 2))), to(NVA));
    assert_eq!(lab.send(NVA, &udp(&v6(WEB_IP), &v6(DB_IP), (1, 2))), to(DB));
    lab.refused(
        WEB,
        &udp(&v6(WEB_IP), &v6("10.0.0.77"), (1, 2)),
        DropReason::NoDestination,
        Some(WEB),
    );
}

#[test]
fn a_nic_may_talk_to_itself() {
    let mut lab = Lab::new();
    lab.deny_outbound(P1);
    lab.refused(
        P1,
        &ping(P1_IP, P1_IP, 3, false),
        DropReason::NsgOutbound,
        Some(P1),
    );
    lab.nic(P1).outbound = [None; 2];
    lab.publish();
    for _ in 0..2 {
        assert_eq!(lab.send(P1, &ping(P1_IP, P1_IP, 3, false)), to(P1));
        assert_eq!(lab.send(P1, &udp(P1_IP, P1_IP, (3, 3))), to(P1));
        assert_eq!(lab.send(P1, &udp(P1_IP, P1_IP, (3, 4))), to(P1));
        assert_eq!(lab.send(P1, &udp(P1_IP, P2_IP, (3, 4))), to(P2));
    }
    let nics: Vec<NicId> = lab
        .worker
        .flows(lab.now_ns)
        .iter()
        .filter_map(|flow| flow.nic)
        .collect();
    assert_eq!(nics.iter().filter(|&&nic| nic == P1).count(), 1 + 1 + 2 + 1);
}

#[test]
fn recent_drops_are_bounded() {
    let mut lab = Lab::new();
    lab.deny_outbound(WEB);
    for port in 0..10_000 {
        lab.send(WEB, &udp(WEB_IP, OTHER_IP, (port, 2)));
    }
    let recent = lab.worker.stats().recent_drops;
    assert!((1000..5000).contains(&recent.len()));
    assert_eq!(recent.last().map(|drop| drop.key.source_port), Some(9999));
    assert_eq!(recent[0].key.source_port, 10_000 - recent.len() as u16);
    assert_eq!(lab.count(DropReason::NsgOutbound, Some(WEB)).0, 10_000);
}
