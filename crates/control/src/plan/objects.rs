//! Objects that differ between two labs, property by property.

use std::collections::BTreeMap;

use model::Topology;
use model::topology::SubnetIndex;
use serde_json::{Map, Value, json};

use super::{Action, Declared, ObjectChange, PropertyChange};
use crate::present;

/// Objects by type and name in lower case: their name and properties.
type Objects = BTreeMap<(String, String), (String, Map<String, Value>)>;

/// Sections of a lab file that hold objects by name, ARM's types of them, and the section inside that holds more.
const SECTIONS: [(&str, &str, &str); 13] = [
    ("vnets", "Microsoft.Network/virtualNetworks", "subnets"),
    ("routeTables", "Microsoft.Network/routeTables", "routes"),
    (
        "networkSecurityGroups",
        "Microsoft.Network/networkSecurityGroups",
        "securityRules",
    ),
    (
        "applicationSecurityGroups",
        "Microsoft.Network/applicationSecurityGroups",
        "",
    ),
    ("vms", "Microsoft.Compute/virtualMachines", ""),
    ("gateways", "Microsoft.Network/virtualNetworkGateways", ""),
    ("sites", "Microsoft.Network/localNetworkGateways", ""),
    ("connections", "Microsoft.Network/connections", ""),
    ("loadBalancers", "Microsoft.Network/loadBalancers", ""),
    ("flowLogs", "Microsoft.Network/networkWatchers/flowLogs", ""),
    (
        "networkGroups",
        "Microsoft.Network/networkManagers/networkGroups",
        "",
    ),
    // Its rules are told by themselves.
    ("securityAdminConfigurations", SECURITY_ADMIN, "ruleCollections"),
    // Azure has none.
    ("links", "links", ""),
];
const PEERING: &str = "Microsoft.Network/virtualNetworks/virtualNetworkPeerings";
const NIC: &str = "Microsoft.Network/networkInterfaces";
const SECURITY_ADMIN: &str = "Microsoft.Network/networkManagers/securityAdminConfigurations";
/// Azure has one list of them for everybody.
const SERVICE_TAG: &str = "serviceTags";
/// What a VM's own object says; the rest is its NICs'.
const OF_VM: [&str; 3] = ["size", "forwarding", "run"];
/// Told object by object.
const RESOLVED: [&str; 2] = ["peerings", "networkInterfaces"];

pub(super) fn difference(before: Declared<'_>, after: Declared<'_>) -> Vec<ObjectChange> {
    let (mut old, mut new) = (objects(before), objects(after));
    if before.topology.service_tags != after.topology.service_tags {
        old.extend(service_tags(before.topology));
        new.extend(service_tags(after.topology));
    }
    let mut changes = Vec::new();
    for (key, (name, properties)) in new {
        let (action, previous) = match old.remove(&key) {
            None => (Action::Create, Map::new()),
            Some((_, previous)) => (Action::Update, previous),
        };
        let properties = changed(&previous, &properties);
        if action == Action::Create || !properties.is_empty() {
            changes.push(ObjectChange {
                action,
                kind: key.0,
                name,
                properties,
            });
        }
    }
    let deleted = old.into_iter().map(|((kind, _), (name, _))| ObjectChange {
        action: Action::Delete,
        kind,
        name,
        properties: Vec::new(),
    });
    changes.extend(deleted);
    changes.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
    changes
}

fn changed(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<PropertyChange> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let value = |of: &Map<String, Value>, name: &String| of.get(name).cloned().unwrap_or_default();
    names
        .into_iter()
        .map(|name| PropertyChange {
            name: name.clone(),
            before: value(old, name),
            after: value(new, name),
        })
        .filter(|change| change.before != change.after)
        .collect()
}

fn objects(lab: Declared<'_>) -> Objects {
    let mut objects = Objects::new();
    let mut add = |kind: &str, name: String, properties: Map<String, Value>| {
        objects.insert((kind.to_owned(), name.to_lowercase()), (name, properties));
    };
    // What cannot be written as JSON does not differ.
    let Ok(Value::Object(mut sections)) = serde_json::to_value(lab.config) else {
        return objects;
    };
    for (section, kind, inner) in SECTIONS {
        for (name, value) in entries(sections.remove(section)) {
            let mut properties = object(value);
            for (child, value) in entries(properties.remove(inner)) {
                let (kind, name) = (format!("{kind}/{inner}"), format!("{name}/{child}"));
                let mut child = object(value);
                if section == "securityAdminConfigurations" {
                    for (rule, value) in entries(child.remove("rules")) {
                        add(&format!("{kind}/rules"), format!("{name}/{rule}"), object(value));
                    }
                }
                add(&kind, name, child);
            }
            if section == "vms" {
                properties.retain(|property, _| OF_VM.contains(&property.as_str()));
            }
            add(kind, name, properties);
        }
    }
    // More about an object of the lab, or an object of its own.
    for (key, value) in entries(sections.remove("resources")) {
        let (kind, name) = stored(&key);
        let known = objects.entry((kind.clone(), name.to_lowercase()));
        let (_, properties) = known.or_insert_with(|| (name, Map::new()));
        properties.extend(object(value));
    }
    let mut add = |kind: &str, name: String, properties: Map<String, Value>| {
        objects.insert((kind.to_owned(), name.to_lowercase()), (name, properties));
    };
    for row in present::peerings(lab.topology) {
        let name = format!("{}/{}", row.from, row.name);
        let mut properties = object(serde_json::to_value(&row).unwrap_or_default());
        for known in ["name", "from", "global", "latency_us", "latencySource"] {
            properties.remove(known);
        }
        add(PEERING, name, properties);
    }
    for nic in &lab.topology.nics {
        add(NIC, nic.name.clone(), nic_properties(lab.topology, nic));
    }
    for resolved in RESOLVED {
        sections.remove(resolved);
    }
    add("Lab", lab.topology.name.clone(), sections);
    objects
}

/// Type and name of a key of `resources`.
fn stored(key: &str) -> (String, String) {
    let Some((_, path)) = key.split_once('/') else {
        return ("Microsoft.Resources/resourceGroups".to_owned(), key.to_owned());
    };
    let mut parts = path.split('/');
    let (mut kind, mut names) = (parts.next().unwrap_or_default().to_owned(), Vec::new());
    while let (Some(of), Some(name)) = (parts.next(), parts.next()) {
        kind = format!("{kind}/{of}");
        names.push(name);
    }
    (kind, names.join("/"))
}

/// What each says, for a lab whose file of them says otherwise now.
fn service_tags(topology: &Topology) -> Objects {
    let tags = &topology.service_tags;
    let one = |name: &str| {
        let prefixes = json!({ "addressPrefixes": tags.prefixes(name) });
        let key = (SERVICE_TAG.to_owned(), name.to_lowercase());
        (key, (name.to_owned(), object(prefixes)))
    };
    tags.names().map(one).collect()
}

/// As they are, not as they were declared: an address may have been left out.
fn nic_properties(topology: &Topology, nic: &model::topology::Nic) -> Map<String, Value> {
    let place = |SubnetIndex(subnet): SubnetIndex| {
        let subnet = &topology.subnets[subnet];
        format!("{}/{}", topology.vnets[subnet.vnet.0].name, subnet.name)
    };
    let asgs: Vec<&String> = nic.asgs.iter().map(|asg| &topology.asgs[asg.0].name).collect();
    object(json!({
        "subnet": place(nic.subnet),
        "virtualMachine": nic.vm.map(|vm| &topology.vms[vm.0].name),
        "privateIPAddresses": nic.addresses,
        "enableIPForwarding": nic.ip_forwarding,
        "networkSecurityGroup": nic.nsg.map(|nsg| &topology.nsgs[nsg.0].name),
        "applicationSecurityGroups": asgs,
        "publicIPAddresses": nic.public_addresses,
    }))
}

fn entries(section: Option<Value>) -> impl Iterator<Item = (String, Value)> {
    section.map(object).unwrap_or_default().into_iter()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
