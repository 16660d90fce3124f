//! Getting hold of a lab's namespaces and TUNs: new ones, or those that a keeper holds since an earlier daemon.

use lab::run_dir::DaemonLock;
use lab::{Keeper, LabSpec, RunDir};
use port::Queue;

use crate::declared::Begin;
use crate::machines::Difference;
use crate::ports::{self, Opened, Opening, Ports};
use crate::store::Store;
use crate::up::{UpError, UpErrorKind};

/// A lab's namespaces and TUNs in this process's hands, and what holds them together outside it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) run_dir: RunDir,
    lock: DaemonLock,
    pub(crate) keeper: Keeper,
    /// Open for nobody else.
    pub(crate) store: Store,
    pub(crate) ports: Ports,
    /// By worker and port; the workers take them.
    pub(crate) queues: Vec<Vec<Queue>>,
    pub(crate) opening: Opening,
    /// False: made by this process, which undoes it when something fails.
    pub(crate) adopted: bool,
}

/// Adopts the lab of this run directory, whatever it has become, if its keeper lives; else makes `given`. Returns what
/// the lab is. `kept`: it may outlive this process, and is stored.
///
/// # Errors
/// What could not be made, and nothing is left of it; or the lab that was there cannot be read, and its keeper goes on.
pub(crate) fn attach(
    run_dir: RunDir,
    lock: DaemonLock,
    given: Option<Begin>,
    opening: Opening,
    kept: bool,
) -> Result<(Attached, Begin), UpError> {
    match Keeper::connect(&run_dir) {
        Ok(mut keeper) => {
            if !lab::rootless::privileged() {
                keeper.join_user_namespace()?;
            }
            match keeper.lab()? {
                Some(specs) => return adopt(run_dir, lock, keeper, &specs, opening),
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
    let Some(begin) = given else {
        let name = run_dir.lab().to_owned();
        run_dir.remove(lock)?;
        return Err(UpError {
            kind: UpErrorKind::NotFound,
            ..UpError::failed(format!("no lab named {name} runs"))
        });
    };
    let attached = make(run_dir, lock, &begin.spec, opening, kept)?;
    Ok((attached, begin))
}

impl Attached {
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

/// The store says what the lab is. `specs` is what the keeper may hold: when a daemon died in the middle of a change, both
/// what was and what was to come.
fn adopt(
    run_dir: RunDir,
    lock: DaemonLock,
    mut keeper: Keeper,
    specs: &[LabSpec],
    opening: Opening,
) -> Result<(Attached, Begin), UpError> {
    let (store, stored) = Store::open(&run_dir)?;
    let begin = Begin::again(stored)?;
    let Opened { ports, queues } = ports::adopt(&begin.spec, &mut keeper)?;
    let mut attached = Attached {
        run_dir,
        lock,
        keeper,
        store,
        ports,
        queues,
        opening: Opening {
            io: begin.forwarding.io,
            ..opening
        },
        adopted: true,
    };
    for past in specs.iter().filter(|past| **past != begin.spec) {
        let there = ports::still_there(past, &mut attached.keeper);
        Difference::between(past, &begin.spec)?.settle(&mut attached, &there);
    }
    release_leftovers(&mut attached, &begin.spec)?;
    attached.keeper.hold_lab(&[&begin.spec])?;
    Ok((attached, begin))
}

/// Lets go of what is held and belongs to no lab.
fn release_leftovers(attached: &mut Attached, spec: &LabSpec) -> Result<(), UpError> {
    for held in attached.keeper.held()? {
        let Some(wanted) = spec.namespace(&held.name) else {
            tracing::info!("{} is left over of a change that was not finished", held.name);
            lab::netns_names::unbind(&attached.run_dir, &held.name)?;
            attached.keeper.release_namespace(&held.name)?;
            continue;
        };
        for tun in &held.tuns {
            if !wanted.interfaces.iter().any(|interface| interface.name == *tun) {
                attached.keeper.release_tun(&held.name, tun)?;
            }
        }
    }
    Ok(())
}

/// A new lab; nothing is left of it when something fails.
fn make(
    run_dir: RunDir,
    lock: DaemonLock,
    spec: &LabSpec,
    opening: Opening,
    kept: bool,
) -> Result<Attached, UpError> {
    let started = (|| {
        if !lab::rootless::privileged() {
            lab::rootless::enter_user_namespace()?;
        }
        let store = match kept {
            true => Store::create(&run_dir)?,
            false => Store::in_memory()?,
        };
        let keeper = lab::keeper::start(&run_dir, &lab::keeper::Launch::default())?;
        Ok((store, keeper))
    })();
    let (store, mut keeper) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = run_dir.remove(lock);
            return Err(error);
        }
    };
    let opened = ports::open(spec, &mut keeper, &run_dir, opening);
    let (opened, failed) = match opened {
        Ok(opened) => (opened, None),
        Err(error) => (Opened::default(), Some(error)),
    };
    let attached = Attached {
        run_dir,
        lock,
        keeper,
        store,
        ports: opened.ports,
        queues: opened.queues,
        opening,
        adopted: false,
    };
    let Some(error) = failed else {
        return Ok(attached);
    };
    if let Err(left) = attached.dismantle(spec) {
        tracing::error!("undo: {left}");
    }
    Err(error)
}
