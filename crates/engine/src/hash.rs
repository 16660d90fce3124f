//! A keyed hash of a flow: whoever does not know the seed cannot choose keys that collide.

use packet::{FlowKey, Protocol};

use crate::snapshot::PortId;

/// Folded multiplication: the 128-bit product of two words, its halves combined. Every operand is first combined
/// with a secret word, so no input can be chosen that makes a factor zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher {
    secrets: [u64; 6],
}

impl Hasher {
    pub(crate) fn new(seed: u64) -> Self {
        let secrets =
            std::array::from_fn(|at| spread(seed.wrapping_add((at as u64 + 1).wrapping_mul(GOLDEN))));
        Self { secrets }
    }

    #[inline]
    pub(crate) fn flow(&self, port: PortId, key: &FlowKey) -> u64 {
        let s = &self.secrets;
        let ports = u64::from(key.source_port) << 48 | u64::from(key.destination_port) << 32;
        let rest = ports | u64::from(port.0);
        let low = fold(low(key.source) ^ s[0], low(key.destination) ^ s[1]);
        let high = fold(high(key.source) ^ s[2], high(key.destination) ^ s[3]);
        fold(low ^ rest ^ s[4], high ^ u64::from(key.protocol.0) ^ s[5])
    }

    #[inline]
    pub(crate) fn words(&self, a: u64, b: u64) -> u64 {
        let first = fold(a ^ self.secrets[0], b ^ self.secrets[1]);
        fold(first ^ self.secrets[2], self.secrets[3])
    }
}

/// The step of splitmix64 between states: 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output of splitmix64 for a state: any two states give unrelated words.
pub(crate) const fn spread(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The same for both directions of a flow, and for everybody: what chooses among next hops that share a route. The
/// identifier of an ICMP echo is no port.
pub(crate) fn symmetric(key: &FlowKey) -> u64 {
    let ports = key.protocol == Protocol::TCP || key.protocol == Protocol::UDP;
    let end = |address: u128, port: u16| spread(spread(low(address)) ^ high(address) ^ u64::from(port) << 32);
    let port = |port: u16| if ports { port } else { 0 };
    let source = end(key.source, port(key.source_port));
    let destination = end(key.destination, port(key.destination_port));
    spread(source.wrapping_add(destination) ^ u64::from(key.protocol.0))
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    low(product) ^ high(product)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is asked for"
)]
#[inline]
const fn low(value: u128) -> u64 {
    value as u64
}

#[inline]
const fn high(value: u128) -> u64 {
    (value >> 64) as u64
}
