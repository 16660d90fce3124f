//! One atomic store makes a generation the one that forwards; it is retired when every worker has passed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use engine::Snapshot;

/// How long a publish waits between two looks at the workers: a burst takes about as long.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// The snapshot that forwards, and how far each worker is.
#[derive(Debug)]
pub(crate) struct Published {
    snapshot: ArcSwap<Snapshot>,
    /// By worker: the generation of its latest burst.
    passed: Vec<AtomicU64>,
}

impl Published {
    /// Empty tables of generation 0, which no worker has passed.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            snapshot: ArcSwap::default(),
            passed: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The snapshot for one burst of `worker`, which has nothing of an earlier one left.
    pub(crate) fn load(&self, worker: usize) -> arc_swap::Guard<Arc<Snapshot>> {
        let snapshot = self.snapshot.load();
        if let Some(passed) = self.passed.get(worker) {
            passed.store(snapshot.generation, Ordering::Release);
        }
        snapshot
    }

    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Makes `snapshot` the one that forwards. Afterwards the workers are to be woken, for [`Published::retired`].
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.store(snapshot);
    }

    /// Waits until no worker decides by a generation older than `generation`; false when `patience` ends first.
    pub(crate) fn retired(&self, generation: u64, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let behind = |passed: &AtomicU64| passed.load(Ordering::Acquire) < generation;
        while self.passed.iter().any(behind) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(generation: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            generation,
            ..Snapshot::default()
        })
    }

    #[test]
    fn a_generation_retires_when_every_worker_has_passed_it() {
        let published = Published::new(2);
        published.publish(generation(1));
        published.publish(generation(2));
        assert_eq!(published.current().generation, 2);
        assert_eq!(published.load(0).generation, 2);
        assert!(!published.retired(2, Duration::from_millis(1)));
        assert_eq!(published.load(1).generation, 2);
        assert!(published.retired(2, Duration::ZERO));
    }

    #[test]
    fn a_burst_keeps_its_snapshot_while_the_next_is_published() {
        let published = Published::new(1);
        published.publish(generation(1));
        let burst = published.load(0);
        published.publish(generation(2));
        assert_eq!(burst.generation, 1);
    }
}
