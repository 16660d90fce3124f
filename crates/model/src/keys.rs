//! Objects by name, and the group and subscription each is in. A key of the file is a name, or `group/name` where two groups
//! have one of that name.

use indexmap::IndexMap;

use crate::config::Config;

/// What everything lives in when the file names no subscription.
pub(crate) const DEFAULT_SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";

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

/// The resource group the key says, else the lab's.
pub(crate) fn group_of<'a>(config: &'a Config, key: &'a str) -> &'a str {
    let lab = config.resource_group.as_deref().unwrap_or(&config.name);
    key.split_once('/').map_or(lab, |(group, _)| group)
}

/// The id of a named subscription, or of the default one.
pub(crate) fn subscription_id(config: &Config, name: Option<&str>) -> String {
    let index = name.and_then(|name| position(&config.subscriptions, name));
    let Some((name, subscription)) = index.and_then(|index| config.subscriptions.get_index(index)) else {
        return DEFAULT_SUBSCRIPTION.to_owned();
    };
    subscription.id.as_ref().map_or_else(
        || uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.to_lowercase().as_bytes()).to_string(),
        |id| id.to_lowercase(),
    )
}
