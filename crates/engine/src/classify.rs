//! Step 3: which NIC sent a packet, and may it use that source address.
//! Reads: the port, the flow key, the NIC's addresses. Writes: nothing.
//! Ends with: `UnknownNic`, `SpoofedSource`, `UnsupportedProtocol`, `PlatformReserved`.

use packet::{FlowKey, Protocol};

use crate::reason::DropReason;
use crate::snapshot::{ConnectionId, GatewayId, NicId, Port, PortId, Snapshot, Vnet, VnetId};

/// Who put a packet into the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Nic(NicId),
    /// The lab's Internet.
    Internet,
    /// 168.63.129.16, to NICs of this VNet (VNET-08).
    Platform(VnetId),
    /// The site at the end of a connection.
    Site(ConnectionId),
    /// A gateway's BGP speaker.
    Gateway(GatewayId),
}

impl Sender {
    #[must_use]
    pub fn nic(self) -> Option<NicId> {
        match self {
            Self::Nic(nic) => Some(nic),
            Self::Internet | Self::Platform(_) | Self::Site(_) | Self::Gateway(_) => None,
        }
    }
}

/// 168.63.129.16 in the 128-bit form, and what stands for it in IPv6: where health probes come from (VNET-08, LB-05).
pub const PROBE_SOURCES: [u128; 2] = [0xffff_a83f_8110, 0xfe80_0000_0000_0000_0000_1234_5678_9abc];
/// 169.254.169.254: IMDS, the platform's too (VNET-08).
const IMDS: u128 = 0xffff_a9fe_a9fe;

/// NET-02: UDP with this source port is the host's.
const HOST_PORT: u16 = 65330;
/// NET-02: from a DHCP client to a server, by unicast.
const DHCP: (u16, u16) = (68, 67);

/// Finds the sender behind `port` and checks the source address (NVA-01, NVA-02).
///
/// # Errors
/// `UnknownNic`: no NIC behind a VNet port has the source. `SpoofedSource`: the source is not an address of the
/// NIC, which does not forward, or not one of the Internet's or the gateway's. `UnsupportedProtocol`: ESP or AH in a profile without
/// them (NET-01). `PlatformReserved`: a NIC talks as the platform, or to IMDS, which is not served. What talks to
/// 168.63.129.16 is told apart by [`is_probed`] once state is known.
pub fn classify(snapshot: &Snapshot, port: PortId, key: &FlowKey) -> Result<Sender, DropReason> {
    let sender = sender(snapshot, port, key)?;
    if matches!(key.protocol, Protocol::ESP | Protocol::AH) && !snapshot.carries_ipsec {
        return Err(DropReason::UnsupportedProtocol);
    }
    match sender {
        Sender::Nic(_) | Sender::Site(_) | Sender::Gateway(_) if is_reserved(key) => {
            Err(DropReason::PlatformReserved)
        }
        _ => Ok(sender),
    }
}

fn sender(snapshot: &Snapshot, port: PortId, key: &FlowKey) -> Result<Sender, DropReason> {
    match snapshot.ports.get(port.index()) {
        Some(&Port::Nic(id)) => {
            let nic = snapshot.nics.get(id.index()).ok_or(DropReason::UnknownNic)?;
            if !nic.ip_forwarding && !nic.addresses.contains(&key.source) {
                return Err(DropReason::SpoofedSource);
            }
            Ok(Sender::Nic(id))
        }
        Some(&Port::Vnet(vnet)) => {
            let id = (snapshot
                .vnets
                .get(vnet.index())
                .and_then(|vnet| vnet.nic_of(key.source)))
            .filter(|id| snapshot.nics[id.index()].port == port)
            .ok_or(DropReason::UnknownNic)?;
            Ok(Sender::Nic(id))
        }
        Some(Port::Internet) => match &snapshot.internet {
            Some(internet) if internet.addresses.binary_search(&key.source).is_ok() => Ok(Sender::Internet),
            _ => Err(DropReason::SpoofedSource),
        },
        Some(&Port::Platform(vnet)) if PROBE_SOURCES.contains(&key.source) => Ok(Sender::Platform(vnet)),
        Some(Port::Platform(_)) => Err(DropReason::SpoofedSource),
        // A site may forward for others: nothing says which sources lie behind it.
        Some(&Port::Connection(id)) => Ok(Sender::Site(id)),
        Some(&Port::Gateway(id)) => match snapshot.gateways.get(id.index()) {
            Some(gateway) if gateway.addresses.contains(&key.source) => Ok(Sender::Gateway(id)),
            _ => Err(DropReason::SpoofedSource),
        },
        Some(Port::Gone) | None => Err(DropReason::UnknownNic),
    }
}

/// Whether a packet goes to the platform's probing address: only replies to it may (VNET-08), for nothing else is served.
#[must_use]
#[inline]
pub fn is_probed(key: &FlowKey) -> bool {
    PROBE_SOURCES.contains(&key.destination)
}

impl Vnet {
    /// The NIC of this VNet that has the address (128-bit form).
    #[must_use]
    pub fn nic_of(&self, address: u128) -> Option<NicId> {
        let at = self
            .addresses
            .binary_search_by_key(&address, |&(address, _)| address);
        at.ok().map(|at| self.addresses[at].1)
    }
}

/// The platform's addresses (VNET-08) and ports (NET-02).
fn is_reserved(key: &FlowKey) -> bool {
    let udp = key.protocol == Protocol::UDP;
    key.destination == IMDS
        || key.source == IMDS
        || PROBE_SOURCES.contains(&key.source)
        || (udp && (key.source_port == HOST_PORT || (key.source_port, key.destination_port) == DHCP))
}
