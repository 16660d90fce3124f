//! Topology -> effective routes and rules -> Snapshot; explain. Pure: the same input gives the same output.

pub mod compile;
pub mod diagnose;
pub mod explain;
pub mod generation;
pub mod plan;
pub mod platform;
pub mod present;
pub mod rib;
pub mod rules;
pub mod security_admin;
pub mod select;
mod subnet_peering;
mod surroundings;
pub mod tags;

pub use compile::{Compiled, compile, compile_after};
pub use explain::{Query, explain};
pub use generation::Generation;
pub use plan::{Plan, plan};
