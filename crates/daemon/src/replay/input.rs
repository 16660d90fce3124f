//! What a replay is fed with: the packets of a pcap or pcapng file, or a stream that it makes itself.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};

/// A packet to be sent, from its IP header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Since the epoch, or since the beginning of what is generated.
    pub at_ns: u64,
    pub bytes: Vec<u8>,
}

/// Why there is no packet to send, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InputError(pub String);

/// Datagrams at equal distances in time.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub from: IpAddr,
    pub to: IpAddr,
    /// At least 1.
    pub packets_per_second: u64,
    /// At least 1.
    pub packets: u64,
    /// IP bytes of each, headers included.
    pub size: u16,
}

/// Of the discard protocol.
const PORT: u16 = 9;
const SOURCE_PORT: u16 = 50_000;
/// The headers of a datagram: IPv6's 40 bytes and UDP's 8.
pub const LEAST_SIZE: u16 = 48;

/// Packets of a file, in its order. Those that no sender sent are left out: what is no IP packet, and in a capture of a
/// lab what was received, and what passed a link.
pub fn file<R: Read>(
    reader: R,
    links: Vec<String>,
) -> Result<impl Iterator<Item = Result<Sent, InputError>>, InputError> {
    let mut head = [0; 4];
    let mut reader = reader;
    reader
        .read_exact(&mut head)
        .map_err(|error| InputError(format!("it cannot be read: {error}")))?;
    let whole = std::io::Cursor::new(head).chain(reader);
    // The type of a pcapng section header, the same in both byte orders.
    let mut source = match head == [0x0a, 0x0d, 0x0d, 0x0a] {
        true => Source::PcapNg(Box::new(PcapNgReader::new(whole).map_err(unreadable)?), links),
        false => Source::Pcap(Box::new(PcapReader::new(whole).map_err(unreadable)?)),
    };
    let mut failed = false;
    Ok(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        loop {
            match source.next()? {
                Ok(Some(sent)) => return Some(Ok(sent)),
                Ok(None) => {}
                Err(error) => {
                    failed = true;
                    return Some(Err(unreadable(error)));
                }
            }
        }
    }))
}

/// The packets of a stream.
pub fn stream(stream: Stream) -> impl Iterator<Item = Result<Sent, InputError>> {
    let bytes = datagram(&stream);
    (0..stream.packets).map(move |number| {
        let at_ns = u128::from(number) * 1_000_000_000 / u128::from(stream.packets_per_second);
        Ok(Sent {
            at_ns: u64::try_from(at_ns).unwrap_or(u64::MAX),
            bytes: bytes.clone(),
        })
    })
}

enum Source<R: Read> {
    Pcap(Box<PcapReader<R>>),
    /// With the names of links.
    PcapNg(Box<PcapNgReader<R>>, Vec<String>),
}

impl<R: Read> Source<R> {
    /// None: the end. Ok(None): nothing to be sent.
    fn next(&mut self) -> Option<Result<Option<Sent>, PcapError>> {
        match self {
            Self::Pcap(reader) => {
                let link = reader.header().datalink;
                let packet = match reader.next_packet()? {
                    Ok(packet) => packet,
                    Err(error) => return Some(Err(error)),
                };
                let at_ns = u64::try_from(packet.timestamp.as_nanos()).unwrap_or(u64::MAX);
                Some(Ok(sent(at_ns, link, &packet.data, packet.orig_len)))
            }
            Self::PcapNg(reader, links) => next_block(reader, links),
        }
    }
}

fn next_block<R: Read>(
    reader: &mut PcapNgReader<R>,
    links: &[String],
) -> Option<Result<Option<Sent>, PcapError>> {
    let block = match reader.next_block()? {
        Ok(Block::EnhancedPacket(block)) => block.into_owned(),
        Ok(_) => return Some(Ok(None)),
        Err(error) => return Some(Err(error)),
    };
    let Some(interface) = reader.packet_interface(&block) else {
        return Some(Ok(None));
    };
    let mut units_per_second = 1_000_000;
    let mut of_link = false;
    for option in &interface.options {
        match option {
            // The high bit makes it a power of two.
            InterfaceDescriptionOption::IfTsResol(power) if power & 0x80 != 0 => {
                units_per_second = 1_u128.checked_shl(u32::from(power & 0x7f)).unwrap_or(1);
            }
            InterfaceDescriptionOption::IfTsResol(power) => {
                units_per_second = 10_u128.checked_pow(u32::from(*power)).unwrap_or(1);
            }
            InterfaceDescriptionOption::IfName(name) => {
                // A connection's link has the name of the site's port, which comes first.
                let mut earlier = reader.interfaces().iter().take(block.interface_id as usize);
                of_link = links.iter().any(|link| link.eq_ignore_ascii_case(name))
                    || earlier.any(|it| {
                        it.options
                            .iter()
                            .any(|it| *it == InterfaceDescriptionOption::IfName(name.clone()))
                    });
            }
            _ => {}
        }
    }
    let received = |option: &EnhancedPacketOption<'_>| matches!(option, EnhancedPacketOption::Flags(flags) if flags & 3 == 1);
    if of_link || block.options.iter().any(received) {
        return Some(Ok(None));
    }
    // The crate takes the units for nanoseconds.
    let units = block.timestamp.as_nanos();
    let at_ns = units.saturating_mul(1_000_000_000) / units_per_second.max(1);
    let at_ns = u64::try_from(at_ns).unwrap_or(u64::MAX);
    Some(Ok(sent(
        at_ns,
        interface.linktype,
        &block.data,
        block.original_len,
    )))
}

/// An IP packet out of its frame, as long as it was: what was cut off when it was captured is zero.
fn sent(at_ns: u64, link: DataLink, frame: &[u8], length: u32) -> Option<Sent> {
    let at = match link {
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => 0,
        DataLink::NULL | DataLink::LOOP => 4,
        DataLink::ETHERNET => behind_ethernet(frame)?,
        DataLink::LINUX_SLL => 16,
        DataLink::LINUX_SLL2 => 20,
        _ => return None,
    };
    let packet = frame.get(at..)?;
    let version = packet.first()? >> 4;
    let header = |at: usize| {
        Some(usize::from(u16::from_be_bytes([
            *packet.get(at)?,
            *packet.get(at + 1)?,
        ])))
    };
    // Frames may be padded; 0 is what the kernel says of packets it has not cut yet.
    let said = match version {
        4 => header(2)?,
        6 => header(4)? + 40,
        _ => return None,
    };
    let there = usize::try_from(length).ok()?.saturating_sub(at);
    let long = if said == 0 || said == 40 {
        there
    } else {
        said.min(there)
    };
    let mut bytes = packet[..packet.len().min(long)].to_vec();
    bytes.resize(long.min(1 << 16), 0);
    Some(Sent { at_ns, bytes })
}

/// Where the packet in an Ethernet frame begins; None: it carries no IP.
fn behind_ethernet(frame: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]) {
            0x0800 | 0x86dd => return Some(at + 2),
            // Tags of VLANs.
            0x8100 | 0x88a8 => at += 4,
            _ => return None,
        }
    }
}

fn datagram(stream: &Stream) -> Vec<u8> {
    let size = stream.size.max(LEAST_SIZE);
    let mut packet = Vec::with_capacity(usize::from(size));
    match (stream.from, stream.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend([0x45, 0]);
            packet.extend(size.to_be_bytes());
            // No fragment, and none is to be made of it; TTL 64, UDP.
            packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let sum = !folded(&packet, 0);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            udp(&mut packet, size - 20, &from.octets(), &to.octets());
        }
        (from, to) => {
            let [from, to] = [from, to].map(as_v6);
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((size - 40).to_be_bytes());
            packet.extend([17, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            udp(&mut packet, size - 40, &from.octets(), &to.octets());
        }
    }
    packet
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => Ipv4Addr::to_ipv6_mapped(&address),
    }
}

fn udp(packet: &mut Vec<u8>, length: u16, from: &[u8], to: &[u8]) {
    let at = packet.len();
    packet.extend(SOURCE_PORT.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.resize(at + usize::from(length), 0);
    let pseudo = [from, to, &[0, 17], &length.to_be_bytes()].concat();
    let sum = match !folded(&packet[at..], u32::from(folded(&pseudo, 0))) {
        0 => 0xffff,
        sum => sum,
    };
    packet[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum's sum, over 64 KiB at most.
fn folded(bytes: &[u8], start: u32) -> u16 {
    let word = |two: &[u8]| u32::from(two[0]) << 8 | u32::from(two.get(1).copied().unwrap_or(0));
    let mut sum = bytes.chunks(2).map(word).fold(start, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

fn unreadable(error: PcapError) -> InputError {
    InputError(format!("it is no whole pcap or pcapng file: {error}"))
}
