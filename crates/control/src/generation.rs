//! From one generation of a running lab to the next: which ids outlive it, and whose flows have to be decided anew.
//!
//! [`compile`](crate::compile()) numbers objects in the topology's order, and a change moves them all. Flows keep ids, so
//! here each object gets the id it has had since it came into the lab. What is gone leaves its row behind, empty.

mod ids;
mod renumber;
mod unchanged;

use std::sync::Arc;

use engine::Snapshot;
use engine::snapshot::{LinkId, LogRuleId, NicId, PeeringId, PortId, VnetId};
use model::Topology;
use model::topology::{NicIndex, VnetIndex};

use crate::compile::{Compiled, Pieces, PortOwner, Provenance};
use ids::Ids;

/// What forwards, and what its ids mean.
#[derive(Clone, Debug)]
pub struct Generation {
    pub topology: Arc<Topology>,
    /// With the ids of the running lab.
    pub snapshot: Arc<Snapshot>,
    /// With the positions of `topology`.
    pub provenance: Provenance,
    /// What [`crate::compile_after`] may use again for the next.
    pub pieces: Pieces,
    pub(crate) ids: Ids,
}

impl Generation {
    /// The first generation of a lab; ids are positions in the topology.
    #[must_use]
    pub fn first(topology: Arc<Topology>, compiled: Compiled) -> Self {
        let ids = Ids::next(None, &topology, &compiled.provenance);
        Self {
            topology,
            snapshot: compiled.snapshot,
            provenance: compiled.provenance,
            pieces: compiled.pieces,
            ids,
        }
    }

    /// The generation after this one. `compiled` is the changed lab under any generation number.
    #[must_use]
    pub fn next(&self, topology: Arc<Topology>, compiled: Compiled) -> Self {
        let Compiled {
            snapshot,
            provenance,
            pieces,
        } = compiled;
        let ids = Ids::next(Some(&self.ids), &topology, &provenance);
        // Nobody else has just compiled tables; if somebody had, this would cost a copy and no more.
        let snapshot = Arc::unwrap_or_clone(snapshot);
        let mut snapshot = renumber::renumber(snapshot, &ids);
        snapshot.generation = self.snapshot.generation + 1;
        unchanged::carry_over(&self.snapshot, &mut snapshot);
        Self {
            topology,
            snapshot: Arc::new(snapshot),
            provenance,
            pieces,
            ids,
        }
    }

    /// The name of a NIC, of one that is gone too.
    #[must_use]
    pub fn nic_name(&self, nic: NicId) -> Option<&str> {
        match self.nic_index(nic) {
            Some(index) => Some(&self.topology.nics[index.0].name),
            None => self.ids.nics.name(nic.0),
        }
    }

    /// The id of a NIC.
    #[must_use]
    pub fn nic_id(&self, nic: NicIndex) -> NicId {
        NicId(self.ids.nics.id(nic.0))
    }

    /// The NIC of an id; None when it is gone.
    #[must_use]
    pub fn nic_index(&self, nic: NicId) -> Option<NicIndex> {
        self.ids.nics.position(nic.0).map(NicIndex)
    }

    /// `vnet/peering` of the object whose direction this is, of one that is gone too.
    #[must_use]
    pub fn peering_name(&self, peering: PeeringId) -> Option<&str> {
        self.ids.peerings.name(peering.0)
    }

    /// The NSG, by its key in the file, and the rule that a flow log names, of those that are gone too.
    #[must_use]
    pub fn log_rule(&self, rule: LogRuleId) -> Option<(&str, &str)> {
        self.ids.log_rules.name(rule.0)?.rsplit_once('/')
    }

    /// The id of a link, by its position among [`Provenance::links`].
    #[must_use]
    pub fn link_id(&self, position: usize) -> LinkId {
        LinkId(self.ids.links.id(position))
    }

    /// The name of a link, `vnet/peering` or a connection's, of one that is gone too.
    #[must_use]
    pub fn link_name(&self, link: LinkId) -> Option<&str> {
        self.ids.links.name(link.0)
    }

    /// The id of a VNet.
    #[must_use]
    pub fn vnet_id(&self, vnet: VnetIndex) -> VnetId {
        VnetId(self.ids.vnets.id(vnet.0))
    }

    /// The id of a port, by its position among [`Provenance::ports`].
    #[must_use]
    pub fn port_id(&self, position: usize) -> PortId {
        PortId(self.ids.ports.id(position))
    }

    /// Whether the ports at the same positions have the same ids in both.
    #[must_use]
    pub fn same_ports(&self, other: &Self) -> bool {
        self.ids.ports.present() == other.ids.ports.present()
    }

    /// Who is behind a port; None when it is gone.
    #[must_use]
    pub fn port_owner(&self, port: PortId) -> Option<&PortOwner> {
        self.provenance.ports.get(self.ids.ports.position(port.0)?)
    }
}
