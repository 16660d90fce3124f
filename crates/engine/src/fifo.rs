//! A queue in blocks of one size: however long it grows, nothing that waits is moved, and what it gave back is reused.

use std::collections::VecDeque;

/// Values in the order they came. One that is empty holds nothing.
#[derive(Debug)]
pub(crate) struct Fifo<T> {
    blocks: VecDeque<Box<[T]>>,
    /// Values of the first block that were taken.
    head: usize,
    length: usize,
}

/// Blocks that no queue uses.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    blocks: Vec<Box<[T]>>,
    /// Values of a block.
    block: usize,
    /// Blocks kept at most; more go back to the system.
    kept: usize,
}

impl<T: Copy> Fifo<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn push(&mut self, pool: &mut Pool<T>, mut values: &[T]) {
        while let Some(&filler) = values.first() {
            let end = self.head + self.length;
            let (block, begin) = (end / pool.block, end % pool.block);
            if block == self.blocks.len() {
                self.blocks.push_back(pool.take(filler));
            }
            let (now, later) = values.split_at(values.len().min(pool.block - begin));
            self.blocks[block][begin..begin + now.len()].copy_from_slice(now);
            self.length += now.len();
            values = later;
        }
    }

    /// Moves the first values to `to`; false, and nothing happens, when there are fewer.
    pub(crate) fn take(&mut self, pool: &mut Pool<T>, mut to: &mut [T]) -> bool {
        if to.len() > self.length {
            return false;
        }
        while !to.is_empty() {
            let count = to.len().min(pool.block - self.head);
            let (now, later) = to.split_at_mut(count);
            now.copy_from_slice(&self.blocks[0][self.head..self.head + count]);
            to = later;
            self.head += count;
            self.length -= count;
            if self.head == pool.block || self.length == 0 {
                self.head = 0;
                pool.give_back(self.blocks.pop_front());
            }
        }
        true
    }

    pub(crate) fn pop(&mut self, pool: &mut Pool<T>) -> Option<T> {
        let mut first = [*self.first()?];
        self.take(pool, &mut first).then_some(first[0])
    }

    pub(crate) fn first(&self) -> Option<&T> {
        (self.length > 0).then(|| &self.blocks[0][self.head])
    }
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self {
            blocks: VecDeque::new(),
            head: 0,
            length: 0,
        }
    }
}

impl<T: Copy> Pool<T> {
    /// Blocks of `block` values, at least 1, of which `kept` wait for their next use at most.
    pub(crate) fn new(block: usize, kept: usize) -> Self {
        Self {
            blocks: Vec::with_capacity(kept),
            block: block.max(1),
            kept,
        }
    }

    fn take(&mut self, filler: T) -> Box<[T]> {
        let spare = self.blocks.pop();
        spare.unwrap_or_else(|| vec![filler; self.block].into_boxed_slice())
    }

    fn give_back(&mut self, block: Option<Box<[T]>>) {
        if self.blocks.len() < self.kept {
            self.blocks.extend(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Beside std's queue: several queues share a pool.
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec((0_usize..3, any::<bool>(), 0_usize..40), 0..300)) {
            let mut pool = Pool::new(7, 2);
            let mut ours: [Fifo<u32>; 3] = Default::default();
            let mut theirs: [VecDeque<u32>; 3] = Default::default();
            let mut next = 0;
            for (queue, push, count) in steps {
                let (ours, theirs) = (&mut ours[queue], &mut theirs[queue]);
                if push {
                    let values: Vec<u32> = (next..).take(count).collect();
                    next += 40;
                    ours.push(&mut pool, &values);
                    theirs.extend(&values);
                } else {
                    let mut taken = vec![0; count];
                    let there = ours.take(&mut pool, &mut taken);
                    prop_assert_eq!(there, count <= theirs.len());
                    if there {
                        prop_assert_eq!(taken, theirs.drain(..count).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(ours.first(), theirs.front());
                prop_assert_eq!(ours.is_empty(), theirs.is_empty());
                // No more than the queue needs, wherever in its block it begins.
                prop_assert!(ours.blocks.len() <= theirs.len().div_ceil(7) + 1);
                prop_assert!(!theirs.is_empty() || ours.blocks.is_empty());
            }
        }
    }
}
