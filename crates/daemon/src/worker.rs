//! A forwarding thread: reads bursts from the ports, lets the engine decide, writes what it forwards.

mod handles;

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use engine::DropReason;
use engine::flow_log::FlowEvent;
use engine::snapshot::PortId;
use engine::stats::{Flow, Stats};
use engine::{Verdict, WorkerOptions};
use packet::{Burst, Packet};
use port::{Queue, WriteError};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::capture::tap::{Place, Selection, Tap, Taps};
use crate::publish::Published;
use crate::thread::{busy, drop_capabilities, run_on, unguessable};
use crate::waiting::{Pause, Waiting};

pub(crate) use handles::Workers;

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

/// How workers are to work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) engine: WorkerOptions,
    pub(crate) waiting: Waiting,
    pub(crate) cpu: Option<u16>,
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
    /// Where packets of a flow become one.
    whole: Packet,
    pause: Pause,
    cpu: Option<u16>,
    /// What of the burst could not be written, in order.
    unwritten: Vec<(usize, DropReason)>,
    taps: Taps,
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
            whole: Packet::new(),
            pause: Pause::new(settings.waiting),
            cpu: settings.cpu,
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
        if let Some(Err(error)) = self.cpu.map(run_on) {
            tracing::warn!("worker {}: runs where the kernel likes: {error}", self.number);
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
        let (mut at, mut alike) = (0, 0);
        while let Some(&verdict) = self.verdicts.get(at) {
            let Verdict::Forward { port, fragment, .. } = verdict else {
                at += 1;
                continue;
            };
            if alike <= at {
                alike = at
                    + self.verdicts[at..]
                        .iter()
                        .take_while(|other| **other == verdict)
                        .count();
            }
            let packets = self.burst.filled_mut().get_mut(at..alike).unwrap_or_default();
            let (count, written) = match self.ports.get_mut(port.index()) {
                Some(slot) if slot.alive => slot.write(packets, fragment, &mut self.whole),
                _ => (1, Err(WriteError::Gone)),
            };
            if let Err(error) = written {
                let lost = match error {
                    WriteError::Full => DropReason::PortFull,
                    // Not yet the end of the port: it may be down for a while. Reading says when it is gone.
                    WriteError::Gone => DropReason::PortGone,
                    WriteError::Refused => DropReason::MalformedVnetHeader,
                };
                for index in at..at + count {
                    self.engine.lost(index, lost, now_ns);
                    self.unwritten.push((index, lost));
                }
            }
            at += count.max(1);
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
    /// Writes the first of `packets`, and what can go with it. Returns how many these are.
    #[inline]
    fn write(
        &mut self,
        packets: &mut [Packet],
        fragment: Option<u16>,
        whole: &mut Packet,
    ) -> (usize, Result<(), WriteError>) {
        match (fragment, packets) {
            (Some(mtu), [packet, ..]) => (1, self.queue.write_fragments(packet, mtu)),
            (_, packets) => self.queue.write_run(packets, whole),
        }
    }

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
