//! A blocking client of the control socket, for the command line.

mod capture;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use control::Plan;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::{
    ApplyRequest, BackendHealth, Drop, EditRequest, ErrorBody, EventRequest, EventState, Flow, LabFile,
    LearnedRoute, LinkCounters, Meter, Overview, PortState, ProbeRequest, ProbeResult, State,
};

/// The longest body the client takes: a flow table of 65,536 lines of about 250 bytes, with room to spare.
const BODY_LIMIT: usize = 64 << 20;
/// A probe waits one second for its packet and may stand behind others in the queue; everything else answers at once.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One lab's control socket. Cheap; may be used by several threads at once, each call has its own connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: the lab is down, or its daemon is gone.
    #[error("no daemon answers at {}: the lab is not running (see `peerlane list`)", .0.display())]
    NotRunning(PathBuf),
    #[error("the daemon at {} did not answer: {source}", .socket.display())]
    Connection {
        socket: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon refused; its own words.
    #[error("{}", .0.message)]
    Refused(ErrorBody),
}

impl Client {
    /// Connects to the socket of a lab's daemon. Must not be called from inside an asynchronous runtime.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when nobody listens there.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let client = Self {
            socket: socket.to_path_buf(),
        };
        client.state().map(|_| client)
    }

    /// Where the daemon listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// # Errors
    /// As every call: the daemon is gone, refused, or answered what this version does not understand.
    pub fn state(&self) -> Result<State, ClientError> {
        self.call(Method::GET, "/v1/state", &())
    }

    /// Losses by reason and NIC since the daemon started.
    ///
    /// # Errors
    /// See [`Client::state`].
    pub fn drops(&self) -> Result<Vec<Drop>, ClientError> {
        self.call(Method::GET, "/v1/drops", &())
    }

    /// Records of the flow tables.
    ///
    /// # Errors
    /// See [`Client::state`].
    pub fn flows(&self) -> Result<Vec<Flow>, ClientError> {
        self.call(Method::GET, "/v1/flows", &())
    }

    /// Everything that is counted, of one moment.
    ///
    /// # Errors
    /// See [`Client::state`].
    pub fn overview(&self) -> Result<Overview, ClientError> {
        self.call(Method::GET, "/v1/overview", &())
    }

    /// What crossed each peering since the daemon started.
    ///
    /// # Errors
    /// See [`Client::state`].
    pub fn meter(&self) -> Result<Vec<Meter>, ClientError> {
        self.call(Method::GET, "/v1/meter", &())
    }

    /// What each link has done, both directions, as far as packets have come.
    ///
    /// # Errors
    /// See [`Client::state`].
    pub fn links(&self) -> Result<Vec<LinkCounters>, ClientError> {
        self.call(Method::GET, "/v1/links", &())
    }

    /// What health probes say of each backend of a load balancer.
    ///
    /// # Errors
    /// See [`Client::state`].
    pub fn health(&self) -> Result<Vec<BackendHealth>, ClientError> {
        self.call(Method::GET, "/v1/health", &())
    }

    /// # Errors
    /// See [`Client::state`].
    pub fn ports(&self) -> Result<Vec<PortState>, ClientError> {
        self.call(Method::GET, "/v1/ports", &())
    }

    /// The lab file that runs.
    ///
    /// # Errors
    /// See [`Client::state`].
    pub fn lab(&self) -> Result<LabFile, ClientError> {
        self.call(Method::GET, "/v1/lab", &())
    }

    /// What the gateways have learned over BGP; None where none speaks. See [`crate::learned::learn`].
    ///
    /// # Errors
    /// See [`Client::state`].
    pub fn learned_routes(&self) -> Result<Option<Vec<LearnedRoute>>, ClientError> {
        self.call(Method::GET, "/v1/learned-routes", &())
    }

    /// Sends packets between real sockets and says what came of them; takes up to about a second.
    /// Many may run at once, each from a thread of the caller.
    ///
    /// # Errors
    /// See [`Client::state`]; refused also where the sender does not own the source address or port.
    pub fn probe(&self, request: &ProbeRequest) -> Result<ProbeResult, ClientError> {
        self.call(Method::POST, "/v1/probe", request)
    }

    /// Makes the lab what a file says, or with `dry_run` says what that would change.
    ///
    /// # Errors
    /// See [`Client::state`]; refused also where a rule forbids it or the file is not valid.
    pub fn apply(&self, request: &ApplyRequest) -> Result<Plan, ClientError> {
        self.call(Method::POST, "/v1/apply", request)
    }

    /// What happened by `events:` and commands, and what is to come.
    ///
    /// # Errors
    /// See [`Client::state`].
    pub fn events(&self) -> Result<Vec<EventState>, ClientError> {
        self.call(Method::GET, "/v1/events", &())
    }

    /// Has an event happen now. Returns the generation that forwards from then on.
    ///
    /// # Errors
    /// See [`Client::state`]; refused also where a rule forbids it or the lab has not what it names.
    pub fn event(&self, request: &EventRequest) -> Result<u64, ClientError> {
        self.call(Method::POST, "/v1/event", request)
    }

    /// Creates, updates and deletes objects, or with `dry_run` says what that would change.
    ///
    /// # Errors
    /// See [`Client::state`]; refused also where a rule forbids it.
    pub fn edit(&self, request: &EditRequest) -> Result<Plan, ClientError> {
        self.call(Method::POST, "/v1/edit", request)
    }

    /// Takes the lab down; answers when nothing is left of it.
    ///
    /// # Errors
    /// See [`Client::state`].
    pub fn stop(&self) -> Result<(), ClientError> {
        self.call(Method::POST, "/v1/stop", &())
    }

    fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let broken = |source| ClientError::Connection {
            socket: self.socket.clone(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| broken(error.into()))?;
        let exchange = async {
            let (status, bytes) = exchange(&self.socket, method, path, body).await?;
            Ok::<_, Failure>((status, bytes))
        };
        let answer = runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, exchange)
                .await
                .unwrap_or_else(|_| Err(Failure::Other("no answer within a minute".into())))
        });
        let (success, bytes) = answer.map_err(|failure| match failure {
            Failure::NobodyListens => ClientError::NotRunning(self.socket.clone()),
            Failure::Other(source) => broken(source),
        })?;
        if success {
            return serde_json::from_slice(&bytes).map_err(|error| broken(error.into()));
        }
        Err(refusal(&bytes))
    }
}

/// What a daemon says with a status that is not 2xx.
fn refusal(bytes: &Bytes) -> ClientError {
    let body = serde_json::from_slice::<ErrorBody>(bytes).unwrap_or_else(|_| ErrorBody {
        message: String::from_utf8_lossy(bytes).into_owned(),
        code: None,
        help: None,
    });
    ClientError::Refused(body)
}

enum Failure {
    NobodyListens,
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

fn unconnected(error: std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Failure::NobodyListens,
        _ => Failure::Other(error.into()),
    }
}

/// One request on a connection of its own: whether the status is 2xx, and the body.
async fn exchange<B: Serialize>(
    socket: &Path,
    method: Method,
    path: &str,
    body: &B,
) -> Result<(bool, Bytes), Failure> {
    let stream = UnixStream::connect(socket).await.map_err(unconnected)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let body = if method == Method::GET {
        Vec::new()
    } else {
        serde_json::to_vec(body)?
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let success = response.status().is_success();
        let body = Limited::new(response.into_body(), BODY_LIMIT)
            .collect()
            .await
            .map_err(Failure::Other)?;
        Ok::<_, Failure>((success, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}
