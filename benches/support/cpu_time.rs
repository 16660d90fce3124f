//! Time as the kernel charges it to this thread: on a shared machine, what others run in between does not count.

use criterion::Criterion;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

#[derive(Debug)]
pub(crate) struct CpuTime;

/// The configuration of every bench here.
pub(crate) fn criterion() -> Criterion<CpuTime> {
    Criterion::default().with_measurement(CpuTime)
}

impl Measurement for CpuTime {
    /// Nanoseconds.
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    fn end(&self, begun: u64) -> u64 {
        self.start() - begun
    }

    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        // Takes nanoseconds, too.
        WallTime.formatter()
    }
}
