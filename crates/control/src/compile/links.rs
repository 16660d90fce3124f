//! What links do to packets: the file's settings as the engine takes them.

use std::collections::HashMap;
use std::sync::Arc;

use engine::snapshot::{Aqm, Chance, Distribution, Jitter, Link, LinkId, Loss, PeeringId, Queue};
use model::Topology;
use model::topology::{
    ConnectionIndex, JitterDistribution, LinkOn, LinkQueue, LinkSettings, Loss as Losing, PeeringIndex,
};

use super::dense;

/// What waits for a rate where the file does not say it: a tenth of a second, which most bottlenecks of the Internet have
/// about, and on slow links twenty full packets, two of TCP's first windows.
const DEFAULT_QUEUE_PER_RATE: u64 = 8 * 10;
const LEAST_DEFAULT_QUEUE: u64 = 20 * 1500;

/// Where a link of the snapshot comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOrigin {
    pub on: LinkOn,
    /// Of a connection: towards its gateway. Of a peering with a classic VNet, one object: from the remote VNet.
    pub back: bool,
}

/// `LinkId(n)` belongs to `PeeringId(n)`, and after those two, out and back, to each connection. `peerings` are the
/// objects of the snapshot's, each with whether it is the way back.
pub(super) fn links(topology: &Topology, peerings: &[(PeeringIndex, bool)]) -> (Vec<Link>, Vec<LinkOrigin>) {
    let of_peerings = peerings.iter().map(|&(index, back)| LinkOrigin {
        on: LinkOn::Peering(index),
        back,
    });
    let of_connections = (0..topology.connections.len()).flat_map(|index| {
        [false, true].map(|back| LinkOrigin {
            on: LinkOn::Connection(ConnectionIndex(index)),
            back,
        })
    });
    let origins: Vec<LinkOrigin> = of_peerings.chain(of_connections).collect();
    let said: HashMap<LinkOn, &LinkSettings> = (topology.links.iter())
        .map(|link| (link.on, &link.settings))
        .collect();
    let settings = |origin: &LinkOrigin| said.get(&origin.on).copied();
    let links = (origins.iter())
        .map(|origin| link(topology, *origin, settings(origin)))
        .collect();
    (links, origins)
}

/// Of a peering of a first compilation.
pub(super) const fn of_peering(peering: PeeringId) -> LinkId {
    LinkId(peering.0)
}

/// Of a connection, out and back.
pub(super) fn of_connection(peerings: usize, connection: usize) -> [LinkId; 2] {
    [0, 1].map(|back| LinkId(dense(peerings + 2 * connection + back)))
}

impl LinkOrigin {
    /// The peering it belongs to, if to one.
    #[must_use]
    pub fn peering<'a>(&self, topology: &'a Topology) -> Option<&'a model::topology::Peering> {
        match self.on {
            LinkOn::Peering(index) => Some(&topology.peerings[index.0]),
            LinkOn::Connection(_) => None,
        }
    }

    /// `vnet/peering`, or the connection's name.
    #[must_use]
    pub fn name(&self, topology: &Topology) -> String {
        match self.on {
            LinkOn::Peering(index) => {
                let peering = &topology.peerings[index.0];
                format!("{}/{}", topology.vnets[peering.from.0].name, peering.name)
            }
            LinkOn::Connection(index) => topology.connections[index.0].name.clone(),
        }
    }
}

fn link(topology: &Topology, origin: LinkOrigin, said: Option<&LinkSettings>) -> Link {
    let published_ns = match origin.on {
        LinkOn::Peering(index) => topology.peerings[index.0].latency_us * 1000,
        LinkOn::Connection(_) => 0,
    };
    let Some(said) = said else {
        return Link {
            latency_ns: published_ns,
            ..Link::default()
        };
    };
    Link {
        seed: seed(topology.seed, &origin.name(topology), origin.back),
        latency_ns: said.latency_ns.unwrap_or(published_ns),
        jitter: said.jitter.as_ref().map(|jitter| Jitter {
            deviation_ns: jitter.deviation_ns,
            distribution: distribution(&jitter.distribution),
            correlation: jitter.correlation,
        }),
        loss: match said.loss {
            Losing::None => Loss::None,
            Losing::Each(part) => Loss::Each(Chance::new(part)),
            Losing::Bursts {
                enter_bad,
                leave_bad,
                loss_bad,
                loss_good,
            } => Loss::Bursts {
                enter_bad: Chance::new(enter_bad),
                leave_bad: Chance::new(leave_bad),
                loss_bad: Chance::new(loss_bad),
                loss_good: Chance::new(loss_good),
            },
        },
        rate_bps: said.rate_bps,
        queue: queue(said),
        aqm: said.aqm.map(|aqm| Aqm {
            target_ns: aqm.target_ns,
            interval_ns: aqm.interval_ns,
            ecn: aqm.ecn,
        }),
        duplicate: Chance::new(said.duplicate),
        reorder: Chance::new(said.reorder),
        corrupt: Chance::new(said.corrupt),
        mtu: said.mtu.unwrap_or(u16::MAX),
        down: said.down,
    }
}

fn queue(said: &LinkSettings) -> Queue {
    match (said.queue, said.rate_bps) {
        (Some(LinkQueue::Bytes(bytes)), _) => Queue::Bytes(bytes),
        (Some(LinkQueue::TimeNs(time_ns)), _) => Queue::TimeNs(time_ns),
        (None, Some(rate_bps)) => Queue::Bytes((rate_bps / DEFAULT_QUEUE_PER_RATE).max(LEAST_DEFAULT_QUEUE)),
        (None, None) => Queue::Bytes(u64::MAX),
    }
}

fn distribution(of: &JitterDistribution) -> Distribution {
    match of {
        JitterDistribution::Normal => Distribution::Normal,
        JitterDistribution::Uniform => Distribution::Uniform,
        JitterDistribution::Pareto => Distribution::Pareto,
        JitterDistribution::Table(samples) => Distribution::Table(standardized(samples)),
    }
}

/// The samples, sorted, shifted and scaled so that the distribution whose quantile function joins them by lines has mean
/// 0 and standard deviation 1.
fn standardized(samples: &[f64]) -> Arc<[f64]> {
    // Near 1, or squares of large numbers overflow.
    let least = samples.first().copied().unwrap_or_default();
    let spread = samples.last().copied().unwrap_or_default() - least;
    let samples: Vec<f64> = samples.iter().map(|sample| (sample - least) / spread).collect();
    let lines = samples.len().saturating_sub(1).max(1) as f64;
    let sum = |of: fn(f64, f64) -> f64| samples.windows(2).map(|two| of(two[0], two[1])).sum::<f64>() / lines;
    let mean = sum(|a, b| (a + b) / 2.0);
    let deviation = (sum(|a, b| (a * a + a * b + b * b) / 3.0) - mean * mean).sqrt();
    samples.iter().map(|sample| (sample - mean) / deviation).collect()
}

/// FNV-1a over the lab's seed, the link's name and its direction: another link has other luck. Names are compared
/// without regard to case.
fn seed(lab: u64, name: &str, back: bool) -> u64 {
    let name = name.to_lowercase();
    let bytes = lab.to_be_bytes().into_iter().chain(name.bytes());
    let bytes = bytes.chain([u8::from(back)]);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
