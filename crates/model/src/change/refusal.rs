//! Why an operation was not carried out, as ARM says it (ERR-01).

use std::fmt;

/// An operation that was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// ARM's code where one is confirmed, else `Sim.` and the rule id (ERR-04).
    pub code: &'static str,
    pub message: String,
    /// Path in the lab: `vnets.hub.subnets.nva.addressPrefix`, list entries by index.
    pub target: String,
    /// What to do about it.
    pub help: Option<String>,
    /// What else forbids it.
    pub details: Vec<Refusal>,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, target: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            target: target.into(),
            help: None,
            details: Vec::new(),
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The HTTP status ARM answers with (ERR-01).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.code {
            "AuthorizationFailed" | "LinkedAuthorizationFailed" => 403,
            "ResourceNotFound" | "ParentResourceNotFound" => 404,
            "Conflict" => 409,
            "ReferencedResourceNotProvisioned" => 429,
            _ => 400,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, self.message)?;
        match &self.help {
            Some(help) => write!(out, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}
