//! Compiled tables and the packet path: no file descriptor, clock, thread, log line or name lives here.

pub mod admit;
mod backbone;
pub mod balance;
mod classes;
pub mod classify;
mod delay_error;
mod errors;
pub mod fib;
mod fifo;
pub mod filter;
mod flow;
pub mod flow_log;
mod fragment;
pub mod gateway;
mod hash;
mod link;
mod pipeline;
mod ranges;
pub mod reason;
pub mod rewrite;
pub mod route;
mod simd;
pub mod snapshot;
pub mod stats;
pub mod table;
pub mod wheel;
pub mod worker;

pub use backbone::AtLink;
pub use classify::Sender;
pub use delay_error::DelayError;
pub use reason::DropReason;
pub use rewrite::Rewrite;
pub use route::{Hop, Routed};
pub use snapshot::Snapshot;
pub use stats::Stats;
pub use worker::{Told, Verdict, Worker, WorkerOptions};
