//! The keeper at work: one thread, one poll loop, and what it holds.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use signal_hook::consts::SIGCHLD;

use crate::error::{Attempt, Error, Result};
use crate::keeper::{SOCKET, log_path};
use crate::keeper_client::HeldNamespace;
use crate::keeper_programs::Programs;
use crate::keeper_protocol::{Reply, Request, VERSION, receive, send};
use crate::run_dir::RunDir;

/// A daemon, a few commands; more than this at once is a mistake.
const MAX_CONNECTIONS: usize = 32;

/// What programs get to end by themselves after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Threads that close TUNs at the end: measured, 8 bring 34 ms per TUN down to 5, 32 to 3, more nothing.
const CLOSERS: usize = 32;

/// All state of a keeper.
#[derive(Debug)]
pub(crate) struct Service {
    run_dir: PathBuf,
    listener: OwnedFd,
    connections: Vec<OwnedFd>,
    /// Readable when a child has ended.
    children: UnixStream,
    programs: Programs,
    /// Its user, PID and mount namespaces.
    own: [OwnedFd; 3],
    /// What the lab is, once it is complete.
    lab: Option<OwnedFd>,
    /// By name in lower case: references match without regard to case.
    namespaces: HashMap<String, Held>,
    /// When the keeper ends, programs or not.
    deadline: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    name: String,
    network: OwnedFd,
    tuns: HashMap<String, Tun>,
}

#[derive(Debug)]
struct Tun {
    metadata: String,
    queues: Vec<OwnedFd>,
}

type Answer<'a> = std::result::Result<(Reply, Vec<BorrowedFd<'a>>), Reply>;

impl Service {
    /// Listens; the run directory must have no living keeper.
    pub(crate) fn new(run_dir: &RunDir) -> Result<Self> {
        let path = run_dir.file(SOCKET);
        let cannot = || format!("listen on {}", path.display());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).attempt(cannot)?,
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let listener = listener.attempt(cannot)?;
        bind(&listener, &SocketAddrUnix::new(&path).attempt(cannot)?).attempt(cannot)?;
        listen(&listener, 16).attempt(cannot)?;
        let (children, notify) = UnixStream::pair().attempt(|| "make a socket pair".to_owned())?;
        children
            .set_nonblocking(true)
            .attempt(|| "make a socket pair".to_owned())?;
        signal_hook::low_level::pipe::register(SIGCHLD, notify)
            .attempt(|| "watch for processes that end".to_owned())?;
        let own = |name: &str| {
            File::open(format!("/proc/self/ns/{name}"))
                .map(OwnedFd::from)
                .attempt(|| format!("open the {name} namespace"))
        };
        Ok(Self {
            run_dir: run_dir.path().to_owned(),
            listener,
            connections: Vec::new(),
            children,
            programs: Programs::new(),
            own: [own("user")?, own("pid")?, own("mnt")?],
            lab: None,
            namespaces: HashMap::new(),
            deadline: None,
        })
    }

    /// Serves until told to stop, and then lets go of everything.
    pub(crate) fn run(mut self) -> Result<()> {
        let served = self.serve_all();
        self.close_tuns();
        served
    }

    fn serve_all(&mut self) -> Result<()> {
        loop {
            let timeout = match self.deadline {
                None => None,
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    Some(left) if !self.programs.is_empty() => Some(left),
                    _ => return Ok(()),
                },
            };
            let (children, listener, ready) = self.wait(timeout)?;
            if children {
                let mut signals = [0; 64];
                // One drained pipe stands for any number of children.
                let _ = std::io::Read::read(&mut self.children, &mut signals);
                self.programs.reap();
            }
            // From the end, so that closing one does not move those still to be served.
            for index in ready.into_iter().rev() {
                if !self.serve(index) {
                    self.connections.swap_remove(index);
                }
            }
            if listener {
                self.accept();
            }
        }
    }

    /// The end of each TUN waits for the kernel (30 ms and more), one after another when a process simply exits; together
    /// they wait about once.
    fn close_tuns(&mut self) {
        let tuns: Vec<Tun> = self
            .namespaces
            .drain()
            .flat_map(|(_, held)| held.tuns.into_values())
            .collect();
        let mut shares: Vec<Vec<Tun>> = (0..CLOSERS).map(|_| Vec::new()).collect();
        for (index, tun) in tuns.into_iter().enumerate() {
            shares[index % CLOSERS].push(tun);
        }
        let threads = shares.into_iter().map_while(|share| {
            // Where no thread can be had the share is dropped here, which is only slower.
            std::thread::Builder::new().spawn(move || drop(share)).ok()
        });
        for thread in threads.collect::<Vec<_>>() {
            let _ = thread.join();
        }
    }

    /// Waits for ended children, new connections, and requests on which connections.
    fn wait(&self, timeout: Option<Duration>) -> Result<(bool, bool, Vec<usize>)> {
        let mut polled = vec![
            PollFd::new(&self.children, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        polled.extend(
            self.connections
                .iter()
                .map(|connection| PollFd::new(connection, PollFlags::IN)),
        );
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok((true, false, Vec::new())),
            polled => polled.attempt(|| "wait for requests".to_owned())?,
        };
        let ready = |index: usize| !polled[index].revents().is_empty();
        let connections = (0..self.connections.len())
            .filter(|index| ready(index + 2))
            .collect();
        Ok((ready(0), ready(1), connections))
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(connection) = accept_with(&self.listener, flags) else {
            return;
        };
        // The directory and the socket are closed to others already; this is the second lock.
        let own = rustix::process::geteuid().as_raw();
        let known = getsockopt(&connection, PeerCredentials).is_ok_and(|peer| peer.uid() == own);
        if known && self.connections.len() < MAX_CONNECTIONS {
            self.connections.push(connection);
        }
    }

    /// Answers one request; false: close the connection.
    fn serve(&mut self, index: usize) -> bool {
        let request = match receive(self.connections[index].as_fd()) {
            Ok(Some(request)) => Ok(request),
            Ok(None) => return false,
            Err(Error::Keeper(why)) => Err(why),
            Err(Error::Io { source, .. }) => return source.kind() == std::io::ErrorKind::WouldBlock,
            Err(_) => return false,
        };
        let understood = request.is_ok();
        let done = match request {
            Err(why) => Some(Reply::Refused(why)),
            Ok((request, descriptors)) => match self.change(&request, descriptors) {
                Some(reply) => Some(reply),
                None => return self.hand_out(index, &request),
            },
        };
        done.is_some_and(|reply| send(self.connections[index].as_fd(), &reply, &[]).is_ok()) && understood
    }

    /// Carries out a request that changes what is held; None for one that asks for descriptors.
    fn change(&mut self, request: &Request, mut descriptors: Vec<OwnedFd>) -> Option<Reply> {
        let done = match request {
            Request::Hello
            | Request::Lab
            | Request::Held
            | Request::Namespace { .. }
            | Request::Tun { .. } => return None,
            Request::HoldLab => only(descriptors).map(|file| self.lab = Some(file)),
            Request::HoldNamespace { name } => self.hold_namespace(name, descriptors),
            Request::HoldTun {
                namespace,
                interface,
                metadata,
            } => {
                let queues = std::mem::take(&mut descriptors);
                self.hold_tun(
                    namespace,
                    interface,
                    Tun {
                        metadata: metadata.clone(),
                        queues,
                    },
                )
            }
            Request::ReleaseNamespace { name } => self.release_namespace(name),
            Request::ReleaseTun { namespace, interface } => self.release_tun(namespace, interface),
            Request::Spawn { namespace, command } => self.spawn(namespace, command),
            Request::End { namespace, command } => {
                let ended = self.programs.end(namespace, command);
                let none = || Reply::NotFound(format!("no program `{command}` runs in {namespace}"));
                ended.then_some(()).ok_or_else(none)
            }
            Request::Kill { name } => {
                let held = self.namespaces.get(&key(name));
                held.map(|held| self.programs.kill_inside(&held.name, held.network.as_fd()))
                    .ok_or_else(|| no_namespace(name))
            }
            Request::Stop => {
                self.programs.terminate();
                self.deadline
                    .get_or_insert_with(|| Instant::now() + STOP_PATIENCE);
                Ok(())
            }
        };
        Some(done.map_or_else(|refusal| refusal, |()| Reply::Done))
    }

    fn hand_out(&self, index: usize, request: &Request) -> bool {
        let listed = matches!(request, Request::Held).then(|| self.list());
        let found = match &listed {
            Some(Ok(file)) => Ok((Reply::Done, vec![file.as_fd()])),
            Some(Err(error)) => Err(Reply::Refused(error.to_string())),
            None => self.find(request),
        };
        let (reply, descriptors) = match found {
            Ok(found) => found,
            Err(reply) => (reply, Vec::new()),
        };
        send(self.connections[index].as_fd(), &reply, &descriptors).is_ok()
    }

    /// A file that names all that is held: a lab may have more than a message holds.
    fn list(&self) -> Result<File> {
        let cannot = || "list what is held".to_owned();
        let held = self.namespaces.values().map(|held| HeldNamespace {
            name: held.name.clone(),
            tuns: held.tuns.keys().cloned().collect(),
        });
        let held: Vec<HeldNamespace> = held.collect();
        let text = serde_json::to_vec(&held).map_err(|error| Error::Keeper(error.to_string()))?;
        let mut file = File::from(memfd_create("peerlane-held", MemfdFlags::CLOEXEC).attempt(cannot)?);
        file.write_all(&text).attempt(cannot)?;
        Ok(file)
    }

    fn find(&self, request: &Request) -> Answer<'_> {
        match request {
            Request::Hello => Ok((
                Reply::Hello { version: VERSION },
                self.own.iter().map(AsFd::as_fd).collect(),
            )),
            Request::Lab => {
                let lab = self.lab.as_ref();
                let lab = lab.ok_or_else(|| Reply::NotFound("the lab was never complete".to_owned()))?;
                Ok((Reply::Done, vec![lab.as_fd()]))
            }
            Request::Namespace { name } => {
                let namespace = self
                    .namespaces
                    .get(&key(name))
                    .ok_or_else(|| self.no_such_namespace(name))?;
                Ok((Reply::Done, vec![namespace.network.as_fd()]))
            }
            Request::Tun { namespace, interface } => {
                let held = self.namespaces.get(&key(namespace));
                let tun = held.and_then(|held| held.tuns.get(interface));
                let tun = tun.ok_or_else(|| no_tun(namespace, interface))?;
                let metadata = tun.metadata.clone();
                Ok((
                    Reply::Tun { metadata },
                    tun.queues.iter().map(AsFd::as_fd).collect(),
                ))
            }
            _ => Err(Reply::Refused("not a question".to_owned())),
        }
    }

    /// Says what there is instead; the one who asks typed the name.
    fn no_such_namespace(&self, name: &str) -> Reply {
        const MOST_NAMED: usize = 12; // a lab may have thousands
        let mut held: Vec<&str> = self.namespaces.values().map(|held| held.name.as_str()).collect();
        held.sort_unstable();
        let more = if held.len() > MOST_NAMED { ", …" } else { "" };
        held.truncate(MOST_NAMED);
        Reply::NotFound(format!(
            "the lab has no namespace {name}; it has {}{more}",
            held.join(", ")
        ))
    }

    fn hold_namespace(&mut self, name: &str, descriptors: Vec<OwnedFd>) -> std::result::Result<(), Reply> {
        if name.is_empty() || self.namespaces.contains_key(&key(name)) {
            return Err(Reply::Refused(format!("namespace {name} is held already")));
        }
        let network = only(descriptors)?;
        let held = Held {
            name: name.to_owned(),
            network,
            tuns: HashMap::new(),
        };
        self.namespaces.insert(key(name), held);
        Ok(())
    }

    fn hold_tun(&mut self, namespace: &str, interface: &str, tun: Tun) -> std::result::Result<(), Reply> {
        let held = self
            .namespaces
            .get_mut(&key(namespace))
            .ok_or_else(|| no_namespace(namespace))?;
        if tun.queues.is_empty() || held.tuns.contains_key(interface) {
            return Err(Reply::Refused(format!(
                "{interface} in {namespace} is held already, or has no queue"
            )));
        }
        held.tuns.insert(interface.to_owned(), tun);
        Ok(())
    }

    fn release_namespace(&mut self, name: &str) -> std::result::Result<(), Reply> {
        let held = self
            .namespaces
            .remove(&key(name))
            .ok_or_else(|| no_namespace(name))?;
        self.programs.kill_inside(&held.name, held.network.as_fd());
        Ok(())
    }

    fn release_tun(&mut self, namespace: &str, interface: &str) -> std::result::Result<(), Reply> {
        let held = self.namespaces.get_mut(&key(namespace));
        let tun = held.and_then(|held| held.tuns.remove(interface));
        tun.map(drop).ok_or_else(|| no_tun(namespace, interface))
    }

    fn spawn(&mut self, name: &str, command: &str) -> std::result::Result<(), Reply> {
        if self.deadline.is_some() {
            return Err(Reply::Refused("the lab is being taken down".to_owned()));
        }
        let held = self
            .namespaces
            .get(&key(name))
            .ok_or_else(|| no_namespace(name))?;
        let log = log_path(&self.run_dir, &held.name);
        let started = self
            .programs
            .start(&held.name, held.network.as_fd(), command, log);
        started.map_err(|error| Reply::Refused(error.to_string()))
    }
}

fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn only(descriptors: Vec<OwnedFd>) -> std::result::Result<OwnedFd, Reply> {
    let one = <[OwnedFd; 1]>::try_from(descriptors);
    one.map(|[only]| only)
        .map_err(|_| Reply::Refused("one descriptor is expected".to_owned()))
}

fn no_namespace(name: &str) -> Reply {
    Reply::NotFound(format!("the lab has no namespace {name}"))
}

fn no_tun(namespace: &str, interface: &str) -> Reply {
    Reply::NotFound(format!("namespace {namespace} has no TUN {interface}"))
}
