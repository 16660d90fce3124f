//! A timing wheel: moments of many things, the earliest first, at a cost that does not grow with their number.
//!
//! Time is cut into ticks of a microsecond, and their number into digits to the base of 64. What differs from the present
//! tick first in digit n is on level n, in the slot of that digit, and moves down when the wheel comes there: all of a
//! level comes before anything on the next.

/// Slots of a level, so that one word tells which are taken.
const SLOTS: usize = 64;
const SLOT_BITS: u32 = SLOTS.ilog2();
/// Enough for every moment that 64 bits of nanoseconds have.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(SLOT_BITS) as usize;
/// About a microsecond: within a tick moments are sorted, so this is no limit of exactness.
const TICK_BITS: u32 = 10;

/// Moments in nanoseconds, each of something; equal moments in the order of those.
#[derive(Debug)]
pub struct Wheel<T> {
    /// Level by level.
    slots: Vec<Slot<T>>,
    /// A bit for each slot that holds something, by level.
    taken: [u64; LEVELS],
    tick: u64,
    /// Of the present tick and before, the earliest last.
    due: Vec<(u64, T)>,
}

#[derive(Debug)]
struct Slot<T> {
    moments: Vec<(u64, T)>,
    least_ns: u64,
}

impl<T: Copy + Ord> Wheel<T> {
    #[must_use]
    pub fn new() -> Self {
        Self {
            slots: (0..SLOTS * LEVELS).map(|_| Slot::default()).collect(),
            taken: [0; LEVELS],
            tick: 0,
            due: Vec::new(),
        }
    }

    pub fn push(&mut self, at_ns: u64, what: T) {
        let tick = at_ns >> TICK_BITS;
        let Some(differs) = (tick ^ self.tick).checked_ilog2().filter(|_| tick > self.tick) else {
            let place = self.due.partition_point(|later| *later > (at_ns, what));
            self.due.insert(place, (at_ns, what));
            return;
        };
        let level = (differs / SLOT_BITS) as usize;
        let digit = (tick >> (level as u32 * SLOT_BITS)) as usize % SLOTS;
        self.taken[level] |= 1 << digit;
        let slot = &mut self.slots[level * SLOTS + digit];
        slot.least_ns = slot.least_ns.min(at_ns);
        slot.moments.push((at_ns, what));
    }

    /// The earliest moment; None: there is none.
    #[inline]
    #[must_use]
    pub fn next_ns(&self) -> Option<u64> {
        if let Some((at_ns, _)) = self.due.last() {
            return Some(*at_ns);
        }
        let (level, digit) = self.first_taken()?;
        Some(self.slots[level * SLOTS + digit].least_ns)
    }

    /// Takes the earliest if its moment is not after `now_ns`.
    pub fn pop(&mut self, now_ns: u64) -> Option<(u64, T)> {
        while self.due.is_empty() {
            if self.next_ns()? > now_ns {
                return None;
            }
            self.advance();
        }
        self.due.pop_if(|(at_ns, _)| *at_ns <= now_ns)
    }

    /// To the first slot that holds something; what it holds moves down.
    fn advance(&mut self) {
        let Some((level, digit)) = self.first_taken() else {
            return;
        };
        let shift = level as u32 * SLOT_BITS;
        let above = self.tick.checked_shr(shift + SLOT_BITS).unwrap_or(0);
        self.tick = (above << SLOT_BITS | digit as u64) << shift;
        self.taken[level] &= !(1 << digit);
        let slot = &mut self.slots[level * SLOTS + digit];
        slot.least_ns = u64::MAX;
        // Its memory is used again.
        let mut moments = std::mem::take(&mut slot.moments);
        if level == 0 {
            moments.sort_unstable_by(|a, b| b.cmp(a));
            std::mem::swap(&mut self.due, &mut moments);
        } else {
            for (at_ns, what) in moments.drain(..) {
                self.push(at_ns, what);
            }
        }
        self.slots[level * SLOTS + digit].moments = moments;
    }

    #[inline]
    fn first_taken(&self) -> Option<(usize, usize)> {
        let level = self.taken.iter().position(|taken| *taken != 0)?;
        Some((level, self.taken[level].trailing_zeros() as usize))
    }
}

impl<T: Copy + Ord> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            moments: Vec::new(),
            least_ns: u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;

    use super::*;

    /// Distances near and far, and any moment at all.
    fn distance() -> impl Strategy<Value = u64> {
        prop_oneof![
            0_u64..3000,
            0_u64..100_000,
            0_u64..300_000_000,
            0_u64..1 << 50,
            any::<u64>()
        ]
    }

    proptest! {
        /// Beside std's heap.
        #[test]
        fn it_hands_out_in_order(
            begin in distance(),
            steps in prop::collection::vec((any::<bool>(), distance(), 0_u8..4), 0..400),
        ) {
            let (mut wheel, mut heap, mut now_ns) = (Wheel::new(), BinaryHeap::new(), begin);
            for (push, distance, what) in steps {
                if push {
                    let at_ns = now_ns.saturating_add(distance);
                    wheel.push(at_ns, what);
                    heap.push(Reverse((at_ns, what)));
                } else {
                    now_ns = now_ns.saturating_add(distance % 400_000_000);
                    for _ in 0..5 {
                        let due = heap.peek().copied().filter(|Reverse((at_ns, _))| *at_ns <= now_ns);
                        prop_assert_eq!(wheel.pop(now_ns), due.map(|Reverse(due)| due));
                        due.and_then(|_| heap.pop());
                    }
                }
                prop_assert_eq!(wheel.next_ns(), heap.peek().map(|Reverse((at_ns, _))| *at_ns));
            }
            while let Some(Reverse(due)) = heap.pop() {
                prop_assert_eq!(wheel.pop(u64::MAX), Some(due));
            }
            prop_assert_eq!(wheel.pop(u64::MAX), None);
        }
    }
}
