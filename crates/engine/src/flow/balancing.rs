//! What a flow's entry remembers of load balancing: its backend, and the source of its replies (LB-01, LB-02, LB-09).

use packet::Protocol;

use super::{ACK, FIN, Flows, MINUTE_NS, RST, SYN, Slot, age, ticks};
use crate::rewrite::Rewrite;
use crate::route::Hop;
use crate::snapshot::NicId;

/// What load balancing has decided for the packets that an entry's NIC sends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Balancing {
    /// Of the entry: another flow in the slot has another.
    serial: u32,
    /// The backend they go to (LB-02).
    pub(crate) keep: Option<NicId>,
    /// LB-09: how long they may be quiet and keep it, if they are TCP.
    idle_minutes: u8,
    /// They are replies of a backend, and get this source (LB-01).
    pub(crate) answer: Option<Rewrite>,
    /// The whole decision and when it was checked, as [`Hot::stamp`] says.
    hop: Option<(u32, Hop)>,
}

impl Flows {
    /// What load balancing has decided for the flow.
    pub(crate) fn balancing(&self, slot: Slot) -> Option<&Balancing> {
        let serial = self.table.cold[slot.0 as usize].serial;
        let balancing = self.balancing.get(slot.0 as usize)?;
        let known = balancing.keep.is_some() || balancing.answer.is_some();
        (known && balancing.serial == serial).then_some(balancing)
    }

    /// The same, before a packet is decided: a TCP flow that was quiet for too long, or begins again, is a new one to
    /// its load balancer.
    pub(crate) fn balanced_so_far(&self, slot: Slot, tcp_flags: u8) -> Balancing {
        let mut balancing = self.balancing(slot).copied().unwrap_or_default();
        if !self.is_remembered(slot, balancing.idle_minutes, tcp_flags) {
            balancing.keep = None;
        }
        balancing
    }

    /// LB-09: whether a load balancer still knows the flow of a record, before a packet of it is decided.
    pub(crate) fn is_remembered(&self, slot: Slot, idle_minutes: u8, tcp_flags: u8) -> bool {
        let quiet = age(self.tick, self.table.cold[slot.0 as usize].tick);
        let tcp = self.table.hot[slot.0 as usize].protocol() == Protocol::TCP;
        let forgotten = tcp && quiet > ticks(u64::from(idle_minutes) * MINUTE_NS);
        !forgotten && tcp_flags & (SYN | ACK) != SYN
    }

    /// LB-09: the records of a balanced TCP flow last as long as its load balancer remembers it.
    pub(crate) fn outlast(&mut self, slot: Slot, idle_minutes: u8) {
        if let Some(balancing) = self.balancing.get_mut(slot.0 as usize) {
            balancing.idle_minutes = idle_minutes;
        }
        let cold = &mut self.table.cold[slot.0 as usize];
        cold.tcp_idle_minutes = cold.tcp_idle_minutes.max(idle_minutes);
    }

    /// The decision of a balanced flow, if it was checked at this generation in this tick.
    pub(crate) fn balanced(&self, slot: Slot, tcp_flags: u8) -> Option<Hop> {
        let (stamp, hop) = self.balancing(slot)?.hop?;
        (stamp == self.stamp && tcp_flags & (FIN | SYN | RST) == 0).then_some(hop)
    }

    /// Keeps what load balancing decided for packets of this entry's NIC, from now until the tick ends.
    pub(crate) fn set_balancing(
        &mut self,
        slot: Slot,
        keep: Option<NicId>,
        answer: Option<Rewrite>,
        hop: Option<Hop>,
    ) {
        let at = slot.0 as usize;
        if keep.is_none() && answer.is_none() && at >= self.balancing.len() {
            return;
        }
        if at >= self.balancing.len() {
            self.balancing.resize(at + 1, Balancing::default());
        }
        self.balancing[at] = Balancing {
            serial: self.table.cold[at].serial,
            keep,
            idle_minutes: 0,
            answer,
            hop: hop.map(|hop| (self.stamp, hop)),
        };
        if keep.is_some() || answer.is_some() {
            // A plain decision of an earlier packet would miss what is rewritten.
            self.table.hot[at].stamp = 0;
        }
    }
}
