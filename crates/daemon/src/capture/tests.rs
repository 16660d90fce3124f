//! What a worker lays aside, without sockets: places, losses, and a ring that is full.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::channel::Receiver;
use engine::snapshot::{LinkId, NicId, PortId};
use engine::{AtLink, DropReason, Told, Verdict};
use packet::{Burst, Packet, VnetHeader};

use super::filter::Filter;
use super::tap::{Direction, Fate, Place, RING_BYTES, Record, Selection, Tap, Taps};

const PORT: PortId = PortId(1);
const LINK: LinkId = LinkId(0);

/// A tap on port 1 and, if asked for, link 0, with a ring of so many records.
fn tap(link: bool, drops_only: bool, filter: Option<&str>, records: usize) -> (Tap, Receiver<Record>) {
    let (sender, ring) = crossbeam::channel::bounded(records);
    let filter = filter.map(|text| Arc::new(Filter::parse(text, &|_| Vec::new()).unwrap()));
    let tap = Tap {
        id: 7,
        selection: Arc::new(Selection {
            ports: vec![false, true],
            links: vec![link],
            drops_only,
        }),
        filter,
        ring: sender,
        queued: Arc::default(),
        missed: HashMap::new(),
    };
    (tap, ring)
}

/// An UDP packet to a port, without checksums.
fn udp(port: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 4, 10, 1, 0, 4];
    packet.extend([0, 1, 0, port, 0, 12, 0, 0, 1, 2, 3, 4]);
    packet
}

fn burst(packets: &[Vec<u8>]) -> Burst {
    let mut burst = Burst::new(packets.len());
    for packet in packets {
        assert!(burst.push(packet, VnetHeader::default()));
    }
    burst
}

/// Packets forwarded at once, lost by a rule, and lost on the link, read from port 1.
fn decide(taps: &mut Taps) {
    let mut burst = burst(&[udp(1), udp(2), udp(3)]);
    taps.read(PORT, &burst);
    // What the engine rewrites is captured as it was read.
    burst.packets[0].bytes_mut()[23] = 99;
    let verdicts = [
        Verdict::Forward {
            port: PORT,
            nic: Some(NicId(2)),
            fragment: None,
        },
        Verdict::Drop(DropReason::NsgInbound),
        Verdict::Drop(DropReason::LinkLoss),
    ];
    let told = [
        Told::Over {
            packet: 0,
            link: LINK,
            fragment: None,
            at_once: true,
        },
        Told::Lost {
            packet: 1,
            nic: Some(NicId(5)),
        },
        Told::Over {
            packet: 2,
            link: LINK,
            fragment: None,
            at_once: false,
        },
        Told::AtLink(AtLink {
            link: LINK,
            out: false,
            lost: Some((DropReason::LinkLoss, Some(NicId(1)))),
            fragment: None,
            vnet: VnetHeader::default(),
            bytes: Arc::from(udp(3)),
        }),
    ];
    taps.decided(40, PORT, burst.filled(), &verdicts, &told);
}

fn seen(ring: &Receiver<Record>) -> Vec<(Place, Direction, Fate, u8)> {
    ring.try_iter()
        .map(|record| (record.place, record.direction, record.fate, record.bytes[23]))
        .collect()
}

#[test]
fn every_loss_is_recorded_once_wherever_one_looks() {
    use Direction::{Inbound, Outbound};
    let (own, port, link) = (Some(NicId(5)), Place::Port(PORT), Place::Link(LINK));
    let on_port = |fate, destination| (port, Outbound, fate, destination);
    let by_rule = on_port(Fate::Lost(DropReason::NsgInbound, own), 2);
    let on_link = Fate::Lost(DropReason::LinkLoss, Some(NicId(1)));

    let mut taps = Taps::default();
    let (everything, all) = tap(true, false, None, 100);
    let (losses, drops) = tap(true, true, None, 100);
    let (no_link, sender) = tap(false, true, None, 100);
    let (filtered, third) = tap(true, false, Some("dst port 3"), 100);
    for tap in [everything, losses, no_link, filtered] {
        taps.open(tap);
    }
    decide(&mut taps);
    assert_eq!(
        seen(&all),
        [
            on_port(Fate::Over(LINK), 1),
            by_rule,
            on_port(Fate::LostOver(LINK, DropReason::LinkLoss), 3),
            (link, Outbound, Fate::Passed, 99),
            (link, Inbound, Fate::Passed, 99),
            (link, Outbound, on_link, 3),
        ]
    );
    assert_eq!(seen(&drops), [by_rule, (link, Outbound, on_link, 3)]);
    // Who does not look at the link sees its losses at the sender.
    assert_eq!(
        seen(&sender),
        [by_rule, on_port(Fate::Lost(DropReason::LinkLoss, None), 3)]
    );
    assert_eq!(seen(&third).len(), 2);

    // What cannot be written is lost at the port where it was to go.
    let burst = burst(&[udp(1), udp(2)]);
    let forward = Verdict::Forward {
        port: PORT,
        nic: own,
        fragment: None,
    };
    taps.written(
        50,
        burst.filled(),
        &[forward, forward],
        &[(1, DropReason::PortFull)],
    );
    assert_eq!(
        seen(&drops),
        [(port, Inbound, Fate::Lost(DropReason::PortFull, own), 2)]
    );
    assert_eq!(seen(&all).len(), 2);
}

#[test]
fn what_does_not_fit_is_counted_and_told() {
    let mut taps = Taps::default();
    let (full, ring) = tap(false, false, None, 2);
    let queued: Arc<AtomicUsize> = Arc::clone(&full.queued);
    taps.open(full);
    for _ in 0..3 {
        decide(&mut taps);
    }
    // Two of nine fitted; the next that fits tells of the others.
    let records: Vec<Record> = ring.try_iter().collect();
    assert_eq!(
        records.iter().map(|record| record.missed).collect::<Vec<_>>(),
        [0, 0]
    );
    assert_eq!(queued.load(Ordering::Relaxed), 2 * udp(1).len());
    queued.store(0, Ordering::Relaxed);
    decide(&mut taps);
    assert_eq!(
        ring.try_iter().map(|record| record.missed).collect::<Vec<_>>(),
        [7, 0]
    );
    // Bytes count too, whatever the number of records.
    queued.store(RING_BYTES, Ordering::Relaxed);
    decide(&mut taps);
    assert!(ring.is_empty());
    assert_eq!(taps.close(7), HashMap::from([(Place::Port(PORT), 1 + 3)]));
    assert!(taps.is_empty());
    let packet = Packet::new();
    taps.replied(1, PORT, &[packet]);
}
