//! The keeper process: PID 1 of the lab's PID namespace, holds namespaces, TUNs and programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::error::{Error, Result};
use crate::keeper_client::Keeper;
use crate::run_dir::RunDir;

/// The program that becomes the keeper: it must pass its arguments after `arguments` to [`main`].
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

impl Default for Launch {
    /// This very binary with the hidden subcommand `keeper`.
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec!["keeper".into()],
        }
    }
}

/// Starts the keeper of a lab and connects to it. Call it after `enter_user_namespace`.
///
/// # Errors
/// What the new process reports, or [`Error::Machine`] when the kernel refuses its namespaces.
pub fn start(run_dir: &RunDir, _launch: &Launch) -> Result<Keeper> {
    Err(Error::Keeper(format!("not built yet: {}", run_dir.lab())))
}

/// Body of the hidden subcommand `keeper`; call it first in `main`, before any thread, with the arguments after
/// `keeper`.
#[must_use]
pub fn main(_arguments: &[OsString]) -> ExitCode {
    ExitCode::FAILURE
}

/// The log of a program in the run directory.
#[must_use]
pub fn log_path(run_dir: &Path, namespace: &str) -> PathBuf {
    run_dir.join("log").join(format!("{namespace}.log"))
}
