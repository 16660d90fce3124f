//! Talking to the keeper of a lab.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::run_dir::RunDir;
use crate::spec::LabSpec;

/// A connection to a living keeper.
#[derive(Debug)]
pub struct Keeper {
    pid: i32,
    pidfd: OwnedFd,
}

/// The descriptors that lead into a namespace of the lab.
#[derive(Debug)]
pub struct Namespaces {
    /// The lab's user namespace; entering it is skipped by whoever is inside already.
    pub user: OwnedFd,
    pub pid: OwnedFd,
    pub mount: OwnedFd,
    pub network: Namespace,
}

/// A TUN as the keeper holds it.
#[derive(Debug)]
pub struct HeldTun {
    /// What the daemon stored with it.
    pub metadata: String,
    /// One descriptor per queue, in the order they were given.
    pub queues: Vec<OwnedFd>,
}

impl Keeper {
    /// Connects to the living keeper of a lab.
    ///
    /// # Errors
    /// [`Error::NotFound`] when none lives.
    pub fn connect(run_dir: &RunDir) -> Result<Self> {
        Err(Error::NotFound(format!("not built yet: {}", run_dir.lab())))
    }

    /// Its process id as seen from here.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Becomes readable when the keeper has died (poll it; then every program of the lab is gone).
    #[must_use]
    pub fn liveness(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Enters the lab's user namespace unless already in it: first thing of an adopting daemon, before any thread.
    ///
    /// # Errors
    /// When the kernel refuses: another user's lab, or threads run already.
    pub fn join_user_namespace(&mut self) -> Result<()> {
        Err(unfinished())
    }

    /// The spec of a complete lab; None while it was never completed by [`Keeper::hold_spec`].
    ///
    /// # Errors
    /// When the keeper does not answer as agreed.
    pub fn spec(&mut self) -> Result<Option<LabSpec>> {
        Err(unfinished())
    }

    /// Stores the spec: the last step of bringing a lab up, so that a half made one is never adopted.
    ///
    /// # Errors
    /// When the keeper refuses.
    pub fn hold_spec(&mut self, _spec: &LabSpec) -> Result<()> {
        Err(unfinished())
    }

    /// Keeps a network namespace under a name.
    ///
    /// # Errors
    /// When the keeper refuses: the name is held already.
    pub fn hold_namespace(&mut self, _name: &str, _namespace: &Namespace) -> Result<()> {
        Err(unfinished())
    }

    /// Keeps duplicates of all queues of a TUN, with text for whoever adopts it.
    ///
    /// # Errors
    /// When the keeper refuses: held already, no such namespace, more than 64 queues.
    pub fn hold_tun(
        &mut self,
        _namespace: &str,
        _interface: &str,
        _metadata: &str,
        _queues: &[BorrowedFd<'_>],
    ) -> Result<()> {
        Err(unfinished())
    }

    /// Descriptors into a namespace.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that is not held.
    pub fn namespaces(&mut self, _name: &str) -> Result<Namespaces> {
        Err(unfinished())
    }

    /// Duplicates of a held TUN's queues.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one that is not held.
    pub fn tun(&mut self, _namespace: &str, _interface: &str) -> Result<HeldTun> {
        Err(unfinished())
    }

    /// Ends the namespace's programs and lets go of it and its TUNs.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that is not held.
    pub fn release_namespace(&mut self, _name: &str) -> Result<()> {
        Err(unfinished())
    }

    /// Lets go of a TUN.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one that is not held.
    pub fn release_tun(&mut self, _namespace: &str, _interface: &str) -> Result<()> {
        Err(unfinished())
    }

    /// Starts a shell command in a namespace, its output in `log/<namespace>.log` of the run directory, until it ends
    /// by itself or with the lab.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that is not held; what kept the program from starting.
    pub fn spawn(&mut self, _namespace: &str, _command: &str) -> Result<()> {
        Err(unfinished())
    }

    /// Ends the programs (SIGTERM, after 2 s SIGKILL) and the keeper, and waits for it.
    ///
    /// # Errors
    /// When it still lives after SIGKILL.
    pub fn stop(self) -> Result<()> {
        Err(unfinished())
    }
}

fn unfinished() -> Error {
    Error::Keeper("not built yet".to_owned())
}
