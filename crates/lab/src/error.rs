//! What can go wrong with namespaces and processes, always with what to do.

use std::io;
use std::path::PathBuf;

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine refuses something every lab needs (exit code 5).
    #[error("{cause}; {remedy}")]
    Machine {
        /// What was refused, and by what.
        cause: String,
        /// What the user can do about it.
        remedy: String,
    },
    /// A system call failed on something of the lab.
    #[error("cannot {what}: {source}")]
    Io {
        /// The action and its object, to be read after "cannot".
        what: String,
        source: io::Error,
    },
    /// The name belongs to something that is not this lab's.
    #[error("{} exists and is not part of this lab; remove it (ip netns delete) or rename the lab or the VM", .0.display())]
    NameTaken(PathBuf),
    /// A lab of this name already runs.
    #[error("lab {lab} already runs (process {pid}); take it down with `peerlane down {lab}` first")]
    Running { lab: String, pid: i32 },
    /// No such lab, namespace or TUN.
    #[error("{0}")]
    NotFound(String),
    /// The lab cannot be built as declared.
    #[error("{0}")]
    Spec(String),
    /// The run directory may be written by others, so nothing in it can be trusted.
    #[error("{} is not a directory that only you can write: {reason}; remove it or set PEERLANE_STATE_DIR", path.display())]
    UnsafeDirectory { path: PathBuf, reason: String },
    /// The keeper answered with an error, or not as agreed.
    #[error("the keeper of the lab: {0}")]
    Keeper(String),
}

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The exit code of the contract: 5 when the machine cannot, 3 when there is no such thing, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Machine { .. } => 5,
            Self::NotFound(_) => 3,
            _ => 1,
        }
    }

    pub(crate) fn machine(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Machine {
            cause: cause.into(),
            remedy: remedy.into(),
        }
    }
}

/// Says what was attempted where only an error number is known.
pub(crate) trait Attempt<T> {
    /// `what` reads after "cannot".
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

impl<T> Attempt<T> for rustix::io::Result<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what(),
            source: source.into(),
        })
    }
}

impl<T> Attempt<T> for std::result::Result<T, rtnetlink::Error> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        let source = |error| match error {
            rtnetlink::Error::NetlinkError(refusal) => refusal.to_io(),
            other => io::Error::other(other.to_string()),
        };
        self.map_err(|error| Error::Io {
            what: what(),
            source: source(error),
        })
    }
}
