//! The packet path through the crate's public face, on hand-built snapshots.

mod capacity;
mod drops;
mod edge;
mod fragments;
mod shadow;
mod state;
mod support;
