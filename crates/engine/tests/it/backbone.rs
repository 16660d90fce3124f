//! What is under way between two VNets or waits at a VM's cap (PEER-39, NET-12).

use engine::snapshot::{EgressCap, NicId};
use engine::{DropReason, Verdict, WorkerOptions};
use packet::Burst;

use crate::support::*;

const MS: u64 = 1_000_000;
/// Every packet here, in bytes.
const LENGTH: u64 = 1000;

/// A's packets take 10 ms to the hub's VNet.
fn far() -> Lab {
    let mut lab = Lab::new();
    lab.link(A_TO_HUB).latency_ns = 10 * MS;
    lab.publish();
    lab
}

/// WEB's VM sends 8 Mbit/s: one packet per millisecond.
fn capped() -> Lab {
    let mut lab = Lab::new();
    for nic in [WEB, OTHER] {
        lab.nic(nic).egress_cap = Some(EgressCap {
            bits_per_second: 8_000_000,
            meter: WEB,
        });
    }
    lab.publish();
    lab
}

/// A datagram that says its number in its port.
fn datagram(from: &str, to: &str, number: u16) -> Vec<u8> {
    let mut packet = udp(from, to, (7, number));
    let short = packet.len();
    packet.resize(usize::try_from(LENGTH).unwrap(), 0);
    packet[2..4].copy_from_slice(&u16::try_from(LENGTH).unwrap().to_be_bytes());
    let payload = u16::try_from(packet.len() - 20).unwrap();
    packet[24..26].copy_from_slice(&payload.to_be_bytes());
    assert!(short < packet.len());
    finish(packet)
}

/// With right checksums: none for UDP over IPv4.
fn finish(mut packet: Vec<u8>) -> Vec<u8> {
    packet[10..12].fill(0);
    packet[26..28].fill(0);
    let sum: u32 = packet[..20]
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet
}

impl Lab {
    /// Everything that arrives from now on: when, for whom, and its bytes.
    fn arrivals(&mut self) -> Vec<(u64, Option<NicId>, Vec<u8>)> {
        let (mut burst, mut verdicts, mut all) = (Burst::new(4), Vec::new(), Vec::new());
        // What comes out of a cap may have a link before it, and is not there yet.
        while let Some(at_ns) = self.worker.next_arrival_ns() {
            assert!(at_ns >= self.now_ns);
            self.now_ns = at_ns;
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

    fn received(&self, nic: NicId) -> u64 {
        self.worker.stats().nics[nic.index()].rx_packets
    }
}

/// Shows: PEER-39, NET-11.
#[test]
fn over_a_distance_every_packet_takes_its_time_and_keeps_its_place() {
    let mut lab = far();
    let begun_ns = lab.now_ns;
    let sent: Vec<_> = (0..40)
        .map(|number| datagram(WEB_IP, NVA_IP, number / 4))
        .collect();
    for packet in &sent {
        assert_eq!(lab.send(WEB, packet), Verdict::UnderWay);
        lab.now_ns += MS;
    }
    assert_eq!(lab.received(NVA), 0);
    lab.now_ns = begun_ns;
    let arrived = lab.arrivals();
    assert_eq!(arrived.len(), sent.len());
    for ((index, sent), (at_ns, nic, bytes)) in (0..).zip(&sent).zip(&arrived) {
        assert_eq!((*at_ns, *nic), (begun_ns + (index + 10) * MS, Some(NVA)));
        assert_eq!(bytes, sent);
    }
    assert_eq!(lab.received(NVA), 40);
    assert_eq!(lab.worker.stats().nics[WEB.index()].tx_packets, 40);
    // The other direction has no distance, nor has the own VNet.
    assert_eq!(lab.send(NVA, &datagram(NVA_IP, WEB_IP, 1)), to(WEB));
    assert_eq!(lab.send(WEB, &datagram(WEB_IP, OTHER_IP, 1)), to(OTHER));
}

#[test]
fn a_change_of_distance_concerns_packets_that_leave_later() {
    let mut lab = far();
    let begun_ns = lab.now_ns;
    lab.send(WEB, &datagram(WEB_IP, NVA_IP, 1));
    lab.link(A_TO_HUB).latency_ns = 2 * MS;
    lab.publish();
    lab.send(WEB, &datagram(WEB_IP, NVA_IP, 2));
    let times: Vec<u64> = lab
        .arrivals()
        .iter()
        .map(|(at_ns, ..)| at_ns - begun_ns)
        .collect();
    // Nothing overtakes on a line.
    assert_eq!(times, [10 * MS, 10 * MS]);
    lab.link(A_TO_HUB).latency_ns = 0;
    lab.publish();
    assert_eq!(lab.send(WEB, &datagram(WEB_IP, NVA_IP, 2)), to(NVA));
}

#[test]
fn who_waits_at_a_cap_keeps_nobody_else_waiting_on_the_same_distance() {
    let mut lab = far();
    lab.nic(WEB).egress_cap = Some(EgressCap {
        bits_per_second: 8_000_000,
        meter: WEB,
    });
    lab.publish();
    let begun_ns = lab.now_ns;
    for number in 0..5 {
        lab.send(WEB, &datagram(WEB_IP, NVA_IP, number));
    }
    lab.send(OTHER, &datagram(OTHER_IP, NVA_IP, 9));
    let arrived = lab.arrivals();
    let times: Vec<_> = arrived
        .iter()
        .map(|(at_ns, ..)| (at_ns - begun_ns) / MS)
        .collect();
    assert_eq!(times, [10, 11, 12, 13, 14, 15]);
    assert_eq!(arrived[0].2, datagram(OTHER_IP, NVA_IP, 9));
}

#[test]
fn what_is_under_way_is_bounded_and_what_is_too_much_is_counted() {
    let mut lab = Lab::with(WorkerOptions {
        under_way_bytes: 100 * (LENGTH + 64),
        ..WorkerOptions::default()
    });
    lab.link(A_TO_HUB).latency_ns = 10 * MS;
    let mut verdicts = [0, 0];
    for _ in 0..150 {
        match lab.send(WEB, &datagram(WEB_IP, NVA_IP, 1)) {
            Verdict::UnderWay => verdicts[0] += 1,
            Verdict::Drop(DropReason::LinkQueueFull) => verdicts[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(verdicts[0] + verdicts[1], 150);
    assert!((95..=110).contains(&verdicts[0]), "{verdicts:?}");
    assert_eq!(lab.count(DropReason::LinkQueueFull, Some(WEB)).0, verdicts[1]);
    assert_eq!(lab.arrivals().len() as u64, verdicts[0]);
    // The room is there again.
    assert_eq!(lab.send(WEB, &datagram(WEB_IP, NVA_IP, 1)), Verdict::UnderWay);
}

/// A million packets wait for ten seconds, in no more memory than they may take and a few blocks.
#[test]
fn a_million_packets_wait_within_the_bound_and_none_is_lost() {
    let packet = udp(WEB_IP, NVA_IP, (7, 7));
    // What the worker notes of each comes on top.
    let packet_bytes = packet.len() as u64 + 128;
    // Room for all, and for about half of them.
    for (packets, bound, fits) in [
        (1_000_000, 1_000_000 * packet_bytes, true),
        (100_000, 50_000 * packet_bytes, false),
    ] {
        let mut lab = Lab::with(WorkerOptions {
            under_way_bytes: bound,
            ..WorkerOptions::default()
        });
        lab.link(A_TO_HUB).latency_ns = 10 * SECOND;
        lab.publish();
        let burst = [packet.as_slice(); 8];
        lab.send_all(WEB, &burst);
        let begun_ns = lab.now_ns;
        let sent = allocation_counter::measure(|| {
            for _ in 1..packets / 8 {
                lab.now_ns += 8_000;
                lab.send_all(WEB, &burst);
            }
        });
        assert!(lab.now_ns < begun_ns + 10 * SECOND, "nothing has arrived by now");
        assert!(
            sent.bytes_max < bound + (1 << 20),
            "{} of {bound} bytes",
            sent.bytes_max
        );
        let lost = lab.count(DropReason::LinkQueueFull, Some(WEB)).0;
        assert_eq!(lost == 0, fits, "{lost}");
        let (mut burst, mut verdicts, mut arrived) = (Burst::new(64), Vec::new(), 0);
        lab.now_ns += 10 * SECOND;
        while lab.worker.next_arrival_ns().is_some() {
            lab.worker
                .arrive(&lab.snapshot, lab.now_ns, &mut burst, &mut verdicts);
            arrived += verdicts.len() as u64;
        }
        assert_eq!((arrived, lab.received(NVA)), (packets - lost, packets - lost));
    }
}

/// Shows: NET-12.
#[test]
fn a_vm_sends_what_its_size_allows_whatever_the_nic_and_the_destination() {
    let mut lab = capped();
    let begun_ns = lab.now_ns;
    // Twice as much as it may: every half millisecond, from both NICs, to two VNets, for a second.
    let mut lost = 0;
    let mut arrived = Vec::new();
    for index in 0..2000_u16 {
        let packet = match index % 4 {
            0 => (WEB, datagram(WEB_IP, NVA_IP, 1)),
            1 => (OTHER, datagram(OTHER_IP, NVA_IP, 1)),
            2 => (WEB, datagram(WEB_IP, P1_IP, 1)),
            _ => (OTHER, datagram(OTHER_IP, P2_IP, 1)),
        };
        match lab.send(packet.0, &packet.1) {
            Verdict::UnderWay => {}
            Verdict::Drop(DropReason::VmEgressCap) => lost += 1,
            other => panic!("{other:?}"),
        }
        lab.now_ns += MS / 2;
    }
    let sent = 2000 - lost;
    lab.now_ns = begun_ns;
    arrived.extend(lab.arrivals());
    assert_eq!(arrived.len(), sent);
    let last_ns = arrived.last().unwrap().0 - begun_ns;
    // One per millisecond, without a gap.
    assert_eq!(last_ns, sent as u64 * MS);
    assert!((1000..=1022).contains(&sent), "{sent}");
}

/// Shows: NET-12.
#[test]
fn ingress_is_not_metered() {
    let mut lab = capped();
    for number in 0..1000 {
        assert_eq!(lab.send(NVA, &datagram(NVA_IP, WEB_IP, number)), to(WEB));
    }
}
