//! Tests of control through its public functions.

mod common;
mod vectors;
