//! Bringing a lab up: everything between a checked file and packets that are forwarded, or nothing at all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use engine::WorkerOptions;
use model::Topology;
use model::topology::PortNamespace;
use serde::{Deserialize, Serialize};

use crate::process::{self, Mode, Orders};
use crate::waiting::Waiting;

/// How packets are read from the TUNs.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum Io {
    /// With `IFF_VNET_HDR`: super-packets pass whole.
    #[default]
    Vnet,
    /// One packet a read, without offloads.
    Plain,
}

/// How a lab forwards, as it was brought up: every daemon of it does the same.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub(crate) struct Forwarding {
    pub(crate) io: Io,
    pub(crate) waiting: Waiting,
    /// The only one that forwards; None: as the kernel likes.
    pub(crate) cpu: Option<u16>,
    pub(crate) under_way_bytes: u64,
}

/// What `up` is to do.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// As the user named it; `-` for standard input.
    pub file: String,
    /// The lab file's text: the daemon keeps it and serves it to other commands.
    pub text: String,
    /// The checked model of `text`.
    pub topology: Topology,
    /// Return when every port forwards, instead of staying in front.
    pub detach: bool,
    pub io: Io,
    /// Threads that forward; only 1 is possible at present.
    pub workers: usize,
    pub waiting: Waiting,
    /// The CPU that forwards; None: as the kernel likes.
    pub cpu: Option<u16>,
    /// Bytes that may be under way, on links and at the caps of VMs, for each worker.
    pub under_way_bytes: u64,
    /// `up --allow-host`: a VNet port may stand in the caller's namespace.
    pub allow_host: bool,
    /// Where the ARM API is to be had beside the control socket. Private copies have none.
    pub listen: Option<crate::arm::Listen>,
}

/// A private copy of a lab, for one command: listed nowhere, without names under `/run/netns`. It goes down when this
/// is dropped, or when the process that holds it dies in any way.
#[derive(Debug)]
pub struct PrivateLab {
    pub running: Running,
    /// The copy lives as long as this pipe.
    orders: Option<ChildStdin>,
    process: Child,
    /// Its run directory's parent, of its own.
    state_dir: PathBuf,
}

/// A lab that forwards.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Running {
    pub name: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Its control socket.
    pub socket: PathBuf,
    /// Where the ARM API listens beside it.
    pub listen: Option<SocketAddr>,
    /// What is weaker than wished (an offload the kernel does not have), for people.
    pub notes: Vec<String>,
}

/// Why a lab did not come up. Nothing is left behind.
#[derive(Clone, Debug, Deserialize, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct UpError {
    pub kind: UpErrorKind,
    /// What failed, and where.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum UpErrorKind {
    /// This machine cannot: exit code 5.
    Machine,
    /// There is no such lab: exit code 3.
    NotFound,
    /// Exit code 1.
    Failed,
}

/// The only line of a daemon's standard output.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Readiness {
    Ready(Running),
    Failed(UpError),
}

/// Brings a lab up and calls `announce` once, when every port forwards. In front it returns when the lab is down
/// again (SIGINT, SIGTERM, SIGHUP or [`crate::Client::stop`]); detached it returns right after `announce`.
///
/// Must be called before the process starts any thread: without root it enters a user namespace.
///
/// # Errors
/// [`UpError`] says what failed and what to do; nothing is left behind.
pub fn up(options: &UpOptions, announce: impl FnOnce(&Running)) -> Result<(), UpError> {
    check(options)?;
    if !options.detach {
        return process::run(Orders::of(options, Mode::Front), |running| {
            announce(running);
            Ok(())
        });
    }
    let (_, mut process, running) = start(options, Mode::Detached, None)?;
    announce(&running);
    // It goes on by itself; should it have ended by now, this avoids a zombie.
    let _ = process.try_wait();
    Ok(())
}

/// Goes on with a lab whose daemon ended, as it was then: programs and connections in it notice a pause.
///
/// # Errors
/// There is no such lab, a daemon has it, or what it is cannot be read; then nothing has changed.
pub fn resume(lab: &str) -> Result<Running, UpError> {
    let (_, mut process, running) = launch(&Orders::again(lab), None)?;
    let _ = process.try_wait();
    Ok(running)
}

/// Brings up a private copy; `detach` of the options is ignored. Threads are no hindrance.
///
/// # Errors
/// As [`up`].
pub fn up_private(options: &UpOptions) -> Result<PrivateLab, UpError> {
    check(options)?;
    let state_dir = private_directory()?;
    let started = start(options, Mode::Private, Some(&state_dir));
    let (orders, process, running) = started.inspect_err(|_| {
        let _ = std::fs::remove_dir(&state_dir);
    })?;
    Ok(PrivateLab {
        running,
        orders: Some(orders),
        process,
        state_dir,
    })
}

impl Drop for PrivateLab {
    fn drop(&mut self) {
        drop(self.orders.take());
        if !self.process.wait().is_ok_and(|end| end.success()) {
            // The daemon was killed; its keeper was not.
            let mut down = this_program(Some(&self.state_dir));
            down.args(["down", &self.running.name]);
            let _ = down.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        let _ = std::fs::remove_dir(&self.state_dir);
    }
}

impl Io {
    /// As the command line spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vnet => "vnet",
            Self::Plain => "plain",
        }
    }
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            io: Io::default(),
            waiting: Waiting::default(),
            cpu: None,
            under_way_bytes: WorkerOptions::default().under_way_bytes,
        }
    }
}

impl UpError {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            kind: UpErrorKind::Failed,
            message: message.into(),
            remedy: None,
        }
    }

    pub(crate) fn machine(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind: UpErrorKind::Machine,
            ..Self::failed(message).with_remedy(remedy)
        }
    }

    pub(crate) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

impl From<lab::Error> for UpError {
    fn from(error: lab::Error) -> Self {
        match error {
            lab::Error::Machine { cause, remedy } => Self::machine(cause, remedy),
            lab::Error::NotFound(message) => Self {
                kind: UpErrorKind::NotFound,
                ..Self::failed(message)
            },
            other => Self::failed(other.to_string()),
        }
    }
}

impl UpErrorKind {
    /// The contract's exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Machine => 5,
            Self::NotFound => 3,
            Self::Failed => 1,
        }
    }
}

fn check(options: &UpOptions) -> Result<(), UpError> {
    if options.workers != 1 {
        return Err(UpError::failed(format!(
            "a lab is forwarded by 1 worker at present, not {}",
            options.workers
        )));
    }
    let ports = options.topology.vnets.iter();
    for (vnet, port) in ports.filter_map(|vnet| Some((vnet, vnet.tun.as_ref()?))) {
        if port.namespace == PortNamespace::Host && !options.allow_host {
            return Err(UpError::failed(format!(
                "vnets.{}.tun.namespace is host: the lab would change this machine's own network",
                vnet.name
            ))
            .with_remedy("say `up --allow-host` if that is meant"));
        }
        if port.namespace != PortNamespace::Lab && !rustix::process::geteuid().is_root() {
            return Err(UpError::failed(format!(
                "vnets.{}.tun.namespace is a namespace outside the lab",
                vnet.name
            ))
            .with_remedy("run as root, or leave `namespace` out"));
        }
    }
    Ok(())
}

/// Starts this program again as the daemon, and waits until every port forwards.
fn start(
    options: &UpOptions,
    mode: Mode,
    state_dir: Option<&Path>,
) -> Result<(ChildStdin, Child, Running), UpError> {
    launch(&Orders::of(options, mode), state_dir)
}

fn launch(given: &Orders, state_dir: Option<&Path>) -> Result<(ChildStdin, Child, Running), UpError> {
    let broken = |error: std::io::Error| UpError::failed(format!("cannot start the daemon: {error}"));
    let mut command = this_program(state_dir);
    command.arg("daemon").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().map_err(broken)?;
    let (orders, answer) = (process.stdin.take(), process.stdout.take());
    let mut orders = orders.ok_or_else(|| UpError::failed("the daemon has no standard input"))?;
    let answer = answer.ok_or_else(|| UpError::failed("the daemon has no standard output"))?;
    // A daemon that ended before reading all says why on its output.
    let mut line = serde_json::to_vec(given).map_err(|error| broken(error.into()))?;
    line.push(b'\n');
    let _ = orders.write_all(&line);
    let mut line = String::new();
    let read = BufReader::new(answer)
        .take(ANSWER_LIMIT_BYTES)
        .read_line(&mut line);
    match read.ok().and_then(|_| serde_json::from_str(&line).ok()) {
        Some(Readiness::Ready(running)) => Ok((orders, process, running)),
        Some(Readiness::Failed(error)) => {
            drop(orders);
            let _ = process.wait();
            Err(error)
        }
        None => {
            drop(orders);
            let end = process.wait().map_err(broken)?;
            Err(died(end))
        }
    }
}

/// This very binary, even when another one lies at its path by now.
fn this_program(state_dir: Option<&Path>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("peerlane");
    if let Some(state_dir) = state_dir {
        command.env("PEERLANE_STATE_DIR", state_dir);
    }
    command
}

/// The longest line a daemon says: a few notes and a path.
const ANSWER_LIMIT_BYTES: u64 = 1 << 20;

fn died(end: ExitStatus) -> UpError {
    UpError::failed(format!("the daemon ended before the lab was up: {end}"))
        .with_remedy("what is left of the lab goes with the next command; run `peerlane list`")
}

/// A directory nobody else can enter, for the run directory of a private copy.
fn private_directory() -> Result<PathBuf, UpError> {
    use std::os::unix::fs::DirBuilderExt;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("peerlane-private-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
    made.map(|()| path.clone())
        .map_err(|error| UpError::failed(format!("cannot make {}: {error}", path.display())))
}
