//! Talking to the keeper of a lab.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::down;
use crate::error::{Attempt, Error, Result};
use crate::keeper::SOCKET;
use crate::keeper_protocol::{MAX_DESCRIPTORS, Reply, Request, VERSION, receive, send};
use crate::namespace::Namespace;
use crate::run_dir::RunDir;
use crate::spec::LabSpec;

/// The keeper answers at once; one that does not for this long never will.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// The keeper gives programs 2 s to end, and the kernel takes about 3 ms for each TUN; this is far above both.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a living keeper.
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    lab: [OwnedFd; 3],
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

/// A namespace that the keeper holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldNamespace {
    pub name: String,
    /// The interfaces whose TUNs are held.
    pub tuns: Vec<String>,
}

impl Keeper {
    /// Connects to the living keeper of a lab.
    ///
    /// # Errors
    /// [`Error::NotFound`] when none lives; [`Error::Keeper`] when it is of another version.
    pub fn connect(run_dir: &RunDir) -> Result<Self> {
        let (socket, pid, pidfd) = dial(run_dir)?;
        send(socket.as_fd(), &Request::Hello, &[])?;
        let Some((Reply::Hello { version }, descriptors)) = receive(socket.as_fd())? else {
            return Err(Error::Keeper("it does not greet as agreed".to_owned()));
        };
        if version != VERSION {
            return Err(Error::Keeper(format!(
                "it is of version {version}, this program of {VERSION}: take the lab down with `peerlane down {}`",
                run_dir.lab()
            )));
        }
        let lab = descriptors
            .try_into()
            .map_err(|_| Error::Keeper("it does not greet as agreed".to_owned()))?;
        Ok(Self {
            socket,
            pid: pid.as_raw_pid(),
            pidfd,
            lab,
        })
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
        join_user_namespace(self.lab[0].as_fd())
    }

    /// What a complete lab may have of its own at present; None while it was never completed by [`Keeper::hold_lab`].
    ///
    /// # Errors
    /// When the keeper does not answer as agreed.
    pub fn lab(&mut self) -> Result<Option<Vec<LabSpec>>> {
        match self.read(&Request::Lab) {
            Err(Error::NotFound(_)) => Ok(None),
            specs => specs.map(Some),
        }
    }

    /// Every namespace that is held, those of a change that was never finished among them.
    ///
    /// # Errors
    /// When the keeper does not answer as agreed.
    pub fn held(&mut self) -> Result<Vec<HeldNamespace>> {
        self.read(&Request::Held)
    }

    /// Stores what the lab is: the last step of bringing it up, so that a half made one is never adopted, and, from
    /// before a change of namespaces or interfaces until it is complete, both what was and what comes.
    ///
    /// # Errors
    /// When the keeper refuses.
    pub fn hold_lab(&mut self, specs: &[&LabSpec]) -> Result<()> {
        let cannot = || "write what the keeper holds".to_owned();
        let text = serde_json::to_vec(specs).map_err(|error| Error::Keeper(error.to_string()))?;
        let mut file = File::from(memfd_create("peerlane-lab", MemfdFlags::CLOEXEC).attempt(cannot)?);
        file.write_all(&text).attempt(cannot)?;
        self.ask(&Request::HoldLab, &[file.as_fd()])?;
        Ok(())
    }

    /// Keeps a network namespace under a name.
    ///
    /// # Errors
    /// When the keeper refuses: the name is held already.
    pub fn hold_namespace(&mut self, name: &str, namespace: &Namespace) -> Result<()> {
        self.ask(
            &Request::HoldNamespace {
                name: name.to_owned(),
            },
            &[namespace.fd()],
        )?;
        Ok(())
    }

    /// Keeps duplicates of all queues of a TUN, with text for whoever adopts it.
    ///
    /// # Errors
    /// When the keeper refuses: held already, no such namespace, no or more than 64 queues.
    pub fn hold_tun(
        &mut self,
        namespace: &str,
        interface: &str,
        metadata: &str,
        queues: &[BorrowedFd<'_>],
    ) -> Result<()> {
        if queues.is_empty() || queues.len() > MAX_DESCRIPTORS {
            return Err(Error::Keeper(format!(
                "{interface} has {} queues, not 1 to 64",
                queues.len()
            )));
        }
        let request = Request::HoldTun {
            namespace: namespace.to_owned(),
            interface: interface.to_owned(),
            metadata: metadata.to_owned(),
        };
        self.ask(&request, queues)?;
        Ok(())
    }

    /// Descriptors into a namespace.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that is not held.
    pub fn namespaces(&mut self, name: &str) -> Result<Namespaces> {
        let (_, descriptors) = self.ask(
            &Request::Namespace {
                name: name.to_owned(),
            },
            &[],
        )?;
        let Ok([network]) = <[OwnedFd; 1]>::try_from(descriptors) else {
            return Err(not_agreed());
        };
        let copy = |fd: &OwnedFd| fd.try_clone().attempt(|| "duplicate a descriptor".to_owned());
        let [user, pid, mount] = &self.lab;
        Ok(Namespaces {
            user: copy(user)?,
            pid: copy(pid)?,
            mount: copy(mount)?,
            network: network.into(),
        })
    }

    /// Duplicates of a held TUN's queues.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one that is not held.
    pub fn tun(&mut self, namespace: &str, interface: &str) -> Result<HeldTun> {
        let request = Request::Tun {
            namespace: namespace.to_owned(),
            interface: interface.to_owned(),
        };
        match self.ask(&request, &[])? {
            (Reply::Tun { metadata }, queues) => Ok(HeldTun { metadata, queues }),
            _ => Err(not_agreed()),
        }
    }

    /// Ends the namespace's programs and lets go of it and its TUNs.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that is not held.
    pub fn release_namespace(&mut self, name: &str) -> Result<()> {
        self.ask(
            &Request::ReleaseNamespace {
                name: name.to_owned(),
            },
            &[],
        )?;
        Ok(())
    }

    /// Lets go of a TUN.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one that is not held.
    pub fn release_tun(&mut self, namespace: &str, interface: &str) -> Result<()> {
        let request = Request::ReleaseTun {
            namespace: namespace.to_owned(),
            interface: interface.to_owned(),
        };
        self.ask(&request, &[])?;
        Ok(())
    }

    /// Starts a shell command in a namespace, in the directory where the keeper was, its output in
    /// `log/<namespace>.log` of the run directory. It lives until it ends by itself or with the lab.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that is not held; what kept the program from starting.
    pub fn spawn(&mut self, namespace: &str, command: &str) -> Result<()> {
        self.ask(
            &Request::Spawn {
                namespace: namespace.to_owned(),
                command: command.to_owned(),
            },
            &[],
        )?;
        Ok(())
    }

    /// Asks one program that [`Keeper::spawn`] started with this command to end (SIGTERM).
    ///
    /// # Errors
    /// [`Error::NotFound`] when none runs: it may have ended by itself.
    pub fn end(&mut self, namespace: &str, command: &str) -> Result<()> {
        let request = Request::End {
            namespace: namespace.to_owned(),
            command: command.to_owned(),
        };
        self.ask(&request, &[])?;
        Ok(())
    }

    /// Ends whatever runs in a namespace, started by the keeper or not; the namespace stays.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that is not held.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.ask(
            &Request::Kill {
                name: name.to_owned(),
            },
            &[],
        )?;
        Ok(())
    }

    /// Ends the programs (SIGTERM, after 2 s SIGKILL) and the keeper, and waits for it.
    ///
    /// # Errors
    /// When it still lives after SIGKILL.
    pub fn stop(mut self) -> Result<()> {
        // One that cannot answer is killed, which ends its programs too.
        if self.ask(&Request::Stop, &[]).is_ok() && down::ends_within(self.pidfd.as_fd(), STOP_PATIENCE)? {
            return Ok(());
        }
        down::end(self.pidfd.as_fd(), Signal::KILL, Duration::ZERO, "the keeper")
    }

    /// The document in the file that answers a request.
    fn read<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        let (_, descriptors) = self.ask(request, &[])?;
        let Ok([file]) = <[OwnedFd; 1]>::try_from(descriptors) else {
            return Err(not_agreed());
        };
        let file = File::from(file);
        let cannot = || "read what the keeper holds".to_owned();
        let mut text = vec![0; usize::try_from(file.metadata().attempt(cannot)?.len()).unwrap_or(0)];
        file.read_exact_at(&mut text, 0).attempt(cannot)?;
        serde_json::from_slice(&text).map_err(|error| Error::Keeper(format!("what it holds: {error}")))
    }

    fn ask(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        send(self.socket.as_fd(), request, descriptors)?;
        match receive(self.socket.as_fd())? {
            None => Err(Error::Keeper("it has died".to_owned())),
            Some((Reply::NotFound(what), _)) => Err(Error::NotFound(what)),
            Some((Reply::Refused(why), _)) => Err(Error::Keeper(why)),
            Some(answer) => Ok(answer),
        }
    }
}

/// Kills a keeper that does not talk to us; its programs end with it.
pub(crate) fn kill(run_dir: &RunDir) -> Result<()> {
    match dial(run_dir) {
        Ok((_, _, pidfd)) => down::end(pidfd.as_fd(), Signal::KILL, Duration::ZERO, "the keeper"),
        Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Enters a user namespace unless the caller is inside already.
pub(crate) fn join_user_namespace(namespace: BorrowedFd<'_>) -> Result<()> {
    let cannot = || "enter the lab's user namespace".to_owned();
    let own = File::open("/proc/self/ns/user").attempt(cannot)?;
    let (own, other) = (fstat(own).attempt(cannot)?, fstat(namespace).attempt(cannot)?);
    if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino) {
        return Ok(());
    }
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::User)).attempt(cannot)
}

/// The socket, and the process that listens on it, whether or not it answers.
fn dial(run_dir: &RunDir) -> Result<(OwnedFd, Pid, OwnedFd)> {
    let none = || Error::NotFound(format!("lab {} has no keeper", run_dir.lab()));
    let cannot = || format!("connect to the keeper of lab {}", run_dir.lab());
    let address = SocketAddrUnix::new(run_dir.file(SOCKET)).attempt(cannot)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .attempt(cannot)?;
    for timeout in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&socket, timeout, Some(ANSWER_PATIENCE)).attempt(cannot)?;
    }
    match connect(&socket, &address) {
        Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(none()),
        connected => connected.attempt(cannot)?,
    }
    let peer = getsockopt(&socket, PeerCredentials)
        .map_err(std::io::Error::from)
        .attempt(cannot)?;
    let own = rustix::process::geteuid();
    if peer.uid() != own.as_raw() {
        return Err(Error::Keeper(format!(
            "it belongs to user {}, not {}",
            peer.uid(),
            own.as_raw()
        )));
    }
    let pid = Pid::from_raw(peer.pid()).ok_or_else(none)?;
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Err(none()),
        pidfd => pidfd.attempt(cannot)?,
    };
    Ok((socket, pid, pidfd))
}

fn not_agreed() -> Error {
    Error::Keeper("it does not answer as agreed".to_owned())
}
