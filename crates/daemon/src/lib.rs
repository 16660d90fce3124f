//! Workers, publish and retire, the control socket.

pub mod api;
pub mod client;
pub mod labs;
pub mod run_dir;
pub mod up;

pub use client::{Client, ClientError};
pub use labs::{Listed, down, list};
pub use run_dir::RunDir;
pub use up::{Io, PrivateLab, Running, UpError, UpErrorKind, UpOptions, main, up, up_private};
