//! Tests of control through its public functions.

mod common;
mod explain;
mod vectors;
