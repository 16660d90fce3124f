//! The ways to the workers of a lab: starting them, asking them between two bursts, ending them.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::flow_log::FlowEvent;
use engine::snapshot::PortId;
use engine::stats::{Flow, Stats};
use port::Queue;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use super::{Ask, PortChanges, Settings, Worker};
use crate::capture::tap::{Place, Selection, Tap};
use crate::publish::Published;

/// The way to a running worker.
#[derive(Debug)]
pub(crate) struct Handle {
    mail: crossbeam::channel::Sender<Ask>,
    wake: Arc<OwnedFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// All workers of a lab. They stop when this is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: Vec<Handle>,
}

impl Workers {
    /// Starts one worker per entry of `queues`, each with its queue of every port, by [`PortId`].
    ///
    /// # Errors
    /// The kernel has no more threads or descriptors; nothing runs then.
    pub(crate) fn start(
        queues: Vec<Vec<Queue>>,
        settings: Settings,
        published: &Arc<Published>,
    ) -> io::Result<Self> {
        let mut workers = Self {
            handles: Vec::with_capacity(queues.len()),
        };
        for (number, queues) in queues.into_iter().enumerate() {
            let (sender, receiver) = crossbeam::channel::unbounded();
            let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            let worker = Worker::new(number, queues, settings, published, &wake, receiver)?;
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker.run())?;
            workers.handles.push(Handle {
                mail: sender,
                wake,
                thread: Mutex::new(Some(thread)),
            });
        }
        Ok(workers)
    }

    /// Asks every worker for its counters.
    pub(crate) async fn stats(&self) -> Vec<Stats> {
        self.ask(Ask::Stats).await
    }

    /// Asks every worker how long it has worked: time on a core, in the kernel too.
    pub(crate) async fn busy(&self) -> Vec<Duration> {
        self.ask(Ask::Busy).await
    }

    /// Asks every worker for its records of NSG state.
    pub(crate) async fn flows(&self) -> Vec<Vec<Flow>> {
        self.ask(Ask::Flows).await
    }

    /// Takes from every worker what happened to logged flows since the last call.
    pub(crate) async fn flow_events(&self) -> Vec<(Vec<FlowEvent>, u64)> {
        self.ask(Ask::FlowEvents).await
    }

    /// Asks every worker which ports it still forwards to, by [`PortId`].
    pub(crate) async fn alive(&self) -> Vec<Vec<bool>> {
        self.ask(Ask::Alive).await
    }

    /// Gives every worker its queues of ports to come, by worker: nothing is read from them before [`Workers::change_ports`].
    /// All that can fail about a port fails here. Not for asynchronous code.
    ///
    /// # Errors
    /// A port could not be watched, or a worker is gone; no worker has any of them then.
    pub(crate) fn ready_ports(&self, queues: Vec<Vec<(PortId, Queue)>>) -> io::Result<()> {
        let ports: Vec<PortId> = queues.iter().flatten().map(|&(port, _)| port).collect();
        for (handle, queues) in self.handles.iter().zip(queues) {
            let (sender, receiver) = oneshot::channel();
            let answer = match handle.mail.send(Ask::Ready(queues, sender)) {
                Ok(()) => {
                    handle.wake();
                    receiver.blocking_recv().unwrap_or_else(|_| Err(ended()))
                }
                Err(_) => Err(ended()),
            };
            if let Err(error) = answer {
                self.close_ports(ports);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Has every worker close what is left of these ports, at once. Not for asynchronous code.
    pub(crate) fn close_ports(&self, ports: Vec<PortId>) {
        let changes = PortChanges {
            closed: ports,
            ..PortChanges::default()
        };
        if let Err(error) = self.change_ports(&changes) {
            tracing::error!("a port cannot be closed: {error}");
        }
    }

    /// Has every worker change its ports. Not for asynchronous code. Returns what was closed.
    ///
    /// # Errors
    /// A worker is gone, and with it its ports; the others have changed theirs.
    pub(crate) fn change_ports(&self, changes: &PortChanges) -> io::Result<Vec<Queue>> {
        let (mut closed, mut whole) = (Vec::new(), true);
        for handle in &self.handles {
            let (sender, receiver) = oneshot::channel();
            let asked = handle.mail.send(Ask::Ports(changes.clone(), sender));
            handle.wake();
            let answer = asked.ok().and_then(|()| receiver.blocking_recv().ok());
            whole &= answer.is_some();
            closed.extend(answer.unwrap_or_default());
        }
        if whole { Ok(closed) } else { Err(ended()) }
    }

    /// Has every worker capture for `tap`. A worker that is gone has no packets. Not for asynchronous code.
    pub(crate) fn open_taps(&self, tap: impl Fn() -> Tap) {
        for handle in &self.handles {
            let (sender, receiver) = oneshot::channel();
            if handle.mail.send(Ask::OpenTap(tap(), sender)).is_ok() {
                handle.wake();
                let _ = receiver.blocking_recv();
            }
        }
    }

    /// Changes what a capture wants.
    pub(crate) fn select_taps(&self, id: u32, selection: &Arc<Selection>) {
        for handle in &self.handles {
            let _ = handle.mail.send(Ask::SelectTap(id, Arc::clone(selection)));
            handle.wake();
        }
    }

    /// Ends a capture, whose ring gets nothing any more. Returns what did not fit and was not told of. Not for
    /// asynchronous code.
    pub(crate) fn close_taps(&self, id: u32) -> HashMap<Place, u64> {
        let mut all = HashMap::new();
        for handle in &self.handles {
            let (sender, receiver) = oneshot::channel();
            if handle.mail.send(Ask::CloseTap(id, sender)).is_ok() {
                handle.wake();
            }
            for (place, missed) in receiver.blocking_recv().unwrap_or_default() {
                *all.entry(place).or_default() += missed;
            }
        }
        all
    }

    pub(crate) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Makes every worker look at its mailbox and at the published snapshot.
    pub(crate) fn wake(&self) {
        for handle in &self.handles {
            handle.wake();
        }
    }

    /// Ends the workers and waits for them; their queues are closed then.
    pub(crate) fn stop(&self) {
        for handle in &self.handles {
            // A worker that is gone needs no order to stop.
            let _ = handle.mail.send(Ask::Stop);
            handle.wake();
        }
        for handle in &self.handles {
            let thread = handle
                .thread
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(thread) = thread {
                let _ = thread.join();
            }
        }
    }

    async fn ask<T>(&self, ask: impl Fn(oneshot::Sender<T>) -> Ask) -> Vec<T> {
        let mut answers = Vec::with_capacity(self.handles.len());
        for handle in &self.handles {
            let (sender, receiver) = oneshot::channel();
            if handle.mail.send(ask(sender)).is_ok() {
                handle.wake();
                answers.push(receiver);
            }
        }
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers {
            all.extend(answer.await);
        }
        all
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Handle {
    fn wake(&self) {
        // It fails only when the counter is full, and then the worker is about to wake anyway.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}

fn ended() -> io::Error {
    io::Error::other("a worker has ended")
}

#[cfg(test)]
mod tests {
    use port::Offloads;

    use super::*;

    #[test]
    fn ports_that_one_worker_does_not_take_are_no_workers() {
        let published = Arc::new(Published::new(2));
        let workers = Workers::start(vec![vec![], vec![]], Settings::default(), &published).unwrap();
        let queue = || port::memory::pair(1, Offloads::None).0;
        let alive = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(workers.alive())
        };
        let of_both = |port| vec![vec![(PortId(port), queue())], vec![(PortId(port), queue())]];
        workers.ready_ports(of_both(0)).unwrap();
        assert_eq!(alive(), [[true], [true]]);
        // The second one ends.
        workers.handles[1].mail.send(Ask::Stop).unwrap();
        workers.handles[1].wake();
        let thread = workers.handles[1].thread.lock().unwrap().take();
        thread.unwrap().join().unwrap();
        assert!(workers.ready_ports(of_both(1)).is_err());
        assert_eq!(alive(), [[true, false]], "the first has let go of it");
    }
}
