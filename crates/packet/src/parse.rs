//! Checks lengths once and makes `Headers`; afterwards no accessor can fail.

use crate::key::{FlowKey, Protocol};

/// Why a packet could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A length, version or checksum of the IP or transport header is wrong.
    MalformedHeader,
    /// The vnet header contradicts the packet.
    MalformedVnetHeader,
    /// A protocol the fabric does not carry (NET-01): multicast, broadcast, IP-in-IP, GRE, ...
    UnsupportedProtocol,
}

/// Where a packet stands in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    /// Offset 0 with more to come; has the transport header.
    First {
        identification: u32,
    },
    /// A later one, without ports: `offset` in bytes.
    Later {
        identification: u32,
        offset: u16,
        last: bool,
    },
}

/// What the pipeline needs to know of a packet, read once.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    pub key: FlowKey,
    /// For an ICMP error: the flow of the packet it quotes, as that packet was sent.
    pub quoted: Option<FlowKey>,
    pub protocol: Protocol,
    pub fragment: Fragment,
    pub ipv6: bool,
    pub ttl: u8,
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16; zero for other protocols.
    pub tcp_flags: u8,
    /// From the first byte of the IP header.
    pub transport_offset: u16,
    /// IP packets this becomes on the wire: segments of a super-packet, else 1.
    pub wire_packets: u32,
    /// IP bytes of these, headers repeated.
    pub wire_bytes: u32,
}
