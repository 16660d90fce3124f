//! Delays of any distribution, one like the one before it as far as is asked for.
//!
//! Behind each delay stands a normal variable, and successive ones are correlated. Its place among all normal variables is
//! the delay's place in the distribution, so the distribution is the one asked for whatever the correlation.

use libm::{cos, erfc, log, pow, sqrt};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng;

use super::settings::{Distribution, Jitter};

/// Of the Pareto distribution: with less, not even a million packets show the deviation that was asked for.
const SHAPE: f64 = 5.0;

/// A stream of delays.
#[derive(Debug)]
pub(crate) struct Delays {
    generator: Pcg64Mcg,
    /// The normal variable behind the last delay.
    last: Option<f64>,
}

impl Delays {
    pub(crate) fn new(generator: Pcg64Mcg) -> Self {
        Self {
            generator,
            last: None,
        }
    }

    /// The next delay, relative to the latency.
    pub(crate) fn draw(&mut self, jitter: &Jitter) -> i64 {
        let fresh = self.normal();
        let normal = match self.last {
            Some(last) if jitter.correlation > 0.0 => {
                jitter.correlation * last + sqrt(1.0 - jitter.correlation * jitter.correlation) * fresh
            }
            _ => fresh,
        };
        self.last = Some(normal);
        let delay = shaped(&jitter.distribution, normal) * jitter.deviation_ns as f64;
        // Saturates.
        libm::round(delay) as i64
    }

    /// By Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = sqrt(-2.0 * log(self.uniform()));
        radius * cos(std::f64::consts::TAU * self.uniform())
    }

    /// More than 0, at most 1.
    fn uniform(&mut self) -> f64 {
        /// What a double holds without loss.
        const BITS: u32 = 53;
        ((self.generator.next_u64() >> (u64::BITS - BITS)) + 1) as f64 / (1_u64 << BITS) as f64
    }
}

/// The value of the distribution, of mean 0 and deviation 1, that is as rare as a normal variable.
fn shaped(distribution: &Distribution, normal: f64) -> f64 {
    let above = || 0.5 * erfc(normal * std::f64::consts::FRAC_1_SQRT_2);
    match distribution {
        Distribution::Normal => normal,
        Distribution::Uniform => (1.0 - 2.0 * above()) * sqrt(3.0),
        Distribution::Pareto => {
            let mean = SHAPE / (SHAPE - 1.0);
            let deviation = mean / sqrt(SHAPE * (SHAPE - 2.0));
            (pow(above(), -1.0 / SHAPE) - mean) / deviation
        }
        Distribution::Table(quantiles) => {
            let place = (1.0 - above()) * quantiles.len().saturating_sub(1) as f64;
            let below = place as usize;
            match (quantiles.get(below), quantiles.get(below + 1)) {
                (Some(low), Some(high)) => low + (high - low) * (place - below as f64),
                _ => quantiles.last().copied().unwrap_or_default(),
            }
        }
    }
}
