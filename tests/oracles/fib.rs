//! Longest-prefix match against `ip route get fibmatch`: the kernel's table with the prefixes of a lab's compiled one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use engine::fib::Fib;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::Source;
use packet::key::{mapped, unmapped};
use serde_json::json;

use crate::random::Random;
use crate::{case_random, count, namespace, seed};

/// One process of `ip` takes the commands of this many tables.
const BATCH: usize = 100;

/// Most user routes of one table, as Azure has it (ROUTE-34).
const MOST_ROUTES: u32 = 400;

/// The table of a lab and the addresses to look up in it.
struct Table {
    position: usize,
    fib: Fib,
    prefixes: Vec<IpNet>,
    destinations: Vec<IpAddr>,
}

/// The lookups of one family: what was asked, and the prefix the kernel says matches.
type Answers = Vec<(usize, IpAddr, Option<IpNet>)>;

/// Shows: ROUTE-20.
#[test]
fn the_longest_prefix_is_the_kernels() {
    if !namespace::entered("fib::the_longest_prefix_is_the_kernels") {
        return;
    }
    let (seed, tables) = (seed("longest prefix match"), count(300, 10_000));
    let _device = namespace::device();
    let (mut lookups, mut misses, mut prefixes) = (0, 0, 0);
    for first in (0..tables).step_by(BATCH) {
        let batch: Vec<Table> = (first..tables.min(first + BATCH))
            .map(|position| table(seed, position))
            .collect();
        prefixes += batch.iter().map(|table| table.prefixes.len()).sum::<usize>();
        for family in ["-4", "-6"] {
            for (at, destination, kernel) in ask_kernel(family, &batch) {
                let table = &batch[at];
                let route = table.fib.lookup(mapped(destination));
                let ours = route.map(|route| net(table.fib.routes()[route.index()].prefix));
                lookups += 1;
                misses += usize::from(kernel.is_none());
                let holding: Vec<&IpNet> = table
                    .prefixes
                    .iter()
                    .filter(|net| net.contains(&destination))
                    .collect();
                assert_eq!(
                    ours,
                    kernel,
                    "PEERLANE_SEED={seed}, table {}: {destination} matches ours (left), the kernel's (right); of the \
                     table's {} prefixes it is in {holding:?}",
                    table.position,
                    table.prefixes.len()
                );
            }
        }
    }
    println!(
        "{lookups} lookups in {tables} tables of {prefixes} prefixes, {misses} without a match: as the kernel's"
    );
    assert!(lookups > 20 * tables && misses > 0);
}

/// A lab with one VNet whose subnet has a random route table, compiled.
fn table(seed: u64, position: usize) -> Table {
    let mut random = case_random(seed, position);
    let dual = random.below(2) == 0;
    // Mostly small tables, now and then the largest.
    let most = if random.below(16) == 0 { MOST_ROUTES } else { 40 };
    let wanted: BTreeSet<IpNet> = (0..=random.below(most)).map(|_| prefix(&mut random)).collect();
    let routes: serde_json::Map<String, serde_json::Value> = wanted
        .iter()
        .enumerate()
        .map(|(at, net)| {
            (
                format!("r{at}"),
                json!({ "addressPrefix": net, "nextHopType": "None" }),
            )
        })
        .collect();
    let mut space = vec!["10.128.0.0/9"];
    let mut subnet = vec!["10.128.0.0/24"];
    if dual {
        space.push("fd00::/48");
        subnet.push("fd00::/64");
    }
    let lab = json!({
        "apiVersion": "peerlane/v1", "kind": "Lab", "name": "fib", "profile": "azure-2018",
        "vnets": { "v": { "addressSpace": space, "subnets": { "s": { "addressPrefixes": subnet, "routeTable": "t" } } } },
        "routeTables": { "t": { "routes": routes } },
        "vms": { "m": { "subnet": "v/s" } },
    });
    let source = Source::Text {
        name: "fib.json".to_owned(),
        text: lab.to_string(),
    };
    let topology = model::load(source)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .topology;
    let snapshot = control::compile(&topology, 1).snapshot;
    let fib = snapshot.fibs[snapshot.nics[0].fib.index()].clone();
    let prefixes: Vec<IpNet> = fib.routes().iter().map(|route| net(route.prefix)).collect();
    let compiled: BTreeSet<IpNet> = prefixes.iter().copied().collect();
    assert!(wanted.is_subset(&compiled), "a user route got lost");
    let destinations = destinations(&mut random, &prefixes);
    Table {
        position,
        fib,
        prefixes,
        destinations,
    }
}

fn net(prefix: packet::Prefix) -> IpNet {
    let address = unmapped(prefix.first());
    let length = prefix.length();
    // The engine counts IPv4 prefixes in its 128 bits.
    IpNet::new(address, if address.is_ipv4() { length - 96 } else { length }).unwrap()
}

/// Few values for the high bits, so that prefixes nest; not where the kernel has rules of its own (loopback, multicast).
fn prefix(random: &mut Random) -> IpNet {
    if random.below(2) == 0 {
        let bits = v4_bits(random);
        Ipv4Net::new(bits.into(), random.below(33) as u8)
            .unwrap()
            .trunc()
            .into()
    } else {
        let length = match random.below(4) {
            0 => random.below(129),
            _ => 16 + random.below(8) * 16,
        };
        Ipv6Net::new(v6_bits(random).into(), length.min(128) as u8)
            .unwrap()
            .trunc()
            .into()
    }
}

fn v4_bits(random: &mut Random) -> u32 {
    match random.below(4) {
        0 => 0x0a00_0000 | random.below(1 << 8) << 16 | random.below(4),
        1 => 0x0a80_0000 | random.below(1 << 12),
        2 => 0x0b00_0000 | random.below(1 << 4) << random.below(20),
        _ => random.next() as u32,
    }
}

fn v6_bits(random: &mut Random) -> u128 {
    let low = u128::from(random.next() & 0x3) << (16 * random.below(5));
    let high = *random.pick(&[0xfd00_u128 << 112, 0x2001_0db8 << 96, 0x2000 << 112]);
    high | low
        | if random.below(4) == 0 {
            u128::from(random.next())
        } else {
            0
        }
}

/// The ends of prefixes, what lies just outside them and somewhere inside, and addresses of nowhere in particular.
fn destinations(random: &mut Random, prefixes: &[IpNet]) -> Vec<IpAddr> {
    let mut found = BTreeSet::new();
    for _ in 0..12 {
        match *random.pick(prefixes) {
            IpNet::V4(net) => {
                let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
                let inside = first | random.next() as u32 & (last - first);
                let near = [first, last, first.wrapping_sub(1), last.wrapping_add(1), inside];
                found.extend(near.map(|bits| IpAddr::V4(bits.into())));
            }
            IpNet::V6(net) => {
                let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
                let wide = u128::from(random.next()) << 64 | u128::from(random.next());
                let near = [
                    first,
                    last,
                    first.wrapping_sub(1),
                    last.wrapping_add(1),
                    first | wide & (last - first),
                ];
                found.extend(near.map(|bits| IpAddr::V6(bits.into())));
            }
        }
        found.insert(IpAddr::V4(v4_bits(random).into()));
        found.insert(IpAddr::V6(v6_bits(random).into()));
    }
    found.into_iter().filter(|&address| routed(address)).collect()
}

/// Whether the kernel asks its tables about the address: not for its own, loopback, link-local and multicast ones.
fn routed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xe000 == 0x2000) || v6.segments()[0] & 0xfe00 == 0xfc00,
    }
}

fn ask_kernel(family: &str, batch: &[Table]) -> Answers {
    let ipv4 = family == "-4";
    let mut commands = String::new();
    // By line from 1: the lookup that stands there.
    let mut asked: Vec<Option<(usize, IpAddr)>> = vec![None];
    for (at, table) in batch.iter().enumerate() {
        for net in table.prefixes.iter().filter(|net| net.addr().is_ipv4() == ipv4) {
            writeln!(commands, "route add {net} dev pl0").unwrap();
            asked.push(None);
        }
        for &destination in table.destinations.iter().filter(|it| it.is_ipv4() == ipv4) {
            writeln!(commands, "route get fibmatch {destination}").unwrap();
            asked.push(Some((at, destination)));
        }
        writeln!(commands, "route flush dev pl0").unwrap();
        asked.push(None);
    }
    let (_, stdout, stderr) = namespace::run(&["ip", family, "-force", "-batch", "-"], &commands);
    // A lookup without a match is a failed command, named by its line.
    let failed: BTreeSet<usize> = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("Command failed -:"))
        .map(|line| line.parse().unwrap())
        .collect();
    let wrong: Vec<&usize> = failed.iter().filter(|&&line| asked[line].is_none()).collect();
    assert!(
        wrong.is_empty(),
        "ip {family}, lines {wrong:?}: {stderr}\n{commands}"
    );
    let mut lines = stdout.lines();
    let answers: Answers = asked
        .iter()
        .enumerate()
        .filter_map(|(line, asked)| asked.map(|(table, destination)| (line, table, destination)))
        .map(|(line, table, destination)| {
            let found = (!failed.contains(&line)).then(|| matched(lines.next().expect("an answer"), ipv4));
            (table, destination, found)
        })
        .collect();
    assert_eq!(lines.next(), None, "more answers than questions");
    answers
}

/// The prefix at the beginning of a route as `ip` prints it.
fn matched(line: &str, ipv4: bool) -> IpNet {
    let word = line.split(' ').next().unwrap_or_default();
    if word == "default" {
        let any: IpAddr = if ipv4 {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        return IpNet::new(any, 0).unwrap();
    }
    word.parse()
        .or_else(|_| word.parse::<IpAddr>().map(IpNet::from))
        .unwrap_or_else(|error| panic!("{line}: {error}"))
}
