//! Resources of the network and of VMs: their bodies, and the operations that a request on them means.

use serde_json::Value;

use crate::{Answer, Error, Reply, Request, View};

/// What to do about a request on a resource.
///
/// # Errors
/// What ARM would answer in its place.
pub(crate) fn plan(request: &Request, _view: &View<'_>) -> Result<Reply, Error> {
    let path = request.path.join("/");
    Err(Error::new(
        404,
        "NotFound",
        format!("there is nothing at /{path}"),
    ))
}

/// All resources, as lists show them; of one group, or of all.
pub(crate) fn list(_view: &View<'_>, _group: Option<&str>) -> Vec<Value> {
    Vec::new()
}

/// See [`crate::probed`].
///
/// # Errors
/// What ARM would answer in its place.
pub(crate) fn probed(request: &Request, _view: &View<'_>, _seen: &[Option<u64>]) -> Result<Answer, Error> {
    let path = request.path.join("/");
    Err(Error::new(
        404,
        "NotFound",
        format!("there is nothing at /{path}"),
    ))
}
