//! NSG state (NSG-08, NSG-09): what it lets pass, how long it lasts, and what survives a change.

use engine::filter::Access;
use engine::snapshot::NicId;
use engine::{DropReason, Verdict};
use packet::Protocol;

use crate::support::*;

const DENIED: Verdict = Verdict::Drop(DropReason::NsgOutbound);

/// WEB may be talked to, and may itself begin nothing; OTHER the other way round.
fn one_way() -> Lab {
    let mut lab = Lab::new();
    lab.deny_outbound(WEB);
    lab.deny_inbound(OTHER);
    lab
}

fn asks(port: u16) -> Vec<u8> {
    udp(OTHER_IP, WEB_IP, (port, 53))
}

fn answers(port: u16) -> Vec<u8> {
    udp(WEB_IP, OTHER_IP, (53, port))
}

/// Shows: NSG-08.
#[test]
fn a_reply_passes_without_a_rule() {
    let mut lab = one_way();
    assert_eq!(lab.send(WEB, &answers(9)), DENIED);
    assert_eq!(lab.send(OTHER, &asks(9)), to(WEB));
    assert_eq!(lab.send(WEB, &answers(9)), to(OTHER));
    assert_eq!(lab.send(WEB, &answers(9)), to(OTHER));
    assert_eq!(lab.send(WEB, &answers(10)), DENIED, "another flow");
    let tcp_answer = tcp(WEB_IP, OTHER_IP, (53, 9), ACK);
    assert_eq!(lab.send(WEB, &tcp_answer), DENIED, "another protocol");
}

#[test]
fn request_and_reply_in_one_burst() {
    let mut lab = Lab::new();
    lab.deny_inbound(P1);
    let (request, reply) = (udp(P1_IP, P2_IP, (1, 2)), udp(P2_IP, P1_IP, (2, 1)));
    let verdicts = lab.send_all(VNET_PORT, &[&reply, &request, &request, &reply, &reply]);
    assert_eq!(
        verdicts,
        [
            Verdict::Drop(DropReason::NsgInbound),
            to(P2),
            to(P2),
            to(P1),
            to(P1)
        ]
    );
}

/// Shows: NSG-08.
#[test]
fn a_ping_is_answered() {
    for family in [|address: &str| address.to_owned(), |address: &str| v6(address)] {
        let mut lab = one_way();
        let (web, other) = (family(WEB_IP), family(OTHER_IP));
        assert_eq!(lab.send(OTHER, &ping(&other, &web, 77, false)), to(WEB));
        assert_eq!(lab.send(WEB, &ping(&web, &other, 77, true)), to(OTHER));
        assert_eq!(lab.send(WEB, &ping(&web, &other, 78, true)), DENIED);
    }
}

#[test]
fn state_belongs_to_a_nic() {
    let mut lab = Lab::new();
    lab.deny_inbound(DB);
    lab.deny_inbound(WEB);
    // Spoke to spoke through the appliance: the reply meets a record at every NIC it enters.
    assert_eq!(lab.send(DB, &udp(DB_IP, WEB_IP, (1, 2))), to(NVA));
    assert_eq!(
        lab.send(NVA, &udp(DB_IP, WEB_IP, (1, 2))),
        Verdict::Drop(DropReason::NsgInbound)
    );
    lab.nic(WEB).inbound = [None; 2];
    lab.publish();
    assert_eq!(lab.send(NVA, &udp(DB_IP, WEB_IP, (1, 2))), to(WEB));
    assert_eq!(lab.send(WEB, &udp(WEB_IP, DB_IP, (2, 1))), to(NVA));
    assert_eq!(lab.send(NVA, &udp(WEB_IP, DB_IP, (2, 1))), to(DB));
    assert_eq!(
        lab.worker.flows(lab.now_ns).len(),
        4,
        "NET-13: through an appliance, two pairs"
    );
}

#[test]
fn an_asymmetric_path_meets_no_record_at_the_appliance() {
    let mut lab = Lab::new();
    // WEB to DB by the appliance, which lets nothing in but what WEB begins; DB answers past it.
    lab.deny_outbound(DB);
    let peer = engine::snapshot::PeeringId(u32::try_from(lab.snapshot.peerings.len()).unwrap());
    lab.snapshot.peerings.push(engine::snapshot::Peering {
        local: engine::snapshot::VnetId(2),
        remote: engine::snapshot::VnetId(0),
        reverse: None,
        access: true,
        forwarded_accepted: true,
        transit: false,
        link: engine::snapshot::LinkId(u32::MAX),
    });
    lab.route(DB, "10.1.0.0/16", engine::fib::NextHop::Peering(peer));
    lab.deny_inbound(WEB);
    assert_eq!(lab.send(WEB, &udp(WEB_IP, DB_IP, (1, 2))), to(NVA));
    assert_eq!(lab.send(NVA, &udp(WEB_IP, DB_IP, (1, 2))), to(DB));
    assert_eq!(
        lab.send(DB, &udp(DB_IP, WEB_IP, (2, 1))),
        to(WEB),
        "both ends hold records"
    );
    // The next answer comes by the appliance, which never heard DB speak: its own rules decide.
    lab.route(
        DB,
        "10.1.0.0/16",
        engine::fib::NextHop::Appliance(Some((NVA, Some(B_TO_HUB)))),
    );
    lab.nic(NVA).inbound[0] = lab.filter(vec![]);
    lab.publish();
    assert_eq!(
        lab.send(DB, &udp(DB_IP, WEB_IP, (2, 1))),
        to(NVA),
        "the appliance sent the request on: a record"
    );
    let elsewhere = udp(DB_IP, WEB_IP, (7, 7));
    lab.nic(DB).outbound = [None; 2];
    lab.publish();
    assert_eq!(lab.send(DB, &elsewhere), Verdict::Drop(DropReason::NsgInbound));
}

/// Shows: NSG-19.
#[test]
fn a_record_ends_after_four_idle_minutes() {
    let mut lab = one_way();
    lab.send(OTHER, &asks(9));
    lab.pass(239);
    assert_eq!(lab.send(WEB, &answers(9)), to(OTHER));
    lab.pass(239);
    assert_eq!(
        lab.send(WEB, &answers(9)),
        to(OTHER),
        "the last packet counts, whoever sent it"
    );
    lab.pass(241);
    assert_eq!(lab.send(WEB, &answers(9)), DENIED);
    assert!(lab.worker.flows(lab.now_ns).is_empty());
}

#[test]
fn packets_of_one_direction_keep_both_records() {
    let mut lab = one_way();
    for _ in 0..10 {
        assert_eq!(lab.send(OTHER, &asks(9)), to(WEB));
        lab.pass(60);
    }
    assert_eq!(lab.send(WEB, &answers(9)), to(OTHER));
}

/// Shows: NSG-19.
#[test]
fn tcp_idle_time_is_the_vnets() {
    let mut lab = Lab::new();
    let vnet = lab.nic(WEB).vnet;
    lab.snapshot.vnets[vnet.index()].tcp_idle_minutes = 30;
    lab.deny_outbound(WEB);
    lab.send(OTHER, &tcp(OTHER_IP, WEB_IP, (9, 80), SYN));
    lab.pass(29 * 60);
    assert_eq!(
        lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (80, 9), SYN | ACK)),
        to(OTHER)
    );
    lab.pass(31 * 60);
    assert_eq!(lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (80, 9), ACK)), DENIED);
}

#[test]
fn fin_and_rst_leave_ten_seconds() {
    for last in [FIN | ACK, RST] {
        let mut lab = one_way();
        lab.send(OTHER, &tcp(OTHER_IP, WEB_IP, (9, 80), SYN));
        assert_eq!(
            lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (80, 9), SYN | ACK)),
            to(OTHER)
        );
        assert_eq!(lab.send(OTHER, &tcp(OTHER_IP, WEB_IP, (9, 80), last)), to(WEB));
        lab.pass(9);
        assert_eq!(lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (80, 9), ACK)), to(OTHER));
        lab.pass(11);
        assert_eq!(lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (80, 9), ACK)), DENIED);
    }
}

#[test]
fn ports_of_a_closing_connection_may_be_used_again_if_rules_allow() {
    let mut lab = one_way();
    lab.send(OTHER, &tcp(OTHER_IP, WEB_IP, (9, 80), SYN));
    lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (80, 9), FIN | ACK));
    // WEB cannot turn the closing connection round.
    assert_eq!(lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (80, 9), SYN)), DENIED);
    assert_eq!(lab.send(OTHER, &tcp(OTHER_IP, WEB_IP, (9, 80), SYN)), to(WEB));
    lab.pass(100);
    assert_eq!(
        lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (80, 9), SYN | ACK)),
        to(OTHER),
        "a new record, not ten seconds"
    );
}

/// Shows: NSG-09.
#[test]
fn a_rule_change_spares_established_flows() {
    let mut lab = Lab::new();
    assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 2))), to(OTHER));
    lab.deny_outbound(WEB);
    lab.deny_inbound(OTHER);
    lab.publish();
    assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 2))), to(OTHER), "NSG-09");
    assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 3))), DENIED);
    lab.pass(300);
    assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 2))), DENIED);
}

/// Shows: ROUTE-41.
#[test]
fn a_route_change_reaches_established_flows() {
    let mut lab = Lab::new();
    assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 2))), to(OTHER));
    lab.route(WEB, "10.1.0.5/32", engine::fib::NextHop::None);
    lab.publish();
    assert_eq!(
        lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 2))),
        Verdict::Drop(DropReason::RouteNone)
    );
}

#[test]
fn a_change_elsewhere_leaves_decisions_alone() {
    let mut lab = Lab::new();
    assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 2))), to(OTHER));
    // A rule changes without a new generation of the VNet: only a fresh decision would notice.
    lab.route(WEB, "10.1.0.5/32", engine::fib::NextHop::None);
    lab.snapshot.generation += 1;
    lab.snapshot.vnets[2].generation += 1;
    assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 2))), to(OTHER));
    lab.snapshot.generation += 1;
    lab.snapshot.vnets[0].generation += 1;
    assert_eq!(
        lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 2))),
        Verdict::Drop(DropReason::RouteNone)
    );
}

#[test]
fn an_icmp_error_follows_the_flow_it_quotes() {
    for family in [|address: &str| address.to_owned(), |address: &str| v6(address)] {
        let mut lab = Lab::new();
        let (web, db, nva) = (family(WEB_IP), family(DB_IP), family(NVA_IP));
        let sent = udp(&web, &db, (1, 2));
        [WEB, DB, NVA]
            .into_iter()
            .for_each(|nic: NicId| lab.deny_inbound(nic));
        assert_eq!(lab.send(WEB, &sent), Verdict::Drop(DropReason::NsgInbound));
        [DB, NVA]
            .into_iter()
            .for_each(|nic: NicId| lab.nic(nic).inbound = [None; 2]);
        lab.publish();
        assert_eq!(lab.send(WEB, &sent), to(NVA));
        // The appliance refuses: it has received the packet, WEB has sent it, and no rule is asked.
        lab.deny_outbound(NVA);
        lab.publish();
        assert_eq!(lab.send(NVA, &unreachable(&nva, &web, &sent)), to(WEB));
        let other = udp(&web, &db, (1, 3));
        lab.refused(
            NVA,
            &unreachable(&nva, &web, &other),
            DropReason::IcmpUnrelated,
            Some(NVA),
        );
        let before = lab.worker.stats().flows;
        lab.nic(NVA).outbound = [None; 2];
        lab.publish();
        assert_eq!(lab.send(NVA, &sent), to(DB));
        assert_eq!(lab.send(DB, &unreachable(&db, &web, &sent)), to(NVA));
        assert_eq!(lab.send(NVA, &unreachable(&db, &web, &sent)), to(WEB));
        assert_eq!(lab.worker.stats().flows, before + 2, "errors make no record");
    }
}

/// Shows: NSG-07.
#[test]
fn rules_see_protocols_not_icmp_identifiers() {
    let mut lab = Lab::new();
    let filter = lab.filter(vec![rule(Access::Allow, Some(Protocol::ICMP), Some(80))]);
    lab.nic(WEB).inbound[1] = filter;
    assert_eq!(
        lab.send(OTHER, &ping(OTHER_IP, WEB_IP, 77, false)),
        to(WEB),
        "NSG-07: ports are ignored"
    );
}
