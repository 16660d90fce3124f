//! From an HTTP request to `arm::Request` and from its outcome to an HTTP answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::arm::{Answer, Error, Method, Probe, ProbeProtocol, Reply, Request, View};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::topology::TestProtocol;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;
use tokio::sync::SemaphorePermit;

use super::{Api, Style, Transport, hygiene, json, token};
use crate::question::Question;
use crate::running::Current;

/// The service takes 4 MB; the largest VNet, with 3000 subnets, has about three.
pub(super) const BODY_LIMIT_BYTES: usize = 4 << 20;
/// Bodies up to this size wait for nobody: nearly all are smaller.
const SMALL_BODY_BYTES: u64 = 64 << 10;
/// From the end of the head to the end of the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// Exchanges of one connectivityCheck; each waits for a second of silence at most, and has a thread.
const MOST_PROBES: u32 = 8;
/// Ids that clients give their requests are UUIDs; what is longer is not sent back.
const LONGEST_CLIENT_ID: usize = 64;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-ms-correlation-request-id");
const CLIENT_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const RETURN_CLIENT_ID: HeaderName = HeaderName::from_static("x-ms-return-client-request-id");

/// `If-Match` and `If-None-Match` of a change.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    matches: Option<String>,
    none_matches: Option<String>,
}

/// In front of every route: what the head must look like; what every answer has.
pub(super) async fn guard(State(api): State<Api>, request: axum::extract::Request, next: Next) -> Response {
    let headers = request.headers();
    let echo = |name: &HeaderName| headers.get(name).filter(|id| is_id(id)).cloned();
    let (correlation, client) = (echo(&CORRELATION_ID), echo(&CLIENT_ID));
    let returned = headers
        .get(RETURN_CLIENT_ID)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let own = api.transport == Transport::Tls;
    let mut response = match hygiene::check_head(request.method(), request.uri(), headers, own) {
        Ok(()) => next.run(request).await,
        Err(error) => refusal(&error),
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&fresh_id()) {
        headers.insert(CORRELATION_ID, correlation.unwrap_or_else(|| id.clone()));
        headers.insert(REQUEST_ID, id);
    }
    if let Some(client) = client.filter(|_| returned) {
        headers.insert(CLIENT_ID, client);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Every ARM path.
pub(super) async fn resource(State(api): State<Api>, request: axum::extract::Request) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = match answer(&api, request).await {
        Ok(answer) => success(answer),
        Err(error) => refusal(&error),
    };
    if method != axum::http::Method::GET {
        let status = response.status().as_u16();
        tracing::debug!("{method} {path:.300}: {status}");
    }
    response
}

/// The counters of `/metrics`, for whoever may ask for resources.
pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Response {
    match authenticate(&api, &headers) {
        Ok(_) => crate::metrics::answer(&api.inner.lab).await,
        Err(error) => refusal(&error),
    }
}

/// A known path, asked in another way.
pub(super) async fn no_such_method() -> Response {
    refusal(&Error::method_not_allowed())
}

async fn answer(api: &Api, request: axum::extract::Request) -> Result<Answer, Error> {
    let (head, body) = request.into_parts();
    // Who asks comes before all that costs us something.
    let principal = authenticate(api, &head.headers)?;
    let method = match head.method.as_str() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "POST" => Method::Post,
        "DELETE" => Method::Delete,
        _ => return Err(Error::method_not_allowed()),
    };
    let path = hygiene::segments(head.uri.path())?;
    let query = Query::<Vec<(String, String)>>::try_from_uri(&head.uri)
        .map_err(|_| Error::bad("InvalidRequestUri", "the query of the URL cannot be read"))?;
    let conditions = Conditions::of(&head.headers)?;
    let origin = origin(api, &head.headers);
    let (body, _large) = read(api, &head.headers, body).await?;
    let request = Request {
        method,
        path,
        query: query.0,
        body,
        principal,
        origin,
    };
    if let Some(answer) = api.inner.operations.look(&request) {
        return Ok(answer);
    }
    let answer = match method {
        Method::Put | Method::Patch | Method::Delete => {
            api.inner.changes.make(request.clone(), conditions).await?
        }
        Method::Get | Method::Head | Method::Post => ask(api, &request, conditions).await?,
    };
    let polled = api.inner.style == Style::Polling && answer.long_running && answer.status < 204;
    Ok(if polled {
        api.inner.operations.accept(&request, answer)
    } else {
        answer
    })
}

/// What is answered by the tables as they are, or by packets.
async fn ask(api: &Api, request: &Request, conditions: Conditions) -> Result<Answer, Error> {
    let current = api.inner.lab.current();
    match view(&current, |view| ::arm::plan_request(request, view))? {
        Reply::Answer(answer) => Ok(answer),
        Reply::Change(_) => api.inner.changes.make(request.clone(), conditions).await,
        Reply::Probe(probe) => {
            let seen = send(api, &current, &probe).await?;
            view(&current, |view| ::arm::probed(request, view, &seen))
        }
    }
}

/// Lets real sockets try; by exchange the microseconds until its answer.
async fn send(api: &Api, current: &Current, probe: &Probe) -> Result<Vec<Option<u64>>, Error> {
    let topology = &current.generation.topology;
    let end = |word: &str| {
        let found = topology.endpoint(word);
        found.map_err(|error| Error::bad("InvalidResourceReference", error.to_string()))
    };
    let (from, to) = (end(&probe.source)?, end(&probe.destination)?);
    let (protocol, port) = match probe.protocol {
        ProbeProtocol::Tcp => (TestProtocol::Tcp, Some(probe.port)),
        ProbeProtocol::Icmp => (TestProtocol::Icmp, None),
    };
    let cannot = |message: String| Error::bad("Sim.CannotProbe", message);
    let mut question = Question::new(topology, (&from, &to), protocol, port, None).map_err(cannot)?;
    question.source_port = probe.source_port;
    let order = question.request().map_err(cannot)?;
    let count = probe.count.clamp(1, MOST_PROBES);
    let tries = (0..count).map(|_| crate::probe::probe(&api.inner.lab, order.clone()));
    let results = futures_util::future::join_all(tries).await;
    let latency =
        |result: Result<crate::api::ProbeResult, String>| result.map(|it| it.latency_us).map_err(cannot);
    results.into_iter().map(latency).collect()
}

/// The lab as it is, for one question.
pub(super) fn view<T>(current: &Current, ask: impl FnOnce(&View<'_>) -> T) -> T {
    let now = jiff::Timestamp::now().to_string();
    ask(&View {
        config: &current.config,
        generation: &current.generation,
        now: &now,
    })
}

fn authenticate(api: &Api, headers: &HeaderMap) -> Result<token::Principal, Error> {
    match hygiene::bearer(headers)? {
        Some(said) => token::bearer(&api.inner.secrets, said, unix_now()).ok_or_else(|| {
            hygiene::unauthenticated(
                "InvalidAuthenticationToken",
                "the access token is invalid or has expired",
            )
        }),
        // The kernel has vouched for the peer.
        None if api.transport == Transport::Unix => Ok(None),
        None => Err(hygiene::unauthenticated(
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.",
        )),
    }
}

/// What URLs in answers begin with.
pub(super) fn origin(api: &Api, headers: &HeaderMap) -> String {
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    match api.transport {
        Transport::Tls => format!("https://{host}"),
        Transport::Unix => format!("http://{host}"),
    }
}

/// The body as JSON. A large one holds its place among the large ones until it is answered.
async fn read<'a>(
    api: &'a Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Value, Option<SemaphorePermit<'a>>), Error> {
    let too_large = || {
        let message = format!("the body is longer than {BODY_LIMIT_BYTES} bytes");
        Error::new(413, "RequestEntityTooLarge", message)
    };
    let length = hygiene::single(headers, &CONTENT_LENGTH)?.and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_LIMIT_BYTES as u64) {
        return Err(too_large());
    }
    let slow = |_| Error::new(408, "RequestTimeout", "the body did not arrive in time");
    let reading = async {
        let large = match length {
            Some(length) if length <= SMALL_BODY_BYTES => None,
            None if axum::body::HttpBody::is_end_stream(&body) => None,
            _ => api.inner.large_bodies.acquire().await.ok(),
        };
        let bytes = Limited::new(body, BODY_LIMIT_BYTES).collect().await;
        (bytes.map(http_body_util::Collected::to_bytes), large)
    };
    let (bytes, large) = tokio::time::timeout(BODY_TIMEOUT, reading).await.map_err(slow)?;
    let bytes = bytes.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => too_large(),
        None => Error::bad("InvalidRequestContent", "the body broke off"),
    })?;
    if bytes.is_empty() {
        return Ok((Value::Null, None));
    }
    hygiene::check_content_type(headers, "application/json")?;
    let body = json::parse(&bytes).map_err(|message| Error::body("", message))?;
    Ok((body, large))
}

impl Conditions {
    fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let read = |name| Ok::<_, Error>(hygiene::single(headers, name)?.map(str::to_owned));
        Ok(Self {
            matches: read(&IF_MATCH)?,
            none_matches: read(&IF_NONE_MATCH)?,
        })
    }

    /// # Errors
    /// 412: the resource is another than the client thinks.
    pub(super) fn check(&self, request: &Request, current: &Current) -> Result<(), Error> {
        if self.matches.is_none() && self.none_matches.is_none() {
            return Ok(());
        }
        let get = Request {
            method: Method::Get,
            principal: None,
            body: Value::Null,
            ..request.clone()
        };
        let etag = match view(current, |view| ::arm::plan_request(&get, view)) {
            Ok(Reply::Answer(answer)) => answer
                .body
                .and_then(|body| body["etag"].as_str().map(str::to_owned)),
            _ => None,
        };
        let holds = |said: &str| {
            let mut said = said.split(',').map(str::trim);
            etag.as_deref()
                .is_some_and(|etag| said.any(|it| it == "*" || it == etag))
        };
        let fails = self.matches.as_deref().is_some_and(|said| !holds(said))
            || self.none_matches.as_deref().is_some_and(holds);
        if fails {
            let message =
                "the condition of If-Match or If-None-Match does not hold for the resource as it is";
            return Err(Error::new(412, "PreconditionFailed", message));
        }
        Ok(())
    }
}

pub(super) fn success(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = match &answer.body {
        Some(body) => json_response(status, body),
        None => status.into_response(),
    };
    let headers = response.headers_mut();
    let etag = answer.body.as_ref().and_then(|body| body["etag"].as_str());
    if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
        headers.insert(ETAG, etag);
    }
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

pub(super) fn refusal(error: &Error) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = json_response(status, &error.to_body());
    let headers = response.headers_mut();
    match error.status {
        401 => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        429 => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    // Tools look for the code here too.
    if let Ok(code) = HeaderValue::from_str(&error.code) {
        headers.insert(HeaderName::from_static("x-ms-error-code"), code);
    }
    response
}

pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    let kind = (CONTENT_TYPE, "application/json; charset=utf-8");
    (status, [kind], body.to_string()).into_response()
}

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A UUID that nobody has had.
pub(super) fn fresh_id() -> String {
    let mut bytes = [0; 16];
    // Without randomness ids repeat, which disturbs nobody but a reader of logs.
    let _ = SystemRandom::new().fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

fn is_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.len() <= LONGEST_CLIENT_ID
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}
