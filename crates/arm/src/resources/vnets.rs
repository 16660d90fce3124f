//! Virtual networks: `addressSpace`, `subnets`, `virtualNetworkPeerings`.

use std::net::IpAddr;

use model::change::Operation;
use model::config::Vnet;
use serde_json::{Map, Value, json};

use super::body::set;
use super::kinds::{By, Kind, NETWORK, VNETS};
use super::lab::{Lab, Target, free};
use super::read::Reader;
use super::{body, peerings, subnets};
use crate::id::same;
use crate::{Error, Reply, Request};

/// How many free addresses a client is told.
const FREE_SHOWN: usize = 5;

pub(super) const KIND: Kind = Kind {
    provider: NETWORK,
    name: VNETS,
    owned: &[
        "addressSpace",
        "subnets",
        "virtualNetworkPeerings",
        "flowTimeoutInMinutes",
    ],
    children: &["subnets", "virtualNetworkPeerings"],
    carried_out: By::Model {
        keys: |lab| lab.config.vnets.keys().cloned().collect(),
        show,
        put,
        delete: |_, key| Ok(vec![Operation::DeleteVnet { name: key.to_owned() }]),
    },
};

/// Whether an address is free, and others that are.
pub(super) fn available(lab: &Lab<'_>, key: &str, request: &Request) -> Result<Reply, Error> {
    let wanted = request.parameter("ipAddress").unwrap_or_default();
    let refused = || Error::body("ipAddress", "expected an IP address as query parameter ipAddress");
    let address: IpAddr = wanted.parse().map_err(|_| refused())?;
    let vnet = lab.vnet(key);
    let taken = vnet.map(|vnet| lab.taken(vnet)).unwrap_or_default();
    let subnets = lab.topology.subnets.iter().filter(|it| Some(it.vnet) == vnet);
    let mut prefixes = subnets.flat_map(|it| &it.prefixes);
    let Some(prefix) = prefixes.find(|prefix| prefix.contains(&address)) else {
        let message = format!("IP address {address} does not belong to any subnet of virtual network {key}.");
        return Err(Error::bad("PrivateIPAddressNotInAnySubnet", message));
    };
    let ours = free(*prefix, &taken).take_while(|it| *it <= address).last() == Some(address);
    let others: Vec<String> = free(*prefix, &taken)
        .filter(|it| *it != address)
        .take(FREE_SHOWN)
        .map(|it| it.to_string())
        .collect();
    let others = if ours { Vec::new() } else { others };
    Ok(Reply::ok(json!({
        "available": ours,
        "availableIPAddresses": others,
        "isPlatformReserved": !ours && !taken.contains(&address),
    })))
}

fn show(lab: &Lab<'_>, key: &str) -> Map<String, Value> {
    let (Some(declared), Some(index)) = (lab.config.vnets.get(key), lab.vnet(key)) else {
        return Map::new();
    };
    let id = lab.id(&KIND, key);
    let vnet = &lab.topology.vnets[index.0];
    let mut properties = Map::new();
    let space: Vec<String> = vnet.address_space.iter().map(ToString::to_string).collect();
    properties.insert("addressSpace".to_owned(), body::address_space(&space));
    let subnets = vnet.subnets.iter().map(|subnet| subnets::show(lab, &id, *subnet));
    properties.insert("subnets".to_owned(), subnets.collect());
    let peerings = peerings::show(lab, &id, index);
    properties.insert("virtualNetworkPeerings".to_owned(), Value::Array(peerings));
    set(
        &mut properties,
        "flowTimeoutInMinutes",
        declared.flow_timeout_in_minutes,
    );
    let kept = lab.kept_properties(&lab.entry_key(&KIND, key));
    for (name, default) in [
        ("privateEndpointVNetPolicies", json!("Disabled")),
        ("enableDdosProtection", json!(false)),
    ] {
        properties.insert(name.to_owned(), kept.get(name).cloned().unwrap_or(default));
    }
    properties
}

fn put(lab: &Lab<'_>, target: &Target<'_>, body: &Value) -> Result<Vec<Operation>, Error> {
    let body = Reader::new(body, "")?;
    let given = body.object("properties")?;
    let old = lab.config.vnets.get(&target.key);
    let space = given.object("addressSpace")?;
    let named = |id: &str| {
        lab.config
            .subscriptions
            .keys()
            .find(|name| same(&model::access::subscription(lab.config, Some(name)), id))
    };
    let mut vnet = Vnet {
        location: body.text("location")?.map(super::lab::canonical_location),
        subscription: named(target.subscription).cloned(),
        address_space: space.prefixes("addressPrefixes")?,
        flow_timeout_in_minutes: given.number("flowTimeoutInMinutes")?,
        ..Vnet::default()
    };
    if let Some(old) = old {
        vnet.location = vnet.location.or_else(|| old.location.clone());
        vnet.subscription.clone_from(&old.subscription);
        vnet.deployment_model = old.deployment_model;
        vnet.tun.clone_from(&old.tun);
    }
    let mut kept = Vec::new();
    match given.children("subnets")? {
        // Left out, they stay as they are.
        None => vnet.subnets = old.map(|old| old.subnets.clone()).unwrap_or_default(),
        Some(children) => {
            for child in children {
                let subnet = subnets::read(lab, &child.properties)?;
                kept.extend(subnets::keep(lab, target, &child.name, child.value));
                let spelled = old.and_then(|old| old.subnets.keys().find(|it| same(it, &child.name)));
                vnet.subnets
                    .insert(spelled.unwrap_or(&child.name).clone(), subnet);
            }
        }
    }
    let mut operations = vec![Operation::PutVnet {
        name: target.key.clone(),
        vnet: Box::new(vnet),
    }];
    if let Some(children) = given.children("virtualNetworkPeerings")? {
        operations.extend(peerings::put_all(lab, target, &children)?);
    }
    operations.extend(kept);
    Ok(operations)
}
