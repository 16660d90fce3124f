//! Step 9: what is changed in a packet: addresses at the Internet edge, 1:1, the address and port of a load balancer
//! (LB-01), and the time to live and MSS at gateways; the fabric itself changes nothing (NET-08).
//! Reads: the hop. Writes: addresses, ports, time to live and checksums of the packet.
//! Ends with: `TtlExpired`, `TooBig`.

use packet::{FlowKey, Headers, Packet, Protocol, Side, edit};

use crate::errors::{Errors, Report};
use crate::link;
use crate::pipeline::Arrival;
use crate::reason::DropReason;
use crate::route::{Hop, PATH_MTU};
use crate::snapshot::{NicId, Snapshot};

/// NET-05: a VPN gateway lowers the MSS of connections through its tunnels of 1400 bytes to 1350.
const TUNNEL_MSS_BELOW_MTU: u16 = 50;

/// Addresses (128-bit form) and ports to put in place of a packet's own. Default: none, the packet passes untouched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub source: Option<u128>,
    pub destination: Option<u128>,
    pub source_port: Option<u16>,
    pub destination_port: Option<u16>,
}

impl Rewrite {
    /// The key of the packet as its receiver sees it: what inbound rules are asked about (NSG-15).
    #[must_use]
    pub fn apply(self, key: &FlowKey) -> FlowKey {
        FlowKey {
            source: self.source.unwrap_or(key.source),
            destination: self.destination.unwrap_or(key.destination),
            source_port: self.source_port.unwrap_or(key.source_port),
            destination_port: self.destination_port.unwrap_or(key.destination_port),
            ..*key
        }
    }

    /// The packet that an ICMP error quotes, as its sender, the error's receiver, had sent it. `error` is the
    /// error's own key.
    pub(crate) fn apply_to_quoted(self, quoted: &FlowKey, error: &FlowKey) -> FlowKey {
        let to = quoted.source == error.destination;
        let from = quoted.destination == error.source;
        let mirrored = Self {
            source: self.destination.filter(|_| to),
            destination: self.source.filter(|_| from),
            source_port: self.destination_port.filter(|_| to),
            destination_port: self.source_port.filter(|_| from),
        };
        mirrored.apply(quoted)
    }

    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// Compares a packet, or the segments of a super-packet, with the path MTU, puts the hop's addresses into it and takes off
/// its time to live and MSS what gateways take. Returns the size of the fragments it has to travel in, if it has to.
pub(crate) fn rewrite(
    errors: &mut Errors,
    arrival: &Arrival<'_>,
    packet: &mut Packet,
    from: Option<NicId>,
    hop: &Hop,
) -> Result<Option<u16>, DropReason> {
    let headers = arrival.headers;
    if !hop.gateways.is_empty() {
        outlive(errors, arrival, packet, hop)?;
    }
    let narrow = link::narrowest(arrival.snapshot, hop);
    let mtu = hop.mtu.min(narrow);
    let fragment = if headers.largest_wire_packet > u32::from(mtu.min(arrival.snapshot.least_mtu())) {
        // The narrower of the two says so.
        let teller = hop.narrowed_by.filter(|_| hop.mtu <= narrow);
        fit(errors, arrival, packet, from, (mtu, teller))?
    } else {
        None
    };
    for _ in hop.gateways.passed() {
        edit::decrement_ttl(packet, headers);
    }
    if hop.narrowed_by.is_some() {
        edit::clamp_mss(packet, headers, hop.mtu - TUNNEL_MSS_BELOW_MTU);
    }
    if !hop.rewrite.is_none() {
        readdress(packet, headers, hop);
    }
    Ok(fragment)
}

/// Each gateway takes one from the time to live (GW-13); the one at which nothing is left says so.
fn outlive(errors: &mut Errors, arrival: &Arrival<'_>, packet: &Packet, hop: &Hop) -> Result<(), DropReason> {
    /// Of the time to live in an IPv4 header; gateways carry nothing else (NET-10).
    const TIME_TO_LIVE: usize = 8;
    let left = packet.bytes().get(TIME_TO_LIVE).copied().unwrap_or(0);
    // A guest that sends 0 has it taken for 1.
    let Some(last) = hop.gateways.passed().get(usize::from(left.max(1)) - 1) else {
        return Ok(());
    };
    // The decision of a first fragment may be older than the snapshot.
    let gateway = arrival.snapshot.gateways.get(last.index());
    if let Some(&teller) = gateway.and_then(|gateway| gateway.addresses.first()) {
        errors.report(arrival, packet, teller, Report::TimeExceeded);
    }
    Err(DropReason::TtlExpired)
}

impl Snapshot {
    /// What passes whole over every path between VMs, whether it may be fragmented or not.
    #[inline]
    pub(crate) fn least_mtu(&self) -> u16 {
        self.fabric_mtu.unwrap_or(PATH_MTU)
    }

    fn router_of(&self, nic: NicId, ipv6: bool) -> Option<u128> {
        let routers = &self.nics.get(nic.index())?.routers;
        let ipv4 = |address: u128| address >> 32 == 0xffff;
        routers.iter().copied().find(|&router| ipv4(router) != ipv6)
    }
}

/// For a packet larger than the path, or than the fabric, takes: whether it may be cut, and to what (NET-03, NET-04).
#[cold]
fn fit(
    errors: &mut Errors,
    arrival: &Arrival<'_>,
    packet: &Packet,
    from: Option<NicId>,
    (path_mtu, teller): (u16, Option<u128>),
) -> Result<Option<u16>, DropReason> {
    let Arrival {
        snapshot, headers, ..
    } = *arrival;
    if headers.dont_fragment {
        if headers.largest_wire_packet <= u32::from(path_mtu) {
            return Ok(None);
        }
        // The Internet, which has no router, hears it from the address it wrote to.
        let own = || from.and_then(|nic| snapshot.router_of(nic, headers.ipv6));
        let teller = teller.or_else(own).unwrap_or(headers.key.destination);
        errors.report(arrival, packet, teller, Report::TooBig { mtu: path_mtu });
        return Err(DropReason::TooBig);
    }
    let tcp_super_packet = packet.vnet.is_gso() && headers.protocol == Protocol::TCP;
    let fabric = snapshot.fabric_mtu.filter(|_| !tcp_super_packet);
    let mtu = fabric.unwrap_or(u16::MAX).min(path_mtu);
    Ok((headers.largest_wire_packet > u32::from(mtu)).then_some(mtu))
}

/// An ICMP error quotes a packet that went the other way, so what the edge changes on one side of the error it changes
/// on the other side of the quote.
fn readdress(packet: &mut Packet, headers: &Headers, hop: &Hop) {
    let Rewrite {
        source,
        destination,
        source_port,
        destination_port,
    } = hop.rewrite;
    let quoted = headers
        .quoted
        .map(|quoted| hop.rewrite.apply_to_quoted(&quoted, &headers.key));
    if let Some(source) = source {
        edit::set_address(packet, headers, Side::Source, source);
    }
    if let Some(destination) = destination {
        edit::set_address(packet, headers, Side::Destination, destination);
    }
    for (side, port) in [(Side::Source, source_port), (Side::Destination, destination_port)] {
        if let Some(port) = port {
            edit::set_port(packet, headers, side, port);
        }
    }
    if let Some(quoted) = quoted {
        edit::set_quoted_address(packet, headers, Side::Source, quoted.source);
        edit::set_quoted_address(packet, headers, Side::Destination, quoted.destination);
        edit::set_quoted_port(packet, headers, Side::Source, quoted.source_port);
        edit::set_quoted_port(packet, headers, Side::Destination, quoted.destination_port);
    }
}
