//! Cutting packets into fragments: whatever is cut can be put together again by the book.

use std::collections::BTreeMap;

use etherparse::Ipv4Header;
use packet::split::{fragments, wire};
use packet::{Packet, VnetHeader};
use proptest::prelude::*;

/// An IPv4 packet of ESP, which needs no checksum, with `options` (padded) and `data`.
fn ipv4(options: &[u8], data: &[u8], field: u16) -> Vec<u8> {
    let mut padded = options.to_vec();
    padded.resize(options.len().next_multiple_of(4), 0);
    let mut header = Ipv4Header::new(
        u16::try_from(data.len()).unwrap(),
        9,
        etherparse::IpNumber(50),
        [10, 0, 0, 4],
        [10, 0, 0, 5],
    )
    .unwrap();
    header.options = padded.as_slice().try_into().unwrap();
    header.identification = 0xbeef;
    let mut bytes = Vec::new();
    header.write(&mut bytes).unwrap();
    let length = u16::try_from(bytes.len() + data.len()).unwrap();
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes[6..8].copy_from_slice(&field.to_be_bytes());
    let sum = Ipv4Header::from_slice(&bytes).unwrap().0.calc_header_checksum();
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn cut(bytes: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let (mut packet, mut scratch) = (Packet::from_bytes(bytes), Packet::new());
    let mut pieces = Vec::new();
    fragments(&mut packet, mtu, &mut scratch, |piece| {
        assert_eq!(piece.vnet, VnetHeader::default());
        pieces.push(piece.bytes().to_vec());
        Ok::<(), ()>(())
    })
    .unwrap();
    assert_eq!(packet.bytes(), bytes);
    pieces
}

/// The bytes by offset, as RFC 791 puts them together, and whether the last came with more fragments to follow.
fn together(pieces: &[Vec<u8>]) -> (BTreeMap<usize, u8>, bool) {
    let (mut data, mut more_at_the_end) = (BTreeMap::new(), false);
    for piece in pieces {
        let (header, rest) = Ipv4Header::from_slice(piece).unwrap();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(usize::from(header.total_len), piece.len());
        assert_eq!((header.identification, header.time_to_live), (0xbeef, 9));
        let offset = usize::from(header.fragment_offset.byte_offset());
        for (at, &byte) in rest.iter().enumerate() {
            assert_eq!(data.insert(offset + at, byte), None, "overlap at {}", offset + at);
        }
        more_at_the_end = header.more_fragments;
    }
    (data, more_at_the_end)
}

#[test]
fn options_go_where_they_belong() {
    // Router alert (148) is copied, record route (7) is not, and a no-operation is left out of the copy.
    let options = [1, 7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0];
    let pieces = cut(&ipv4(&options, &[5; 1500], 0), 576);
    let lengths: Vec<usize> = pieces.iter().map(Vec::len).collect();
    // 576 - 32 = 544 = 68 * 8; 576 - 24 = 552 = 69 * 8.
    assert_eq!(lengths, [576, 576, 24 + 404]);
    assert_eq!(pieces[0][20..32], options);
    assert_eq!(pieces[1][20..24], [148, 4, 0, 0]);
    assert_eq!(pieces[2][20..24], [148, 4, 0, 0]);
}

#[test]
fn what_fits_or_is_no_ipv4_is_left_alone() {
    let small = ipv4(&[], &[5; 556], 0);
    assert_eq!(cut(&small, 576), [small]);
    let ipv6 = [&[0x60, 0, 0, 0, 8, 0, 59, 64][..], &[0; 32 + 2048]].concat();
    assert_eq!(cut(&ipv6, 576), [ipv6]);
}

#[test]
fn the_first_refusal_ends_the_matter() {
    let (mut packet, mut scratch) = (Packet::from_bytes(&ipv4(&[], &[5; 3000], 0)), Packet::new());
    let mut count = 0;
    let refused = fragments(&mut packet, 576, &mut scratch, |_| {
        count += 1;
        if count == 2 { Err("full") } else { Ok(()) }
    });
    assert_eq!((refused, count), (Err("full"), 2));
}

proptest! {
    #[test]
    fn fragments_come_together_again(
        options in proptest::collection::vec(any::<u8>(), 0..40), length in 1usize..20_000, mtu in 68u16..3000,
        again in 68u16..3000, offset in 0u16..1000, more in any::<bool>(),
    ) {
        // A fragment that is not the last is a multiple of eight bytes long.
        let length = if more { length.next_multiple_of(8) } else { length };
        let data: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
        let whole = ipv4(&options, &data, offset | if more { 0x2000 } else { 0 });
        let pieces = cut(&whole, mtu);
        let smaller: Vec<Vec<u8>> = pieces.iter().flat_map(|piece| cut(piece, again)).collect();
        for (pieces, mtu) in [(&pieces, mtu), (&smaller, mtu.min(again))] {
            let longest = pieces.iter().map(Vec::len).max().unwrap();
            prop_assert!(longest <= usize::from(mtu), "{longest} > {mtu}");
            let (found, left) = together(pieces);
            let expected: BTreeMap<usize, u8> = (usize::from(offset) * 8..).zip(data.iter().copied()).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(left, more);
        }
        if let Ok(headers) = packet::Headers::parse(&whole, &VnetHeader::default()) {
            let bytes: usize = pieces.iter().map(Vec::len).sum();
            let counted = wire(&Packet::from_bytes(&whole), &headers, mtu);
            prop_assert_eq!(counted, (u32::try_from(pieces.len()).unwrap(), u32::try_from(bytes).unwrap()));
        }
    }
}
