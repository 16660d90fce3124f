//! What came of a replay: counts by name, in the same order each time.

use std::collections::BTreeMap;

use control::Generation;
use engine::snapshot::{LinkId, PeeringId};
use engine::stats::Stats;
use model::config::Event;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::{Drop, EventResult, EventState};

/// What came of a replay.
#[derive(Clone, Debug, Default, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// Of everything random.
    pub seed: u64,
    /// Packets that were sent into the lab.
    pub packets: u64,
    /// From the first packet to the last arrival, on the lab's clock.
    #[serde(rename = "duration_ns")]
    pub duration_ns: u64,
    /// Packets of the input that nobody sent.
    pub skipped: Vec<Skipped>,
    pub nics: Vec<NicCount>,
    pub links: Vec<LinkCount>,
    pub drops: Vec<Drop>,
    /// Those of the file; Pending: it ended before.
    pub events: Vec<EventState>,
}

#[derive(Clone, Debug, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub why: String,
    pub packets: u64,
}

/// Wire packets and IP bytes, as the NIC sees them.
#[derive(Clone, Debug, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NicCount {
    pub nic: String,
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub received_packets: u64,
    pub received_bytes: u64,
}

/// A peering in its direction, or a connection in both: wire packets and IP bytes that crossed it, and what its link did.
#[derive(Clone, Debug, Default, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkCount {
    pub link: String,
    pub packets: u64,
    pub bytes: u64,
    /// By chance.
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupted: u64,
    /// Told of congestion (ECN).
    pub marked: u64,
    pub queue_full: u64,
    /// Came while the link was down.
    pub down: u64,
}

/// By name: a direction that came again has two ids, and a connection has one for each way.
pub(super) fn link_counts(generation: &Generation, stats: &Stats) -> Vec<LinkCount> {
    let mut counts: BTreeMap<String, LinkCount> = BTreeMap::new();
    for (id, crossed) in (0..).zip(&stats.peerings) {
        if let Some(name) = generation.peering_name(PeeringId(id)) {
            let count = counts.entry(name.to_owned()).or_default();
            count.packets += crossed.packets;
            count.bytes += crossed.bytes;
        }
    }
    for (id, link) in (0..).zip(&stats.links) {
        let Some(name) = generation.link_name(LinkId(id)) else {
            continue;
        };
        let count = counts.entry(name.to_owned()).or_default();
        if !name.contains('/') {
            // Of connections nobody else counts.
            count.packets += link.packets;
            count.bytes += link.bytes;
        }
        count.lost += link.lost;
        count.duplicated += link.duplicated;
        count.reordered += link.reordered;
        count.corrupted += link.corrupted;
        count.marked += link.marked;
        count.queue_full += link.queue_full;
        count.down += link.down;
    }
    let named = counts.into_iter();
    named.map(|(link, count)| LinkCount { link, ..count }).collect()
}

pub(super) fn pending(event: &Event) -> EventState {
    EventState {
        at: event.at.to_string(),
        event: event.to_string(),
        state: EventResult::Pending,
        generation: None,
        message: None,
    }
}
