//! Running a program in a namespace of a lab with the caller's terminal.

use std::ffi::OsString;

use crate::error::{Error, Result};
use crate::keeper_client::Namespaces;

/// Enters the namespaces, runs the program there with the caller's stdio and directory, and waits for it. Signals that
/// would end the caller are passed on. Call it before any thread starts.
///
/// Returns the code to exit with: the program's own, 126 not executable, 127 not found, 128+n ended by signal n.
///
/// # Errors
/// Failures that are peerlane's own (exit code 125).
pub fn run(_namespaces: &Namespaces, _command: &[OsString]) -> Result<u8> {
    Err(Error::Spec("not built yet".to_owned()))
}
