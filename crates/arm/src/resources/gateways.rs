//! Virtual network gateways, and local network gateways, which are the sites at the other end.

use model::change::Operation;
use model::config::{Address, Gateway, GatewayType, Site, VpnType};
use serde_json::{Map, Value, json};

use super::body;
use super::kinds::{By, GATEWAYS, Kind, NETWORK, PUBLIC_IPS, SITES};
use super::lab::{Lab, Target};
use super::public_ips;
use super::read::Reader;
use crate::Error;
use crate::id::same;

/// GW-06: Azure's own.
const DEFAULT_ASN: u32 = 65515;
/// What Azure shows a site to have that says none.
const DEFAULT_SKU: &str = "VpnGw1";

pub(super) const KIND: Kind = Kind {
    provider: NETWORK,
    name: GATEWAYS,
    owned: &[
        "gatewayType",
        "vpnType",
        "activeActive",
        "active",
        "ipConfigurations",
        "sku",
    ],
    children: &[],
    carried_out: By::Model {
        keys: |lab| lab.config.gateways.keys().cloned().collect(),
        show,
        put,
        delete: |_, key| Ok(vec![Operation::DeleteGateway { name: key.to_owned() }]),
    },
};

pub(super) const SITE_KIND: Kind = Kind {
    provider: NETWORK,
    name: SITES,
    owned: &["localNetworkAddressSpace", "bgpSettings"],
    children: &[],
    carried_out: By::Model {
        keys: |lab| lab.config.sites.keys().cloned().collect(),
        show: show_site,
        put: put_site,
        delete: |_, key| Ok(vec![Operation::DeleteSite { name: key.to_owned() }]),
    },
};

fn put(lab: &Lab<'_>, target: &Target<'_>, body: &Value) -> Result<Vec<Operation>, Error> {
    let given = Reader::new(body, "")?.object("properties")?;
    let configurations = given.children("ipConfigurations")?.unwrap_or_default();
    let (mut vnet, mut public) = (None, Vec::new());
    for configuration in &configurations {
        let own = &configuration.properties;
        if let Some(id) = own.get("subnet") {
            let subnet = lab.resolve_subnet(id, &own.at("subnet"))?;
            vnet = subnet.rsplit_once('/').map(|(vnet, _)| vnet.to_owned());
        }
        public.extend(public_ips::of_configuration(lab, own)?);
    }
    let old = lab.config.gateways.get(&target.key);
    let vnet = vnet.or_else(|| old.map(|old| old.vnet.clone()));
    let at = given.at("ipConfigurations");
    let vnet =
        vnet.ok_or_else(|| Error::body(&at, "a gateway needs an IP configuration in a GatewaySubnet"))?;
    let bgp = given.object("bgpSettings")?;
    let gateway = Gateway {
        vnet,
        gateway_type: given.word("gatewayType", GatewayType::of, GatewayType::WORDS)?,
        vpn_type: given.word("vpnType", VpnType::of, VpnType::WORDS)?,
        sku: given.object("sku")?.text("name")?.map(str::to_owned),
        asn: bgp.number("asn")?.or(old.and_then(|old| old.asn)),
        active_active: given.flag("activeActive")?.or(given.flag("active")?),
        public_ip_addresses: public,
    };
    Ok(vec![Operation::PutGateway {
        name: target.key.clone(),
        gateway: Box::new(gateway),
    }])
}

fn show(lab: &Lab<'_>, key: &str) -> Map<String, Value> {
    let topology = lab.topology;
    let found = topology.gateways.iter().find(|it| same(&it.name, key));
    let (Some(declared), Some(gateway)) = (lab.config.gateways.get(key), found) else {
        return Map::new();
    };
    let id = lab.id(&KIND, key);
    let mut properties = Map::new();
    let subnet = (topology.vnets[gateway.vnet.0].subnets.iter())
        .find(|it| same(&topology.subnets[it.0].name, "GatewaySubnet"))
        .map(|subnet| json!({ "id": lab.subnet_id(*subnet) }));
    let configurations = gateway.addresses.iter().enumerate().map(|(index, _)| {
        let name = if index == 0 {
            "default".to_owned()
        } else {
            format!("activeActive{index}")
        };
        let mut own = Map::new();
        own.insert("privateIPAllocationMethod".to_owned(), json!("Dynamic"));
        body::set(&mut own, "subnet", subnet.clone());
        let address = gateway.public_addresses.get(index);
        let public = address.map(|address| match public_ips::with_address(lab, *address) {
            Some(key) => lab.reference(PUBLIC_IPS, &key),
            None => json!({ "properties": { "ipAddress": address } }),
        });
        body::set(&mut own, "publicIPAddress", public);
        body::child(&id, "ipConfigurations", &name, own)
    });
    properties.insert("ipConfigurations".to_owned(), configurations.collect());
    let sku = declared.sku.as_deref().unwrap_or(DEFAULT_SKU);
    properties.insert(
        "gatewayType".to_owned(),
        json!(declared.gateway_type.unwrap_or_default().word()),
    );
    properties.insert(
        "vpnType".to_owned(),
        json!(declared.vpn_type.unwrap_or_default().word()),
    );
    properties.insert("activeActive".to_owned(), json!(gateway.active_active()));
    properties.insert(
        "sku".to_owned(),
        json!({ "name": sku, "tier": sku, "capacity": 2 }),
    );
    let kept = lab.kept_properties(&lab.entry_key(&KIND, key));
    properties.insert(
        "enableBgp".to_owned(),
        kept.get("enableBgp").cloned().unwrap_or(json!(false)),
    );
    let addresses: Vec<String> = gateway.addresses.iter().map(ToString::to_string).collect();
    let bgp = json!({ "asn": gateway.asn, "bgpPeeringAddress": addresses.join(","), "peerWeight": 0 });
    properties.insert("bgpSettings".to_owned(), bgp);
    debug_assert!(gateway.asn == declared.asn.unwrap_or(DEFAULT_ASN), "GW-06");
    properties
}

fn put_site(lab: &Lab<'_>, target: &Target<'_>, body: &Value) -> Result<Vec<Operation>, Error> {
    let given = Reader::new(body, "")?.object("properties")?;
    let bgp = given.object("bgpSettings")?;
    let old = lab.config.sites.get(&target.key);
    let asn = bgp.number("asn")?;
    let space = given.object("localNetworkAddressSpace")?;
    let peer: Option<Address> = bgp.address("bgpPeeringAddress")?;
    let site = Site {
        address_prefixes: space.prefixes("addressPrefixes")?,
        asn,
        bgp_peering_address: peer.filter(|_| asn.is_some()),
        ..old.cloned().unwrap_or_default()
    };
    Ok(vec![Operation::PutSite {
        name: target.key.clone(),
        site: Box::new(site),
    }])
}

fn show_site(lab: &Lab<'_>, key: &str) -> Map<String, Value> {
    let found = lab.topology.sites.iter().find(|it| same(&it.name, key));
    let (Some(declared), Some(site)) = (lab.config.sites.get(key), found) else {
        return Map::new();
    };
    let mut properties = Map::new();
    let prefixes: Vec<String> = declared
        .address_prefixes
        .iter()
        .map(|it| it.0.to_string())
        .collect();
    properties.insert(
        "localNetworkAddressSpace".to_owned(),
        json!({ "addressPrefixes": prefixes }),
    );
    if let Some(asn) = site.asn {
        let bgp = json!({ "asn": asn, "bgpPeeringAddress": site.bgp_address, "peerWeight": 0 });
        properties.insert("bgpSettings".to_owned(), bgp);
    }
    properties
}
