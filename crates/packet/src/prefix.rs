//! An address prefix over the 128-bit form of addresses.

use std::net::IpAddr;

use crate::key::{mapped, unmapped};

/// A prefix of either family. An IPv4 prefix of length n is held as the mapped prefix of length 96 + n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    bits: u128,
    length: u8,
}

impl Prefix {
    /// `length` counts in the family of `address`: at most 32 for IPv4, 128 for IPv6. Host bits are cleared.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        let length = match address {
            IpAddr::V4(_) => 96 + length.min(32),
            IpAddr::V6(_) => length.min(128),
        };
        Self {
            bits: mapped(address) & mask(length),
            length,
        }
    }

    #[must_use]
    pub const fn first(self) -> u128 {
        self.bits
    }

    #[must_use]
    pub fn last(self) -> u128 {
        self.bits | !mask(self.length)
    }

    #[must_use]
    pub fn contains(self, address: u128) -> bool {
        address & mask(self.length) == self.bits
    }

    /// Length in the 128-bit form: 96 + n for IPv4.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    #[must_use]
    pub fn address(self) -> IpAddr {
        unmapped(self.bits)
    }
}

const fn mask(length: u8) -> u128 {
    if length == 0 {
        0
    } else {
        u128::MAX << (128 - length)
    }
}
