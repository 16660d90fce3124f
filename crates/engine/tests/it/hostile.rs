//! Whatever a guest writes: no panic, every packet forwarded or counted once, nothing in the name of another.

use engine::snapshot::{NicId, PortId};
use engine::{Verdict, Worker, WorkerOptions};
use packet::{Burst, Headers, VnetHeader};
use proptest::prelude::*;

use crate::support::*;

#[derive(Clone, Debug)]
struct Hostile {
    port: u32,
    bytes: Vec<u8>,
    vnet: VnetHeader,
    wait_ms: u64,
}

/// What honest guests send: a beginning for mutations.
fn honest(kind: u8, large: bool) -> Vec<u8> {
    let (web, other, db, p1) = (
        WEB_IP.to_owned(),
        OTHER_IP.to_owned(),
        DB_IP.to_owned(),
        P1_IP.to_owned(),
    );
    let payload = vec![5; if large { 3000 } else { 30 }];
    let ours = udp_with(&web, &other, (7, 8), &payload);
    match kind % 14 {
        0 => ours,
        1 => tcp(&web, &other, (9, 80), SYN),
        2 => tcp(&v6(&web), &v6(&other), (9, 80), ACK),
        3 => udp_with(&v6(&web), &v6(&db), (7, 8), &payload),
        4 => ping(&web, &other, 5, false),
        5 => ping(&v6(&other), &v6(&web), 5, true),
        6 => unreachable(&other, &web, &ours),
        7 => unreachable(&v6(&other), &v6(&web), &udp(&v6(&web), &v6(&other), (7, 8))),
        8 => fragment(&ours, 0, true, 3),
        9 => fragment(&ours, 56, false, 3),
        10 => fragment(
            &udp_with(&v6(&web), &v6(&other), (7, 8), &payload[..24]),
            0,
            true,
            3,
        ),
        11 => udp_with(&web, CLIENT, (7, 8), &payload),
        12 => udp_with(CLIENT, WEB_PUBLIC, (7, 8), &payload),
        _ => udp_with(&p1, P2_IP, (7, 8), &payload),
    }
}

fn vnets() -> impl Strategy<Value = VnetHeader> {
    let random = any::<[u8; 10]>().prop_map(VnetHeader::from_bytes);
    let near = (
        0u8..4,
        prop::sample::select(vec![0u8, 1, 3, 4, 5, 0x81]),
        0u16..80,
        0u16..1600,
        0u16..60,
        0u16..20,
    );
    let near = near.prop_map(
        |(flags, gso_type, header_length, gso_size, checksum_start, checksum_offset)| VnetHeader {
            flags,
            gso_type,
            header_length,
            gso_size,
            checksum_start,
            checksum_offset,
        },
    );
    let right = (prop::sample::select(vec![1u8, 4, 5]), 8u16..1600, any::<bool>()).prop_map(
        |(gso_type, gso_size, ipv6)| VnetHeader {
            flags: VnetHeader::NEEDS_CHECKSUM,
            gso_type,
            header_length: 0,
            gso_size,
            checksum_start: if ipv6 { 40 } else { 20 },
            checksum_offset: if gso_type == VnetHeader::GSO_UDP_L4 { 6 } else { 16 },
        },
    );
    prop_oneof![4 => Just(VnetHeader::default()), 1 => random, 1 => near, 2 => right]
}

fn packets() -> impl Strategy<Value = Hostile> {
    let mutated = (
        any::<u8>(),
        any::<bool>(),
        proptest::collection::vec((0usize..80, any::<u8>()), 0..4),
        0usize..40,
    );
    let mutated = mutated.prop_map(|(kind, large, changes, cut)| {
        let mut bytes = honest(kind, large);
        let length = bytes.len();
        for (at, value) in changes {
            bytes[at % length] = value;
        }
        bytes.truncate(length - cut.saturating_sub(30).min(length));
        // Most changes would end at the header checksum.
        if bytes.first().is_some_and(|first| first >> 4 == 4)
            && etherparse::Ipv4Header::from_slice(&bytes).is_ok()
        {
            renew_checksum(&mut bytes);
        }
        bytes
    });
    let random = proptest::collection::vec(any::<u8>(), 0..200);
    let bytes = prop_oneof![9 => mutated, 1 => random];
    (
        0u32..7,
        bytes,
        vnets(),
        prop_oneof![20 => Just(0u64), 1 => 0u64..40_000],
    )
        .prop_map(|(port, bytes, vnet, wait_ms)| {
            Hostile {
                // Mostly from the port that such a packet belongs to.
                port: if port > 5 { 0 } else { port },
                bytes,
                vnet,
                wait_ms,
            }
        })
}

/// Wire packets dropped, sent by NICs, and received by NICs.
fn counted(worker: &Worker) -> (u64, u64, u64) {
    let stats = worker.stats();
    let sum = |of: fn(&engine::stats::NicStats) -> u64| stats.nics.iter().map(of).sum();
    (
        stats.drops.iter().map(|count| count.packets).sum(),
        sum(|nic| nic.tx_packets),
        sum(|nic| nic.rx_packets),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_packet_is_forwarded_or_counted_once(
        all in proptest::collection::vec(packets(), 1..80), fabric_mtu in prop_oneof![Just(None), Just(Some(1400))],
    ) {
        let Lab { mut snapshot, .. } = Lab::new();
        snapshot.fabric_mtu = fabric_mtu;
        snapshot.flows_per_nic = 20;
        let mut worker = Worker::new(WorkerOptions { flow_capacity: 64, ..WorkerOptions::default() }, 3);
        let (mut burst, mut verdicts, mut now_ns) = (Burst::new(1), Vec::new(), SECOND);
        for Hostile { port, bytes, vnet, wait_ms } in all {
            now_ns += wait_ms * 1_000_000;
            burst.clear();
            prop_assert!(burst.push(&bytes, vnet));
            let read = Headers::parse(&bytes, &vnet);
            let before = counted(&worker);
            worker.process(&snapshot, now_ns, PortId(port), &mut burst, &mut verdicts);
            let after = counted(&worker);
            let wire = u64::from(read.as_ref().map_or(1, |headers| headers.wire_packets));
            let [verdict] = verdicts[..] else { panic!("{verdicts:?}") };
            let (dropped, sent, received) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
            match verdict {
                Verdict::Drop(_) => {
                    prop_assert_eq!((dropped, sent, received), (wire, 0, 0));
                }
                Verdict::UnderWay => prop_assert!(false, "this lab has no distance"),
                Verdict::Forward { nic, fragment, port: out } => {
                    let from_internet = PortId(port) == INTERNET;
                    prop_assert_eq!((dropped, sent), (0, if from_internet { 0 } else { wire }));
                    if let Some(nic) = nic {
                        prop_assert_eq!(received > wire, fragment.is_some());
                        prop_assert!(received >= wire);
                        prop_assert_eq!(snapshot.nics[nic.index()].port, out);
                    }
                    let left = Headers::parse(burst.filled()[0].bytes(), &burst.filled()[0].vnet);
                    let left = left.expect("what is forwarded can be read again");
                    may_send(&snapshot.nics, port, left.key.source)?;
                }
            }
            let about = read.ok().map(|headers| headers.key.source);
            for reply in worker.replies_mut().filled() {
                let error = reply.bytes();
                let headers = Headers::parse(error, &reply.vnet).expect("an error is a good packet");
                let most = if headers.ipv6 { 1280 } else { 576 };
                prop_assert!(headers.quoted.is_some() && error.len() <= most);
                prop_assert_eq!(Some(headers.key.destination), about);
                prop_assert!(matches!(verdict, Verdict::Drop(engine::DropReason::TooBig)));
            }
            if let Verdict::Forward { .. } = verdict {
                worker.lost(0, engine::DropReason::PortFull, now_ns);
                let lost = counted(&worker);
                prop_assert_eq!(lost.0 - after.0, received.max(wire), "the loss of what was received");
                prop_assert_eq!(lost.2, before.2);
            }
        }
    }
}

/// Nobody sends in another's name: the source is the sender's own, or public, or the sender forwards.
fn may_send(nics: &[engine::snapshot::Nic], port: u32, source: u128) -> Result<(), TestCaseError> {
    let of_port = |id: &u32| match *id {
        4 => vec![P1, P2],
        5 => vec![],
        id => vec![NicId(id)],
    };
    let allowed = of_port(&port).into_iter().any(|nic| {
        let nic = &nics[nic.index()];
        nic.ip_forwarding || nic.addresses.contains(&source) || nic.public.contains(&source)
    });
    prop_assert!(
        allowed || (port == 5 && [ip(CLIENT), ip(&v6(CLIENT))].contains(&source)),
        "{source:x} from {port}"
    );
    Ok(())
}
