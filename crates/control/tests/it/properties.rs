//! Fast tables against slow, obviously right answers, on random input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use control::compile;
use control::rib::{GatewayRoute, PeeringInput, Rib, Route, RouteSource, RouteState, RouteType, Scope};
use control::tags::Tags;
use engine::fib::{self, Fib, NextHop};
use engine::filter::{inbound, outbound};
use engine::snapshot::NicId;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::Topology;
use model::topology::{
    Access, Asg, AsgIndex, Direction, Nsg, NsgIndex, PeeringState, PortRange, Profile, RuleAddress,
    RuleProtocol, SecurityRule, Udr, UdrNextHop,
};
use packet::key::mapped;
use packet::{FlowKey, Prefix, Protocol};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::common;

/// Few distinct prefixes, so that they nest and collide: the first eight bits of either family.
fn net() -> impl Strategy<Value = IpNet> {
    (any::<bool>(), any::<u8>(), 0..=8_u8).prop_map(|(v4, bits, length)| {
        let net = if v4 {
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(bits, 0, 0, 0), length))
        } else {
            IpNet::V6(Ipv6Net::new_assert(
                Ipv6Addr::from_bits(u128::from(bits) << 120),
                length,
            ))
        };
        net.trunc()
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), any::<u8>()).prop_map(|(v4, bits)| {
        if v4 {
            Ipv4Addr::new(bits, 1, 2, 3).into()
        } else {
            Ipv6Addr::from_bits(u128::from(bits) << 120 | 7).into()
        }
    })
}

fn profile() -> impl Strategy<Value = Profile> {
    select(vec![Profile::Azure2018, Profile::Azure2025])
}

fn scope() -> impl Strategy<Value = Scope> {
    let hop = select(vec![
        UdrNextHop::VirtualNetworkGateway,
        UdrNextHop::VnetLocal,
        UdrNextHop::Internet,
        UdrNextHop::None,
        UdrNextHop::VirtualAppliance(Ipv4Addr::new(10, 0, 0, 4).into()),
    ]);
    let user = (net(), hop).prop_map(|(prefix, next_hop)| Udr {
        tag: None,
        name: prefix.to_string(),
        prefix,
        next_hop,
    });
    let state = select(vec![
        PeeringState::Connected,
        PeeringState::Initiated,
        PeeringState::Disconnected,
    ]);
    let peering =
        (state, any::<bool>(), vec(net(), 1..3)).prop_map(|(state, global, remote_space)| PeeringInput {
            index: None,
            state,
            global,
            access: true,
            remote_space,
        });
    let gateway = net().prop_map(|prefix| GatewayRoute {
        prefix,
        next_hops: Vec::new(),
        gateway: None,
    });
    (
        profile(),
        (vec(net(), 1..3), vec(peering, 0..4), vec(gateway, 0..6)),
        (vec(net(), 0..3), vec(net(), 0..4), vec(user, 0..6)),
        any::<bool>(),
    )
        .prop_map(
            |(profile, (ranges, peerings, gateway_routes), (endpoints, none, mut user), no_bgp)| {
                // A route table holds a prefix once.
                user.sort_by_key(|udr| udr.prefix);
                user.dedup_by_key(|udr| udr.prefix);
                Scope {
                    disable_peering_route: false,
                    profile,
                    ranges,
                    peerings,
                    gateway_routes,
                    service_endpoints: endpoints,
                    none_defaults: none,
                    vpn_gateway: None,
                    user_routes: user.into(),
                    disable_bgp_route_propagation: no_bgp,
                    tag_includes_default_route: true,
                    classic: false,
                }
            },
        )
}

/// The algorithm of the published cases, word for word, over all rows.
fn choose(profile: Profile, routes: &[Route], destination: IpAddr) -> Option<&Route> {
    let mut matching: Vec<&Route> = routes
        .iter()
        .filter(|route| route.state == RouteState::Active && route.prefix.contains(&destination))
        .collect();
    let endpoint = |route: &&Route| route.kind == RouteType::VirtualNetworkServiceEndpoint;
    if profile == Profile::Azure2025 && matching.iter().any(endpoint) {
        matching.retain(endpoint);
    }
    let system: Vec<IpNet> = matching
        .iter()
        .filter(|route| route.source == RouteSource::Default)
        .filter(|route| !matches!(route.kind, RouteType::Internet | RouteType::None))
        .map(|route| route.prefix)
        .collect();
    matching.retain(|route| {
        route.source != RouteSource::VirtualNetworkGateway
            || !system.iter().any(|prefix| prefix.contains(&route.prefix))
    });
    let order = |source| match source {
        RouteSource::User => 0,
        RouteSource::VirtualNetworkGateway => 1,
        RouteSource::Default => 2,
    };
    // A stable sort: of equals the first stays first.
    matching.sort_by_key(|route| (std::cmp::Reverse(route.prefix.prefix_len()), order(route.source)));
    matching.first().copied()
}

/// Whose row carries a prefix, of all rows with that prefix.
fn first_source(profile: Profile, rows: &[&Route]) -> RouteSource {
    let system = |kinds: &[RouteType]| {
        let mut system = rows.iter().filter(|row| row.source == RouteSource::Default);
        system.any(|row| kinds.contains(&row.kind))
    };
    let has = |source| rows.iter().any(|row| row.source == source);
    let endpoint = [RouteType::VirtualNetworkServiceEndpoint];
    let preferred = [
        RouteType::VnetLocal,
        RouteType::VnetPeering,
        RouteType::VnetGlobalPeering,
    ];
    if profile == Profile::Azure2025 && system(&endpoint) {
        RouteSource::Default
    } else if has(RouteSource::User) {
        RouteSource::User
    } else if has(RouteSource::VirtualNetworkGateway) && !system(&endpoint) && !system(&preferred) {
        RouteSource::VirtualNetworkGateway
    } else {
        RouteSource::Default
    }
}

fn in_net(net: &IpNet, address: IpAddr) -> bool {
    net.contains(&address)
}

/// The prefixes of `Internet`'s definition.
fn in_internet(virtual_network: &[IpNet], address: IpAddr) -> bool {
    let public = match address {
        IpAddr::V4(v4) => {
            let shared: Ipv4Net = "100.64.0.0/10".parse().unwrap();
            !(v4.is_private() || v4.octets()[0] == 0 || shared.contains(&v4))
        }
        IpAddr::V6(v6) => v6.to_bits() >> 125 == 1,
    };
    public && !virtual_network.iter().any(|net| in_net(net, address))
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        address(),
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

fn rule_address() -> impl Strategy<Value = RuleAddress> {
    prop_oneof![
        Just(RuleAddress::Any),
        vec(net(), 0..4).prop_map(RuleAddress::Prefixes),
        select(vec!["VirtualNetwork", "Internet", "AzureLoadBalancer"])
            .prop_map(|tag| RuleAddress::Tag(tag.to_owned())),
        vec((0..3_usize).prop_map(AsgIndex), 1..3).prop_map(RuleAddress::Asgs),
    ]
}

fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    let range = (0..6_u16, 0..4_u16).prop_map(|(first, more)| PortRange {
        first,
        last: first + more,
    });
    prop_oneof![
        Just(vec![PortRange {
            first: 0,
            last: u16::MAX
        }]),
        vec(range, 1..3)
    ]
}

fn nsg() -> impl Strategy<Value = Nsg> {
    let rule = (
        select(vec![Direction::Inbound, Direction::Outbound]),
        select(vec![Access::Allow, Access::Deny]),
        select(vec![
            RuleProtocol::Any,
            RuleProtocol::Tcp,
            RuleProtocol::Udp,
            RuleProtocol::Icmp,
            RuleProtocol::Esp,
            RuleProtocol::Ah,
        ]),
        (rule_address(), ports(), rule_address(), ports()),
    );
    vec(rule, 0..8).prop_map(|rules| {
        let rules = rules
            .into_iter()
            .enumerate()
            .map(|(index, (direction, access, protocol, fields))| {
                let (source, source_ports, destination, destination_ports) = fields;
                SecurityRule {
                    name: format!("r{index}"),
                    // Not in the order of the list.
                    priority: 100 + (u16::try_from(index).unwrap() * 7) % 8,
                    direction,
                    access,
                    protocol,
                    source,
                    source_ports,
                    destination,
                    destination_ports,
                }
            });
        Nsg {
            name: "n".to_owned(),
            rules: rules.collect(),
        }
    })
}

/// One VNet, four NICs that may be in three ASGs; the first has the NSG and may stand for others' packets.
fn filtered_lab() -> impl Strategy<Value = Topology> {
    let nics = vec((address(), vec((0..3_usize).prop_map(AsgIndex), 0..3)), 4);
    (nsg(), vec(net(), 1..3), nics, option::of(net()), any::<bool>()).prop_map(
        |(nsg, ranges, nics, user, default_counts)| {
            let mut topology = common::lab(Profile::Azure2025);
            topology.settings.tag_includes_default_route = default_counts;
            let subnet = common::subnet(&mut topology, "v", &ranges, &ranges[..1]);
            if let Some(prefix) = user {
                common::routes(
                    &mut topology,
                    subnet,
                    &[(prefix.to_string().as_str(), UdrNextHop::None)],
                );
            }
            topology.nsgs.push(nsg);
            topology.asgs = (0..3)
                .map(|asg| Asg {
                    name: format!("asg{asg}"),
                })
                .collect();
            for (index, (address, asgs)) in nics.into_iter().enumerate() {
                let nic = common::vm(&mut topology, &format!("vm{index}"), subnet, &[address]);
                topology.nics[nic.0].asgs = asgs;
            }
            topology.nics[0].nsg = Some(NsgIndex(0));
            topology
        },
    )
}

/// Whether a rule's field means an address, by the definitions.
fn means(topology: &Topology, field: &RuleAddress, address: IpAddr) -> bool {
    let platform: IpAddr = "168.63.129.16".parse().unwrap();
    let mut virtual_network = topology.vnets[0].address_space.clone();
    virtual_network.push(platform.into());
    virtual_network.extend(
        topology
            .route_tables
            .iter()
            .flat_map(|table| &table.routes)
            .map(|route| route.prefix)
            .filter(|prefix| topology.settings.tag_includes_default_route || prefix.prefix_len() > 0),
    );
    match field {
        RuleAddress::Any => true,
        RuleAddress::Prefixes(nets) => nets.iter().any(|net| in_net(net, address)),
        RuleAddress::Tag(tag) => match tag.as_str() {
            "VirtualNetwork" => virtual_network.iter().any(|net| in_net(net, address)),
            "Internet" => in_internet(&virtual_network, address),
            "AzureLoadBalancer" => address == platform,
            other => panic!("tag {other}"),
        },
        RuleAddress::Asgs(asgs) => topology
            .nics
            .iter()
            .any(|nic| nic.addresses.contains(&address) && asgs.iter().any(|asg| nic.asgs.contains(asg))),
    }
}

/// Reads the rules from the top, and the default rules after them: access, and the name of the rule.
fn judge(topology: &Topology, direction: Direction, key: &FlowKey) -> (Access, String) {
    let [source, destination] = [key.source, key.destination].map(packet::key::unmapped);
    let mut rules: Vec<&SecurityRule> = topology.nsgs[0].rules.iter().collect();
    rules.retain(|rule| rule.direction == direction);
    rules.sort_by_key(|rule| rule.priority);
    for rule in rules {
        let protocol = match rule.protocol {
            RuleProtocol::Any => true,
            RuleProtocol::Tcp => key.protocol == Protocol::TCP,
            RuleProtocol::Udp => key.protocol == Protocol::UDP,
            RuleProtocol::Icmp => key.protocol == Protocol::ICMP,
            RuleProtocol::Esp => key.protocol == Protocol::ESP,
            RuleProtocol::Ah => key.protocol == Protocol::AH,
        };
        let near = if direction == Direction::Inbound {
            &rule.destination
        } else {
            &rule.source
        };
        let member = match near {
            RuleAddress::Asgs(asgs) => asgs.iter().any(|asg| topology.nics[0].asgs.contains(asg)),
            _ => true,
        };
        let port = |ranges: &[PortRange], port: u16| {
            !matches!(key.protocol, Protocol::TCP | Protocol::UDP)
                || ranges
                    .iter()
                    .any(|range| range.first <= port && port <= range.last)
        };
        if protocol
            && member
            && means(topology, &rule.source, source)
            && means(topology, &rule.destination, destination)
            && port(&rule.source_ports, key.source_port)
            && port(&rule.destination_ports, key.destination_port)
        {
            return (rule.access, format!("securityRules/{}", rule.name));
        }
    }
    let tag = |tag: &str, address| means(topology, &RuleAddress::Tag(tag.to_owned()), address);
    let within = tag("VirtualNetwork", source) && tag("VirtualNetwork", destination);
    let (access, name) = match direction {
        Direction::Inbound if within => (Access::Allow, "AllowVnetInBound"),
        Direction::Inbound if tag("AzureLoadBalancer", source) => {
            (Access::Allow, "AllowAzureLoadBalancerInBound")
        }
        Direction::Inbound => (Access::Deny, "DenyAllInBound"),
        Direction::Outbound if within => (Access::Allow, "AllowVnetOutBound"),
        Direction::Outbound if tag("Internet", destination) => (Access::Allow, "AllowInternetOutBound"),
        Direction::Outbound => (Access::Deny, "DenyAllOutBound"),
    };
    (access, format!("defaultSecurityRules/{name}"))
}

fn keys() -> impl Strategy<Value = FlowKey> {
    let protocol = select(vec![
        Protocol::TCP,
        Protocol::UDP,
        Protocol::ICMP,
        Protocol::ICMPV6,
        Protocol::ESP,
        Protocol::AH,
    ]);
    (
        address(),
        any_address(),
        any::<bool>(),
        protocol,
        0..10_u16,
        0..10_u16,
    )
        .prop_filter("one family", |(near, far, ..)| near.is_ipv4() == far.is_ipv4())
        .prop_map(|(near, far, swap, protocol, source_port, destination_port)| {
            let (source, destination) = if swap { (far, near) } else { (near, far) };
            FlowKey {
                source: mapped(source),
                destination: mapped(destination),
                source_port,
                destination_port,
                protocol,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The trie's choice and that of plain longest-prefix match over the winners are the specification's.
    /// Shows: ROUTE-20, ROUTE-22, ROUTE-23.
    #[test]
    fn tables_choose_as_the_specification_says(scope in scope(), destinations in vec(address(), 32)) {
        let rib = Rib::new(&scope);
        let winners = rib.winners();
        // IPv6's default route spans IPv4 in the engine's 128 bits; IPv4's own, which always exists, is longer.
        let compiled = winners.iter().map(|route| fib::Route {
            prefix: Prefix::new(route.prefix.addr(), route.prefix.prefix_len()),
            next_hop: NextHop::None,
        });
        let fib = Fib::compile(compiled.collect());
        for destination in destinations {
            let expected = choose(scope.profile, rib.routes(), destination);
            let same = |found: Option<&Route>| match (found, expected) {
                (Some(found), Some(expected)) => std::ptr::eq(found, expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            prop_assert!(same(rib.lookup(destination)), "{destination}: {expected:?}");
            let fast = fib.lookup(mapped(destination)).map(|id| winners[id.index()]);
            prop_assert!(same(fast), "{destination}: {fast:?}, not {expected:?}");
        }
    }

    /// Of a prefix's rows one source wins, the one of ROUTE-21, and None defaults that lose are gone.
    /// Shows: ROUTE-21, ROUTE-27.
    #[test]
    fn a_prefix_has_one_winner(scope in scope()) {
        let rib = Rib::new(&scope);
        for route in rib.routes() {
            let same: Vec<&Route> =
                rib.routes().iter().filter(|other| other.prefix == route.prefix).collect();
            let active: Vec<_> = same.iter().filter(|row| row.state == RouteState::Active).collect();
            prop_assert!(!active.is_empty());
            prop_assert!(active.iter().all(|row| (row.source, row.kind) == (active[0].source, active[0].kind)));
            prop_assert_eq!(active[0].source, first_source(scope.profile, &same), "{:?}", route);
            prop_assert!(route.state == RouteState::Active || route.kind != RouteType::None || route.source != RouteSource::Default);
        }
    }

    /// Shows: NSG-13.
    #[test]
    fn the_internet_is_the_exact_complement(virtual_network in vec(net(), 0..6), addresses in vec(any_address(), 64)) {
        let tags = Tags::new(virtual_network.clone(), model::service_tags::ServiceTags::default());
        let internet = tags.expand("Internet");
        for address in addresses {
            let holding = internet.iter().filter(|net| in_net(net, address)).count();
            prop_assert_eq!(holding, usize::from(in_internet(&virtual_network, address)), "{}", address);
        }
        // As few prefixes as possible.
        prop_assert_eq!(IpNet::aggregate(&internet.to_vec()).len(), internet.len());
    }

    /// The compiled filter says what the rules say, and names the same rule.
    /// Shows: NSG-04, NSG-05, NSG-06, NSG-07, NSG-10, NSG-12, NSG-13, NSG-30, NSG-31.
    #[test]
    fn filters_decide_as_the_rules_read(topology in filtered_lab(), keys in vec(keys(), 32)) {
        let compiled = compile(&topology, 1);
        prop_assert_eq!(compiled.provenance.filters.len(), 2);
        for key in keys {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let filtered = match direction {
                    Direction::Inbound => inbound(&compiled.snapshot, NicId(0), &key),
                    Direction::Outbound => outbound(&compiled.snapshot, NicId(0), &key),
                };
                let (filter, decision) = filtered.decisions.into_iter().flatten().next().unwrap();
                let rule = &compiled.provenance.filters[filter.index()].rules[usize::from(decision.rule.unwrap())];
                let (access, name) = judge(&topology, direction, &key);
                prop_assert_eq!((format!("{:?}", filtered.access), &rule.name), (format!("{access:?}"), &name), "{:?}", key);
            }
        }
    }
}
