//! The random choices of a link: what happens to the n-th packet, whatever the others do and whenever it comes.
//!
//! Each kind of choice has its own generator, so that more jitter does not change which packets get lost.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

use super::jitter::Delays;
use super::settings::{Chance, Link, Loss};

/// What chance has for a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) lost: bool,
    /// Beyond the latency; negative: less.
    pub(crate) delay_ns: i64,
    /// It need not keep its place.
    pub(crate) overtakes: bool,
    /// Which of its bits changes, as a random number.
    pub(crate) corrupt: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Luck {
    seed: u64,
    loss: Pcg64Mcg,
    duplicate: Pcg64Mcg,
    reorder: Pcg64Mcg,
    corrupt: Pcg64Mcg,
    delays: Delays,
    /// The state of Gilbert and Elliott.
    bad: bool,
}

impl Luck {
    pub(crate) fn new(seed: u64) -> Self {
        // `seed_from_u64` spreads neighbours far apart.
        let generator = |kind: u64| Pcg64Mcg::seed_from_u64(seed ^ kind.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            seed,
            loss: generator(1),
            duplicate: generator(2),
            reorder: generator(3),
            corrupt: generator(4),
            delays: Delays::new(generator(5)),
            bad: false,
        }
    }

    /// Draws for the next packet, and for its copy where it has one. The seed is that of the link now: another one
    /// begins anew.
    pub(crate) fn draw(&mut self, link: &Link) -> (Fate, Option<Fate>) {
        if self.seed != link.seed {
            *self = Self::new(link.seed);
        }
        let fate = self.one(link);
        let copied = happens(link.duplicate, &mut self.duplicate);
        (fate, copied.then(|| self.one(link)))
    }

    fn one(&mut self, link: &Link) -> Fate {
        let corrupt = happens(link.corrupt, &mut self.corrupt);
        Fate {
            lost: self.loses(link.loss),
            delay_ns: link.jitter.as_ref().map_or(0, |jitter| self.delays.draw(jitter)),
            overtakes: happens(link.reorder, &mut self.reorder),
            corrupt: corrupt.then(|| self.corrupt.next_u64()),
        }
    }

    fn loses(&mut self, loss: Loss) -> bool {
        match loss {
            Loss::None => false,
            Loss::Each(chance) => happens(chance, &mut self.loss),
            Loss::Bursts {
                enter_bad,
                leave_bad,
                loss_bad,
                loss_good,
            } => {
                let change = if self.bad { leave_bad } else { enter_bad };
                self.bad ^= happens(change, &mut self.loss);
                let chance = if self.bad { loss_bad } else { loss_good };
                happens(chance, &mut self.loss)
            }
        }
    }
}

/// What never happens takes no number.
fn happens(chance: Chance, generator: &mut Pcg64Mcg) -> bool {
    chance != Chance::NEVER && chance.hits(generator.next_u32())
}
