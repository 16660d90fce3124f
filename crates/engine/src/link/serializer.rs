//! A link's rate: when the bits of a packet have left, and what waits until then.

use std::collections::VecDeque;

const NS_PER_S: u128 = 1_000_000_000;

/// Sends one packet after the other. When each has left is fixed as it comes.
#[derive(Debug, Default)]
pub(crate) struct Serializer {
    /// Until when it sends what it has.
    busy_until_ns: u64,
    /// What of the last packet is beyond that, in bits of 1/rate ns: so that no rate is rounded.
    remainder: u64,
    /// At which rates it is busy, each until when: one, unless the rate changed meanwhile.
    eras: VecDeque<Era>,
}

#[derive(Clone, Copy, Debug)]
struct Era {
    until_ns: u64,
    rate_bps: u64,
}

/// How a packet would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// When its first bit leaves.
    pub(crate) begins_ns: u64,
    /// When its last one has left.
    pub(crate) ends_ns: u64,
    remainder: u64,
}

impl Serializer {
    /// When a packet that comes now would leave. `rate_bps` is not 0.
    pub(crate) fn turn(&self, now_ns: u64, rate_bps: u64, bytes: u32) -> Turn {
        let idle = self.busy_until_ns < now_ns;
        let begins_ns = now_ns.max(self.busy_until_ns);
        // Of another rate the remainder is less than a nanosecond, and is forgotten.
        let same = self.eras.back().is_some_and(|era| era.rate_bps == rate_bps);
        let carried = if same && !idle { self.remainder } else { 0 };
        let rate = u128::from(rate_bps.max(1));
        let bits = u128::from(bytes) * 8 * NS_PER_S + u128::from(carried);
        Turn {
            begins_ns,
            // An hour of waiting and a packet at one bit a second are far from the end of time.
            ends_ns: begins_ns.saturating_add(u64::try_from(bits / rate).unwrap_or(u64::MAX)),
            remainder: (bits % rate) as u64,
        }
    }

    /// Lets the packet have its turn.
    pub(crate) fn take(&mut self, turn: Turn, now_ns: u64, rate_bps: u64) {
        self.forget(now_ns);
        self.busy_until_ns = turn.ends_ns;
        self.remainder = turn.remainder;
        match self.eras.back_mut() {
            Some(era) if era.rate_bps == rate_bps => era.until_ns = turn.ends_ns,
            _ => self.eras.push_back(Era {
                until_ns: turn.ends_ns,
                rate_bps,
            }),
        }
    }

    /// Bytes that have not left by now, rounded up.
    pub(crate) fn waiting_bytes(&self, now_ns: u64) -> u64 {
        let mut from_ns = now_ns;
        let mut bytes = 0;
        for era in self.eras.iter().filter(|era| era.until_ns > now_ns) {
            let bits = u128::from(era.until_ns - from_ns) * u128::from(era.rate_bps);
            bytes += bits.div_ceil(8 * NS_PER_S);
            from_ns = era.until_ns;
        }
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn forget(&mut self, now_ns: u64) {
        while self.eras.front().is_some_and(|era| era.until_ns <= now_ns) && self.eras.len() > 1 {
            self.eras.pop_front();
        }
    }
}
