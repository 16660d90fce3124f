//! What filters mean: tcpdump itself is asked.

use std::fs;
use std::process::Command;

use super::*;

fn nobody(_: &str) -> Vec<IpAddr> {
    Vec::new()
}

fn filter(text: &str) -> Filter {
    Filter::parse(text, &nobody).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// An IPv4 packet with `options` bytes of options; `fragment` is the field of flags and offset.
fn v4(protocol: u8, ends: ([u8; 4], [u8; 4]), fragment: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let length = u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let version = 0x40 | u8::try_from(header / 4).unwrap();
    let mut packet = vec![
        version, 0, length[0], length[1], 0, 1, high, low, 64, protocol, 0, 0,
    ];
    packet.extend(ends.0);
    packet.extend(ends.1);
    packet.extend(vec![1; options]);
    packet.extend(payload);
    packet
}

fn v6(next: u8, ends: (u8, u8), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
    for end in [ends.0, ends.1] {
        packet.extend([0xfd, 0, 0, end, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
    }
    packet.extend(payload);
    packet
}

fn transport(ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut header = ports.0.to_be_bytes().to_vec();
    header.extend(ports.1.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 1, 1, 0, 0, 0, 0]);
    header
}

/// Every combination of what the filters ask for, and what is no packet.
fn packets() -> Vec<Vec<u8>> {
    let (a, b, other) = ([10, 0, 0, 4], [10, 1, 0, 4], [192, 168, 1, 7]);
    let mut packets = vec![vec![0; 40]];
    for protocol in [6, 17, 1, 50, 51, 47, 132] {
        for ends in [(a, b), (b, a), (other, [10, 0, 0, 5])] {
            for (ports, flags) in [
                ((50000, 80), 2),
                ((80, 50000), 0x12),
                ((443, 22), 0x10),
                ((53, 53), 1),
            ] {
                for fragment in [0, 0x2000, 0x00b9, 0x4000] {
                    for options in [0, 8] {
                        packets.push(v4(protocol, ends, fragment, options, &transport(ports, flags)));
                    }
                }
            }
        }
    }
    for next in [6, 17, 58, 50] {
        for ends in [(1, 2), (2, 1), (3, 4)] {
            for ports in [(50000, 80), (80, 50000), (53, 53)] {
                packets.push(v6(next, ends, &transport(ports, 2)));
            }
        }
    }
    packets
}

const FILTERS: &[&str] = &[
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "sctp",
    "esp",
    "ah",
    "ip",
    "ip6",
    "proto 47",
    "ip proto 50",
    "ip proto \\tcp",
    "ip6 proto 6",
    "host 10.0.0.4",
    "src host 10.0.0.4",
    "dst host 10.0.0.4",
    "src 10.0.0.4",
    "ip host 10.0.0.4",
    "src or dst host 10.0.0.4",
    "host fd00:1::1",
    "ip6 host fd00:1::1",
    "src host fd00:0001:0000::0001",
    "net 10.0.0.0/8",
    "dst net 10.1.0.0/16",
    "net 192.168",
    "net 10",
    "src net 10.0.0.0 mask 255.255.0.0",
    "net fd00:2::/32",
    "port 80",
    "tcp port 80",
    "udp port 53",
    "src port 443",
    "dst port 22",
    "tcp src port 80",
    "src and dst port 53",
    "portrange 50-100",
    "tcp portrange 440-445",
    "not tcp",
    "!tcp && !udp",
    "tcp and not port 80",
    "host 10.0.0.4 and port 80",
    "host 10.0.0.4 or 192.168.1.7",
    "tcp port 80 or 443",
    "port 80 or port 53",
    "(tcp or udp) and port 53",
    "not (host 10.0.0.4 and tcp port 80)",
    "src port 80 and dst port 50000",
    // `and` and `or` bind alike, from left to right.
    "dst port 80 or dst port 22 and udp",
    "udp and dst port 22 or dst port 80",
    "host 10.0.0.4 and (port 80 or port 22) and not udp",
];

/// Only IPv4 in tcpdump, which does not look for TCP's flags in IPv6.
const FLAG_FILTERS: &[&str] = &[
    "tcp[tcpflags] & tcp-syn != 0",
    "tcp[13] & 2 = 2",
    "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
    "tcp[tcpflags] & (tcp-syn | 0x10) != tcp-ack",
];

/// tcpdump itself says which packets each filter means.
#[test]
fn filters_mean_what_tcpdump_means() {
    let packets = packets();
    let mut file = Vec::new();
    // A capture of raw IP packets, the time of each its number.
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 101_u32] {
        file.extend(word.to_le_bytes());
    }
    for (number, packet) in (0_u32..).zip(&packets) {
        let length = u32::try_from(packet.len()).unwrap();
        for word in [number, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    let path = std::env::temp_dir().join(format!("peerlane-filters-{}.pcap", std::process::id()));
    fs::write(&path, file).unwrap();
    let matched = |text: &str| {
        let filter = filter(text);
        let numbers = packets
            .iter()
            .enumerate()
            .filter(|(_, packet)| filter.matches(packet));
        numbers.map(|(number, _)| number).collect::<Vec<_>>()
    };
    let of_tcpdump = |text: &str| {
        let output = Command::new("tcpdump")
            .args(["-ttnr", path.to_str().unwrap(), text])
            .output();
        let output = output.expect("tcpdump is installed (scripts/test installs it)");
        assert!(
            output.status.success(),
            "{text}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        lines
            .lines()
            .filter_map(|line| line.split('.').next()?.parse().ok())
            .collect::<Vec<usize>>()
    };
    for text in FILTERS {
        let (ours, theirs) = (matched(text), of_tcpdump(text));
        assert!(
            !theirs.is_empty() && theirs.len() < packets.len(),
            "{text} says nothing"
        );
        assert_eq!(ours, theirs, "{text}");
    }
    for text in FLAG_FILTERS {
        let of_v4 = format!("ip and {text}");
        assert_eq!(matched(&of_v4), of_tcpdump(text), "{text}");
        assert!(
            matched(text).len() > matched(&of_v4).len(),
            "{text} sees IPv6 too"
        );
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn extension_headers_and_names_are_looked_through() {
    // A destination option, then an IPv6 fragment header of the first fragment, then TCP.
    let mut payload = vec![44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 9];
    payload.extend(transport((50000, 80), 2));
    let first = v6(60, (1, 2), &payload);
    assert!(filter("tcp dst port 80 and tcp[tcpflags] & tcp-syn != 0").matches(&first));
    payload[11] = 8 | 1; // no longer the first
    let later = v6(60, (1, 2), &payload);
    assert!(filter("tcp").matches(&later) && !filter("port 80").matches(&later));

    let web = |name: &str| match name {
        "web" => vec!["10.0.0.4".parse().unwrap(), "fd00:1::1".parse().unwrap()],
        _ => Vec::new(),
    };
    for text in ["host web", "src web", "tcp and src host web"] {
        let filter = Filter::parse(text, &web).unwrap();
        assert!(filter.matches(&first), "{text}");
        assert!(
            filter.matches(&v4(6, ([10, 0, 0, 4], [1, 1, 1, 1]), 0, 0, &[])),
            "{text}"
        );
        assert!(!filter.matches(&v6(6, (3, 4), &[])), "{text}");
    }
}

#[test]
fn what_is_no_filter_is_refused() {
    for (text, part) in [
        ("", "missing"),
        ("tcp and", "missing"),
        ("(tcp", "not closed"),
        ("tcp udp", "`udp`"),
        ("host", "missing"),
        ("host nobody", "no VM or NIC"),
        ("vlan 3", "`vlan` is not known"),
        ("10.0.0.4", "not known"),
        ("ether[0] & 1 = 1", "not known"),
        ("ip[0] & 1 = 1", "only `tcp[tcpflags]"),
        ("port http", "`http`"),
        ("port 70000", "`70000`"),
        ("tcp host 10.0.0.4", "`tcp` does not go with"),
        ("icmp port 3", "`icmp` does not go with"),
        ("net 10.0.0.4/8", "10.0.0.0/8 is the network"),
        ("less 100", "not known"),
        ("tcp > 3", "`>`"),
        ("tcp[tcpflags] & tcp-new != 0", "`tcp-new`"),
        ("portrange 5", "range"),
    ] {
        let error = Filter::parse(text, &nobody).unwrap_err();
        assert!(error.message.contains(part), "{text}: {error}");
    }
    let deep = format!("{}tcp{}", "(".repeat(5000 / 2), ")".repeat(5000 / 2));
    assert!(Filter::parse(&deep, &nobody).is_err());
    let deep = "not ".repeat(100) + "tcp";
    assert!(
        Filter::parse(&deep, &nobody)
            .unwrap_err()
            .message
            .contains("nests")
    );
}

proptest::proptest! {
    /// Packets and filters come from outside.
    #[test]
    fn nothing_panics(packet: Vec<u8>, text in "(tcp|udp|and|or|not|port|net|host|src|dst|[(]|[)]|80|10.0.0.4|[ \\[\\]&|=!-]){0,12}") {
        for text in ["tcp or port 80", &text] {
            if let Ok(filter) = Filter::parse(text, &nobody) {
                filter.matches(&packet);
                for version in [0x45, 0x60] {
                    let mut packet = packet.clone();
                    packet.insert(0, version);
                    filter.matches(&packet);
                }
            }
        }
    }
}
