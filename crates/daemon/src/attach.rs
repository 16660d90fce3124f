//! Getting hold of a lab's namespaces and TUNs: new ones, or those that a keeper holds since an earlier daemon.

use lab::run_dir::DaemonLock;
use lab::{HeldLab, Keeper, LabSpec, RunDir};
use port::Queue;

use crate::ports::{self, Opened, Opening, Ports};
use crate::up::UpError;

/// A lab's namespaces and TUNs in this process's hands, and what holds them together outside it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) run_dir: RunDir,
    lock: DaemonLock,
    pub(crate) keeper: Keeper,
    pub(crate) ports: Ports,
    /// By worker and port; the workers take them.
    pub(crate) queues: Vec<Vec<Queue>>,
    pub(crate) opening: Opening,
    /// What was adopted. None: made by this process, which undoes it when something fails.
    pub(crate) held: Option<HeldLab>,
}

/// Adopts the lab of this run directory, whatever it has become, if its keeper lives; else makes `spec`.
///
/// # Errors
/// What could not be made, and nothing is left of it; or the keeper does not hold a whole lab, and goes on.
pub(crate) fn attach(
    run_dir: RunDir,
    lock: DaemonLock,
    spec: &LabSpec,
    opening: Opening,
) -> Result<Attached, UpError> {
    match Keeper::connect(&run_dir) {
        Ok(mut keeper) => {
            if !lab::rootless::privileged() {
                keeper.join_user_namespace()?;
            }
            match keeper.lab()? {
                Some(held) => {
                    let opened = ports::adopt(&held.spec, &mut keeper)?;
                    return Ok(Attached::new(run_dir, lock, keeper, opened, opening, Some(held)));
                }
                // The daemon died while it made the lab.
                None => {
                    keeper.stop()?;
                    lab::netns_names::unbind_all(&run_dir)?;
                }
            }
        }
        Err(lab::Error::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    make(run_dir, lock, spec, opening)
}

impl Attached {
    fn new(
        run_dir: RunDir,
        lock: DaemonLock,
        keeper: Keeper,
        opened: Opened,
        opening: Opening,
        held: Option<HeldLab>,
    ) -> Self {
        Self {
            run_dir,
            lock,
            keeper,
            ports: opened.ports,
            queues: opened.queues,
            opening,
            held,
        }
    }

    /// Ends programs, namespaces and names, and removes the run directory. No worker runs any more.
    ///
    /// # Errors
    /// What could not be removed.
    pub(crate) fn dismantle(self, spec: &LabSpec) -> Result<(), UpError> {
        ports::withdraw(spec, &self.ports);
        drop(self.queues);
        let stopped = self.keeper.stop();
        self.run_dir.remove(self.lock)?;
        Ok(stopped?)
    }
}

/// A new lab; nothing is left of it when something fails.
fn make(run_dir: RunDir, lock: DaemonLock, spec: &LabSpec, opening: Opening) -> Result<Attached, UpError> {
    let started = (|| {
        if !lab::rootless::privileged() {
            lab::rootless::enter_user_namespace()?;
        }
        lab::keeper::start(&run_dir, &lab::keeper::Launch::default())
    })();
    let mut keeper = match started {
        Ok(keeper) => keeper,
        Err(error) => {
            let _ = run_dir.remove(lock);
            return Err(error.into());
        }
    };
    let opened = ports::open(spec, &mut keeper, &run_dir, opening);
    let (opened, failed) = match opened {
        Ok(opened) => (opened, None),
        Err(error) => (Opened::default(), Some(error)),
    };
    let attached = Attached::new(run_dir, lock, keeper, opened, opening, None);
    let Some(error) = failed else {
        return Ok(attached);
    };
    if let Err(left) = attached.dismantle(spec) {
        tracing::error!("undo: {left}");
    }
    Err(error)
}
