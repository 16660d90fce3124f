//! Where a lab's socket, lock and log are, and which labs there are.

use std::env;
use std::path::{Path, PathBuf};

/// The run directory of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// The directory of lab `name` under `state_dir`, or under the default one. Nothing is created.
    #[must_use]
    pub fn of(name: &str, state_dir: Option<&Path>) -> Self {
        let base = state_dir.map_or_else(default_state_dir, Path::to_path_buf);
        Self {
            path: base.join(name),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("api.sock")
    }

    /// What a detached daemon writes.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("daemon.log")
    }
}

/// `PEERLANE_STATE_DIR`, else `/run/peerlane` (root), `$XDG_RUNTIME_DIR/peerlane`, or a directory of the user's under
/// the temporary folder.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    let given = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(dir) = given("PEERLANE_STATE_DIR") {
        return PathBuf::from(dir);
    }
    let uid = rustix::process::getuid();
    if uid.is_root() {
        return PathBuf::from("/run/peerlane");
    }
    given("XDG_RUNTIME_DIR").map_or_else(
        || env::temp_dir().join(format!("peerlane-{}", uid.as_raw())),
        |dir| PathBuf::from(dir).join("peerlane"),
    )
}
