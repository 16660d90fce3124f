//! What is no resource: subscriptions, tenants, locations, providers, resource groups, lists over all resources.

use crate::{Error, Reply, Request, View};

/// None: the request is about a resource.
pub(crate) fn plan(_request: &Request, _view: &View<'_>) -> Option<Result<Reply, Error>> {
    None
}
