//! The packet path through the crate's public face, on hand-built snapshots.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "functions that tests call may fail the test"
)]

mod backbone;
mod balance;
mod capacity;
mod drops;
mod edge;
mod flow_log;
mod fragment_model;
mod fragments;
mod hostile;
mod index;
mod link_statistics;
mod links;
mod shadow;
mod state;
mod support;
mod tables;
mod too_big;
