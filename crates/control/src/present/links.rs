//! The body of `links -o json`: what each link is set to do.

use engine::snapshot::{Distribution, Link, Loss, Queue};
use model::Topology;
use model::topology::{Far, LinkOn};
use schemars::JsonSchema;
use serde::Serialize;

use super::peerings::latency_source;
use crate::compile::{LinkOrigin, compile};

/// One direction of a peering or of a connection.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkRow {
    /// `vnet/peering`, or the connection's name.
    pub link: String,
    /// The VNet, gateway, site or circuit that packets come from.
    pub from: String,
    pub to: String,
    pub down: bool,
    /// One way.
    #[serde(rename = "latency_us")]
    pub latency_us: f64,
    /// As for `peerings`.
    pub latency_source: Option<&'static str>,
    pub jitter: Option<JitterRow>,
    /// Of all packets, in the long run, from 0 to 1.
    pub loss: f64,
    /// Parts of all packets that arrive twice, that may overtake, and in which a bit changes, from 0 to 1.
    pub duplicate: f64,
    pub reorder: f64,
    pub corrupt: f64,
    /// Bits per second; null: unlimited.
    #[serde(rename = "rate_bps")]
    pub rate_bps: Option<u64>,
    /// What waits for the rate at most, in bytes; or without a rate, what is under way.
    pub queue_bytes: Option<u64>,
    /// The same as time.
    #[serde(rename = "queue_us")]
    pub queue_us: Option<f64>,
    /// The largest packet; null: what VMs send at most.
    pub mtu: Option<u16>,
}

/// How much delays differ from the latency.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JitterRow {
    #[serde(rename = "deviation_us")]
    pub deviation_us: f64,
    pub distribution: &'static str,
    pub correlation: f64,
}

/// Every link that does something, or that `links:` names: peerings in file order, then connections. With each whether
/// it is the way back of its object.
#[must_use]
pub fn links(topology: &Topology) -> Vec<(LinkRow, bool)> {
    let compiled = compile(topology, 0);
    let links = compiled.snapshot.links.iter().zip(&compiled.provenance.links);
    let shown = links.filter(|(link, origin)| {
        let declared = topology.links.iter().any(|given| given.on == origin.on);
        declared || !link.is_free()
    });
    let mut rows: Vec<(LinkRow, bool)> = Vec::new();
    for (link, origin) in shown {
        let row = (row(topology, link, *origin), origin.back);
        // The second one of a subnet peering, over which nothing passes.
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows
}

fn row(topology: &Topology, link: &Link, origin: LinkOrigin) -> LinkRow {
    let (from, to) = ends(topology, origin);
    LinkRow {
        link: origin.name(topology),
        from,
        to,
        down: link.down,
        latency_us: microseconds(link.latency_ns),
        latency_source: match origin.peering(topology) {
            Some(peering) => latency_source(peering),
            None => (link.latency_ns > 0).then_some("links"),
        },
        jitter: link.jitter.as_ref().map(|jitter| JitterRow {
            deviation_us: microseconds(jitter.deviation_ns),
            distribution: match jitter.distribution {
                Distribution::Normal => "normal",
                Distribution::Uniform => "uniform",
                Distribution::Pareto => "pareto",
                Distribution::Table(_) => "table",
            },
            correlation: jitter.correlation,
        }),
        loss: in_the_long_run(link.loss),
        duplicate: link.duplicate.part(),
        reorder: link.reorder.part(),
        corrupt: link.corrupt.part(),
        rate_bps: link.rate_bps,
        queue_bytes: match link.queue {
            Queue::Bytes(bytes) if bytes < u64::MAX => Some(bytes),
            _ => None,
        },
        queue_us: match link.queue {
            Queue::TimeNs(time_ns) => Some(microseconds(time_ns)),
            Queue::Bytes(_) => None,
        },
        mtu: (link.mtu < u16::MAX).then_some(link.mtu),
    }
}

fn ends(topology: &Topology, origin: LinkOrigin) -> (String, String) {
    let (from, to) = match origin.on {
        LinkOn::Peering(index) => {
            let peering = &topology.peerings[index.0];
            let name = |vnet: usize| topology.vnets[vnet].name.clone();
            (name(peering.from.0), name(peering.to.0))
        }
        LinkOn::Connection(index) => {
            let connection = &topology.connections[index.0];
            let far = match &connection.far {
                Far::Site(site) => topology.sites[site.0].name.clone(),
                Far::Gateway(gateway) => topology.gateways[gateway.0].name.clone(),
                Far::Circuit { name, .. } => name.clone(),
            };
            (topology.gateways[connection.gateway.0].name.clone(), far)
        }
    };
    if origin.back { (to, from) } else { (from, to) }
}

/// Gilbert and Elliott are in the bad state for the part of the time that it takes to leave and not to enter it.
fn in_the_long_run(loss: Loss) -> f64 {
    match loss {
        Loss::None => 0.0,
        Loss::Each(chance) => chance.part(),
        Loss::Bursts {
            enter_bad,
            leave_bad,
            loss_bad,
            loss_good,
        } => {
            let (enter, leave) = (enter_bad.part(), leave_bad.part());
            // It begins in the good state, and stays where no change is possible.
            let bad = if enter > 0.0 { enter / (enter + leave) } else { 0.0 };
            bad * loss_bad.part() + (1.0 - bad) * loss_good.part()
        }
    }
}

fn microseconds(time_ns: u64) -> f64 {
    time_ns as f64 / 1e3
}
