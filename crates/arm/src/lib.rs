//! The ARM API as a function: requests to operations on the model, the model to ARM's bodies.
//!
//! No socket, clock or state: [`plan_request`] sees a request and the lab as it is ([`View`]), and says what is to be
//! answered, or which operations are to be applied first. Whoever has the lab applies them, and asks again for the body
//! to show ([`Change::show`]).

pub mod error;
mod groups;
pub mod id;
mod platform;
mod resources;

use control::Generation;
use model::Config;
use model::change::Operation;
use serde_json::Value;

pub use error::Error;
pub use id::Id;
pub use platform::tenant_of;

/// A request, its hygiene checked: the path is decoded and has no empty, `.` or `..` segment.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub path: Vec<String>,
    /// In order, as sent; names match without regard to case.
    pub query: Vec<(String, String)>,
    /// Null where none was sent.
    pub body: Value,
    /// A name of the lab's `principals:`; None is the owner, who may do everything.
    pub principal: Option<String>,
    /// What URLs in answers begin with, such as `https://127.0.0.1:8943`.
    pub origin: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Put,
    Patch,
    Post,
    Delete,
}

/// The lab as it is.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub config: &'a Config,
    pub generation: &'a Generation,
    /// The time, in RFC 3339.
    pub now: &'a str,
}

/// What to do about a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Nothing but answer.
    Answer(Answer),
    /// Apply, then answer; all operations or none.
    Change(Change),
    /// Let real sockets try, then answer with [`probed`].
    Probe(Probe),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Beside those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// None: an empty body.
    pub body: Option<Value>,
    /// The real service answers this with 202 and a place to ask again; so does the daemon where that style is switched on.
    pub long_running: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub operations: Vec<Operation>,
    /// 201 for what is new, 200 for what was changed or deleted.
    pub status: u16,
    /// The path whose GET, once all is applied, is the body; None: no body.
    pub show: Option<Vec<String>>,
}

/// Packets between real sockets, which connectivityCheck asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// The sending NIC, by its name in the lab.
    pub source: String,
    /// Name of a NIC or a VM, or an address.
    pub destination: String,
    pub protocol: ProbeProtocol,
    /// 0 for Icmp.
    pub port: u16,
    pub source_port: Option<u16>,
    /// Exchanges to try.
    pub count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeProtocol {
    Tcp,
    Icmp,
}

/// What to do about a request.
///
/// # Errors
/// What ARM would answer in its place.
pub fn plan_request(request: &Request, view: &View<'_>) -> Result<Reply, Error> {
    if let Some(reply) = platform::plan(request, view) {
        return reply;
    }
    resources::plan(request, view)
}

/// The answer to a request that planned a [`Reply::Probe`]. By exchange: how long it took in microseconds; None is no answer.
///
/// # Errors
/// What ARM would answer in its place.
pub fn probed(request: &Request, view: &View<'_>, seen: &[Option<u64>]) -> Result<Answer, Error> {
    resources::probed(request, view, seen)
}

impl Reply {
    /// 200 with a body.
    #[must_use]
    pub fn ok(body: Value) -> Self {
        Self::Answer(Answer {
            status: 200,
            body: Some(body),
            ..Answer::default()
        })
    }

    /// No body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self::Answer(Answer {
            status,
            ..Answer::default()
        })
    }
}

impl Request {
    /// The first value of a query parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut all = self.query.iter();
        all.find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}
