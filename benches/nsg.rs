//! One filter decision: compiled bit vectors against a linear scan of the rules.

mod support {
    pub(crate) mod cpu_time;
    pub(crate) mod random;
    pub(crate) mod rules;
}

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::filter::{Filter, Rule};
use packet::{FlowKey, Prefix, Protocol};
use support::cpu_time::{CpuTime, criterion};
use support::random::Random;
use support::rules::{rules, scan};

const KEYS: usize = 4096;

/// Half the keys fit some rule, half come from known subnets at random.
fn keys(rules: &[Rule], random: &mut Random) -> Vec<FlowKey> {
    let inside = |prefixes: &[Prefix], random: &mut Random| {
        let prefix = random.pick(prefixes);
        prefix.first() | u128::from(random.next()) & (prefix.last() ^ prefix.first())
    };
    let subnet = |random: &mut Random| 0xffff_0a00_0000 | u128::from(random.below(1 << 14));
    (0..KEYS)
        .map(|at| {
            let rule = random.pick(rules);
            let fits = at % 2 == 0;
            FlowKey {
                source: if fits {
                    inside(&rule.sources, random)
                } else {
                    subnet(random)
                },
                destination: if fits {
                    inside(&rule.destinations, random)
                } else {
                    subnet(random)
                },
                source_port: random.below(65_536) as u16,
                destination_port: if fits {
                    *rule.destination_ports[0].start()
                } else {
                    random.below(10_000) as u16
                },
                protocol: rule.protocol.filter(|_| fits).unwrap_or(Protocol::TCP),
            }
        })
        .collect()
}

fn decide(criterion: &mut Criterion<CpuTime>) {
    for count in [1, 100, 1000] {
        let mut random = Random::new(count as u64);
        let rules = rules(count, &mut random);
        let filter = Filter::compile(rules.clone());
        let keys = keys(&rules, &mut random);
        assert!(keys.iter().all(|key| filter.decide(key) == scan(&rules, key)));
        let mut group = criterion.benchmark_group(format!("nsg {count} rules"));
        group.throughput(Throughput::Elements(KEYS as u64));
        group.bench_function("Filter", |bencher| {
            bencher.iter(|| {
                keys.iter().for_each(|key| {
                    black_box(filter.decide(black_box(key)));
                })
            });
        });
        group.bench_function("linear scan", |bencher| {
            bencher.iter(|| {
                keys.iter().for_each(|key| {
                    black_box(scan(&rules, black_box(key)));
                })
            });
        });
        group.finish();
    }
}

/// What a rule change costs; a scan costs nothing to build, so there is no baseline but the goal of milliseconds.
fn build(criterion: &mut Criterion<CpuTime>) {
    let rules = rules(1000, &mut Random::new(3));
    criterion.bench_function("nsg build, 1000 rules", |bencher| {
        bencher.iter(|| Filter::compile(black_box(rules.clone())))
    });
}

/// NSG-34 at its limits: a thousand rules with four thousand addresses on each side, nested at random so that hardly two
/// values have the same set of rules. Built once, as nobody waits for a second sample; prints time and memory.
fn limits(_: &mut Criterion<CpuTime>) {
    let mut random = Random::new(5);
    let mut addresses = || -> Vec<Prefix> {
        let address = |random: &mut Random| {
            let length = 16 + random.below(17) as u8;
            let bits = random.next() as u32;
            Prefix::new(std::net::Ipv4Addr::from_bits(bits).into(), length)
        };
        (0..4000).map(|_| address(&mut random)).collect()
    };
    let rules: Vec<Rule> = (0..1000)
        .map(|_| Rule {
            access: engine::filter::Access::Allow,
            protocol: None,
            sources: addresses(),
            destinations: addresses(),
            source_ports: vec![0..=u16::MAX],
            destination_ports: vec![0..=u16::MAX],
        })
        .collect();
    let (before, start) = (resident_bytes(), std::time::Instant::now());
    let filter = Filter::compile(rules);
    println!(
        "nsg build, 1000 rules of 2 x 4000 addresses: {:.1} s, {} MiB more",
        start.elapsed().as_secs_f64(),
        resident_bytes().saturating_sub(before) >> 20
    );
    black_box(filter);
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

criterion_group! { name = benches; config = criterion(); targets = limits, decide, build }
criterion_main!(benches);
