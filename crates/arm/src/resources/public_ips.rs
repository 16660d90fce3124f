//! Public addresses: kept here, given to NICs and gateways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::config::Address;
use serde_json::{Map, Value, json};

use super::kinds::{By, GATEWAYS, Kind, NETWORK, NICS, PUBLIC_IPS};
use super::lab::{Lab, Target};
use super::nics;
use super::read::Reader;
use crate::Error;
use crate::id::same;

/// Networks for documentation (RFC 5737), of which addresses are given.
const POOLS: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 0), Ipv4Addr::new(198, 51, 100, 0)];
/// The same for IPv6 (RFC 3849).
const POOL_V6: u128 = 0x2001_0db8_ffff_0000_0000_0000_0000_0000;
/// As many as the IPv4 pools have.
const MOST_V6: u128 = 512;

pub(super) const KIND: Kind = Kind {
    provider: NETWORK,
    name: PUBLIC_IPS,
    owned: &["ipConfiguration"],
    children: &[],
    carried_out: By::Store {
        show,
        put,
        delete: |lab, key| match user(lab, key) {
            None => Ok(()),
            Some(id) => {
                let message = format!(
                    "Public IP address {} can not be deleted since it is still allocated to resource {id}.",
                    lab.id(&KIND, key)
                );
                Err(Error::bad("PublicIPAddressCannotBeDeleted", message))
            }
        },
    },
};

/// The resource with this address.
pub(super) fn with_address(lab: &Lab<'_>, address: IpAddr) -> Option<String> {
    KIND.keys(lab)
        .into_iter()
        .find(|key| address_of(lab, key) == Some(address))
}

pub(super) fn address_of(lab: &Lab<'_>, key: &str) -> Option<IpAddr> {
    lab.kept_properties(key).get("ipAddress")?.as_str()?.parse().ok()
}

/// The address of `publicIPAddress` in an IP configuration.
pub(super) fn of_configuration(lab: &Lab<'_>, own: &Reader<'_>) -> Result<Option<Address>, Error> {
    let Some(reference) = own.get("publicIPAddress") else {
        return Ok(None);
    };
    let at = own.at("publicIPAddress");
    if reference.get("id").is_none_or(Value::is_null) {
        // One that a lab file gave, sent back.
        return Reader::new(reference, &at)?
            .object("properties")?
            .address("ipAddress");
    }
    let key = lab.resolve(reference, PUBLIC_IPS, &at)?;
    Ok(address_of(lab, &key).map(Address))
}

fn show(lab: &Lab<'_>, key: &str) -> Map<String, Value> {
    let mut properties = Map::new();
    if let Some(id) = user(lab, key) {
        properties.insert("ipConfiguration".to_owned(), json!({ "id": id }));
    }
    properties
}

fn put(lab: &Lab<'_>, target: &Target<'_>, body: &mut Value) -> Result<(), Error> {
    let given = Reader::new(body, "")?.object("properties")?;
    let version = given.text("publicIPAddressVersion")?.unwrap_or("IPv4");
    let version = if same(version, "IPv6") { "IPv6" } else { "IPv4" };
    let method = given.text("publicIPAllocationMethod")?.unwrap_or("Dynamic");
    let method = if same(method, "Static") {
        "Static"
    } else {
        "Dynamic"
    };
    let idle = given.number::<u16>("idleTimeoutInMinutes")?.unwrap_or(4);
    let old = address_of(lab, &target.key).filter(|it| it.is_ipv6() == (version == "IPv6"));
    let address = match old {
        Some(address) => address,
        None => unused(lab, version == "IPv6")?,
    };
    let properties = body
        .as_object_mut()
        .map(|body| body.entry("properties").or_insert_with(|| json!({})));
    if let Some(Value::Object(properties)) = properties {
        properties.insert("ipAddress".to_owned(), json!(address));
        properties.insert("publicIPAddressVersion".to_owned(), json!(version));
        properties.insert("publicIPAllocationMethod".to_owned(), json!(method));
        properties.insert("idleTimeoutInMinutes".to_owned(), json!(idle));
    }
    Ok(())
}

/// The lowest address that nobody has.
fn unused(lab: &Lab<'_>, ipv6: bool) -> Result<IpAddr, Error> {
    let kept: Vec<IpAddr> = KIND
        .keys(lab)
        .iter()
        .filter_map(|key| address_of(lab, key))
        .collect();
    let nics = lab.nics().flat_map(|nic| &nic.public_addresses);
    let gateways = lab.topology.gateways.iter().flat_map(|it| &it.public_addresses);
    let internet = lab.topology.internet.iter().flatten();
    let mut taken: Vec<IpAddr> = nics.chain(gateways).chain(internet).copied().collect();
    taken.extend(kept);
    let v4 = POOLS
        .into_iter()
        .flat_map(|net| (1..255).map(move |host| IpAddr::V4(Ipv4Addr::from(u32::from(net) + host))));
    let v6 = (1..MOST_V6).map(|host| IpAddr::V6(Ipv6Addr::from(POOL_V6 + host)));
    let mut all: Box<dyn Iterator<Item = IpAddr>> = if ipv6 { Box::new(v6) } else { Box::new(v4) };
    all.find(|address| !taken.contains(address)).ok_or_else(|| {
        Error::bad(
            "PublicIPCountLimitReached",
            "every public address there is to give is taken: delete one",
        )
    })
}

/// The id of what has it.
fn user(lab: &Lab<'_>, key: &str) -> Option<String> {
    let address = address_of(lab, key)?;
    let id = |kind: &str, name: &str| lab.reference(kind, name)["id"].as_str().map(str::to_owned);
    if let Some(nic) = lab.nics().find(|nic| nic.public_addresses.contains(&address)) {
        let index = nic
            .addresses
            .iter()
            .position(|it| it.is_ipv4() == address.is_ipv4())
            .unwrap_or(0);
        let names = nics::configuration_names(lab, &nic.name, nic.addresses.len());
        return Some(format!(
            "{}/ipConfigurations/{}",
            id(NICS, &nic.name)?,
            names.get(index)?
        ));
    }
    let gateway = lab
        .topology
        .gateways
        .iter()
        .find(|it| it.public_addresses.contains(&address))?;
    id(GATEWAYS, &gateway.name)
}
