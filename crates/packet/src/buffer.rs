//! Packets and the bursts that carry them from a port through the pipeline and out again.

use crate::parse::{Fault, Headers};
use crate::vnet_header::{self, VnetHeader};

/// Bytes kept free before the packet for the vnet header, so that one `read` or `write` moves both.
pub const HEADROOM: usize = 64;
/// The largest IP packet a TUN delivers: 65,535 bytes of IPv4, or an IPv6 payload of 65,535 and its header.
pub const CAPACITY: usize = 65_535 + 40;

/// One packet as read from a port: the IP header is the first byte of [`Packet::bytes`].
/// A super-packet (GSO) is one `Packet`; its vnet header says how it divides into wire segments.
///
/// A packet is a box and a few words: `std::mem::swap` moves it out of a burst without copying its bytes.
#[derive(Debug)]
pub struct Packet {
    buffer: Box<[u8]>,
    length: usize,
    pub vnet: VnetHeader,
}

/// A fixed set of packets that is filled, processed and written as one; allocated once and reused.
#[derive(Debug)]
pub struct Burst {
    pub packets: Vec<Packet>,
    /// How many of `packets`, from the first, are filled.
    pub length: usize,
}

impl Packet {
    /// An empty packet; the only place that allocates.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: vec![0; HEADROOM + CAPACITY].into_boxed_slice(),
            length: 0,
            vnet: VnetHeader::default(),
        }
    }

    /// A packet with a copy of `bytes`, cut at [`CAPACITY`], and no offloads.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut packet = Self::new();
        packet.copy_from(bytes, VnetHeader::default());
        packet
    }

    /// Makes this a copy of `bytes`, cut at [`CAPACITY`].
    pub fn copy_from(&mut self, bytes: &[u8], vnet: VnetHeader) {
        let length = bytes.len().min(CAPACITY);
        self.buffer[HEADROOM..HEADROOM + length].copy_from_slice(&bytes[..length]);
        self.length = length;
        self.vnet = vnet;
    }

    /// The IP packet.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[HEADROOM..HEADROOM + self.length]
    }

    #[inline]
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[HEADROOM..HEADROOM + self.length]
    }

    /// All [`CAPACITY`] bytes from the IP header on, for a port without vnet headers to read into.
    /// What is there stays in place until [`Packet::set_length`] says how much of it is a packet.
    #[inline]
    #[must_use]
    pub fn space_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[HEADROOM..]
    }

    /// [`Packet::space_mut`] preceded by the place of the vnet header; [`Packet::set_framed_length`] ends the filling.
    #[inline]
    #[must_use]
    pub fn framed_space_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[HEADROOM - vnet_header::LENGTH..]
    }

    /// Sets the length of the IP packet, at most [`CAPACITY`]; the vnet header stays as it is.
    #[inline]
    pub fn set_length(&mut self, length: usize) {
        self.length = length.min(CAPACITY);
    }

    /// Takes over `length` bytes read into [`Packet::framed_space_mut`]: the vnet header is decoded from the first ten.
    /// Fewer than that leave an empty packet, which no parser accepts.
    #[inline]
    pub fn set_framed_length(&mut self, length: usize) {
        let mut header = [0; vnet_header::LENGTH];
        header.copy_from_slice(&self.buffer[HEADROOM - vnet_header::LENGTH..HEADROOM]);
        self.vnet = VnetHeader::from_bytes(header);
        self.set_length(length.saturating_sub(vnet_header::LENGTH));
    }

    /// The vnet header, as it is now, and the IP packet: what one `write` hands to a TUN.
    #[inline]
    #[must_use]
    pub fn framed(&mut self) -> &[u8] {
        let header = self.vnet.to_bytes();
        self.buffer[HEADROOM - vnet_header::LENGTH..HEADROOM].copy_from_slice(&header);
        &self.buffer[HEADROOM - vnet_header::LENGTH..HEADROOM + self.length]
    }

    /// [`Headers::parse`], and cuts what follows the IP packet: padding travels no further.
    ///
    /// # Errors
    /// As [`Headers::parse`]; the packet is unchanged then.
    #[inline]
    pub fn parse(&mut self) -> Result<Headers, Fault> {
        let headers = Headers::parse(self.bytes(), &self.vnet);
        if let Ok(headers) = &headers {
            self.length = headers.length as usize;
        }
        headers
    }
}

impl Default for Packet {
    fn default() -> Self {
        Self::new()
    }
}

/// Copies the packet, not the whole buffer.
impl Clone for Packet {
    fn clone(&self) -> Self {
        let mut packet = Self::new();
        packet.copy_from(self.bytes(), self.vnet);
        packet
    }
}

impl Burst {
    /// Room for `capacity` packets, allocated here and never again.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            packets: (0..capacity).map(|_| Packet::new()).collect(),
            length: 0,
        }
    }

    #[must_use]
    pub fn capacity(&self) -> usize {
        self.packets.len()
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.length >= self.packets.len()
    }

    /// Forgets the filled packets; their buffers are reused.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// The filled packets.
    #[must_use]
    pub fn filled(&self) -> &[Packet] {
        &self.packets[..self.length.min(self.packets.len())]
    }

    #[must_use]
    pub fn filled_mut(&mut self) -> &mut [Packet] {
        let length = self.length.min(self.packets.len());
        &mut self.packets[..length]
    }

    /// The first packet that is not filled; None when the burst is full. Filling it ends with `length += 1`.
    #[inline]
    #[must_use]
    pub fn vacant_mut(&mut self) -> Option<&mut Packet> {
        self.packets.get_mut(self.length)
    }

    /// Copies a packet in; false when the burst is full.
    pub fn push(&mut self, bytes: &[u8], vnet: VnetHeader) -> bool {
        let Some(packet) = self.vacant_mut() else {
            return false;
        };
        packet.copy_from(bytes, vnet);
        self.length += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_vnet_header_and_the_packet() {
        let vnet = VnetHeader {
            flags: VnetHeader::NEEDS_CHECKSUM,
            checksum_start: 20,
            checksum_offset: 16,
            ..VnetHeader::default()
        };
        let mut packet = Packet::new();
        packet.copy_from(b"not really IP", vnet);
        let frame = packet.framed().to_vec();
        assert_eq!(frame[..vnet_header::LENGTH], vnet.to_bytes());
        assert_eq!(&frame[vnet_header::LENGTH..], b"not really IP");

        let mut read = Packet::new();
        read.framed_space_mut()[..frame.len()].copy_from_slice(&frame);
        read.set_framed_length(frame.len());
        assert_eq!(read.vnet, vnet);
        assert_eq!(read.bytes(), packet.bytes());
    }

    #[test]
    fn lengths_stay_within_the_buffer() {
        let mut packet = Packet::from_bytes(&vec![7; CAPACITY + 100]);
        assert_eq!(packet.bytes().len(), CAPACITY);
        packet.set_length(usize::MAX);
        assert_eq!(packet.bytes().len(), CAPACITY);
        packet.set_framed_length(3);
        assert_eq!(packet.bytes(), b"");
    }

    #[test]
    fn a_burst_refuses_more_than_its_capacity() {
        let mut burst = Burst::new(2);
        assert!(burst.push(b"a", VnetHeader::default()));
        assert!(burst.push(b"b", VnetHeader::default()));
        assert!(burst.is_full() && !burst.push(b"c", VnetHeader::default()));
        assert_eq!(burst.filled().len(), 2);
        burst.clear();
        assert_eq!(burst.filled().len(), 0);
        assert_eq!(burst.capacity(), 2);
    }
}
