//! Starting the keeper process: PID 1 of the lab's PID namespace, holds namespaces, TUNs and programs.
//!
//! Two steps, each this same binary anew: `keeper spawn DIR` leaves the caller's session, unshares the PID and mount
//! namespaces and starts `keeper init DIR`, which is PID 1 of them and stays. As PID 1 it is deaf to every signal but
//! SIGKILL and SIGSTOP from outside.
#![expect(
    unsafe_code,
    reason = "unshare(2) and inherited descriptors have no safe binding"
)]

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::down::ends_within;
use crate::error::{Attempt, Error, Result};
use crate::keeper_client::{self, Keeper};
use crate::keeper_protocol::Startup;
use crate::keeper_service;
use crate::netns_names::file_name;
use crate::run_dir::RunDir;

/// The keeper's socket in the run directory.
pub(crate) const SOCKET: &str = "keeper.sock";

/// It starts within milliseconds; a machine under load may need more.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// The program that becomes the keeper: it must pass its arguments after `arguments` to [`main`].
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

impl Default for Launch {
    /// This very binary with the hidden subcommand `keeper`.
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec!["keeper".into()],
        }
    }
}

/// Starts the keeper of a lab and connects to it. Call it after `enter_user_namespace`, and not while one lives.
///
/// # Errors
/// What the new process reports, or [`Error::Machine`] when the kernel refuses its namespaces.
pub fn start(run_dir: &RunDir, launch: &Launch) -> Result<Keeper> {
    let cannot = || format!("start the keeper of lab {}", run_dir.lab());
    let logs = run_dir.file("log");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&logs)
        .attempt(cannot)?;
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(logs.join("keeper.log"));
    let mut child = Command::new(&launch.program)
        .arg0("peerlane")
        .args(&launch.arguments)
        .args([OsString::from("spawn"), run_dir.path().into()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.attempt(cannot)?)
        .spawn()
        .attempt(cannot)?;
    let said = startup(&mut child);
    child.wait().attempt(cannot)?;
    let connected = match said {
        Ok(Startup::Ready) => Keeper::connect(run_dir),
        Ok(Startup::Machine { cause, remedy }) => Err(Error::Machine { cause, remedy }),
        Ok(Startup::Failed(why)) => Err(Error::Keeper(why)),
        Err(error) => Err(error),
    };
    if connected.is_err() {
        keeper_client::kill(run_dir)?;
    }
    connected
}

/// Body of the hidden subcommand `keeper`; call it first in `main`, before any thread, with the arguments after
/// `keeper`.
#[must_use]
pub fn main(arguments: &[OsString]) -> ExitCode {
    if let Err(error) = close_inherited() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let (step, path) = match arguments {
        [step, path] => (step, Path::new(path)),
        _ => return ExitCode::from(2),
    };
    let done = match step.to_str() {
        Some("spawn") => spawn_init(path, arguments.len()),
        Some("init") => init(path),
        _ => return ExitCode::from(2),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let said = match error {
                Error::Machine { cause, remedy } => Startup::Machine { cause, remedy },
                error => Startup::Failed(error.to_string()),
            };
            // Nobody is left to tell when this fails.
            let _ = say(&said);
            ExitCode::FAILURE
        }
    }
}

/// The log of the programs of a namespace.
#[must_use]
pub fn log_path(run_dir: &Path, namespace: &str) -> PathBuf {
    run_dir.join("log").join(format!("{}.log", file_name(namespace)))
}

/// What the new process says, once all its copies of the pipe are closed.
fn startup(child: &mut Child) -> Result<Startup> {
    let silent = || Error::Keeper("it does not start; see log/keeper.log in the run directory".to_owned());
    let mut pipe = child.stdout.take().ok_or_else(silent)?;
    if !ends_within(pipe.as_fd(), START_PATIENCE)? {
        child
            .kill()
            .attempt(|| "end a keeper that does not start".to_owned())?;
        return Err(silent());
    }
    let mut said = String::new();
    pipe.read_to_string(&mut said)
        .attempt(|| "read from the keeper".to_owned())?;
    serde_json::from_str(&said).map_err(|_| silent())
}

fn say(said: &Startup) -> Result<()> {
    let text = serde_json::to_vec(said).map_err(|error| Error::Keeper(error.to_string()))?;
    let mut out = std::io::stdout();
    out.write_all(&text)
        .and_then(|()| out.flush())
        .attempt(|| "report the start".to_owned())
}

/// Lets no descriptor that the caller happened to have reach the keeper, which would hold it for the lab's life.
fn close_inherited() -> Result<()> {
    let cannot = || "close inherited descriptors".to_owned();
    for entry in fs::read_dir("/proc/self/fd").attempt(cannot)? {
        let name = entry.attempt(cannot)?.file_name();
        let Some(number) = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .filter(|number| *number > 2)
        else {
            continue;
        };
        // SAFETY: at worst it is the descriptor of this loop's directory, which is open.
        let inherited = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(inherited, rustix::io::FdFlags::CLOEXEC).attempt(cannot)?;
    }
    Ok(())
}

fn spawn_init(path: &Path, own_arguments: usize) -> Result<()> {
    // A session of its own has no terminal, so none sends it signals or holds it open.
    rustix::process::setsid().attempt(|| "leave the terminal's session".to_owned())?;
    // SAFETY: neither flag touches the table of file descriptors, the one hazard of this call.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID | UnshareFlags::NEWNS) }.map_err(refused)?;
    let before = env::args_os().len().saturating_sub(own_arguments);
    Command::new("/proc/self/exe")
        .arg0("peerlane")
        .args(env::args_os().take(before).skip(1))
        .args([OsString::from("init"), path.into()])
        .spawn()
        .attempt(|| "start the first process of the lab".to_owned())?;
    Ok(())
}

fn init(path: &Path) -> Result<()> {
    if std::process::id() != 1 {
        return Err(Error::Keeper(
            "it is not the first process of a PID namespace".to_owned(),
        ));
    }
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::thread::set_name(c"pl-keeper").attempt(|| "set the keeper's name".to_owned())?;
    own_mounts();
    let run_dir = RunDir::trusted(path.to_owned());
    let lock = run_dir.lock_keeper()?;
    let service = keeper_service::Service::new(&run_dir)?;
    say(&Startup::Ready)?;
    let null = File::open("/dev/null").attempt(|| "open /dev/null".to_owned())?;
    rustix::stdio::dup2_stdout(null).attempt(|| "close the standard output".to_owned())?;
    let served = service.run();
    // Removed under the lock: whoever starts the next one makes its own.
    let _ = fs::remove_file(run_dir.file(SOCKET));
    drop(lock);
    served
}

/// What the host unmounts goes here too, nothing of ours goes there; and /proc shows the lab's processes.
fn own_mounts() {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    if let Err(errno) = mount_change("/", slave) {
        eprintln!("mounts stay as they are: {errno}");
        return;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if let Err(errno) = mount("proc", "/proc", "proc", flags, None) {
        eprintln!("/proc stays that of the machine: {errno}");
    }
}

fn refused(errno: Errno) -> Error {
    let cause = format!(
        "the kernel refuses a PID and a mount namespace: {}",
        std::io::Error::from(errno)
    );
    match errno {
        Errno::NOSPC => Error::machine(
            cause,
            "raise the limits: sysctl user.max_pid_namespaces and user.max_mnt_namespaces",
        ),
        Errno::PERM => Error::machine(
            cause,
            "run as root, or where unprivileged user namespaces are allowed",
        ),
        _ => Error::machine(cause, "the kernel needs CONFIG_PID_NS and free memory"),
    }
}
