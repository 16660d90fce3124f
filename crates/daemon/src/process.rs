//! The daemon's process: takes its orders, brings the lab up or adopts it, serves it, takes it down.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control::Generation;
use engine::WorkerOptions;
use lab::RunDir;
use model::topology::Far;
use port::Offloads;
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::api::LabFile;
use crate::arm::{self, Listen, Serving};
use crate::attach::{Attached, attach};
use crate::change::Hands;
use crate::declared::Begin;
use crate::ends::{End, Ends};
use crate::flow_log::FlowLogs;
use crate::health::{self, Health};
use crate::ports::Opening;
use crate::publish::Published;
use crate::running::{self, Current, Lab};
use crate::server::{self, Server, Stop};
use crate::up::{Forwarding, Io, Readiness, Running, UpError, UpOptions};
use crate::worker::{Settings, Workers};
use crate::{bgp, events, labs, log};

/// The control socket in the run directory.
pub(crate) const SOCKET: &str = "api.sock";
/// The lab file can be this long; the orders hold it once, escaped.
const ORDERS_LIMIT_BYTES: u64 = 64 << 20;
/// Far longer than a thread takes to start on the busiest machine.
const WORKERS_START: Duration = Duration::from_secs(10);

/// In which of its three lives a daemon is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Mode {
    /// `up` itself.
    Front,
    /// A session of its own.
    Detached,
    /// Lives as long as its standard input.
    Private,
}

/// What a daemon is to do: one line of JSON on its standard input.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Orders {
    lab: String,
    /// None: go on with the lab of this name, whose daemon ended.
    given: Option<LabFile>,
    forwarding: Forwarding,
    workers: usize,
    mode: Mode,
    listen: Option<Listen>,
}

struct Control {
    server: Server,
    /// The TLS listener, where there is one.
    serving: Option<Serving>,
    /// How to reach it.
    notes: Vec<String>,
    stops: mpsc::Receiver<Stop>,
}

impl Orders {
    pub(crate) fn of(options: &UpOptions, mode: Mode) -> Self {
        let file = match options.file.as_str() {
            "-" => String::from("-"),
            file => {
                std::path::absolute(file).map_or_else(|_| file.to_owned(), |path| path.display().to_string())
            }
        };
        Self {
            lab: options.topology.name.clone(),
            given: Some(LabFile {
                file,
                text: options.text.clone(),
                service_tags: None,
            }),
            forwarding: Forwarding {
                io: options.io,
                waiting: options.waiting,
                cpu: options.cpu,
                under_way_bytes: options.under_way_bytes,
            },
            workers: options.workers,
            mode,
            listen: options.listen.filter(|_| mode != Mode::Private),
        }
    }

    /// For a lab whose daemon ended.
    pub(crate) fn again(lab: &str) -> Self {
        Self {
            lab: lab.to_owned(),
            given: None,
            forwarding: Forwarding::default(),
            workers: 1,
            mode: Mode::Detached,
            listen: None,
        }
    }
}

/// The hidden subcommand `daemon`: what a detached or private lab's process runs. Reads its orders from standard
/// input and answers on standard output. Call it before any thread starts; the result is the process's exit code.
#[must_use]
pub fn main() -> u8 {
    let failed = |error: UpError| {
        let _ = say(&Readiness::Failed(error.clone()), io::stdout());
        error.kind.exit_code()
    };
    // For `ps`: the kernel knows this process as /proc/self/exe.
    let _ = rustix::thread::set_name(c"peerlane");
    let orders = match read_orders() {
        Ok(orders) => orders,
        Err(error) => return failed(error),
    };
    let answer = match rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3) {
        Ok(answer) => answer,
        Err(error) => return failed(UpError::failed(format!("cannot keep standard output: {error}"))),
    };
    if let Err(error) = leave_terminal(orders.mode) {
        return failed(UpError::failed(format!("cannot leave the terminal: {error}")));
    }
    let mut answer = Some(File::from(answer));
    let result = run(orders, |running| match answer.take() {
        Some(answer) => say(&Readiness::Ready(running.clone()), answer),
        None => Ok(()),
    });
    let Err(error) = result else { return 0 };
    tracing::error!("{error}");
    if let Some(answer) = answer {
        // Nobody may be left to hear it; the log has it.
        let _ = say(&Readiness::Failed(error.clone()), answer);
    }
    error.kind.exit_code()
}

/// Brings a lab up, announces it, and returns when it is down again.
///
/// # Errors
/// It did not come up, and nothing is left of it; or something of it could not be taken down.
pub(crate) fn run(orders: Orders, announce: impl FnOnce(&Running) -> io::Result<()>) -> Result<(), UpError> {
    let given = orders.given.as_ref();
    let given = given
        .map(|given| Begin::of(given, orders.forwarding))
        .transpose()?;
    let (run_dir, lock) = RunDir::create(&orders.lab)?;
    if let Some(given) = &given
        && let Err(error) = enter_directory(&given.file)
    {
        let _ = run_dir.remove(lock);
        return Err(error);
    }
    // From here on a signal ends the lab in order, once it is up. None of this starts a thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| cannot("start the control side", &error))?;
    let ends = {
        let _inside = runtime.enter();
        Ends::watch(orders.mode).map_err(|error| cannot("watch for signals", &error))?
    };
    raise_descriptor_limit();
    log::start(&run_dir, orders.mode).map_err(|error| cannot("write the log", &error))?;
    let private = (orders.mode == Mode::Private).then(|| run_dir.path().to_path_buf());
    let opening = Opening {
        io: orders.forwarding.io,
        workers: orders.workers,
        // Only real root may write /run/netns, and a private copy may share its name with a lab that runs.
        named: orders.mode != Mode::Private && lab::rootless::privileged() && !running::in_user_namespace(),
    };
    let result = attach(run_dir, lock, given, opening, private.is_none())
        .and_then(|(attached, begin)| runtime.block_on(serve(orders, begin, attached, ends, announce)));
    if let Some(state_dir) = private.as_deref().and_then(Path::parent) {
        // It was made for this lab alone. Whoever made it does the same, unless it was killed.
        let _ = std::fs::remove_dir(state_dir);
    }
    result
}

/// Forwards until the end of the lab.
async fn serve(
    orders: Orders,
    begin: Begin,
    mut attached: Attached,
    ends: Ends,
    announce: impl FnOnce(&Running) -> io::Result<()>,
) -> Result<(), UpError> {
    let spec = begin.spec.clone();
    if attached.adopted
        && let Err(error) = enter_directory(&begin.file)
    {
        // Only programs that start from now on would miss it.
        tracing::warn!("{error}");
    }
    let forwarding = forward(begin, orders.listen, &mut attached).await;
    let (lab, control) = match forwarding {
        Ok(forwarding) => forwarding,
        Err(error) => {
            // An adopted lab's programs go on, and `up` may be tried again.
            if !attached.adopted
                && let Err(left) = attached.dismantle(&spec)
            {
                tracing::error!("undo: {left}");
            }
            return Err(error);
        }
    };
    tracing::info!("lab {} is running", lab.name);
    let announced = announce(&Running {
        name: lab.name.clone(),
        pid: std::process::id(),
        socket: attached.run_dir.file(SOCKET),
        listen: control.serving.as_ref().map(|serving| serving.address),
        notes: [notes(&lab, orders.given.as_ref()), control.notes].concat(),
    });
    let Control {
        server,
        serving,
        mut stops,
        ..
    } = control;
    let (flow_log_end, ended) = oneshot::channel();
    let flow_logs = FlowLogs::new(attached.run_dir.path(), &lab.current().file);
    let flow_logs = tokio::spawn(flow_logs.follow(Arc::clone(&lab), ended));
    let keeper = attached.keeper.liveness().try_clone_to_owned();
    let run_dir = attached.run_dir.path().to_owned();
    lab.hands.give(attached);
    bgp::start(&lab, &run_dir);
    tokio::spawn(events::run(Arc::clone(&lab)));
    let end = match announced {
        Ok(()) => ends.first(&mut stops, keeper).await,
        // Whoever wanted the lab was interrupted meanwhile.
        Err(_) => End::Abandoned,
    };
    tracing::info!("lab {} ends: {end:?}", lab.name);
    drop(serving);
    // What waits for its minute is written while there is a run directory.
    drop(flow_log_end);
    let _ = flow_logs.await;
    let captured = lab.captures.any();
    if let End::Drain = end {
        // While it still forwards. Those who follow packets get a whole file.
        lab.captures.stop_all();
        server.drain().await;
        drain(&lab);
        return Ok(());
    }
    let mut result = take_down(&lab);
    if let End::KeeperDied = end {
        result = Err(UpError::failed(format!(
            "the keeper of lab {} died, and with it its programs and namespaces",
            lab.name
        )));
    }
    if let End::Stop(answer) = end {
        let _ = answer.send(result.as_ref().map_err(ToString::to_string).copied());
        server.drain().await;
    } else if captured {
        // Those who follow packets get them to the last.
        server.drain().await;
    }
    result
}

/// Starts what moves packets and answers questions, then the lab's programs.
async fn forward(
    begin: Begin,
    listen: Option<Listen>,
    attached: &mut Attached,
) -> Result<(Arc<Lab>, Control), UpError> {
    if !attached.adopted {
        attached.store.commit(begin.wanted())?;
    }
    let mut topology = begin.topology;
    topology.learned_routes = bgp::present(&topology, &attached.ports).await;
    let compiled = control::compile(&topology, begin.generation);
    let generation = Generation::first(Arc::new(topology), compiled);
    let ports = attached.ports.clone();
    let mut queues = std::mem::take(&mut attached.queues);
    let wanted = generation.provenance.ports.len();
    if wanted != ports.devices.len() {
        return Err(UpError::failed(format!(
            "the tables have {wanted} ports and the lab has {}: this is a defect of peerlane",
            ports.devices.len()
        )));
    }
    queues.resize_with(queues.len().max(1), Vec::new);
    let published = Arc::new(Published::new(queues.len()));
    // Nobody has answered a probe yet.
    Health::default().fill(&generation);
    published.publish(Arc::clone(&generation.snapshot));
    let settings = Settings {
        engine: WorkerOptions {
            under_way_bytes: begin.forwarding.under_way_bytes,
            ..WorkerOptions::default()
        },
        waiting: begin.forwarding.waiting,
        cpu: begin.forwarding.cpu,
    };
    settings
        .cpu
        .map_or(Ok(()), crate::thread::may_run_on)
        .map_err(UpError::failed)?;
    let workers =
        Workers::start(queues, settings, &published).map_err(|error| cannot("start the workers", &error))?;
    workers.wake();
    if !published.retired(begin.generation, WORKERS_START) {
        return Err(UpError::failed("the workers do not begin to forward"));
    }
    let (spec, file) = (begin.spec.clone(), begin.file.clone());
    let current = Current {
        file: begin.file,
        text: begin.text.map(Arc::from),
        config: Arc::new(begin.config),
        spec: begin.spec,
        generation,
        ports,
    };
    let lab = Arc::new(Lab::new(
        current,
        begin.forwarding,
        published,
        workers,
        Hands::default(),
    ));
    let run_dir = &attached.run_dir;
    (lab.events.begin(run_dir, !attached.adopted))
        .map_err(|error| cannot("write to the run directory", &error))?;
    let listener =
        server::listen(&run_dir.file(SOCKET)).map_err(|error| cannot("open the control socket", &error))?;
    labs::remember(run_dir, &file, begin.generation)
        .map_err(|error| cannot("write to the run directory", &error))?;
    if !attached.adopted {
        for namespace in &spec.namespaces {
            for command in &namespace.run {
                attached.keeper.spawn(&namespace.name, command)?;
            }
        }
        attached.keeper.hold_lab(&[&spec])?;
    }
    tokio::spawn(health::run(Arc::clone(&lab)));
    let (sender, stops) = mpsc::channel(1);
    let arm::Started {
        router,
        serving,
        notes,
    } = arm::start(&lab, run_dir, listen)?;
    let server = Server::start(listener, Arc::clone(&lab), sender, router);
    let control = Control {
        server,
        serving,
        notes,
        stops,
    };
    Ok((lab, control))
}

/// Ends what forwards and leaves the lab to its keeper, as if this process had died, but between two changes.
fn drain(lab: &Lab) {
    let attached = lab.hands.take();
    lab.workers.stop();
    // The store is closed by now, and the lock goes with this process: the next daemon may begin.
    drop(attached);
}

/// Ends what forwards, and then all that was made for it.
fn take_down(lab: &Lab) -> Result<(), UpError> {
    let attached = lab.hands.take();
    lab.workers.stop();
    let current = lab.current();
    let Some(mut attached) = attached else {
        return Ok(());
    };
    attached.ports = current.ports.clone();
    attached.dismantle(&current.spec)
}

fn notes(lab: &Lab, given: Option<&LabFile>) -> Vec<String> {
    let current = lab.current();
    let mut notes = Vec::new();
    let least = current.ports.devices.iter().map(|device| device.offloads).min();
    if let Some(least) = least.filter(|least| lab.io == Io::Vnet && *least < Offloads::Uso) {
        notes.push(format!(
            "this kernel's TUN takes offloads up to {least} only; large transfers are slower than they could be"
        ));
    }
    if given.is_some_and(|given| current.text.as_deref() != Some(given.text.as_str())) {
        notes.push(format!(
            "lab {name} goes on as it was when its daemon ended; `peerlane apply {name} FILE` makes it what a file says",
            name = lab.name
        ));
    }
    let tunnels = &current.generation.topology.connections;
    if tunnels
        .iter()
        .any(|connection| !matches!(connection.far, Far::Circuit { .. }))
    {
        notes.push(String::from(
            "VPN connections carry packets as they are: nothing is encrypted",
        ));
    }
    notes
}

/// The lab file's, where its programs are to start: what they are told lies beside it. A file from standard input has none.
fn enter_directory(file: &str) -> Result<(), UpError> {
    let directory = Path::new(file).parent();
    match directory.filter(|directory| directory.is_absolute()) {
        Some(directory) => std::env::set_current_dir(directory)
            .map_err(|error| cannot(&format!("enter {}", directory.display()), &error)),
        None => Ok(()),
    }
}

fn cannot(what: &str, error: &io::Error) -> UpError {
    UpError::failed(format!("cannot {what}: {error}"))
}

fn read_orders() -> Result<Orders, UpError> {
    let mut line = Vec::new();
    let input = io::stdin().lock();
    input
        .take(ORDERS_LIMIT_BYTES)
        .read_until(b'\n', &mut line)
        .map_err(|error| cannot("read the orders", &error))?;
    serde_json::from_slice(&line).map_err(|error| {
        UpError::failed(format!(
            "`peerlane daemon` is started by `peerlane up` alone: {error}"
        ))
    })
}

fn say(readiness: &Readiness, mut to: impl Write) -> io::Result<()> {
    let mut line = serde_json::to_vec(readiness)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Output goes to the log from now on; a detached daemon survives the terminal it was started from.
fn leave_terminal(mode: Mode) -> io::Result<()> {
    let null: OwnedFd = File::options().read(true).write(true).open("/dev/null")?.into();
    rustix::stdio::dup2_stdout(&null)?;
    if mode == Mode::Detached {
        rustix::stdio::dup2_stdin(&null)?;
        rustix::process::setsid()?;
    }
    Ok(())
}

/// A lab of hundreds of VMs needs two descriptors for each.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}
