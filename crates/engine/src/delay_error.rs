//! How late packets that were under way were handed over: a histogram with buckets of about 6 %.

/// Buckets per power of two: a quantile is at most a sixteenth too high.
const PER_OCTAVE: usize = 1 << PER_OCTAVE_BITS;
const PER_OCTAVE_BITS: u32 = 4;
/// Errors of 2^36 ns, 69 s, and more share the last bucket: nothing is that late unless the machine slept.
const OCTAVES: usize = 36;
const BUCKETS: usize = (OCTAVES - PER_OCTAVE_BITS as usize + 1) * PER_OCTAVE;

/// Actual minus due, of every packet that travelled a link or waited at a cap. Takes 4 KiB, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayError {
    counts: Box<[u64]>,
    count: u64,
    sum_ns: u64,
    max_ns: u64,
}

impl DelayError {
    #[inline]
    pub fn record(&mut self, error_ns: u64) {
        self.counts[bucket(error_ns)] += 1;
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(error_ns);
        self.max_ns = self.max_ns.max(error_ns);
    }

    /// Counts what another worker counted too.
    pub fn add(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Packets, super-packets as one.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub const fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// How many errors were surely no larger: of the bucket that holds `error_ns`, none.
    #[must_use]
    pub fn at_most(&self, error_ns: u64) -> u64 {
        let buckets = self.counts.iter().enumerate();
        let whole = buckets.take_while(|(index, _)| last_of(*index) <= error_ns);
        whole.map(|(_, count)| count).sum()
    }

    #[must_use]
    pub const fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// How many errors were how large at most, and larger than the one before; only where there are some.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.counts.iter().copied().enumerate();
        counts
            .filter(|(_, count)| *count > 0)
            .map(|(index, count)| (last_of(index), count))
    }

    /// What `fraction` of all errors, 0 to 1, do not exceed, at most a sixteenth too high. None: there are none.
    #[must_use]
    pub fn quantile_ns(&self, fraction: f64) -> Option<u64> {
        let wanted = (fraction.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(last_of(index).min(self.max_ns));
            }
        }
        None
    }
}

impl Default for DelayError {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            sum_ns: 0,
            max_ns: 0,
        }
    }
}

/// The first buckets have one value each; from there every power of two has [`PER_OCTAVE`].
#[inline]
fn bucket(error_ns: u64) -> usize {
    let octave = (error_ns >> PER_OCTAVE_BITS)
        .checked_ilog2()
        .map_or(0, |octave| octave + 1);
    let shift = octave.saturating_sub(1);
    let within = (error_ns >> shift) as usize % PER_OCTAVE;
    (octave as usize * PER_OCTAVE + within).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let (octave, within) = (bucket / PER_OCTAVE, (bucket % PER_OCTAVE) as u64);
    match octave.checked_sub(1) {
        None => within,
        Some(shift) => ((PER_OCTAVE as u64 + within + 1) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_value_is_in_its_bucket() {
        let mut edges: Vec<u64> = (0..300).collect();
        edges.extend((4..40).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]));
        for error_ns in edges.into_iter().filter(|error_ns| *error_ns < 1 << OCTAVES) {
            let index = bucket(error_ns);
            assert!(error_ns <= last_of(index), "{error_ns}");
            assert!(index == 0 || error_ns > last_of(index - 1), "{error_ns}");
        }
        assert_eq!(last_of(BUCKETS - 1), (1 << OCTAVES) - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        /// Beside a sorted list.
        #[test]
        fn quantiles_are_at_most_a_sixteenth_too_high(
            errors in prop::collection::vec(0_u64..1 << 34, 1..200),
            fraction in 0.0_f64..=1.0,
        ) {
            let (mut sorted, mut ours) = (errors.clone(), DelayError::default());
            errors.iter().for_each(|error_ns| ours.record(*error_ns));
            sorted.sort_unstable();
            let rank = (fraction * sorted.len() as f64).ceil().max(1.0) as usize;
            let right = sorted[rank - 1];
            let found = ours.quantile_ns(fraction).unwrap();
            prop_assert!(found >= right && found <= right + right / 16, "{found} for {right}");
            prop_assert_eq!(ours.count(), errors.len() as u64);
            prop_assert_eq!(ours.max_ns(), *sorted.last().unwrap());
        }
    }
}
