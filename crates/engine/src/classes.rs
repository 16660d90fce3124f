//! One field of a filter: which rules match each of its values, as classes of values that the same rules match.

use std::collections::HashMap;

use crate::ranges::Ranges;

/// Classes of a field's values. A class is a set of rules, one bit each, in words of 64.
#[derive(Debug)]
pub(crate) struct Field<K, const N: usize> {
    classes: Ranges<K, N>,
    /// Class by class, all of one length.
    sets: Vec<u64>,
}

impl<K: Ord + Copy, const N: usize> Field<K, N> {
    /// `rules`: the ranges of each rule, both ends included; they may overlap. `least` is the least value there is,
    /// `after` the next one, None after the greatest.
    pub(crate) fn new(
        rules: impl ExactSizeIterator<Item = Vec<(K, K)>>,
        least: K,
        after: impl Fn(K) -> Option<K>,
    ) -> Self {
        let words = rules.len().div_ceil(64);
        // Where the set changes: at the value, the rule begins one more of its ranges, or ends one.
        let mut changes: Vec<(K, usize, bool)> = Vec::new();
        for (rule, ranges) in rules.enumerate() {
            for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
                changes.push((first, rule, true));
                changes.extend(after(last).map(|end| (end, rule, false)));
            }
        }
        changes.sort_unstable();

        let mut sweep = Sweep {
            set: vec![0; words],
            open: vec![0; words * 64],
        };
        let mut known: HashMap<Vec<u64>, u32> = HashMap::new();
        let mut sets = Vec::new();
        let mut starts: Vec<(K, u32)> = Vec::new();
        let mut class = |set: &[u64]| {
            // At most one class for each change; there is memory for fewer than 2^32 of them.
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
            known.get(set).copied().unwrap_or_else(|| {
                known.insert(set.to_vec(), next);
                sets.extend_from_slice(set);
                next
            })
        };
        if changes.first().is_none_or(|&(first, ..)| first != least) {
            starts.push((least, class(&sweep.set)));
        }
        for at in changes.chunk_by(|a, b| a.0 == b.0) {
            at.iter()
                .for_each(|&(_, rule, begins)| sweep.change(rule, begins));
            let here = class(&sweep.set);
            if starts.last().is_none_or(|&(_, before)| before != here) {
                starts.push((at[0].0, here));
            }
        }
        Self {
            classes: Ranges::new(&starts),
            sets,
        }
    }

    /// The set of rules that match the value.
    #[inline]
    pub(crate) fn class(&self, value: K, words: usize) -> &[u64] {
        let class = self.classes.find(value).map_or(0, |class| class as usize);
        &self.sets[class * words..][..words]
    }
}

/// The state between two changes.
struct Sweep {
    set: Vec<u64>,
    /// How many ranges of each rule are open.
    open: Vec<u32>,
}

impl Sweep {
    fn change(&mut self, rule: usize, begins: bool) {
        let open = &mut self.open[rule];
        *open = if begins { *open + 1 } else { *open - 1 };
        let bit = 1 << (rule % 64);
        if *open > 0 {
            self.set[rule / 64] |= bit;
        } else {
            self.set[rule / 64] &= !bit;
        }
    }
}
