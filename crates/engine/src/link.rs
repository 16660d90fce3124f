//! Step 10: the simulated backbone between two VNets, and the egress that a VM's size allows.
//! Reads: the peering crossed, the sender's cap, the time. Writes: how long each cap is busy.
//! Ends with: `VmEgressCap`.

pub(crate) mod settings;

use packet::Headers;

use crate::backbone::{Backbone, Line};
use crate::reason::DropReason;
use crate::route::Hop;
use crate::snapshot::{NicId, PeeringId, Snapshot};

/// What waits at a VM's cap at most, by how long it would wait: about what a host's queue takes before it drops.
const CAP_QUEUE_NS: u64 = 20_000_000;

/// When and on which line a packet arrives. None: it is there at once.
pub(crate) type Way = Option<(Line, u64)>;

/// Sends a packet on its way: past the cap of its sender's VM (NET-12), which the whole of it has to pass, and over the
/// distance of the peering it crosses (PEER-39).
///
/// # Errors
/// `VmEgressCap`: the VM has sent too much already.
pub(crate) fn pass(
    backbone: &mut Backbone,
    snapshot: &Snapshot,
    now_ns: u64,
    from: Option<NicId>,
    hop: &Hop,
    headers: &Headers,
) -> Result<Way, DropReason> {
    let mut line = Line::default();
    let mut arrives_ns = now_ns;
    if let Some(cap) = from
        .and_then(|nic| snapshot.nics.get(nic.index()))
        .and_then(|nic| nic.egress_cap)
    {
        let busy_ns = backbone.busy_until_mut(cap.meter);
        let begins_ns = now_ns.max(*busy_ns);
        if begins_ns - now_ns > CAP_QUEUE_NS {
            return Err(DropReason::VmEgressCap);
        }
        let takes_ns = u64::from(headers.wire_bytes) * 8 * 1_000_000_000 / cap.bits_per_second.max(1);
        arrives_ns = begins_ns + takes_ns;
        *busy_ns = arrives_ns;
        line.cap = Some(cap.meter);
    }
    if let Some((peering, latency_ns)) = distance(snapshot, hop.peering) {
        arrives_ns += latency_ns;
        line.peering = Some(peering);
    }
    Ok((line != Line::default()).then_some((line, arrives_ns)))
}

/// Whether packets of a NIC over a peering are there at once, so that a burst may go unlooked.
pub(crate) fn is_immediate(snapshot: &Snapshot, from: NicId, peering: Option<PeeringId>) -> bool {
    let cap = snapshot.nics.get(from.index()).and_then(|nic| nic.egress_cap);
    cap.is_none() && distance(snapshot, peering).is_none()
}

fn distance(snapshot: &Snapshot, peering: Option<PeeringId>) -> Option<(PeeringId, u64)> {
    let peering = peering?;
    let link = snapshot.peerings.get(peering.index())?.link;
    let latency_ns = snapshot.links.get(link.index())?.latency_ns;
    (latency_ns > 0).then_some((peering, latency_ns))
}
