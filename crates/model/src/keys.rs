//! Objects by name, and the group and subscription each is in. A key of the file is a name, or `group/name` where two groups
//! have one of that name.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::config::{Config, Vm};

/// What everything lives in when the file names no subscription.
pub const DEFAULT_SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";

/// As ARM compares names.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

pub(crate) fn position<T>(map: &IndexMap<String, T>, name: &str) -> Option<usize> {
    map.get_index_of(name)
        .or_else(|| map.keys().position(|key| same(key, name)))
}

pub(crate) fn value<'a, T>(map: &'a IndexMap<String, T>, name: &str) -> Option<&'a T> {
    map.get_index(position(map, name)?).map(|(_, object)| object)
}

/// The resource's own name.
pub(crate) fn name_of(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// Types of objects, as ids spell them, whose resource group a key of `resources` may say.
const GROUPED: &[&str] = &[
    "virtualNetworks",
    "routeTables",
    "networkSecurityGroups",
    "applicationSecurityGroups",
    "networkInterfaces",
    "loadBalancers",
    "virtualNetworkGateways",
    "localNetworkGateways",
    "connections",
    "virtualMachines",
];

/// The objects a lab declares, by type and key.
pub(crate) struct Objects(HashSet<String>);

impl Objects {
    /// Of a config where `resources` says anything; else nothing is asked of them, and they are empty.
    pub(crate) fn of(config: &Config) -> Self {
        let mut all = HashSet::new();
        if config.resources.is_empty() {
            return Self(all);
        }
        let mut add = |kind: &str, keys: &mut dyn Iterator<Item = &String>| {
            all.extend(keys.map(|key| format!("{kind}/{key}").to_lowercase()));
        };
        add("virtualNetworks", &mut config.vnets.keys());
        add("routeTables", &mut config.route_tables.keys());
        add(
            "networkSecurityGroups",
            &mut config.network_security_groups.keys(),
        );
        add(
            "applicationSecurityGroups",
            &mut config.application_security_groups.keys(),
        );
        add("networkInterfaces", &mut config.network_interfaces.keys());
        add("loadBalancers", &mut config.load_balancers.keys());
        add("virtualNetworkGateways", &mut config.gateways.keys());
        add("localNetworkGateways", &mut config.sites.keys());
        add("connections", &mut config.connections.keys());
        add("virtualMachines", &mut config.vms.keys());
        for (vm, declared) in &config.vms {
            let names: Vec<String> = nic_names(vm, declared).collect();
            add("networkInterfaces", &mut names.iter());
        }
        Self(all)
    }

    /// None: a lab has no objects of this type.
    pub(crate) fn declares(&self, kind: &str, key: &str) -> Option<bool> {
        GROUPED.iter().find(|it| it.eq_ignore_ascii_case(kind))?;
        Some(self.0.contains(&format!("{kind}/{key}").to_lowercase()))
    }
}

/// The names of a VM's NICs, in order.
pub(crate) fn nic_names<'a>(vm: &'a str, declared: &'a Vm) -> impl Iterator<Item = String> + 'a {
    (0..declared.nics.len().max(1)).map(move |index| {
        let given = declared.nics.get(index).and_then(|nic| nic.name.clone());
        given.unwrap_or_else(|| automatic_nic(vm, index))
    })
}

/// The name of a NIC that has none.
pub(crate) fn automatic_nic(vm: &str, index: usize) -> String {
    if index == 0 {
        format!("{vm}-nic")
    } else {
        format!("{vm}-nic{index}")
    }
}

/// The groups that `resources` says, each with type and name of the object: where two groups have one of a name, the key of
/// one of them says its own.
pub(crate) fn groups_said(config: &Config) -> impl Iterator<Item = (&str, &str, &str)> {
    let objects = Objects::of(config);
    let stored = config.resources.keys().filter_map(|key| split_resource(key));
    stored
        .filter(move |(group, kind, name)| objects.declares(kind, &format!("{group}/{name}")) == Some(false))
}

/// Group, type and name of a key `GROUP/PROVIDER/TYPE/NAME`; None for a resource group and for children.
pub(crate) fn split_resource(key: &str) -> Option<(&str, &str, &str)> {
    let mut parts = key.split('/');
    let (group, _provider, kind, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some((group, kind, name))
}

/// The resource group of an object: what its key says, else what `resources` says, else the lab's.
pub(crate) fn group_of<'a>(config: &'a Config, kind: &str, key: &'a str) -> &'a str {
    if let Some((group, _)) = key.split_once('/') {
        return group;
    }
    let found = groups_said(config)
        .find(|(_, of, name)| of.eq_ignore_ascii_case(kind) && name.eq_ignore_ascii_case(key));
    let lab = config.resource_group.as_deref().unwrap_or(&config.name);
    found.map_or(lab, |(group, _, _)| group)
}

/// The id of a named subscription, or of the default one.
#[must_use]
pub fn subscription_id(config: &Config, name: Option<&str>) -> String {
    let index = name.and_then(|name| position(&config.subscriptions, name));
    let Some((name, subscription)) = index.and_then(|index| config.subscriptions.get_index(index)) else {
        return DEFAULT_SUBSCRIPTION.to_owned();
    };
    subscription.id.as_ref().map_or_else(
        || uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.to_lowercase().as_bytes()).to_string(),
        |id| id.to_lowercase(),
    )
}
