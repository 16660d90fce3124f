//! BIRD, the routing daemon that speaks BGP: where it is.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// What to do on a machine without it.
pub const REMEDY: &str = "install it: apt-get install bird2 (BIRD 2 or newer)";
/// Where Debian and others keep it; an ordinary user's PATH lacks these.
const DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The program, where this machine has it.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
    let mut candidates = directories.map(|directory| directory.join("bird"));
    candidates.find(|candidate| {
        let found = candidate.metadata();
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}
