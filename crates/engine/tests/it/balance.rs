//! Internal load balancers: who gets a flow, what is rewritten on the way, and what health changes.

use engine::balance::{Backend, Distribution, Frontend, Health, HealthId, Rule};
use engine::fib::{Fib, NextHop, Route};
use engine::snapshot::{
    Connection, ConnectionId, Far, FibId, FrontendId, Gateway, GatewayId, LinkId, Port, PortId, VnetId,
};
use engine::{DropReason, Verdict};
use packet::key::unmapped;
use packet::{FlowKey, Headers, Protocol, VnetHeader};

use crate::support::*;

const FRONTEND: &str = "10.1.0.100";
const PORT: u16 = 80;
const BACKEND_PORT: u16 = 8080;

/// WEB talks to a frontend of its VNet; OTHER, P1 and P2 are behind it, probed and up.
fn lab(change: impl FnOnce(&mut Rule)) -> Lab {
    let mut lab = Lab::new();
    let backends = [(OTHER, OTHER_IP, 0), (P1, P1_IP, 1), (P2, P2_IP, 2)];
    let mut rule = Rule {
        protocol: None,
        port: 0,
        backend_port: BACKEND_PORT,
        distribution: Distribution::FiveTuple,
        floating: false,
        keeps_tcp: true,
        idle_minutes: 4,
        backends: backends
            .map(|(nic, address, health)| Backend {
                nic,
                address: ip(address),
                health: Some(HealthId(health)),
            })
            .to_vec(),
    };
    change(&mut rule);
    lab.snapshot.health = Health::new([true; 3]);
    lab.snapshot.frontends = vec![Frontend {
        vnet: VnetId(0),
        address: ip(FRONTEND),
        out_of_reach: Vec::new(),
        rules: vec![rule],
    }];
    lab.snapshot.frontend_index = vec![(VnetId(0), ip(FRONTEND), FrontendId(0))];
    lab
}

fn key_of(bytes: &[u8]) -> FlowKey {
    Headers::parse(bytes, &VnetHeader::default()).unwrap().key
}

/// Sends, and says which backend got it.
fn backend(lab: &mut Lab, bytes: &[u8]) -> String {
    let verdict = lab.send(WEB, bytes);
    assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
    unmapped(key_of(lab.left(0)).destination).to_string()
}

fn syn(source_port: u16) -> Vec<u8> {
    tcp(WEB_IP, FRONTEND, (source_port, PORT), SYN)
}

fn ack(source_port: u16) -> Vec<u8> {
    tcp(WEB_IP, FRONTEND, (source_port, PORT), ACK)
}

fn set(lab: &mut Lab, up: [bool; 3]) {
    for (id, up) in (0..).zip(up) {
        lab.snapshot.health.set(HealthId(id), up);
    }
    // Cached decisions end within a tick of 268 ms.
    lab.pass(1);
}

/// The backend's number in the pool.
fn number(address: &str) -> usize {
    [OTHER_IP, P1_IP, P2_IP]
        .iter()
        .position(|own| *own == address)
        .unwrap()
}

/// Shows: LB-01, NSG-17.
#[test]
fn a_packet_gets_the_backends_address_and_port_and_its_reply_the_frontends() {
    let mut lab = lab(|_| ());
    for flags in [SYN, ACK] {
        let there = backend(&mut lab, &tcp(WEB_IP, FRONTEND, (40000, PORT), flags));
        let seen = key_of(lab.left(0));
        assert_eq!(
            (unmapped(seen.source).to_string(), seen.source_port),
            (WEB_IP.to_owned(), 40000)
        );
        assert_eq!(seen.destination_port, BACKEND_PORT);
        checksums_hold(lab.left(0));
        let nic = [OTHER, P1, P2][number(&there)];
        let reply = tcp(&there, WEB_IP, (BACKEND_PORT, 40000), flags | ACK);
        assert_eq!(lab.send(nic, &reply), to(WEB));
        let answer = key_of(lab.left(0));
        assert_eq!(
            (unmapped(answer.source).to_string(), answer.source_port),
            (FRONTEND.to_owned(), PORT)
        );
        checksums_hold(lab.left(0));
    }
}

fn checksums_hold(bytes: &[u8]) {
    let (ip, rest) = etherparse::Ipv4Header::from_slice(bytes).unwrap();
    assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
    let (tcp, payload) = etherparse::TcpHeader::from_slice(rest).unwrap();
    assert_eq!(tcp.calc_checksum_ipv4(&ip, payload).unwrap(), tcp.checksum);
}

/// Shows: LB-02.
#[test]
fn flows_spread_evenly_and_each_stays_where_it_is() {
    let mut lab = lab(|_| ());
    let mut counts = [0_u32; 3];
    for port in 10_000..11_200 {
        let first = backend(&mut lab, &syn(port));
        counts[number(&first)] += 1;
        lab.pass(1);
        assert_eq!(backend(&mut lab, &ack(port)), first);
    }
    // 1,200 flows over 3: 400 each, with a standard deviation of 16.3; five of them are never exceeded by chance.
    assert!(counts.iter().all(|count| count.abs_diff(400) < 82), "{counts:?}");
}

/// Shows: LB-02.
#[test]
fn the_distribution_modes_are_those_of_the_vectors() {
    let text = include_str!("../../../../tests/vectors/lb_distribution.json");
    for (mode, distribution) in [
        ("\"Default\"", Distribution::FiveTuple),
        ("\"SourceIP\"", Distribution::SourceIp),
        ("\"SourceIPProtocol\"", Distribution::SourceIpProtocol),
    ] {
        let properties = text
            .split("\"mode\": ")
            .find(|part| part.starts_with(mode))
            .unwrap();
        let properties = properties.split('}').next().unwrap();
        let mut lab = lab(|rule| rule.distribution = distribution);
        let ports: Vec<String> = (1..100)
            .map(|port| backend(&mut lab, &syn(20_000 + port)))
            .collect();
        let same_for_ports = ports.iter().all(|one| *one == ports[0]);
        assert_eq!(
            same_for_ports,
            properties.contains("\"newSourcePort\": \"same backend\""),
            "{mode}"
        );
        // From many sources: whether UDP ever goes elsewhere than TCP.
        let elsewhere = (1..100).any(|source| {
            let source = format!("10.3.{source}.4");
            lab.nic(WEB).ip_forwarding = true;
            let tcp = backend(&mut lab, &tcp(&source, FRONTEND, (4000, PORT), SYN));
            tcp != backend(&mut lab, &udp(&source, FRONTEND, (4000, PORT)))
        });
        if properties.contains("newProtocol") {
            assert_eq!(
                elsewhere,
                properties.contains("\"newProtocol\": \"may change backend\""),
                "{mode}"
            );
        }
    }
}

/// Shows: LB-02.
#[test]
fn a_changed_pool_moves_new_flows_and_no_old_one() {
    let mut lab = lab(|rule| rule.distribution = Distribution::SourceIp);
    let first = backend(&mut lab, &syn(30_000));
    let kept = lab.snapshot.frontends[0].rules[0].backends[number(&first)];
    // The client's backend alone stays, beside one that was not there.
    lab.snapshot.frontends[0].rules[0].backends = vec![
        kept,
        Backend {
            nic: if kept.nic == P1 { P2 } else { P1 },
            address: ip(if kept.nic == P1 { P2_IP } else { P1_IP }),
            health: None,
        },
    ];
    lab.publish();
    assert_eq!(backend(&mut lab, &ack(30_000)), first);
    // Without it, a new flow of the known client goes elsewhere.
    lab.snapshot.frontends[0].rules[0].backends.remove(0);
    lab.publish();
    assert_ne!(backend(&mut lab, &syn(30_001)), first);
}

const SITE_CLIENT: &str = "192.168.10.7";
/// Nothing waits on the way to the site.
const NO_LINK: LinkId = LinkId(u32::MAX);

/// A site behind a gateway of the frontend's VNet, and its port. It sends to the frontend as other machines do.
fn with_site(lab: &mut Lab) -> PortId {
    let id = |length: usize| u32::try_from(length).unwrap();
    let port = PortId(id(lab.snapshot.ports.len()));
    lab.snapshot.ports.push(Port::Connection(ConnectionId(0)));
    let inside = lab.snapshot.nics[WEB.index()].fib;
    lab.snapshot.fibs.push(Fib::compile(vec![Route {
        prefix: prefix("192.168.10.0/24"),
        next_hop: NextHop::Connection(ConnectionId(0)),
    }]));
    lab.snapshot.gateways = vec![Gateway {
        vnet: VnetId(0),
        addresses: vec![ip("10.1.255.4")],
        port: None,
        outside: FibId(id(lab.snapshot.fibs.len()) - 1),
        inside,
    }];
    lab.snapshot.connections = vec![Connection {
        gateway: GatewayId(0),
        far: Far::Site,
        port: Some(port),
        selectors: None,
        mtu: 1400,
        out: NO_LINK,
        back: NO_LINK,
    }];
    for nic in [OTHER, P1, P2] {
        lab.route(nic, "192.168.10.0/24", NextHop::Gateway(GatewayId(0), None));
    }
    port
}

/// Sends from the site, and says which backend got it.
fn from_site(lab: &mut Lab, port: PortId, bytes: &[u8]) -> String {
    let verdict = lab.send(port, bytes);
    assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
    unmapped(key_of(lab.left(0)).destination).to_string()
}

/// A sender without a record of its own: the backend's says where its flows belong.
///
/// Shows: LB-02, LB-07.
#[test]
fn flows_from_a_site_stay_where_they_are_when_the_pool_or_its_health_changes() {
    let mut lab = lab(|_| ());
    let site = with_site(&mut lab);
    let packet = |port: u16, flags| tcp(SITE_CLIENT, FRONTEND, (port, PORT), flags);
    let before: Vec<String> = (20_000..20_060)
        .map(|port| from_site(&mut lab, site, &packet(port, SYN)))
        .collect();
    let stays = |lab: &mut Lab, what: &str| {
        for (port, before) in (20_000..).zip(&before) {
            assert_eq!(
                &from_site(lab, site, &packet(port, ACK)),
                before,
                "{port}: {what}"
            );
        }
    };
    // A reply finds its way, from the frontend.
    let reply = tcp(&before[0], SITE_CLIENT, (BACKEND_PORT, 20_000), SYN | ACK);
    let Verdict::Forward { port, .. } = lab.send([OTHER, P1, P2][number(&before[0])], &reply) else {
        panic!()
    };
    assert_eq!(port, site);
    assert_eq!(unmapped(key_of(lab.left(0)).source).to_string(), FRONTEND);
    stays(&mut lab, "nothing changed");
    // New flows would be spread otherwise: one backend less, then one more.
    set(&mut lab, [true, false, true]);
    stays(&mut lab, "a backend is down");
    let new: Vec<String> = (21_000..21_030)
        .map(|port| from_site(&mut lab, site, &packet(port, SYN)))
        .collect();
    assert!(new.iter().all(|backend| backend != P1_IP));
    set(&mut lab, [true; 3]);
    let web = Backend {
        nic: WEB,
        address: ip(WEB_IP),
        health: None,
    };
    lab.snapshot.frontends[0].rules[0].backends.insert(0, web);
    lab.publish();
    stays(&mut lab, "a backend joined");
    // What begins again begins anew.
    let again: Vec<String> = (20_000..20_060)
        .map(|port| from_site(&mut lab, site, &packet(port, SYN)))
        .collect();
    assert_ne!(again, before);
    // A backend that is no more in the pool keeps nothing.
    lab.snapshot.frontends[0].rules[0].backends.truncate(2);
    lab.publish();
    for port in 20_000..20_060 {
        let there = from_site(&mut lab, site, &packet(port, ACK));
        assert!([WEB_IP, OTHER_IP].contains(&there.as_str()), "{port}: {there}");
    }
}

/// Shows: LB-03.
#[test]
fn both_directions_of_a_flow_through_a_frontend_meet_one_appliance() {
    let mut lab = lab(|_| ());
    let through = engine::fib::NextHop::Balancer(FrontendId(0), None);
    for nic in [OTHER, P1, P2] {
        lab.nic(nic).ip_forwarding = true;
    }
    lab.route(WEB, "10.9.0.0/16", through);
    for port in 1000..1100 {
        let there = tcp(WEB_IP, "10.9.0.4", (port, 443), SYN);
        let Verdict::Forward { nic, .. } = lab.send(WEB, &there) else {
            panic!()
        };
        assert_eq!(lab.left(0), there, "an appliance gets the packet as it was sent");
        // The way back, from another sender of the VNet with the same route.
        lab.nic(DB).ip_forwarding = true;
        let fib = lab.snapshot.nics[WEB.index()].fib;
        lab.nic(DB).fib = fib;
        lab.route(DB, "10.1.0.4/32", through);
        let Verdict::Forward { nic: back, .. } =
            lab.send(DB, &tcp("10.9.0.4", WEB_IP, (443, port), SYN | ACK))
        else {
            panic!()
        };
        assert_eq!(nic, back);
        lab.route(DB, "10.1.0.4/32", engine::fib::NextHop::VnetLocal);
    }
    let echo = ping(WEB_IP, "10.9.0.4", 7, false);
    lab.refused(WEB, &echo, DropReason::NoBackend, Some(WEB));
}

/// Shows: LB-07.
#[test]
fn when_a_backend_goes_down_tcp_stays_udp_moves_and_new_flows_go_elsewhere() {
    let mut lab = lab(|_| ());
    let datagram = udp(WEB_IP, FRONTEND, (5000, PORT));
    let stream = backend(&mut lab, &syn(5000));
    let datagrams = backend(&mut lab, &datagram);
    for down in [&stream, &datagrams] {
        let mut up = [true; 3];
        up[number(down)] = false;
        set(&mut lab, up);
        for port in 6000..6050 {
            // On ports that had connections too: these are new ones.
            assert_ne!(backend(&mut lab, &syn(port)), *down);
        }
        assert_eq!(backend(&mut lab, &ack(5000)), stream);
    }
    assert_ne!(backend(&mut lab, &datagram), datagrams);
}

/// Shows: LB-07.
#[test]
fn when_all_are_down_a_standard_one_keeps_tcp_and_a_basic_one_cuts_it() {
    for keeps_tcp in [true, false] {
        let mut lab = lab(|rule| rule.keeps_tcp = keeps_tcp);
        let datagram = udp(WEB_IP, FRONTEND, (5000, PORT));
        let stream = backend(&mut lab, &syn(5000));
        backend(&mut lab, &datagram);
        set(&mut lab, [false; 3]);
        lab.refused(WEB, &syn(5001), DropReason::NoBackend, Some(WEB));
        lab.refused(WEB, &datagram, DropReason::NoBackend, Some(WEB));
        if keeps_tcp {
            assert_eq!(backend(&mut lab, &ack(5000)), stream);
        } else {
            lab.refused(WEB, &ack(5000), DropReason::NoBackend, Some(WEB));
        }
    }
}

/// Shows: LB-09.
#[test]
fn a_quiet_connection_is_remembered_for_its_rules_minutes() {
    for (minutes, remembered) in [(30, true), (4, false)] {
        let mut lab = lab(|rule| rule.idle_minutes = minutes);
        let first = backend(&mut lab, &syn(7000));
        let mut down = [true; 3];
        down[number(&first)] = false;
        set(&mut lab, down);
        assert_eq!(backend(&mut lab, &ack(7000)), first);
        lab.pass(10 * 60);
        assert_eq!(
            backend(&mut lab, &ack(7000)) == first,
            remembered,
            "{minutes} minutes"
        );
    }
}

/// Shows: LB-01.
#[test]
fn errors_about_balanced_flows_reach_both_ends_in_their_own_words() {
    let mut lab = lab(|_| ());
    let sent = udp(WEB_IP, FRONTEND, (5000, PORT));
    let there = backend(&mut lab, &sent);
    let nic = [OTHER, P1, P2][number(&there)];
    let arrived = lab.left(0).to_vec();
    // The backend says that nobody listens: the client hears it from the frontend, about what it sent.
    assert_eq!(lab.send(nic, &unreachable(&there, WEB_IP, &arrived)), to(WEB));
    let headers = Headers::parse(lab.left(0), &VnetHeader::default()).unwrap();
    assert_eq!(unmapped(headers.key.source).to_string(), FRONTEND);
    assert_eq!(headers.quoted, Some(key_of(&sent)));
    // The client refuses the answer: the backend hears it, about what it sent.
    let answer = udp(&there, WEB_IP, (BACKEND_PORT, 5000));
    assert_eq!(lab.send(nic, &answer), to(WEB));
    let translated = lab.left(0).to_vec();
    assert_eq!(
        lab.send(WEB, &unreachable(WEB_IP, FRONTEND, &translated)),
        to(nic)
    );
    let headers = Headers::parse(lab.left(0), &VnetHeader::default()).unwrap();
    assert_eq!(unmapped(headers.key.destination).to_string(), there);
    assert_eq!(headers.quoted, Some(key_of(&answer)));
}

/// Shows: VNET-08, LB-05.
#[test]
fn only_the_platform_speaks_as_it_and_only_answers_reach_it() {
    const PLATFORM: &str = "168.63.129.16";
    let mut lab = lab(|_| ());
    let port = PortId(u32::try_from(lab.snapshot.ports.len()).unwrap());
    lab.snapshot
        .ports
        .push(engine::snapshot::Port::Platform(VnetId(0)));
    lab.snapshot.platform = vec![(VnetId(0), port)];
    // Before a probe, nothing a VM says gets there, and no appliance may speak in its name.
    lab.refused(
        WEB,
        &tcp(WEB_IP, PLATFORM, (80, 40000), SYN),
        DropReason::PlatformReserved,
        Some(WEB),
    );
    lab.refused(
        NVA,
        &tcp(PLATFORM, WEB_IP, (40000, 80), SYN),
        DropReason::PlatformReserved,
        Some(NVA),
    );
    lab.refused(
        WEB,
        &tcp(PLATFORM, OTHER_IP, (40000, 80), SYN),
        DropReason::SpoofedSource,
        Some(WEB),
    );
    // A probe passes the rules at the NIC alone, its answer by state.
    let probe = tcp(PLATFORM, WEB_IP, (40000, 80), SYN);
    assert_eq!(lab.send(port, &probe), to(WEB));
    lab.deny_outbound(WEB);
    let answer = lab.send(WEB, &tcp(WEB_IP, PLATFORM, (80, 40000), SYN | ACK));
    assert_eq!(
        answer,
        Verdict::Forward {
            port,
            nic: None,
            fragment: None
        }
    );
    lab.deny_inbound(OTHER);
    lab.refused(
        port,
        &tcp(PLATFORM, OTHER_IP, (40000, 80), SYN),
        DropReason::NsgInbound,
        Some(OTHER),
    );
    lab.refused(
        port,
        &tcp("10.1.0.77", WEB_IP, (1, 2), SYN),
        DropReason::SpoofedSource,
        None,
    );
}

/// Later fragments have no ports: they go where the first went.
#[test]
fn later_fragments_follow_the_first_to_its_backend() {
    let mut lab = lab(|rule| rule.protocol = Some(Protocol::UDP));
    let whole = udp_with(WEB_IP, FRONTEND, (5000, PORT), &[7; 24]);
    let cut = |range: std::ops::Range<usize>, field: u16| {
        let mut bytes = whole[..20].to_vec();
        bytes[2..4].copy_from_slice(&u16::try_from(20 + range.len()).unwrap().to_be_bytes());
        bytes[4..8].copy_from_slice(&[0, 42, (field >> 8) as u8, field as u8]);
        renew_checksum(&mut bytes);
        bytes.extend_from_slice(&whole[20..][range]);
        bytes
    };
    let there = backend(&mut lab, &cut(0..16, 0x2000));
    assert_eq!(backend(&mut lab, &cut(16..32, 2)), there);
}
