//! Address ranges: what may be one, which of several overlap, and which addresses are reserved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// VNET-02, and the IPv6 ranges that are no unicast addresses of a network, or stand for IPv4 ones.
const FORBIDDEN: &[IpNet] = &[
    v4([224, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([168, 63, 129, 16], 32),
    v6([0, 0], 8),
    v6([0xfe80, 0], 10),
    v6([0xff00, 0], 8),
];

/// Addresses that the Internet does not route.
const PRIVATE: &[IpNet] = &[
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([240, 0, 0, 0], 4),
    v6([0xfc00, 0], 7),
];

/// VNET-03: network, gateway and two for DNS mapping.
const RESERVED_FIRST: u128 = 4;

const fn v4(address: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = address;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(head: [u16; 2], length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(head[0], head[1], 0, 0, 0, 0, 0, 0),
        length,
    ))
}

fn overlap(left: IpNet, right: IpNet) -> bool {
    left.contains(&right) || right.contains(&left)
}

/// VNET-02: the range that a VNet may not touch.
pub(crate) fn forbidden(net: IpNet) -> Option<IpNet> {
    FORBIDDEN.iter().copied().find(|taken| overlap(net, *taken))
}

/// An address that can stand for a host of the Internet.
pub(crate) fn public(address: IpAddr) -> bool {
    FORBIDDEN.iter().chain(PRIVATE).all(|net| !net.contains(&address))
}

/// Ranges with the index of their owner, in the order in which an enclosing range comes before what it holds.
pub(crate) struct Sorted(Vec<(IpNet, usize)>);

impl Sorted {
    pub(crate) fn new(mut ranges: Vec<(IpNet, usize)>) -> Self {
        ranges.sort_by_key(|(net, owner)| (net.addr(), net.prefix_len(), *owner));
        Self(ranges)
    }

    /// Calls `found` for every range with each range before it that overlaps it. Prefixes overlap only
    /// by one holding the other, so the ranges around the present one are a stack.
    pub(crate) fn overlaps(&self, mut found: impl FnMut((IpNet, usize), (IpNet, usize))) {
        let mut around: Vec<(IpNet, usize)> = Vec::new();
        for &range in &self.0 {
            while around.last().is_some_and(|(net, _)| !net.contains(&range.0)) {
                around.pop();
            }
            for &outer in &around {
                found(outer, range);
            }
            around.push(range);
        }
    }

    /// Like `overlaps`, but only the nearest enclosing range: linear whatever the input.
    pub(crate) fn nearest_overlaps(&self, mut found: impl FnMut((IpNet, usize), (IpNet, usize))) {
        let mut around: Vec<(IpNet, usize)> = Vec::new();
        for &range in &self.0 {
            while around.last().is_some_and(|(net, _)| !net.contains(&range.0)) {
                around.pop();
            }
            if let Some(&outer) = around.last() {
                found(outer, range);
            }
            around.push(range);
        }
    }

    /// Some range that holds all of `net`, where the ranges do not overlap each other.
    pub(crate) fn holds(&self, net: IpNet) -> bool {
        let after = self.0.partition_point(|(range, _)| {
            (range.addr(), range.prefix_len()) <= (net.addr(), net.prefix_len())
        });
        after
            .checked_sub(1)
            .is_some_and(|before| self.0[before].0.contains(&net))
    }
}

/// VNET-03: the addresses of a subnet that NICs may have, as numbers, both ends included; None: none.
pub(crate) fn usable(subnet: IpNet) -> Option<(u128, u128)> {
    let (first, last) = match subnet {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            (
                u128::from(first) + RESERVED_FIRST,
                u128::from(last).checked_sub(1)?,
            )
        }
        IpNet::V6(net) => (
            net.network().to_bits().checked_add(RESERVED_FIRST)?,
            net.broadcast().to_bits(),
        ),
    };
    (first <= last).then_some((first, last))
}

pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of a number in the family of `subnet`.
pub(crate) fn address(number: u128, subnet: IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}
