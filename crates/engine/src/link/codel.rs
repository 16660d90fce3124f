//! CoDel (RFC 8289): drops, or marks, while packets have waited too long for too long.
//!
//! When a packet leaves is known as it comes, so it is asked about then, at the time at which it will leave the queue.

use super::settings::Aqm;

/// A queue of no more than a full packet is no standing queue (RFC 8289 5.2).
const FULL_PACKET: u64 = 1500;
/// Intervals after which the last episode says nothing about the next (RFC 8289 5.5).
const MEMORY: u64 = 16;

#[derive(Debug, Default)]
pub(crate) struct Codel {
    /// When the waiting time will have been too long for an interval; 0: it is not.
    patience_ends_ns: u64,
    dropping: bool,
    next_ns: u64,
    /// Drops of this episode, and of the last one as it began.
    count: u64,
    last_count: u64,
}

impl Codel {
    /// Whether the packet that leaves the queue at `leaves_ns` is dropped. `waits_ns` is how long it will have waited,
    /// `ahead` the bytes that wait before it.
    pub(crate) fn drops(&mut self, aqm: Aqm, leaves_ns: u64, waits_ns: u64, ahead: u64) -> bool {
        let too_long = self.too_long(aqm, leaves_ns, waits_ns, ahead);
        if !self.dropping {
            if too_long {
                self.begin(aqm, leaves_ns);
            }
            return too_long;
        }
        self.dropping = too_long;
        if !too_long || leaves_ns < self.next_ns {
            return false;
        }
        self.count += 1;
        self.next_ns = self.law(aqm, self.next_ns);
        true
    }

    fn too_long(&mut self, aqm: Aqm, leaves_ns: u64, waits_ns: u64, ahead: u64) -> bool {
        if waits_ns < aqm.target_ns || ahead <= FULL_PACKET {
            self.patience_ends_ns = 0;
            return false;
        }
        if self.patience_ends_ns == 0 {
            self.patience_ends_ns = leaves_ns.saturating_add(aqm.interval_ns);
            return false;
        }
        leaves_ns >= self.patience_ends_ns
    }

    /// An episode that follows closely on the last goes on at about the rate that controlled that one.
    fn begin(&mut self, aqm: Aqm, now_ns: u64) {
        self.dropping = true;
        let recent = now_ns.saturating_sub(self.next_ns) < MEMORY * aqm.interval_ns;
        let before = self.count - self.last_count.min(self.count);
        self.count = if before > 1 && recent { before } else { 1 };
        self.last_count = self.count;
        self.next_ns = self.law(aqm, now_ns);
    }

    /// An interval, divided by the square root of the drops so far, after `from_ns`.
    fn law(&self, aqm: Aqm, from_ns: u64) -> u64 {
        let pause = aqm.interval_ns as f64 / libm::sqrt(self.count as f64);
        from_ns.saturating_add(pause as u64)
    }
}
