//! Packets and the bursts that carry them from a port through the pipeline and out again.

use crate::vnet_header::VnetHeader;

/// Bytes kept free before the packet for the vnet header, so that one `read` or `write` moves both.
pub const HEADROOM: usize = 64;
/// The largest IP packet a TUN delivers: 65,535 bytes of IPv4, or an IPv6 payload of 65,535 and its header.
pub const CAPACITY: usize = 65_535 + 40;

/// One packet as read from a port: the IP header is the first byte of [`Packet::bytes`].
/// A super-packet (GSO) is one `Packet`; its vnet header says how it divides into wire segments.
#[derive(Debug)]
pub struct Packet {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) length: usize,
    pub vnet: VnetHeader,
}

/// A fixed set of packets that is filled, processed and written as one; allocated once and reused.
#[derive(Debug)]
pub struct Burst {
    pub packets: Vec<Packet>,
    /// How many of `packets`, from the first, are filled.
    pub length: usize,
}
