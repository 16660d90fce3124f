//! `peerlane capture`: packets of a running lab as a stream of pcapng.
//!
//! Workers copy what is wanted into a bounded ring (`tap`), a thread per capture names, segments and writes it
//! (`pcapng`), and whoever reads the stream may be as slow as they like: what does not fit is counted, and told.

mod filter;
pub(crate) mod names;
pub(crate) mod pcapng;
pub(crate) mod tap;
#[cfg(test)]
mod tests;
mod vxlan;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use crate::api::CaptureRequest;
use crate::running::Lab;
use crate::worker::monotonic_ns;
use filter::Filter;
use names::Places;
use pcapng::{Form, Limits, Writer};
use tap::{RING_RECORDS, Record, Selection, Tap};

/// How long the thread of a capture sleeps at most: how soon it sees that nobody reads any more, or that the lab has changed.
const TICK: Duration = Duration::from_millis(50);
/// A piece of the stream is handed on when it is so long, or when no packet waits.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces on their way to the reader.
const PIECES: usize = 4;

/// A capture under way. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Stream {
    /// For [`Captures::stop`].
    pub(crate) id: u32,
    /// Whole pcapng blocks each.
    pub(crate) pieces: mpsc::Receiver<Bytes>,
}

/// The captures of a lab, each with the order to stop.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    latest: u32,
    stops: HashMap<u32, Arc<AtomicBool>>,
}

/// One capture as its thread sees it.
struct Capture {
    lab: Arc<Lab>,
    id: u32,
    request: CaptureRequest,
    stop: Arc<AtomicBool>,
    filter: Option<Arc<Filter>>,
    selection: Arc<Selection>,
    writer: Writer,
    places: Places,
    pieces: mpsc::Sender<Bytes>,
    ends: Option<Instant>,
}

/// What the workers fill.
struct Ring {
    records: Receiver<Record>,
    queued: Arc<AtomicUsize>,
}

/// Starts a capture.
///
/// # Errors
/// The filter is none, the lab does not have what is named, or as many run as may. For people.
pub(crate) fn start(lab: &Arc<Lab>, request: CaptureRequest) -> Result<Stream, String> {
    let current = lab.current();
    let names = |name: &str| names::addresses(&current.generation, name);
    let filter = request.filter.as_deref().map(|text| Filter::parse(text, &names));
    let filter = filter.transpose().map_err(|error| error.to_string())?;
    let places = Places::of(&current);
    if let Some(unknown) = places.unknown(&request) {
        return Err(unknown);
    }
    let form = match (request.raw, request.vxlan) {
        (true, true) => {
            return Err(String::from(
                "a packet in VXLAN is not as it was read: choose one",
            ));
        }
        (true, false) => Form::AsRead,
        (false, true) => Form::Vxlan,
        (false, false) => Form::Segments,
    };
    if request.vxlan && !request.ports.is_empty() {
        return Err(String::from("VXLAN is what links look like; a VM has none"));
    }
    let limits = Limits {
        bytes: request.snap_bytes.filter(|bytes| *bytes > 0).unwrap_or(u32::MAX),
        packets: request.packets.unwrap_or(u64::MAX),
    };
    let failed = |error: &dyn std::fmt::Display| format!("cannot start a capture: {error}");
    let mut writer = Writer::new(form, limits, epoch_ns()).map_err(|error| failed(&error))?;
    let selection = Arc::new(places.select(&request));
    for place in places.selected(&selection) {
        writer.describe(place, &places).map_err(|error| failed(&error))?;
    }
    let (id, stop) = lab
        .captures
        .add()
        .ok_or_else(|| format!("{} captures run in this lab, and no more can", tap::CAPTURES))?;
    let (sender, pieces) = mpsc::channel(PIECES);
    let capture = Capture {
        lab: Arc::clone(lab),
        id,
        ends: request
            .milliseconds
            .and_then(|milliseconds| Instant::now().checked_add(Duration::from_millis(milliseconds))),
        request,
        stop,
        filter: filter.map(Arc::new),
        selection,
        writer,
        places,
        pieces: sender,
    };
    let started = std::thread::Builder::new()
        .name(format!("capture-{id}"))
        .spawn(move || capture.run());
    if let Err(error) = started {
        lab.captures.remove(id);
        return Err(failed(&error));
    }
    Ok(Stream { id, pieces })
}

impl Captures {
    /// Has a capture end; what was captured by then still comes. False: there is none.
    pub(crate) fn stop(&self, id: u32) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = running.stops.get(&id);
        stop.map(|stop| stop.store(true, Ordering::Relaxed)).is_some()
    }

    /// Has every capture end.
    pub(crate) fn stop_all(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .stops
            .values()
            .for_each(|stop| stop.store(true, Ordering::Relaxed));
    }

    /// Whether any runs.
    pub(crate) fn any(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        !running.stops.is_empty()
    }

    fn add(&self) -> Option<(u32, Arc<AtomicBool>)> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.stops.len() >= tap::CAPTURES {
            return None;
        }
        running.latest += 1;
        let (id, stop) = (running.latest, Arc::new(AtomicBool::new(false)));
        running.stops.insert(id, Arc::clone(&stop));
        Some((id, stop))
    }

    fn remove(&self, id: u32) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.stops.remove(&id);
    }
}

impl Capture {
    fn run(mut self) {
        if let Err(error) = self.follow() {
            tracing::warn!("capture {}: {error}", self.id);
        }
        self.lab.captures.remove(self.id);
    }

    /// Writes until somebody ends it: its reader, its limits, or the lab.
    fn follow(&mut self) -> Result<(), pcap_file::PcapError> {
        let (records, ring) = crossbeam::channel::bounded(RING_RECORDS);
        let ring = Ring {
            records: ring,
            queued: Arc::new(AtomicUsize::new(0)),
        };
        self.lab.workers.open_taps(|| Tap {
            id: self.id,
            selection: Arc::clone(&self.selection),
            filter: self.filter.clone(),
            ring: records.clone(),
            queued: Arc::clone(&ring.queued),
            missed: HashMap::new(),
        });
        // The workers alone hold the way into it.
        drop(records);
        // Whoever sees the head of the file sees every packet from then on.
        let mut read = self.hand_on();
        while read && !self.is_over() {
            match ring.records.recv_timeout(TICK) {
                Ok(record) => read = self.write_waiting(record, &ring)?,
                Err(RecvTimeoutError::Timeout) => read = !self.pieces.is_closed(),
                // The lab goes down.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.follow_changes();
        }
        let missed = self.lab.workers.close_taps(self.id);
        if read {
            // Nobody adds to the ring any more.
            while let Ok(record) = ring.records.try_recv() {
                if !self.write_waiting(record, &ring)? {
                    return Ok(());
                }
            }
            self.writer.finish(monotonic_ns(), &missed, &self.places)?;
            self.hand_on();
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let late = self.ends.is_some_and(|ends| Instant::now() >= ends);
        late || self.writer.is_full() || self.stop.load(Ordering::Relaxed)
    }

    /// Writes a record and those that wait behind it; false: nobody reads any more.
    fn write_waiting(&mut self, first: Record, ring: &Ring) -> Result<bool, pcap_file::PcapError> {
        let mut next = Some(first);
        while let Some(record) = next {
            ring.queued.fetch_sub(record.bytes.len(), Ordering::Relaxed);
            self.writer.write(&record, &self.places)?;
            if self.writer.waiting() >= PIECE_BYTES && !self.hand_on() {
                return Ok(false);
            }
            next = ring.records.try_recv().ok();
        }
        Ok(self.hand_on())
    }

    /// False: nobody reads any more.
    fn hand_on(&mut self) -> bool {
        let piece = self.writer.take();
        piece.is_empty() || self.pieces.blocking_send(Bytes::from(piece)).is_ok()
    }

    /// Learns the names of a new generation, and has the workers look at what is selected of it.
    fn follow_changes(&mut self) {
        let current = self.lab.current();
        if current.generation.snapshot.generation != self.places.generation {
            self.places = Places::of(&current);
            self.selection = Arc::new(self.places.select(&self.request));
            self.lab.workers.select_taps(self.id, &self.selection);
        }
    }
}

/// What CLOCK_REALTIME is ahead of CLOCK_MONOTONIC.
fn epoch_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let realtime_ns =
        u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0);
    realtime_ns.saturating_sub(monotonic_ns())
}
