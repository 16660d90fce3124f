//! Ports: segmentation against etherparse, and TUN devices against the kernel (needs root).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(
    clippy::expect_used,
    reason = "a missing privilege must be named, never skipped"
)]

#[path = "../../../packet/tests/support/mod.rs"]
mod support;

mod gso;
mod merge;
mod netns;
mod tun;
