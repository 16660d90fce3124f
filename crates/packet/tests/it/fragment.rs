//! Fragments, and the attacks made of them.

use etherparse::PacketBuilder;
use packet::{Fault, Fragment};

use crate::hostile::{UDP6, fault, ipv6, parse, tcp4, with_ipv4};

#[test]
fn ipv4_fragments() {
    let fragment = |field: u16| parse(&with_ipv4(tcp4(), 6, &field.to_be_bytes()));
    // 52 bytes of transport are no multiple of 8, so this can only be the last one.
    assert_eq!(fragment(0x2000).unwrap_err(), Fault::MalformedHeader);
    assert_eq!(fragment(0x2003).unwrap_err(), Fault::MalformedHeader);
    let later = fragment(0x0003).unwrap();
    assert!(matches!(
        later.fragment,
        Fragment::Later {
            offset: 24,
            last: true,
            ..
        }
    ));
    assert_eq!(
        (later.key.source_port, later.key.destination_port, later.tcp_flags),
        (0, 0, 0)
    );
    // RFC 1858: a fragment that would overwrite the TCP header; 65,528 + 52 bytes: the ping of death.
    assert_eq!(fragment(0x0001).unwrap_err(), Fault::MalformedHeader);
    assert_eq!(fragment(0x0002).unwrap_err(), Fault::MalformedHeader);
    assert_eq!(fragment(0x1fff).unwrap_err(), Fault::MalformedHeader);

    let first = |length: u16| {
        let bytes = with_ipv4(tcp4(), 2, &(20 + length).to_be_bytes());
        parse(&with_ipv4(bytes, 6, &[0x20, 0]))
    };
    assert!(matches!(first(24).unwrap().fragment, Fragment::First { .. }));
    assert_eq!(first(24).unwrap().key.destination_port, 80);
    // RFC 1858: a first fragment too small for its transport header.
    assert_eq!(first(16).unwrap_err(), Fault::MalformedHeader);
    assert_eq!(first(0).unwrap_err(), Fault::MalformedHeader);
}

#[test]
fn ipv6_fragments() {
    let fragment = |field: u16, data: &[u8]| {
        let mut rest = vec![17, 0];
        rest.extend(field.to_be_bytes());
        rest.extend(0xdead_beef_u32.to_be_bytes());
        rest.extend(data);
        parse(&ipv6(44, &rest))
    };
    let first = fragment(1, &UDP6).unwrap();
    assert_eq!(
        first.fragment,
        Fragment::First {
            identification: 0xdead_beef
        }
    );
    assert_eq!(first.key.destination_port, 53);
    let later = fragment(16, &[1, 2, 3]).unwrap();
    assert_eq!(
        later.fragment,
        Fragment::Later {
            identification: 0xdead_beef,
            offset: 16,
            last: true
        }
    );
    assert_eq!(later.key.destination_port, 0);
    assert_eq!(
        fragment(0, &UDP6).unwrap().fragment,
        Fragment::Whole,
        "atomic, RFC 6946"
    );
    assert_eq!(fragment(16, &[]).unwrap_err(), Fault::MalformedHeader);
    assert_eq!(fragment(17, &[1, 2, 3]).unwrap_err(), Fault::MalformedHeader);
    assert_eq!(fragment(1, &[]).unwrap_err(), Fault::MalformedHeader);
    let twice = [&[44, 0, 0, 0, 0, 0, 0, 1][..], &[17, 0, 0, 0, 0, 0, 0, 2], &UDP6].concat();
    assert_eq!(fault(&ipv6(44, &twice)), Some(Fault::MalformedHeader));
}

#[test]
fn what_follows_a_later_ipv6_fragment_header_is_data() {
    // The fragmentable part began with destination options, which only the first fragment shows.
    let later = [&[60, 0, 0, 16, 0, 0, 0, 1][..], &[255, 255, 255]].concat();
    let headers = parse(&ipv6(44, &later)).unwrap();
    assert_eq!((headers.transport_offset, headers.key.protocol.0), (48, 60));
    let gre = [&[47, 0, 0, 16, 0, 0, 0, 1][..], &[1, 2, 3]].concat();
    assert_eq!(fault(&ipv6(44, &gre)), Some(Fault::UnsupportedProtocol));
}

#[test]
fn an_icmp_error_about_a_later_fragment_names_no_ports() {
    let quote = with_ipv4(tcp4(), 6, &[0, 3]);
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([10, 9, 9, 9], [10, 0, 0, 4], 64)
        .icmpv4_raw(11, 1, [0; 4])
        .write(&mut bytes, &quote[..28])
        .unwrap();
    let quoted = parse(&bytes).unwrap().quoted.unwrap();
    assert_eq!((quoted.source_port, quoted.destination_port), (0, 0));

    let later = ipv6(44, &[17, 0, 0, 16, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &later].concat();
    let quoted = parse(&ipv6(58, &error)).unwrap().quoted.unwrap();
    assert_eq!((quoted.source_port, quoted.destination_port), (0, 0));
}
