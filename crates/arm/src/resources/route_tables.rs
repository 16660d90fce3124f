//! Route tables and their routes.

use indexmap::IndexMap;
use model::change::Operation;
use model::config::{DisablePeeringRoute, NextHopType, NextHops, Route, RouteTable};
use serde_json::{Map, Value, json};

use super::body::{self, set};
use super::kinds::{By, Kind, NETWORK, ROUTE_TABLES};
use super::lab::{Lab, Target};
use super::read::Reader;
use crate::Error;
use crate::id::same;

pub(super) const KIND: Kind = Kind {
    provider: NETWORK,
    name: ROUTE_TABLES,
    owned: &[
        "routes",
        "disableBgpRoutePropagation",
        "disablePeeringRoute",
        "subnets",
    ],
    children: &["routes"],
    carried_out: By::Model {
        keys: |lab| lab.config.route_tables.keys().cloned().collect(),
        show,
        put,
        delete: |_, key| Ok(vec![Operation::DeleteRouteTable { name: key.to_owned() }]),
    },
};

pub(super) fn put_route(target: &Target<'_>, name: &str, body: &Value) -> Result<Vec<Operation>, Error> {
    let route = read(&Reader::new(body, "")?.object("properties")?)?;
    Ok(vec![Operation::PutRoute {
        table: target.key.clone(),
        name: name.to_owned(),
        route: Box::new(route),
    }])
}

pub(super) fn delete_route(target: &Target<'_>, name: &str) -> Operation {
    Operation::DeleteRoute {
        table: target.key.clone(),
        name: name.to_owned(),
    }
}

fn put(lab: &Lab<'_>, target: &Target<'_>, body: &Value) -> Result<Vec<Operation>, Error> {
    let given = Reader::new(body, "")?.object("properties")?;
    let routes = match given.children("routes")? {
        Some(children) => {
            let each = children
                .iter()
                .map(|it| Ok((it.name.clone(), read(&it.properties)?)));
            each.collect::<Result<IndexMap<_, _>, Error>>()?
        }
        None => IndexMap::new(),
    };
    // Left out means none: a body without routes is how clients make an empty table, but an existing one keeps its own.
    let old = lab.config.route_tables.get(&target.key);
    let routes = match (given.get("routes"), old) {
        (None, Some(old)) => old.routes.clone(),
        _ => routes,
    };
    Ok(vec![Operation::PutRouteTable {
        name: target.key.clone(),
        table: Box::new(RouteTable {
            disable_bgp_route_propagation: given.flag("disableBgpRoutePropagation")?,
            disable_peering_route: given.word(
                "disablePeeringRoute",
                DisablePeeringRoute::of,
                DisablePeeringRoute::WORDS,
            )?,
            routes,
        }),
    }])
}

fn read(given: &Reader<'_>) -> Result<Route, Error> {
    let missing = |name: &str| Error::body(&given.at(name), format!("{} is missing", given.at(name)));
    let hops = given.object("nextHop")?.addresses("nextHopIpAddresses")?;
    Ok(Route {
        address_prefix: given
            .text("addressPrefix")?
            .ok_or_else(|| missing("addressPrefix"))?
            .to_owned(),
        next_hop_type: given
            .word("nextHopType", NextHopType::of, NextHopType::WORDS)?
            .ok_or_else(|| missing("nextHopType"))?,
        next_hop_ip_address: given.address("nextHopIpAddress")?,
        next_hop: (!hops.is_empty()).then_some(NextHops {
            next_hop_ip_addresses: hops,
        }),
    })
}

fn show(lab: &Lab<'_>, key: &str) -> Map<String, Value> {
    let Some(table) = lab.config.route_tables.get(key) else {
        return Map::new();
    };
    let id = lab.id(&KIND, key);
    let mut properties = Map::new();
    let disabled = table.disable_bgp_route_propagation.unwrap_or(false);
    properties.insert("disableBgpRoutePropagation".to_owned(), json!(disabled));
    set(
        &mut properties,
        "disablePeeringRoute",
        table.disable_peering_route.map(DisablePeeringRoute::word),
    );
    let routes = table.routes.iter().map(|(name, route)| {
        let mut properties = Map::new();
        properties.insert("addressPrefix".to_owned(), json!(route.address_prefix));
        properties.insert("nextHopType".to_owned(), json!(route.next_hop_type.word()));
        let address = route.next_hop_ip_address.map(|it| it.0.to_string());
        set(&mut properties, "nextHopIpAddress", address);
        let hops = route.next_hop.as_ref().map(|it| json!(it));
        set(&mut properties, "nextHop", hops);
        properties.insert("hasBgpOverride".to_owned(), json!(false));
        body::child(&id, "routes", name, properties)
    });
    properties.insert("routes".to_owned(), routes.collect());
    let subnets = (0..lab.topology.subnets.len()).map(model::topology::SubnetIndex);
    let own = subnets.filter(|subnet| {
        let table = lab.topology.subnets[subnet.0].route_table;
        table.is_some_and(|table| same(&lab.topology.route_tables[table.0].name, key))
    });
    let own: Vec<Value> = own.map(|subnet| json!({ "id": lab.subnet_id(subnet) })).collect();
    if !own.is_empty() {
        properties.insert("subnets".to_owned(), Value::Array(own));
    }
    properties
}
