//! Topology -> Snapshot: dense ids, shared tables, and what each id means in the user's words.

use std::sync::Arc;

use engine::Snapshot;
use model::Topology;
use model::topology::{Direction, NicIndex, NsgIndex, PeeringIndex, VmIndex, VnetIndex};

use crate::rib::Route;

/// A snapshot and its meaning.
///
/// `NicId(n)` is `NicIndex(n)` and `VnetId(n)` is `VnetIndex(n)`.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub snapshot: Arc<Snapshot>,
    pub provenance: Provenance,
}

/// What ids and positions in a snapshot mean.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// By port: who is behind it.
    pub ports: Vec<PortOwner>,
    /// By peering: the object it comes from. A peering with a classic VNet, one object, gives both directions (PEER-31).
    pub peerings: Vec<PeeringIndex>,
    /// By FIB and route number.
    pub routes: Vec<Vec<Route>>,
    /// By filter.
    pub filters: Vec<FilterOrigin>,
}

/// Who is behind a port. `PortId`s count the NICs of VMs first, in VM order and interface order, then the VNets with a
/// VNet port, in file order, then the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortOwner {
    /// `eth<interface>` of a VM.
    Vm {
        vm: VmIndex,
        interface: usize,
        nic: NicIndex,
    },
    Vnet(VnetIndex),
    Internet,
}

/// Which rules a filter was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterOrigin {
    pub nsg: NsgIndex,
    pub direction: Direction,
    /// By rule number: `securityRules/<name>` or `defaultSecurityRules/<name>` (NSG-36).
    pub rules: Arc<[String]>,
}

/// Compiles a lab. The same topology and generation give the same tables.
#[must_use]
pub fn compile(_topology: &Topology, generation: u64) -> Compiled {
    Compiled {
        snapshot: Arc::new(Snapshot {
            generation,
            ..Snapshot::default()
        }),
        provenance: Provenance::default(),
    }
}
