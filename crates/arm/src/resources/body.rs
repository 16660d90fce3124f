//! What every body has: id, name, type, location, tags, etag, provisioning state, and what was kept of the client's own.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::kinds::{By, Kind, VNETS, WATCHERS};
use super::lab::{Lab, name_of};

/// Of VNets that say no other (contract, section 1).
pub(super) const DEFAULT_LOCATION: &str = "westus2";

/// The whole body of a top-level resource.
pub(super) fn of(lab: &Lab<'_>, kind: &Kind, key: &str) -> Value {
    let entry = lab.entry_key(kind, key);
    let id = lab.id(kind, key);
    let mut kept = lab.kept_members(&entry);
    let kept_properties = kept.remove("properties");
    let mut properties = Map::new();
    properties.insert("provisioningState".to_owned(), json!("Succeeded"));
    properties.insert("resourceGuid".to_owned(), json!(guid(&id)));
    if let Some(Value::Object(own)) = kept_properties {
        properties.extend(own);
    }
    properties.extend(kind.show(lab, key));
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(name_of(key)));
    body.insert("id".to_owned(), json!(id));
    body.insert("type".to_owned(), json!(kind.full_name()));
    body.insert("location".to_owned(), json!(location(lab, kind, key)));
    if let Some(tags) = lab
        .kept(&entry)
        .map(|it| &it.tags)
        .filter(|tags| !tags.is_empty())
    {
        body.insert("tags".to_owned(), json!(tags));
    }
    body.extend(kept);
    if let By::Nobody(instead) = kind.carried_out {
        body.insert("peerlane".to_owned(), note(instead));
    }
    body.insert("properties".to_owned(), Value::Object(properties));
    let mut body = Value::Object(body);
    let tag = format!("W/\"{}\"", guid(&ordered(&body).to_string()));
    mark(&mut body, &tag);
    if let Some(Value::Object(properties)) = body.get_mut("properties") {
        for child in kind.children {
            for child in properties
                .get_mut(*child)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                mark(child, &tag);
            }
        }
    }
    body
}

/// Says that a resource does nothing.
pub(super) fn note(instead: &str) -> Value {
    json!({ "note": format!("kept, and does nothing: {instead}") })
}

/// A child, as it stands in its parent and at its own path.
pub(super) fn child(parent: &str, kind: &str, name: &str, mut properties: Map<String, Value>) -> Value {
    properties
        .entry("provisioningState")
        .or_insert_with(|| json!("Succeeded"));
    let (_, provider) = parent.split_once("/providers/").unwrap_or(("", parent));
    let types: Vec<&str> = provider
        .split('/')
        .enumerate()
        .filter(|(at, _)| *at == 0 || at % 2 == 1)
        .map(|(_, it)| it)
        .collect();
    json!({
        "name": name,
        "id": format!("{parent}/{kind}/{name}"),
        "type": format!("{}/{kind}", types.join("/")),
        "properties": properties,
    })
}

pub(super) fn location(lab: &Lab<'_>, kind: &Kind, key: &str) -> String {
    if kind.name == VNETS
        && let Some(vnet) = lab.vnet(key)
    {
        return lab.topology.vnets[vnet.0].location.clone();
    }
    if kind.name == WATCHERS
        && let Some(region) = super::watchers::region(key)
    {
        return region.to_owned();
    }
    let kept = lab.kept(&lab.entry_key(kind, key));
    let own = kept.and_then(|it| it.location.clone());
    let lab = lab.config.location.clone();
    own.or(lab).unwrap_or_else(|| DEFAULT_LOCATION.to_owned())
}

/// The same name, the same GUID.
pub(super) fn guid(name: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.to_lowercase().as_bytes()).to_string()
}

/// A member that stands where ARM has it, or nothing.
pub(super) fn set(properties: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    match value {
        Some(value) => drop(properties.insert(name.to_owned(), value.into())),
        None => drop(properties.remove(name)),
    }
}

/// `addressSpace` and its like.
pub(super) fn address_space(prefixes: &[String]) -> Value {
    json!({ "addressPrefixes": prefixes, "ipamPoolPrefixAllocations": [] })
}

/// Members by name: their order says nothing, and a tag must not change with it.
fn ordered(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<&String, Value> =
                members.iter().map(|(name, it)| (name, ordered(it))).collect();
            json!(sorted)
        }
        Value::Array(items) => items.iter().map(ordered).collect(),
        other => other.clone(),
    }
}

fn mark(resource: &mut Value, tag: &str) {
    if let Value::Object(members) = resource {
        members.insert("etag".to_owned(), json!(tag));
    }
}
