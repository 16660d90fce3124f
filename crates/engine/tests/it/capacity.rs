//! A full flow table: who goes first, who never does, and what a flood costs.

use engine::{DropReason, Verdict, WorkerOptions};

use crate::support::*;

/// Shows: NET-13.
#[test]
fn a_nic_has_so_many_flows_and_no_more() {
    let mut lab = Lab::new();
    lab.snapshot.flows_per_nic = 10;
    // Five each way, UDP that is still young: nothing may be evicted.
    for port in 0..5 {
        assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_IP, (port, 2))), to(OTHER));
        assert_eq!(lab.send(OTHER, &udp(OTHER_IP, WEB_IP, (100 + port, 3))), to(WEB));
    }
    lab.refused(
        WEB,
        &udp(WEB_IP, DB_IP, (99, 2)),
        DropReason::FlowLimit,
        Some(WEB),
    );
    lab.refused(P1, &udp(P1_IP, WEB_IP, (99, 2)), DropReason::FlowLimit, Some(WEB));
    assert_eq!(lab.worker.stats().flows, 20, "a refused packet leaves no record");
    // Known flows go on, replies too, and others do not feel it.
    assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_IP, (1, 2))), to(OTHER));
    assert_eq!(lab.send(OTHER, &udp(OTHER_IP, WEB_IP, (2, 1))), to(WEB));
    assert_eq!(lab.send(P1, &udp(P1_IP, P2_IP, (1, 2))), to(P2));
    // What is over counts no more.
    lab.pass(241);
    assert_eq!(lab.send(WEB, &udp(WEB_IP, DB_IP, (99, 2))), to(NVA));
}

/// Shows: NET-13.
#[test]
fn a_connection_through_an_appliance_takes_two_of_its_flows() {
    let mut lab = Lab::new();
    lab.snapshot.flows_per_nic = 10;
    let through = |lab: &mut Lab, port: u16| {
        let packet = udp(WEB_IP, DB_IP, (port, 2));
        (lab.send(WEB, &packet), lab.send(NVA, &packet))
    };
    for port in 0..5 {
        assert_eq!(through(&mut lab, port), (to(NVA), to(DB)));
    }
    lab.refused(WEB, &udp(WEB_IP, DB_IP, (5, 2)), DropReason::FlowLimit, Some(NVA));
}

const LIMITED: Verdict = Verdict::Drop(DropReason::FlowLimit);

fn small(flow_capacity: u32) -> Lab {
    Lab::with(WorkerOptions {
        flow_capacity,
        ..WorkerOptions::default()
    })
}

/// A TCP connection from WEB to OTHER:80.
fn connect(lab: &mut Lab, port: u16) -> [Verdict; 2] {
    let syn = lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (port, 80), SYN));
    [
        syn,
        lab.send(OTHER, &tcp(OTHER_IP, WEB_IP, (80, port), SYN | ACK)),
    ]
}

fn talks(lab: &mut Lab, port: u16) -> bool {
    lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (port, 80), ACK)) == to(OTHER)
        && lab.send(OTHER, &tcp(OTHER_IP, WEB_IP, (80, port), ACK)) == to(WEB)
}

/// Shows: NET-13.
#[test]
fn established_flows_never_go() {
    let mut lab = small(100);
    (1..=50).for_each(|port| assert_eq!(connect(&mut lab, port), [to(OTHER), to(WEB)]));
    assert_eq!(lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (51, 80), SYN)), LIMITED);
    assert_eq!(lab.send(P1, &udp(P1_IP, P2_IP, (1, 2))), LIMITED);
    assert_eq!(lab.count(DropReason::FlowLimit, Some(WEB)).0, 1);
    assert!((1..=50).all(|port| talks(&mut lab, port)));
    assert_eq!(lab.worker.stats().flows, 100);
    // Once one closes there is room.
    lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (7, 80), RST));
    assert_eq!(connect(&mut lab, 51), [to(OTHER), to(WEB)]);
}

#[test]
fn a_new_flow_takes_both_entries_or_none() {
    let mut lab = small(101);
    (1..=50).for_each(|port| assert_eq!(connect(&mut lab, port), [to(OTHER), to(WEB)]));
    for _ in 0..3 {
        assert_eq!(lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (51, 80), SYN)), LIMITED);
        assert_eq!(lab.worker.stats().flows, 100);
    }
}

#[test]
fn half_open_flows_go_before_closing_and_quiet_ones() {
    let mut lab = small(12);
    lab.deny_outbound(OTHER);
    // Two closing, two half-open, two answered UDP.
    for port in [3, 4] {
        connect(&mut lab, port);
        lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (port, 80), FIN | ACK));
    }
    for port in [1, 2] {
        assert_eq!(lab.send(WEB, &tcp(WEB_IP, OTHER_IP, (port, 80), SYN)), to(OTHER));
    }
    for port in [5, 6] {
        lab.send(WEB, &udp(WEB_IP, OTHER_IP, (port, 53)));
        assert_eq!(lab.send(OTHER, &udp(OTHER_IP, WEB_IP, (53, port))), to(WEB));
    }
    let alive = |lab: &Lab| {
        let mut ports: Vec<u16> = (lab.worker.flows(lab.now_ns).iter().filter(|flow| !flow.inbound))
            .map(|flow| flow.key.source_port)
            .collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(alive(&lab), [1, 2, 3, 4, 5, 6]);
    assert_eq!(connect(&mut lab, 10), [to(OTHER), to(WEB)]);
    assert_eq!(alive(&lab), [2, 3, 4, 5, 6, 10]);
    assert_eq!(connect(&mut lab, 11), [to(OTHER), to(WEB)]);
    assert_eq!(alive(&lab), [3, 4, 5, 6, 10, 11]);
    assert_eq!(connect(&mut lab, 12), [to(OTHER), to(WEB)]);
    assert_eq!(connect(&mut lab, 13), [to(OTHER), to(WEB)]);
    assert_eq!(alive(&lab), [5, 6, 10, 11, 12, 13]);
    assert_eq!(
        connect(&mut lab, 14)[0],
        LIMITED,
        "answered UDP that still talks stays"
    );
    lab.pass(31);
    lab.send(WEB, &udp(WEB_IP, OTHER_IP, (6, 53)));
    assert_eq!(connect(&mut lab, 14), [to(OTHER), to(WEB)]);
    assert_eq!(alive(&lab), [6, 10, 11, 12, 13, 14]);
}

#[test]
fn a_flood_costs_established_flows_nothing() {
    let mut lab = small(1000);
    (1..=200).for_each(|port| assert_eq!(connect(&mut lab, port), [to(OTHER), to(WEB)]));
    for flood in 0..20_000_u32 {
        let ports = (1000 + (flood % 60_000) as u16, 1 + (flood / 7) as u16);
        assert_eq!(
            lab.send(P1, &udp(P1_IP, P2_IP, ports)),
            to(P2),
            "the oldest of the flood makes room"
        );
        if flood.is_multiple_of(1000) {
            assert!((1..=200).all(|port| talks(&mut lab, port)));
            lab.pass(1);
        }
    }
    assert_eq!(
        connect(&mut lab, 999),
        [to(OTHER), to(WEB)],
        "and a new connection gets in"
    );
    assert!(lab.worker.stats().flows <= 1000);
    lab.pass(300);
    assert!(lab.worker.flows(lab.now_ns).is_empty());
}

#[test]
fn flows_survive_the_growth_of_the_index() {
    let mut lab = small(40_000);
    lab.deny_outbound(OTHER);
    for port in 1..=15_000 {
        assert_eq!(lab.send(WEB, &udp(WEB_IP, OTHER_IP, (port, 53))), to(OTHER));
    }
    for port in 1..=15_000 {
        assert_eq!(lab.send(OTHER, &udp(OTHER_IP, WEB_IP, (53, port))), to(WEB));
    }
    assert_eq!(lab.worker.stats().flows, 30_000);
    // Idle entries go by themselves, a few at each step of the clock.
    for _ in 0..4000 {
        lab.pass(1);
        lab.send(P1, &udp(P1_IP, P2_IP, (1, 2)));
    }
    assert_eq!(lab.worker.stats().flows, 2);
}

#[test]
fn a_decision_ends_with_the_record_it_leads_to() {
    // OTHER lets nothing in; WEB may answer it. NVA, speaking as OTHER, keeps WEB's record alive, not OTHER's.
    let asks = udp(OTHER_IP, WEB_IP, (9, 53));
    let answers = udp(WEB_IP, OTHER_IP, (53, 9));
    let mut lab = small(100);
    lab.deny_inbound(OTHER);
    // Others that end first keep the sweep of the clock busy.
    for port in 1..=40 {
        lab.send(P1, &udp(P1_IP, P1_IP, (port, port)));
    }
    assert_eq!(lab.send(OTHER, &asks), to(WEB));
    assert_eq!(lab.send(WEB, &answers), to(OTHER));
    lab.pass(200);
    assert_eq!(lab.send(NVA, &asks), to(WEB));
    lab.pass(100);
    assert_eq!(
        lab.send(WEB, &answers),
        Verdict::Drop(DropReason::NsgInbound),
        "its time was over"
    );
}

#[test]
fn a_decision_ends_when_the_record_makes_room() {
    let (asks, answers) = (udp(OTHER_IP, WEB_IP, (9, 53)), udp(WEB_IP, OTHER_IP, (53, 9)));
    let mut lab = small(5);
    lab.deny_inbound(OTHER);
    assert_eq!(lab.send(OTHER, &asks), to(WEB));
    assert_eq!(lab.send(WEB, &answers), to(OTHER));
    lab.pass(31);
    assert_eq!(lab.send(NVA, &asks), to(WEB));
    // Busy flows take the other places: first that of NVA's half-open record, at last that of OTHER's quiet one.
    for _ in 0..2 {
        lab.send(P1, &udp(P1_IP, P2_IP, (1, 1)));
        lab.send(P2, &udp(P2_IP, P1_IP, (1, 1)));
    }
    assert_eq!(lab.worker.stats().flows, 5);
    for port in [2, 3] {
        assert_eq!(lab.send(P1, &udp(P1_IP, P1_IP, (port, port))), to(P1));
    }
    assert_eq!(lab.worker.stats().flows, 5);
    assert!(
        lab.worker
            .flows(lab.now_ns)
            .iter()
            .all(|flow| flow.nic != Some(OTHER))
    );
    assert_eq!(
        lab.send(WEB, &answers),
        Verdict::Drop(DropReason::NsgInbound),
        "its place is another's"
    );
    // The same the other way round: OTHER may not take the place of the very record it leads to.
    lab.pass(31);
    let busy = [
        (P1_IP, P2_IP, 1),
        (P2_IP, P1_IP, 1),
        (P1_IP, P1_IP, 2),
        (P1_IP, P1_IP, 3),
    ];
    for (source, destination, port) in busy {
        lab.send(VNET_PORT, &udp(source, destination, (port, port)));
    }
    assert_eq!(lab.send(OTHER, &asks), LIMITED);
    let flows = lab.worker.flows(lab.now_ns);
    assert!(flows.iter().any(|flow| flow.nic == Some(WEB)));
}
