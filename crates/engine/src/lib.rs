//! Compiled tables and the packet path: no file descriptor, clock, thread, log line or name lives here.

pub mod fib;
pub mod filter;
pub mod reason;
pub mod snapshot;

pub use reason::DropReason;
pub use snapshot::Snapshot;
