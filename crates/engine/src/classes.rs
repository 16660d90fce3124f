//! One field of a filter: which rules match each of its values, as classes of values that the same rules match.

use std::collections::HashMap;

use crate::hash::spread;
use crate::ranges::{AddressRanges, MAPPED, Ranges};

/// Sets of rules, one bit each, in words of 64: class by class, all of one length.
#[derive(Clone, Debug)]
pub(crate) struct Sets {
    words: usize,
    sets: Vec<u64>,
}

/// The two ways to find the class of a value.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    classes: AddressRanges,
    sets: Sets,
}

/// Ports and protocols.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    classes: Ranges<u16, 32>,
    sets: Sets,
}

impl Addresses {
    /// `rules`: the ranges of each rule, both ends included; they may overlap.
    pub(crate) fn new(rules: impl ExactSizeIterator<Item = Vec<(u128, u128)>>) -> Self {
        let (starts, sets) = sweep(rules, 0, |last| last.checked_add(1));
        // The part that holds IPv4, from exactly its first address on.
        let end = starts.partition_point(|&(start, _)| start <= MAPPED | u128::from(u32::MAX));
        let first = starts
            .partition_point(|&(start, _)| start <= MAPPED)
            .saturating_sub(1);
        let ipv4: Vec<_> = starts[first..end]
            .iter()
            .map(|&(start, class)| (start.max(MAPPED), class))
            .collect();
        // The rest, which need not repeat it: what holds after IPv4 starts there.
        let after = (MAPPED | u128::from(u32::MAX)) + 1;
        let resumed = ipv4.last().map(|&(_, class)| (after, class));
        let rest = &starts[end..];
        let resumed = resumed.filter(|_| rest.first().is_none_or(|&(start, _)| start != after));
        let before = starts[..end].partition_point(|&(start, _)| start < MAPPED);
        let ipv6: Vec<_> = (starts[..before].iter().copied())
            .chain(resumed)
            .chain(rest.iter().copied())
            .collect();
        Self {
            classes: AddressRanges::new(&ipv4, &ipv6),
            sets,
        }
    }

    /// The set of rules that match the value.
    #[inline]
    pub(crate) fn class(&self, value: u128) -> &[u64] {
        self.sets.of(self.classes.find(value))
    }
}

impl Numbers {
    /// As [`Addresses::new`].
    pub(crate) fn new(rules: impl ExactSizeIterator<Item = Vec<(u16, u16)>>) -> Self {
        let (starts, sets) = sweep(rules, 0, |last| last.checked_add(1));
        Self {
            classes: Ranges::new(&starts),
            sets,
        }
    }

    #[inline]
    pub(crate) fn class(&self, value: u16) -> &[u64] {
        self.sets.of(self.classes.find(value))
    }
}

impl Sets {
    #[inline]
    fn of(&self, class: Option<u32>) -> &[u64] {
        &self.sets[class.map_or(0, |class| class as usize) * self.words..][..self.words]
    }
}

/// Goes through the values in order and starts a new range wherever the set of matching rules changes. `least` is the
/// least value there is, `after` the next one, None after the greatest.
fn sweep<K: Ord + Copy>(
    rules: impl ExactSizeIterator<Item = Vec<(K, K)>>,
    least: K,
    after: impl Fn(K) -> Option<K>,
) -> (Vec<(K, u32)>, Sets) {
    let mut changes: Vec<(K, usize, bool)> = Vec::new();
    let mut state = State::new(rules.len());
    for (rule, ranges) in rules.enumerate() {
        for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
            changes.push((first, rule, true));
            changes.extend(after(last).map(|end| (end, rule, false)));
        }
    }
    changes.sort_unstable();
    let mut starts: Vec<(K, u32)> = Vec::new();
    if changes.first().is_none_or(|&(first, ..)| first != least) {
        starts.push((least, state.class()));
    }
    for at in changes.chunk_by(|a, b| a.0 == b.0) {
        at.iter()
            .for_each(|&(_, rule, begins)| state.change(rule, begins));
        let here = state.class();
        if starts.last().is_none_or(|&(_, before)| before != here) {
            starts.push((at[0].0, here));
        }
    }
    (starts, state.sets)
}

/// The state between two changes, and the classes so far.
struct State {
    set: Vec<u64>,
    /// The exclusive or of one random word per rule in the set: equal for equal sets.
    mark: u64,
    /// How many ranges of each rule are open.
    open: Vec<u32>,
    known: HashMap<u64, u32>,
    sets: Sets,
}

impl State {
    fn new(rules: usize) -> Self {
        let words = rules.div_ceil(64);
        Self {
            set: vec![0; words],
            mark: 0,
            open: vec![0; rules],
            known: HashMap::new(),
            sets: Sets {
                words,
                sets: Vec::new(),
            },
        }
    }

    fn change(&mut self, rule: usize, begins: bool) {
        let open = &mut self.open[rule];
        *open = if begins { *open + 1 } else { *open - 1 };
        if *open == u32::from(begins) {
            self.set[rule / 64] ^= 1 << (rule % 64);
            self.mark ^= spread(rule as u64 + 1);
        }
    }

    /// The class of the present set.
    fn class(&mut self) -> u32 {
        let known = self.known.get(&self.mark).copied();
        if let Some(class) = known.filter(|&class| self.sets.of(Some(class)) == self.set) {
            return class;
        }
        // At most one class for each change; there is memory for fewer than 2^32 of them. Two sets with one mark
        // would make classes of their own each time they alternate, which is only waste.
        let class = u32::try_from(self.sets.sets.len() / self.sets.words.max(1)).unwrap_or(u32::MAX);
        self.sets.sets.extend_from_slice(&self.set);
        self.known.insert(self.mark, class);
        class
    }
}
