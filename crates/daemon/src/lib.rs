//! Workers, publish and retire, the control socket.

pub mod api;
mod apply;
mod arm;
mod attach;
mod bgp;
mod bird;
mod capture;
mod change;
mod changes;
pub mod client;
mod declared;
mod ends;
mod events;
mod exchange;
mod flow_log;
#[cfg(test)]
mod forwarding_tests;
mod health;
pub mod labs;
pub mod learned;
mod log;
mod machines;
mod metrics;
mod openapi;
mod ports;
mod probe;
mod process;
mod publish;
pub mod replay;
mod running;
mod server;
mod speakers;
mod store;
mod thread;
pub mod up;
mod waiting;
mod watch;
mod worker;

pub use arm::{Listen, Style, loopback};
pub use bird::{REMEDY as BIRD_REMEDY, program as bird_program};
pub use client::{Client, ClientError};
pub use labs::{Listed, down, list, restart};
pub use process::main;
pub use store::check as check_store;
pub use up::{Io, PrivateLab, Running, UpError, UpErrorKind, UpOptions, resume, up, up_private};
pub use waiting::Waiting;
