//! Addresses, links, routes, rules and sysctls of a namespace, by netlink and /proc.

use crate::error::{Error, Result};
use crate::spec::NamespaceSpec;

/// Makes the namespace of the calling thread what `spec` says: run it inside by `Namespace::run`, once its
/// interfaces exist. May be repeated.
///
/// # Errors
/// The request the kernel refused.
pub fn configure(spec: &NamespaceSpec) -> Result<()> {
    Err(Error::Spec(format!("not built yet: {}", spec.name)))
}

/// Takes back what [`configure`] did and the end of its interfaces does not: rules in a namespace that is not ours.
///
/// # Errors
/// The request the kernel refused.
pub fn unconfigure(spec: &NamespaceSpec) -> Result<()> {
    Err(Error::Spec(format!("not built yet: {}", spec.name)))
}
