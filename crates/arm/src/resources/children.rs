//! Requests below a top-level resource: its children, lists of them, and actions.

use serde_json::{Map, Value, json};

use super::kinds::{self, By};
use super::lab::{Lab, Target};
use super::{
    body, change, connections, diagnostics, nsgs, peerings, route_tables, subnets, vms, vnets, watchers,
};
use crate::id::same;
use crate::{Error, Method, Reply, Request};

/// A word below a resource: the list of its children of a type, or an action.
pub(super) fn below(
    lab: &Lab<'_>,
    target: &Target<'_>,
    word: &str,
    request: &Request,
) -> Result<Reply, Error> {
    if !target.exists {
        let (kind, name, group) = (target.kind.full_name(), &target.name, &target.group);
        return Err(Error::resource_not_found(&kind, name, group));
    }
    match (target.kind.name, request.method) {
        (kinds::VNETS, Method::Get) if same(word, "CheckIPAddressAvailability") => {
            vnets::available(lab, &target.key, request)
        }
        (kinds::CONNECTIONS, _) if same(word, "sharedkey") => connections::shared_key(lab, target, request),
        (kinds::NICS, Method::Post) => diagnostics::of_nic(lab, &target.key, word),
        (kinds::WATCHERS, Method::Post) => diagnostics::of_watcher(lab, target, word, request),
        (kinds::VMS, Method::Post) => vms::act(lab, &target.key, word),
        (kinds::VMS, Method::Get) if same(word, "instanceView") => {
            Ok(Reply::ok(vms::instance_view(lab, &target.key)))
        }
        (kinds::WATCHERS, Method::Get) if watchers::is_child(word) => watchers::list(lab, target, word),
        (_, Method::Get) => {
            let (_, children) = children(lab, target, word)?;
            Ok(Reply::ok(json!({ "value": children })))
        }
        _ => Err(Error::method_not_allowed()),
    }
}

/// A child by name.
pub(super) fn plan(
    lab: &Lab<'_>,
    target: &Target<'_>,
    word: &str,
    name: &str,
    request: &Request,
) -> Result<Reply, Error> {
    if target.kind.name == kinds::WATCHERS && watchers::is_child(word) {
        return watchers::plan(lab, target, word, name, request);
    }
    if !target.exists {
        let message = format!(
            "Can not perform requested operation on nested resource. Parent resource '{}' not found.",
            target.name
        );
        return Err(Error::new(404, "ParentResourceNotFound", message));
    }
    let (kind, children) = children(lab, target, word)?;
    let found = children
        .iter()
        .find(|child| child["name"].as_str().is_some_and(|it| same(it, name)));
    let missing = || Error::child_not_found(&format!("{}/{kind}/{name}", lab.id(target.kind, &target.key)));
    match request.method {
        Method::Get => found.cloned().map(Reply::ok).ok_or_else(missing),
        Method::Head => found.map(|_| Reply::empty(204)).ok_or_else(missing),
        Method::Put => {
            if !request.body.is_object() {
                return Err(Error::body("", "a PUT needs a body, a JSON object"));
            }
            let operations = match (target.kind.name, kind) {
                (kinds::VNETS, "subnets") => subnets::put(lab, target, name, &request.body)?,
                (kinds::VNETS, "virtualNetworkPeerings") => peerings::put(lab, target, name, request)?,
                (kinds::ROUTE_TABLES, "routes") => route_tables::put_route(target, name, &request.body)?,
                (kinds::NSGS, "securityRules") => nsgs::put_rule(lab, target, name, &request.body)?,
                (_, "defaultSecurityRules" | "ipConfigurations") => return Err(Error::method_not_allowed()),
                _ => return put_in_parent(lab, target, (kind, name), request, found.is_some()),
            };
            Ok(change(request, operations, found.is_some()))
        }
        Method::Delete if found.is_none() => Ok(Reply::empty(204)),
        Method::Delete => {
            let operation = match (target.kind.name, kind) {
                (kinds::VNETS, "subnets") => subnets::delete(target, name),
                (kinds::VNETS, "virtualNetworkPeerings") => peerings::delete(target, name),
                (kinds::ROUTE_TABLES, "routes") => route_tables::delete_route(target, name),
                (kinds::NSGS, "securityRules") => nsgs::delete_rule(target, name),
                (_, "defaultSecurityRules" | "ipConfigurations") => return Err(Error::method_not_allowed()),
                _ => return put_in_parent(lab, target, (kind, name), request, true),
            };
            Ok(Reply::Change(crate::Change {
                operations: vec![operation],
                status: 200,
                show: None,
            }))
        }
        Method::Patch | Method::Post => Err(Error::method_not_allowed()),
    }
}

/// An action on a child.
pub(super) fn act(
    lab: &Lab<'_>,
    target: &Target<'_>,
    child: &str,
    name: &str,
    action: &str,
) -> Result<Reply, Error> {
    if target.kind.name == kinds::WATCHERS {
        return watchers::act(lab, target, child, name, action);
    }
    Err(Error::method_not_allowed())
}

/// The children of a type as the parent's body has them, and the canonical spelling of the type.
fn children(lab: &Lab<'_>, target: &Target<'_>, word: &str) -> Result<(&'static str, Vec<Value>), Error> {
    let kinds = target.kind.children;
    let Some(kind) = kinds.iter().find(|kind| same(kind, word)) else {
        let message = format!(
            "The resource type '{word}' could not be found below {}: this program does not have it.",
            target.kind.full_name()
        );
        return Err(Error::new(404, "InvalidResourceType", message));
    };
    let body = body::of(lab, target.kind, &target.key);
    let children = body["properties"].get(*kind).and_then(Value::as_array);
    Ok((kind, children.cloned().unwrap_or_default()))
}

/// The parent with the child put into it, or taken off.
fn put_in_parent(
    lab: &Lab<'_>,
    target: &Target<'_>,
    (kind, name): (&str, &str),
    request: &Request,
    existed: bool,
) -> Result<Reply, Error> {
    let By::Model { put, .. } = &target.kind.carried_out else {
        return Err(Error::method_not_allowed());
    };
    let mut whole = body::of(lab, target.kind, &target.key);
    let empty = || Value::Array(Vec::new());
    let list = whole["properties"]
        .as_object_mut()
        .map(|it| it.entry(kind.to_owned()).or_insert_with(empty));
    if let Some(Value::Array(items)) = list {
        items.retain(|item| !item["name"].as_str().is_some_and(|it| same(it, name)));
        if request.method == Method::Put {
            let mut child = request.body.as_object().cloned().unwrap_or_else(Map::new);
            child.insert("name".to_owned(), json!(name));
            items.push(Value::Object(child));
        }
    }
    let mut operations = put(lab, target, &whole)?;
    operations.push(lab.keep(target, &whole));
    if request.method == Method::Delete {
        return Ok(Reply::Change(crate::Change {
            operations,
            status: 200,
            show: None,
        }));
    }
    Ok(change(request, operations, existed))
}
