//! Tests of control through its public functions.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "functions that tests call may fail the test"
)]

mod agreement;
mod common;
mod compiled;
mod diagnose;
mod explain;
mod gateways;
mod generation;
mod ip_vectors;
mod peering_vectors;
mod pieces;
mod planned;
mod properties;
mod random;
mod services;
mod vectors;
mod world;
