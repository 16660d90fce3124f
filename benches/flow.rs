//! The flow table's search: ours, one by one and with its lines asked for ahead, against std's HashMap.

mod support {
    pub(crate) mod cpu_time;
    pub(crate) mod random;
}

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::snapshot::PortId;
use engine::table::Table;
use packet::{FlowKey, Protocol};
use support::cpu_time::{CpuTime, criterion};
use support::random::Random;

/// Enough for the flows of the larger table not to stay in the near caches.
const LOOKUPS: usize = 65_536;
/// As many as a burst has packets.
const BATCH: usize = 32;
const PORT: PortId = PortId(0);

/// Random inside 10.0.0.0/8; `odd` keys and even ones never meet.
fn key(random: &mut Random, odd: bool) -> FlowKey {
    FlowKey {
        source: 0xffff_0a00_0000 | u128::from(random.below(1 << 24)),
        destination: 0xffff_0a00_0000 | u128::from(random.below(1 << 24)),
        source_port: random.below(65_536) as u16,
        destination_port: random.below(32_768) as u16 * 2 + u16::from(odd),
        protocol: Protocol::UDP,
    }
}

fn find(table: &Table, key: &FlowKey) -> Option<u32> {
    table.find(table.hash(PORT, key), PORT, key)
}

fn find_batch(table: &Table, keys: &[FlowKey]) {
    let mut hashes = [0; BATCH];
    for (hash, key) in hashes.iter_mut().zip(keys) {
        *hash = table.hash(PORT, key);
        table.prefetch(*hash);
    }
    for &hash in &hashes[..keys.len()] {
        black_box(table.candidate(hash));
    }
    for (&hash, key) in hashes.iter().zip(keys) {
        black_box(table.find(hash, PORT, key));
    }
}

fn search(criterion: &mut Criterion<CpuTime>) {
    for flows in [1_000_u32, 100_000] {
        let mut random = Random::new(u64::from(flows));
        let mut table = Table::new(2 * flows, 42);
        let mut map = HashMap::new();
        let keys: Vec<FlowKey> = (0..flows).map(|_| key(&mut random, false)).collect();
        for key in &keys {
            if find(&table, key).is_none() {
                map.insert(*key, table.insert(table.hash(PORT, key), PORT, key));
            }
        }
        let hits: Vec<FlowKey> = (0..LOOKUPS).map(|_| *random.pick(&keys)).collect();
        let misses: Vec<FlowKey> = (0..LOOKUPS).map(|_| key(&mut random, true)).collect();
        assert!(
            hits.iter()
                .all(|key| find(&table, key).is_some() && Some(&find(&table, key)) == map.get(key))
        );
        assert!(
            misses
                .iter()
                .all(|key| find(&table, key).is_none() && !map.contains_key(key))
        );
        for (name, trace) in [("hit", &hits), ("miss", &misses)] {
            let mut group = criterion.benchmark_group(format!("flow {name}, {flows} flows"));
            group.throughput(Throughput::Elements(LOOKUPS as u64));
            group.bench_function("Table, batches of 32", |bencher| {
                bencher.iter(|| trace.chunks(BATCH).for_each(|keys| find_batch(&table, keys)));
            });
            group.bench_function("Table, one by one", |bencher| {
                bencher.iter(|| {
                    trace.iter().for_each(|key| {
                        black_box(find(&table, key));
                    })
                });
            });
            group.bench_function("std HashMap", |bencher| {
                bencher.iter(|| {
                    trace.iter().for_each(|key| {
                        black_box(map.get(key));
                    })
                });
            });
            group.finish();
        }
    }
}

fn insert(criterion: &mut Criterion<CpuTime>) {
    const FLOWS: u32 = 10_000;
    let mut random = Random::new(5);
    let keys: Vec<FlowKey> = (0..FLOWS).map(|_| key(&mut random, false)).collect();
    let mut group = criterion.benchmark_group("flow insert, 10000 from empty");
    group.throughput(Throughput::Elements(u64::from(FLOWS)));
    group.bench_function("Table", |bencher| {
        let fill = |mut table: Table| {
            keys.iter().for_each(|key| {
                table.insert(table.hash(PORT, key), PORT, key);
            });
            table
        };
        bencher.iter_batched(|| Table::new(FLOWS, 42), fill, BatchSize::LargeInput);
    });
    group.bench_function("std HashMap", |bencher| {
        let fill = |mut map: HashMap<FlowKey, u32>| {
            keys.iter().zip(0..).for_each(|(key, at)| {
                map.insert(*key, at);
            });
            map
        };
        bencher.iter_batched(HashMap::new, fill, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group! { name = benches; config = criterion(); targets = search, insert }
criterion_main!(benches);
