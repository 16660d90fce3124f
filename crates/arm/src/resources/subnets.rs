//! Subnets of a virtual network.

use indexmap::IndexMap;
use model::change::Operation;
use model::config::{StoredResource, Subnet};
use model::topology::SubnetIndex;
use serde_json::{Map, Value, json};

use super::body;
use super::kinds::{self, NICS, NSGS, ROUTE_TABLES};
use super::lab::{Lab, Target, leftover};
use super::read::Reader;
use crate::Error;

const OWNED: &[&str] = &[
    "addressPrefix",
    "addressPrefixes",
    "networkSecurityGroup",
    "routeTable",
    "serviceEndpoints",
    "ipConfigurations",
];

/// What clients send and every subnet is anyway.
const USUAL: [(&str, &str); 2] = [
    ("privateEndpointNetworkPolicies", "Disabled"),
    ("privateLinkServiceNetworkPolicies", "Enabled"),
];

pub(super) fn put(
    lab: &Lab<'_>,
    target: &Target<'_>,
    name: &str,
    body: &Value,
) -> Result<Vec<Operation>, Error> {
    let properties = Reader::new(body, "")?.object("properties")?;
    let mut operations = vec![Operation::PutSubnet {
        vnet: target.key.clone(),
        name: name.to_owned(),
        subnet: Box::new(read(lab, &properties)?),
    }];
    operations.extend(keep(lab, target, name, body));
    Ok(operations)
}

pub(super) fn delete(target: &Target<'_>, name: &str) -> Operation {
    Operation::DeleteSubnet {
        vnet: target.key.clone(),
        name: name.to_owned(),
    }
}

pub(super) fn read(lab: &Lab<'_>, given: &Reader<'_>) -> Result<Subnet, Error> {
    let reference = |name: &str, kind: &str| {
        let id = given
            .get(name)
            .filter(|it| it.get("id").is_some_and(|id| !id.is_null()));
        id.map(|id| lab.resolve(id, kind, &given.at(name))).transpose()
    };
    let mut subnet = Subnet {
        address_prefix: given.prefix("addressPrefix")?,
        address_prefixes: given.prefixes("addressPrefixes")?,
        network_security_group: reference("networkSecurityGroup", NSGS)?,
        route_table: reference("routeTable", ROUTE_TABLES)?,
        service_endpoints: Vec::new(),
    };
    if let Some(only) = subnet.address_prefix {
        // A body that was read and sent back may say it in both ways.
        subnet.address_prefixes.retain(|prefix| *prefix != only);
        if !subnet.address_prefixes.is_empty() {
            subnet.address_prefixes.insert(0, only);
            subnet.address_prefix = None;
        }
    }
    for endpoint in given.list("serviceEndpoints")?.unwrap_or_default() {
        let at = given.at("serviceEndpoints");
        subnet
            .service_endpoints
            .extend(Reader::new(endpoint, &at)?.text("service")?.map(str::to_owned));
    }
    Ok(subnet)
}

/// What the model has no place for; None where there is nothing, and was nothing.
pub(super) fn keep(lab: &Lab<'_>, target: &Target<'_>, name: &str, body: &Value) -> Option<Operation> {
    let key = format!("{}/subnets/{name}", target.entry());
    let mut body = body.clone();
    if let Some(Value::Object(properties)) = body.get_mut("properties") {
        for (member, usual) in USUAL {
            if properties.get(member).and_then(Value::as_str) == Some(usual) {
                properties.remove(member);
            }
        }
        properties.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    }
    let properties = leftover(&body, OWNED);
    if properties.is_none() {
        let old = lab.kept(&key).is_some();
        return old.then_some(Operation::DeleteResource { key });
    }
    Some(Operation::PutResource {
        key,
        resource: Box::new(StoredResource {
            location: None,
            tags: IndexMap::new(),
            properties,
        }),
    })
}

pub(super) fn show(lab: &Lab<'_>, vnet: &str, index: SubnetIndex) -> Value {
    let subnet = &lab.topology.subnets[index.0];
    let mut properties = Map::new();
    for (member, usual) in USUAL {
        properties.insert(member.to_owned(), json!(usual));
    }
    properties.insert("delegations".to_owned(), json!([]));
    properties.insert("ipamPoolPrefixAllocations".to_owned(), json!([]));
    let vnet_key = &lab.topology.vnets[subnet.vnet.0].name;
    if let Some(kind) = kinds::network(kinds::VNETS) {
        let entry = format!("{}/subnets/{}", lab.entry_key(kind, vnet_key), subnet.name);
        properties.extend(lab.kept_properties(&entry));
    }
    match subnet.prefixes.as_slice() {
        [only] => properties.insert("addressPrefix".to_owned(), json!(only)),
        several => properties.insert("addressPrefixes".to_owned(), json!(several)),
    };
    if let Some(nsg) = subnet.nsg {
        let reference = lab.reference(NSGS, &lab.topology.nsgs[nsg.0].name);
        properties.insert("networkSecurityGroup".to_owned(), reference);
    }
    if let Some(table) = subnet.route_table {
        let reference = lab.reference(ROUTE_TABLES, &lab.topology.route_tables[table.0].name);
        properties.insert("routeTable".to_owned(), reference);
    }
    if !subnet.service_endpoints.is_empty() {
        let one = |service: &String| json!({ "provisioningState": "Succeeded", "service": service, "locations": ["*"] });
        properties.insert(
            "serviceEndpoints".to_owned(),
            subnet.service_endpoints.iter().map(one).collect(),
        );
    }
    let configurations = configurations(lab, index);
    if !configurations.is_empty() {
        properties.insert("ipConfigurations".to_owned(), Value::Array(configurations));
    }
    body::child(vnet, "subnets", &subnet.name, properties)
}

/// Who is in the subnet: NICs, frontends, gateways.
fn configurations(lab: &Lab<'_>, index: SubnetIndex) -> Vec<Value> {
    let mut found = Vec::new();
    if let Some(kind) = kinds::network(NICS) {
        for nic in lab.nics().filter(|nic| nic.subnet == index) {
            let id = lab.id(kind, &nic.name);
            let names = super::nics::configuration_names(lab, &nic.name, nic.addresses.len());
            found.extend(
                names
                    .iter()
                    .map(|name| json!({ "id": format!("{id}/ipConfigurations/{name}") })),
            );
        }
    }
    if let Some(kind) = kinds::network(kinds::BALANCERS) {
        for balancer in &lab.topology.load_balancers {
            let own = balancer
                .frontends
                .iter()
                .filter(|frontend| frontend.subnet == index);
            let id = lab.id(kind, &balancer.name);
            found.extend(own.map(|it| json!({ "id": format!("{id}/frontendIPConfigurations/{}", it.name) })));
        }
    }
    found
}
