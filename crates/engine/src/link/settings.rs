//! What a simulated link does to the packets of one direction, as the snapshot says it.

use std::sync::Arc;

/// Default: nothing; packets are there at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Of its random choices: the same seed gives the n-th packet the same fate.
    pub seed: u64,
    /// One way.
    pub latency_ns: u64,
    pub jitter: Option<Jitter>,
    pub loss: Loss,
    /// Bits per second of wire packets, in IP bytes. None: unlimited; never 0.
    pub rate_bps: Option<u64>,
    pub queue: Queue,
    pub aqm: Option<Aqm>,
    /// A packet arrives twice.
    pub duplicate: Chance,
    /// A packet need not keep its place.
    pub reorder: Chance,
    /// One bit of a packet changes.
    pub corrupt: Chance,
    /// In bytes; `u16::MAX`: as large as any packet.
    pub mtu: u16,
    pub down: bool,
}

/// How the delay of a packet differs from the latency.
#[derive(Clone, Debug, PartialEq)]
pub struct Jitter {
    /// Standard deviation.
    pub deviation_ns: u64,
    pub distribution: Distribution,
    /// Of the normal variables behind successive delays, from 0 to less than 1.
    pub correlation: f64,
}

/// Each has mean 0 and standard deviation 1.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    Normal,
    Uniform,
    Pareto,
    /// Quantiles at equal distances from 0 to 1, between which the quantile function is linear.
    Table(Arc<[f64]>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    #[default]
    None,
    /// Bernoulli.
    Each(Chance),
    /// Gilbert and Elliott: the state changes before each packet, or not.
    Bursts {
        enter_bad: Chance,
        leave_bad: Chance,
        loss_bad: Chance,
        loss_good: Chance,
    },
}

/// What may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Waiting for the rate; of a link without a rate, under way.
    Bytes(u64),
    /// Of waiting for the rate.
    TimeNs(u64),
}

/// CoDel (RFC 8289).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aqm {
    pub target_ns: u64,
    /// Not 0.
    pub interval_ns: u64,
    /// Packets that allow it are marked instead of dropped.
    pub ecn: bool,
}

/// A probability, in parts of 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chance(u64);

impl Default for Link {
    fn default() -> Self {
        Self {
            seed: 0,
            latency_ns: 0,
            jitter: None,
            loss: Loss::None,
            rate_bps: None,
            queue: Queue::Bytes(u64::MAX),
            aqm: None,
            duplicate: Chance::NEVER,
            reorder: Chance::NEVER,
            corrupt: Chance::NEVER,
            mtu: u16::MAX,
            down: false,
        }
    }
}

impl Link {
    /// Packets pass as if there were no link.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.latency_ns == 0 && self.mtu == u16::MAX && !self.down && !self.tells_packets_apart()
    }

    /// Each wire packet has its own fate, so that a super-packet cannot pass whole.
    #[must_use]
    pub fn tells_packets_apart(&self) -> bool {
        let chances = [self.duplicate, self.reorder, self.corrupt];
        self.rate_bps.is_some()
            || self.jitter.is_some()
            || self.loss != Loss::None
            || chances.iter().any(|chance| *chance != Chance::NEVER)
    }

    /// No packet passes, whatever its luck.
    #[must_use]
    pub fn loses_all(&self) -> bool {
        match self.loss {
            Loss::None => false,
            Loss::Each(chance) => chance == Chance::ALWAYS,
            Loss::Bursts {
                loss_bad, loss_good, ..
            } => loss_bad == Chance::ALWAYS && loss_good == Chance::ALWAYS,
        }
    }
}

impl Chance {
    pub const NEVER: Self = Self(0);
    pub const ALWAYS: Self = Self(1 << 32);

    /// `part` from 0 to 1; what is beyond is taken for the nearer of the two.
    #[must_use]
    pub fn new(part: f64) -> Self {
        // Saturates, and takes what is no number for 0.
        Self((part.clamp(0.0, 1.0) * Self::ALWAYS.0 as f64).round() as u64)
    }

    /// From 0 to 1, to nine places: what was asked for.
    #[must_use]
    pub fn part(self) -> f64 {
        (self.0 as f64 / Self::ALWAYS.0 as f64 * 1e9).round() / 1e9
    }

    /// Whether it happens to the holder of this random number.
    #[must_use]
    pub fn hits(self, random: u32) -> bool {
        u64::from(random) < self.0
    }
}
