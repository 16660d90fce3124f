//! Resources of the network and of VMs: their bodies, and the operations that a request on them means.
//!
//! [`kinds`] has the table of types, [`lab`] what an id means in the lab, [`body`] what every body has. Each type of
//! resource has a file that reads its bodies and writes them.

mod asgs;
mod body;
mod children;
mod connections;
mod diagnostics;
mod gateways;
mod kinds;
mod lab;
mod load_balancers;
mod nics;
mod nsgs;
mod peerings;
mod public_ips;
mod read;
mod route_tables;
mod subnets;
mod vms;
mod vnets;
mod watchers;

use model::change::Operation;
use model::config::StoredResource;
use serde_json::{Value, json};

use crate::id::same;
use crate::{Answer, Change, Error, Id, Method, Reply, Request, View};
use kinds::{By, Kind};
use lab::{Lab, Target};

const WATCHERS_GROUP: &str = "NetworkWatcherRG";

/// What to do about a request on a resource.
///
/// # Errors
/// What ARM would answer in its place.
pub(crate) fn plan(request: &Request, view: &View<'_>) -> Result<Reply, Error> {
    let lab = Lab::new(view);
    let id = Id::of(&request.path).ok_or_else(|| nowhere(request))?;
    let provider = id.provider.as_deref().ok_or_else(|| nowhere(request))?;
    let (name, rest) = id.parts.split_first().ok_or_else(|| nowhere(request))?;
    let kind = kinds::of(provider, &name.0).ok_or_else(|| unknown_type(provider, &name.0))?;
    let Some(own) = &name.1 else {
        return list_answer(&lab, kind, &id, request);
    };
    let group = id.group.as_deref().ok_or_else(|| nowhere(request))?;
    let group = group_name(view, group)?;
    let found = lab.find(kind, &group, own);
    let target = Target {
        kind,
        subscription: &id.subscription,
        exists: found.is_some(),
        key: found.unwrap_or_else(|| new_key(&lab, kind, &group, own)),
        name: own.clone(),
        group,
    };
    match rest {
        [] => top_level(&lab, &target, request),
        [(word, None)] => children::below(&lab, &target, word, request),
        [(child, Some(name))] => children::plan(&lab, &target, child, name, request),
        [(child, Some(name)), (action, None)] if request.method == Method::Post => {
            children::act(&lab, &target, child, name, action)
        }
        _ => Err(nowhere(request)),
    }
}

/// All resources, as lists show them; of one group, or of all.
pub(crate) fn list(view: &View<'_>, group: Option<&str>) -> Vec<Value> {
    let lab = Lab::new(view);
    let mut all = Vec::new();
    for kind in kinds::all() {
        all.extend(bodies(&lab, kind, group, None));
    }
    all
}

/// What takes everything in a group away.
///
/// # Errors
/// Something in another group leans on it.
pub(crate) fn delete_group(view: &View<'_>, group: &str) -> Result<Vec<Operation>, Error> {
    // What leans on others goes first.
    const ORDER: [&str; 10] = [
        kinds::CONNECTIONS,
        kinds::GATEWAYS,
        kinds::SITES,
        kinds::BALANCERS,
        kinds::VMS,
        kinds::NICS,
        kinds::VNETS,
        kinds::ROUTE_TABLES,
        kinds::NSGS,
        kinds::ASGS,
    ];
    let lab = Lab::new(view);
    let mut operations = Vec::new();
    for kind in ORDER.iter().filter_map(|name| kinds::network(name)) {
        let own = kind.keys(&lab).into_iter();
        for key in own.filter(|key| same(&lab.group_of(kind, key), group)) {
            match &kind.carried_out {
                By::Model { .. } if kind.name == kinds::VMS => {
                    operations.extend(vms::delete(&lab, &key, Some(group)))
                }
                By::Model { .. } if kind.name == kinds::NICS => {
                    operations.extend(nics::delete(&lab, &key, Some(group))?)
                }
                By::Model { delete, .. } => operations.extend(delete(&lab, &key)?),
                By::Store { .. } | By::Nobody(_) => {}
            }
        }
    }
    let stored = lab.config.resources.keys();
    let stored = stored.filter(|key| key.split_once('/').is_some_and(|(of, _)| same(of, group)));
    let modelled = |key: &&String| {
        let mut parts = key.split('/').skip(1);
        let kind = kinds::of(parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        kind.is_some_and(Kind::modelled)
    };
    let stored = stored.filter(|key| !modelled(key)).cloned();
    operations.extend(stored.map(|key| Operation::DeleteResource { key }));
    Ok(operations)
}

/// See [`crate::probed`].
///
/// # Errors
/// What ARM would answer in its place.
pub(crate) fn probed(request: &Request, view: &View<'_>, seen: &[Option<u64>]) -> Result<Answer, Error> {
    diagnostics::probed(request, &Lab::new(view), seen)
}

/// The group as it is spelled. Azure makes that of the network watchers by itself.
fn group_name(view: &View<'_>, name: &str) -> Result<String, Error> {
    if same(name, WATCHERS_GROUP) {
        return Ok(WATCHERS_GROUP.to_owned());
    }
    Ok(crate::groups::find(view, name)?.name)
}

fn nowhere(request: &Request) -> Error {
    let path = request.path.join("/");
    Error::new(404, "NotFound", format!("there is nothing at /{path}"))
}

fn unknown_type(provider: &str, kind: &str) -> Error {
    let message = format!(
        "The resource type '{kind}' could not be found in the namespace '{provider}': this program does not have it."
    );
    Error::new(404, "InvalidResourceType", message)
}

/// The plain name, so that commands know the object by it; with its group where another group has one of the name.
fn new_key(lab: &Lab<'_>, kind: &Kind, group: &str, name: &str) -> String {
    if !kind.modelled() {
        return format!("{group}/{}/{}/{name}", kind.provider, kind.name);
    }
    let taken = kind.keys(lab).iter().any(|key| same(key, name));
    if taken {
        format!("{group}/{name}")
    } else {
        name.to_owned()
    }
}

fn list_answer(lab: &Lab<'_>, kind: &'static Kind, id: &Id, request: &Request) -> Result<Reply, Error> {
    if request.method != Method::Get {
        return Err(Error::method_not_allowed());
    }
    let group = id.group.as_deref().map(|group| group_name(&lab.view, group));
    let group = group.transpose()?;
    let value = bodies(lab, kind, group.as_deref(), Some(&id.subscription));
    Ok(Reply::ok(json!({ "value": value })))
}

/// Of one group and one subscription, or of all.
fn bodies(lab: &Lab<'_>, kind: &'static Kind, group: Option<&str>, subscription: Option<&str>) -> Vec<Value> {
    let keys = kind.keys(lab).into_iter();
    let keys = keys.filter(|key| group.is_none_or(|group| same(&lab.group_of(kind, key), group)));
    let within = |body: &Value| {
        let id = body["id"].as_str().unwrap_or_default();
        subscription.is_none_or(|own| id.split('/').nth(2).is_some_and(|it| same(it, own)))
    };
    keys.map(|key| body::of(lab, kind, &key)).filter(within).collect()
}

fn top_level(lab: &Lab<'_>, target: &Target<'_>, request: &Request) -> Result<Reply, Error> {
    let missing = || Error::resource_not_found(&target.kind.full_name(), &target.name, &target.group);
    match request.method {
        Method::Get | Method::Head if !target.exists => Err(missing()),
        Method::Head => Ok(Reply::empty(204)),
        Method::Get => {
            let mut body = body::of(lab, target.kind, &target.key);
            if target.kind.name == kinds::VMS {
                vms::expand(lab, &target.key, request, &mut body);
            }
            Ok(Reply::ok(body))
        }
        Method::Put => put(lab, target, request, &request.body),
        Method::Patch if !target.exists => Err(missing()),
        Method::Patch => patch(lab, target, request),
        Method::Delete if !target.exists => Ok(Reply::empty(204)),
        Method::Delete => {
            let mut operations = match &target.kind.carried_out {
                By::Model { delete, .. } => delete(lab, &target.key)?,
                By::Store { delete, .. } => {
                    delete(lab, &target.key)?;
                    Vec::new()
                }
                By::Nobody(_) => Vec::new(),
            };
            if !target.kind.modelled() && lab.kept(&target.key).is_some() {
                operations.push(Operation::DeleteResource {
                    key: target.key.clone(),
                });
            }
            Ok(Reply::Change(Change {
                operations,
                status: 200,
                show: None,
            }))
        }
        Method::Post => Err(Error::method_not_allowed()),
    }
}

fn put(lab: &Lab<'_>, target: &Target<'_>, request: &Request, body: &Value) -> Result<Reply, Error> {
    if !body.is_object() {
        return Err(Error::body("", "a PUT needs a body, a JSON object"));
    }
    same_location(lab, target, body)?;
    let mut operations = Vec::new();
    match &target.kind.carried_out {
        By::Model { put, .. } => {
            operations.extend(put(lab, target, body)?);
            operations.push(lab.keep(target, body));
        }
        By::Store { put, .. } => {
            let mut body = body.clone();
            put(lab, target, &mut body)?;
            operations.push(lab.keep(target, &body));
        }
        By::Nobody(_) => operations.push(lab.keep(target, body)),
    }
    Ok(change(request, operations, target.exists))
}

/// 201 for what is new; the body is that of the resource afterwards.
fn change(request: &Request, operations: Vec<Operation>, existed: bool) -> Reply {
    Reply::Change(Change {
        operations,
        status: if existed { 200 } else { 201 },
        show: Some(request.path.clone()),
    })
}

/// A resource stays in its region.
fn same_location(lab: &Lab<'_>, target: &Target<'_>, body: &Value) -> Result<(), Error> {
    let old = lab.kept(&target.entry()).and_then(|it| it.location.as_deref());
    let new = body
        .get("location")
        .and_then(Value::as_str)
        .map(lab::canonical_location);
    match (old.filter(|_| target.exists), new) {
        (Some(old), Some(new)) if old != new => {
            let message = format!(
                "The resource '{}' already exists in location '{old}' in resource group '{}'. A resource with the same \
                 name cannot be created in location '{new}'. Please select a new resource name.",
                target.name, target.group
            );
            Err(Error::new(409, "InvalidResourceLocation", message))
        }
        _ => Ok(()),
    }
}

/// Tags are replaced; anything else is merged into the resource, which is then put.
fn patch(lab: &Lab<'_>, target: &Target<'_>, request: &Request) -> Result<Reply, Error> {
    let Some(members) = request.body.as_object() else {
        return Err(Error::body("", "a PATCH needs a body, a JSON object"));
    };
    if members.keys().any(|name| name != "tags" && name != "location") {
        let mut whole = body::of(lab, target.kind, &target.key);
        merge(&mut whole, &request.body);
        return put(lab, target, request, &whole);
    }
    read::Reader::new(&request.body, "")?.object("tags")?;
    let tags = request
        .body
        .get("tags")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let mut resource = lab
        .kept(&target.entry())
        .cloned()
        .unwrap_or_else(|| StoredResource {
            location: Some(body::location(lab, target.kind, &target.key)),
            ..StoredResource::default()
        });
    resource.tags = tags
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    let operation = Operation::PutResource {
        key: target.entry(),
        resource: Box::new(resource),
    };
    Ok(change(request, vec![operation], true))
}

/// JSON merge patch, but null leaves a member as it is (clients send nulls for what they do not mean).
fn merge(whole: &mut Value, patch: &Value) {
    match (whole, patch) {
        (Value::Object(whole), Value::Object(patch)) => {
            for (name, value) in patch.iter().filter(|(_, value)| !value.is_null()) {
                match whole.get_mut(name) {
                    Some(old) if name != "tags" => merge(old, value),
                    _ => drop(whole.insert(name.clone(), value.clone())),
                }
            }
        }
        (whole, patch) => *whole = patch.clone(),
    }
}
