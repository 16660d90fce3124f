//! A network namespace, and running code inside one.
#![expect(
    unsafe_code,
    reason = "unshare(2) has no safe binding; it is called with CLONE_NEWNET alone"
)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::error::{Attempt, Error, Result};
use crate::spec::{NamespaceSpec, Place};

/// Where `ip netns` keeps its names.
pub const NAMES: &str = "/run/netns";

/// An open network namespace; the kernel keeps it while this, an interface's descriptor or a process in it lives.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// A new, empty namespace. No thread of the caller changes its own.
    ///
    /// # Errors
    /// [`Error::Machine`] when the kernel refuses.
    pub fn create() -> Result<Self> {
        in_new_thread(|| {
            // SAFETY: NEWNET does not touch the table of file descriptors, the one hazard of this call.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(refused)?;
            Self::open_path(Path::new("/proc/thread-self/ns/net"))
        })?
    }

    /// The namespace a spec asks for: a new one, or the existing one it names.
    ///
    /// # Errors
    /// As of [`Namespace::create`], [`Namespace::open`] and [`Namespace::current`].
    pub fn of(spec: &NamespaceSpec) -> Result<Self> {
        match &spec.place {
            Place::Lab => Self::create(),
            Place::Existing(name) => Self::open(name),
            Place::Host => Self::current(),
        }
    }

    /// An existing namespace by its name under /run/netns, or by a path.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none of this name.
    pub fn open(name_or_path: &str) -> Result<Self> {
        let path = if name_or_path.contains('/') {
            PathBuf::from(name_or_path)
        } else {
            Path::new(NAMES).join(name_or_path)
        };
        Self::open_path(&path)
    }

    /// The caller's own namespace.
    ///
    /// # Errors
    /// Only without /proc.
    pub fn current() -> Result<Self> {
        Self::open_path(Path::new("/proc/thread-self/ns/net"))
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. A panic of `work` goes on here.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_new_thread(|| {
            move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
                .attempt(|| "enter the network namespace".to_owned())?;
            Ok(work())
        })?
    }

    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn open_path(path: &Path) -> Result<Self> {
        match File::open(path) {
            Ok(file) => Ok(Self { fd: file.into() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::NotFound(format!(
                "there is no network namespace {}",
                path.display()
            ))),
            Err(error) => Err(error).attempt(|| format!("open the network namespace {}", path.display())),
        }
    }
}

impl From<OwnedFd> for Namespace {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<Namespace> for OwnedFd {
    fn from(namespace: Namespace) -> Self {
        namespace.fd
    }
}

fn in_new_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned());
        let thread = thread
            .spawn_scoped(scope, work)
            .attempt(|| "start a thread".to_owned())?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn refused(errno: Errno) -> Error {
    let cause = format!(
        "the kernel refuses a network namespace: {}",
        std::io::Error::from(errno)
    );
    match errno {
        Errno::NOSPC => Error::machine(cause, "raise the limit: sysctl user.max_net_namespaces"),
        Errno::PERM => Error::machine(
            cause,
            "run as root, or where unprivileged user namespaces are allowed",
        ),
        _ => Error::machine(cause, "the kernel needs CONFIG_NET_NS and free memory"),
    }
}
