//! Header views over bytes, flow keys, buffers and bursts; no I/O, no policy.

pub mod buffer;
pub mod checksum;
pub mod edit;
pub mod key;
pub mod merge;
pub mod parse;
pub mod prefix;
pub mod segments;
pub mod split;
pub mod vnet_header;

pub use buffer::{Burst, Packet};
pub use edit::Side;
pub use key::{FlowKey, Protocol};
pub use parse::{Fault, Fragment, Headers};
pub use prefix::Prefix;
pub use vnet_header::VnetHeader;
