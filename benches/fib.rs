//! Longest-prefix match: the compiled FIB against treebitmap.

mod support {
    pub(crate) mod cpu_time;
    pub(crate) mod random;
}

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::fib::{Fib, NextHop, Route};
use packet::Prefix;
use packet::key::{mapped, unmapped};
use support::cpu_time::{CpuTime, criterion};
use support::random::Random;
use treebitmap::IpLookupTable;

const LOOKUPS: usize = 4096;

/// The usual structure: a trie for each family.
struct Tries {
    ipv4: IpLookupTable<Ipv4Addr, u32>,
    ipv6: IpLookupTable<Ipv6Addr, u32>,
}

impl Tries {
    fn new(prefixes: &[Prefix]) -> Self {
        let mut tries = Self {
            ipv4: IpLookupTable::new(),
            ipv6: IpLookupTable::new(),
        };
        for (&prefix, number) in prefixes.iter().zip(0..) {
            match prefix.address() {
                IpAddr::V4(address) => tries
                    .ipv4
                    .insert(address, u32::from(prefix.length()) - 96, number),
                IpAddr::V6(address) => tries.ipv6.insert(address, u32::from(prefix.length()), number),
            };
        }
        tries
    }

    fn lookup(&self, address: u128) -> Option<u32> {
        match unmapped(address) {
            IpAddr::V4(address) => self.ipv4.longest_match(address).map(|(.., &number)| number),
            IpAddr::V6(address) => self.ipv6.longest_match(address).map(|(.., &number)| number),
        }
    }
}

/// As a VNet has them: a few /16, many /24, some hosts, the defaults.
fn prefixes(count: u32, ipv6: bool, random: &mut Random) -> Vec<Prefix> {
    let make = |bits: u32, length: u8| {
        let v4 = Ipv4Addr::from_bits(bits);
        let v6 = Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(bits) << 64);
        if ipv6 {
            Prefix::new(v6.into(), if length == 0 { 0 } else { 32 + length })
        } else {
            Prefix::new(v4.into(), length)
        }
    };
    let mut all = vec![make(0, 0), make(0x0a00_0000, 8), make(0xac10_0000, 12)];
    while all.len() < count as usize {
        let length = [16, 24, 24, 24, 24, 24, 24, 32][random.below(8) as usize];
        let prefix = make(0x0a00_0000 | random.below(1 << 24), length);
        if !all.contains(&prefix) {
            all.push(prefix);
        }
    }
    all
}

/// Addresses inside random prefixes of the table.
fn trace(prefixes: &[Prefix], random: &mut Random) -> Vec<u128> {
    (0..LOOKUPS)
        .map(|_| {
            let prefix = random.pick(prefixes);
            let host = u128::from(random.next()) << 64 | u128::from(random.next());
            prefix.first() | host & (prefix.last() ^ prefix.first())
        })
        .filter(|&address| prefixes[0].address().is_ipv4() || mapped(unmapped(address)) == address)
        .collect()
}

fn compile(prefixes: &[Prefix]) -> Fib {
    Fib::compile(
        prefixes
            .iter()
            .map(|&prefix| Route {
                prefix,
                next_hop: NextHop::Internet,
            })
            .collect(),
    )
}

/// `tables` of `routes` each, a random one for each lookup.
fn lookup(criterion: &mut Criterion<CpuTime>, name: &str, tables: u32, routes: u32, ipv6: bool) {
    let mut random = Random::new(u64::from(routes) << 8 | u64::from(ipv6));
    let lists: Vec<Vec<Prefix>> = (0..tables).map(|_| prefixes(routes, ipv6, &mut random)).collect();
    let trace: Vec<(usize, u128)> = {
        let traces: Vec<Vec<u128>> = lists.iter().map(|list| trace(list, &mut random)).collect();
        (0..LOOKUPS)
            .map(|at| (random.below(tables) as usize, at))
            .map(|(table, at)| (table, traces[table][at]))
            .collect()
    };
    let fibs: Vec<Fib> = lists.iter().map(|list| compile(list)).collect();
    let tries: Vec<Tries> = lists.iter().map(|list| Tries::new(list)).collect();
    for &(table, address) in &trace {
        let found = fibs[table].lookup(address).map(|route| route.0);
        assert!(found.is_some());
        assert_eq!(found, tries[table].lookup(address));
    }
    let mut group = criterion.benchmark_group(format!("fib {name}"));
    group.throughput(Throughput::Elements(trace.len() as u64));
    group.bench_function("Fib", |bencher| {
        bencher.iter(|| {
            trace.iter().for_each(|&(table, address)| {
                black_box(fibs[table].lookup(black_box(address)));
            })
        });
    });
    group.bench_function("treebitmap", |bencher| {
        bencher.iter(|| {
            trace.iter().for_each(|&(table, address)| {
                black_box(tries[table].lookup(black_box(address)));
            })
        });
    });
    group.finish();
}

fn lookups(criterion: &mut Criterion<CpuTime>) {
    lookup(criterion, "12 routes", 1, 12, false);
    lookup(criterion, "1000 routes", 1, 1000, false);
    lookup(criterion, "1000 routes, IPv6", 1, 1000, true);
    lookup(criterion, "512 tables of 36 routes", 512, 36, false);
}

fn build(criterion: &mut Criterion<CpuTime>) {
    let prefixes = prefixes(1000, false, &mut Random::new(9));
    let mut group = criterion.benchmark_group("fib build, 1000 routes");
    group.bench_function("Fib", |bencher| bencher.iter(|| compile(black_box(&prefixes))));
    group.bench_function("treebitmap", |bencher| {
        bencher.iter(|| Tries::new(black_box(&prefixes)))
    });
    group.finish();
}

criterion_group! { name = benches; config = criterion(); targets = lookups, build }
criterion_main!(benches);
