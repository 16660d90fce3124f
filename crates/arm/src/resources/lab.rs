//! The lab as ids and bodies see it: which object an id means, and what is kept about it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::change::Operation;
use model::config::StoredResource;
use model::topology::{Nic, SubnetIndex, VnetIndex};
use model::{Config, Topology};
use serde_json::{Map, Value, json};

use super::kinds::{self, Kind};
use crate::id::same;
use crate::{Error, Id, View};

/// First host number that a NIC may have in a subnet (VNET-03): the ones below are Azure's own.
const FIRST_HOST: u128 = 4;

/// A view, and what is looked up in it again and again.
pub(super) struct Lab<'a> {
    pub(super) view: View<'a>,
    pub(super) config: &'a Config,
    pub(super) topology: &'a Topology,
    /// `resources` by key in lower case.
    kept: HashMap<String, &'a StoredResource>,
}

/// A top-level resource that a request is about.
pub(super) struct Target<'a> {
    pub(super) kind: &'static Kind,
    pub(super) subscription: &'a str,
    pub(super) group: String,
    pub(super) name: String,
    /// Of the object; where it does not exist, what it is to be.
    pub(super) key: String,
    pub(super) exists: bool,
}

impl<'a> Lab<'a> {
    pub(super) fn new(view: &View<'a>) -> Self {
        let resources = view.config.resources.iter();
        Self {
            view: *view,
            config: view.config,
            topology: &view.generation.topology,
            kept: resources.map(|(key, it)| (key.to_lowercase(), it)).collect(),
        }
    }

    pub(super) fn group_of(&self, kind: &Kind, key: &str) -> String {
        if kind.modelled() {
            return self.topology.groups.group(kind.name, key).to_owned();
        }
        key.split('/').next().unwrap_or_default().to_owned()
    }

    /// The key in `resources` of what is kept about an object.
    pub(super) fn entry_key(&self, kind: &Kind, key: &str) -> String {
        if !kind.modelled() {
            return key.to_owned();
        }
        let (group, name) = (self.group_of(kind, key), name_of(key));
        format!("{group}/{}/{}/{name}", kind.provider, kind.name)
    }

    pub(super) fn kept(&self, entry: &str) -> Option<&'a StoredResource> {
        self.kept.get(&entry.to_lowercase()).copied()
    }

    /// The members of a body that were kept.
    pub(super) fn kept_members(&self, entry: &str) -> Map<String, Value> {
        let text = self.kept(entry).and_then(|it| it.properties.as_deref());
        let value = text.and_then(|text| serde_json::from_str(text).ok());
        match value {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        }
    }

    pub(super) fn kept_properties(&self, entry: &str) -> Map<String, Value> {
        match self.kept_members(entry).remove("properties") {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        }
    }

    /// The ARM id of an object.
    pub(super) fn id(&self, kind: &Kind, key: &str) -> String {
        if kind.name == kinds::VNETS {
            return model::access::vnet(self.config, key).id();
        }
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/{}/{}/{}",
            model::access::subscription(self.config, None),
            self.group_of(kind, key),
            kind.provider,
            kind.name,
            name_of(key)
        )
    }

    /// `{"id": ...}` of an object.
    pub(super) fn reference(&self, kind: &str, key: &str) -> Value {
        match kinds::network(kind) {
            Some(kind) => json!({ "id": self.id(kind, key) }),
            None => Value::Null,
        }
    }

    /// The key of the object that a group has under this name.
    pub(super) fn find(&self, kind: &Kind, group: &str, name: &str) -> Option<String> {
        let here = |key: &String| same(name_of(key), name) && same(&self.group_of(kind, key), group);
        kind.keys(self).into_iter().find(here)
    }

    /// The key of the object that an id in a body means.
    pub(super) fn resolve(&self, id: &Value, kind: &str, at: &str) -> Result<String, Error> {
        Ok(self.resolve_child(id, kind, None, at)?.0)
    }

    /// The same, and the name of a child such as `subnets` of it.
    pub(super) fn resolve_child(
        &self,
        id: &Value,
        kind: &str,
        child: Option<&str>,
        at: &str,
    ) -> Result<(String, String), Error> {
        let text = id.get("id").and_then(Value::as_str).unwrap_or_default();
        let wrong = || Error::body(at, format!("expected the id of one of {kind} at {at}"));
        let found = Id::parse(text).ok_or_else(wrong)?;
        let mut parts = found.parts.iter();
        let (of, name) = parts.next().ok_or_else(wrong)?;
        let (Some(group), Some(name)) = (&found.group, name) else {
            return Err(wrong());
        };
        let known = kinds::of(found.provider.as_deref().unwrap_or_default(), of);
        let known = known.filter(|it| it.name == kind).ok_or_else(wrong)?;
        let own = match (child, parts.next()) {
            (None, _) => String::new(),
            (Some(child), Some((of, Some(name)))) if same(of, child) => name.clone(),
            _ => return Err(wrong()),
        };
        match self.find(known, group, name) {
            Some(key) => Ok((key, own)),
            None => Err(Error {
                target: Some(at.to_owned()),
                ..Error::bad(
                    "InvalidResourceReference",
                    format!(
                        "Resource {text} referenced by {at} was not found. Please make sure that the referenced resource exists."
                    ),
                )
            }),
        }
    }

    /// `VNET/SUBNET`, as NICs name their subnet.
    pub(super) fn resolve_subnet(&self, id: &Value, at: &str) -> Result<String, Error> {
        let (vnet, subnet) = self.resolve_child(id, kinds::VNETS, Some("subnets"), at)?;
        let declared = self.config.vnets.get(&vnet);
        let found = declared.and_then(|it| it.subnets.keys().find(|name| same(name, &subnet)));
        match found {
            Some(subnet) => Ok(format!("{vnet}/{subnet}")),
            None => Err(Error {
                target: Some(at.to_owned()),
                ..Error::bad(
                    "InvalidResourceReference",
                    format!("Subnet {subnet} of virtual network {vnet} referenced by {at} was not found."),
                )
            }),
        }
    }

    pub(super) fn vnet(&self, key: &str) -> Option<VnetIndex> {
        let index = self.config.vnets.get_index_of(key)?;
        Some(VnetIndex(index))
    }

    /// The subnet that `VNET/SUBNET` names.
    pub(super) fn subnet(&self, text: &str) -> Option<SubnetIndex> {
        let (vnet, name) = text.rsplit_once('/')?;
        let index = self.config.vnets.keys().position(|key| same(key, vnet))?;
        let mut subnets = self.topology.vnets.get(index)?.subnets.iter().copied();
        subnets.find(|subnet| same(&self.topology.subnets[subnet.0].name, name))
    }

    pub(super) fn subnet_id(&self, subnet: SubnetIndex) -> String {
        let subnet = &self.topology.subnets[subnet.0];
        let vnet = model::access::vnet(self.config, &self.topology.vnets[subnet.vnet.0].name).id();
        format!("{vnet}/subnets/{}", subnet.name)
    }

    /// Every NIC, those that wait for a VM too.
    pub(super) fn nics(&self) -> impl Iterator<Item = &'a Nic> {
        self.topology.nics.iter().chain(&self.topology.detached_nics)
    }

    /// The addresses that are taken in a VNet.
    pub(super) fn taken(&self, vnet: VnetIndex) -> HashSet<IpAddr> {
        let in_vnet = |subnet: SubnetIndex| self.topology.subnets[subnet.0].vnet == vnet;
        let nics = self
            .nics()
            .filter(|nic| in_vnet(nic.subnet))
            .flat_map(|nic| nic.addresses.iter().copied());
        let balancers = self.topology.load_balancers.iter().flat_map(|it| &it.frontends);
        let frontends = balancers.filter(|it| in_vnet(it.subnet)).map(|it| it.address);
        let gateways = self.topology.gateways.iter().filter(|it| it.vnet == vnet);
        let gateways = gateways.flat_map(|it| it.addresses.iter().copied());
        nics.chain(frontends).chain(gateways).collect()
    }

    /// Puts the object, what is kept about it, and its group where they belong.
    pub(super) fn keep(&self, target: &Target<'_>, body: &Value) -> Operation {
        let old = self.kept(&target.entry());
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let tags = body.get("tags").and_then(Value::as_object).into_iter().flatten();
        let tags = tags.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        let location = old
            .and_then(|it| it.location.clone())
            .or_else(|| text("location"));
        Operation::PutResource {
            key: target.entry(),
            resource: Box::new(StoredResource {
                location: location.map(|it| canonical_location(&it)),
                tags: tags.collect(),
                properties: leftover(body, target.kind.owned),
            }),
        }
    }
}

impl Target<'_> {
    /// The key in `resources`.
    pub(super) fn entry(&self) -> String {
        format!(
            "{}/{}/{}/{}",
            self.group, self.kind.provider, self.kind.name, self.name
        )
    }
}

/// Free addresses of a prefix, lowest first.
pub(super) fn free(prefix: IpNet, taken: &HashSet<IpAddr>) -> impl Iterator<Item = IpAddr> + '_ {
    let (first, last) = bounds(prefix);
    let numbers = (first + FIRST_HOST)..last;
    numbers
        .map(move |number| to_address(number, prefix))
        .filter(|address| !taken.contains(address))
}

fn bounds(prefix: IpNet) -> (u128, u128) {
    match prefix {
        IpNet::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into()),
        IpNet::V6(net) => (u128::from(net.network()), u128::from(net.broadcast())),
    }
}

fn to_address(number: u128, prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or_default().into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

/// The resource's own name.
pub(super) fn name_of(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// `East US` is `eastus`.
pub(super) fn canonical_location(text: &str) -> String {
    text.to_lowercase().replace(' ', "")
}

/// What of a body the model has no place for, as text; None: nothing.
pub(super) fn leftover(body: &Value, owned: &[&str]) -> Option<String> {
    const NOT_KEPT: [&str; 9] = [
        "id",
        "name",
        "type",
        "location",
        "tags",
        "etag",
        "properties",
        "resources",
        "peerlane",
    ];
    const READ_ONLY: [&str; 4] = ["provisioningState", "resourceGuid", "timeCreated", "vmId"];
    let members = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut kept = members(Some(body));
    let mut properties = members(body.get("properties"));
    kept.retain(|name, value| !NOT_KEPT.contains(&name.as_str()) && !value.is_null());
    properties.retain(|name, value| {
        !READ_ONLY.contains(&name.as_str()) && !owned.contains(&name.as_str()) && !value.is_null()
    });
    scrub(&mut properties);
    if !properties.is_empty() {
        kept.insert("properties".to_owned(), Value::Object(properties));
    }
    (!kept.is_empty()).then(|| Value::Object(kept).to_string())
}

/// Secrets are not kept: nothing here uses them.
fn scrub(members: &mut Map<String, Value>) {
    const SECRETS: [&str; 6] = [
        "adminPassword",
        "customData",
        "userData",
        "secrets",
        "protectedSettings",
        "sharedKey",
    ];
    members.retain(|name, _| !SECRETS.contains(&name.as_str()));
    for value in members.values_mut() {
        match value {
            Value::Object(members) => scrub(members),
            Value::Array(items) => items.iter_mut().filter_map(Value::as_object_mut).for_each(scrub),
            _ => {}
        }
    }
}
