//! The MSS of a SYN, lowered in place.

use packet::edit::clamp_mss;
use packet::{Packet, VnetHeader};
use proptest::prelude::*;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// IPv4 and TCP with these options, padded, and a right checksum.
fn tcp(options: &[u8], flags: u8) -> Vec<u8> {
    let mut padded = options.to_vec();
    padded.resize(options.len().next_multiple_of(4), 0);
    let mut header = etherparse::TcpHeader::new(1, 2, 3, 4);
    header.set_options_raw(&padded).unwrap();
    (header.syn, header.ack) = (flags & SYN != 0, flags & ACK != 0);
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 0, 0, 4], [10, 0, 0, 5], 64)
        .tcp_header(header)
        .write(&mut bytes, b"data")
        .unwrap();
    bytes
}

fn clamped(bytes: &[u8], most: u16) -> Vec<u8> {
    let mut packet = Packet::from_bytes(bytes);
    let headers = packet.parse().unwrap();
    clamp_mss(&mut packet, &headers, most);
    packet.bytes().to_vec()
}

#[test]
fn it_is_lowered_where_it_stands() {
    // Linux's order, with the value at an even offset; one no-operation more, at an odd one.
    for lead in [
        &[][..],
        &[1],
        &[1, 1, 1],
        &[4, 2],
        &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1],
    ] {
        let options = |mss: u16| [lead, &[2, 4], &mss.to_be_bytes(), &[3, 3, 7]].concat();
        for flags in [SYN, SYN | ACK] {
            let expected = tcp(&options(1350), flags);
            assert_eq!(clamped(&tcp(&options(1460), flags), 1350), expected, "{lead:?}");
            let less = tcp(&options(1349), flags);
            assert_eq!(clamped(&less, 1350), less);
        }
        let established = tcp(&options(1460), ACK);
        assert_eq!(clamped(&established, 1350), established);
    }
}

#[test]
fn a_partial_checksum_stays() {
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CHECKSUM,
        checksum_start: 20,
        checksum_offset: 16,
        ..VnetHeader::default()
    };
    let bytes = tcp(&[2, 4, 5, 0xb4], SYN);
    let mut packet = Packet::from_bytes(&bytes);
    packet.vnet = vnet;
    let headers = packet.parse().unwrap();
    clamp_mss(&mut packet, &headers, 1350);
    let lowered = [&bytes[..42], &1350u16.to_be_bytes(), &bytes[44..]].concat();
    assert_eq!(packet.bytes(), lowered);
}

proptest! {
    #[test]
    fn whatever_the_options_nothing_else_changes(options in proptest::collection::vec(any::<u8>(), 0..40), most in 0u16..3000) {
        let before = tcp(&options, SYN);
        let after = clamped(&before, most);
        let differing = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        prop_assert!(before.len() == after.len() && differing <= 4, "two bytes of MSS, two of checksum");
        let sliced = etherparse::SlicedPacket::from_ip(&after).unwrap();
        let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Tcp(tcp))) = (sliced.net, sliced.transport)
        else {
            return Err(TestCaseError::fail("no longer TCP"));
        };
        let (source, destination) = (ip.header().source(), ip.header().destination());
        prop_assert_eq!(tcp.calc_checksum_ipv4(source, destination).unwrap(), tcp.checksum());
    }
}
