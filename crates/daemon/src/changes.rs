//! What became of changes: counted for metrics, and told to those who watch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::broadcast;

use crate::api::Change;
use crate::change::ChangeError;

/// A watcher that lags this many changes behind misses the oldest.
const REMEMBERED: usize = 256;

/// Changes since the daemon started.
#[derive(Debug)]
pub(crate) struct Outcomes {
    made: AtomicU64,
    failed: AtomicU64,
    last_failed: AtomicBool,
    told: broadcast::Sender<Change>,
}

impl Outcomes {
    pub(crate) fn new() -> Self {
        Self {
            made: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_failed: AtomicBool::new(false),
            told: broadcast::Sender::new(REMEMBERED),
        }
    }

    /// Of a change that ended; `what` says what it was to change, for people.
    pub(crate) fn note<T>(
        &self,
        ended: &Result<T, ChangeError>,
        generation: impl FnOnce(&T) -> u64,
        what: impl FnOnce(&T) -> Vec<String>,
    ) {
        self.last_failed.store(ended.is_err(), Ordering::Relaxed);
        match ended {
            Ok(done) => {
                self.made.fetch_add(1, Ordering::Relaxed);
                if self.told.receiver_count() > 0 {
                    // Nobody may be left by now.
                    let _ = self.told.send(Change {
                        generation: generation(done),
                        what: what(done),
                    });
                }
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Changes from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Change> {
        self.told.subscribe()
    }

    /// Made and failed, and whether the latest was made.
    pub(crate) fn counts(&self) -> ([u64; 2], bool) {
        let counts = [&self.made, &self.failed].map(|count| count.load(Ordering::Relaxed));
        (counts, !self.last_failed.load(Ordering::Relaxed))
    }
}
