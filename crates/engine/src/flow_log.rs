//! What flow logs are told of flows under logged NSG rules (NSG-40..42): that one was denied, began, goes on or is over.
//!
//! A flow that is logged is never hit by its cached decision: each of its packets goes step by step, and is counted here
//! at the NIC whose log it is. Nothing of this is touched by flows that no log follows.

use std::collections::{HashMap, VecDeque};

use packet::FlowKey;

use crate::flow::Seen;
use crate::snapshot::{LogRuleId, NicId};

/// A line of a flow log in the making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    pub rule: LogRuleId,
    /// Whose log it is in.
    pub nic: NicId,
    /// Which direction, seen from the NIC, the flow's first packet had.
    pub inbound: bool,
    /// As the first packet had it, with private addresses.
    pub key: FlowKey,
    pub now_ns: u64,
    pub change: FlowChange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowChange {
    Denied,
    Began,
    /// Every five minutes: what passed since the last event.
    Continues(FlowCounts),
    /// What passed since the last event.
    Ended(FlowCounts),
}

/// Wire packets and IP bytes; the source is who sent the flow's first packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    pub packets_to_destination: u64,
    pub bytes_to_destination: u64,
    pub packets_to_source: u64,
    pub bytes_to_source: u64,
}

/// Events kept until somebody takes them; of the rest only the number. Some seconds of a busy log, 6 MB.
const EVENTS: usize = 1 << 16;
/// NSG-41, in ticks of 2^28 ns.
const REPORT_TICKS: u32 = (300_000_000_000_u64 >> 28) as u32;
/// Records looked at per tick: a million flows are reported within their five minutes with this many.
const LOOK_AT: usize = 4096;

/// The logged records of a flow table, by their place in it.
#[derive(Debug, Default)]
pub(crate) struct FlowLog {
    records: HashMap<u32, Record>,
    /// Who is to be reported when; in the order of time, since all wait equally long.
    due: VecDeque<Due>,
    events: Vec<FlowEvent>,
    untold: u64,
}

#[derive(Debug)]
struct Record {
    rule: LogRuleId,
    /// Which use of the place this is.
    serial: u32,
    since: FlowCounts,
}

#[derive(Debug)]
struct Due {
    slot: u32,
    serial: u32,
    tick: u32,
}

impl FlowLog {
    pub(crate) fn tell(&mut self, event: FlowEvent) {
        if self.events.len() < EVENTS {
            self.events.push(event);
        } else {
            self.untold += 1;
        }
    }

    /// Begins to follow a record.
    pub(crate) fn follow(&mut self, slot: u32, serial: u32, rule: LogRuleId, tick: u32) {
        let since = FlowCounts::default();
        self.records.insert(slot, Record { rule, serial, since });
        if self.due.len() >= 2 * self.records.len() + LOOK_AT {
            // Many short flows leave more behind than there are: at least half of it goes.
            let records = &self.records;
            let lives = |due: &Due| records.get(&due.slot).is_some_and(|it| it.serial == due.serial);
            self.due.retain(lives);
        }
        self.due.push_back(Due {
            slot,
            serial,
            tick: tick.wrapping_add(REPORT_TICKS),
        });
    }

    /// A packet of a followed flow, towards its destination or back.
    pub(crate) fn count(&mut self, slot: u32, seen: Seen, to_destination: bool) {
        let Some(Record { since, .. }) = self.records.get_mut(&slot) else {
            return;
        };
        let (packets, bytes) = if to_destination {
            (&mut since.packets_to_destination, &mut since.bytes_to_destination)
        } else {
            (&mut since.packets_to_source, &mut since.bytes_to_source)
        };
        *packets += u64::from(seen.packets);
        *bytes += u64::from(seen.bytes);
    }

    /// Stops following a record: its rule, and what passed since it was last reported.
    pub(crate) fn leave(&mut self, slot: u32) -> Option<(LogRuleId, FlowCounts)> {
        self.records
            .remove(&slot)
            .map(|record| (record.rule, record.since))
    }

    /// The next record that is to be reported at this tick, and what passed since it last was.
    pub(crate) fn next_due(&mut self, now: u32) -> Option<(u32, LogRuleId, FlowCounts)> {
        for _ in 0..LOOK_AT {
            let waits = self.due.front()?.tick.wrapping_sub(now);
            if waits != 0 && waits < u32::MAX / 2 {
                return None;
            }
            let Due { slot, serial, tick } = self.due.pop_front()?;
            if let Some(record) = self.records.get_mut(&slot)
                && record.serial == serial
            {
                self.due.push_back(Due {
                    slot,
                    serial,
                    tick: tick.wrapping_add(REPORT_TICKS),
                });
                return Some((slot, record.rule, std::mem::take(&mut record.since)));
            }
        }
        None
    }

    /// Hands over the events since the last call, in order, and says how many were not kept.
    pub(crate) fn take(&mut self) -> (Vec<FlowEvent>, u64) {
        (std::mem::take(&mut self.events), std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_short_flows_leave_behind_is_bounded() {
        let mut log = FlowLog::default();
        log.follow(0, 0, LogRuleId(1), 0);
        for serial in 0..100_000 {
            log.follow(7, serial, LogRuleId(1), 0);
            log.leave(7);
        }
        assert!(log.due.len() <= LOOK_AT + 4, "{}", log.due.len());
        let (slot, rule, _) = log.next_due(REPORT_TICKS).unwrap();
        assert_eq!((slot, rule), (0, LogRuleId(1)));
    }
}
