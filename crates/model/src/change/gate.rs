//! One operation at a time on a VNet and its peerings: a second one meanwhile is refused, to be tried again (ERR-02).

use std::collections::HashSet;

use super::peerings::{find, object};
use super::{Operation, Refusal};
use crate::config::Config;

/// The VNets that operations are running on. A server that takes requests at the same time keeps one for each lab.
#[derive(Debug, Default)]
pub struct Gate {
    /// In lower case.
    busy: HashSet<String>,
}

/// An operation that runs: give it back to [`Gate::leave`] when it has ended.
#[derive(Debug)]
#[must_use]
pub struct Ticket(Vec<String>);

impl Gate {
    /// Begins an operation.
    ///
    /// # Errors
    /// `ReferencedResourceNotProvisioned` while another one runs on the VNet, or on the remote VNet of a peering.
    pub fn enter(&mut self, config: &Config, operation: &Operation) -> Result<Ticket, Refusal> {
        let vnets = touches(config, operation);
        if let Some(vnet) = vnets.iter().find(|vnet| self.busy.contains(*vnet)) {
            let message = format!(
                "Cannot proceed with operation because resource {vnet} is not in Succeeded state: another operation on it \
                 is in progress."
            );
            return Err(Refusal::new(
                "ReferencedResourceNotProvisioned",
                format!("vnets.{vnet}"),
                message,
            )
            .help("try again when the other operation has ended"));
        }
        self.busy.extend(vnets.iter().cloned());
        Ok(Ticket(vnets))
    }

    /// Ends an operation, carried out or refused.
    pub fn leave(&mut self, ticket: Ticket) {
        for vnet in ticket.0 {
            self.busy.remove(&vnet);
        }
    }
}

/// The VNets whose state an operation may change.
fn touches(config: &Config, operation: &Operation) -> Vec<String> {
    use Operation as Op;
    let mut vnets = match operation {
        Op::PutVnet { name, .. } | Op::DeleteVnet { name } => vec![name.to_lowercase()],
        Op::PutSubnet { vnet, .. } | Op::DeleteSubnet { vnet, .. } => vec![vnet.to_lowercase()],
        Op::PutPeering { peering } => vec![peering.from.to_lowercase(), peering.to.to_lowercase()],
        Op::SyncPeering { vnet, name } | Op::DeletePeering { vnet, name } => {
            let found = find(config, vnet, name).and_then(|index| object(&config.peerings[index]));
            let remote = found.map(|peering| peering.to.to_lowercase());
            std::iter::once(vnet.to_lowercase()).chain(remote).collect()
        }
        _ => Vec::new(),
    };
    vnets.dedup();
    vnets
}
