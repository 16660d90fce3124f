//! The labs of this user: which there are, and taking one down.

use std::fs;
use std::io;
use std::path::PathBuf;

use lab::{Keeper, Namespace, NamespaceSpec, Place, RunDir};
use serde::{Deserialize, Serialize};

use crate::api::LabState;
use crate::process::SOCKET;
use crate::up::{Running, UpError};

/// What a lab's run directory says of it when nobody else can.
const MEMORY: &str = "lab.json";

/// One lab, as `list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub state: LabState,
    /// The daemon's process id; the keeper's when the daemon is gone.
    pub pid: u32,
    pub file: String,
    pub socket: PathBuf,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Memory {
    file: String,
    /// Of the latest change.
    generation: u64,
}

/// The labs that run, by name. What dead labs left behind is removed on the way.
///
/// # Errors
/// The directory of the labs cannot be read.
pub fn list() -> Result<Vec<Listed>, UpError> {
    let entries = RunDir::list()?;
    let listed = entries.into_iter().map(|entry| {
        let keeper_pid = || Keeper::connect(&entry.run_dir).map_or(0, |keeper| keeper.pid());
        Listed {
            name: entry.run_dir.lab().to_owned(),
            state: match entry.state {
                lab::LabState::Starting => LabState::Starting,
                lab::LabState::Running => LabState::Running,
                lab::LabState::Orphaned => LabState::Orphaned,
            },
            pid: u32::try_from(entry.daemon_pid.unwrap_or_else(keeper_pid)).unwrap_or(0),
            file: memory(&entry.run_dir).file,
            socket: entry.run_dir.file(SOCKET),
        }
    });
    Ok(listed.collect())
}

/// Takes a lab down, whether its daemon lives or not, and returns when nothing is left of it.
///
/// # Errors
/// It does not exist, belongs to somebody else, or something of it could not be removed.
pub fn down(name: &str) -> Result<(), UpError> {
    let foreign = foreign_namespaces(name);
    lab::down::stop(name)?;
    // A daemon that was killed could not do it.
    for (spec, namespace) in foreign {
        namespace.run(|| lab::network::unconfigure(&spec))??;
    }
    Ok(())
}

/// Ends a lab's daemon, if it lives, and starts this program as its next one: the keeper holds namespaces, TUNs and programs
/// meanwhile.
///
/// # Errors
/// There is no such lab, it runs in front or belongs to somebody else, or the new daemon does not start.
pub fn restart(name: &str) -> Result<Running, UpError> {
    lab::down::end_daemon(name)?;
    crate::up::resume(name)
}

/// The namespaces of a lab that do not go with it. None when its keeper is gone: nobody knows them then.
fn foreign_namespaces(name: &str) -> Vec<(NamespaceSpec, Namespace)> {
    let held = || {
        let mut keeper = Keeper::connect(&RunDir::open(name)?)?;
        let specs = keeper.lab()?.unwrap_or_default();
        let namespaces = specs.into_iter().flat_map(|spec| spec.namespaces);
        let foreign = namespaces.filter(|namespace| namespace.place != Place::Lab);
        foreign
            .filter_map(|wanted| match keeper.namespaces(&wanted.name) {
                Ok(found) => Some(Ok((wanted, found.network))),
                // Of a change that ended before it was made, or after it was gone.
                Err(lab::Error::NotFound(_)) => None,
                Err(error) => Some(Err(error)),
            })
            .collect::<lab::Result<Vec<_>>>()
    };
    held().unwrap_or_default()
}

/// Writes down what `list` shows of a lab whose daemon is gone, and of which generation the lab in the store is at least.
///
/// # Errors
/// The run directory cannot be written.
pub(crate) fn remember(run_dir: &RunDir, file: &str, generation: u64) -> io::Result<()> {
    let memory = Memory {
        file: file.to_owned(),
        generation,
    };
    fs::write(run_dir.file(MEMORY), serde_json::to_vec(&memory)?)
}

/// The generation of the latest [`remember`]; 0 when a daemon died while it wrote.
pub(crate) fn remembered_generation(run_dir: &RunDir) -> u64 {
    memory(run_dir).generation
}

fn memory(run_dir: &RunDir) -> Memory {
    let memory = fs::read(run_dir.file(MEMORY)).unwrap_or_default();
    serde_json::from_slice(&memory).unwrap_or_default()
}
