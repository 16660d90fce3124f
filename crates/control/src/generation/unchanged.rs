//! Which VNets' flows may keep their decisions: those of whose tables nothing changed but the rules.
//!
//! A decision is made from the tables of the sender's VNet and of the receiver's, and carries both generations. So a
//! VNet's generation has to change with its own ranges and addresses, with the NICs in it, their routes and ports, and with
//! the peerings it owns. Rules are left out on purpose: they are asked about new flows only (NSG-09).

use std::collections::HashMap;

use engine::Snapshot;
use engine::snapshot::{FibId, Nic, VnetId};

/// Gives every VNet of `next` the generation it had, if nothing changed for its flows, else that of `next` itself. Both
/// snapshots have the ids of the running lab.
pub(super) fn carry_over(previous: &Snapshot, next: &mut Snapshot) {
    let changed = changed(previous, next);
    let number = next.generation;
    for (id, (vnet, changed)) in next.vnets.iter_mut().zip(changed).enumerate() {
        vnet.generation = match previous.vnets.get(id) {
            Some(before) if !changed => before.generation,
            _ => number,
        };
    }
}

/// By VNet.
fn changed(previous: &Snapshot, next: &Snapshot) -> Vec<bool> {
    // Without `..`: whoever adds a table decides here whose flows depend on it.
    let Snapshot {
        generation: _,
        vnets,
        nics,
        // A NIC has its port, and an id of a port never changes its owner.
        ports: _,
        peerings,
        // What a gateway forwards is decided anew for each packet.
        gateways: _,
        connections: _,
        // Asked about packet by packet; whether a burst may go unlooked, in every generation.
        links: _,
        // Compared NIC by NIC.
        fibs: _,
        // NSG-09.
        filters: _,
        // A flow log follows flows to come.
        log_rules: _,
        // What the edge rewrites is decided anew for each packet.
        public_addresses: _,
        internet: _,
        // What may be too large is compared for each packet.
        fabric_mtu: _,
        // For flows to come.
        flows_per_nic: _,
        // Asked of each packet of a new generation.
        carries_ipsec: _,
        // A balanced flow is decided anew in every generation and tick; no other flow meets a frontend.
        frontends: _,
        frontend_index: _,
        health: _,
        // No decision to the platform is kept.
        platform: _,
    } = next;
    let mut changed = vec![false; vnets.len()];
    for (id, vnet) in vnets.iter().enumerate() {
        let same = previous
            .vnets
            .get(id)
            .is_some_and(|before| before.ranges == vnet.ranges && before.addresses == vnet.addresses);
        changed[id] = !same;
    }
    let mut mark = |vnet: VnetId| {
        if let Some(changed) = changed.get_mut(vnet.index()) {
            *changed = true;
        }
    };
    let mut tables = Tables::new(previous, next);
    for (id, nic) in nics.iter().enumerate() {
        match previous.nics.get(id) {
            Some(before) if tables.same_nic(before, nic) => {}
            before => [before, Some(nic)]
                .into_iter()
                .flatten()
                .for_each(|nic| mark(nic.vnet)),
        }
    }
    for (id, peering) in peerings.iter().enumerate() {
        match previous.peerings.get(id) {
            Some(before) if before == peering => {}
            before => [before, Some(peering)]
                .into_iter()
                .flatten()
                .for_each(|one| mark(one.local)),
        }
    }
    changed
}

/// Compares FIBs of two snapshots, each pair once.
struct Tables<'a> {
    previous: &'a Snapshot,
    next: &'a Snapshot,
    compared: HashMap<(FibId, FibId), bool>,
}

impl<'a> Tables<'a> {
    fn new(previous: &'a Snapshot, next: &'a Snapshot) -> Self {
        Self {
            previous,
            next,
            compared: HashMap::new(),
        }
    }

    /// Whether nothing but rules changed for a NIC.
    fn same_nic(&mut self, before: &Nic, after: &Nic) -> bool {
        let Nic {
            vnet,
            port,
            fib,
            addresses,
            // Said by errors, no flow depends on it.
            routers: _,
            ip_forwarding,
            // NSG-09.
            admin_outbound: _,
            admin_inbound: _,
            outbound: _,
            inbound: _,
            public,
            // Asked about in every generation.
            egress_cap: _,
        } = after;
        before.vnet == *vnet
            && before.port == *port
            && before.addresses == *addresses
            && before.ip_forwarding == *ip_forwarding
            && before.public == *public
            && self.same_fib(before.fib, *fib)
    }

    fn same_fib(&mut self, before: FibId, after: FibId) -> bool {
        let (previous, next) = (self.previous, self.next);
        *self.compared.entry((before, after)).or_insert_with(|| {
            match (previous.fibs.get(before.index()), next.fibs.get(after.index())) {
                (Some(before), Some(after)) => {
                    before.routes() == after.routes() && before.shared() == after.shared()
                }
                (None, None) => true,
                _ => false,
            }
        })
    }
}
