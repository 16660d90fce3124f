//! The Internet checksum: ones-complement sums and their incremental update (RFC 1071, RFC 1624 equation 3).

/// The ones-complement sum of `bytes` on top of `start`, not yet folded to 16 bits nor complemented.
/// An odd last byte counts as if a zero followed. At most 64 KiB of bytes, so 64 bits cannot overflow.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8], start: u64) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let mut total = start;
    for chunk in chunks {
        total += u64::from(u32::from_be_bytes(*chunk));
    }
    let (pairs, odd) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_be_bytes(*pair));
    }
    if let [last] = odd {
        total += u64::from(*last) << 8;
    }
    total
}

/// Folds a sum to 16 bits with end-around carry. The fold of a sum is zero only if every term was.
#[inline]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The checksum field for a sum.
#[inline]
#[must_use]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The sum of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1): addresses, length of the transport packet, protocol.
#[inline]
#[must_use]
pub fn pseudo_header(addresses: &[u8], transport_length: u32, protocol: u8) -> u64 {
    sum(addresses, u64::from(transport_length) + u64::from(protocol))
}

/// What replacing a 16-bit `old` by `new` adds to a sum: `~m + m'` of RFC 1624.
#[inline]
#[must_use]
pub const fn change16(old: u16, new: u16) -> u64 {
    !old as u64 + new as u64
}

/// [`change16`] for a 32-bit field that starts at an even offset.
#[inline]
#[must_use]
pub const fn change32(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// [`change16`] for a 128-bit field that starts at an even offset.
#[inline]
#[must_use]
pub const fn change128(old: u128, new: u128) -> u64 {
    sum128(!old) + sum128(new)
}

/// A complete checksum field after a change: `HC' = ~(~HC + ~m + m')`.
/// Never 0xFFFF unless it was, so it equals a recomputed field bit for bit.
#[inline]
#[must_use]
pub const fn update(field: u16, change: u64) -> u16 {
    finish(!field as u64 + change)
}

/// A partial checksum field (the pseudo-header's sum, not complemented) after a change.
#[inline]
#[must_use]
pub const fn update_partial(field: u16, change: u64) -> u16 {
    fold(field as u64 + change)
}

const fn sum128(value: u128) -> u64 {
    let (high, low) = ((value >> 64) as u64, value as u64);
    (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 as written: 16-bit words, one at a time.
    fn slow_sum(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: HC 0xDD2F, m 0x5555 -> m' 0x3285 gives 0x0000, where RFC 1141 gave 0xFFFF.
        assert_eq!(update(0xdd2f, change16(0x5555, 0x3285)), 0x0000);
    }

    #[test]
    fn every_16_bit_change_of_the_corner_values_equals_a_recomputation() {
        // All of old and new for fields that end near the two zeros.
        for other in [1u16, 0x8000, 0xfffe, 0xffff] {
            for old in (0..=0xffffu16).step_by(251).chain([0xfffe, 0xffff]) {
                for new in (0..=0xffffu16).step_by(257).chain([0xfffe, 0xffff]) {
                    let before = finish(u64::from(other) + u64::from(old));
                    let after = finish(u64::from(other) + u64::from(new));
                    assert_eq!(
                        update(before, change16(old, new)),
                        after,
                        "{other:x} {old:x} {new:x}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn sum_equals_the_slow_one(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(fold(sum(&bytes, 0)), slow_sum(&bytes));
        }

        #[test]
        fn updates_equal_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 40..200), new in any::<u128>(), at in 0usize..12
        ) {
            bytes[0] = 0x45; // a sum of zeros has two representations; no IP packet is all zeros
            let at = 2 * at + 2;
            let before = finish(sum(&bytes, 0));
            let partial = fold(sum(&bytes, 0));
            let old = u128::from_be_bytes(bytes[at..at + 16].try_into().unwrap());
            bytes[at..at + 16].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, change128(old, new)), finish(sum(&bytes, 0)));
            prop_assert_eq!(update_partial(partial, change128(old, new)), fold(sum(&bytes, 0)));
            let (old32, new32) = (new as u32, !(new as u32).rotate_left(7));
            bytes[at + 12..at + 16].copy_from_slice(&new32.to_be_bytes());
            prop_assert_eq!(
                update(update(before, change128(old, new)), change32(old32, new32)), finish(sum(&bytes, 0)));
        }
    }
}
