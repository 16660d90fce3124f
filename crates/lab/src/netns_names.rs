//! Names under /run/netns for a lab's namespaces (root only), so that `ip netns` sees them.

use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::run_dir::RunDir;

/// Gives the namespace the name `<lab>-<name>` under /run/netns and remembers it in the run directory.
///
/// # Errors
/// [`Error::NameTaken`] when something else has that name.
pub fn bind(run_dir: &RunDir, name: &str, _namespace: &Namespace) -> Result<()> {
    Err(Error::Spec(format!("not built yet: {} {name}", run_dir.lab())))
}

/// Removes all names that [`bind`] made for this lab, and nothing else.
///
/// # Errors
/// When a name of the lab cannot be removed.
pub fn unbind_all(_run_dir: &RunDir) -> Result<()> {
    Err(Error::Spec("not built yet".to_owned()))
}
