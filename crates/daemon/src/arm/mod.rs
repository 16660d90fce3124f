//! The ARM API over HTTP: routers for the unix socket and for the TLS listener, in front of the crate `arm`.
//!
//! A request passes `hygiene` (head), `identity` (who asks), `requests` (body, plan, answer); what changes the lab waits in the
//! queue of `changes`, where one thread makes one change at a time.

mod changes;
mod hygiene;
mod identity;
mod json;
mod listener;
mod polling;
mod requests;
mod secrets;
mod token;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get, post};
use lab::RunDir;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::running::Lab;
use crate::up::UpError;
use changes::Changes;
use listener::Listener;
pub(crate) use listener::Serving;
pub use listener::loopback;
use polling::Operations;
use secrets::{Certificate, Secrets};

/// Large bodies that are read or wait for their change at once: each may take some 30 MB as values.
const LARGE_BODIES: usize = 16;
/// The file of the run directory that says where this lab listens, for the next daemon and for people.
const LISTEN: &str = "listen";

/// What `--listen` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Listen {
    /// Loopback; port 0 is any free one.
    pub address: SocketAddr,
    pub style: Style,
}

/// How answers to changes are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Style {
    /// When all is done.
    #[default]
    Synchronous,
    /// 201 or 202 at once, and a URL to ask: what the real service does.
    Polling,
}

/// The API of a lab that begins to run.
#[derive(Debug)]
pub(crate) struct Started {
    /// For the unix socket.
    pub(crate) router: Router,
    /// The listener, where there is one: it ends with this.
    pub(crate) serving: Option<Serving>,
    /// For people: how to reach the listener.
    pub(crate) notes: Vec<String>,
}

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// The kernel has said whose process it is: the lab's owner.
    Unix,
    /// Anybody on this machine, and any web page that a browser on it shows.
    Tls,
}

/// The API of one lab, for one way in.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    inner: Arc<Inner>,
    transport: Transport,
}

#[derive(Debug)]
struct Inner {
    lab: Arc<Lab>,
    secrets: Secrets,
    changes: Changes,
    operations: Operations,
    style: Style,
    large_bodies: Semaphore,
}

/// Starts the API: the thread that makes changes, and the listener that is asked for, or that an earlier daemon of this lab had.
///
/// # Errors
/// The address is in use, or the run directory cannot be written.
pub(crate) fn start(lab: &Arc<Lab>, run_dir: &RunDir, listen: Option<Listen>) -> Result<Started, UpError> {
    let cannot = |what: &str, error: &io::Error| UpError::failed(format!("cannot {what}: {error}"));
    let files = |error| cannot("write to the run directory", &error);
    let listen = listen.or_else(|| remembered(run_dir));
    let style = listen.map_or(Style::default(), |listen| listen.style);
    let api = Api::start(lab, run_dir, style).map_err(|error| cannot("start the API", &error))?;
    let mut started = Started {
        router: api.clone().router(),
        serving: None,
        notes: Vec::new(),
    };
    if let Some(listen) = listen {
        let address = listen.address;
        let listener = Listener::bind(address).map_err(|error| {
            cannot(&format!("listen on {address}"), &error).with_remedy("choose another port with --listen")
        })?;
        let listen = Listen {
            address: listener.address,
            ..listen
        };
        let certificate = Certificate::open(run_dir).map_err(files)?;
        let serving = listener
            .serve(&certificate, api.over_tls().router())
            .map_err(|error| cannot("start the listener", &error))?;
        remember(run_dir, listen).map_err(files)?;
        started.notes.push(recipe(run_dir, listen.address));
        started.serving = Some(serving);
    }
    Ok(started)
}

fn remember(run_dir: &RunDir, listen: Listen) -> io::Result<()> {
    std::fs::write(run_dir.file(LISTEN), serde_json::to_vec(&listen)?)
}

fn remembered(run_dir: &RunDir) -> Option<Listen> {
    let text = std::fs::read(run_dir.file(LISTEN)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// What a user types for az to reach the listener.
fn recipe(run_dir: &RunDir, address: SocketAddr) -> String {
    let file = |name: &str| run_dir.file(name).display().to_string();
    format!(
        "ARM API at https://{address}; for az: export REQUESTS_CA_BUNDLE={} \
         IDENTITY_ENDPOINT=https://{address}/msi/token IDENTITY_HEADER=$(cat {})",
        file(secrets::CERTIFICATE),
        file(secrets::IDENTITY_HEADER),
    )
}

impl Api {
    /// Makes what clients need in the run directory, and starts the thread that makes changes.
    ///
    /// # Errors
    /// The directory cannot be written, or no thread be started.
    pub(crate) fn start(lab: &Arc<Lab>, run_dir: &RunDir, style: Style) -> io::Result<Self> {
        let inner = Inner {
            lab: Arc::clone(lab),
            secrets: Secrets::open(run_dir)?,
            changes: Changes::start(Arc::clone(lab))?,
            operations: Operations::default(),
            style,
            large_bodies: Semaphore::new(LARGE_BODIES),
        };
        Ok(Self {
            inner: Arc::new(inner),
            transport: Transport::Unix,
        })
    }

    /// The same for the listener.
    pub(crate) fn over_tls(&self) -> Self {
        Self {
            transport: Transport::Tls,
            ..self.clone()
        }
    }

    /// Every route of ARM, and what identity clients ask beside them.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/metadata/endpoints", get(identity::endpoints))
            .route("/msi/token", get(identity::managed))
            .route("/metrics", get(requests::metrics))
            .route("/{tenant}/oauth2/v2.0/token", post(identity::client_credentials))
            .route(
                "/{tenant}/v2.0/.well-known/openid-configuration",
                get(identity::openid),
            )
            .method_not_allowed_fallback(requests::no_such_method)
            .fallback(any(requests::resource))
            .layer(axum::middleware::from_fn_with_state(
                self.clone(),
                requests::guard,
            ))
            .with_state(self)
    }
}
