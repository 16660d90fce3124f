//! Network watchers: one per region is there beforehand. Flow logs below them are the lab's own.

use model::change::Operation;
use model::config::{FlowLog, FlowLogFormat, RetentionPolicy, StoredResource};
use serde_json::{Map, Value, json};

use super::body;
use super::kinds::{By, Kind, NETWORK, NSGS, WATCHERS};
use super::lab::{Lab, Target, leftover};
use super::read::Reader;
use super::{change, kinds};
use crate::id::same;
use crate::{Change, Error, Method, Reply, Request};

/// Where the service puts the watchers it makes by itself.
pub(crate) const GROUP: &str = "NetworkWatcherRG";

const FLOW_LOGS: &str = "flowLogs";
const CAPTURES: &str = "packetCaptures";

pub(super) const KIND: Kind = Kind {
    provider: NETWORK,
    name: WATCHERS,
    owned: &["runningOperationIds"],
    children: &[],
    carried_out: By::Store {
        show: |_, _| Map::new(),
        put: |_, _, _| Ok(()),
        delete: |_, _| Ok(()),
    },
};

/// The watchers that are there without anybody's doing: of each region in use that has no other.
pub(super) fn of_regions(lab: &Lab<'_>, stored: &[String]) -> Vec<String> {
    let vnets = lab.topology.vnets.iter().map(|vnet| vnet.location.clone());
    let groups = lab.config.resources.values().filter_map(|it| it.location.clone());
    let own = lab
        .config
        .location
        .clone()
        .unwrap_or_else(|| body::DEFAULT_LOCATION.to_owned());
    let mut regions: Vec<String> = vnets.chain(groups).chain([own]).collect();
    regions.sort();
    regions.dedup();
    let has = |region: &String| {
        stored.iter().any(|key| {
            lab.kept(key)
                .is_some_and(|it| it.location.as_ref() == Some(region))
        })
    };
    let missing = regions.iter().filter(|region| !has(region));
    missing
        .map(|region| format!("{GROUP}/{NETWORK}/{WATCHERS}/NetworkWatcher_{region}"))
        .collect()
}

/// The region in the name of one that is there by itself.
pub(super) fn region(key: &str) -> Option<&str> {
    key.strip_prefix(GROUP)?
        .rsplit_once("/NetworkWatcher_")
        .map(|(_, region)| region)
}

pub(super) fn is_child(word: &str) -> bool {
    [FLOW_LOGS, CAPTURES, "connectionMonitors"]
        .iter()
        .any(|kind| same(kind, word))
}

pub(super) fn list(lab: &Lab<'_>, target: &Target<'_>, word: &str) -> Result<Reply, Error> {
    let id = lab.id(&KIND, &target.key);
    let value: Vec<Value> = if same(word, FLOW_LOGS) {
        lab.config
            .flow_logs
            .keys()
            .filter_map(|name| flow_log(lab, &id, name))
            .collect()
    } else if same(word, CAPTURES) {
        let prefix = format!("{}/{CAPTURES}/", target.key).to_lowercase();
        let own = lab
            .config
            .resources
            .keys()
            .filter(|key| key.to_lowercase().starts_with(&prefix));
        own.map(|key| capture(lab, &id, key)).collect()
    } else {
        Vec::new()
    };
    Ok(Reply::ok(json!({ "value": value })))
}

pub(super) fn plan(
    lab: &Lab<'_>,
    target: &Target<'_>,
    word: &str,
    name: &str,
    request: &Request,
) -> Result<Reply, Error> {
    let id = lab.id(&KIND, &target.key);
    let missing = || Error::child_not_found(&format!("{id}/{word}/{name}"));
    let delete = |operation| {
        Ok(Reply::Change(Change {
            operations: vec![operation],
            status: 200,
            show: None,
        }))
    };
    if same(word, FLOW_LOGS) {
        let present = lab.config.flow_logs.keys().find(|key| same(key, name));
        return match (request.method, present) {
            (Method::Get, Some(key)) => flow_log(lab, &id, key).map(Reply::ok).ok_or_else(missing),
            (Method::Get, None) => Err(missing()),
            (Method::Put, _) => {
                let log = read_flow_log(lab, &request.body)?;
                let name = present.cloned().unwrap_or_else(|| name.to_owned());
                let log = Box::new(log);
                Ok(change(
                    request,
                    vec![Operation::PutFlowLog { name, log }],
                    present.is_some(),
                ))
            }
            (Method::Delete, Some(key)) => delete(Operation::DeleteFlowLog { name: key.clone() }),
            (Method::Delete, None) => Ok(Reply::empty(204)),
            _ => Err(Error::method_not_allowed()),
        };
    }
    if !same(word, CAPTURES) {
        return Err(Error::new(
            404,
            "InvalidResourceType",
            format!("{word} are not carried out here"),
        ));
    }
    let key = format!("{}/{CAPTURES}/{name}", target.key);
    let present = lab.kept(&key).is_some();
    match request.method {
        Method::Get if present => Ok(Reply::ok(capture(lab, &id, &key))),
        Method::Get => Err(missing()),
        Method::Put => {
            let resource = StoredResource {
                properties: leftover(&request.body, &[]),
                ..StoredResource::default()
            };
            let resource = Box::new(resource);
            Ok(change(
                request,
                vec![Operation::PutResource { key, resource }],
                present,
            ))
        }
        Method::Delete if present => delete(Operation::DeleteResource { key }),
        Method::Delete => Ok(Reply::empty(204)),
        _ => Err(Error::method_not_allowed()),
    }
}

/// stop and queryStatus of a packet capture.
pub(super) fn act(
    lab: &Lab<'_>,
    target: &Target<'_>,
    child: &str,
    name: &str,
    action: &str,
) -> Result<Reply, Error> {
    let key = format!("{}/{CAPTURES}/{name}", target.key);
    if !same(child, CAPTURES) || lab.kept(&key).is_none() {
        let id = lab.id(&KIND, &target.key);
        return Err(Error::child_not_found(&format!("{id}/{child}/{name}")));
    }
    if same(action, "stop") {
        return Ok(Reply::empty(200));
    }
    let id = format!("{}/{CAPTURES}/{name}", lab.id(&KIND, &target.key));
    Ok(Reply::ok(json!({
        "name": name,
        "id": id,
        "packetCaptureStatus": "NotStarted",
        "packetCaptureError": [],
        "stopReason": "kept, and does nothing: use `peerlane capture`",
    })))
}

fn capture(lab: &Lab<'_>, watcher: &str, key: &str) -> Value {
    let name = super::lab::name_of(key);
    let mut shown = body::child(watcher, CAPTURES, name, lab.kept_properties(key));
    shown["peerlane"] = body::note("use `peerlane capture`");
    shown
}

/// The flow log of an NSG; of VNets, subnets and NICs there is none here.
fn read_flow_log(lab: &Lab<'_>, body: &Value) -> Result<FlowLog, Error> {
    let given = Reader::new(body, "")?.object("properties")?;
    let at = given.at("targetResourceId");
    let target = given
        .text("targetResourceId")?
        .ok_or_else(|| Error::body(&at, format!("{at} is missing")))?;
    let format = given.object("format")?;
    let retention = given.object("retentionPolicy")?;
    let version = format
        .number("version")?
        .map(|version| FlowLogFormat { kind: None, version });
    let days = retention.number("days")?.map(|days| RetentionPolicy {
        enabled: retention.flag("enabled").ok().flatten(),
        days,
    });
    Ok(FlowLog {
        network_security_group: lab.resolve(&json!({ "id": target }), NSGS, &at)?,
        enabled: given.flag("enabled")?,
        format: version,
        storage: None,
        retention_policy: days,
    })
}

fn flow_log(lab: &Lab<'_>, watcher: &str, name: &str) -> Option<Value> {
    let log = lab.config.flow_logs.get(name)?;
    let kind = kinds::network(NSGS)?;
    let retention = log.retention_policy.as_ref();
    let properties = json!({
        "targetResourceId": lab.id(kind, &log.network_security_group),
        "targetResourceGuid": body::guid(&lab.id(kind, &log.network_security_group)),
        "storageId": log.storage,
        "enabled": log.enabled.unwrap_or(true),
        "retentionPolicy": {
            "days": retention.map_or(0, |it| it.days),
            "enabled": retention.is_some_and(|it| it.enabled.unwrap_or(true)),
        },
        "format": { "type": "JSON", "version": log.format.as_ref().map_or(2, |it| it.version) },
    });
    Some(body::child(
        watcher,
        FLOW_LOGS,
        name,
        properties.as_object()?.clone(),
    ))
}
