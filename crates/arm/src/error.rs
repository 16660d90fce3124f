//! Refusals as ARM writes them: a status, a code, a message, a target, details (ERR-01).

use model::change::Refusal;
use serde_json::{Value, json};

/// An answer that is no success; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub status: u16,
    /// ARM's where one is confirmed, else `Sim.` and the rule id (ERR-04).
    pub code: String,
    pub message: String,
    pub target: Option<String>,
    pub details: Vec<Error>,
}

impl Error {
    #[must_use]
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            target: None,
            details: Vec::new(),
        }
    }

    /// 400.
    #[must_use]
    pub fn bad(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    /// 400 for a body, or a member of it, that cannot be read. `at` is a path such as `properties.addressSpace`.
    #[must_use]
    pub fn body(at: &str, message: impl Into<String>) -> Self {
        let target = (!at.is_empty()).then(|| at.to_owned());
        Self {
            target,
            ..Self::bad("InvalidRequestContent", message)
        }
    }

    /// 404 for a top-level resource; `kind` is such as `Microsoft.Network/virtualNetworks`.
    #[must_use]
    pub fn resource_not_found(kind: &str, name: &str, group: &str) -> Self {
        let message = format!("The Resource '{kind}/{name}' under resource group '{group}' was not found.");
        Self::new(404, "ResourceNotFound", message)
    }

    /// 404 for a child.
    #[must_use]
    pub fn child_not_found(id: &str) -> Self {
        Self::new(404, "NotFound", format!("Resource {id} not found."))
    }

    /// 404.
    #[must_use]
    pub fn group_not_found(group: &str) -> Self {
        Self::new(
            404,
            "ResourceGroupNotFound",
            format!("Resource group '{group}' could not be found."),
        )
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "this resource has no such method")
    }

    /// `{"error": {...}}`.
    #[must_use]
    pub fn to_body(&self) -> Value {
        json!({ "error": self.inner() })
    }

    /// What stands under `error`.
    #[must_use]
    pub fn inner(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.message,
            "target": self.target,
            "details": self.details.iter().map(Self::inner).collect::<Vec<_>>(),
        })
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let status = refusal.status();
        let message = match refusal.help {
            Some(help) => format!("{} ({help})", refusal.message),
            None => refusal.message,
        };
        Self {
            status,
            code: refusal.code.to_owned(),
            message,
            target: (!refusal.target.is_empty()).then_some(refusal.target),
            details: refusal.details.into_iter().map(Self::from).collect(),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows: ERR-01.
    #[test]
    fn a_body_has_the_four_members_of_arm() {
        let inner = Error::bad("SecurityRuleConflict", "twice");
        let error = Error {
            details: vec![inner],
            ..Error::body("properties.x", "wrong")
        };
        let body = error.to_body();
        assert_eq!(body["error"]["code"], "InvalidRequestContent");
        assert_eq!(body["error"]["target"], "properties.x");
        assert_eq!(body["error"]["details"][0]["code"], "SecurityRuleConflict");
        assert_eq!(body["error"]["details"][0]["target"], Value::Null);
    }
}
