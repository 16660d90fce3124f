//! Running a program in a namespace of a lab with the caller's terminal.
#![expect(
    unsafe_code,
    reason = "the child asks to die with its parent between fork and exec"
)]

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::error::{Attempt, Error, Result};
use crate::keeper_client::{Namespaces, join_user_namespace};

/// Sent to this process alone, they are meant for the program.
const FORWARDED: [(i32, Signal); 4] = [
    (SIGHUP, Signal::HUP),
    (SIGTERM, Signal::TERM),
    (SIGUSR1, Signal::USR1),
    (SIGUSR2, Signal::USR2),
];

/// The terminal sends them to the program as well: this process only has to outlive them.
const SHARED: [i32; 2] = [SIGINT, SIGQUIT];

const NOT_EXECUTABLE: u8 = 126;
const NO_SUCH_PROGRAM: u8 = 127;

/// Enters the namespaces, runs the program there with the caller's stdio and directory, and waits for it. Signals that
/// would end the caller are passed on. Call it before any thread starts.
///
/// Returns the code to exit with: the program's own, 126 not executable, 127 not found (said on standard error),
/// 128+n ended by signal n.
///
/// # Errors
/// Failures that are peerlane's own (exit code 125).
pub fn run(namespaces: &Namespaces, command: &[OsString]) -> Result<u8> {
    let [program, arguments @ ..] = command else {
        return Err(Error::Spec("no program is given".to_owned()));
    };
    let directory = std::env::current_dir();
    enter(namespaces)?;
    // Entering the mount namespace led to its root.
    if let Ok(directory) = directory {
        let _ = std::env::set_current_dir(directory);
    }
    let signals = watch_signals()?;
    let mut child = Command::new(program);
    child.args(arguments);
    // SAFETY: the closure only makes system calls, allocates nothing and takes no lock.
    unsafe {
        child.pre_exec(|| {
            Ok(rustix::process::set_parent_process_death_signal(Some(
                Signal::KILL,
            ))?)
        });
    }
    match child.spawn() {
        Ok(child) => wait(child, &signals).map(code),
        Err(error) => refused(program, error),
    }
}

fn enter(namespaces: &Namespaces) -> Result<()> {
    join_user_namespace(namespaces.user.as_fd())?;
    let steps = [
        (namespaces.network.fd(), LinkNameSpaceType::Network, "network"),
        (namespaces.pid.as_fd(), LinkNameSpaceType::ProcessID, "PID"),
        (namespaces.mount.as_fd(), LinkNameSpaceType::Mount, "mount"),
    ];
    for (fd, kind, name) in steps {
        move_into_link_name_space(fd, Some(kind)).attempt(|| format!("enter the lab's {name} namespace"))?;
    }
    Ok(())
}

/// One socket per forwarded signal, readable when it has come.
fn watch_signals() -> Result<Vec<(UnixStream, Signal)>> {
    let watch = |(number, signal): (i32, Signal)| -> io::Result<(UnixStream, Signal)> {
        let (read, write) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(number, write)?;
        Ok((read, signal))
    };
    for number in SHARED {
        // A handler, not SIG_IGN: the program must start with the default.
        let (_, write) = UnixStream::pair().attempt(|| "make a socket pair".to_owned())?;
        signal_hook::low_level::pipe::register(number, write).attempt(|| "handle signals".to_owned())?;
    }
    FORWARDED
        .into_iter()
        .map(watch)
        .collect::<io::Result<_>>()
        .attempt(|| "handle signals".to_owned())
}

fn wait(mut child: Child, signals: &[(UnixStream, Signal)]) -> Result<ExitStatus> {
    let cannot = || "wait for the program".to_owned();
    let pid = Pid::from_child(&child);
    let pidfd: OwnedFd = pidfd_open(pid, PidfdFlags::empty()).attempt(cannot)?;
    loop {
        let mut polled = vec![PollFd::new(&pidfd, PollFlags::IN)];
        polled.extend(
            signals
                .iter()
                .map(|(socket, _)| PollFd::new(socket, PollFlags::IN)),
        );
        match poll(&mut polled, None) {
            Err(Errno::INTR) => continue,
            ready => ready.attempt(cannot)?,
        };
        if !polled[0].revents().is_empty() {
            return child.wait().attempt(cannot);
        }
        let came: Vec<bool> = polled[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        for ((socket, signal), _) in signals.iter().zip(came).filter(|(_, came)| *came) {
            let mut one = [0];
            let _ = (&*socket).read(&mut one);
            match pidfd_send_signal(&pidfd, *signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno).attempt(|| "signal the program".to_owned()),
            }
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn refused(program: &OsString, error: io::Error) -> Result<u8> {
    let code = match (error.kind(), error.raw_os_error().map(Errno::from_raw_os_error)) {
        (ErrorKind::NotFound, _) => NO_SUCH_PROGRAM,
        // A directory of PATH that may not be searched hides that the others do not have it.
        (ErrorKind::PermissionDenied, _) if !on_path(program) => NO_SUCH_PROGRAM,
        (ErrorKind::PermissionDenied, _) | (_, Some(Errno::NOEXEC | Errno::ISDIR | Errno::NOTDIR)) => {
            NOT_EXECUTABLE
        }
        _ => return Err(error).attempt(|| format!("run {}", program.display())),
    };
    eprintln!("peerlane: cannot run {}: {error}", program.display());
    Ok(code)
}

/// Whether there is such a file, executable or not.
fn on_path(program: &OsString) -> bool {
    if program.as_encoded_bytes().contains(&b'/') {
        return true;
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories).any(|directory| directory.join(program).exists())
}
