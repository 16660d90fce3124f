//! What a replay does as pcapng: the taps of captures, with the times of the lab's own clock.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::channel::{Receiver, unbounded};

use super::ReplayError;
use crate::api::CaptureRequest;
use crate::capture::names::Places;
use crate::capture::pcapng::{Form, Limits, Writer};
use crate::capture::tap::{Record, Tap, Taps};
use crate::running::Current;

/// What writes the pcapng.
pub(super) struct Recorder<'a> {
    pub(super) taps: Taps,
    ring: Receiver<Record>,
    queued: Arc<AtomicUsize>,
    writer: Writer,
    places: Places,
    output: &'a mut dyn Write,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(
        current: &Current,
        start_ns: u64,
        output: &'a mut dyn Write,
    ) -> Result<Self, ReplayError> {
        let limits = Limits {
            bytes: u32::MAX,
            packets: u64::MAX,
        };
        let writer = Writer::new(Form::Segments, limits, start_ns).map_err(io::Error::other)?;
        let (sender, ring) = unbounded();
        let queued = Arc::new(AtomicUsize::new(0));
        let places = Places::of(current);
        let mut taps = Taps::default();
        taps.open(Tap {
            id: 0,
            selection: Arc::new(places.select(&CaptureRequest::default())),
            filter: None,
            ring: sender,
            queued: Arc::clone(&queued),
            missed: HashMap::new(),
        });
        Ok(Self {
            taps,
            ring,
            queued,
            writer,
            places,
            output,
        })
    }

    pub(super) fn drain(&mut self) -> io::Result<()> {
        while let Ok(record) = self.ring.try_recv() {
            self.queued.fetch_sub(record.bytes.len(), Ordering::Relaxed);
            self.writer
                .write(&record, &self.places)
                .map_err(io::Error::other)?;
        }
        self.output.write_all(&self.writer.take())
    }

    pub(super) fn follow(&mut self, current: &Current) {
        self.places = Places::of(current);
        let selection = Arc::new(self.places.select(&CaptureRequest::default()));
        self.taps.select(0, &selection);
    }

    pub(super) fn finish(&mut self, now_ns: u64) -> io::Result<()> {
        self.writer
            .finish(now_ns, &HashMap::new(), &self.places)
            .map_err(io::Error::other)?;
        self.output.write_all(&self.writer.take())?;
        self.output.flush()
    }
}
