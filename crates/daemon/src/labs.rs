//! The labs of a state directory: which there are, and taking one down.

use std::path::{Path, PathBuf};

use crate::api::LabState;
use crate::run_dir::RunDir;
use crate::up::UpError;

/// One lab, as `list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub state: LabState,
    /// The daemon's process id; the keeper's when the daemon is gone.
    pub pid: u32,
    pub file: String,
    pub socket: PathBuf,
}

/// The labs under `state_dir` (None: the default one), by name. What dead labs left behind is removed on the way.
///
/// # Errors
/// The directory cannot be read.
pub fn list(state_dir: Option<&Path>) -> Result<Vec<Listed>, UpError> {
    let _ = state_dir;
    Ok(Vec::new())
}

/// Takes a lab down, whether its daemon lives or not, and returns when nothing is left of it.
///
/// # Errors
/// It does not exist, belongs to somebody else, or something of it could not be removed.
pub fn down(run_dir: &RunDir) -> Result<(), UpError> {
    let _ = run_dir;
    Err(UpError::failed("labs cannot be taken down yet"))
}
