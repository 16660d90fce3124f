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
}
