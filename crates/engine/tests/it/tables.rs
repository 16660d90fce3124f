//! FIB and filter against slow, obviously right models, and the FIB against treebitmap too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use engine::fib::{Fib, NextHop, Route, RouteId};
use engine::filter::{Access, Decision, Filter, Rule};
use packet::key::{mapped, unmapped};
use packet::{FlowKey, Prefix, Protocol};
use proptest::prelude::*;
use treebitmap::IpLookupTable;

/// The longest of the prefixes of the address's family that hold it; of equal ones, the last.
fn longest(routes: &[Route], address: u128) -> Option<RouteId> {
    let ipv4 = |address: IpAddr| address.is_ipv4();
    (0..)
        .zip(routes)
        .filter(|(_, route)| {
            ipv4(route.prefix.address()) == ipv4(unmapped(address)) && route.prefix.contains(address)
        })
        .max_by_key(|(at, route)| (route.prefix.length(), *at))
        .map(|(at, _)| RouteId(at))
}

/// The first rule that matches, by looking at all of them.
fn first_match(rules: &[Rule], key: &FlowKey) -> Decision {
    let ports = [Protocol::TCP, Protocol::UDP].contains(&key.protocol);
    let rule = rules.iter().position(|rule| {
        rule.protocol.is_none_or(|protocol| protocol == key.protocol)
            && rule.sources.iter().any(|prefix| prefix.contains(key.source))
            && rule
                .destinations
                .iter()
                .any(|prefix| prefix.contains(key.destination))
            && (!ports
                || rule
                    .source_ports
                    .iter()
                    .any(|range| range.contains(&key.source_port)))
            && (!ports
                || rule
                    .destination_ports
                    .iter()
                    .any(|range| range.contains(&key.destination_port)))
    });
    let access = rule.map_or(Access::Deny, |rule| rules[rule].access);
    Decision {
        access,
        rule: rule.map(|rule| u16::try_from(rule).unwrap()),
    }
}

/// Addresses that often share their first bits, from both ends of both families.
fn address() -> impl Strategy<Value = IpAddr> {
    let octet = || prop_oneof![Just(0_u8), Just(1), Just(10), Just(128), Just(255), any::<u8>()];
    let v4 = [octet(), octet(), octet(), octet()].prop_map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    let group = || prop_oneof![Just(0_u16), Just(1), Just(0xfd00), Just(0xffff)];
    let v6 = prop::array::uniform8(group()).prop_filter_map("an IPv4 address", |groups| {
        let v6 = Ipv6Addr::from(groups);
        v6.to_ipv4_mapped().is_none().then_some(IpAddr::V6(v6))
    });
    prop_oneof![v4, v6]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), any::<u8>()).prop_map(|(address, length)| {
        Prefix::new(
            address,
            if address.is_ipv4() {
                length % 33
            } else {
                length % 129
            },
        )
    })
}

/// Edges of the prefixes and their neighbours, where mistakes live, beside random addresses.
fn probes(prefixes: &[Prefix], random: &[IpAddr]) -> Vec<u128> {
    let edges = prefixes.iter().flat_map(|prefix| {
        [
            prefix.first(),
            prefix.last(),
            prefix.first().wrapping_sub(1),
            prefix.last().wrapping_add(1),
        ]
    });
    edges
        .chain(random.iter().map(|&address| mapped(address)))
        .collect()
}

fn numbered(prefixes: &[Prefix]) -> Vec<Route> {
    prefixes
        .iter()
        .map(|&prefix| Route {
            prefix,
            next_hop: NextHop::Internet,
        })
        .collect()
}

fn range() -> impl Strategy<Value = RangeInclusive<u16>> {
    let port = || {
        prop_oneof![
            Just(0_u16),
            Just(1),
            Just(80),
            Just(u16::MAX),
            0..100_u16,
            any::<u16>()
        ]
    };
    (port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b))
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        Just(Protocol::TCP),
        Just(Protocol::UDP),
        Just(Protocol::ICMP),
        Just(Protocol::ESP)
    ]
}

/// Lists of up to three; sometimes empty, which matches nothing.
fn list<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(item, 0..4)
}

fn wide_prefix() -> impl Strategy<Value = Prefix> {
    prop_oneof![Just(Prefix::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)), prefix()]
}

fn wide_range() -> impl Strategy<Value = RangeInclusive<u16>> {
    prop_oneof![Just(0..=u16::MAX), range()]
}

prop_compose! {
    fn rule()(
        allow in any::<bool>(),
        protocol in prop::option::of(protocol()),
        sources in list(wide_prefix()),
        destinations in list(wide_prefix()),
        source_ports in list(wide_range()),
        destination_ports in list(wide_range()),
    ) -> Rule {
        let access = if allow { Access::Allow } else { Access::Deny };
        Rule { access, protocol, sources, destinations, source_ports, destination_ports }
    }
}

prop_compose! {
    fn key(rules: Vec<Rule>)(
        at in any::<prop::sample::Index>(),
        ends in (address(), address()),
        picks in any::<[u8; 4]>(),
        ports in (any::<u16>(), any::<u16>()),
        protocol in protocol(),
    ) -> FlowKey {
        // Half the fields come from the edges of some rule, or hardly any key would match one.
        let rule = rules.get(at.index(rules.len().max(1)));
        let near = |prefixes: Option<&Vec<Prefix>>, pick: u8, other: IpAddr| {
            let prefix = prefixes.and_then(|prefixes| prefixes.first()).filter(|_| !pick.is_multiple_of(4));
            prefix.map_or(mapped(other), |prefix| if pick.is_multiple_of(2) { prefix.first() } else { prefix.last() })
        };
        let port = |ranges: Option<&Vec<RangeInclusive<u16>>>, pick: u8, other: u16| {
            let range = ranges.and_then(|ranges| ranges.first()).filter(|_| !pick.is_multiple_of(4));
            range.map_or(other, |range| if pick.is_multiple_of(2) { *range.start() } else { *range.end() })
        };
        FlowKey {
            source: near(rule.map(|rule| &rule.sources), picks[0], ends.0),
            destination: near(rule.map(|rule| &rule.destinations), picks[1], ends.1),
            source_port: port(rule.map(|rule| &rule.source_ports), picks[2], ports.0),
            destination_port: port(rule.map(|rule| &rule.destination_ports), picks[3], ports.1),
            protocol,
        }
    }
}

fn rules_and_keys() -> impl Strategy<Value = (Vec<Rule>, Vec<FlowKey>)> {
    prop::collection::vec(rule(), 0..140).prop_flat_map(|rules| {
        let keys = prop::collection::vec(key(rules.clone()), 1..40);
        (Just(rules), keys)
    })
}

proptest! {
    // Half of the usual number: rules with lists are slow to make up.
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_fib_finds_the_longest_prefix(
        prefixes in prop::collection::vec(prefix(), 0..100),
        random in prop::collection::vec(address(), 0..20),
    ) {
        let routes = numbered(&prefixes);
        let fib = Fib::compile(routes.clone());
        for address in probes(&prefixes, &random) {
            prop_assert_eq!(fib.lookup(address), longest(&routes, address), "{}", unmapped(address));
        }
    }

    #[test]
    fn the_fib_agrees_with_treebitmap(
        prefixes in prop::collection::vec(prefix(), 0..100),
        random in prop::collection::vec(address(), 0..20),
    ) {
        let fib = Fib::compile(numbered(&prefixes));
        let (mut v4, mut v6) = (IpLookupTable::new(), IpLookupTable::new());
        for (&prefix, number) in prefixes.iter().zip(0..) {
            match prefix.address() {
                IpAddr::V4(address) => v4.insert(address, u32::from(prefix.length()) - 96, number),
                IpAddr::V6(address) => v6.insert(address, u32::from(prefix.length()), number),
            };
        }
        for address in probes(&prefixes, &random) {
            let expected = match unmapped(address) {
                IpAddr::V4(address) => v4.longest_match(address).map(|(.., &number)| RouteId(number)),
                IpAddr::V6(address) => v6.longest_match(address).map(|(.., &number)| RouteId(number)),
            };
            prop_assert_eq!(fib.lookup(address), expected, "{}", unmapped(address));
        }
    }

    #[test]
    fn the_filter_finds_the_first_rule((rules, keys) in rules_and_keys()) {
        let filter = Filter::compile(rules.clone());
        for key in keys {
            prop_assert_eq!(filter.decide(&key), first_match(&rules, &key), "{:?}", key);
        }
    }
}

#[test]
fn a_million_routes_load_and_are_found() {
    // All /12 to /24 in steps, nested; enough for every layer of the tree to be full and the last node ragged.
    let routes: Vec<Route> = (0..1_000_003_u32)
        .map(|at| {
            let address = IpAddr::V4(Ipv4Addr::from_bits(at.wrapping_mul(0x9e37_79b1)));
            Route {
                prefix: Prefix::new(address, 12 + (at % 21) as u8),
                next_hop: NextHop::Internet,
            }
        })
        .collect();
    let mut oracle = IpLookupTable::new();
    for (route, number) in routes.iter().zip(0_u32..) {
        let IpAddr::V4(address) = route.prefix.address() else {
            panic!("IPv4 only")
        };
        oracle.insert(address, u32::from(route.prefix.length()) - 96, number);
    }
    let fib = Fib::compile(routes);
    for at in 0..200_000_u32 {
        let address = Ipv4Addr::from_bits(at.wrapping_mul(0x85eb_ca6b));
        let expected = oracle.longest_match(address).map(|(.., &number)| RouteId(number));
        assert_eq!(fib.lookup(mapped(IpAddr::V4(address))), expected, "{address}");
    }
}

#[test]
fn empty_tables_match_nothing() {
    let any = mapped("10.0.0.1".parse().unwrap());
    assert_eq!(Fib::compile(vec![]).lookup(any), None);
    let key = FlowKey {
        source: any,
        destination: any,
        source_port: 1,
        destination_port: 2,
        protocol: Protocol::UDP,
    };
    assert_eq!(
        Filter::compile(vec![]).decide(&key),
        Decision {
            access: Access::Deny,
            rule: None
        }
    );
}

/// IPv4 lies inside the addresses of IPv6 and is kept beside them: what is before it goes on behind it.
#[test]
fn addresses_around_ipv4_have_the_rules_of_ipv6() {
    let rule = |access, net: &str| {
        let (address, length) = net.split_once('/').unwrap();
        let length = length.parse().unwrap();
        let any = vec![0..=u16::MAX];
        Rule {
            access,
            protocol: None,
            sources: vec![Prefix::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)],
            destinations: vec![Prefix::new(address.parse().unwrap(), length)],
            source_ports: any.clone(),
            destination_ports: any,
        }
    };
    for inner in ["0.0.0.0/0", "255.255.255.255/32", "0.0.0.0/1", "10.0.0.0/8"] {
        let rules = vec![rule(Access::Deny, inner), rule(Access::Allow, "::/0")];
        let filter = Filter::compile(rules.clone());
        let ipv4 = mapped("0.0.0.0".parse().unwrap());
        let probes = [
            ipv4 - 1,
            ipv4,
            ipv4 + (10 << 24),
            ipv4 + 0xffff_ffff,
            ipv4 + (1 << 32),
            u128::MAX,
            0,
        ];
        for destination in probes {
            let key = FlowKey {
                source: mapped("10.0.0.4".parse().unwrap()),
                destination,
                source_port: 1,
                destination_port: 2,
                protocol: Protocol::TCP,
            };
            let inside = rules[0].destinations[0].first() <= destination
                && destination <= rules[0].destinations[0].last();
            assert_eq!(
                filter.decide(&key).rule,
                Some(if inside { 0 } else { 1 }),
                "{inner} {destination:x}"
            );
        }
    }
}
