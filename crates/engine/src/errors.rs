//! Part of step 9: ICMP errors of the hops that packets die at: fragmentation needed, packet too big, time exceeded.
//! Reads: the packet as its sender wrote it. Writes: a bounded burst of replies for the sender's port.
//! Ends with: nothing; what may not be told, or not so often, is left unsaid (RFC 1812 4.3.2.7, RFC 4443 2.4).

use packet::checksum::{finish, pseudo_header, sum};
use packet::{Burst, Fragment, Headers, Packet, Protocol};

use crate::pipeline::Arrival;
use crate::snapshot::{PortId, Snapshot};

/// Errors a port may be told at once, and so in one burst: a traceroute sends sixteen probes before it waits.
const AT_ONCE: usize = 32;
/// After that, one error per port in this time, 100 a second: a path MTU or a trace needs few (RFC 1812 4.3.2.8).
const INTERVAL_NS: u64 = 10_000_000;
/// RFC 1812 4.3.2.3: as much of the packet as fits, without exceeding 576 bytes.
const IPV4_LIMIT: usize = 576;
/// RFC 4443 2.4(c): without exceeding the least IPv6 MTU.
const IPV6_LIMIT: usize = 1280;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
/// Type of service of errors: precedence 6, internetwork control (RFC 1812 4.3.2.5).
const CONTROL: u8 = 0xc0;
/// DF: an error is one packet with nothing to tell its fragments by (RFC 6864).
const DONT_FRAGMENT: u8 = 0x40;
/// What hosts use.
const TIME_TO_LIVE: u8 = 64;

/// What a hop has to say about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The time to live ran out in transit.
    TimeExceeded,
    /// Larger than the path takes, and not to be fragmented (NET-04).
    TooBig {
        /// In bytes of IP.
        mtu: u16,
    },
}

/// Errors made of the present burst, and how many each port may still be told.
#[derive(Debug)]
pub(crate) struct Errors {
    replies: Burst,
    /// By [`PortId`]: when its allowance is whole again. A token bucket in one number (GCRA).
    whole_at_ns: Vec<u64>,
}

impl Errors {
    pub(crate) fn new() -> Self {
        Self {
            replies: Burst::new(AT_ONCE),
            whole_at_ns: Vec::new(),
        }
    }

    /// Forgets the replies of the last burst, and knows the ports of the next.
    #[inline]
    pub(crate) fn begin(&mut self, snapshot: &Snapshot) {
        self.replies.clear();
        if self.whole_at_ns.len() < snapshot.ports.len() {
            self.whole_at_ns.resize(snapshot.ports.len(), 0);
        }
    }

    /// What is to be written to the port that the burst came from.
    pub(crate) fn replies_mut(&mut self) -> &mut Burst {
        &mut self.replies
    }

    /// Tells the sender of `packet`, which is as it was read, what became of it. `from`: the address of the hop that
    /// says so (128-bit form, of the packet's family).
    pub(crate) fn report(&mut self, arrival: &Arrival<'_>, packet: &Packet, from: u128, report: Report) {
        let headers = arrival.headers;
        if !may_be_told(headers, packet.bytes()) || !self.allowed(arrival.port, arrival.now_ns) {
            return;
        }
        let Some(reply) = self.replies.vacant_mut() else {
            return;
        };
        let length = if headers.ipv6 {
            icmpv6(reply.space_mut(), packet.bytes(), headers, from, report)
        } else {
            icmpv4(reply.space_mut(), packet.bytes(), headers, from, report)
        };
        reply.vnet = packet::VnetHeader::default();
        reply.set_length(length);
        self.replies.length += 1;
    }

    /// Takes one from the port's allowance, if there is one.
    fn allowed(&mut self, port: PortId, now_ns: u64) -> bool {
        let Some(whole_at_ns) = self.whole_at_ns.get_mut(port.index()) else {
            return false;
        };
        let next = (*whole_at_ns).max(now_ns) + INTERVAL_NS;
        let allowed = next - now_ns <= AT_ONCE as u64 * INTERVAL_NS;
        if allowed {
            *whole_at_ns = next;
        }
        allowed
    }
}

/// Never about an error, nor about a redirect, nor about a fragment but the first. Packets from or to more than one host
/// are not parsed to begin with.
fn may_be_told(headers: &Headers, bytes: &[u8]) -> bool {
    let kind = bytes.get(usize::from(headers.transport_offset)).copied();
    let error = match (headers.protocol, kind) {
        (Protocol::ICMP, Some(kind)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (Protocol::ICMPV6, Some(kind)) => kind < 128 || kind == 137,
        _ => false,
    };
    !error && !matches!(headers.fragment, Fragment::Later { .. })
}

/// Writes the error to the start of `reply`; returns its length.
fn icmpv4(reply: &mut [u8], packet: &[u8], headers: &Headers, from: u128, report: Report) -> usize {
    let (kind, code, mtu) = match report {
        Report::TimeExceeded => (11, 0, 0),
        Report::TooBig { mtu } => (3, 4, mtu),
    };
    let quoted = quote(packet, headers, IPV4_LIMIT - IPV4_HEADER - ICMP_HEADER);
    let length = IPV4_HEADER + ICMP_HEADER + quoted.len();
    let [high, low] = (length as u16).to_be_bytes();
    let (ip, icmp) = reply.split_at_mut(IPV4_HEADER);
    ip[..12].copy_from_slice(&[
        0x45,
        CONTROL,
        high,
        low,
        0,
        0,
        DONT_FRAGMENT,
        0,
        TIME_TO_LIVE,
        1,
        0,
        0,
    ]);
    ip[12..16].copy_from_slice(&(from as u32).to_be_bytes());
    ip[16..20].copy_from_slice(&(headers.key.source as u32).to_be_bytes());
    write16(ip, 10, finish(sum(&ip[..IPV4_HEADER], 0)));
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    icmp[..ICMP_HEADER].copy_from_slice(&[kind, code, 0, 0, 0, 0, mtu_high, mtu_low]);
    icmp[ICMP_HEADER..length - IPV4_HEADER].copy_from_slice(quoted);
    if headers.wire_packets > 1 {
        quote_first_segment(&mut icmp[ICMP_HEADER..], headers);
    }
    write16(icmp, 2, finish(sum(&icmp[..length - IPV4_HEADER], 0)));
    length
}

/// As [`icmpv4`].
fn icmpv6(reply: &mut [u8], packet: &[u8], headers: &Headers, from: u128, report: Report) -> usize {
    let (kind, mtu) = match report {
        Report::TimeExceeded => (3, 0),
        Report::TooBig { mtu } => (2, mtu),
    };
    let quoted = quote(packet, headers, IPV6_LIMIT - IPV6_HEADER - ICMP_HEADER);
    let payload = ICMP_HEADER + quoted.len();
    let [high, low] = (payload as u16).to_be_bytes();
    let (ip, icmp) = reply.split_at_mut(IPV6_HEADER);
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, Protocol::ICMPV6.0, TIME_TO_LIVE]);
    ip[8..24].copy_from_slice(&from.to_be_bytes());
    ip[24..40].copy_from_slice(&headers.key.source.to_be_bytes());
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    icmp[..ICMP_HEADER].copy_from_slice(&[kind, 0, 0, 0, 0, 0, mtu_high, mtu_low]);
    icmp[ICMP_HEADER..payload].copy_from_slice(quoted);
    if headers.wire_packets > 1 {
        quote_first_segment(&mut icmp[ICMP_HEADER..], headers);
    }
    let addresses = pseudo_header(&ip[8..40], payload as u32, Protocol::ICMPV6.0);
    write16(icmp, 2, finish(sum(&icmp[..payload], addresses)));
    IPV6_HEADER + payload
}

/// What of a packet, or of its first segment, is quoted in `room` bytes.
fn quote<'a>(packet: &'a [u8], headers: &Headers, room: usize) -> &'a [u8] {
    let length = packet.len().min(headers.largest_wire_packet as usize).min(room);
    &packet[..length]
}

/// A super-packet never was on the wire: the quote is made that of its first segment. The transport checksum stays
/// as it was written, a partial one: the quote is too short to be checked.
fn quote_first_segment(quote: &mut [u8], headers: &Headers) {
    let length = headers.largest_wire_packet as u16;
    if headers.ipv6 {
        write16(quote, 4, length - IPV6_HEADER as u16);
        return;
    }
    let header_length = usize::from(quote[0] & 15) * 4;
    write16(quote, 2, length);
    write16(quote, 10, 0);
    write16(quote, 10, finish(sum(&quote[..header_length], 0)));
}

fn write16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
