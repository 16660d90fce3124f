//! What the kernel does in a configured namespace, with real packets.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::{InterfaceSpec, Namespace, NamespaceKind, NamespaceSpec, Place, network, rootless};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::bring_up::{interface, make, namespace};
use crate::tun;

pub(crate) fn vm_is_what_the_contract_says() {
    enter();
    let mut spec = namespace(
        "web",
        vec![
            interface("eth0", &["10.1.0.4/24", "10.1.0.9/24", "fd00:b::4/64"]),
            interface("eth1", &["10.1.1.4/27"]),
        ],
    );
    for forwarding in [true, false] {
        spec.forwarding = forwarding;
        let namespace = Namespace::create().unwrap();
        let tuns = namespace.run(|| {
            // What a machine may have set for all that come.
            for (setting, value) in [
                ("rp_filter", "1"),
                ("send_redirects", "1"),
                ("accept_redirects", "1"),
            ] {
                for scope in ["all", "default"] {
                    fs::write(format!("/proc/sys/net/ipv4/conf/{scope}/{setting}"), value).unwrap();
                }
            }
            fs::write(
                "/proc/sys/net/ipv4/ip_forward",
                if forwarding { "0" } else { "1" },
            )
            .unwrap();
            fs::write(
                "/proc/sys/net/ipv6/conf/all/forwarding",
                if forwarding { "0" } else { "1" },
            )
            .unwrap();
            fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            [tun::open("eth0"), tun::open("eth1")]
        });
        namespace.run(|| network::configure(&spec)).unwrap().unwrap();
        // Again: nothing is there twice and nothing is refused.
        namespace.run(|| network::configure(&spec)).unwrap().unwrap();
        namespace.run(|| check_vm(forwarding)).unwrap();
        drop(tuns);
    }
}

fn check_vm(forwarding: bool) {
    let sysctl = |name: &str| {
        fs::read_to_string(format!("/proc/sys/net/{name}"))
            .unwrap()
            .trim()
            .to_owned()
    };
    let forward = if forwarding { "1" } else { "0" };
    for name in ["all", "eth0", "eth1"] {
        for setting in ["rp_filter", "send_redirects", "accept_redirects"] {
            assert_eq!(
                sysctl(&format!("ipv4/conf/{name}/{setting}")),
                "0",
                "{name} {setting}"
            );
        }
        assert_eq!(sysctl(&format!("ipv4/conf/{name}/forwarding")), forward);
        assert_eq!(sysctl(&format!("ipv6/conf/{name}/forwarding")), forward);
        for setting in ["accept_redirects", "accept_ra", "router_solicitations"] {
            assert_eq!(
                sysctl(&format!("ipv6/conf/{name}/{setting}")),
                "0",
                "{name} {setting}"
            );
        }
        assert_eq!(sysctl(&format!("ipv6/conf/{name}/addr_gen_mode")), "1");
    }
    assert_eq!(sysctl("ipv6/conf/eth0/disable_ipv6"), "0");
    assert_eq!(sysctl("ipv6/conf/eth1/disable_ipv6"), "1");
    let links = ip(&["-o", "link"]);
    for name in ["eth0", "eth1"] {
        let line = links.lines().find(|line| line.contains(name)).unwrap();
        assert!(
            line.contains("mtu 1500") && line.contains("qlen 4096") && line.contains("UP"),
            "{line}"
        );
    }
    assert!(links.contains("lo: <LOOPBACK,UP,LOWER_UP>"), "{links}");
    let addresses: Vec<String> = ip(&["-o", "addr"])
        .lines()
        .map(|line| {
            line.split_whitespace()
                .skip(1)
                .take(3)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    let expected = [
        "lo inet 127.0.0.1/8",
        "lo inet6 ::1/128",
        "eth0 inet 10.1.0.4/24",
        "eth0 inet 10.1.0.9/24",
        "eth0 inet6 fd00:b::4/64",
        "eth1 inet 10.1.1.4/27",
    ];
    assert_eq!(addresses, expected);
    assert!(!ip(&["-6", "addr"]).contains("tentative"));
    let routes = ip(&["route"]);
    assert_eq!(
        routes.lines().filter(|line| line.starts_with("default")).count(),
        1
    );
    assert!(
        routes.contains("default dev eth0 proto static scope link"),
        "{routes}"
    );
    assert!(
        routes.contains("10.1.1.0/27 dev eth1 proto kernel scope link src 10.1.1.4"),
        "{routes}"
    );
    assert!(
        ip(&["-6", "route"]).contains("default dev eth0 "),
        "{}",
        ip(&["-6", "route"])
    );
    let ping = Command::new("ping")
        .args(["-c1", "-W1", "127.0.0.1"])
        .output()
        .unwrap();
    assert!(ping.status.success(), "{ping:?}");
}

pub(crate) fn vm_sends_nothing_by_itself() {
    enter();
    for forwarding in [false, true] {
        let mut spec = namespace("web", vec![interface("eth0", &["10.1.0.4/24", "fd00:b::4/64"])]);
        spec.forwarding = forwarding;
        let (_namespace, tuns) = make(&spec);
        // Multicast listener reports come within a second, router solicitations after up to four.
        let packet = tun::read(&tuns[0], Duration::from_secs(5));
        assert!(packet.is_none(), "forwarding {forwarding}: {packet:02x?}");
    }
}

pub(crate) fn vnet_port_sends_through_the_tun() {
    enter();
    let port = port(
        "pl-hub",
        &["10.0.2.4/32", "10.0.2.5/32", "fd00:a::4/128", "fd00:a::5/128"],
        Place::Lab,
    );
    let (namespace, tuns) = make(&port);
    namespace.run(|| network::configure(&port)).unwrap().unwrap();
    let packets = reflecting(&tuns[0], || {
        namespace
            .run(|| {
                talk("10.0.2.4", "10.0.2.5");
                talk("fd00:a::5", "fd00:a::4");
                talk_to_itself("10.0.2.4");
                talk_to_itself("fd00:a::4");
            })
            .unwrap();
        let device = namespace
            .run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap())
            .unwrap();
        println!("{device}");
    });
    for (from, to) in [("10.0.2.4", "10.0.2.5"), ("fd00:a::5", "fd00:a::4")] {
        for protocol in if from.contains(':') {
            [6, 17, 58]
        } else {
            [6, 17, 1]
        } {
            for (from, to) in [(from, to), (to, from)] {
                let key = (protocol, from.parse().unwrap(), to.parse().unwrap());
                let count = packets.iter().filter(|packet| **packet == key).count();
                assert!(count > 0, "no packet {key:?} came out of the TUN: {packets:?}");
            }
        }
    }
    let to_itself = packets.iter().filter(|(_, from, to)| from == to).count();
    assert_eq!(to_itself, 0, "a NIC's packets to itself stay inside");
    // Unbound, a program uses the first address and the default route.
    let local = namespace.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.9.9.9:9").unwrap();
        socket.local_addr().unwrap().ip()
    });
    assert_eq!(local.unwrap(), "10.0.2.4".parse::<IpAddr>().unwrap());
}

pub(crate) fn existing_namespace_is_given_back() {
    let existing = Namespace::create().unwrap();
    let state = || {
        let show = || {
            let sysctls = [
                "ipv4/ip_forward",
                "ipv4/conf/all/rp_filter",
                "ipv6/conf/all/forwarding",
            ];
            let sysctls = sysctls.map(|name| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap());
            let mine = [
                ip(&["rule"]),
                ip(&["-6", "rule"]),
                ip(&["route", "show", "table", "all"]),
            ];
            (sysctls, mine, ip(&["-6", "route", "show", "table", "all"]))
        };
        existing.run(show).unwrap()
    };
    existing
        .run(|| {
            fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            ip(&["link", "set", "lo", "up"]);
            ip(&["rule", "add", "pref", "100", "from", "192.0.2.1", "lookup", "77"]);
        })
        .unwrap();
    let before = state();
    let place = Place::Existing("/somewhere".to_owned());
    let hub = port(
        "pl-hub",
        &["10.0.2.4/32", "10.0.2.5/32", "fd00:a::4/128", "fd00:a::5/128"],
        place.clone(),
    );
    let spoke = port("pl-spoke", &["10.1.2.4/32", "10.1.2.5/32"], place);
    let mut tuns = Vec::new();
    for spec in [&hub, &spoke] {
        tuns.push(existing.run(|| tun::open(&spec.interfaces[0].name)).unwrap());
        existing.run(|| network::configure(spec)).unwrap().unwrap();
    }
    let packets = reflecting(&tuns[0], || {
        existing.run(|| talk("10.0.2.4", "10.0.2.5")).unwrap()
    });
    assert!(packets.len() > 10, "{packets:?}");
    assert_eq!(state().0, before.0, "settings of the whole namespace");
    existing.run(|| network::unconfigure(&hub)).unwrap().unwrap();
    tuns.remove(0);
    // The other port of the namespace still works.
    let packets = reflecting(&tuns[0], || {
        existing.run(|| talk("10.1.2.5", "10.1.2.4")).unwrap()
    });
    assert!(packets.len() > 10, "{packets:?}");
    tuns.clear();
    existing.run(|| network::unconfigure(&spoke)).unwrap().unwrap();
    existing.run(|| network::unconfigure(&spoke)).unwrap().unwrap();
    assert_eq!(state(), before);
}

fn enter() {
    if !rootless::privileged() {
        rootless::enter_user_namespace().unwrap();
    }
}

fn port(name: &str, addresses: &[&str], place: Place) -> NamespaceSpec {
    let interface = interface(name, addresses);
    let default_route = place == Place::Lab;
    let interfaces = vec![InterfaceSpec {
        source_routing: true,
        default_route,
        ..interface
    }];
    let kind = NamespaceKind::VnetPort;
    NamespaceSpec {
        kind,
        place,
        ..namespace("hub", interfaces)
    }
}

/// Protocol, source and destination of what came out of a TUN that gives everything back meanwhile.
fn reflecting(tun: &File, work: impl FnOnce()) -> Vec<(u8, IpAddr, IpAddr)> {
    let stop = AtomicBool::new(false);
    let packets = std::thread::scope(|scope| {
        let reflector = scope.spawn(|| {
            let mut packets = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                packets.extend(tun::reflect(tun, Duration::from_millis(20)));
            }
            packets
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        let packets = reflector.join().unwrap();
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
        packets
    });
    let ipv4 = |bytes: &[u8]| IpAddr::from(<[u8; 4]>::try_from(bytes).unwrap());
    let ipv6 = |bytes: &[u8]| IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap());
    let key = |packet: Vec<u8>| match packet[0] >> 4 {
        4 => (packet[9], ipv4(&packet[12..16]), ipv4(&packet[16..20])),
        _ => (packet[6], ipv6(&packet[8..24]), ipv6(&packet[24..40])),
    };
    packets.into_iter().map(key).collect()
}

/// A ping, a datagram with its answer and 300 kB over TCP between two addresses of this namespace.
fn talk(from: &str, to: &str) {
    let (from, to) = (from.parse::<IpAddr>().unwrap(), to.parse::<IpAddr>().unwrap());
    let mut ping = Command::new("ping");
    ping.args(["-c2", "-i0.2", "-W2", "-I", &from.to_string(), &to.to_string()]);
    let ping = ping.stdin(Stdio::null()).output().unwrap();
    assert!(ping.status.success(), "{ping:?}");
    let (client, server) = (
        UdpSocket::bind((from, 0)).unwrap(),
        UdpSocket::bind((to, 0)).unwrap(),
    );
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    client.send_to(b"question", server.local_addr().unwrap()).unwrap();
    let mut text = [0; 16];
    let (length, peer) = server.recv_from(&mut text).unwrap();
    assert_eq!(
        (&text[..length], peer),
        (&b"question"[..], client.local_addr().unwrap())
    );
    server.send_to(b"answer", peer).unwrap();
    assert_eq!(client.recv(&mut text).unwrap(), 6);

    let server = TcpListener::bind((to, 0)).unwrap();
    let address = server.local_addr().unwrap();
    let mut client = connect_from(from, address);
    let data: Vec<u8> = (0..300_000_u32).map(|index| index.to_le_bytes()[1]).collect();
    let (mut accepted, peer) = server.accept().unwrap();
    assert_eq!((peer.ip(), accepted.local_addr().unwrap().ip()), (from, to));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&data).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        accepted.read_to_end(&mut received).unwrap();
        assert!(received == data);
    });
}

fn talk_to_itself(address: &str) {
    let address: IpAddr = address.parse().unwrap();
    let server = TcpListener::bind((address, 0)).unwrap();
    let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let (mut accepted, peer) = server.accept().unwrap();
    assert_eq!(peer.ip(), address);
    client.write_all(b"self").unwrap();
    let mut text = [0; 4];
    accepted.read_exact(&mut text).unwrap();
}

fn connect_from(from: IpAddr, to: SocketAddr) -> TcpStream {
    let family = if from.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Send,
        Some(Duration::from_secs(10)),
    )
    .unwrap();
    rustix::net::bind(&socket, &SocketAddr::new(from, 0)).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    socket.into()
}

/// iproute2 as an independent witness of what is in the namespace of this thread.
fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("these tests need iproute2");
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
