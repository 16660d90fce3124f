//! Keeps a BIRD in every namespace that speaks BGP, and makes what the gateways' ones learn the lab's routes.
//!
//! A gateway's BIRD writes what it learned into a kernel table of its namespace. Its changes are noticed by netlink, read
//! as a whole, and published together. When BIRD dies, what it learned is withdrawn, and it is started again.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lab::{RouteWatch, TableRoute};
use model::Topology;
use model::topology::{LearnedRoute, SiteIndex};
use rustix::fs::{Mode, OFlags};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::bird::{self, Control, Router};
use crate::ports::Ports;
use crate::running::Lab;
use crate::speakers::{self, LEARNED_TABLE, Speaker};
use crate::up::UpError;

/// The directory of configurations and control sockets in the run directory.
const DIRECTORY: &str = "bird";
/// Changes come in bursts: those of so long are read, and published, together.
const GATHER: Duration = Duration::from_millis(10);
/// A BIRD that ends at once must not keep the machine busy.
const RESTART: Duration = Duration::from_secs(1);
/// It answers within milliseconds; a busy machine may need more.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How often a starting BIRD's socket is tried.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// What every gateway's table holds at present, by the gateway's name.
#[derive(Debug, Default)]
struct Tables {
    routes: Mutex<BTreeMap<String, Vec<TableRoute>>>,
    changed: Notify,
}

/// A namespace's BIRD and whoever looks after it.
struct Keeping {
    router: watch::Sender<Router>,
    task: AbortHandle,
}

/// Looks after one BIRD.
struct Keep {
    lab: Arc<Lab>,
    namespace: String,
    directory: PathBuf,
    router: watch::Receiver<Router>,
    /// Of a gateway.
    table: Option<RouteWatch>,
    tables: Arc<Tables>,
}

/// Says whether this machine can run what the lab needs.
///
/// # Errors
/// The lab speaks BGP and there is no BIRD.
pub(crate) fn check(topology: &Topology) -> Result<(), UpError> {
    let speakers = speakers::speakers(topology);
    let Some(first) = speakers.first().filter(|_| bird::program().is_none()) else {
        return Ok(());
    };
    Err(UpError::machine(
        format!(
            "{} speaks BGP (enableBgp), and this machine has no program bird",
            first.namespace
        ),
        bird::REMEDY,
    ))
}

/// What the gateways of a lab know before anything runs here: nothing, or in an adopted lab what is in their tables. None:
/// no gateway speaks.
pub(crate) async fn present(topology: &Topology, ports: &Ports) -> Option<Vec<LearnedRoute>> {
    let mut learned = None;
    for index in topology.speakers() {
        let all = learned.get_or_insert_with(Vec::new);
        let Some(namespace) = ports.namespace(&topology.gateways[index.0].name) else {
            continue;
        };
        let table = match RouteWatch::open(&namespace, LEARNED_TABLE) {
            Ok(watch) => watch.routes().await,
            Err(error) => Err(error),
        };
        match table {
            Ok(table) => all.extend(speakers::heard(topology, index, &table).routes),
            Err(error) => tracing::error!("{}: {error}", topology.gateways[index.0].name),
        }
    }
    learned
}

/// From here on the lab's sites have their routes, its BIRDs run and what gateways learn is published. `run_dir` is the
/// lab's. Call it inside the runtime, which then does the work until it ends.
pub(crate) fn start(lab: &Arc<Lab>, run_dir: &Path) {
    let tables = Arc::new(Tables::default());
    tokio::spawn(publish(Arc::clone(lab), Arc::clone(&tables)));
    tokio::spawn(follow(Arc::clone(lab), run_dir.join(DIRECTORY), tables));
}

/// Has as many BIRDs looked after as each generation of the lab needs.
async fn follow(lab: Arc<Lab>, directory: PathBuf, tables: Arc<Tables>) {
    let mut generations = lab.generations();
    let mut kept: HashMap<String, Keeping> = HashMap::new();
    let mut sites = HashMap::new();
    loop {
        generations.borrow_and_update();
        let topology = Arc::clone(&lab.current().generation.topology);
        set_site_routes(&lab, &topology, &mut sites);
        let speakers = speakers::speakers(&topology);
        kept.retain(|namespace, keeping| {
            let stays = speakers.iter().any(|speaker| speaker.namespace == *namespace);
            if !stays {
                keeping.task.abort();
                tables.set(namespace, Vec::new());
                tokio::spawn(shut_down(directory.clone(), file_name(namespace)));
            }
            stays
        });
        for speaker in speakers {
            match kept.get(&speaker.namespace) {
                Some(keeping) => drop(keeping.router.send_if_modified(|router| {
                    let changed = *router != speaker.router;
                    *router = speaker.router;
                    changed
                })),
                None => match keep(&lab, &directory, &tables, &speaker) {
                    Ok(keeping) => drop(kept.insert(speaker.namespace, keeping)),
                    Err(error) => tracing::error!("{}: {error}", speaker.namespace),
                },
            }
        }
        // Places in the topology may have changed.
        tables.changed.notify_one();
        if generations.changed().await.is_err() {
            return;
        }
    }
}

/// Ends a BIRD that speaks no more. Where its namespace is gone, it is; a site's namespace stays, and may get another.
async fn shut_down(directory: PathBuf, name: String) {
    if let Ok(mut control) = connect(&directory, &name).await
        && let Err(error) = control.shut_down().await
    {
        tracing::debug!("{name}: {error}");
    }
}

/// Sets the routes of sites that are not as in `set`, what was set before.
fn set_site_routes(
    lab: &Lab,
    topology: &Topology,
    set: &mut HashMap<String, Vec<(String, Vec<ipnet::Ipv4Net>)>>,
) {
    for (index, site) in topology.sites.iter().enumerate() {
        let routes = speakers::site_routes(topology, SiteIndex(index));
        if set.get(&site.name) == Some(&routes) {
            continue;
        }
        let Some(namespace) = lab.namespace(&site.name) else {
            continue;
        };
        match namespace.run(|| lab::static_routes::set(&routes)) {
            Ok(Ok(())) => drop(set.insert(site.name.clone(), routes)),
            Ok(Err(error)) | Err(error) => tracing::error!("site {}: {error}", site.name),
        }
    }
}

fn keep(lab: &Arc<Lab>, directory: &Path, tables: &Arc<Tables>, speaker: &Speaker) -> lab::Result<Keeping> {
    let missing = || lab::Error::NotFound(format!("the lab has no namespace {}", speaker.namespace));
    let namespace = lab.namespace(&speaker.namespace).ok_or_else(missing)?;
    let table = match speaker.gateway {
        true => Some(RouteWatch::open(&namespace, LEARNED_TABLE)?),
        false => None,
    };
    let (sender, router) = watch::channel(speaker.router.clone());
    let keep = Keep {
        lab: Arc::clone(lab),
        namespace: speaker.namespace.clone(),
        directory: directory.to_owned(),
        router,
        table,
        tables: Arc::clone(tables),
    };
    Ok(Keeping {
        router: sender,
        task: tokio::spawn(keep.run()).abort_handle(),
    })
}

impl Keep {
    async fn run(mut self) {
        let name = self.namespace.clone();
        loop {
            match self.begin().await {
                Ok(control) => {
                    tracing::info!("{name}: BIRD speaks BGP");
                    self.serve(control).await;
                    tracing::warn!(
                        "{name}: BIRD has ended; what it learned is withdrawn, and it is started again"
                    );
                }
                Err(error) => {
                    tracing::error!("{name}: BIRD does not run: {error}; its output is in log/{name}.log")
                }
            }
            self.forget().await;
            sleep(RESTART).await;
        }
    }

    /// The BIRD that runs there already, with the present configuration, or a new one.
    async fn begin(&mut self) -> io::Result<Control> {
        let (directory, name) = (self.directory.clone(), file_name(&self.namespace));
        let router = self.router.borrow_and_update().clone();
        fs::create_dir_all(&directory)?;
        let config = directory.join(format!("{name}.conf"));
        fs::write(&config, bird::config(&router))?;
        if let Ok(mut control) = connect(&directory, &name).await {
            control.configure().await?;
            return Ok(control);
        }
        // Nobody is left who could take back what is there.
        self.forget().await;
        let program = bird::program().ok_or_else(|| io::Error::other(bird::REMEDY))?;
        // A relative path of a socket may be long where the whole one may not.
        let command = format!(
            "cd {} && exec {} -f -c {name}.conf -s {name}.ctl",
            quoted(&directory),
            quoted(&program)
        );
        let (lab, namespace) = (Arc::clone(&self.lab), self.namespace.clone());
        let started = tokio::task::spawn_blocking(move || lab.spawn(&namespace, &command)).await;
        started.map_err(io::Error::other)?.map_err(io::Error::other)?;
        let answered = timeout(START_PATIENCE, async {
            loop {
                match connect(&directory, &name).await {
                    Ok(control) => return control,
                    Err(_) => sleep(TRY_EVERY).await,
                }
            }
        });
        answered.await.map_err(|_| io::Error::other("it does not answer"))
    }

    /// Until BIRD has ended.
    async fn serve(&mut self, mut control: Control) {
        loop {
            self.read().await;
            let changed = async {
                match &self.table {
                    Some(table) => table.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = control.ended() => return,
                () = changed => sleep(GATHER).await,
                told = self.router.changed() => match told {
                    Ok(()) => self.configure(&mut control).await,
                    // The speaker is gone from the lab, and its namespace with it.
                    Err(_) => std::future::pending().await,
                },
            }
        }
    }

    async fn configure(&mut self, control: &mut Control) {
        let router = self.router.borrow_and_update().clone();
        let config = self
            .directory
            .join(format!("{}.conf", file_name(&self.namespace)));
        let written = fs::write(config, bird::config(&router));
        let configured = match written {
            Ok(()) => control.configure().await,
            Err(error) => Err(error),
        };
        match configured {
            Ok(()) => tracing::info!("{}: BIRD is configured anew", self.namespace),
            Err(error) => tracing::error!("{}: BIRD is not configured anew: {error}", self.namespace),
        }
    }

    async fn read(&self) {
        let Some(table) = &self.table else { return };
        match table.routes().await {
            Ok(routes) => self.tables.set(&self.namespace, routes),
            Err(error) => tracing::error!("{}: {error}", self.namespace),
        }
    }

    async fn forget(&self) {
        let Some(table) = &self.table else { return };
        if let Err(error) = table.flush().await {
            tracing::error!("{}: {error}", self.namespace);
        }
        self.tables.set(&self.namespace, Vec::new());
    }
}

impl Tables {
    fn set(&self, namespace: &str, routes: Vec<TableRoute>) {
        let mut all = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(namespace) != Some(&routes) {
            all.insert(namespace.to_owned(), routes);
            self.changed.notify_one();
        }
    }
}

/// Publishes what all tables hold together, at most once in [`GATHER`].
async fn publish(lab: Arc<Lab>, tables: Arc<Tables>) {
    let mut refused = Vec::new();
    loop {
        tables.changed.notified().await;
        let all = tables
            .routes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (learned, refusals) = learned(&lab.current().generation.topology, &all);
        for line in refusals.iter().filter(|line| !refused.contains(*line)) {
            tracing::warn!("{line}");
        }
        refused = refusals;
        if lab.current().generation.topology.learned_routes != learned {
            let lab = Arc::clone(&lab);
            let revised = tokio::task::spawn_blocking(move || {
                // The lab may have changed since, and with it the places of gateways and connections.
                lab.revise(|topology| topology.learned_routes = self::learned(topology, &all).0)
            });
            match revised.await {
                Ok(Ok(generation)) => tracing::debug!("learned routes: generation {generation}"),
                Ok(Err(error)) => tracing::debug!("learned routes: {error}"),
                Err(error) => tracing::error!("learned routes: {error}"),
            }
        }
        sleep(GATHER).await;
    }
}

/// The routes of all gateways, and the refusals; None: no gateway speaks.
fn learned(
    topology: &Topology,
    tables: &BTreeMap<String, Vec<TableRoute>>,
) -> (Option<Vec<LearnedRoute>>, Vec<String>) {
    let mut refused = Vec::new();
    let mut learned = None;
    for index in topology.speakers() {
        let all = learned.get_or_insert_with(Vec::new);
        if let Some(table) = tables.get(&topology.gateways[index.0].name) {
            let heard = speakers::heard(topology, index, table);
            all.extend(heard.routes);
            refused.extend(heard.refused);
        }
    }
    (learned, refused)
}

/// By a path that is short however long the run directory's is.
async fn connect(directory: &Path, name: &str) -> io::Result<Control> {
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&directory);
    Control::connect(Path::new(&format!("/proc/self/fd/{descriptor}/{name}.ctl"))).await
}

/// A namespace's name as a file's: `group/name` of the lab file has a slash.
fn file_name(namespace: &str) -> String {
    namespace.replace('/', ":")
}

/// For the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
