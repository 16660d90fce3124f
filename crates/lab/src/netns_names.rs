//! Names under /run/netns for a lab's namespaces (root only), so that `ip netns` sees them.
//!
//! What is made is first written to `netns` in the run directory, with the namespace's inode: only a name that still
//! leads to that namespace is ever removed.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

use crate::error::{Attempt, Error, Result};
use crate::namespace::{NAMES, Namespace};
use crate::run_dir::RunDir;

/// The list in the run directory: one `inode name` a line.
const LIST: &str = "netns";

/// Gives the namespace the name `<lab>-<name>` under /run/netns and remembers it in the run directory.
///
/// # Errors
/// [`Error::NameTaken`] when something else has that name.
pub fn bind(run_dir: &RunDir, name: &str, namespace: &Namespace) -> Result<()> {
    share_names()?;
    let name = format!("{}-{}", run_dir.lab(), file_name(name));
    let path = Path::new(NAMES).join(&name);
    let cannot = || format!("name a namespace {}", path.display());
    let inode = rustix::fs::fstat(namespace.fd()).attempt(cannot)?.st_ino;
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&path)
    {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(Error::NameTaken(path)),
        file => file.attempt(cannot)?,
    };
    let bound = remember(run_dir, inode, &name).and_then(|()| {
        let source = format!("/proc/self/fd/{}", namespace.fd().as_raw_fd());
        mount_bind(source, &path).attempt(cannot)
    });
    if bound.is_err() {
        // The mount did not happen, so this is the empty file made above.
        fs::remove_file(&path).attempt(cannot)?;
    }
    bound
}

/// Removes all names that [`bind`] made for this lab, and nothing else.
///
/// # Errors
/// When a name of the lab cannot be removed.
pub fn unbind_all(run_dir: &RunDir) -> Result<()> {
    let list = run_dir.file(LIST);
    let text = match fs::read_to_string(&list) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.attempt(|| format!("read {}", list.display()))?,
    };
    for (inode, name) in text.lines().filter_map(|line| line.split_once(' ')) {
        remove(inode, name)?;
    }
    fs::remove_file(&list).attempt(|| format!("remove {}", list.display()))
}

/// Removes the name that [`bind`] made for one namespace of this lab, if it made one.
///
/// # Errors
/// When it cannot be removed.
pub fn unbind(run_dir: &RunDir, name: &str) -> Result<()> {
    let list = run_dir.file(LIST);
    let text = match fs::read_to_string(&list) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.attempt(|| format!("read {}", list.display()))?,
    };
    let name = format!("{}-{}", run_dir.lab(), file_name(name));
    let (gone, kept): (Vec<&str>, Vec<&str>) = text
        .lines()
        .partition(|line| line.split_once(' ').is_some_and(|(_, own)| own == name));
    for (inode, name) in gone.into_iter().filter_map(|line| line.split_once(' ')) {
        remove(inode, name)?;
    }
    let kept: String = kept.into_iter().map(|line| format!("{line}\n")).collect();
    fs::write(&list, kept).attempt(|| format!("write {}", list.display()))
}

/// A name as one path component: `group/name` of the lab file becomes `group:name`, which no ARM name contains.
pub(crate) fn file_name(name: &str) -> String {
    let name = name.replace('/', ":");
    if name.starts_with('.') {
        format!(":{name}")
    } else {
        name
    }
}

/// Removes a name if it still leads to the namespace of this inode.
fn remove(inode: &str, name: &str) -> Result<()> {
    let path = Path::new(NAMES).join(file_name(name));
    let Ok(metadata) = fs::symlink_metadata(&path) else {
        return Ok(());
    };
    // An empty plain file is what a crash between making and mounting leaves.
    let mounted = metadata.ino().to_string() == inode;
    let cannot = || format!("remove {}", path.display());
    if mounted {
        unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).attempt(cannot)?;
    }
    if mounted || unmounted_leftover(&metadata) {
        fs::remove_file(&path).attempt(cannot)?;
    }
    Ok(())
}

fn remember(run_dir: &RunDir, inode: u64, name: &str) -> Result<()> {
    let path = run_dir.file(LIST);
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path);
    let mut file = file.attempt(|| format!("write {}", path.display()))?;
    writeln!(file, "{inode} {name}").attempt(|| format!("write {}", path.display()))
}

/// Names are made once in a namespace file system, which is on the device of no disk.
fn unmounted_leftover(metadata: &fs::Metadata) -> bool {
    let names_device = fs::metadata(NAMES).map(|names| names.dev());
    metadata.is_file() && metadata.len() == 0 && names_device.is_ok_and(|device| device == metadata.dev())
}

/// As `ip netns add` does: a shared mount, so that what is unmounted here goes everywhere.
fn share_names() -> Result<()> {
    let names = PathBuf::from(NAMES);
    let cannot = || format!("prepare {NAMES}");
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&names)
        .attempt(cannot)?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if mount_change(&names, shared).is_ok() {
        return Ok(());
    }
    // Not a mount point yet.
    mount_bind(&names, &names).attempt(cannot)?;
    mount_change(&names, shared).attempt(cannot)
}
