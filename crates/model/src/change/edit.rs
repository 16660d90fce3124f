//! One object created, updated or deleted by its properties, as a command or a request says it.

use serde_json::{Map, Value};

use super::section::{find, missing, value};
use super::{NSGS, Operation, Refusal, peerings};
use crate::config::{Config, Nsg, Peering, Route, RouteTable, SecurityRule, Subnet, Vnet};
use crate::decode::Decode;
use crate::problems::{Problems, join};
use crate::yaml;

/// What is done to one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    pub verb: Verb,
    pub kind: Kind,
    /// The VNet of a peering or a subnet, the NSG of a rule, the route table of a route; empty for the others.
    pub parent: String,
    pub name: String,
    /// Properties as the lab file spells them. Of an update: those that change, null takes one away.
    pub properties: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Or replace, as ARM's PUT.
    Create,
    /// Of an object that is there.
    Update,
    /// Of a peering (PEER-17).
    Sync,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Vnet,
    Subnet,
    Peering,
    Nsg,
    Rule,
    RouteTable,
    Route,
}

/// The operation that carries out an edit of this lab.
///
/// # Errors
/// The properties are no such object's (`Sim.UnknownField`, `Sim.Value`), or what is updated is not there.
pub fn edit(config: &Config, edit: &Edit) -> Result<Operation, Refusal> {
    let (parent, name) = (edit.parent.clone(), edit.name.clone());
    match edit.verb {
        Verb::Create => put(edit, &edit.properties),
        Verb::Update => put(edit, &updated(config, edit)?),
        Verb::Sync if edit.kind == Kind::Peering => Ok(Operation::SyncPeering { vnet: parent, name }),
        Verb::Sync => Err(Refusal::new("Sim.Value", name, "only a peering is synchronised")),
        Verb::Delete => Ok(match edit.kind {
            Kind::Vnet => Operation::DeleteVnet { name },
            Kind::Subnet => Operation::DeleteSubnet { vnet: parent, name },
            Kind::Peering => Operation::DeletePeering { vnet: parent, name },
            Kind::Nsg => Operation::DeleteNsg { name },
            Kind::Rule => Operation::DeleteRule { nsg: parent, name },
            Kind::RouteTable => Operation::DeleteRouteTable { name },
            Kind::Route => Operation::DeleteRoute { table: parent, name },
        }),
    }
}

fn put(edit: &Edit, properties: &Map<String, Value>) -> Result<Operation, Refusal> {
    let (parent, name) = (edit.parent.clone(), edit.name.clone());
    Ok(match edit.kind {
        Kind::Vnet => Operation::PutVnet {
            name,
            vnet: read::<Vnet>(properties)?,
        },
        Kind::Subnet => Operation::PutSubnet {
            vnet: parent,
            name,
            subnet: read::<Subnet>(properties)?,
        },
        Kind::Peering => {
            let mut all = Map::from_iter([
                ("name".to_owned(), Value::from(name)),
                ("from".to_owned(), Value::from(parent)),
            ]);
            all.extend(properties.clone());
            Operation::PutPeering {
                peering: read::<Peering>(&all)?,
            }
        }
        Kind::Nsg => Operation::PutNsg {
            name,
            nsg: read::<Nsg>(properties)?,
        },
        Kind::Rule => Operation::PutRule {
            nsg: parent,
            name,
            rule: read::<SecurityRule>(properties)?,
        },
        Kind::RouteTable => Operation::PutRouteTable {
            name,
            table: read::<RouteTable>(properties)?,
        },
        Kind::Route => Operation::PutRoute {
            table: parent,
            name,
            route: read::<Route>(properties)?,
        },
    })
}

/// The object as it is, with the new properties in their places.
fn updated(config: &Config, edit: &Edit) -> Result<Map<String, Value>, Refusal> {
    let mut config = config.clone();
    let (parent, name) = (edit.parent.as_str(), edit.name.as_str());
    let absent = |at: &str| missing(at, name);
    let present = match edit.kind {
        Kind::Vnet => written(value(&config.vnets, name).ok_or_else(|| absent("vnets"))?),
        Kind::Subnet => {
            let vnet = find(&mut config.vnets, "vnets", parent)?;
            let at = join(&join("vnets", parent), "subnets");
            written(value(&vnet.subnets, name).ok_or_else(|| absent(&at))?)
        }
        Kind::Peering => {
            peerings::write_out(&mut config, parent);
            let found = peerings::find(&config, parent, name).and_then(|index| config.peerings.get(index));
            let found = found.and_then(peerings::object);
            written(found.ok_or_else(|| absent(&join("peerings", parent)))?)
        }
        Kind::Nsg => written(value(&config.network_security_groups, name).ok_or_else(|| absent(NSGS))?),
        Kind::Rule => {
            let nsg = find(&mut config.network_security_groups, NSGS, parent)?;
            let at = join(&join(NSGS, parent), "securityRules");
            written(value(&nsg.security_rules, name).ok_or_else(|| absent(&at))?)
        }
        Kind::RouteTable => written(value(&config.route_tables, name).ok_or_else(|| absent("routeTables"))?),
        Kind::Route => {
            let table = find(&mut config.route_tables, "routeTables", parent)?;
            let at = join(&join("routeTables", parent), "routes");
            written(value(&table.routes, name).ok_or_else(|| absent(&at))?)
        }
    };
    let mut properties = present?;
    for (key, value) in &edit.properties {
        // One prefix or several: the new form takes the place of the other.
        for other in [format!("{key}es"), format!("{key}s")] {
            properties.remove(&other);
        }
        for plural in ["es", "s"] {
            key.strip_suffix(plural).map(|single| properties.remove(single));
        }
        match value {
            Value::Null => properties.remove(key),
            value => properties.insert(key.clone(), value.clone()),
        };
    }
    Ok(properties)
}

fn written<T: serde::Serialize>(object: &T) -> Result<Map<String, Value>, Refusal> {
    match serde_json::to_value(object) {
        Ok(Value::Object(properties)) => Ok(properties),
        _ => Err(Refusal::new("Sim.Value", "", "the object cannot be written down")),
    }
}

fn read<T: Decode>(properties: &Map<String, Value>) -> Result<Box<T>, Refusal> {
    let text = Value::Object(properties.clone()).to_string();
    let root = yaml::parse(&text).map_err(|error| Refusal::new("Sim.Syntax", "", error.message))?;
    let mut problems = Problems::default();
    let object = T::decode(&root, "", &mut problems);
    match (problems.into_refusal(), object) {
        (None, Some(object)) => Ok(Box::new(object)),
        (refusal, _) => Err(refusal.unwrap_or_else(|| Refusal::new("Sim.Value", "", "no such object"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::change::apply;

    fn lab() -> Config {
        let text = r#"
apiVersion: peerlane/v1
kind: Lab
name: edits
vnets:
  a: { addressSpace: [10.0.0.0/16], subnets: { s: { addressPrefix: 10.0.0.0/24 } } }
  b: { addressSpace: [10.1.0.0/16] }
  c: { addressSpace: [10.2.0.0/16] }
peerings: [ a <-> b ]
networkSecurityGroups: { n: { securityRules: { r: { priority: 100, direction: Inbound, access: Allow, protocol: Tcp,
  sourceAddressPrefix: "*", sourcePortRange: "*", destinationAddressPrefix: "*", destinationPortRange: "80" } } } }
"#;
        let source = crate::Source::Text {
            name: "edits".to_owned(),
            text: text.to_owned(),
        };
        crate::load(source).unwrap().config
    }

    fn of(verb: Verb, kind: Kind, path: [&str; 2], properties: Value) -> Edit {
        let [parent, name] = path.map(str::to_owned);
        let Value::Object(properties) = properties else {
            panic!("an object");
        };
        Edit {
            verb,
            kind,
            parent,
            name,
            properties,
        }
    }

    #[test]
    fn an_update_changes_what_it_names_and_nothing_else() {
        let config = lab();
        let flags = of(
            Verb::Update,
            Kind::Peering,
            ["A", "a-to-b"],
            json!({ "allowForwardedTraffic": true }),
        );
        let changed = apply(&config, &[edit(&config, &flags).unwrap()], None).unwrap();
        let peerings = &changed.topology.peerings;
        let [own, other] = [&peerings[0], &peerings[1]];
        assert!(own.allow_forwarded_traffic && own.allow_virtual_network_access);
        assert!(!other.allow_forwarded_traffic);

        let ports = json!({ "destinationPortRanges": ["81", "82"], "access": "Deny" });
        let rule = of(Verb::Update, Kind::Rule, ["n", "R"], ports);
        let Operation::PutRule { rule, .. } = edit(&config, &rule).unwrap() else {
            panic!("a rule");
        };
        assert_eq!((rule.priority, rule.destination_port_range), (100, None));
        assert_eq!(rule.destination_port_ranges, ["81", "82"]);
    }

    #[test]
    fn what_is_not_there_and_what_no_object_has_is_refused() {
        let config = lab();
        let code =
            |verb, kind, path, properties| edit(&config, &of(verb, kind, path, properties)).unwrap_err().code;
        assert_eq!(
            code(Verb::Update, Kind::Peering, ["a", "a-to-c"], json!({})),
            "ResourceNotFound"
        );
        assert_eq!(
            code(Verb::Update, Kind::Rule, ["x", "r"], json!({})),
            "ParentResourceNotFound"
        );
        assert_eq!(
            code(Verb::Create, Kind::Vnet, ["", "v"], json!({ "addresses": [] })),
            "Sim.UnknownField"
        );
        assert_eq!(
            code(Verb::Create, Kind::Peering, ["a", "p"], json!({})),
            "Sim.Value"
        );
        assert_eq!(code(Verb::Sync, Kind::Vnet, ["", "a"], json!({})), "Sim.Value");
    }

    #[test]
    fn every_kind_is_created_and_deleted() {
        let mut config = lab();
        let all = [
            (Kind::Vnet, ["", "v"], json!({ "addressSpace": ["10.9.0.0/16"] })),
            (
                Kind::Subnet,
                ["v", "s"],
                json!({ "addressPrefix": "10.9.0.0/24" }),
            ),
            (Kind::Peering, ["v", "p"], json!({ "to": "a" })),
            (Kind::Nsg, ["", "m"], json!({})),
            (
                Kind::Rule,
                ["m", "r"],
                serde_json::to_value(&config.network_security_groups["n"].security_rules["r"]).unwrap(),
            ),
            (Kind::RouteTable, ["", "t"], json!({})),
            (
                Kind::Route,
                ["t", "r"],
                json!({ "addressPrefix": "10.7.0.0/16", "nextHopType": "None" }),
            ),
        ];
        // In the form that a change of a VNet's peerings leaves them in.
        let mut before = config.clone();
        super::super::peerings::write_out(&mut before, "a");
        for (kind, path, properties) in &all {
            let edited = edit(&config, &of(Verb::Create, *kind, *path, properties.clone())).unwrap();
            config = apply(&config, &[edited], None).unwrap().config;
        }
        assert_ne!(config, before);
        for (kind, path, _) in all.iter().rev() {
            let edited = edit(&config, &of(Verb::Delete, *kind, *path, json!({}))).unwrap();
            config = apply(&config, &[edited], None).unwrap().config;
        }
        assert_eq!(config, before);
    }
}
