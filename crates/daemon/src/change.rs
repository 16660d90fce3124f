//! The one way in which a running lab changes: compile what is wanted, publish it by one store, and wait until no packet
//! is decided by what was before. Whatever fails on the way leaves the present generation forwarding.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control::Generation;
use model::Topology;

use crate::attach::Attached;
use crate::learned;
use crate::running::{Current, Lab};
use crate::up::UpError;

/// A burst takes well under a millisecond; a worker this late does not run at all.
const RETIRE: Duration = Duration::from_secs(5);

/// What changes need beside the tables: the keeper and the run directory. Locked for the length of one change, so that
/// each begins with what the one before it left. Empty before the lab is complete and once it is being taken down.
#[derive(Debug, Default)]
pub(crate) struct Hands {
    attached: Mutex<Option<Attached>>,
    /// The lab is complete, or was.
    given: AtomicBool,
}

/// Why a change did not happen. The lab is as it was before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("the lab is being taken down")]
    Down,
    #[error("the lab is still coming up: try again when it runs")]
    NotYet,
    /// A rule of the specification forbids it.
    #[error("{0}")]
    Refused(#[from] model::change::Refusal),
    /// This machine, or a running lab, cannot.
    #[error("{0}")]
    Failed(#[from] UpError),
}

impl Hands {
    /// From here on the lab can be changed.
    pub(crate) fn give(&self, attached: Attached) {
        *self.lock() = Some(attached);
        self.given.store(true, Ordering::Relaxed);
    }

    /// Why there is nothing to change with.
    pub(crate) fn absent(&self) -> ChangeError {
        if self.given.load(Ordering::Relaxed) {
            ChangeError::Down
        } else {
            ChangeError::NotYet
        }
    }

    /// Waits for the end of a change under way; there will be no other.
    pub(crate) fn take(&self) -> Option<Attached> {
        self.lock().take()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Attached>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lab {
    /// Lets `edit` change what the tables are compiled from (routes learned, say), and forwards by the outcome. Returns
    /// its generation. Objects with ports must stay as they are. Takes milliseconds; not for asynchronous code.
    ///
    /// # Errors
    /// The lab is still coming up, or being taken down.
    pub(crate) fn revise(&self, edit: impl FnOnce(&mut Topology)) -> Result<u64, ChangeError> {
        let hands = self.hands.lock();
        let attached = hands.as_ref().ok_or_else(|| self.hands.absent())?;
        let present = self.current();
        let mut topology = (*present.generation.topology).clone();
        edit(&mut topology);
        let next = Current {
            generation: next(&present.generation, topology),
            ..(*present).clone()
        };
        let generation = self.publish(next);
        if let Err(error) = attached.store.count(generation) {
            // Only its number is lost: what was learned is learned anew.
            tracing::error!("{error}");
        }
        Ok(generation)
    }

    /// Starts a program in a namespace of the lab, as those of its file. Not for asynchronous code.
    ///
    /// # Errors
    /// The lab is still coming up or being taken down, or the program cannot be started.
    pub(crate) fn spawn(&self, namespace: &str, command: &str) -> Result<(), ChangeError> {
        let mut hands = self.hands.lock();
        let attached = hands.as_mut().ok_or_else(|| self.hands.absent())?;
        Ok(attached.keeper.spawn(namespace, command).map_err(UpError::from)?)
    }

    /// Makes `next` what forwards. Returns its generation.
    pub(crate) fn publish(&self, next: Current) -> u64 {
        let snapshot = Arc::clone(&next.generation.snapshot);
        let generation = snapshot.generation;
        // Kept until no worker reads its tables, so that none has to free them.
        let past = self.current();
        // Before a packet can be counted under an id, the id has a name.
        self.replace(next);
        // After it, so that what a probe learns meanwhile is in one table or the other; before a packet asks.
        self.health.fill(&self.current().generation);
        self.published.publish(snapshot);
        self.workers.wake();
        if !self.published.retired(generation, RETIRE) {
            tracing::error!("a worker does not pass to generation {generation}");
        }
        drop(past);
        self.announce(generation);
        generation
    }
}

/// The tables of a changed topology.
pub(crate) fn next(present: &Generation, mut topology: Topology) -> Generation {
    learned::carry(&present.topology, &mut topology);
    let number = present.snapshot.generation + 1;
    let compiled = control::compile_after(&present.pieces, &topology, number);
    present.next(Arc::new(topology), compiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_that_comes_up_is_not_said_to_go_down() {
        let hands = Hands::default();
        assert!(matches!(hands.absent(), ChangeError::NotYet));
        hands.given.store(true, Ordering::Relaxed);
        assert!(matches!(hands.absent(), ChangeError::Down));
    }
}
