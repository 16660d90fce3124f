//! What happens to a packet and to its reply, hop by hop, told by the engine's own steps on the compiled tables.

use model::Topology;
use model::topology::{Endpoint, TestProtocol};

use crate::compile::Compiled;
use crate::present::Explanation;

/// Source port when none is asked for.
pub const DEFAULT_SOURCE_PORT: u16 = 50000;

/// A first packet to explain.
#[derive(Clone, Debug)]
pub struct Query {
    pub source: Endpoint,
    pub destination: Endpoint,
    pub protocol: TestProtocol,
    /// [`DEFAULT_SOURCE_PORT`] unless asked for; the echo identifier of Icmp.
    pub source_port: u16,
    /// Ignored for Icmp.
    pub port: u16,
}

/// Why a query has no answer. The text is for people and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError(pub String);

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for QueryError {}

/// Follows the packet and its reply.
///
/// # Errors
/// The endpoints share no address family, the source is an address that nobody or that several have, or the lab has
/// no Internet that could send.
pub fn explain(
    _topology: &Topology,
    _compiled: &Compiled,
    _query: &Query,
) -> Result<Explanation, QueryError> {
    Err(QueryError("not yet".to_owned()))
}
