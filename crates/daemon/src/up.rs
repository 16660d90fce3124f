//! Bringing a lab up: everything between a checked file and packets that are forwarded, or nothing at all.

use std::path::PathBuf;

use model::Topology;
use serde::{Deserialize, Serialize};

/// How packets are read from the TUNs.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum Io {
    /// With `IFF_VNET_HDR`: super-packets pass whole.
    #[default]
    Vnet,
    /// One packet a read, without offloads.
    Plain,
}

/// What `up` is to do.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// As the user named it; `-` for standard input.
    pub file: String,
    /// The lab file's text: the daemon keeps it and serves it to other commands.
    pub text: String,
    /// The checked model of `text`.
    pub topology: Topology,
    /// Return when every port forwards, instead of staying in front.
    pub detach: bool,
    pub io: Io,
    /// Threads that forward; at least 1.
    pub workers: usize,
    /// `up --allow-host`: a VNet port may stand in the caller's namespace.
    pub allow_host: bool,
    /// Where run directories are; None: `PEERLANE_STATE_DIR` or the contract's default.
    pub state_dir: Option<PathBuf>,
}

/// A private copy of a lab, for one command: listed nowhere, without names under `/run/netns`. It goes down when this
/// is dropped, or when the process that holds it dies in any way.
#[derive(Debug)]
pub struct PrivateLab {
    pub running: Running,
}

/// A lab that forwards.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Running {
    pub name: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Its control socket.
    pub socket: PathBuf,
    /// What is weaker than wished (an offload the kernel does not have), for people.
    pub notes: Vec<String>,
}

/// Why a lab did not come up. Nothing is left behind.
#[derive(Clone, Debug, Deserialize, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct UpError {
    pub kind: UpErrorKind,
    /// What failed, and where.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum UpErrorKind {
    /// This machine cannot: exit code 5.
    Machine,
    /// Exit code 1.
    Failed,
}

impl UpError {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            kind: UpErrorKind::Failed,
            message: message.into(),
            remedy: None,
        }
    }
}

impl UpErrorKind {
    /// The contract's exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Machine => 5,
            Self::Failed => 1,
        }
    }
}

/// Brings a lab up and calls `announce` once, when every port forwards. In front it returns when the lab is down
/// again (SIGINT, SIGTERM, SIGHUP or [`crate::Client::stop`]); detached it returns right after `announce`.
///
/// Must be called before the process starts any thread: without root it enters a user namespace.
///
/// # Errors
/// [`UpError`] says what failed and what to do; nothing is left behind.
pub fn up(options: &UpOptions, announce: impl FnOnce(&Running)) -> Result<(), UpError> {
    let _ = (options, announce);
    Err(UpError::failed("labs cannot be brought up yet"))
}

/// Brings up a private copy; `detach` and `state_dir` of the options are ignored. Threads are no hindrance.
///
/// # Errors
/// As [`up`].
pub fn up_private(options: &UpOptions) -> Result<PrivateLab, UpError> {
    let _ = options;
    Err(UpError::failed("labs cannot be brought up yet"))
}

/// The hidden subcommand `daemon`: what a detached or private lab's process runs. Reads its orders from standard
/// input and answers on standard output. Call it before any thread starts; the result is the process's exit code.
#[must_use]
pub fn main() -> u8 {
    UpErrorKind::Failed.exit_code()
}
