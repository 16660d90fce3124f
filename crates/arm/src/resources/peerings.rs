//! Peerings of a virtual network (PEER-01, PEER-17).

use control::present::{PeeringRow, peerings_of};
use model::change::Operation;
use model::config::{Peering, PeeringEntry};
use model::topology::VnetIndex;
use serde_json::{Map, Value, json};

use super::body;
use super::kinds::{GATEWAYS, VNETS};
use super::lab::{Lab, Target};
use super::read::{Child, Reader};
use crate::id::same;
use crate::{Error, Id, Request};

/// With `syncRemoteAddressSpace=true` what is peered becomes what the remote VNet has now.
pub(super) fn put(
    lab: &Lab<'_>,
    target: &Target<'_>,
    name: &str,
    request: &Request,
) -> Result<Vec<Operation>, Error> {
    let properties = Reader::new(&request.body, "")?.object("properties")?;
    let peering = read(lab, target, name, &properties)?;
    let sync = request
        .parameter("syncRemoteAddressSpace")
        .is_some_and(|it| same(it, "true"));
    let mut operations = Vec::new();
    let unchanged = declared(lab, target, name).is_some_and(|old| settings(&old) == settings(&peering));
    if !(sync && unchanged) {
        operations.push(Operation::PutPeering {
            peering: Box::new(peering),
        });
    }
    if sync {
        operations.push(Operation::SyncPeering {
            vnet: target.key.clone(),
            name: name.to_owned(),
        });
    }
    Ok(operations)
}

pub(super) fn delete(target: &Target<'_>, name: &str) -> Operation {
    Operation::DeletePeering {
        vnet: target.key.clone(),
        name: name.to_owned(),
    }
}

/// The peerings that the body of a VNet lists: those left out go, those as they were are left alone.
pub(super) fn put_all(
    lab: &Lab<'_>,
    target: &Target<'_>,
    children: &[Child<'_>],
) -> Result<Vec<Operation>, Error> {
    let mut operations = Vec::new();
    let present = lab.vnet(&target.key).map(|vnet| peerings_of(lab.topology, vnet));
    for row in present.iter().flatten() {
        if !children.iter().any(|child| same(&child.name, &row.name)) {
            operations.push(delete(target, &row.name));
        }
    }
    for child in children {
        let peering = read(lab, target, &child.name, &child.properties)?;
        let old = declared(lab, target, &child.name);
        if old.is_none_or(|old| settings(&old) != settings(&peering)) {
            operations.push(Operation::PutPeering {
                peering: Box::new(peering),
            });
        }
    }
    Ok(operations)
}

pub(super) fn show(lab: &Lab<'_>, vnet_id: &str, vnet: VnetIndex) -> Vec<Value> {
    let rows = peerings_of(lab.topology, vnet);
    rows.iter().map(|row| one(lab, vnet_id, vnet, row)).collect()
}

fn one(lab: &Lab<'_>, vnet_id: &str, vnet: VnetIndex, row: &PeeringRow) -> Value {
    let mut properties = match serde_json::to_value(row) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    };
    for member in ["name", "from", "to", "global", "latency_us"] {
        properties.remove(member);
    }
    let remote = model::access::vnet(lab.config, &row.to).id();
    properties.insert("remoteVirtualNetwork".to_owned(), json!({ "id": remote }));
    let index = lab
        .topology
        .peerings
        .iter()
        .position(|it| it.from == vnet && same(&it.name, &row.name));
    let guid = index.map_or_else(
        || body::guid(&format!("{vnet_id}/{}", row.name)),
        |index| lab.topology.peering_guid(model::topology::PeeringIndex(index)),
    );
    properties.insert("resourceGuid".to_owned(), json!(guid));
    let modern = json!({ "doNotVerifyRemoteGateways": false, "peerCompleteVnets": true });
    for (name, value) in modern.as_object().into_iter().flatten() {
        properties.entry(name.clone()).or_insert_with(|| value.clone());
    }
    for space in ["remoteAddressSpace", "remoteVirtualNetworkAddressSpace"] {
        if let Some(prefixes) = properties.get_mut(space) {
            *prefixes = json!({ "addressPrefixes": prefixes.take(), "ipamPoolPrefixAllocations": [] });
        }
    }
    if row.use_remote_gateways {
        let to = index.map(|index| lab.topology.peerings[index].to);
        let gateways = lab.topology.gateways.iter().filter(|it| Some(it.vnet) == to);
        let gateways = gateways.map(|it| lab.reference(GATEWAYS, &it.name));
        properties.insert("remoteGateways".to_owned(), gateways.collect());
    }
    properties.insert("routeServiceVips".to_owned(), json!({}));
    body::child(vnet_id, "virtualNetworkPeerings", &row.name, properties)
}

fn read(lab: &Lab<'_>, target: &Target<'_>, name: &str, given: &Reader<'_>) -> Result<Peering, Error> {
    Ok(Peering {
        name: name.to_owned(),
        from: target.key.clone(),
        to: remote(lab, target, name, given)?,
        allow_virtual_network_access: given.flag("allowVirtualNetworkAccess")?,
        allow_forwarded_traffic: given.flag("allowForwardedTraffic")?,
        allow_gateway_transit: given.flag("allowGatewayTransit")?,
        use_remote_gateways: given.flag("useRemoteGateways")?,
        peer_complete_vnets: given.flag("peerCompleteVnets")?.filter(|complete| !complete),
        enable_only_ipv6_peering: given.flag("enableOnlyIPv6Peering")?.filter(|only| *only),
        local_subnet_names: given.texts("localSubnetNames")?,
        remote_subnet_names: given.texts("remoteSubnetNames")?,
        do_not_verify_remote_gateways: given.flag("doNotVerifyRemoteGateways")?.filter(|not| *not),
        ..Peering::default()
    })
}

/// The remote VNet; one that is gone is known by the peering that is left.
fn remote(lab: &Lab<'_>, target: &Target<'_>, name: &str, given: &Reader<'_>) -> Result<String, Error> {
    let at = given.at("remoteVirtualNetwork");
    let old = declared(lab, target, name);
    let Some(id) = given.get("remoteVirtualNetwork") else {
        return match old {
            Some(old) => Ok(old.to),
            None => Err(Error::body(&at, format!("{at} is missing"))),
        };
    };
    match (lab.resolve(id, VNETS, &at), old) {
        (Err(error), Some(old)) => {
            let named = Id::parse(id.get("id").and_then(Value::as_str).unwrap_or_default());
            let named = named.and_then(|id| id.parts.first().and_then(|part| part.1.clone()));
            match named {
                Some(named) if same(&named, super::lab::name_of(&old.to)) => Ok(old.to),
                _ => Err(error),
            }
        }
        (found, _) => found,
    }
}

/// As the lab declares it: its short form too.
fn declared(lab: &Lab<'_>, target: &Target<'_>, name: &str) -> Option<Peering> {
    let own = |it: &&Peering| same(&it.from, &target.key) && same(&it.name, name);
    let objects = lab.config.peerings.iter().filter_map(|entry| match entry {
        PeeringEntry::One(peering) => Some(&**peering),
        PeeringEntry::Both(_) => None,
    });
    if let Some(found) = objects.clone().find(own) {
        return Some(found.clone());
    }
    let vnet = lab.vnet(&target.key)?;
    let row = peerings_of(lab.topology, vnet)
        .into_iter()
        .find(|row| same(&row.name, name))?;
    Some(Peering {
        name: row.name,
        from: row.from,
        to: row.to,
        ..Peering::default()
    })
}

/// What a client may set, its defaults filled in.
fn settings(peering: &Peering) -> impl PartialEq + use<> {
    (
        peering.to.to_lowercase(),
        [
            peering.allow_virtual_network_access.unwrap_or(true),
            peering.allow_forwarded_traffic.unwrap_or(false),
            peering.allow_gateway_transit.unwrap_or(false),
            peering.use_remote_gateways.unwrap_or(false),
            peering.peer_complete_vnets.unwrap_or(true),
            peering.enable_only_ipv6_peering.unwrap_or(false),
            peering.do_not_verify_remote_gateways.unwrap_or(false),
        ],
        peering.local_subnet_names.clone(),
        peering.remote_subnet_names.clone(),
    )
}
