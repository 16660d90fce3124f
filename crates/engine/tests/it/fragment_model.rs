//! The table of fragments beside a slow one that is obviously right: every fragment of every order, length and number.

use std::collections::HashMap;

use engine::snapshot::NicId;
use engine::{DropReason, Verdict};
use proptest::prelude::*;

use crate::support::*;

/// Denied at OTHER.
const CLOSED_PORT: u16 = 81;

#[derive(Clone, Copy, Debug)]
struct Piece {
    from_p1: bool,
    ipv6: bool,
    identification: u8,
    /// In units of eight bytes.
    offset: u16,
    units: u16,
    more: bool,
    port: u16,
    wait_s: u64,
}

impl Piece {
    fn bytes(self) -> Vec<u8> {
        let source = if self.from_p1 { P1_IP } else { WEB_IP };
        let data = vec![0; usize::from(self.units) * 8 - 8];
        // The bytes of a later fragment look like a UDP header too, and must not be taken for one.
        let whole = if self.ipv6 {
            udp_with(&v6(source), &v6(OTHER_IP), (9, self.port), &data)
        } else {
            udp_with(source, OTHER_IP, (9, self.port), &data)
        };
        fragment(&whole, self.offset * 8, self.more, self.identification.into())
    }
}

/// What is known of a datagram: everything, for ever.
struct Known {
    end: u16,
    since_ns: u64,
    fate: Verdict,
}

/// All datagrams by sender, family and number.
#[derive(Default)]
struct Model {
    known: HashMap<(bool, bool, u8), Known>,
}

impl Model {
    fn verdict(&mut self, piece: Piece, now_ns: u64) -> Verdict {
        let name = (piece.from_p1, piece.ipv6, piece.identification);
        let known = self
            .known
            .remove(&name)
            .filter(|known| now_ns - known.since_ns <= 30 * SECOND);
        let fate = if piece.port == CLOSED_PORT {
            Verdict::Drop(DropReason::NsgInbound)
        } else {
            to(OTHER)
        };
        let first = piece.offset == 0;
        let (since_ns, fate) = match (first, known) {
            (true, None) => (now_ns, fate),
            (true, Some(_)) if piece.ipv6 => return Verdict::Drop(DropReason::FragmentOutOfOrder),
            (true, Some(_)) => (now_ns, fate),
            (false, None) => return Verdict::Drop(DropReason::FragmentOrphan),
            (false, Some(known)) if known.end != piece.offset => {
                return Verdict::Drop(DropReason::FragmentOutOfOrder);
            }
            (false, Some(known)) => (known.since_ns, known.fate),
        };
        if piece.more {
            let end = piece.offset + piece.units;
            self.known.insert(name, Known { end, since_ns, fate });
        }
        fate
    }
}

fn pieces() -> impl Strategy<Value = Piece> {
    let place = prop_oneof![Just((0, true)), (0u16..6, any::<bool>())];
    (
        any::<bool>(),
        any::<bool>(),
        0u8..3,
        place,
        1u16..3,
        prop_oneof![Just(80), Just(CLOSED_PORT)],
        prop_oneof![9 => Just(0), 1 => 1u64..40],
    )
        .prop_map(
            |(from_p1, ipv6, identification, (offset, more), units, port, wait_s)| Piece {
                from_p1,
                ipv6,
                identification,
                offset,
                units,
                // Offset 0 without more to come is no fragment (RFC 6946).
                more: more || offset == 0,
                port,
                wait_s,
            },
        )
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    let open = lab.filter(vec![
        rule(engine::filter::Access::Deny, None, Some(CLOSED_PORT)),
        rule(engine::filter::Access::Allow, None, None),
    ]);
    lab.nic(OTHER).inbound[0] = open;
    lab
}

fn sender(piece: Piece) -> NicId {
    if piece.from_p1 { P1 } else { WEB }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Shows: NET-04.
    #[test]
    fn every_fragment_is_decided_as_the_slow_table_does(all in proptest::collection::vec(pieces(), 1..60)) {
        let (mut lab, mut model) = (lab(), Model::default());
        for (at, &piece) in all.iter().enumerate() {
            lab.pass(piece.wait_s);
            let expected = model.verdict(piece, lab.now_ns);
            prop_assert_eq!(lab.send(sender(piece), &piece.bytes()), expected, "at {} of {:?}", at, all);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Where the table forgets, it may only drop.
    #[test]
    fn a_full_table_lets_nothing_pass_that_a_boundless_one_would_not(
        all in proptest::collection::vec((pieces(), 0u16..1500), 6000),
    ) {
        let (mut lab, mut known) = (lab(), HashMap::new());
        let (mut passed, mut forgotten) = (0, 0);
        for (piece, identification) in all {
            let piece = Piece { ipv6: false, identification: 0, wait_s: 0, ..piece };
            let bytes = with_identification(piece.bytes(), identification);
            let model: &mut Model = known.entry((piece.from_p1, identification)).or_default();
            let expected = model.verdict(piece, lab.now_ns);
            let verdict = lab.send(sender(piece), &bytes);
            if verdict == to(OTHER) {
                prop_assert_eq!(expected, verdict);
                passed += 1;
            } else if expected != verdict {
                // From now on nothing of this datagram is known to either.
                *model = Model::default();
                forgotten += 1;
            }
        }
        prop_assert!(passed > 100 && forgotten > 10, "{passed} passed, {forgotten} forgotten");
    }
}

fn with_identification(mut bytes: Vec<u8>, identification: u16) -> Vec<u8> {
    bytes[4..6].copy_from_slice(&identification.to_be_bytes());
    renew_checksum(&mut bytes);
    bytes
}
