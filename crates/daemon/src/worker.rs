//! A forwarding thread: reads bursts from the ports, lets the engine decide, writes what it forwards.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::DropReason;
use engine::flow_log::FlowEvent;
use engine::snapshot::PortId;
use engine::stats::{Flow, Stats};
use engine::{Verdict, WorkerOptions};
use packet::{Burst, Packet};
use port::{Queue, WriteError};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::capture::tap::{Place, Selection, Tap, Taps};
use crate::publish::Published;
use crate::thread::{busy, drop_capabilities, unguessable};
use crate::waiting::{Pause, Waiting};

/// Packets read from one port before the next has its turn: enough to share the cost of a burst, few enough that
/// 64 buffers of 64 KiB stay within a core's cache share and that a busy port does not make the others wait.
const BURST: usize = 64;
/// Ports that one call to the kernel reports as readable; the rest come with the next call.
const EVENTS: usize = 128;
/// Reads of a port that may fail in a row before it counts as gone: an error that stays is reported for ever, and a
/// level-triggered loop would spin on it.
const FAILED_READS: u32 = 64;
/// What the kernel may add to a wait to save wake-ups; 50 us when nothing is said, which every packet under way would feel.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;
/// The epoll token of the mailbox; ports have their index.
const MAIL: u64 = u64::MAX;

/// What a worker is asked for, between two bursts.
#[derive(Debug)]
pub(crate) enum Ask {
    Stats(oneshot::Sender<Stats>),
    /// The time this thread has had of a core.
    Busy(oneshot::Sender<Duration>),
    Flows(oneshot::Sender<Vec<Flow>>),
    /// And how many were not kept.
    FlowEvents(oneshot::Sender<(Vec<FlowEvent>, u64)>),
    /// By port: does it still forward.
    Alive(oneshot::Sender<Vec<bool>>),
    /// Ports to come, watched but not read yet.
    Ready(Vec<(PortId, Queue)>, oneshot::Sender<io::Result<()>>),
    /// Answered with what was closed, to be dropped elsewhere: the end of a TUN takes tens of milliseconds.
    Ports(PortChanges, oneshot::Sender<Vec<Queue>>),
    /// Answered when it sees packets.
    OpenTap(Tap, oneshot::Sender<()>),
    SelectTap(u32, Arc<Selection>),
    /// Answered with what did not fit and was not told of.
    CloseTap(u32, oneshot::Sender<HashMap<Place, u64>>),
    Stop,
}

/// What every worker is to do to its ports.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortChanges {
    /// The same TUN for another NIC: from this id to that.
    pub(crate) renamed: Vec<(PortId, PortId)>,
    /// To be read from now on; [`Workers::ready_ports`] has brought their queues.
    pub(crate) opened: Vec<PortId>,
    pub(crate) closed: Vec<PortId>,
}

impl PortChanges {
    pub(crate) fn is_idle(&self) -> bool {
        self.renamed.is_empty() && self.opened.is_empty() && self.closed.is_empty()
    }
}

/// The way to a running worker.
#[derive(Debug)]
pub(crate) struct Handle {
    mail: crossbeam::channel::Sender<Ask>,
    wake: Arc<OwnedFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How workers are to work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) engine: WorkerOptions,
    pub(crate) waiting: Waiting,
}

/// All workers of a lab. They stop when this is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: Vec<Handle>,
}

struct Slot {
    queue: Queue,
    alive: bool,
    failed_reads: u32,
}

struct Worker {
    number: usize,
    engine: engine::Worker,
    published: Arc<Published>,
    /// By [`PortId`].
    ports: Vec<Slot>,
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    mail: crossbeam::channel::Receiver<Ask>,
    burst: Burst,
    verdicts: Vec<Verdict>,
    pause: Pause,
    /// What of the burst could not be written, in order.
    unwritten: Vec<(usize, DropReason)>,
    taps: Taps,
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

impl Worker {
    fn new(
        number: usize,
        queues: Vec<Queue>,
        settings: Settings,
        published: &Arc<Published>,
        wake: &Arc<OwnedFd>,
        mail: crossbeam::channel::Receiver<Ask>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let readable = epoll::EventFlags::IN;
        epoll::add(&epoll, &**wake, epoll::EventData::new_u64(MAIL), readable)?;
        for (port, queue) in queues.iter().enumerate() {
            let token = epoll::EventData::new_u64(port as u64);
            if let Some(fd) = queue.fd() {
                epoll::add(&epoll, fd, token, readable)?;
            }
        }
        Ok(Self {
            number,
            engine: engine::Worker::new(settings.engine, unguessable()),
            published: Arc::clone(published),
            ports: queues.into_iter().map(Slot::new).collect(),
            epoll,
            wake: Arc::clone(wake),
            mail,
            burst: Burst::new(BURST),
            verdicts: Vec::with_capacity(BURST),
            pause: Pause::new(settings.waiting),
            unwritten: Vec::with_capacity(BURST),
            taps: Taps::default(),
        })
    }

    fn run(mut self) {
        let _guard = AbortOnPanic;
        if let Err(error) = drop_capabilities() {
            tracing::warn!("worker {}: keeps its capabilities: {error}", self.number);
        }
        if let Err(error) = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK_NS)) {
            tracing::warn!("worker {}: its timers are late by 50 us: {error}", self.number);
        }
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let timeout = self.pause.begin(self.engine.next_arrival_ns(), monotonic_ns);
            let waited = epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            );
            match waited {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!("worker {}: cannot wait for packets: {error}", self.number);
                    return;
                }
            }
            self.pause.end(events.is_empty(), monotonic_ns);
            for event in &events {
                match event.data.u64() {
                    MAIL => {
                        if !self.read_mail() {
                            return;
                        }
                    }
                    port => self.serve(port as usize),
                }
                self.arrive();
            }
            self.arrive();
        }
    }

    /// Writes what was under way and is there by now.
    fn arrive(&mut self) {
        while let Some(due_ns) = self.engine.next_arrival_ns() {
            let now_ns = monotonic_ns();
            if due_ns > now_ns {
                return;
            }
            let snapshot = self.published.load(self.number);
            self.engine
                .arrive(&snapshot, now_ns, &mut self.burst, &mut self.verdicts);
            if !self.taps.is_empty() {
                self.taps.passed(now_ns, self.engine.told());
            }
            self.transmit(now_ns);
            self.engine.delivered(monotonic_ns());
        }
    }

    /// One burst of one port, from the first read to the last write.
    fn serve(&mut self, port: usize) {
        let snapshot = self.published.load(self.number);
        let Some(slot) = self.ports.get_mut(port) else {
            return;
        };
        self.burst.clear();
        let read = slot.queue.read_burst(&mut self.burst);
        let now_ns = monotonic_ns();
        if self.burst.length > 0 {
            slot.failed_reads = 0;
            let id = PortId(u32::try_from(port).unwrap_or(u32::MAX));
            if !self.taps.is_empty() {
                self.taps.read(id, &self.burst);
            }
            self.engine
                .process(&snapshot, now_ns, id, &mut self.burst, &mut self.verdicts);
            if !self.taps.is_empty() {
                self.taps.decided(
                    now_ns,
                    id,
                    self.burst.filled(),
                    &self.verdicts,
                    self.engine.told(),
                );
            }
            self.transmit(now_ns);
            self.reply(port);
        }
        if let Err(error) = read {
            self.read_failed(port, &error);
        }
    }

    fn transmit(&mut self, now_ns: u64) {
        self.unwritten.clear();
        let packets = self.burst.filled_mut().iter_mut();
        for (index, (packet, verdict)) in packets.zip(&self.verdicts).enumerate() {
            let Verdict::Forward { port, fragment, .. } = *verdict else {
                continue;
            };
            let lost = match self.ports.get_mut(port.index()) {
                Some(slot) if slot.alive => match slot.write(packet, fragment) {
                    Ok(()) => continue,
                    Err(WriteError::Full) => DropReason::PortFull,
                    // Not yet the end of the port: it may be down for a while. Reading says when it is gone.
                    Err(WriteError::Gone) => DropReason::PortGone,
                    Err(WriteError::Refused) => DropReason::MalformedVnetHeader,
                },
                _ => DropReason::PortGone,
            };
            self.engine.lost(index, lost, now_ns);
            self.unwritten.push((index, lost));
        }
        if !self.taps.is_empty() {
            let packets = self.burst.filled();
            self.taps
                .written(monotonic_ns(), packets, &self.verdicts, &self.unwritten);
        }
    }

    /// Tells the sender what the fabric has to say about its packets. A port that takes no more is told no more.
    fn reply(&mut self, port: usize) {
        let Some(slot) = self.ports.get_mut(port).filter(|slot| slot.alive) else {
            return;
        };
        let replies = self.engine.replies_mut().filled_mut();
        let mut written = 0;
        for reply in &mut *replies {
            if slot.queue.write(reply).is_err() {
                break;
            }
            written += 1;
        }
        if !self.taps.is_empty() {
            let id = PortId(u32::try_from(port).unwrap_or(u32::MAX));
            self.taps.replied(monotonic_ns(), id, &replies[..written]);
        }
    }

    /// Takes a port out of service when it cannot be read any more. The others lose nothing.
    fn read_failed(&mut self, port: usize, error: &io::Error) {
        let Some(slot) = self.ports.get_mut(port) else {
            return;
        };
        slot.failed_reads += 1;
        if slot.alive && (port::queue::is_gone(error) || slot.failed_reads >= FAILED_READS) {
            slot.alive = false;
            if let Some(fd) = slot.queue.fd() {
                let _ = epoll::delete(&self.epoll, fd);
            }
            tracing::warn!("port {port} is gone: {error}; packets for it are dropped as PortGone");
        }
    }

    fn ready_ports(&mut self, queues: Vec<(PortId, Queue)>) -> io::Result<()> {
        for (port, queue) in queues {
            if let Some(fd) = queue.fd() {
                epoll::add(&self.epoll, fd, token(port), epoll::EventFlags::empty())?;
            }
            *self.slot(port) = Slot::new(queue);
        }
        Ok(())
    }

    fn change_ports(&mut self, changes: PortChanges) -> Vec<Queue> {
        let closed = changes.closed.into_iter();
        let closed = closed.filter_map(|port| self.close(port)).collect();
        // All at once: one may get the id that another has.
        let moved: Vec<(PortId, Slot)> = changes
            .renamed
            .into_iter()
            .map(|(from, to)| (to, std::mem::replace(self.slot(from), Slot::closed())))
            .collect();
        for (port, slot) in moved {
            *self.slot(port) = slot;
            self.read_from(port);
        }
        for port in changes.opened {
            self.read_from(port);
        }
        closed
    }

    /// Has the kernel report a port that is watched already, under its id.
    fn read_from(&mut self, port: PortId) {
        let epoll = &self.epoll;
        let Some(slot) = self.ports.get(port.index()).filter(|slot| slot.alive) else {
            return;
        };
        if let Some(fd) = slot.queue.fd()
            && let Err(error) = epoll::modify(epoll, fd, token(port), epoll::EventFlags::IN)
        {
            tracing::error!("port {} is not read: {error}", port.0);
        }
    }

    fn slot(&mut self, port: PortId) -> &mut Slot {
        if self.ports.len() <= port.index() {
            self.ports.resize_with(port.index() + 1, Slot::closed);
        }
        &mut self.ports[port.index()]
    }

    /// The queue of a port that is no more.
    fn close(&mut self, port: PortId) -> Option<Queue> {
        let slot = std::mem::replace(self.ports.get_mut(port.index())?, Slot::closed());
        if let (true, Some(fd)) = (slot.alive, slot.queue.fd()) {
            let _ = epoll::delete(&self.epoll, fd);
        }
        Some(slot.queue)
    }

    /// False: the worker is to end.
    fn read_mail(&mut self) -> bool {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut count);
        // An idle worker passes to the published generation here.
        drop(self.published.load(self.number));
        while let Ok(ask) = self.mail.try_recv() {
            // Whoever asked may have gone; that is its own affair.
            match ask {
                Ask::Stats(answer) => drop(answer.send(self.engine.stats())),
                Ask::Busy(answer) => drop(answer.send(busy())),
                Ask::Flows(answer) => drop(answer.send(self.engine.flows(monotonic_ns()))),
                Ask::FlowEvents(answer) => {
                    let snapshot = self.published.load(self.number);
                    let events = self.engine.take_flow_events(&snapshot, monotonic_ns());
                    drop(answer.send(events));
                }
                Ask::Alive(answer) => {
                    drop(answer.send(self.ports.iter().map(|slot| slot.alive).collect()));
                }
                Ask::Ready(queues, answer) => drop(answer.send(self.ready_ports(queues))),
                Ask::Ports(changes, answer) => drop(answer.send(self.change_ports(changes))),
                Ask::OpenTap(tap, answer) => {
                    self.taps.open(tap);
                    self.engine.tell(true);
                    let _ = answer.send(());
                }
                Ask::SelectTap(id, selection) => self.taps.select(id, &selection),
                Ask::CloseTap(id, answer) => {
                    drop(answer.send(self.taps.close(id)));
                    self.engine.tell(!self.taps.is_empty());
                }
                Ask::Stop => return false,
            }
        }
        true
    }
}

impl Slot {
    #[inline]
    fn write(&mut self, packet: &mut Packet, fragment: Option<u16>) -> Result<(), WriteError> {
        match fragment {
            None => self.queue.write(packet),
            Some(mtu) => self.queue.write_fragments(packet, mtu),
        }
    }
}

impl Slot {
    fn new(queue: Queue) -> Self {
        Self {
            queue,
            alive: true,
            failed_reads: 0,
        }
    }

    /// Of an id whose port is gone.
    fn closed() -> Self {
        Self {
            alive: false,
            ..Self::new(Queue::Null)
        }
    }
}

/// Nanoseconds of CLOCK_MONOTONIC, the clock of the engine.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn ended() -> io::Error {
    io::Error::other("a worker has ended")
}

fn token(port: PortId) -> epoll::EventData {
    epoll::EventData::new_u64(u64::from(port.0))
}

/// A dead worker in a living daemon would be half a lab: the process goes, and `up` adopts the lab.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
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
