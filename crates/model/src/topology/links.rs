//! What peerings and connections do to packets (`links:`).

use super::{ConnectionIndex, PeeringIndex};

/// One entry of `links:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// `vnet/peering` or the connection's name, as the objects spell it.
    pub name: String,
    pub on: LinkOn,
    pub settings: LinkSettings,
}

/// What packets cross it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkOn {
    /// The peering's direction.
    Peering(PeeringIndex),
    /// Both directions, each by itself.
    Connection(ConnectionIndex),
}

/// Default: nothing happens to packets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkSettings {
    /// One way; None: that of the regions (PEER-39).
    pub latency_ns: Option<u64>,
    pub jitter: Option<Jitter>,
    pub loss: Loss,
    /// Of wire packets, in IP bytes. None: unlimited.
    pub rate_bps: Option<u64>,
    /// None: the default of the rate.
    pub queue: Option<LinkQueue>,
    pub aqm: Option<Aqm>,
    /// Parts from 0 to 1 of the packets.
    pub duplicate: f64,
    pub reorder: f64,
    pub corrupt: f64,
    /// Of the largest packet, in bytes.
    pub mtu: Option<u16>,
    pub down: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Jitter {
    /// Standard deviation of the delay; never 0.
    pub deviation_ns: u64,
    pub distribution: JitterDistribution,
    /// From 0 to less than 1.
    pub correlation: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum JitterDistribution {
    Normal,
    Uniform,
    Pareto,
    /// Samples, sorted, at least two of them different.
    Table(Vec<f64>),
}

/// Parts from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loss {
    #[default]
    None,
    Each(f64),
    /// Gilbert and Elliott.
    Bursts {
        enter_bad: f64,
        leave_bad: f64,
        loss_bad: f64,
        loss_good: f64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkQueue {
    /// Waiting for the rate; without a rate, under way.
    Bytes(u64),
    /// Of waiting for the rate.
    TimeNs(u64),
}

/// CoDel (RFC 8289).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aqm {
    pub target_ns: u64,
    pub interval_ns: u64,
    pub ecn: bool,
}

/// Where the latency of a peering comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencySource {
    /// One region: there is none.
    Region,
    /// NET-11: half the published round trip.
    Published,
    /// From the distance of the two regions.
    Estimate,
    /// `links:`.
    File,
    /// Two regions of which one is not known.
    Unknown,
}
