//! `peering`, `nsg`, `route-table`, `route`, `vnet`, `subnet`: one object of a running lab created, changed or deleted.

use daemon::api::{Edit, EditKind, EditRequest, EditVerb};
use serde_json::{Map, Value, json};

use crate::commands::change;
use crate::commands::counters::client;
use crate::commands::event::refused;
use crate::edit_args::{
    Name, NsgVerb, PeeringFlags, PeeringName, PeeringVerb, RouteName, RouteTableVerb, RouteVerb, RuleFields,
    RuleName, RuleVerb, Set, SubnetFields, SubnetName, SubnetVerb, VnetVerb,
};
use crate::failure::{Failure, Outcome, exit};
use crate::output::Output;

type Properties = Map<String, Value>;

/// `peering`.
pub(crate) fn peering(verb: &PeeringVerb, output: Output) -> Outcome {
    let (of, verb, properties) = match verb {
        PeeringVerb::Create {
            of,
            remote_vnet,
            flags,
        } => {
            let mut properties = of_flags(flags);
            properties.insert("to".to_owned(), json!(remote_vnet));
            (of, EditVerb::Create, properties)
        }
        PeeringVerb::Update { of, flags, set } => (of, EditVerb::Update, with(set, of_flags(flags))?),
        PeeringVerb::Sync { of } => (of, EditVerb::Sync, Properties::new()),
        PeeringVerb::Delete { of } => (of, EditVerb::Delete, Properties::new()),
    };
    let PeeringName { name, vnet_name } = of;
    edit(name, verb, EditKind::Peering, vnet_name, properties, output)
}

/// `nsg`, and its rules.
pub(crate) fn nsg(verb: &NsgVerb, output: Output) -> Outcome {
    let (of, verb, properties) = match verb {
        NsgVerb::Create(name) => return whole(name, EditVerb::Create, EditKind::Nsg, output),
        NsgVerb::Delete(name) => return whole(name, EditVerb::Delete, EditKind::Nsg, output),
        NsgVerb::Rule(RuleVerb::Create { of, fields }) => {
            let mut properties = Properties::from_iter([
                ("direction".to_owned(), json!("Inbound")),
                ("access".to_owned(), json!("Allow")),
                ("protocol".to_owned(), json!("*")),
            ]);
            // What az fills in; application security groups stand instead of prefixes.
            if fields.source_asgs.is_empty() {
                properties.insert("sourceAddressPrefix".to_owned(), json!("*"));
            }
            if fields.destination_asgs.is_empty() {
                properties.insert("destinationAddressPrefix".to_owned(), json!("*"));
            }
            properties.insert("sourcePortRange".to_owned(), json!("*"));
            properties.insert("destinationPortRange".to_owned(), json!("80"));
            let given = of_rule(fields);
            // One form or the other, as in an update.
            for key in given.keys() {
                properties.remove(key.trim_end_matches("es"));
                properties.remove(key.trim_end_matches('s'));
            }
            properties.extend(given);
            (of, EditVerb::Create, properties)
        }
        NsgVerb::Rule(RuleVerb::Update { of, fields, set }) => {
            (of, EditVerb::Update, with(set, of_rule(fields))?)
        }
        NsgVerb::Rule(RuleVerb::Delete { of }) => (of, EditVerb::Delete, Properties::new()),
    };
    let RuleName { name, nsg_name } = of;
    edit(name, verb, EditKind::Rule, nsg_name, properties, output)
}

/// `route-table`.
pub(crate) fn route_table(verb: &RouteTableVerb, output: Output) -> Outcome {
    match verb {
        RouteTableVerb::Create(name) => whole(name, EditVerb::Create, EditKind::RouteTable, output),
        RouteTableVerb::Delete(name) => whole(name, EditVerb::Delete, EditKind::RouteTable, output),
    }
}

/// `route`.
pub(crate) fn route(verb: &RouteVerb, output: Output) -> Outcome {
    let (of, verb, properties) = match verb {
        RouteVerb::Create {
            of,
            address_prefix,
            next_hop_type,
            next_hop_ip_address,
        } => {
            let mut properties = Properties::from_iter([
                ("addressPrefix".to_owned(), json!(address_prefix)),
                ("nextHopType".to_owned(), json!(next_hop_type)),
            ]);
            put(&mut properties, "nextHopIpAddress", next_hop_ip_address);
            (of, EditVerb::Create, properties)
        }
        RouteVerb::Delete { of } => (of, EditVerb::Delete, Properties::new()),
    };
    let RouteName {
        name,
        route_table_name,
    } = of;
    edit(name, verb, EditKind::Route, route_table_name, properties, output)
}

/// `vnet`.
pub(crate) fn vnet(verb: &VnetVerb, output: Output) -> Outcome {
    let mut properties = Properties::new();
    let (name, verb) = match verb {
        VnetVerb::Create {
            name,
            address_prefixes,
            location,
        } => {
            list(&mut properties, "addressSpace", address_prefixes);
            put(&mut properties, "location", location);
            (name, EditVerb::Create)
        }
        VnetVerb::Update {
            name,
            address_prefixes,
            set,
        } => {
            list(&mut properties, "addressSpace", address_prefixes);
            properties = with(set, properties)?;
            (name, EditVerb::Update)
        }
        VnetVerb::Delete(name) => (name, EditVerb::Delete),
    };
    edit(name, verb, EditKind::Vnet, "", properties, output)
}

/// `subnet`.
pub(crate) fn subnet(verb: &SubnetVerb, output: Output) -> Outcome {
    let (of, verb, properties) = match verb {
        SubnetVerb::Create { of, fields } => (of, EditVerb::Create, of_subnet(fields)),
        SubnetVerb::Update { of, fields, set } => (of, EditVerb::Update, with(set, of_subnet(fields))?),
        SubnetVerb::Delete { of } => (of, EditVerb::Delete, Properties::new()),
    };
    let SubnetName { name, vnet_name } = of;
    edit(name, verb, EditKind::Subnet, vnet_name, properties, output)
}

fn whole(name: &Name, verb: EditVerb, kind: EditKind, output: Output) -> Outcome {
    edit(name, verb, kind, "", Properties::new(), output)
}

/// Does it, or with --dry-run only asks, and shows what changes.
fn edit(
    name: &Name,
    verb: EditVerb,
    kind: EditKind,
    parent: &str,
    properties: Properties,
    output: Output,
) -> Outcome {
    if verb == EditVerb::Update && properties.is_empty() {
        return Err(Failure::usage("nothing is to be changed")
            .help("say which property, or use --set PROPERTY=VALUE"));
    }
    let edit = Edit {
        verb,
        kind,
        parent: parent.to_owned(),
        name: name.name.clone(),
        properties,
    };
    let request = EditRequest {
        edits: vec![edit],
        dry_run: name.on.dry_run,
    };
    let plan = client(name.on.lab.as_deref())?.edit(&request).map_err(refused)?;
    change::show(&plan, output)?;
    Ok(exit::SUCCESS)
}

fn of_flags(flags: &PeeringFlags) -> Properties {
    let flags = [
        ("allowVirtualNetworkAccess", flags.allow_vnet_access),
        ("allowForwardedTraffic", flags.allow_forwarded_traffic),
        ("allowGatewayTransit", flags.allow_gateway_transit),
        ("useRemoteGateways", flags.use_remote_gateways),
    ];
    let given = flags.into_iter();
    given
        .filter_map(|(key, value)| Some((key.to_owned(), Value::Bool(value?))))
        .collect()
}

fn of_rule(fields: &RuleFields) -> Properties {
    let mut properties = Properties::new();
    if let Some(priority) = fields.priority {
        properties.insert("priority".to_owned(), json!(priority));
    }
    put(&mut properties, "direction", &fields.direction);
    put(&mut properties, "access", &fields.access);
    put(&mut properties, "protocol", &fields.protocol);
    put(&mut properties, "description", &fields.description);
    one_or_list(
        &mut properties,
        "sourceAddressPrefix",
        "es",
        &fields.source_address_prefixes,
    );
    one_or_list(
        &mut properties,
        "sourcePortRange",
        "s",
        &fields.source_port_ranges,
    );
    one_or_list(
        &mut properties,
        "destinationAddressPrefix",
        "es",
        &fields.destination_address_prefixes,
    );
    one_or_list(
        &mut properties,
        "destinationPortRange",
        "s",
        &fields.destination_port_ranges,
    );
    list(
        &mut properties,
        "sourceApplicationSecurityGroups",
        &fields.source_asgs,
    );
    list(
        &mut properties,
        "destinationApplicationSecurityGroups",
        &fields.destination_asgs,
    );
    properties
}

fn of_subnet(fields: &SubnetFields) -> Properties {
    let mut properties = Properties::new();
    one_or_list(&mut properties, "addressPrefix", "es", &fields.address_prefixes);
    for (key, name) in [
        ("networkSecurityGroup", &fields.network_security_group),
        ("routeTable", &fields.route_table),
    ] {
        match name.as_deref() {
            None => {}
            Some("") => drop(properties.insert(key.to_owned(), Value::Null)),
            Some(name) => drop(properties.insert(key.to_owned(), json!(name))),
        }
    }
    list(&mut properties, "serviceEndpoints", &fields.service_endpoints);
    properties
}

fn put(properties: &mut Properties, key: &str, value: &Option<String>) {
    if let Some(value) = value {
        properties.insert(key.to_owned(), json!(value));
    }
}

fn list(properties: &mut Properties, key: &str, values: &[String]) {
    if !values.is_empty() {
        properties.insert(key.to_owned(), json!(values));
    }
}

/// A service tag and `*` stand alone, and so may anything else.
fn one_or_list(properties: &mut Properties, key: &str, plural: &str, values: &[String]) {
    match values {
        [] => {}
        [one] => drop(properties.insert(key.to_owned(), json!(one))),
        many => drop(properties.insert(format!("{key}{plural}"), json!(many))),
    }
}

/// What `--set` says comes last.
fn with(set: &Set, mut properties: Properties) -> Result<Properties, Failure> {
    for text in &set.set {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Failure::usage(format_args!("--set {text}: there is no '='"))
                .help("such as --set priority=200"));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        properties.insert(key.to_owned(), value);
    }
    Ok(properties)
}
