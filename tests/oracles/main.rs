//! Differential tests against the kernel, which is not our code: its routing table and nftables decide the same random cases.
//!
//! `cargo test` runs a part of the cases, `scripts/test full` all. `PEERLANE_SEED` takes a number; every test prints its own.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "these are tests"
)]

mod fib;
mod filter;
mod namespace;
mod nftables;
#[path = "../../benches/support/random.rs"]
mod random;
mod rules;

use random::Random;

/// Set by `scripts/test full`.
const FULL: &str = "PEERLANE_FULL";
const SEED: &str = "PEERLANE_SEED";

/// How many cases to run: `all` when asked for, else `some`.
fn count(some: usize, all: usize) -> usize {
    if std::env::var_os(FULL).is_some() {
        all
    } else {
        some
    }
}

/// The seed of this run. A fixed one when none is given, so that a plain test run never differs from the last.
fn seed(what: &str) -> u64 {
    let seed = std::env::var(SEED).map_or(7, |text| text.parse().expect("PEERLANE_SEED is a number"));
    println!("{what}: {SEED}={seed}");
    seed
}

/// The random numbers of one case: of its seed and position only, so that a case can be run by itself.
fn case_random(seed: u64, position: usize) -> Random {
    let mut random = Random::new(seed ^ (position as u64) << 32);
    random.next();
    random
}
