//! Step 10: the simulated backbone, and the egress that a VM's size allows.
//! Reads: the links that the hop crosses, the sender's cap. Writes: nothing; [`crate::backbone`] does what they say.
//! Ends with: nothing.

mod codel;
mod jitter;
pub(crate) mod lane;
mod luck;
mod serializer;
pub(crate) mod settings;

use crate::backbone::Backbone;
use crate::reason::DropReason;
use crate::route::Hop;
use crate::snapshot::{EgressCap, LinkId, NicId, PeeringId, Snapshot};

/// Two peerings, and for each gateway that a packet can pass the connections by which it comes and goes.
const MOST_LEGS: usize = 20;

/// The links a packet crosses, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Legs {
    ids: [LinkId; MOST_LEGS],
    first: u8,
    end: u8,
}

/// What a packet passes between its sender's port and its receiver's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) cap: Option<EgressCap>,
    pub(crate) legs: Legs,
}

impl Default for Legs {
    fn default() -> Self {
        Self {
            ids: [LinkId(u32::MAX); MOST_LEGS],
            first: 0,
            end: 0,
        }
    }
}

impl Legs {
    /// One more at the end; what is beyond the longest way, which no packet takes, is left out.
    pub(crate) fn push(&mut self, link: LinkId) {
        if let Some(free) = self.ids.get_mut(usize::from(self.end)) {
            *free = link;
            self.end += 1;
        }
    }

    /// Takes the first one out.
    pub(crate) fn pop(&mut self) -> Option<LinkId> {
        let link = *self.as_slice().first()?;
        self.first += 1;
        Some(link)
    }

    pub(crate) fn as_slice(&self) -> &[LinkId] {
        &self.ids[usize::from(self.first)..usize::from(self.end)]
    }
}

/// The way of a packet, past the cap of its sender's VM (NET-12) and over the links of what it crosses (PEER-39). None:
/// it is there at once.
pub(crate) fn way(backbone: &Backbone, snapshot: &Snapshot, from: Option<NicId>, hop: &Hop) -> Option<Way> {
    let nic = from.and_then(|nic| snapshot.nics.get(nic.index()));
    let cap = nic.and_then(|nic| nic.egress_cap);
    let legs = hop.legs(snapshot);
    let free = legs
        .as_slice()
        .iter()
        .all(|&link| is_clear(backbone, snapshot, link));
    (cap.is_some() || !free).then_some(Way { cap, legs })
}

/// Whether packets of a NIC over a peering are there at once, so that a burst may go unlooked.
pub(crate) fn is_immediate(
    backbone: &Backbone,
    snapshot: &Snapshot,
    from: NicId,
    peering: Option<PeeringId>,
) -> bool {
    let cap = snapshot.nics.get(from.index()).and_then(|nic| nic.egress_cap);
    cap.is_none() && of_peering(snapshot, peering).is_none_or(|link| is_clear(backbone, snapshot, link))
}

/// The largest packet that all links of peerings on the way take; those of connections are the gateways' affair.
pub(crate) fn narrowest(snapshot: &Snapshot, hop: &Hop) -> u16 {
    let peerings = [hop.gateways.over, hop.peering];
    let links = peerings.map(|peering| of_peering(snapshot, peering));
    let mtus = links.into_iter().flatten().map(|link| mtu(snapshot, link));
    mtus.min().unwrap_or(u16::MAX)
}

pub(crate) fn mtu(snapshot: &Snapshot, link: LinkId) -> u16 {
    snapshot.links.get(link.index()).map_or(u16::MAX, |link| link.mtu)
}

impl Hop {
    /// The links crossed, first to last.
    pub(crate) fn legs(&self, snapshot: &Snapshot) -> Legs {
        let mut legs = Legs::default();
        let before = of_peering(snapshot, self.gateways.over);
        let between = self.gateways.links().as_slice().iter().copied();
        let after = of_peering(snapshot, self.peering);
        before
            .into_iter()
            .chain(between)
            .chain(after)
            .for_each(|link| legs.push(link));
        legs
    }

    /// The links crossed, first to last, for whoever wants to tell.
    #[must_use]
    pub fn links(&self, snapshot: &Snapshot) -> Vec<LinkId> {
        self.legs(snapshot).as_slice().to_vec()
    }

    /// Why nothing that takes this hop arrives, whatever its luck: the first link that lets nothing pass.
    ///
    /// # Errors
    /// `LinkDown`, `LinkLoss`.
    pub fn is_passable(&self, snapshot: &Snapshot) -> Result<(), DropReason> {
        let legs = self.legs(snapshot);
        let links = legs.as_slice().iter();
        for link in links.filter_map(|id| snapshot.links.get(id.index())) {
            if link.down {
                return Err(DropReason::LinkDown);
            }
            if link.loses_all() {
                return Err(DropReason::LinkLoss);
            }
        }
        Ok(())
    }
}

fn of_peering(snapshot: &Snapshot, peering: Option<PeeringId>) -> Option<LinkId> {
    Some(snapshot.peerings.get(peering?.index())?.link)
}

/// It does nothing, and nothing that came while it did waits on it.
fn is_clear(backbone: &Backbone, snapshot: &Snapshot, link: LinkId) -> bool {
    let free = snapshot.links.get(link.index()).is_none_or(|link| link.is_free());
    free && backbone.is_empty(link)
}
