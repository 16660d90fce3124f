//! How long a worker waits in the kernel: until the next packet, or so that what is under way is handed over in time.

use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

/// How a worker waits for the next packet.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum Waiting {
    /// Sleeps, and is awake shortly before something is due.
    #[default]
    Sleep,
    /// Looks all the time as long as something is under way or came lately, and takes a core for it.
    Spin,
}

/// The wait between two rounds of a worker's loop.
#[derive(Debug)]
pub(crate) struct Pause {
    waiting: Waiting,
    /// So long after it was asked to the kernel wakes this thread, nine times in ten.
    lateness_ns: u64,
    /// When the present sleep is to end, if it will tell how late that is.
    wakes_ns: Option<u64>,
    /// When [`Waiting::Spin`] goes to sleep.
    spins_until_ns: u64,
}

/// A sleeper gets up so much earlier at most, and looks for packets for the rest: what is later than that is another
/// program's turn on this core, and spinning would only add to it.
const MAX_LATENESS_NS: u64 = 60_000;
/// The estimate goes up nine such steps when a sleep ends later, and down one when it does not: its balance is at nine
/// sleeps in ten, and a few hundred sleeps find it.
const STEP_NS: u64 = 200;
/// The kernel may end a wait late by a thousandth of it, whatever the thread's timer slack, to save wake-ups. Who gets up
/// by two thousandths early sleeps the rest in a second, short wait.
const SLACK_SHARE: u64 = 500;
/// Longer sleeps say more about the kernel's thousandth than about waking.
const TELLING_NS: u64 = 1_000_000;
/// A spinner sleeps when nothing came for so long: more than the pauses of a flow, less than anyone notices on a bill.
const IDLE_NS: u64 = 10_000_000;

const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

impl Pause {
    pub(crate) fn new(waiting: Waiting) -> Self {
        Self {
            waiting,
            lateness_ns: 0,
            wakes_ns: None,
            spins_until_ns: 0,
        }
    }

    /// How long to wait at most when the next packet under way is due at `next_ns`. None: until a packet comes.
    #[inline]
    pub(crate) fn begin(&mut self, next_ns: Option<u64>, clock: impl Fn() -> u64) -> Option<Timespec> {
        self.wakes_ns = None;
        if self.waiting == Waiting::Spin {
            return (next_ns.is_some() || clock() < self.spins_until_ns).then_some(NOW);
        }
        let (next_ns, now_ns) = (next_ns?, clock());
        let left_ns = next_ns.saturating_sub(now_ns);
        let wakes_ns = next_ns.saturating_sub(self.lateness_ns + left_ns / SLACK_SHARE);
        if wakes_ns <= now_ns {
            return Some(NOW);
        }
        self.wakes_ns = (left_ns <= TELLING_NS).then_some(wakes_ns);
        let left = std::time::Duration::from_nanos(wakes_ns - now_ns);
        Some(Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }

    /// The wait is over; `timed_out`: nothing came.
    #[inline]
    pub(crate) fn end(&mut self, timed_out: bool, clock: impl Fn() -> u64) {
        if self.waiting == Waiting::Spin {
            if !timed_out {
                self.spins_until_ns = clock() + IDLE_NS;
            }
            return;
        }
        if let (true, Some(wakes_ns)) = (timed_out, self.wakes_ns) {
            self.lateness_ns = if clock() > wakes_ns + self.lateness_ns {
                (self.lateness_ns + 9 * STEP_NS).min(MAX_LATENESS_NS)
            } else {
                self.lateness_ns.saturating_sub(STEP_NS)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const MS: u64 = 1_000_000;

    fn ns(timeout: Option<Timespec>) -> Option<u64> {
        timeout.map(|timeout| timeout.tv_sec as u64 * 1_000_000_000 + timeout.tv_nsec as u64)
    }

    #[test]
    fn who_expects_nothing_sleeps_until_a_packet_comes() {
        for waiting in [Waiting::Sleep, Waiting::Spin] {
            let mut pause = Pause::new(waiting);
            assert_eq!(pause.begin(None, || 100 * MS), None, "{waiting:?}");
        }
    }

    #[test]
    fn a_sleeper_gets_up_as_early_as_waking_takes() {
        let now_ns = Cell::new(0);
        let mut pause = Pause::new(Waiting::Sleep);
        // Every sleep ends 30 us late, and every tenth 45 us.
        for sleep in 0..2000 {
            let due_ns = now_ns.get() + MS;
            let slept_ns = ns(pause.begin(Some(due_ns), || now_ns.get())).unwrap();
            let late_ns = if sleep % 10 == 0 { 45_000 } else { 30_000 };
            now_ns.set(now_ns.get() + slept_ns + late_ns);
            pause.end(true, || now_ns.get());
        }
        assert!((29_000..=46_000).contains(&pause.lateness_ns), "{pause:?}");
        // What is due sooner is not slept for.
        let due_ns = now_ns.get() + pause.lateness_ns;
        assert_eq!(ns(pause.begin(Some(due_ns), || now_ns.get())), Some(0));
        // However late it gets, a sleeper does not become a spinner.
        for _ in 0..2000 {
            let slept_ns = ns(pause.begin(Some(now_ns.get() + MS), || now_ns.get())).unwrap();
            now_ns.set(now_ns.get() + slept_ns + 5 * MS);
            pause.end(true, || now_ns.get());
        }
        assert_eq!(pause.lateness_ns, MAX_LATENESS_NS);
    }

    /// Some 200 ms on a wait may last 200 us longer than asked for.
    #[test]
    fn a_long_sleep_is_followed_by_a_short_one() {
        let mut pause = Pause::new(Waiting::Sleep);
        let (due_ns, mut now_ns, mut sleeps) = (200 * MS, 0, 0);
        while let Some(slept_ns @ 1..) = ns(pause.begin(Some(due_ns), || now_ns)) {
            now_ns += slept_ns + slept_ns / 1000;
            pause.end(true, || now_ns);
            sleeps += 1;
        }
        assert!(now_ns <= due_ns && due_ns - now_ns < 500, "{now_ns}");
        assert!(sleeps < 6, "{sleeps}");
    }

    /// Rounded up to milliseconds, as `epoll_wait` has them, a link would be late by one.
    #[test]
    fn the_kernel_waits_for_microseconds() {
        use rustix::event::epoll;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000,
        };
        let waited = (0..200).map(|_| {
            let begin = std::time::Instant::now();
            let mut events = Vec::with_capacity(1);
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)).unwrap();
            begin.elapsed()
        });
        // Of many, since another program may have its turn meanwhile.
        let least = waited.min().unwrap();
        assert!(least < std::time::Duration::from_micros(900), "{least:?}");
    }

    #[test]
    fn a_packet_that_ends_a_sleep_says_nothing_about_waking() {
        let mut pause = Pause::new(Waiting::Sleep);
        pause.begin(Some(MS), || 0);
        pause.end(false, || 3 * MS);
        assert_eq!(pause.lateness_ns, 0);
    }

    #[test]
    fn a_spinner_sleeps_only_when_nothing_is_under_way_and_nothing_came_lately() {
        let mut pause = Pause::new(Waiting::Spin);
        assert_eq!(ns(pause.begin(Some(200 * MS), || 0)), Some(0));
        pause.end(false, || MS);
        assert_eq!(ns(pause.begin(None, || 2 * MS)), Some(0));
        pause.end(true, || 2 * MS);
        assert_eq!(ns(pause.begin(None, || MS + IDLE_NS)), None);
    }
}
