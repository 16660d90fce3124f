//! Packets no honest host sends: each ends with its fault, and none with a panic.

use etherparse::PacketBuilder;
use packet::{Fault, Headers, VnetHeader, checksum};
use proptest::prelude::*;

use crate::support::packets;

pub(crate) fn parse(bytes: &[u8]) -> Result<Headers, Fault> {
    Headers::parse(bytes, &VnetHeader::default())
}

pub(crate) fn fault(bytes: &[u8]) -> Option<Fault> {
    parse(bytes).err()
}

fn udp4() -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 4], [10, 1, 0, 4], 64)
        .udp(1000, 53)
        .write(&mut bytes, &[7; 32])
        .unwrap();
    bytes
}

pub(crate) fn tcp4() -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 4], [10, 1, 0, 4], 64)
        .tcp(1000, 80, 1, 512)
        .write(&mut bytes, &[7; 32])
        .unwrap();
    bytes
}

/// An IPv6 packet with these bytes after its fixed header.
pub(crate) fn ipv6(next_header: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend([next_header, 64]);
    for host in [4u8, 5] {
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    bytes.extend(rest);
    bytes
}

pub(crate) const UDP6: [u8; 8] = [3, 232, 0, 53, 0, 8, 0x12, 0x34];

/// Sets bytes of an IPv4 header and makes its checksum right again.
pub(crate) fn with_ipv4(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes[10..12].fill(0);
    let checksum = checksum::finish(checksum::sum(&bytes[..20], 0));
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn vnet() -> impl Strategy<Value = VnetHeader> {
    // Half of the time near what a kernel writes, so that the deeper checks are reached.
    let near = (
        0u8..4,
        prop_oneof![Just(0u8), Just(1), Just(4), Just(5), Just(0x81)],
        0u16..100,
        0u16..2000,
    )
        .prop_flat_map(|(flags, gso_type, header_length, gso_size)| {
            let place = (
                prop_oneof![Just(20u16), Just(40), 0u16..100],
                prop_oneof![Just(6u16), Just(16)],
            );
            place.prop_map(move |(checksum_start, checksum_offset)| VnetHeader {
                flags,
                gso_type,
                header_length,
                gso_size,
                checksum_start,
                checksum_offset,
            })
        });
    prop_oneof![any::<[u8; 10]>().prop_map(VnetHeader::from_bytes), near]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), vnet in vnet()) {
        let _ = Headers::parse(&bytes, &vnet);
    }

    #[test]
    fn damaged_packets_never_panic_and_keep_within_the_buffer(
        sample in packets(0..100), vnet in vnet(), damage in proptest::collection::vec((0usize..120, any::<u8>()), 0..4)
    ) {
        let mut bytes = sample.bytes;
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if bytes[0] == 0x45 && bytes.len() >= 20 {
            bytes = with_ipv4(bytes, 0, &[]); // past the header checksum
        }
        if let Ok(headers) = Headers::parse(&bytes, &vnet) {
            prop_assert!(headers.length as usize <= bytes.len());
            prop_assert!(usize::from(headers.transport_offset) <= headers.length as usize);
            prop_assert!(headers.wire_packets >= 1 && headers.wire_bytes >= headers.length);
            prop_assert!(headers.largest_wire_packet <= headers.length);
        }
    }

    #[test]
    fn truncation_anywhere_is_noticed(sample in packets(0..100)) {
        for length in 0..sample.bytes.len() {
            prop_assert_eq!(fault(&sample.bytes[..length]), Some(Fault::MalformedHeader), "{}", length);
        }
    }

}

#[test]
fn lengths_and_versions() {
    let udp = udp4();
    assert_eq!(fault(&[]), Some(Fault::MalformedHeader));
    for (what, bytes) in [
        ("version", with_ipv4(udp.clone(), 0, &[0x55])),
        ("short IHL", with_ipv4(udp.clone(), 0, &[0x44])),
        ("total length below IHL", with_ipv4(udp.clone(), 2, &[0, 19])),
        (
            "total length beyond the buffer",
            with_ipv4(udp.clone(), 2, &[1, 0]),
        ),
        ("UDP length below 8", {
            let mut b = udp.clone();
            b[24..26].copy_from_slice(&[0, 7]);
            b
        }),
        ("UDP length beyond the packet", {
            let mut b = udp.clone();
            b[24..26].copy_from_slice(&[0, 41]);
            b
        }),
        ("TCP data offset below 5", {
            let mut b = tcp4();
            b[32] = 0x40;
            b
        }),
        ("TCP data offset beyond the packet", {
            let mut b = tcp4();
            b[32] = 0xf0;
            b
        }),
        ("IPv6 payload length 0 (jumbogram)", ipv6(17, &[])),
    ] {
        assert_eq!(fault(&bytes), Some(Fault::MalformedHeader), "{what}");
    }
}

#[test]
fn every_bit_of_an_ipv4_header_is_covered_by_its_checksum() {
    let udp = udp4();
    for bit in 0..160 {
        let mut bytes = udp.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(fault(&bytes).is_some(), "bit {bit}");
    }
}

/// Shows: NET-01.
#[test]
fn addresses_that_are_not_one_host() {
    let udp = udp4();
    let unsupported = [[224, 0, 0, 1], [239, 255, 255, 255], [255, 255, 255, 255]];
    let malformed = [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1]];
    for address in unsupported {
        assert_eq!(
            fault(&with_ipv4(udp.clone(), 16, &address)),
            Some(Fault::UnsupportedProtocol),
            "{address:?}"
        );
        assert_eq!(
            fault(&with_ipv4(udp.clone(), 12, &address)),
            Some(Fault::MalformedHeader),
            "{address:?}"
        );
    }
    for address in malformed {
        assert_eq!(
            fault(&with_ipv4(udp.clone(), 16, &address)),
            Some(Fault::MalformedHeader),
            "{address:?}"
        );
        assert_eq!(
            fault(&with_ipv4(udp.clone(), 12, &address)),
            Some(Fault::MalformedHeader),
            "{address:?}"
        );
    }
    for address in [
        [223, 255, 255, 255],
        [240, 0, 0, 1],
        [255, 255, 255, 254],
        [1, 0, 0, 0],
    ] {
        assert_eq!(fault(&with_ipv4(udp.clone(), 12, &address)), None, "{address:?}");
    }
    // A DHCP discover is broadcast first of all.
    let dhcp = with_ipv4(with_ipv4(udp, 12, &[0; 4]), 16, &[255; 4]);
    assert_eq!(fault(&dhcp), Some(Fault::UnsupportedProtocol));
}

#[test]
fn ipv6_addresses_that_are_not_one_host() {
    let set = |at: usize, address: &str| {
        let mut bytes = ipv6(17, &UDP6);
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        bytes[at..at + 16].copy_from_slice(&address.octets());
        fault(&bytes)
    };
    assert_eq!(set(24, "ff02::1"), Some(Fault::UnsupportedProtocol));
    assert_eq!(set(8, "ff02::1"), Some(Fault::MalformedHeader));
    for address in ["::", "::1", "::ffff:10.0.0.4"] {
        assert_eq!(set(8, address), Some(Fault::MalformedHeader), "{address}");
        assert_eq!(set(24, address), Some(Fault::MalformedHeader), "{address}");
    }
    assert_eq!(set(8, "fe80::1"), None);
}

/// Shows: NET-01.
#[test]
fn protocols_the_fabric_does_not_carry() {
    // IGMP, IP-in-IP, IPv6-in-IPv4, GRE, OSPF, SCTP, and ICMPv6 in the wrong family.
    for protocol in [2, 4, 41, 47, 89, 132, 58] {
        let bytes = with_ipv4(udp4(), 9, &[protocol]);
        assert_eq!(fault(&bytes), Some(Fault::UnsupportedProtocol), "IPv4 {protocol}");
    }
    for protocol in [1, 4, 41, 47, 59, 132, 135] {
        assert_eq!(
            fault(&ipv6(protocol, &UDP6)),
            Some(Fault::UnsupportedProtocol),
            "IPv6 {protocol}"
        );
    }
    for protocol in [50, 51] {
        let headers = parse(&with_ipv4(udp4(), 9, &[protocol])).unwrap();
        assert_eq!((headers.key.source_port, headers.key.destination_port), (0, 0));
    }
}

#[test]
fn ipv6_extension_headers_are_walked_within_bounds() {
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let chain = |count: usize| {
        let mut rest = Vec::new();
        for left in (0..count).rev() {
            rest.extend(options(if left == 0 { 17 } else { 60 }));
        }
        rest.extend(UDP6);
        rest
    };
    let headers = parse(&ipv6(60, &chain(8))).unwrap();
    assert_eq!(
        (headers.transport_offset, headers.key.destination_port),
        (40 + 64, 53)
    );
    assert_eq!(fault(&ipv6(60, &chain(9))), Some(Fault::MalformedHeader));

    let hop_by_hop_first = [&options(17)[..], &UDP6].concat();
    assert_eq!(fault(&ipv6(0, &hop_by_hop_first)), None);
    let hop_by_hop_later = [&options(0)[..], &options(17), &UDP6].concat();
    assert_eq!(fault(&ipv6(60, &hop_by_hop_later)), Some(Fault::MalformedHeader));
    let routing = |kind: u8| [&[17, 0, kind, 0, 0, 0, 0, 0][..], &UDP6].concat();
    assert_eq!(fault(&ipv6(43, &routing(0))), Some(Fault::MalformedHeader));
    assert_eq!(fault(&ipv6(43, &routing(2))), None);
    let too_long = [&[17, 9, 1, 4, 0, 0, 0, 0][..], &UDP6].concat();
    assert_eq!(fault(&ipv6(60, &too_long)), Some(Fault::MalformedHeader));
}

#[test]
fn icmp_errors_with_useless_quotes() {
    let error = |quote: &[u8]| {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 9, 9, 9], [10, 0, 0, 4], 64)
            .icmpv4_raw(3, 4, [0; 4])
            .write(&mut bytes, quote)
            .unwrap();
        fault(&bytes)
    };
    let udp = udp4();
    assert_eq!(error(&udp[..28]), None);
    assert_eq!(error(&udp[..27]), Some(Fault::MalformedHeader));
    assert_eq!(error(&[]), Some(Fault::MalformedHeader));
    assert_eq!(
        error(&with_ipv4(udp.clone(), 0, &[0x65])),
        Some(Fault::MalformedHeader)
    );
    assert_eq!(error(&with_ipv4(udp, 0, &[0x41])), Some(Fault::MalformedHeader));

    // A quoted IPv6 packet must not name the flow of an IPv4 one.
    let mut quote = ipv6(17, &UDP6);
    quote[8..24].copy_from_slice(&"::ffff:10.0.0.4".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let rest = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &quote].concat();
    assert_eq!(fault(&ipv6(58, &rest)), Some(Fault::MalformedHeader));
}
