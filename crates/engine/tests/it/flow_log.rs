//! What flow logs are told (NSG-41, NSG-42).

use engine::Verdict;
use engine::filter::Access;
use engine::flow_log::{FlowChange, FlowCounts, FlowEvent};
use engine::snapshot::LogRuleId;
use packet::Protocol;

use crate::support::*;

/// NSGs at the receiver OTHER: its subnet's, then its NIC's. The rules of both are logged, by number.
fn lab() -> Lab {
    let mut lab = Lab::new();
    let subnet = lab.filter(vec![rule(Access::Allow, None, None)]);
    let nic = lab.filter(vec![
        rule(Access::Allow, None, Some(53)),
        rule(Access::Allow, Some(Protocol::ICMP), None),
        rule(Access::Deny, None, None),
    ]);
    lab.nic(OTHER).inbound = [subnet, nic];
    lab.snapshot.log_rules = vec![Vec::new(); lab.snapshot.filters.len()];
    lab.snapshot.log_rules[subnet.unwrap().index()] = vec![Some(LogRuleId(10))];
    lab.snapshot.log_rules[nic.unwrap().index()] = [20, 21, 22].map(|id| Some(LogRuleId(id))).to_vec();
    lab.publish();
    lab
}

impl Lab {
    fn told(&mut self) -> Vec<FlowEvent> {
        let (events, untold) = self.worker.take_flow_events(&self.snapshot, self.now_ns);
        assert_eq!(untold, 0);
        events
    }
}

fn only(events: &[FlowEvent]) -> FlowEvent {
    assert_eq!(events.len(), 1, "{events:?}");
    events[0]
}

fn ask() -> Vec<u8> {
    udp(WEB_IP, OTHER_IP, (9, 53))
}

/// Shows: NSG-41, NSG-42.
#[test]
fn a_flow_begins_continues_every_five_minutes_and_ends() {
    let mut lab = lab();
    let (question, answer) = (ask(), udp(OTHER_IP, WEB_IP, (53, 9)));
    lab.send(WEB, &question);
    let began = only(&lab.told());
    // The last NSG asked is the NIC's.
    assert_eq!(
        (began.rule, began.nic, began.inbound),
        (LogRuleId(20), OTHER, true)
    );
    assert_eq!(began.change, FlowChange::Began);
    assert_eq!(
        (began.key.source, began.key.destination),
        (ip(WEB_IP), ip(OTHER_IP))
    );
    assert_eq!((began.key.source_port, began.key.destination_port), (9, 53));

    // 300 seconds of one answer and two questions each, some of them in one burst.
    for _ in 0..300 {
        lab.send_all(WEB, &[&question, &question]);
        lab.send(OTHER, &answer);
        lab.pass(1);
    }
    lab.send(WEB, &question);
    let continued = only(&lab.told());
    let (size, back) = (question.len() as u64, answer.len() as u64);
    let counts = match continued.change {
        FlowChange::Continues(counts) => counts,
        other => panic!("{other:?}"),
    };
    assert_eq!(counts.bytes_to_destination, counts.packets_to_destination * size);
    assert_eq!(counts.bytes_to_source, counts.packets_to_source * back);

    lab.pass(241);
    // No packet has to come for that.
    let ended = only(&lab.told());
    let rest = match ended.change {
        FlowChange::Ended(counts) => counts,
        other => panic!("{other:?}"),
    };
    let sum = FlowCounts {
        packets_to_destination: counts.packets_to_destination + rest.packets_to_destination,
        bytes_to_destination: counts.bytes_to_destination + rest.bytes_to_destination,
        packets_to_source: counts.packets_to_source + rest.packets_to_source,
        bytes_to_source: counts.bytes_to_source + rest.bytes_to_source,
    };
    let all = FlowCounts {
        packets_to_destination: 602,
        bytes_to_destination: 602 * size,
        packets_to_source: 300,
        bytes_to_source: 300 * back,
    };
    assert_eq!(sum, all);
    assert!(counts.packets_to_destination >= 590, "{counts:?}");
}

/// Shows: NSG-41.
#[test]
fn a_thousand_flows_that_are_over_are_told_of_within_seconds() {
    let mut lab = lab();
    for port in 0..1000 {
        lab.send(WEB, &udp(WEB_IP, OTHER_IP, (port, 53)));
    }
    assert_eq!(lab.told().len(), 1000);
    lab.pass(241);
    let mut ended = 0;
    for _ in 0..8 {
        ended += lab.told().len();
        lab.pass(1);
    }
    assert_eq!(ended, 1000);
}

/// Shows: NSG-41, NSG-42.
#[test]
fn every_denied_packet_is_told_with_the_nsg_that_denied_it() {
    let mut lab = lab();
    for _ in 0..2 {
        let verdict = lab.send(WEB, &udp(WEB_IP, OTHER_IP, (9, 54)));
        assert!(matches!(verdict, Verdict::Drop(_)));
        let denied = only(&lab.told());
        assert_eq!((denied.rule, denied.change), (LogRuleId(22), FlowChange::Denied));
        assert_eq!((denied.nic, denied.inbound), (OTHER, true));
    }
}

/// Shows: NSG-42.
#[test]
fn only_tcp_and_udp_and_only_logged_nsgs_are_told_of() {
    let mut lab = lab();
    assert_eq!(lab.send(WEB, &ping(WEB_IP, OTHER_IP, 1, false)), to(OTHER));
    assert_eq!(lab.told(), []);
    lab.snapshot.log_rules = Vec::new();
    lab.publish();
    assert_eq!(lab.send(WEB, &ask()), to(OTHER));
    lab.send(WEB, &udp(WEB_IP, OTHER_IP, (9, 54)));
    assert_eq!(lab.told(), []);
}

#[test]
fn events_that_nobody_takes_are_counted_and_not_kept() {
    let mut lab = lab();
    let denied = udp(WEB_IP, OTHER_IP, (9, 54));
    for _ in 0..70_000 {
        lab.send(WEB, &denied);
    }
    let (events, untold) = lab.worker.take_flow_events(&lab.snapshot, lab.now_ns);
    assert_eq!((events.len(), untold), (1 << 16, 70_000 - (1 << 16)));
    assert_eq!(lab.worker.take_flow_events(&lab.snapshot, lab.now_ns).1, 0);
}
