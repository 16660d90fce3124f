//! Which packets a capture wants: a part of the filter language of tcpdump (`man pcap-filter`), read once and asked per packet.
//!
//! Of a super-packet the headers are asked, which its segments share. IPv6 extension headers are looked through.

mod parse;

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of something that the lab has a name for; none where nothing has it.
pub(super) type Names<'a> = &'a dyn Fn(&str) -> Vec<IpAddr>;

/// A filter expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    root: Expression,
}

/// Why a filter is none, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter: {message}")]
pub(crate) struct FilterError {
    message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    V6(bool),
    Protocol(u8),
    Net(Ends, Vec<IpNet>),
    Port {
        ends: Ends,
        /// None: any that has ports.
        protocol: Option<u8>,
        range: (u16, u16),
    },
    /// `tcp[tcpflags] & mask`, and what that is to be (or not).
    Flags {
        mask: u8,
        value: u8,
        equal: bool,
    },
}

/// Which end of a packet is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Either,
    Both,
    Source,
    Destination,
}

/// What a filter can ask of a packet. It need not be one that the fabric carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Behind IPv6 extension headers.
    pub(crate) protocol: u8,
    /// Of TCP, UDP and SCTP, in the packet that has them.
    pub(crate) ports: Option<(u16, u16)>,
    tcp_flags: Option<u8>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

impl Filter {
    /// Reads an expression; `names` knows what hosts are called.
    ///
    /// # Errors
    /// It is not of the language, or of its part that is not known here.
    pub(crate) fn parse(text: &str, names: Names<'_>) -> Result<Self, FilterError> {
        parse::parse(text, names).map(|root| Self { root })
    }

    /// Whether a packet, from its IP header on, is one of those.
    pub(crate) fn matches(&self, packet: &[u8]) -> bool {
        self.root.holds(Seen::of(packet).as_ref())
    }
}

impl Expression {
    /// Of what has no IP header nothing holds but a `not`.
    fn holds(&self, seen: Option<&Seen>) -> bool {
        match self {
            Self::Not(inner) => !inner.holds(seen),
            Self::And(left, right) => left.holds(seen) && right.holds(seen),
            Self::Or(left, right) => left.holds(seen) || right.holds(seen),
            condition => seen.is_some_and(|seen| condition.holds_of(seen)),
        }
    }

    fn holds_of(&self, seen: &Seen) -> bool {
        match self {
            Self::Not(_) | Self::And(..) | Self::Or(..) => self.holds(Some(seen)),
            Self::V6(v6) => seen.source.is_ipv6() == *v6,
            Self::Protocol(protocol) => seen.protocol == *protocol,
            Self::Net(ends, nets) => {
                let within = |address: &IpAddr| nets.iter().any(|net| net.contains(address));
                ends.hold(within(&seen.source), within(&seen.destination))
            }
            Self::Port {
                ends,
                protocol,
                range: (low, high),
            } => {
                let of_protocol = protocol.is_none_or(|protocol| protocol == seen.protocol);
                let within = |port: u16| (*low..=*high).contains(&port);
                let held = |(source, destination)| ends.hold(within(source), within(destination));
                of_protocol && seen.ports.is_some_and(held)
            }
            Self::Flags { mask, value, equal } => seen
                .tcp_flags
                .is_some_and(|flags| (flags & mask == *value) == *equal),
        }
    }
}

impl Ends {
    fn hold(self, source: bool, destination: bool) -> bool {
        match self {
            Self::Either => source || destination,
            Self::Both => source && destination,
            Self::Source => source,
            Self::Destination => destination,
        }
    }
}

impl Seen {
    /// None: no IP header.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        let (source, destination, protocol, transport) = match packet.first()? >> 4 {
            4 => {
                let header = packet.first_chunk::<20>()?;
                let address =
                    |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
                let later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
                let transport = packet.get(usize::from(header[0] & 15) * 4..).filter(|_| !later);
                (address(12), address(16), header[9], transport)
            }
            6 => {
                let header = packet.first_chunk::<40>()?;
                let address = |at: usize| {
                    let mut address = [0; 16];
                    address.copy_from_slice(&header[at..at + 16]);
                    IpAddr::from(address)
                };
                let (protocol, transport) = behind_extensions(header[6], &packet[40..]);
                (address(8), address(24), protocol, transport)
            }
            _ => return None,
        };
        let transport = transport.unwrap_or_default();
        let ports = transport
            .first_chunk::<4>()
            .filter(|_| matches!(protocol, TCP | UDP | SCTP))
            .map(|ports| {
                (
                    u16::from_be_bytes([ports[0], ports[1]]),
                    u16::from_be_bytes([ports[2], ports[3]]),
                )
            });
        Some(Self {
            source,
            destination,
            protocol,
            ports,
            tcp_flags: transport.get(13).copied().filter(|_| protocol == TCP),
        })
    }
}

/// The protocol behind IPv6 extension headers, and its header where this packet has it.
fn behind_extensions(mut next: u8, mut rest: &[u8]) -> (u8, Option<&[u8]>) {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    loop {
        let length = match (next, rest) {
            (HOP_BY_HOP | ROUTING | DESTINATION, [_, length, ..]) => (usize::from(*length) + 1) * 8,
            (FRAGMENT, [following, _, high, low, ..]) => {
                if u16::from_be_bytes([*high, *low]) & 0xfff8 != 0 {
                    return (*following, None);
                }
                8
            }
            _ => return (next, Some(rest)),
        };
        let Some(behind) = rest.get(length..) else {
            return (next, None);
        };
        (next, rest) = (rest[0], behind);
    }
}

#[cfg(test)]
mod tests;
