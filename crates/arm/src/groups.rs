//! Resource groups: declared by an entry of `resources:` whose key is the group's name, the lab's own, or implied by what is in them.

use indexmap::IndexMap;
use model::change::Operation;
use model::config::StoredResource;
use serde_json::{Value, json};

use crate::id::same;
use crate::platform::read;
use crate::resources;
use crate::{Change, Error, Method, Reply, Request, View};

/// Azure's bound.
const LONGEST_NAME: usize = 90;
/// Where a lab is that says nothing.
const LOCATION: &str = "westus2";

/// A resource group that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// In its own spelling.
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) tags: IndexMap<String, String>,
}

/// A request on one group.
pub(crate) fn plan(
    request: &Request,
    view: &View<'_>,
    subscription: &str,
    name: &str,
) -> Result<Reply, Error> {
    match request.method {
        // `az group exists` looks at the status alone.
        Method::Head => Ok(Reply::empty(if find(view, name).is_ok() { 204 } else { 404 })),
        Method::Put => put(request, view, name),
        Method::Patch => patch(request, view, name),
        Method::Delete => delete(view, name),
        Method::Get | Method::Post => read(request, || Ok(body(&find(view, name)?, subscription))),
    }
}

/// # Errors
/// `ResourceGroupNotFound`.
pub(crate) fn find(view: &View<'_>, name: &str) -> Result<Group, Error> {
    let mut all = every(view).into_iter();
    all.find(|group| same(&group.name, name))
        .ok_or_else(|| Error::group_not_found(name))
}

/// All groups as lists show them.
pub(crate) fn all(view: &View<'_>, subscription: &str) -> Vec<Value> {
    every(view)
        .iter()
        .map(|group| body(group, subscription))
        .collect()
}

fn put(request: &Request, view: &View<'_>, name: &str) -> Result<Reply, Error> {
    check_name(name)?;
    let before = find(view, name).ok();
    let location = match (request.body["location"].as_str(), &before) {
        (Some(location), _) => canonical(location),
        (None, Some(before)) => before.location.clone(),
        (None, None) => {
            let message = "The location property is required for this definition.";
            return Err(Error::bad("LocationRequired", message));
        }
    };
    if let Some(before) = &before
        && !same(&before.location, &location)
    {
        let message = format!(
            "Invalid resource group location '{location}'. The Resource group already exists in location '{}'.",
            before.location
        );
        return Err(Error::new(409, "InvalidResourceGroupLocation", message));
    }
    let tags = match tags(&request.body)? {
        Some(tags) => tags,
        None => before
            .as_ref()
            .map(|before| before.tags.clone())
            .unwrap_or_default(),
    };
    let status = if before.is_some() { 200 } else { 201 };
    let name = before.map_or_else(|| name.to_owned(), |before| before.name);
    Ok(store(request, name, location, tags, status))
}

fn patch(request: &Request, view: &View<'_>, name: &str) -> Result<Reply, Error> {
    let before = find(view, name)?;
    let tags = tags(&request.body)?.unwrap_or(before.tags);
    Ok(store(request, before.name, before.location, tags, 200))
}

fn store(
    request: &Request,
    key: String,
    location: String,
    tags: IndexMap<String, String>,
    status: u16,
) -> Reply {
    let resource = StoredResource {
        location: Some(location),
        tags,
        properties: None,
    };
    Reply::Change(Change {
        operations: vec![Operation::PutResource {
            key,
            resource: Box::new(resource),
        }],
        status,
        show: Some(request.path.clone()),
    })
}

/// With all that is in it: what refers to others goes first.
fn delete(view: &View<'_>, name: &str) -> Result<Reply, Error> {
    let group = find(view, name)?;
    let mut operations = resources::delete_group(view, &group.name)?;
    let declared = view.config.resources.keys().find(|key| same(key, &group.name));
    operations.extend(declared.map(|key| Operation::DeleteResource { key: key.clone() }));
    if operations.is_empty() {
        // The lab's own group, and nothing in it.
        return Ok(Reply::empty(200));
    }
    Ok(Reply::Change(Change {
        operations,
        status: 200,
        show: None,
    }))
}

/// The lab's own, then those that were declared, then those that something is in.
fn every(view: &View<'_>) -> Vec<Group> {
    let config = view.config;
    let lab = config.resource_group.as_ref().unwrap_or(&config.name);
    let said = config
        .resources
        .keys()
        .map(|key| key.split('/').next().unwrap_or(key));
    let keys = config
        .vnets
        .keys()
        .chain(config.vms.keys())
        .chain(config.route_tables.keys());
    let keys = keys
        .chain(config.network_security_groups.keys())
        .chain(config.network_interfaces.keys());
    let of_keys = keys.filter_map(|key| Some(key.split_once('/')?.0));
    let mut groups: Vec<Group> = Vec::new();
    for name in std::iter::once(lab.as_str()).chain(said).chain(of_keys) {
        if groups.iter().any(|group| same(&group.name, name)) {
            continue;
        }
        let mut stored = config.resources.iter();
        let stored = stored.find(|(key, _)| same(key, name));
        let location = stored.and_then(|(_, it)| it.location.clone());
        groups.push(Group {
            name: stored.map_or(name, |(key, _)| key).to_owned(),
            location: location
                .or_else(|| config.location.clone())
                .unwrap_or_else(|| LOCATION.to_owned()),
            tags: stored.map(|(_, it)| it.tags.clone()).unwrap_or_default(),
        });
    }
    groups
}

fn body(group: &Group, subscription: &str) -> Value {
    let name = &group.name;
    json!({
        "id": format!("/subscriptions/{subscription}/resourceGroups/{name}"),
        "name": name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "tags": group.tags,
        "properties": { "provisioningState": "Succeeded" },
    })
}

/// `West US 2` and `westus2` are one.
fn canonical(location: &str) -> String {
    location
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect::<String>()
        .to_lowercase()
}

/// None: the body has none, and those there are stay.
fn tags(body: &Value) -> Result<Option<IndexMap<String, String>>, Error> {
    let tags = match &body["tags"] {
        Value::Null => return Ok(None),
        Value::Object(tags) => tags,
        _ => return Err(Error::body("tags", "tags are an object of texts")),
    };
    let read = |(name, value): (&String, &Value)| match value {
        Value::String(value) => Ok((name.clone(), value.clone())),
        Value::Null => Ok((name.clone(), String::new())),
        _ => Err(Error::body(
            "tags",
            format!("the value of the tag {name:.100} is no text"),
        )),
    };
    tags.iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn check_name(name: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '(' | ')');
    if name.is_empty()
        || name.chars().count() > LONGEST_NAME
        || name.ends_with('.')
        || !name.chars().all(fine)
    {
        let message = format!(
            "The provided resource group name '{name:.100}' has these invalid characters or is too long. The name can only \
             be a letter, digit, '-', '.', '(', ')' or '_', may not end with '.', and has at most {LONGEST_NAME} characters."
        );
        return Err(Error::bad("InvalidResourceGroup", message));
    }
    Ok(())
}
