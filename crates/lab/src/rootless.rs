//! The user namespace of a lab that does not run as root.

use crate::error::{Error, Result};

/// Whether this process may make namespaces as it is: root, or already inside a user namespace of its own.
#[must_use]
pub fn privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// Enters a user namespace where the caller's uid and gid are root. Call it before any thread starts, and after the
/// run directory is opened.
///
/// # Errors
/// [`Error::Machine`] with the limit or policy that refused, and how to change it.
pub fn enter_user_namespace() -> Result<()> {
    Err(Error::Spec("not built yet".to_owned()))
}

/// One thing the machine must allow, tried for real.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was tried.
    pub name: &'static str,
    /// None: it works. Otherwise cause and remedy.
    pub problem: Option<(String, String)>,
}

/// Tries what a lab needs (a user namespace unless root, a network, PID and mount namespace) in a child process.
#[must_use]
pub fn privileges() -> Vec<Check> {
    Vec::new()
}
