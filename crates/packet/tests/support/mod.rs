//! Valid packets at random, and a second opinion on checksums: both made by etherparse.

use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket,
    TcpHeader, TransportSlice,
};
use packet::{Headers, Packet, VnetHeader, checksum};
use proptest::prelude::*;

/// A packet and what went into it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ipv6: bool,
    pub(crate) kind: Kind,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    UdpWithoutChecksum,
    Echo,
}

/// Packets of at most `payload` bytes payload, with IPv4 and TCP options of all lengths.
pub(crate) fn packets(payload: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Sample> {
    let kind = prop_oneof![
        Just(Kind::Tcp),
        Just(Kind::Udp),
        Just(Kind::UdpWithoutChecksum),
        Just(Kind::Echo)
    ];
    let addresses = any::<[[u8; 15]; 2]>();
    let headers = (
        kind,
        any::<bool>(),
        addresses,
        any::<[u16; 3]>(),
        any::<u32>(),
        any::<u8>(),
    );
    let options = (0usize..=10, 0usize..=10);
    (headers, options, proptest::collection::vec(any::<u8>(), payload)).prop_map(
        |((kind, ipv6, addresses, numbers, sequence, flags), (ip_options, tcp_options), payload)| {
            let headers = ip_headers(ipv6, addresses, numbers[2], ip_options);
            let builder = PacketBuilder::ip(headers);
            let [source_port, destination_port, _] = numbers;
            let mut bytes = Vec::new();
            match kind {
                Kind::Tcp => {
                    let mut tcp = TcpHeader::new(source_port, destination_port, sequence, 4096);
                    tcp.set_options_raw(&[1; 40][..tcp_options * 4]).unwrap();
                    (tcp.fin, tcp.psh, tcp.cwr) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
                    tcp.ack = true;
                    builder.tcp_header(tcp).write(&mut bytes, &payload)
                }
                Kind::Udp | Kind::UdpWithoutChecksum => builder
                    .udp(source_port, destination_port)
                    .write(&mut bytes, &payload),
                Kind::Echo if ipv6 => builder
                    .icmpv6_echo_request(source_port, 7)
                    .write(&mut bytes, &payload),
                Kind::Echo => builder
                    .icmpv4_echo_request(source_port, 7)
                    .write(&mut bytes, &payload),
            }
            .unwrap();
            if kind == Kind::UdpWithoutChecksum {
                let checksum = bytes.len() - payload.len() - 2;
                bytes[checksum..checksum + 2].fill(0);
            }
            Sample {
                bytes,
                ipv6,
                kind,

                payload,
            }
        },
    )
}

fn ip_headers(
    ipv6: bool,
    [source, destination]: [[u8; 15]; 2],
    identification: u16,
    options: usize,
) -> IpHeaders {
    if ipv6 {
        let unique_local = |host: [u8; 15]| {
            let mut address = [0xfd; 16];
            address[1..].copy_from_slice(&host);
            address
        };
        let header = Ipv6Header {
            hop_limit: 64,
            source: unique_local(source),
            destination: unique_local(destination),
            ..Ipv6Header::default()
        };
        return IpHeaders::Ipv6(header, Default::default());
    }
    let private = |host: [u8; 15]| [10, host[0], host[1], host[2]];
    let mut header = Ipv4Header::new(0, 64, IpNumber::TCP, private(source), private(destination)).unwrap();
    header.identification = identification;
    header.options = Ipv4Options::try_from(&[1; 40][..options * 4]).unwrap();
    IpHeaders::Ipv4(header, Default::default())
}

/// Replaces the complete checksum by the pseudo-header's sum, as a kernel with checksum offload leaves it.
pub(crate) fn make_partial(packet: &mut Packet, headers: &Headers) {
    let transport = usize::from(headers.transport_offset);
    let at = headers.transport_checksum_offset().unwrap();
    let bytes = packet.bytes_mut();
    let partial = pseudo_header(bytes, headers);
    bytes[at..at + 2].copy_from_slice(&partial.to_be_bytes());
    packet.vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CHECKSUM,
        checksum_start: headers.transport_offset,
        checksum_offset: (at - transport) as u16,
        ..VnetHeader::default()
    };
}

fn pseudo_header(bytes: &[u8], headers: &Headers) -> u16 {
    let addresses = if headers.ipv6 {
        &bytes[8..40]
    } else {
        &bytes[12..20]
    };
    let length = bytes.len() as u32 - u32::from(headers.transport_offset);
    checksum::fold(checksum::pseudo_header(addresses, length, headers.protocol.0))
}

/// Panics unless etherparse can read the packet and computes the very checksums that stand in it.
pub(crate) fn assert_checksums(bytes: &[u8]) {
    let packet = SlicedPacket::from_ip(bytes).unwrap();
    let net = packet.net.unwrap();
    let (source, destination) = match &net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let pair = (header.source.to_vec(), header.destination.to_vec());
            assert_eq!(usize::from(header.total_len), bytes.len());
            pair
        }
        NetSlice::Ipv6(ip) => {
            assert_eq!(usize::from(ip.header().payload_length()) + 40, bytes.len());
            (ip.header().source().to_vec(), ip.header().destination().to_vec())
        }
        NetSlice::Arp(_) => unreachable!("ARP is not IP"),
    };
    let v4 = |address: &[u8]| <[u8; 4]>::try_from(address);
    let v6 = |address: &[u8]| <[u8; 16]>::try_from(address).unwrap();
    match packet.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            let expected = match (v4(&source), v4(&destination)) {
                (Ok(source), Ok(destination)) => tcp.calc_checksum_ipv4(source, destination),
                _ => tcp.calc_checksum_ipv6(v6(&source), v6(&destination)),
            };
            assert_eq!(tcp.checksum(), expected.unwrap());
        }
        TransportSlice::Udp(udp) if udp.checksum() == 0 => {}
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let expected = match (v4(&source), v4(&destination)) {
                (Ok(source), Ok(destination)) => {
                    header.calc_checksum_ipv4_raw(source, destination, udp.payload())
                }
                _ => header.calc_checksum_ipv6_raw(v6(&source), v6(&destination), udp.payload()),
            };
            assert_eq!(udp.checksum(), expected.unwrap());
        }
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
        }
        TransportSlice::Icmpv6(icmp) => assert!(icmp.is_checksum_valid(v6(&source), v6(&destination))),
        TransportSlice::Igmp(_) => unreachable!("never made here"),
    }
}
