//! The run directory of a lab: where it is, who lives in it, and removing it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// An own, 0700 directory that belongs to one lab.
#[derive(Debug)]
pub struct RunDir {
    lab: String,
    path: PathBuf,
}

/// Held by the daemon as long as it lives; dropping it (or dying) frees it.
#[derive(Debug)]
pub struct DaemonLock {
    _file: std::os::fd::OwnedFd,
}

/// What runs of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabState {
    /// The daemon lives, its keeper not yet (or no more).
    Starting,
    /// Daemon and keeper live.
    Running,
    /// The keeper lives without a daemon: `up` adopts it, `down` ends it.
    Orphaned,
}

/// One line of `list`.
#[derive(Debug)]
pub struct LabEntry {
    pub run_dir: RunDir,
    pub state: LabState,
    /// The daemon's process id; None without a daemon.
    pub daemon_pid: Option<i32>,
}

impl RunDir {
    /// Makes (or finds) the directory of a lab and takes the daemon's lock, removing what a dead lab of this name
    /// left behind. Call it before `enter_user_namespace`.
    ///
    /// # Errors
    /// [`Error::Running`] when a daemon of this lab lives, [`Error::UnsafeDirectory`] when others could write it.
    pub fn create(lab: &str) -> Result<(Self, DaemonLock)> {
        Err(Error::NotFound(format!("not built yet: {lab}")))
    }

    /// The directory of a lab that runs or is orphaned.
    ///
    /// # Errors
    /// [`Error::NotFound`] when no such lab runs.
    pub fn open(lab: &str) -> Result<Self> {
        Err(Error::NotFound(format!("not built yet: {lab}")))
    }

    /// All labs of this user that run or are orphaned, by name; what dead ones left is removed on the way.
    ///
    /// # Errors
    /// When the directory of the labs cannot be read.
    pub fn list() -> Result<Vec<LabEntry>> {
        Ok(Vec::new())
    }

    #[must_use]
    pub fn lab(&self) -> &str {
        &self.lab
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or socket of this name in the directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}
