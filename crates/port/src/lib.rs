//! TUN, plain, memory and null ports; GSO and coalescing.

pub mod memory;
pub mod offloads;
pub mod plain;
pub mod queue;
pub mod tun;

pub use offloads::Offloads;
pub use packet::segments as gso;
pub use queue::{Queue, WriteError};
pub use tun::Device;
