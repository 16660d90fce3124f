//! The control socket: HTTP/1 with JSON bodies on a unix socket that only the lab's own user and root may use.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use control::Plan;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::api::{
    ApplyRequest, BackendHealth, CAPTURE_HEADER, CaptureRequest, EditRequest, ErrorBody, EventRequest,
    EventState, Flow, LabFile, LearnedRoute, LinkCounters, Meter, Overview, PortState, ProbeRequest, State,
};
use crate::change::ChangeError;
use crate::running::Lab;
use crate::{api, events, learned, metrics, openapi, probe, watch};

/// The largest request body: a probe is some hundred bytes.
const BODY_LIMIT_BYTES: usize = 64 << 10;
/// The largest lab file, escaped: as the orders of a daemon.
const LAB_LIMIT_BYTES: usize = 64 << 20;
/// A client that says nothing for so long is gone.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 256;

/// How long a stopped daemon waits for its last answers to be read.
const DRAIN: Duration = Duration::from_secs(1);

/// An order to take the lab down; answered when nothing is left of it.
pub(crate) type Stop = oneshot::Sender<Result<(), String>>;

/// The accepting side.
#[derive(Debug)]
pub(crate) struct Server {
    connections: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Shared {
    lab: Arc<Lab>,
    stop: mpsc::Sender<Stop>,
}

/// An answer that is not 2xx.
#[derive(Debug)]
struct Refusal(StatusCode, ErrorBody);

/// Makes the socket, for its owner alone.
///
/// # Errors
/// The path is too long, or the directory cannot be written.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    rustix::fs::chmod(path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    Ok(listener)
}

impl Server {
    /// Serves until the runtime ends. Orders to stop go to `stop`, what is not of this control socket to `arm`.
    pub(crate) fn start(
        listener: UnixListener,
        lab: Arc<Lab>,
        stop: mpsc::Sender<Stop>,
        arm: Router,
    ) -> Self {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        tokio::spawn(accept(
            listener,
            router(Shared { lab, stop }, arm),
            Arc::clone(&connections),
        ));
        Self { connections }
    }

    /// Waits, a moment at most, until the answers under way are written.
    pub(crate) async fn drain(self) {
        // All but the place of the next connection, which the accepting side holds.
        let all = u32::try_from(CONNECTIONS - 1).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(DRAIN, self.connections.acquire_many(all)).await;
    }
}

async fn accept(listener: UnixListener, router: Router, connections: Arc<Semaphore>) {
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("control socket: cannot accept: {error}");
                // Out of descriptors, most likely; trying again at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !may_control(&stream) {
            tracing::warn!("control socket: a process of another user was turned away");
            continue;
        }
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!("control socket: {error}");
            }
            drop(permit);
        });
    }
}

/// The same user, or root. In a user namespace every other user of the machine shows as the overflow uid; of those
/// only root gets past the modes of the directory and of the socket.
fn may_control(stream: &UnixStream) -> bool {
    const OVERFLOW_UID: u32 = 65_534;
    let Ok(peer) = stream.peer_cred().map(|peer| peer.uid()) else {
        return false;
    };
    let own = rustix::process::geteuid().as_raw();
    peer == own || peer == 0 || (peer == OVERFLOW_UID && crate::running::in_user_namespace())
}

fn router(shared: Shared, arm: Router) -> Router {
    Router::new()
        .route("/v1/state", get(state))
        .route("/v1/ports", get(ports))
        .route("/v1/overview", get(overview))
        .route("/v1/drops", get(drops))
        .route("/v1/flows", get(flows))
        .route("/v1/health", get(health))
        .route("/v1/meter", get(meter))
        .route("/v1/links", get(links))
        .route("/v1/lab", get(lab_file))
        .route("/v1/learned-routes", get(learned_routes))
        .route("/v1/events", get(list_events))
        .route("/v1/event", post(event))
        .route("/v1/probe", post(run_probe))
        .route("/v1/captures", post(capture))
        .route("/v1/captures/{id}/stop", post(stop_capture))
        .route(
            "/v1/apply",
            post(apply).layer(DefaultBodyLimit::max(LAB_LIMIT_BYTES)),
        )
        .route("/v1/edit", post(edit))
        .route("/v1/watch", get(watch))
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/stop", post(stop))
        .route(
            "/v1/{*rest}",
            any(|| async { Refusal::new(StatusCode::NOT_FOUND, "no such resource") }),
        )
        .method_not_allowed_fallback(|| async {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this resource has no such method")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .route("/metrics", get(metrics_page))
        .with_state(shared)
        .fallback_service(arm)
}

async fn state(Extract(shared): Extract<Shared>) -> Json<State> {
    Json(shared.lab.state().await)
}

async fn ports(Extract(shared): Extract<Shared>) -> Json<Vec<PortState>> {
    Json(shared.lab.ports().await)
}

async fn overview(Extract(shared): Extract<Shared>) -> Json<Overview> {
    Json(shared.lab.overview().await)
}

async fn drops(Extract(shared): Extract<Shared>) -> Json<Vec<api::Drop>> {
    Json(shared.lab.drops().await)
}

async fn flows(Extract(shared): Extract<Shared>) -> Json<Vec<Flow>> {
    Json(shared.lab.flows().await)
}

async fn links(Extract(shared): Extract<Shared>) -> Json<Vec<LinkCounters>> {
    Json(shared.lab.links().await)
}

async fn meter(Extract(shared): Extract<Shared>) -> Json<Vec<Meter>> {
    Json(shared.lab.meter().await)
}

async fn health(Extract(shared): Extract<Shared>) -> Json<Vec<BackendHealth>> {
    Json(shared.lab.health.list(&shared.lab.current().generation))
}

async fn lab_file(Extract(shared): Extract<Shared>) -> Result<Json<LabFile>, Refusal> {
    let file = shared.lab.current().lab_file();
    file.map(Json)
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))
}

async fn learned_routes(Extract(shared): Extract<Shared>) -> Json<Option<Vec<LearnedRoute>>> {
    Json(learned::named(&shared.lab.current().generation.topology))
}

async fn run_probe(
    Extract(shared): Extract<Shared>,
    request: Result<Json<ProbeRequest>, JsonRejection>,
) -> Response {
    let request = match request {
        Ok(Json(request)) => request,
        Err(rejection) => return Refusal::new(rejection.status(), rejection.body_text()).into_response(),
    };
    match probe::probe(&shared.lab, request).await {
        Ok(result) => Json(result).into_response(),
        Err(message) => Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message).into_response(),
    }
}

async fn capture(
    Extract(shared): Extract<Shared>,
    request: Result<Json<CaptureRequest>, JsonRejection>,
) -> Response {
    let request = match request {
        Ok(Json(request)) => request,
        Err(rejection) => return Refusal::new(rejection.status(), rejection.body_text()).into_response(),
    };
    let mut stream = match crate::capture::start(&shared.lab, request) {
        Ok(stream) => stream,
        Err(message) => return Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message).into_response(),
    };
    let id = stream.id;
    let pieces = futures_util::stream::poll_fn(move |context| {
        stream
            .pieces
            .poll_recv(context)
            .map(|piece| piece.map(Ok::<_, Infallible>))
    });
    let head = [
        ("content-type", String::from("application/x-pcapng")),
        (CAPTURE_HEADER, id.to_string()),
    ];
    (head, Body::from_stream(pieces)).into_response()
}

async fn stop_capture(Extract(shared): Extract<Shared>, UrlPath(id): UrlPath<u32>) -> Response {
    match shared.lab.captures.stop(id) {
        true => Json(()).into_response(),
        false => Refusal::new(StatusCode::NOT_FOUND, "no such capture runs").into_response(),
    }
}

async fn apply(
    Extract(shared): Extract<Shared>,
    request: Result<Json<ApplyRequest>, JsonRejection>,
) -> Response {
    let ApplyRequest { file, text, dry_run } = match request {
        Ok(Json(request)) => request,
        Err(rejection) => return Refusal::new(rejection.status(), rejection.body_text()).into_response(),
    };
    let file = LabFile {
        file,
        text,
        service_tags: None,
    };
    planned(shared.lab, move |lab, flows| match dry_run {
        true => lab.plan(&file, flows),
        false => lab.apply(&file, flows),
    })
    .await
}

async fn edit(
    Extract(shared): Extract<Shared>,
    request: Result<Json<EditRequest>, JsonRejection>,
) -> Response {
    let EditRequest { edits, dry_run } = match request {
        Ok(Json(request)) => request,
        Err(rejection) => return Refusal::new(rejection.status(), rejection.body_text()).into_response(),
    };
    let edits: Vec<_> = edits.into_iter().map(model::change::Edit::from).collect();
    planned(shared.lab, move |lab, flows| match dry_run {
        true => lab.plan_edit(&edits, flows),
        false => lab.edit(&edits, flows),
    })
    .await
}

/// Runs a change, or only plans it, and answers with the plan.
async fn planned(
    lab: Arc<Lab>,
    change: impl FnOnce(&Lab, &[engine::stats::Flow]) -> Result<Plan, ChangeError> + Send + 'static,
) -> Response {
    let flows: Vec<_> = lab.workers.flows().await.into_iter().flatten().collect();
    let (sender, receiver) = oneshot::channel();
    // Namespaces and TUNs take their time, and questions are answered meanwhile.
    let started = std::thread::Builder::new()
        .name(String::from("change"))
        .spawn(move || {
            // Whoever asked may have gone; the change is made or not, as a whole.
            let _ = sender.send(change(&lab, &flows));
        });
    let failed = |message: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response();
    if let Err(error) = started {
        return failed(format!("cannot start a thread: {error}"));
    }
    match receiver.await {
        Ok(Ok(plan)) => Json(plan).into_response(),
        Ok(Err(error)) => Refusal::from(error).into_response(),
        Err(_) => failed(String::from(
            "the change ended without a result; the log says why",
        )),
    }
}

async fn list_events(Extract(shared): Extract<Shared>) -> Json<Vec<EventState>> {
    Json(shared.lab.events())
}

async fn event(
    Extract(shared): Extract<Shared>,
    request: Result<Json<EventRequest>, JsonRejection>,
) -> Response {
    let event = match request {
        Ok(Json(request)) => model::read_event(&request.text),
        Err(rejection) => return Refusal::new(rejection.status(), rejection.body_text()).into_response(),
    };
    let done = match event {
        Ok(event) => events::happen(&shared.lab, event, false).await,
        Err(refusal) => Err(refusal.into()),
    };
    match done {
        Ok(generation) => Json(generation).into_response(),
        Err(error) => Refusal::from(error).into_response(),
    }
}

async fn watch(Extract(shared): Extract<Shared>) -> Response {
    match watch::follow(&shared.lab) {
        Some(events) => events.into_response(),
        None => {
            let message = "as many watch this lab as can; try again when one has gone";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
        }
    }
}

async fn openapi() -> Json<serde_json::Value> {
    Json(openapi::document())
}

async fn metrics_page(Extract(shared): Extract<Shared>) -> Response {
    metrics::answer(&shared.lab).await
}

async fn stop(Extract(shared): Extract<Shared>) -> Response {
    let (sender, receiver) = oneshot::channel();
    let refused = |message: &str| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response();
    if shared.stop.send(sender).await.is_err() {
        return refused("the lab is being taken down already");
    }
    match receiver.await {
        Ok(Ok(())) => Json(()).into_response(),
        Ok(Err(message)) => refused(&message),
        Err(_) => refused("the daemon ended before the lab was down; run `peerlane down` again"),
    }
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let body = ErrorBody {
            message: message.into(),
            code: None,
            help: None,
        };
        Self(status, body)
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let refused = Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
        let (message, code, help) = match error {
            ChangeError::Refused(refusal) => (refusal.message, Some(refusal.code.to_owned()), refusal.help),
            ChangeError::Failed(error) => (error.message, None, error.remedy),
            ChangeError::Down | ChangeError::NotYet => return refused,
        };
        Self(refused.0, ErrorBody { message, code, help })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, body) = self;
        (status, Json(body)).into_response()
    }
}
