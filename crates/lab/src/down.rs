//! Ending a lab: daemon, keeper, programs, names, run directory.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Attempt, Error, Result};
use crate::keeper_client::{self, Keeper};
use crate::network;
use crate::run_dir::RunDir;
use crate::spec::Place;

/// A daemon that is asked to end takes its lab down in well under a second.
const DAEMON_PATIENCE: Duration = Duration::from_secs(5);

/// After SIGKILL the kernel closes TUNs one by one, 34 ms each; beyond a thousand of them a process is stuck.
const KILL_PATIENCE: Duration = Duration::from_secs(60);

/// Takes a lab down: SIGTERM to its daemon (SIGKILL after 5 s), then its keeper, then what is left on disk.
///
/// # Errors
/// [`Error::NotFound`] when no such lab runs and nothing of it was left; a process that survives SIGKILL.
pub fn stop(lab: &str) -> Result<()> {
    let nothing = || Error::NotFound(format!("no lab named {lab} runs"));
    let run_dir = RunDir::existing(lab)?.ok_or_else(nothing)?;
    stop_daemon(&run_dir)?;
    let Some(lock) = run_dir.try_lock()? else {
        // The daemon removed everything by itself, or another `up` was faster.
        return Ok(());
    };
    if run_dir.keeper_alive() {
        match Keeper::connect(&run_dir) {
            Ok(mut keeper) => {
                withdraw(&mut keeper)?;
                keeper.stop()?;
            }
            // One that does not answer as agreed needs no manners.
            Err(_) => keeper_client::kill(&run_dir)?,
        }
    }
    run_dir.remove(lock)
}

/// Ends the daemon of a lab and leaves the lab to its keeper: SIGTERM, and SIGKILL after 5 s.
///
/// # Errors
/// [`Error::NotFound`] when no such lab runs.
pub fn end_daemon(lab: &str) -> Result<()> {
    stop_daemon(&RunDir::open(lab)?)
}

/// Takes back what a daemon that died has left in namespaces that are not the lab's.
fn withdraw(keeper: &mut Keeper) -> Result<()> {
    let Some(specs) = keeper.lab()? else { return Ok(()) };
    let all = specs.iter().flat_map(|spec| &spec.namespaces);
    for foreign in all.filter(|namespace| namespace.place != Place::Lab) {
        match keeper.namespaces(&foreign.name) {
            Ok(found) => found.network.run(|| network::unconfigure(foreign))??,
            // Of a change that ended before it was made, or after it was gone.
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn stop_daemon(run_dir: &RunDir) -> Result<()> {
    if !run_dir.daemon_alive() {
        return Ok(());
    }
    let Some(pid) = run_dir.daemon_pid().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        pidfd => pidfd.attempt(|| format!("open process {}", pid.as_raw_pid()))?,
    };
    // The lock is still held by the process that wrote this id: the descriptor cannot be of a later one.
    if run_dir.daemon_alive() && run_dir.daemon_pid() == Some(pid.as_raw_pid()) {
        end(pidfd.as_fd(), Signal::TERM, DAEMON_PATIENCE, "the daemon")?;
    }
    Ok(())
}

/// Sends a signal, and SIGKILL when the process outlives `patience`; returns when it is dead.
pub(crate) fn end(
    pidfd: BorrowedFd<'_>,
    signal: Signal,
    patience: Duration,
    who: &'static str,
) -> Result<()> {
    signal_process(pidfd, signal, who)?;
    if ends_within(pidfd, patience)? {
        return Ok(());
    }
    signal_process(pidfd, Signal::KILL, who)?;
    if ends_within(pidfd, KILL_PATIENCE)? {
        return Ok(());
    }
    let stuck = std::io::Error::from(std::io::ErrorKind::TimedOut);
    Err(stuck).attempt(|| format!("end {who}: it survives SIGKILL"))
}

/// Whether the process behind a pidfd is dead at the latest after `patience`.
pub(crate) fn ends_within(pidfd: BorrowedFd<'_>, patience: Duration) -> Result<bool> {
    let timeout = Timespec::try_from(patience).unwrap_or(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    });
    let mut waiting = [PollFd::new(&pidfd, PollFlags::IN)];
    loop {
        match poll(&mut waiting, Some(&timeout)) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready.attempt(|| "wait for a process".to_owned())? > 0),
        }
    }
}

fn signal_process(pidfd: BorrowedFd<'_>, signal: Signal, who: &'static str) -> Result<()> {
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno).attempt(|| format!("signal {who}")),
    }
}
