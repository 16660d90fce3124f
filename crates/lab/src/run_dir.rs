//! The run directory of a lab: where it is, who lives in it, and removing it.
//!
//! Two locks tell who lives, so a reused process id cannot lie: the daemon holds `daemon.lock`, the keeper
//! `keeper.lock`. Whoever creates, sweeps or removes the directory holds `daemon.lock` while it does.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::{Attempt, Error, Result};
use crate::netns_names;

const DAEMON_LOCK: &str = "daemon.lock";
const KEEPER_LOCK: &str = "keeper.lock";

/// Ends the name of a directory that is being removed; no lab's name has a dot.
const REMOVED: &str = ".removed";

/// Tells the removals of one process apart.
static REMOVALS: AtomicU64 = AtomicU64::new(0);

/// `sun_path` holds 108 bytes with its final zero; the longest socket name in the directory is `/keeper.sock`, and
/// some room is left for others.
const MAX_PATH: usize = 107 - 16;

/// A probe by another command holds a lock for microseconds; a daemon for good. So a few tries tell them apart.
const LOCK_TRIES: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// An own, 0700 directory that belongs to one lab.
#[derive(Clone, Debug)]
pub struct RunDir {
    lab: String,
    path: PathBuf,
}

/// Held by the daemon as long as it lives; dropping it (or dying) frees it.
#[derive(Debug)]
pub struct DaemonLock {
    file: File,
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
        let base = base();
        make_directory(&base)?;
        check_base(&base)?;
        let run_dir = Self::at(&base, lab)?;
        for _ in 0..LOCK_TRIES {
            make_directory(&run_dir.path)?;
            // Removed since by its last owner: once more.
            if Self::existing(lab)?.is_none() {
                continue;
            }
            if let Some(mut lock) = run_dir.try_lock()? {
                if !run_dir.keeper_alive() {
                    run_dir.sweep()?;
                }
                lock.write_pid()?;
                return Ok((run_dir, lock));
            }
            sleep(LOCK_PAUSE);
        }
        Err(Error::Running {
            lab: lab.to_owned(),
            pid: run_dir.daemon_pid().unwrap_or_default(),
        })
    }

    /// The directory of a lab that runs or is orphaned.
    ///
    /// # Errors
    /// [`Error::NotFound`] when no such lab runs.
    pub fn open(lab: &str) -> Result<Self> {
        match Self::existing(lab)? {
            Some(run_dir) if run_dir.state_or_remove()?.is_some() => Ok(run_dir),
            _ => Err(Error::NotFound(format!("no lab named {lab} runs"))),
        }
    }

    /// All labs of this user that run or are orphaned, by name; what dead ones left is removed on the way.
    ///
    /// # Errors
    /// When the directory of the labs cannot be read.
    pub fn list() -> Result<Vec<LabEntry>> {
        let base = base();
        let entries = match fs::read_dir(&base) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.attempt(|| format!("read {}", base.display()))?,
        };
        let mut labs = Vec::new();
        for entry in entries.flatten() {
            // Whatever is not a lab's directory of ours is none of our business.
            let name = entry.file_name();
            if name.as_bytes().ends_with(REMOVED.as_bytes()) && check_own(&entry.path()).is_ok() {
                // Its remover may be at it still, or have died.
                let _ = fs::remove_dir_all(entry.path());
                continue;
            }
            let Some(run_dir) = name.to_str().and_then(|name| Self::at(&base, name).ok()) else {
                continue;
            };
            if check_own(&run_dir.path).is_err() {
                continue;
            }
            if let Some(state) = run_dir.state_or_remove()? {
                let daemon_pid = if state == LabState::Orphaned {
                    None
                } else {
                    run_dir.daemon_pid()
                };
                labs.push(LabEntry {
                    run_dir,
                    state,
                    daemon_pid,
                });
            }
        }
        labs.sort_by(|a, b| a.run_dir.lab.cmp(&b.run_dir.lab));
        Ok(labs)
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

    /// Removes the directory and the lab's names under /run/netns: the daemon's last step, when it has ended the
    /// keeper.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(&self, lock: DaemonLock) -> Result<()> {
        netns_names::unbind_all(self)?;
        // Renamed first, so that who looks for the lab meanwhile finds all of it or nothing.
        let (process, number) = (std::process::id(), REMOVALS.fetch_add(1, Ordering::Relaxed));
        let old = self
            .path
            .with_file_name(format!(".{}-{process}-{number}{REMOVED}", self.lab));
        fs::rename(&self.path, &old).attempt(|| format!("remove {}", self.path.display()))?;
        drop(lock);
        remove_tree(&old).attempt(|| format!("remove {}", old.display()))
    }

    /// The directory, whatever lives in it; None when there is none.
    pub(crate) fn existing(lab: &str) -> Result<Option<Self>> {
        let run_dir = Self::at(&base(), lab)?;
        match fs::symlink_metadata(&run_dir.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).attempt(|| format!("look at {}", run_dir.path.display())),
            Ok(metadata) => check_metadata(&run_dir.path, &metadata).map(|()| Some(run_dir)),
        }
    }

    /// For the keeper, which is told its path by whoever checked it.
    pub(crate) fn trusted(path: PathBuf) -> Self {
        let lab = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Self { lab, path }
    }

    pub(crate) fn daemon_alive(&self) -> bool {
        is_locked(&self.file(DAEMON_LOCK))
    }

    pub(crate) fn keeper_alive(&self) -> bool {
        is_locked(&self.file(KEEPER_LOCK))
    }

    pub(crate) fn daemon_pid(&self) -> Option<i32> {
        let mut text = String::new();
        File::open(self.file(DAEMON_LOCK))
            .ok()?
            .take(16)
            .read_to_string(&mut text)
            .ok()?;
        text.trim().parse().ok().filter(|pid| *pid > 0)
    }

    /// The keeper's lock, waited for: only probes hold it for a moment.
    pub(crate) fn lock_keeper(&self) -> Result<File> {
        let path = self.file(KEEPER_LOCK);
        let file = open_lock(&path).attempt(|| format!("open {}", path.display()))?;
        flock(&file, FlockOperation::LockExclusive).attempt(|| format!("lock {}", path.display()))?;
        Ok(file)
    }

    /// The daemon's lock of a directory that still is the lab's; None while another holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<DaemonLock>> {
        let path = self.file(DAEMON_LOCK);
        let file = match open_lock(&path) {
            // The directory was removed since it was made or seen.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.attempt(|| format!("open {}", path.display()))?,
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let locked = file
            .metadata()
            .attempt(|| format!("look at {}", path.display()))?;
        let same = fs::symlink_metadata(&path).is_ok_and(|named| named.ino() == locked.ino());
        Ok(same.then_some(DaemonLock { file }))
    }

    fn at(base: &Path, lab: &str) -> Result<Self> {
        let proper = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if lab.is_empty() || lab.len() > 32 || !lab.bytes().all(proper) {
            let shown = lab.escape_debug();
            return Err(Error::Spec(format!(
                "\"{shown}\" is no name of a lab: use 1 to 32 letters, digits and '-'"
            )));
        }
        let path = base.join(lab);
        if path.as_os_str().as_bytes().len() > MAX_PATH {
            return Err(Error::Spec(format!(
                "{} is too long for the sockets in it ({MAX_PATH} bytes at most): set PEERLANE_STATE_DIR to a shorter path",
                path.display()
            )));
        }
        Ok(Self {
            lab: lab.to_owned(),
            path,
        })
    }

    fn state_or_remove(&self) -> Result<Option<LabState>> {
        match (self.daemon_alive(), self.keeper_alive()) {
            (true, true) => Ok(Some(LabState::Running)),
            (true, false) => Ok(Some(LabState::Starting)),
            (false, true) => Ok(Some(LabState::Orphaned)),
            (false, false) => {
                // Under the lock nobody can start; without it somebody just does.
                let Some(lock) = self.try_lock()? else {
                    return Ok(self.path.exists().then_some(LabState::Starting));
                };
                if self.keeper_alive() {
                    return Ok(Some(LabState::Orphaned));
                }
                self.remove(lock)?;
                Ok(None)
            }
        }
    }

    /// Empties the directory of a dead lab but for the lock that the caller holds.
    fn sweep(&self) -> Result<()> {
        netns_names::unbind_all(self)?;
        let cannot = || format!("empty {}", self.path.display());
        for entry in fs::read_dir(&self.path).attempt(cannot)? {
            let entry = entry.attempt(cannot)?;
            if entry.file_name() == DAEMON_LOCK {
                continue;
            }
            let directory = entry.file_type().attempt(cannot)?.is_dir();
            let path = entry.path();
            if directory {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            }
            .attempt(cannot)?;
        }
        Ok(())
    }
}

impl DaemonLock {
    /// Says whose it is: call it again after a fork, the lock itself goes with the descriptor.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_pid(&mut self) -> Result<()> {
        let cannot = || format!("write {DAEMON_LOCK}");
        self.file.set_len(0).attempt(cannot)?;
        io::Seek::rewind(&mut self.file).attempt(cannot)?;
        writeln!(self.file, "{}", std::process::id()).attempt(cannot)
    }
}

fn base() -> PathBuf {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(path) = variable("PEERLANE_STATE_DIR") {
        return fs::canonicalize(&path)
            .or_else(|_| std::path::absolute(&path))
            .unwrap_or(path);
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return PathBuf::from("/run/peerlane");
    }
    match variable("XDG_RUNTIME_DIR") {
        Some(path) if path.is_absolute() => path.join("peerlane"),
        _ => std::env::temp_dir().join(format!("peerlane-{}", uid.as_raw())),
    }
}

fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    match made {
        // Something else is there; the check that follows says what.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.attempt(|| {
            format!(
                "make {} (PEERLANE_STATE_DIR chooses another place)",
                path.display()
            )
        }),
    }
}

/// Labs may lie side by side in a directory that others cannot rename them in: our own or root's, or a sticky one.
fn check_base(path: &Path) -> Result<()> {
    let metadata = look_at(path)?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    let closed = metadata.mode() & 0o022 == 0 || metadata.mode() & 0o1000 != 0;
    let reason = match (metadata.is_dir(), ours || metadata.uid() == 0, closed) {
        (false, ..) => "it is no directory",
        (_, false, _) => "it belongs to another user",
        (.., false) => "others can write to it",
        _ => return Ok(()),
    };
    Err(Error::UnsafeDirectory {
        path: path.to_owned(),
        reason: reason.to_owned(),
    })
}

fn check_own(path: &Path) -> Result<()> {
    check_metadata(path, &look_at(path)?)
}

fn check_metadata(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    let reason = match (metadata.is_dir(), ours, metadata.mode() & 0o077 == 0) {
        (false, ..) => "it is no directory",
        (_, false, _) => "it belongs to another user",
        (.., false) => "its mode is not 0700",
        _ => return Ok(()),
    };
    Err(Error::UnsafeDirectory {
        path: path.to_owned(),
        reason: reason.to_owned(),
    })
}

fn look_at(path: &Path) -> Result<fs::Metadata> {
    fs::symlink_metadata(path).attempt(|| format!("look at {}", path.display()))
}

/// Removes a directory that another may be removing too, or just be making its last file in.
fn remove_tree(path: &Path) -> io::Result<()> {
    for _ in 0..LOCK_TRIES {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            done => return done,
        }
    }
    fs::remove_dir_all(path)
}

fn open_lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

/// A lock nobody holds is taken shared and given back at once.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}
