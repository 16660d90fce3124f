//! Events: `events:` of the lab file at their times, and the same by command; each is one change, made or not, as a whole.
//!
//! What is to come stands in the declared state, and leaves it with the change that it makes. So a daemon that takes the
//! lab over, and `export`, know what is left; a new file brings its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use std::{fs, io};

use lab::RunDir;
use model::change::Operation;
use model::config::{Event, Time};

use crate::api::{EventResult, EventState};
use crate::change::ChangeError;
use crate::running::Lab;
use crate::up::UpError;
use crate::worker::monotonic_ns;

/// What is remembered of what happened: all of a file's events, and a busy day of commands.
const REMEMBERED: usize = 1000;
/// In the run directory: when the lab came up, in nanoseconds of CLOCK_MONOTONIC, which outlives daemons.
const FILE: &str = "up-since";

/// When the lab came up, and what happened since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Events {
    since_ns: OnceLock<u64>,
    past: Mutex<VecDeque<EventState>>,
}

impl Events {
    /// The lab is up: now, or where it is not `fresh`, since an earlier daemon said so.
    ///
    /// # Errors
    /// The run directory cannot be written.
    pub(crate) fn begin(&self, run_dir: &RunDir, fresh: bool) -> io::Result<()> {
        let path = run_dir.file(FILE);
        let earlier = fs::read_to_string(&path)
            .ok()
            .filter(|_| !fresh)
            .and_then(|text| text.trim().parse().ok());
        let now = monotonic_ns();
        let since = earlier.filter(|since| *since <= now).unwrap_or(now);
        let _ = self.since_ns.set(since);
        fs::write(path, since.to_string())
    }

    /// How long ago the lab came up.
    pub(crate) fn age(&self) -> Time {
        let since = self.since_ns.get().copied();
        Time(since.map_or(0, |since| monotonic_ns().saturating_sub(since)))
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<EventState>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, event: &Event, at: Time, done: &Result<u64, ChangeError>) {
        let (state, generation, message) = match done {
            Ok(generation) => {
                tracing::info!("event at {at}: {event}: generation {generation}");
                (EventResult::Done, Some(*generation), None)
            }
            Err(error) => {
                tracing::warn!("event at {at}: {event}: failed: {error}");
                (EventResult::Failed, None, Some(error.to_string()))
            }
        };
        let mut past = self.past();
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(EventState {
            at: at.to_string(),
            event: event.to_string(),
            state,
            generation,
            message,
        });
    }
}

impl Lab {
    /// What happened, then what is to come.
    pub(crate) fn events(&self) -> Vec<EventState> {
        let mut all: Vec<EventState> = self.events.past().iter().cloned().collect();
        let current = self.current();
        let mut pending: Vec<&Event> = current.config.events.iter().collect();
        pending.sort_by_key(|event| event.at.0);
        all.extend(pending.into_iter().map(|event| EventState {
            at: event.at.to_string(),
            event: event.to_string(),
            state: EventResult::Pending,
            generation: None,
            message: None,
        }));
        all
    }

    /// Not for asynchronous code.
    fn carry_out_event(&self, event: &Event, timed: bool) -> Result<u64, ChangeError> {
        // Of a command: as precise as a person is.
        let age = Time(self.events.age().0 / 1_000_000 * 1_000_000);
        let done = self.change(None, |config| {
            let mut operations = model::change::event(config, event)?;
            operations.extend(timed.then(|| forget(event)));
            Ok(operations)
        });
        self.events
            .remember(event, if timed { event.at } else { age }, &done);
        if timed && matches!(done, Err(ChangeError::Refused(_) | ChangeError::Failed(_))) {
            let forgotten = self.change(None, |_| Ok(vec![forget(event)]));
            // Rather none of the events that remain than this one for ever.
            forgotten.map_err(|_| ChangeError::Down)?;
        }
        done
    }
}

/// Has each event happen at its time, until the lab is taken down.
pub(crate) async fn run(lab: Arc<Lab>) {
    let mut generations = lab.generations();
    loop {
        generations.borrow_and_update();
        let current = lab.current();
        let Some(event) = current.config.events.iter().min_by_key(|event| event.at.0) else {
            match generations.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let left_ns = event.at.0.saturating_sub(lab.events.age().0);
        if left_ns > 0 {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_nanos(left_ns)) => {}
                // It may have been taken out of the file.
                _ = generations.changed() => {}
            }
            continue;
        }
        if let Err(ChangeError::Down) = happen(&lab, event.clone(), true).await {
            return;
        }
    }
}

/// Has an event happen now; `timed`: it is one of the file's. Returns the generation that forwards from then on.
///
/// # Errors
/// As [`Lab::change`]; it is remembered as failed, and does not happen again.
pub(crate) async fn happen(lab: &Arc<Lab>, event: Event, timed: bool) -> Result<u64, ChangeError> {
    let lab = Arc::clone(lab);
    let done = tokio::task::spawn_blocking(move || lab.carry_out_event(&event, timed));
    let ended = |error| UpError::failed(format!("the event ended without a result: {error}"));
    done.await.unwrap_or_else(|error| Err(ended(error).into()))
}

fn forget(event: &Event) -> Operation {
    Operation::ForgetEvent {
        event: Box::new(event.clone()),
    }
}
