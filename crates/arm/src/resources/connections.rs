//! Connections of gateways: to a site, to another gateway, or to a circuit. Nothing is encrypted, and no key is kept.

use model::change::Operation;
use model::config::{Connection, ConnectionType, TrafficSelector};
use serde_json::{Map, Value, json};

use super::body::set;
use super::kinds::{By, CONNECTIONS, GATEWAYS, Kind, NETWORK, SITES};
use super::lab::{Lab, Target};
use super::read::Reader;
use crate::{Error, Method, Reply, Request};

pub(super) const KIND: Kind = Kind {
    provider: NETWORK,
    name: CONNECTIONS,
    owned: &[
        "virtualNetworkGateway1",
        "virtualNetworkGateway2",
        "localNetworkGateway2",
        "connectionType",
        "enableBgp",
        "usePolicyBasedTrafficSelectors",
        "trafficSelectorPolicies",
        "connectionStatus",
        // A secret that nothing here uses.
        "sharedKey",
        "authorizationKey",
    ],
    children: &[],
    carried_out: By::Model {
        keys: |lab| lab.config.connections.keys().cloned().collect(),
        show,
        put,
        delete: |_, key| Ok(vec![Operation::DeleteConnection { name: key.to_owned() }]),
    },
};

/// There is none: nothing is encrypted.
pub(super) fn shared_key(lab: &Lab<'_>, target: &Target<'_>, request: &Request) -> Result<Reply, Error> {
    match request.method {
        Method::Get | Method::Put => {
            let id = format!("{}/sharedKey", lab.id(&KIND, &target.key));
            Ok(Reply::ok(json!({ "id": id, "value": "" })))
        }
        _ => Err(Error::method_not_allowed()),
    }
}

fn put(lab: &Lab<'_>, target: &Target<'_>, body: &Value) -> Result<Vec<Operation>, Error> {
    let given = Reader::new(body, "")?.object("properties")?;
    let old = lab.config.connections.get(&target.key);
    let reference = |name: &str, kind: &str| {
        let id = given
            .get(name)
            .filter(|it| it.get("id").is_some_and(|id| !id.is_null()));
        id.map(|id| lab.resolve(id, kind, &given.at(name))).transpose()
    };
    let gateway = reference("virtualNetworkGateway1", GATEWAYS)?;
    let gateway = gateway.or_else(|| old.map(|old| old.gateway.clone()));
    let at = given.at("virtualNetworkGateway1");
    let mut selectors = Vec::new();
    for policy in given.list("trafficSelectorPolicies")?.unwrap_or_default() {
        let policy = Reader::new(policy, &given.at("trafficSelectorPolicies"))?;
        selectors.push(TrafficSelector {
            local_address_ranges: policy.prefixes("localAddressRanges")?,
            remote_address_ranges: policy.prefixes("remoteAddressRanges")?,
        });
    }
    let circuit = given
        .object("peer")?
        .text("id")?
        .and_then(|id| id.rsplit('/').next());
    let connection = Connection {
        gateway: gateway.ok_or_else(|| Error::body(&at, format!("{at} is missing")))?,
        site: reference("localNetworkGateway2", SITES)?.or_else(|| old.and_then(|old| old.site.clone())),
        remote_gateway: reference("virtualNetworkGateway2", GATEWAYS)?
            .or_else(|| old.and_then(|old| old.remote_gateway.clone())),
        circuit: circuit
            .map(str::to_owned)
            .or_else(|| old.and_then(|old| old.circuit.clone())),
        connection_type: given.word("connectionType", ConnectionType::of, ConnectionType::WORDS)?,
        enable_bgp: given.flag("enableBgp")?,
        use_policy_based_traffic_selectors: given
            .flag("usePolicyBasedTrafficSelectors")?
            .filter(|uses| *uses),
        traffic_selector_policies: selectors,
    };
    Ok(vec![Operation::PutConnection {
        name: target.key.clone(),
        connection: Box::new(connection),
    }])
}

fn show(lab: &Lab<'_>, key: &str) -> Map<String, Value> {
    let Some(connection) = lab.config.connections.get(key) else {
        return Map::new();
    };
    let mut properties = Map::new();
    let gateway = lab.reference(GATEWAYS, &connection.gateway);
    properties.insert("virtualNetworkGateway1".to_owned(), gateway);
    let site = connection.site.as_ref().map(|site| lab.reference(SITES, site));
    set(&mut properties, "localNetworkGateway2", site);
    let remote = connection
        .remote_gateway
        .as_ref()
        .map(|gateway| lab.reference(GATEWAYS, gateway));
    set(&mut properties, "virtualNetworkGateway2", remote);
    let kind = connection.connection_type.unwrap_or_default().word();
    let selectors: Vec<Value> = (connection.traffic_selector_policies.iter())
        .map(|it| json!(it))
        .collect();
    for (name, value) in [
        ("connectionType", json!(kind)),
        ("enableBgp", json!(connection.enable_bgp.unwrap_or(false))),
        (
            "usePolicyBasedTrafficSelectors",
            json!(connection.use_policy_based_traffic_selectors.unwrap_or(false)),
        ),
        ("trafficSelectorPolicies", Value::Array(selectors)),
        ("connectionStatus", json!("Connected")),
    ] {
        properties.insert(name.to_owned(), value);
    }
    properties
}
