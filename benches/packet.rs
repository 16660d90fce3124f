//! Parsing a small packet: ours, which verifies the IPv4 checksum and makes the flow key, against etherparse.

mod support {
    pub(crate) mod cpu_time;
    pub(crate) mod packets;
    pub(crate) mod random;
}

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use packet::{Headers, VnetHeader};
use support::cpu_time::{CpuTime, criterion};
use support::packets::{LENGTH, udp};
use support::random::Random;

/// Fits the first-level cache with what parsing needs beside it.
const PACKETS: usize = 256;

/// Addresses and ports.
type Tuple = (u32, u32, u16, u16);

fn by_etherparse(bytes: &[u8]) -> Option<Tuple> {
    let sliced = SlicedPacket::from_ip(bytes).ok()?;
    match (sliced.net?, sliced.transport?) {
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let ip = ip.header();
            let (source, destination) = (
                u32::from_be_bytes(ip.source()),
                u32::from_be_bytes(ip.destination()),
            );
            Some((source, destination, udp.source_port(), udp.destination_port()))
        }
        _ => None,
    }
}

fn by_us(bytes: &[u8]) -> Option<Tuple> {
    let key = Headers::parse(bytes, &VnetHeader::default()).ok()?.key;
    Some((
        key.source as u32,
        key.destination as u32,
        key.source_port,
        key.destination_port,
    ))
}

fn parse(criterion: &mut Criterion<CpuTime>) {
    let mut random = Random::new(1);
    let packets: Vec<[u8; LENGTH]> = (0..PACKETS)
        .map(|_| {
            let [source, destination] =
                [1, 2].map(|net| Ipv4Addr::from_bits(net << 24 | random.below(1 << 24) | 1));
            udp(
                source,
                destination,
                (random.below(65_536) as u16, *random.pick(&[53, 123, 443])),
            )
        })
        .collect();
    for bytes in &packets {
        assert!(by_us(bytes).is_some());
        assert_eq!(by_us(bytes), by_etherparse(bytes));
    }
    let mut group = criterion.benchmark_group("parse 64-byte UDP");
    group.throughput(Throughput::Elements(PACKETS as u64));
    group.bench_function("Headers::parse", |bencher| {
        bencher.iter(|| {
            packets.iter().for_each(|bytes| {
                black_box(Headers::parse(black_box(bytes), &VnetHeader::default()).ok());
            })
        });
    });
    group.bench_function("etherparse, no checksum", |bencher| {
        bencher.iter(|| {
            packets.iter().for_each(|bytes| {
                black_box(by_etherparse(black_box(bytes)));
            })
        });
    });
    group.finish();
}

criterion_group! { name = benches; config = criterion(); targets = parse }
criterion_main!(benches);
