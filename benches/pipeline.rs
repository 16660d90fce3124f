//! The packet path in memory: known flows and first packets, against the usual path; no allocation in either of ours.
//!
//! Packets are copied into one burst that is used again and again, as a port would; the baseline reads them where the
//! copies come from, so the copying is charged to us alone.

mod support {
    pub(crate) mod cpu_time;
    pub(crate) mod fabric;
    pub(crate) mod packets;
    pub(crate) mod random;
    pub(crate) mod rules;
}

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::snapshot::NicId;
use engine::{Snapshot, Verdict, Worker, WorkerOptions};
use packet::{Burst, VnetHeader};
use support::cpu_time::{CpuTime, criterion};
use support::fabric::{Fabric, NICS, PORT, Usual};
use support::packets::LENGTH;

const FLOWS: usize = 16_384;
const BURST: usize = 32;
/// Longer than any record lives.
const TEN_MINUTES_NS: u64 = 600_000_000_000;

struct Ours {
    worker: Worker,
    burst: Burst,
    verdicts: Vec<Verdict>,
}

impl Ours {
    fn new() -> Self {
        let options = WorkerOptions {
            flow_capacity: 4 * FLOWS as u32,
            ..WorkerOptions::default()
        };
        Self {
            worker: Worker::new(options, 42),
            burst: Burst::new(BURST),
            verdicts: Vec::with_capacity(BURST),
        }
    }

    /// All packets, burst by burst.
    fn process(&mut self, snapshot: &Snapshot, now_ns: u64, packets: &[[u8; LENGTH]]) {
        for chunk in packets.chunks(BURST) {
            self.burst.clear();
            chunk.iter().for_each(|bytes| {
                self.burst.push(bytes, VnetHeader::default());
            });
            self.worker
                .process(snapshot, now_ns, PORT, &mut self.burst, &mut self.verdicts);
            black_box(&self.verdicts);
        }
    }
}

/// Both decide the same for every packet, as first packets and again as known flows.
fn compare(fabric: &Fabric, packets: &[[u8; LENGTH]], ours: &mut Ours, usual: &mut Usual) {
    for _ in 0..2 {
        for chunk in packets.chunks(BURST) {
            ours.process(&fabric.snapshot, 1, chunk);
            for (bytes, verdict) in chunk.iter().zip(&ours.verdicts) {
                let nic = match *verdict {
                    Verdict::Forward { nic, .. } => nic,
                    Verdict::UnderWay | Verdict::Drop(_) => None,
                };
                assert!(nic >= Some(NicId(NICS)), "{verdict:?}");
                assert_eq!(nic, usual.process(1, bytes));
            }
        }
    }
}

fn hits(criterion: &mut Criterion<CpuTime>) {
    let fabric = Fabric::new();
    let packets = fabric.packets(FLOWS);
    let (mut ours, mut usual) = (Ours::new(), fabric.usual());
    compare(&fabric, &packets, &mut ours, &mut usual);
    let allocations = allocation_counter::measure(|| ours.process(&fabric.snapshot, 2, &packets));
    assert_eq!(allocations.count_total, 0, "the packet path allocates");

    let mut group = criterion.benchmark_group(format!("pipeline hit, {FLOWS} flows"));
    group.throughput(Throughput::Elements(FLOWS as u64));
    group.bench_function("Worker", |bencher| {
        bencher.iter(|| ours.process(&fabric.snapshot, 2, &packets))
    });
    group.bench_function("usual path", |bencher| {
        bencher.iter(|| {
            packets.iter().for_each(|bytes| {
                black_box(usual.process(2, bytes));
            })
        });
    });
    group.finish();
}

fn first_packets(criterion: &mut Criterion<CpuTime>) {
    let fabric = Fabric::new();
    let packets = fabric.packets(FLOWS / 4);
    let (mut ours, mut usual) = (Ours::new(), fabric.usual());
    compare(&fabric, &packets, &mut ours, &mut usual);
    let mut now_ns = TEN_MINUTES_NS;
    let allocations = allocation_counter::measure(|| ours.process(&fabric.snapshot, now_ns, &packets));
    assert_eq!(allocations.count_total, 0, "the packet path allocates");

    let mut group = criterion.benchmark_group("pipeline first packets, 100 rules at each end");
    group.throughput(Throughput::Elements(packets.len() as u64));
    group.sample_size(20);
    group.bench_function("Worker", |bencher| {
        bencher.iter(|| {
            // Every record is over: each packet is its flow's first again.
            now_ns += TEN_MINUTES_NS;
            ours.process(&fabric.snapshot, now_ns, &packets);
        });
    });
    group.bench_function("usual path", |bencher| {
        bencher.iter(|| {
            usual.forget();
            packets.iter().for_each(|bytes| {
                black_box(usual.process(2, bytes));
            });
        });
    });
    group.finish();
}

criterion_group! { name = benches; config = criterion(); targets = hits, first_packets }
criterion_main!(benches);
