//! One queue of one port: packets in, packets out, whatever is behind it.
//!
//! *Reads* a descriptor or a memory port into a `Burst`. *Writes* one packet at a time, or packets of one flow as one
//! super-packet. *Ends with* `PortFull`, `PortGone`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use packet::{Burst, Fault, Packet, merge, split};
use rustix::io::Errno;

use crate::gso;
use crate::memory::Memory;
use crate::offloads::Offloads;

/// A queue that one worker owns.
#[derive(Debug)]
pub enum Queue {
    /// A queue of a TUN, with vnet headers or (`--io plain`) without.
    Tun(TunQueue),
    /// The end of a pair inside this process.
    Memory(Memory),
    /// Never has a packet and takes any.
    Null,
}

/// A descriptor of a TUN.
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    framed: bool,
    outlet: Outlet,
}

/// What every writing port knows: how much it may hand over whole, and room to make segments of the rest.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) offloads: Offloads,
    scratch: Packet,
    /// Room for one fragment of what is in `scratch`.
    piece: Packet,
    refusals: u64,
}

/// Why a packet was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// No room at present: `PortFull`. Of a super-packet that had to be segmented, the first segments may have passed.
    Full,
    /// The device is down or deleted, or its namespace is gone: `PortGone`.
    Gone,
    /// The kernel refuses this packet even as plain segments.
    Refused,
}

impl Queue {
    /// Appends packets to `burst` until there are no more or it is full. Returns how many.
    ///
    /// # Errors
    /// What the descriptor reports, once the packets before it were handed out; see [`is_gone`].
    pub fn read_burst(&mut self, burst: &mut Burst) -> io::Result<usize> {
        match self {
            Self::Tun(tun) => tun.read_burst(burst),
            Self::Memory(memory) => memory.read_burst(burst),
            Self::Null => Ok(0),
        }
    }

    /// Writes a packet as it is where the port takes that, else as segments with finished checksums.
    /// The bytes of `packet` stay the same.
    ///
    /// # Errors
    /// See [`WriteError`].
    #[inline]
    pub fn write(&mut self, packet: &mut Packet) -> Result<(), WriteError> {
        match self {
            Self::Tun(tun) => tun.write(packet),
            Self::Memory(memory) => memory.write(packet),
            Self::Null => Ok(()),
        }
    }

    /// [`Queue::write`] for the first of `packets` and those after it that one super-packet can stand for, where the port
    /// takes one; it is built in `whole`. Returns how many these are, all written or none.
    #[inline]
    pub fn write_run(
        &mut self,
        packets: &mut [Packet],
        whole: &mut Packet,
    ) -> (usize, Result<(), WriteError>) {
        let count = match self.merges() {
            true => merge::merge(packets, whole),
            false => 1,
        };
        match packets.first_mut() {
            _ if count > 1 => (count, self.write(whole)),
            Some(packet) => (1, self.write(packet)),
            None => (0, Ok(())),
        }
    }

    /// As [`Queue::write`], but in IP fragments of at most `mtu` bytes; a super-packet's segments are cut one by one.
    ///
    /// # Errors
    /// See [`WriteError`]; the first fragments may have passed.
    pub fn write_fragments(&mut self, packet: &mut Packet, mtu: u16) -> Result<(), WriteError> {
        match self {
            Self::Tun(tun) => tun.write_fragments(packet, mtu),
            Self::Memory(memory) => memory.write_fragments(packet, mtu),
            Self::Null => Ok(()),
        }
    }

    /// Whether it takes every super-packet there is: to build one that has to be cut again costs more than it saves.
    fn merges(&self) -> bool {
        match self {
            Self::Tun(tun) => tun.outlet.offloads == Offloads::Uso,
            Self::Memory(memory) => memory.offloads() == Offloads::Uso,
            Self::Null => false,
        }
    }

    /// What to poll; None for ports inside this process.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tun(tun) => Some(tun.fd.as_fd()),
            Self::Memory(_) | Self::Null => None,
        }
    }

    /// How often the kernel refused a packet whole and was given segments or a complete checksum instead.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        match self {
            Self::Tun(tun) => tun.outlet.refusals,
            Self::Memory(_) | Self::Null => 0,
        }
    }
}

/// True when a read failed because the device or its namespace is gone for good.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| WriteError::from(errno) == WriteError::Gone)
        || error.kind() == io::ErrorKind::BrokenPipe
}

impl TunQueue {
    pub(crate) fn new(fd: OwnedFd, offloads: Offloads, framed: bool) -> Self {
        Self {
            fd,
            framed,
            outlet: Outlet::new(offloads),
        }
    }

    fn read_burst(&mut self, burst: &mut Burst) -> io::Result<usize> {
        let mut count = 0;
        while let Some(packet) = burst.vacant_mut() {
            let read = if self.framed {
                rustix::io::read(&self.fd, packet.framed_space_mut())
                    .map(|length| packet.set_framed_length(length))
            } else {
                packet.vnet = packet::VnetHeader::default();
                rustix::io::read(&self.fd, packet.space_mut()).map(|length| packet.set_length(length))
            };
            match read {
                Ok(()) => {
                    burst.length += 1;
                    count += 1;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) if count > 0 => break, // it will be there at the next read
                Err(error) => return Err(error.into()),
            }
        }
        Ok(count)
    }

    #[inline]
    fn write(&mut self, packet: &mut Packet) -> Result<(), WriteError> {
        let (fd, framed) = (&self.fd, self.framed);
        self.outlet
            .deliver(packet, |packet| hand_over(fd, framed, packet))
    }

    fn write_fragments(&mut self, packet: &mut Packet, mtu: u16) -> Result<(), WriteError> {
        let (fd, framed) = (&self.fd, self.framed);
        self.outlet
            .deliver_fragments(packet, mtu, |packet| hand_over(fd, framed, packet))
    }
}

#[inline]
fn hand_over(fd: &OwnedFd, framed: bool, packet: &mut Packet) -> Result<(), WriteError> {
    let bytes = if framed { packet.framed() } else { packet.bytes() };
    match rustix::io::write(fd, bytes) {
        Ok(_) => Ok(()), // a TUN takes a packet whole or not at all
        Err(errno) => Err(errno.into()),
    }
}

impl Outlet {
    pub(crate) fn new(offloads: Offloads) -> Self {
        Self {
            offloads,
            scratch: Packet::new(),
            piece: Packet::new(),
            refusals: 0,
        }
    }

    /// Sends `packet` whole if the port takes it so, and as segments if not, or if it turns out that it does not.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        packet: &mut Packet,
        mut send: impl FnMut(&mut Packet) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let needed = Offloads::needed_by(&packet.vnet);
        if needed <= self.offloads {
            match send(packet) {
                Err(WriteError::Refused) if needed > Offloads::None => self.refusals += 1,
                done => return done,
            }
        }
        gso::segments(packet, &mut self.scratch, send)
    }

    /// Sends `packet` in fragments, and a super-packet in fragments of its segments.
    pub(crate) fn deliver_fragments(
        &mut self,
        packet: &Packet,
        mtu: u16,
        mut send: impl FnMut(&mut Packet) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let piece = &mut self.piece;
        gso::segments(packet, &mut self.scratch, |segment| {
            split::fragments(segment, mtu, piece, &mut send)
        })
    }
}

impl From<Errno> for WriteError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR => Self::Full,
            Errno::BADFD | Errno::BADF | Errno::IO | Errno::NODEV | Errno::NXIO => Self::Gone,
            _ => Self::Refused,
        }
    }
}

/// A packet that cannot be read cannot be segmented.
impl From<Fault> for WriteError {
    fn from(_: Fault) -> Self {
        Self::Refused
    }
}

#[cfg(test)]
mod tests {
    use packet::{VnetHeader, checksum};

    use super::*;

    #[test]
    fn error_numbers_tell_a_full_port_from_a_gone_one() {
        assert_eq!(WriteError::from(Errno::AGAIN), WriteError::Full);
        assert_eq!(WriteError::from(Errno::BADFD), WriteError::Gone);
        assert_eq!(WriteError::from(Errno::INVAL), WriteError::Refused);
        assert!(is_gone(&Errno::BADFD.into()) && !is_gone(&Errno::AGAIN.into()));
    }

    /// The kernel of tailscale/tailscale#13041: took super-packets once, then answered EINVAL.
    #[test]
    fn a_kernel_that_refuses_a_super_packet_gets_its_segments_at_once() {
        let mut packet = Packet::new();
        let vnet = VnetHeader {
            flags: VnetHeader::NEEDS_CHECKSUM,
            gso_type: VnetHeader::GSO_UDP_L4,
            header_length: 28,
            gso_size: 10,
            checksum_start: 20,
            checksum_offset: 6,
        };
        let mut bytes = vec![
            0x45, 0, 0, 53, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 4, 10, 0, 0, 5, // IPv4, 33 bytes of UDP
            0, 1, 0, 2, 0, 33, 0, 0,
        ];
        let header_checksum = checksum::finish(checksum::sum(&bytes[..20], 0));
        bytes[10..12].copy_from_slice(&header_checksum.to_be_bytes());
        bytes.extend([7; 25]);
        packet.copy_from(&bytes, vnet);

        let mut outlet = Outlet::new(Offloads::Uso);
        let mut lengths = Vec::new();
        let sent = outlet.deliver(&mut packet, |packet| {
            if packet.vnet.is_gso() {
                return Err(Errno::INVAL.into());
            }
            lengths.push(packet.bytes().len());
            Ok(())
        });
        assert_eq!((sent, lengths, outlet.refusals), (Ok(()), vec![38, 38, 33], 1));

        let refused = outlet.deliver(&mut packet, |_| Err(Errno::INVAL.into()));
        assert_eq!(refused, Err(WriteError::Refused));
        let full = outlet.deliver(&mut packet, |_| Err(Errno::AGAIN.into()));
        assert_eq!((full, outlet.refusals), (Err(WriteError::Full), 2));
    }

    #[test]
    fn the_null_port_swallows() {
        let mut burst = Burst::new(1);
        assert_eq!(Queue::Null.read_burst(&mut burst).unwrap(), 0);
        assert_eq!(Queue::Null.write(&mut Packet::new()), Ok(()));
        assert!(Queue::Null.fd().is_none());
    }
}
