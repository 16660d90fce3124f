//! Step 3: which NIC sent a packet, and may it use that source address.
//! Reads: the port, the flow key, the NIC's addresses. Writes: nothing.
//! Ends with: `UnknownNic`, `SpoofedSource`, `PlatformReserved`.

use packet::FlowKey;

use crate::reason::DropReason;
use crate::snapshot::{NicId, Port, PortId, Snapshot, Vnet};

/// Who put a packet into the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Nic(NicId),
    /// The lab's Internet.
    Internet,
}

impl Sender {
    #[must_use]
    pub fn nic(self) -> Option<NicId> {
        match self {
            Self::Nic(nic) => Some(nic),
            Self::Internet => None,
        }
    }
}

/// 168.63.129.16 and 169.254.169.254 in the 128-bit form: the platform's own addresses (VNET-08).
const PLATFORM: [u128; 2] = [0xffff_a83f_8110, 0xffff_a9fe_a9fe];

/// Finds the sender behind `port` and checks the source address (NVA-01, NVA-02).
///
/// # Errors
/// `UnknownNic`: no NIC behind a VNet port has the source. `SpoofedSource`: the source is not an address of the
/// NIC, which does not forward, or not one of the Internet's. `PlatformReserved`: a NIC talks to, or as, the platform.
pub fn classify(snapshot: &Snapshot, port: PortId, key: &FlowKey) -> Result<Sender, DropReason> {
    match snapshot.ports.get(port.index()) {
        Some(&Port::Nic(id)) => {
            let nic = snapshot.nics.get(id.index()).ok_or(DropReason::UnknownNic)?;
            if !nic.ip_forwarding && !nic.addresses.contains(&key.source) {
                return Err(DropReason::SpoofedSource);
            }
            unreserved(Sender::Nic(id), key)
        }
        Some(&Port::Vnet(vnet)) => {
            let id = (snapshot
                .vnets
                .get(vnet.index())
                .and_then(|vnet| vnet.nic_of(key.source)))
            .filter(|id| snapshot.nics[id.index()].port == port)
            .ok_or(DropReason::UnknownNic)?;
            unreserved(Sender::Nic(id), key)
        }
        Some(Port::Internet) => match &snapshot.internet {
            Some(internet) if internet.addresses.binary_search(&key.source).is_ok() => Ok(Sender::Internet),
            _ => Err(DropReason::SpoofedSource),
        },
        Some(Port::Gone) | None => Err(DropReason::UnknownNic),
    }
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

fn unreserved(sender: Sender, key: &FlowKey) -> Result<Sender, DropReason> {
    if PLATFORM.contains(&key.destination) || PLATFORM.contains(&key.source) {
        return Err(DropReason::PlatformReserved);
    }
    Ok(sender)
}
