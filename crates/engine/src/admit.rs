//! Step 7: may the packet enter the receiving VNet and NIC.
//! Reads: the peering crossed, the sending VNet's ranges, the receiving NIC. Writes: nothing.
//! Ends with: `PeeringAccessOff`, `ForwardedTrafficOff`, `NotForNic`.

use packet::FlowKey;

use crate::reason::DropReason;
use crate::route::Hop;
use crate::snapshot::Snapshot;

/// Checks the peering's flags (PEER-20, PEER-21) and the destination (NVA-01). `key` is as the receiver sees it:
/// [`Hop::rewrite`] applied.
///
/// # Errors
/// `PeeringAccessOff`; `ForwardedTrafficOff`: over a peering, a source that is not the sending VNet's;
/// `NotForNic`: the destination is not the NIC's, and the NIC does not forward.
pub fn admit(snapshot: &Snapshot, hop: &Hop, key: &FlowKey) -> Result<(), DropReason> {
    if let Some(peering) = hop.peering {
        let peering = &snapshot.peerings[peering.index()];
        if !peering.access {
            return Err(DropReason::PeeringAccessOff);
        }
        let own = &snapshot.vnets[peering.local.index()].ranges;
        if !peering.forwarded_accepted && !own.iter().any(|range| range.contains(key.source)) {
            return Err(DropReason::ForwardedTrafficOff);
        }
    }
    if let Some(to) = hop.to {
        let nic = &snapshot.nics[to.index()];
        if !nic.ip_forwarding && !nic.addresses.contains(&key.destination) {
            return Err(DropReason::NotForNic);
        }
    }
    Ok(())
}
