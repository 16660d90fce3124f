//! Ending a lab: daemon, keeper, programs, names, run directory.

use crate::error::{Error, Result};

/// Takes a lab down: SIGTERM to its daemon (SIGKILL after 5 s), then its keeper, then what is left on disk.
///
/// # Errors
/// [`Error::NotFound`] when no such lab runs and nothing of it was left; a process that survives SIGKILL.
pub fn stop(lab: &str) -> Result<()> {
    Err(Error::NotFound(format!("not built yet: {lab}")))
}
