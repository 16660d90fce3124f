//! The programs that the keeper runs: starting, reaping and ending them.
#![expect(unsafe_code, reason = "a child enters its namespace between fork and exec")]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Attempt, Result};

/// One round kills what there is; what forks all the time may need several. Bounded, as a dying process still shows.
const KILL_ROUNDS: u32 = 100;

/// The programs started and not yet reaped, by process id in the lab.
#[derive(Debug)]
pub(crate) struct Programs {
    running: HashMap<i32, Program>,
    /// The limit of open files that programs get; the keeper raises its own.
    files: Rlimit,
}

#[derive(Debug)]
struct Program {
    namespace: String,
    command: String,
    log: PathBuf,
    /// It was asked to.
    ending: bool,
}

impl Programs {
    /// Raises the keeper's own limit of open files as far as allowed.
    pub(crate) fn new() -> Self {
        let files = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: files.maximum,
            maximum: files.maximum,
        };
        // A small lab works without; a large one gets a clear error at the descriptor that is too much.
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
        Self {
            running: HashMap::new(),
            files,
        }
    }

    /// Starts a shell command inside `network`, as a session of its own, with its output appended to `log`.
    pub(crate) fn start(
        &mut self,
        namespace: &str,
        network: BorrowedFd<'_>,
        command: &str,
        log: PathBuf,
    ) -> Result<()> {
        let file = open_log(&log).attempt(|| format!("open {}", log.display()))?;
        let errors = file.try_clone().attempt(|| "duplicate a descriptor".to_owned())?;
        let (network, files) = (network.as_raw_fd(), self.files);
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors);
        // SAFETY: the closure only makes system calls, allocates nothing and takes no lock.
        unsafe {
            shell.pre_exec(move || {
                // SAFETY: the keeper holds the namespace open until this spawn has returned.
                let network = BorrowedFd::borrow_raw(network);
                move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
                rustix::process::setsid()?;
                Ok(rustix::process::setrlimit(Resource::Nofile, files)?)
            });
        }
        let child = shell
            .spawn()
            .attempt(|| format!("start `{command}` in {namespace}"))?;
        let program = Program {
            namespace: namespace.to_owned(),
            command: command.to_owned(),
            log,
            ending: false,
        };
        self.running.insert(child.id().cast_signed(), program);
        Ok(())
    }

    /// Collects every process that has ended, the lab's orphans too, and notes the end of programs in their logs.
    pub(crate) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(program) = self.running.remove(&pid.as_raw_pid()) {
                // A log that cannot be written must not end the lab.
                let _ = open_log(&program.log).and_then(|mut log| {
                    writeln!(log, "peerlane: `{}` ended: {}", program.command, describe(status))
                });
            }
        }
    }

    /// Asks one program of this command to end; false: there is none.
    pub(crate) fn end(&mut self, namespace: &str, command: &str) -> bool {
        let wanted = |program: &Program| {
            program.namespace.eq_ignore_ascii_case(namespace) && program.command == command && !program.ending
        };
        let Some((pid, program)) = self.running.iter_mut().find(|(_, program)| wanted(program)) else {
            return false;
        };
        program.ending = true;
        if let Some(pid) = Pid::from_raw(*pid) {
            let _ = rustix::process::kill_process_group(pid, Signal::TERM);
        }
        true
    }

    /// Asks all programs to end.
    pub(crate) fn terminate(&self) {
        for pid in self.running.keys().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = rustix::process::kill_process_group(pid, Signal::TERM);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Kills whatever runs in a network namespace, started by the keeper or not.
    pub(crate) fn kill_inside(&self, namespace: &str, network: BorrowedFd<'_>) {
        let inside = |program: &&Program| program.namespace == namespace;
        for (pid, _) in self.running.iter().filter(|(_, program)| inside(program)) {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
        }
        let Ok(network) = rustix::fs::fstat(network.as_fd()) else {
            return;
        };
        let inside = |pid: &Pid| {
            let path = format!("/proc/{}/ns/net", pid.as_raw_pid());
            fs::metadata(path).is_ok_and(|found| found.ino() == network.st_ino)
        };
        // Once more for those that were born meanwhile.
        for _ in 0..KILL_ROUNDS {
            let found: Vec<Pid> = processes_of_the_lab().into_iter().filter(inside).collect();
            for pid in &found {
                let _ = rustix::process::kill_process(*pid, Signal::KILL);
            }
            if found.is_empty() {
                return;
            }
        }
    }
}

/// All but the keeper; none where /proc is still that of the machine, whose ids mean others here.
fn processes_of_the_lab() -> Vec<Pid> {
    if fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() != "1") {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|pid| *pid != 1).filter_map(Pid::from_raw).collect()
}

fn open_log(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => Errno::CHILD.to_string(),
    }
}
