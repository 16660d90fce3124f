//! Step 7: may the packet enter the receiving VNet and NIC.
//! Reads: the peerings crossed, the sending VNet's ranges, the receiving NIC. Writes: nothing.
//! Ends with: `PeeringAccessOff`, `ForwardedTrafficOff`, `NotForNic`.

use packet::FlowKey;

use crate::reason::DropReason;
use crate::route::Hop;
use crate::snapshot::{PeeringId, Snapshot};

/// Checks the peering's flags (PEER-20, PEER-21) and the destination (NVA-01). `key` is as the receiver sees it:
/// [`Hop::rewrite`] applied. What a gateway forwards to a VNet that uses it needs no flag.
///
/// # Errors
/// `PeeringAccessOff`; `ForwardedTrafficOff`: over a peering, a source that is not the sending VNet's;
/// `NotForNic`: the destination is not the NIC's, and the NIC does not forward.
pub fn admit(snapshot: &Snapshot, hop: &Hop, key: &FlowKey) -> Result<(), DropReason> {
    for peering in [hop.gateways.over, hop.peering].into_iter().flatten() {
        let forwarded_by_gateway = !hop.gateways.is_empty() && hop.peering == Some(peering);
        cross(snapshot, peering, forwarded_by_gateway, key)?;
    }
    if let Some(to) = hop.to {
        let nic = &snapshot.nics[to.index()];
        if !nic.ip_forwarding && !nic.addresses.contains(&key.destination) {
            return Err(DropReason::NotForNic);
        }
    }
    Ok(())
}

fn cross(
    snapshot: &Snapshot,
    peering: PeeringId,
    forwarded_by_gateway: bool,
    key: &FlowKey,
) -> Result<(), DropReason> {
    let peering = &snapshot.peerings[peering.index()];
    if !peering.access {
        return Err(DropReason::PeeringAccessOff);
    }
    let accepted = peering.forwarded_accepted || (forwarded_by_gateway && peering.transit);
    let own = &snapshot.vnets[peering.local.index()].ranges;
    if !accepted && !own.iter().any(|range| range.contains(key.source)) {
        return Err(DropReason::ForwardedTrafficOff);
    }
    Ok(())
}
