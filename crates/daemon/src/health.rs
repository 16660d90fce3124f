//! Health probes (LB-05): real connections from 168.63.129.16, and what their outcomes say about each backend.
//!
//! A backend is down until its first success. While a lab comes up it is asked often, so that programs which are just
//! starting are found soon; then once per interval.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control::Generation;
use control::compile::Probed;
use engine::balance::HealthId;
use lab::Namespace;
use lab::spec::platform_name;
use model::Topology;
use model::topology::{HealthProbe, HealthProtocol};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{BackendHealth, HealthState};
use crate::running::Lab;

/// How long a backend that never answered is asked often: a program of the lab has opened its port by then.
const BRING_UP: Duration = Duration::from_secs(10);
/// Between two probes of that time, and the wait for each.
const OFTEN: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(1);
/// A backend that stays silent this often while coming up is not merely starting: a kernel without a listener would refuse.
const SILENCES: u16 = 2;
/// LB-05: the longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked who is to be asked.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The same in a lab without probes, which may get some by a change.
const IDLE: Duration = Duration::from_secs(1);
/// Enough for the first line of any answer.
const STATUS_LINE_BYTES: usize = 64;

/// What is known of each probed backend.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<HashMap<Key, Known>>);

/// Load balancer, probe and NIC, in lower case, and the NIC's address.
type Key = (String, String, String, IpAddr);

#[derive(Debug)]
struct Known {
    since: Instant,
    next: Instant,
    under_way: bool,
    up: bool,
    /// In a row.
    failures: u16,
    silences: u16,
    answered: bool,
    /// Of the latest probe.
    fault: Option<String>,
}

/// Why a probe failed.
#[derive(Debug)]
enum Fault {
    Silence,
    /// For people.
    Other(String),
}

/// One probe to be sent.
struct Attempt {
    key: Key,
    namespace: Arc<Namespace>,
    destination: SocketAddr,
    probe: HealthProbe,
    wait: Duration,
}

/// Probes the backends of whatever the lab is at present, for ever.
pub(crate) async fn run(lab: Arc<Lab>) {
    loop {
        let current = lab.current();
        let probed = &current.generation.provenance.probed;
        lab.health.forget(&current.generation);
        for attempt in lab.health.due(&lab) {
            let lab = Arc::clone(&lab);
            tokio::spawn(async move {
                let outcome = attempt.send().await;
                lab.health.learn(&attempt.key, &attempt.probe, outcome);
                lab.health.fill(&lab.current().generation);
            });
        }
        tokio::time::sleep(if probed.is_empty() { IDLE } else { LOOK_EVERY }).await;
    }
}

impl Health {
    /// Writes what is known into the tables of a generation. What was never asked is down.
    pub(crate) fn fill(&self, generation: &Generation) {
        let known = self.lock();
        for (id, probed) in (0..).zip(&generation.provenance.probed) {
            let up = known
                .get(&key(&generation.topology, probed))
                .is_some_and(|known| known.up);
            generation.snapshot.health.set(HealthId(id), up);
        }
    }

    /// Waits until each backend has answered once, or had the time to.
    pub(crate) async fn settled(&self, lab: &Lab) {
        loop {
            let current = lab.current();
            let pending = self
                .list(&current.generation)
                .iter()
                .any(|row| row.health == HealthState::Pending);
            if !pending {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// One row for each probed backend, in the order of health ids.
    pub(crate) fn list(&self, generation: &Generation) -> Vec<BackendHealth> {
        let known = self.lock();
        let topology = &generation.topology;
        let row = |probed: &Probed| {
            let balancer = &topology.load_balancers[probed.balancer.0];
            let known = known.get(&key(topology, probed));
            BackendHealth {
                load_balancer: balancer.name.clone(),
                probe: balancer.probes[probed.probe].name.clone(),
                nic: topology.nics[probed.nic.0].name.clone(),
                address: probed.address,
                health: known.map_or(HealthState::Pending, Known::state),
                fault: known.and_then(|known| known.fault.clone()),
            }
        };
        generation.provenance.probed.iter().map(row).collect()
    }

    /// Who is to be asked now; each is under way from here on.
    fn due(&self, lab: &Lab) -> Vec<Attempt> {
        let current = lab.current();
        let topology = &current.generation.topology;
        let now = Instant::now();
        let mut known = self.lock();
        let mut due = Vec::new();
        for probed in &current.generation.provenance.probed {
            let key = key(topology, probed);
            let known = known.entry(key.clone()).or_insert_with(|| Known::new(now));
            if known.under_way || known.next > now {
                continue;
            }
            let balancer = &topology.load_balancers[probed.balancer.0];
            let vnet = &topology.vnets[balancer.vnet.0].name;
            let namespace = lab.namespace(&platform_name(vnet));
            let Some(namespace) = namespace else { continue };
            let probe = balancer.probes[probed.probe].clone();
            let interval = Duration::from_secs(probe.interval_s.into());
            let (pause, wait) = match known.state() {
                HealthState::Pending => (OFTEN, SOON),
                _ => (interval, interval.min(PATIENCE)),
            };
            known.under_way = true;
            known.next = now + pause;
            due.push(Attempt {
                key,
                namespace,
                destination: SocketAddr::new(probed.address, probe.port),
                probe,
                wait,
            });
        }
        due
    }

    /// One success marks up, failures in a row mark down (LB-05).
    fn learn(&self, key: &Key, probe: &HealthProbe, outcome: Result<(), Fault>) {
        let mut all = self.lock();
        let Some(known) = all.get_mut(key) else { return };
        let was_up = known.up;
        known.under_way = false;
        match outcome {
            Ok(()) => {
                (known.up, known.answered) = (true, true);
                (known.failures, known.silences, known.fault) = (0, 0, None);
            }
            Err(fault) => {
                known.failures = known.failures.saturating_add(1);
                known.up &= known.failures < probe.number_of_probes;
                let silent = matches!(fault, Fault::Silence);
                known.silences = if silent {
                    known.silences.saturating_add(1)
                } else {
                    0
                };
                known.fault = Some(fault.to_string());
            }
        }
        if known.up != was_up {
            let (balancer, probe, nic, _) = key;
            let state = if known.up { "up" } else { "down" };
            tracing::info!("load balancer {balancer}, probe {probe}: {nic} is {state}");
        }
    }

    /// Drops what is known of backends that are gone.
    fn forget(&self, generation: &Generation) {
        let mut known = self.lock();
        let probed = &generation.provenance.probed;
        if known.len() > probed.len() {
            let alive: HashSet<Key> = probed
                .iter()
                .map(|probed| key(&generation.topology, probed))
                .collect();
            known.retain(|key, _| alive.contains(key));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            next: now,
            under_way: false,
            up: false,
            failures: 0,
            silences: 0,
            answered: false,
            fault: None,
        }
    }

    fn state(&self) -> HealthState {
        if self.up {
            HealthState::Up
        } else if self.answered || self.silences >= SILENCES || self.since.elapsed() >= BRING_UP {
            HealthState::Down
        } else {
            HealthState::Pending
        }
    }
}

impl Attempt {
    async fn send(&self) -> Result<(), Fault> {
        let asked = tokio::time::timeout(self.wait, self.ask()).await;
        asked.unwrap_or(Err(Fault::Silence))
    }

    async fn ask(&self) -> Result<(), Fault> {
        let socket = self.namespace.run(|| connecting(self.destination));
        let socket = socket.map_err(Fault::other)?.map_err(Fault::other)?;
        let mut stream = TcpStream::from_std(socket).map_err(Fault::other)?;
        stream.writable().await.map_err(Fault::other)?;
        if let Some(error) = stream.take_error().map_err(Fault::other)? {
            return Err(Fault::other(error));
        }
        match self.probe.protocol {
            HealthProtocol::Tcp => Ok(()),
            HealthProtocol::Http => get(&mut stream, &self.probe.request_path, self.destination).await,
            HealthProtocol::Https => Err(Fault::Other(String::from("Https probes are not carried out"))),
        }
    }
}

/// A GET that must be answered by 200.
async fn get(stream: &mut TcpStream, path: &str, to: SocketAddr) -> Result<(), Fault> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: Load Balancer Agent\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(Fault::other)?;
    let mut answer = Vec::new();
    while answer.len() < STATUS_LINE_BYTES && !answer.contains(&b'\n') {
        let mut part = [0; STATUS_LINE_BYTES];
        match stream.read(&mut part).await.map_err(Fault::other)? {
            0 => break,
            length => answer.extend_from_slice(&part[..length]),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let mut words = line.lines().next().unwrap_or_default().split(' ');
    match (words.next(), words.next()) {
        (Some(version), Some("200")) if version.starts_with("HTTP/") => Ok(()),
        (Some(version), Some(status)) if version.starts_with("HTTP/") => {
            Err(Fault::Other(format!("answered {status}, not 200")))
        }
        _ => Err(Fault::Other(String::from("the answer is not HTTP"))),
    }
}

/// A socket of the calling thread's namespace on its way to `to`. Its source is the only address there is: the platform's.
fn connecting(to: SocketAddr) -> rustix::io::Result<std::net::TcpStream> {
    let family = match to.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error),
    }
}

impl Fault {
    fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(error.to_string())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silence => f.write_str("no answer in time"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

fn key(topology: &Topology, probed: &Probed) -> Key {
    let balancer = &topology.load_balancers[probed.balancer.0];
    (
        balancer.name.to_lowercase(),
        balancer.probes[probed.probe].name.to_lowercase(),
        topology.nics[probed.nic.0].name.to_lowercase(),
        probed.address,
    )
}
