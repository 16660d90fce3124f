//! Compiled tables and the packet path: no file descriptor, clock, thread, log line or name lives here.

pub mod admit;
pub mod classify;
pub mod fib;
pub mod filter;
pub mod pipeline;
pub mod reason;
pub mod rewrite;
pub mod route;
pub mod snapshot;
pub mod stats;

pub use classify::Sender;
pub use pipeline::{Verdict, Worker, WorkerOptions};
pub use reason::DropReason;
pub use rewrite::Rewrite;
pub use route::{Hop, Routed};
pub use snapshot::Snapshot;
pub use stats::Stats;
