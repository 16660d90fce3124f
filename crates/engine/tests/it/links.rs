//! What links do to packets beside chance: rates, queues, order, copies, changed bits, sizes (see also `link_statistics`).

use engine::snapshot::{Aqm, Chance, EgressCap, Jitter, Link, Loss, NicId, Queue};
use engine::stats::LinkStats;
use engine::{DropReason, Verdict, WorkerOptions};
use packet::{Burst, Headers, VnetHeader, checksum};

use crate::support::*;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// One that has come out: when, the receiver, and its bytes as a wire packet.
type Arrival = (u64, Option<NicId>, Vec<u8>);

fn lab(link: Link) -> Lab {
    let mut lab = Lab::new();
    *lab.link(A_TO_HUB) = link;
    lab.publish();
    lab
}

/// A datagram of `length` bytes of IP that says its number in its port; without a checksum.
fn datagram(number: u16, length: u16) -> Vec<u8> {
    let mut packet = udp(WEB_IP, NVA_IP, (7, number));
    packet.resize(length.into(), 0);
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
    packet[26..28].fill(0);
    // No DF.
    packet[6] = 0;
    packet[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&packet[..20], 0));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn number(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[22], packet[23]])
}

/// A TCP super-packet with segments of 1460 bytes of payload, its checksum partial.
fn super_packet(payload: usize) -> (Vec<u8>, VnetHeader) {
    let mut packet = tcp(WEB_IP, NVA_IP, (7, 80), ACK);
    assert_eq!(packet.len(), 40);
    packet.extend((0..payload).map(|at| (at / 1460) as u8));
    let length = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&packet[..20], 0));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let addresses = checksum::sum(&packet[12..20], 0);
    let partial = checksum::finish(addresses + 6 + u64::from(length - 20));
    packet[36..38].copy_from_slice(&(!partial).to_be_bytes());
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CHECKSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        header_length: 40,
        gso_size: 1460,
        checksum_start: 20,
        checksum_offset: 16,
    };
    (packet, vnet)
}

impl Lab {
    fn offer(&mut self, packets: &[(Vec<u8>, VnetHeader)]) -> Vec<Verdict> {
        let (mut burst, mut verdicts) = (Burst::new(packets.len()), Vec::new());
        for (bytes, vnet) in packets {
            assert!(burst.push(bytes, *vnet));
        }
        let port = self.nic(WEB).port;
        self.worker
            .process(&self.snapshot, self.now_ns, port, &mut burst, &mut verdicts);
        verdicts
    }

    /// Everything that is there by a time.
    fn until(&mut self, end_ns: u64) -> Vec<Arrival> {
        let (mut burst, mut verdicts, mut all) = (Burst::new(4), Vec::new(), Vec::new());
        while let Some(at_ns) = self.worker.next_arrival_ns().filter(|at_ns| *at_ns <= end_ns) {
            self.worker
                .arrive(&self.snapshot, at_ns, &mut burst, &mut verdicts);
            for (packet, verdict) in burst.filled().iter().zip(&verdicts) {
                let &Verdict::Forward { nic, .. } = verdict else {
                    panic!("{verdict:?}")
                };
                all.push((at_ns, nic, packet.bytes().to_vec()));
            }
        }
        all
    }

    fn rest(&mut self) -> Vec<Arrival> {
        self.until(u64::MAX)
    }

    fn link_stats(&self) -> LinkStats {
        self.worker.stats().links[A_TO_HUB.index()]
    }
}

/// Packets that entered are all somewhere.
fn assert_conserved(lab: &Lab, entered: u64) {
    let it = lab.link_stats();
    assert_eq!(
        entered + it.duplicated,
        it.packets + it.lost + it.queue_full + it.down + it.waiting_packets,
        "{it:?}"
    );
    let stats = lab.worker.stats();
    let drops = stats.drops.iter().map(|drop| drop.packets).sum::<u64>();
    assert_eq!(drops, it.lost + it.queue_full + it.down, "{:?}", stats.drops);
}

#[test]
fn the_rate_is_that_of_ip_bytes_on_the_wire_whatever_they_are_read_as() {
    for rate_bps in [1_000_000, 10_000_000, 123_456_789, 1_000_000_000, 5_000_000_000] {
        let mut lab = lab(Link {
            latency_ns: 20 * MS,
            rate_bps: Some(rate_bps),
            ..Link::default()
        });
        let packet = super_packet(40 * 1460);
        let (wire_packets, wire_bytes) = (40, 40 * 1500);
        // A tenth more than it carries, for a second or 1000 packets.
        let each_ns = wire_bytes * 8 * SECOND / rate_bps;
        let count = (SECOND / each_ns).max(1000 / wire_packets) + 2;
        let mut arrived = Vec::new();
        let (mut first_ns, mut last_ns) = (None, 0);
        let mut note = |all: Vec<Arrival>| {
            for (at_ns, _, bytes) in all {
                last_ns = at_ns;
                first_ns.get_or_insert(at_ns);
                arrived.push(bytes.len() as u64);
            }
        };
        for _ in 0..count {
            assert_eq!(lab.offer(std::slice::from_ref(&packet)), [Verdict::UnderWay]);
            lab.now_ns += each_ns * 10 / 11;
            note(lab.until(lab.now_ns));
        }
        note(lab.rest());
        assert_eq!(arrived.len() as u64, count * wire_packets);
        // The first one's bits were before it came.
        let bytes: u64 = arrived[1..].iter().sum();
        let seconds = (last_ns - first_ns.unwrap()) as f64 / SECOND as f64;
        let error = bytes as f64 * 8.0 / seconds / rate_bps as f64 - 1.0;
        assert!(error.abs() < 0.001, "{rate_bps} bit/s: {error}");
        assert_conserved(&lab, count * wire_packets);
    }
}

/// A write of 64 KB is many packets on the wire: they leave at their own times, and others wait for them.
#[test]
fn a_super_packet_crosses_a_slow_link_packet_by_packet() {
    let mut lab = lab(Link {
        latency_ns: 5 * MS,
        rate_bps: Some(10_000_000),
        ..Link::default()
    });
    let begun_ns = lab.now_ns;
    let (bytes, vnet) = super_packet(60_000);
    let verdicts = lab.offer(&[(bytes.clone(), vnet), (datagram(1, 1000), VnetHeader::default())]);
    assert_eq!(verdicts, [Verdict::UnderWay; 2]);
    let arrived = lab.rest();
    assert_eq!(arrived.len(), 42 + 1);
    let mut sent_ns = 0;
    let mut payload = Vec::new();
    for (index, (at_ns, nic, packet)) in arrived.iter().enumerate() {
        assert_eq!(*nic, Some(NVA));
        sent_ns += packet.len() as u64 * 8 * 100;
        assert_eq!(*at_ns, begun_ns + 5 * MS + sent_ns, "packet {index}");
        if index == 42 {
            assert_eq!(number(packet), 1);
        } else {
            payload.extend_from_slice(&packet[40..]);
            assert_eq!(packet[..2], bytes[..2]);
        }
    }
    assert_eq!(payload, &bytes[40..]);
    assert_eq!(lab.worker.stats().nics[NVA.index()].rx_packets, 43);
    let dropped = lab.link_stats();
    assert_eq!(
        (dropped.packets, dropped.waiting_packets, dropped.waiting_bytes),
        (43, 0, 0)
    );
}

#[test]
fn a_queue_holds_what_it_may_and_the_rest_is_counted() {
    // Of 1000 bytes: one is sent in 1 ms.
    for (queue, most) in [(Queue::Bytes(20_000), 20), (Queue::TimeNs(20 * MS), 21)] {
        let mut lab = lab(Link {
            rate_bps: Some(8_000_000),
            queue,
            ..Link::default()
        });
        for number in 0..50 {
            let expected = if number < most {
                Verdict::UnderWay
            } else {
                Verdict::Drop(DropReason::LinkQueueFull)
            };
            assert_eq!(
                lab.send(WEB, &datagram(number, 1000)),
                expected,
                "{queue:?} {number}"
            );
        }
        assert_eq!(
            lab.count(DropReason::LinkQueueFull, Some(WEB)),
            (50 - u64::from(most), 1000 * (50 - u64::from(most)))
        );
        assert_conserved(&lab, 50);
        // As one leaves, another has room.
        lab.now_ns += MS;
        assert_eq!(lab.send(WEB, &datagram(99, 1000)), Verdict::UnderWay);
        assert_eq!(
            lab.send(WEB, &datagram(99, 1000)),
            Verdict::Drop(DropReason::LinkQueueFull)
        );
        assert_eq!(lab.rest().len(), usize::from(most) + 1);
    }
}

/// Of a super-packet as much is lost as has no place.
#[test]
fn of_a_super_packet_the_end_finds_no_place() {
    let mut lab = lab(Link {
        rate_bps: Some(8_000_000),
        queue: Queue::Bytes(15_000),
        ..Link::default()
    });
    assert_eq!(lab.offer(&[super_packet(40 * 1460)]), [Verdict::UnderWay]);
    assert_eq!(lab.count(DropReason::LinkQueueFull, Some(WEB)), (30, 30 * 1500));
    assert_eq!(lab.rest().len(), 10);
    assert_conserved(&lab, 40);
}

#[test]
fn a_million_packets_wait_on_a_long_link_within_its_bound() {
    const COUNT: u64 = 1_000_000;
    let packet = (udp(WEB_IP, NVA_IP, (7, 7)), VnetHeader::default());
    let bytes = packet.0.len() as u64;
    let mut lab = Lab::with(WorkerOptions {
        flow_capacity: 4096,
        ..WorkerOptions::default()
    });
    *lab.link(A_TO_HUB) = Link {
        latency_ns: 10 * SECOND,
        queue: Queue::Bytes(COUNT * bytes),
        ..Link::default()
    };
    lab.publish();
    let burst = vec![packet; 1000];
    for _ in 0..1000 {
        let verdicts = lab.offer(&burst);
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::UnderWay));
        lab.now_ns += US;
    }
    assert_eq!(lab.link_stats().waiting_packets, COUNT);
    let verdicts = lab.offer(&burst);
    assert!(
        verdicts
            .iter()
            .all(|it| *it == Verdict::Drop(DropReason::LinkQueueFull))
    );
    assert_eq!(lab.rest().len() as u64, COUNT);
    assert_conserved(&lab, COUNT + 1000);
}

#[test]
fn order_is_kept_unless_packets_may_overtake() {
    let jitter = Jitter {
        deviation_ns: 5 * MS,
        distribution: engine::snapshot::Distribution::Uniform,
        correlation: 0.0,
    };
    let wild = Link {
        seed: 5,
        latency_ns: 20 * MS,
        jitter: Some(jitter),
        ..Link::default()
    };
    let order = |link: Link| {
        let mut lab = lab(link);
        for number in 0..2000 {
            lab.send(WEB, &datagram(number, 100));
            lab.now_ns += 100 * US;
        }
        let arrived = lab.rest();
        assert!(arrived.windows(2).all(|two| two[0].0 <= two[1].0));
        let numbers: Vec<u16> = arrived.iter().map(|(_, _, packet)| number(packet)).collect();
        assert_eq!(numbers.len(), 2000);
        let overtaken = numbers.windows(2).filter(|two| two[0] > two[1]).count();
        assert_eq!(overtaken > 0, lab.link_stats().reordered > 0);
        assert_conserved(&lab, 2000);
        (overtaken, lab.link_stats().reordered)
    };
    assert_eq!(order(wild.clone()), (0, 0));
    let all = order(Link {
        reorder: Chance::ALWAYS,
        ..wild.clone()
    });
    assert!(all.0 > 500 && all.1 > 1500, "{all:?}");
    // Without jitter, a packet that overtakes takes no latency.
    let some = order(Link {
        jitter: None,
        reorder: Chance::new(0.1),
        ..wild
    });
    assert!((150..250).contains(&some.1), "{some:?}");
}

#[test]
fn copies_arrive_too_and_are_charged() {
    let mut lab = lab(Link {
        seed: 6,
        rate_bps: Some(8_000_000),
        duplicate: Chance::new(0.25),
        ..Link::default()
    });
    let begun_ns = lab.now_ns;
    for number in 0..1000 {
        lab.send(WEB, &datagram(number, 1000));
    }
    let arrived = lab.rest();
    let copies = arrived.windows(2).filter(|two| two[0].2 == two[1].2).count() as u64;
    assert!((200..300).contains(&copies), "{copies}");
    assert_eq!(lab.link_stats().duplicated, copies);
    assert_eq!(arrived.len() as u64, 1000 + copies);
    assert_eq!(arrived.last().unwrap().0 - begun_ns, (1000 + copies) * MS);
    assert_conserved(&lab, 1000);
}

/// The receiver's checksum tells; the addresses are whole, or it would be lost elsewhere.
#[test]
fn a_corrupt_packet_has_one_bit_changed_behind_its_ip_header() {
    let mut lab = lab(Link {
        seed: 7,
        latency_ns: MS,
        corrupt: Chance::ALWAYS,
        ..Link::default()
    });
    let plain = tcp(WEB_IP, NVA_IP, (7, 80), ACK);
    for _ in 0..100 {
        assert_eq!(lab.send(WEB, &plain), Verdict::UnderWay);
        lab.now_ns += 10 * MS;
        let arrived = lab.until(lab.now_ns);
        let [(_, Some(NVA), bytes)] = &arrived[..] else {
            panic!("{arrived:?}")
        };
        let changed: u32 = bytes.iter().zip(&plain).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(
            (changed, bytes.len(), &bytes[..20]),
            (1, plain.len(), &plain[..20])
        );
    }
    assert_eq!(lab.link_stats().corrupted, 100);
    // A partial checksum is finished first, or the kernel would make a right one of the wrong bytes.
    lab.offer(&[super_packet(2 * 1460)]);
    for (_, _, bytes) in lab.rest() {
        let addresses = checksum::sum(&bytes[12..20], 0) + 6 + (bytes.len() - 20) as u64;
        assert_ne!(checksum::finish(checksum::sum(&bytes[20..], addresses)), 0);
    }
    assert_conserved(&lab, 102);
}

#[test]
fn the_same_seed_and_the_same_packets_have_the_same_fate() {
    let link = Link {
        seed: 8,
        latency_ns: 20 * MS,
        loss: Loss::Each(Chance::new(0.1)),
        duplicate: Chance::new(0.1),
        reorder: Chance::new(0.1),
        corrupt: Chance::new(0.1),
        jitter: Some(Jitter {
            deviation_ns: MS,
            distribution: engine::snapshot::Distribution::Pareto,
            correlation: 0.5,
        }),
        ..Link::default()
    };
    let run = |link: Link, every_ns: u64| {
        let mut lab = lab(link);
        for number in 0..1000 {
            lab.send(WEB, &datagram(number, 200));
            lab.now_ns += every_ns;
        }
        lab.rest()
    };
    let all = run(link.clone(), MS);
    assert_eq!(all, run(link.clone(), MS));
    let other = Link {
        seed: 9,
        ..link.clone()
    };
    assert_ne!(all, run(other, MS));
    // Neither when they come nor how they are delayed changes who gets lost.
    let numbers = |all: Vec<Arrival>| {
        let mut numbers: Vec<u16> = all.iter().map(|(_, _, packet)| number(packet)).collect();
        numbers.sort_unstable();
        numbers
    };
    let plain = Link {
        jitter: None,
        ..link.clone()
    };
    let survivors = numbers(all);
    assert_eq!(survivors, numbers(run(link, 7 * US)));
    assert_eq!(survivors, numbers(run(plain, MS)));
}

#[test]
fn active_management_keeps_the_queue_short_and_marks_who_allows_it() {
    let aqm = Aqm {
        target_ns: 5 * MS,
        interval_ns: 100 * MS,
        ecn: true,
    };
    // A tenth more than it carries, for twenty seconds; ECT(0) where asked for. How long the last waited in the mean.
    let run = |aqm: Option<Aqm>, ecn: bool| {
        let mut lab = lab(Link {
            rate_bps: Some(8_000_000),
            queue: Queue::TimeNs(SECOND),
            aqm,
            ..Link::default()
        });
        let begun_ns = lab.now_ns;
        for number in 0..22_000 {
            let mut packet = datagram(number, 1000);
            packet[1] = if ecn { 2 } else { 0 };
            packet[10..12].fill(0);
            let sum = checksum::finish(checksum::sum(&packet[..20], 0));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            lab.send(WEB, &packet);
            lab.now_ns += 10 * MS / 11;
        }
        let arrived = lab.rest();
        let marked = arrived.iter().filter(|(_, _, packet)| packet[1] & 3 == 3).count() as u64;
        for (_, _, packet) in &arrived {
            assert_eq!(checksum::finish(checksum::sum(&packet[..20], 0)), 0);
        }
        assert_eq!(marked, lab.link_stats().marked);
        assert_conserved(&lab, 22_000);
        let waits = arrived.iter().rev().take(1000).map(|(at_ns, _, packet)| {
            let sent_ns = begun_ns + u64::from(number(packet)) * (10 * MS / 11);
            at_ns - sent_ns
        });
        (lab.link_stats(), waits.sum::<u64>() / 1000)
    };
    let (stats, wait_ns) = run(None, false);
    assert!(stats.marked == 0 && wait_ns > 900 * MS, "{stats:?} {wait_ns}");
    let (stats, wait_ns) = run(Some(aqm), false);
    assert!(
        stats.marked == 0 && stats.queue_full > 1000 && wait_ns < 200 * MS,
        "{stats:?} {wait_ns}"
    );
    // This sender does not mind being told, so the queue fills; nothing is dropped before it is full.
    let (stats, wait_ns) = run(Some(aqm), true);
    assert!(stats.marked > 1000 && wait_ns > 900 * MS, "{stats:?} {wait_ns}");
}

/// A TooBig that says the size, and nothing else is lost.
#[test]
fn a_narrow_link_says_how_large_packets_may_be() {
    let mut lab = lab(Link {
        mtu: 1300,
        ..Link::default()
    });
    let mut large = datagram(1, 1400);
    large[6] = 0x40;
    large[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&large[..20], 0));
    large[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(lab.send(WEB, &large), Verdict::Drop(DropReason::TooBig));
    let replies = lab.worker.replies_mut().filled();
    assert_eq!((replies.len(), &replies[0].bytes()[20..22]), (1, &[3, 4][..]));
    assert_eq!(replies[0].bytes()[26..28], 1300_u16.to_be_bytes());
    // What may be cut is, and the other way has no such link.
    assert!(matches!(lab.send(WEB, &datagram(1, 1400)), Verdict::UnderWay));
    assert!(matches!(lab.send(WEB, &datagram(1, 1300)), Verdict::UnderWay));
    assert_eq!(lab.send(NVA, &udp(NVA_IP, WEB_IP, (7, 1))), to(WEB));
}

#[test]
fn fragments_of_a_narrow_link_are_charged_and_lost_one_by_one() {
    let mut lab = lab(Link {
        mtu: 600,
        rate_bps: Some(8_000_000),
        ..Link::default()
    });
    let begun_ns = lab.now_ns;
    assert_eq!(lab.send(WEB, &datagram(1, 1400)), Verdict::UnderWay);
    let arrived = lab.rest();
    let lengths: Vec<usize> = arrived.iter().map(|(_, _, packet)| packet.len()).collect();
    assert_eq!(lengths, [596, 596, 248]);
    let times: Vec<u64> = arrived
        .iter()
        .map(|(at_ns, ..)| (at_ns - begun_ns) / US)
        .collect();
    assert_eq!(times, [596, 1192, 1440]);
    for (_, _, packet) in &arrived {
        Headers::parse(packet, &VnetHeader::default()).unwrap();
    }
    assert_eq!(lab.link_stats().bytes, 1440);
}

#[test]
fn nothing_enters_a_link_that_is_down_and_what_is_under_way_arrives() {
    let mut lab = lab(Link {
        latency_ns: 10 * MS,
        rate_bps: Some(8_000_000),
        ..Link::default()
    });
    for number in 0..10 {
        lab.send(WEB, &datagram(number, 1000));
    }
    lab.link(A_TO_HUB).down = true;
    lab.publish();
    assert_eq!(
        lab.send(WEB, &datagram(99, 1000)),
        Verdict::Drop(DropReason::LinkDown)
    );
    assert_eq!(lab.count(DropReason::LinkDown, Some(WEB)).0, 1);
    assert_eq!(lab.rest().len(), 10);
    assert_conserved(&lab, 11);
}

/// Packets that wait keep their time, those after them wait for them, and nobody is lost.
#[test]
fn a_change_of_settings_loses_nothing_that_waits() {
    let mut lab = lab(Link {
        rate_bps: Some(8_000_000),
        queue: Queue::Bytes(20_000),
        ..Link::default()
    });
    let begun_ns = lab.now_ns;
    for number in 0..10 {
        lab.send(WEB, &datagram(number, 1000));
    }
    lab.link(A_TO_HUB).rate_bps = Some(80_000_000);
    lab.publish();
    for number in 10..20 {
        // The queue still holds ten, whatever they would be at the new rate.
        assert_eq!(
            lab.send(WEB, &datagram(number, 1000)),
            Verdict::UnderWay,
            "{number}"
        );
    }
    assert_eq!(
        lab.send(WEB, &datagram(20, 1000)),
        Verdict::Drop(DropReason::LinkQueueFull)
    );
    // A free link at last: order is kept while anything waits.
    *lab.link(A_TO_HUB) = Link::default();
    lab.publish();
    assert_eq!(lab.send(WEB, &datagram(20, 1000)), Verdict::UnderWay);
    let arrived = lab.rest();
    let numbers: Vec<u16> = arrived.iter().map(|(_, _, packet)| number(packet)).collect();
    assert_eq!(numbers, (0..=20).collect::<Vec<_>>());
    let times: Vec<u64> = arrived
        .iter()
        .map(|(at_ns, ..)| (at_ns - begun_ns) / (100 * US))
        .collect();
    let expected = (1..=10).map(|it| 10 * it).chain(101..=110).chain([110]);
    assert_eq!(times, expected.collect::<Vec<_>>());
    assert_eq!(lab.send(WEB, &datagram(21, 1000)), to(NVA));
}

/// How late a packet was counts at the link that it came out of last, and at no link when it waited for its VM's cap only.
#[test]
fn lateness_counts_at_the_last_link() {
    let mut lab = lab(Link {
        latency_ns: MS,
        ..Link::default()
    });
    let deliver = |lab: &mut Lab, late_ns: u64| {
        let (mut burst, mut verdicts) = (Burst::new(4), Vec::new());
        let mut at_ns = 0;
        // Out of the cap first, into the link.
        while verdicts.is_empty() {
            at_ns = lab.worker.next_arrival_ns().unwrap();
            lab.worker.arrive(&lab.snapshot, at_ns, &mut burst, &mut verdicts);
        }
        lab.worker.delivered(at_ns + late_ns);
        lab.now_ns = at_ns + late_ns;
    };
    lab.offer(&[(datagram(1, 100), VnetHeader::default())]);
    deliver(&mut lab, 7 * US);
    let nic = lab.nic(WEB);
    nic.egress_cap = Some(EgressCap {
        meter: WEB,
        bits_per_second: 1_000_000,
    });
    lab.publish();
    lab.offer(&[(datagram(2, 100), VnetHeader::default())]);
    deliver(&mut lab, 9 * US);
    *lab.link(A_TO_HUB) = Link::default();
    lab.publish();
    lab.offer(&[(datagram(3, 100), VnetHeader::default())]);
    deliver(&mut lab, 30 * US);
    let stats = lab.worker.stats();
    let of_link = stats.delay_errors[A_TO_HUB.index()].as_ref().unwrap();
    assert_eq!(
        (of_link.count(), of_link.sum_ns(), of_link.max_ns()),
        (2, 16 * US, 9 * US)
    );
    assert_eq!(
        (stats.cap_delay_error.count(), stats.cap_delay_error.max_ns()),
        (1, 30 * US)
    );
    assert_eq!(stats.delay_error().count(), 3);
    let buckets: Vec<(u64, u64)> = of_link.buckets().collect();
    assert!(
        matches!(buckets[..], [(7000..=7500, 1), (9000..=9600, 1)]),
        "{buckets:?}"
    );
}
