//! `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h) as TUN delivers it with IFF_VNET_HDR: 10 bytes, little endian.

/// Length on the wire of the header that precedes every packet on a TUN opened with `IFF_VNET_HDR`.
pub const LENGTH: usize = 10;

/// The fields of the header. `Default` is "no offload": checksums complete, one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    pub flags: u8,
    pub gso_type: u8,
    pub header_length: u16,
    pub gso_size: u16,
    pub checksum_start: u16,
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// The checksum field holds only the pseudo-header sum; the receiver completes it.
    pub const NEEDS_CHECKSUM: u8 = 1;
    pub const DATA_VALID: u8 = 2;
    pub const GSO_NONE: u8 = 0;
    pub const GSO_TCPV4: u8 = 1;
    pub const GSO_TCPV6: u8 = 4;
    pub const GSO_UDP_L4: u8 = 5;
    pub const GSO_ECN: u8 = 0x80;

    /// Any ten bytes are a header; [`crate::Headers::parse`] says whether it fits its packet.
    #[inline]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;
        Self {
            flags,
            gso_type,
            header_length: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            checksum_start: u16::from_le_bytes([s0, s1]),
            checksum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; LENGTH] {
        let [h0, h1] = self.header_length.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.checksum_start.to_le_bytes();
        let [o0, o1] = self.checksum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// The packet's transport checksum field holds only the pseudo-header sum.
    #[inline]
    #[must_use]
    pub const fn needs_checksum(&self) -> bool {
        self.flags & Self::NEEDS_CHECKSUM != 0
    }

    /// The packet is a super-packet: it stands for segments of `gso_size` payload bytes.
    #[inline]
    #[must_use]
    pub const fn is_gso(&self) -> bool {
        self.gso_type != Self::GSO_NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_linux_puts_them() {
        let bytes = [1, 4, 0x36, 0, 0xa0, 0x05, 0x28, 0, 0x10, 0];
        let header = VnetHeader::from_bytes(bytes);
        let expected = VnetHeader {
            flags: VnetHeader::NEEDS_CHECKSUM,
            gso_type: VnetHeader::GSO_TCPV6,
            header_length: 54,
            gso_size: 1440,
            checksum_start: 40,
            checksum_offset: 16,
        };
        assert_eq!(header, expected);
        assert_eq!(header.to_bytes(), bytes);
        assert!(header.needs_checksum() && header.is_gso());
    }
}
