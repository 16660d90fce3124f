//! What is kept of resources goes with the objects it is about.

use super::Operation;
use crate::config::Config;
use crate::keys::{Objects, value};

/// Forgets what was said of objects that are gone, so that a new one of the name begins without it.
pub(super) fn sweep(config: &mut Config) {
    if config.resources.is_empty() {
        return;
    }
    let objects = Objects::of(config);
    let stored = std::mem::take(&mut config.resources);
    let kept = stored
        .into_iter()
        .filter(|(key, _)| stands(config, &objects, key))
        .collect();
    config.resources = kept;
}

/// What was said of an object whose key says its group; once it is gone, the entry would seem to be about another of its name.
pub(super) fn forget(config: &mut Config, operation: &Operation) {
    use Operation as Op;
    let (kind, key) = match operation {
        Op::DeleteVnet { name } => ("virtualNetworks", name),
        Op::DeleteRouteTable { name } => ("routeTables", name),
        Op::DeleteNsg { name } => ("networkSecurityGroups", name),
        Op::DeleteAsg { name } => ("applicationSecurityGroups", name),
        Op::DeleteNic { name } => ("networkInterfaces", name),
        Op::DeleteLoadBalancer { name } => ("loadBalancers", name),
        Op::DeleteGateway { name } => ("virtualNetworkGateways", name),
        Op::DeleteSite { name } => ("localNetworkGateways", name),
        Op::DeleteConnection { name } => ("connections", name),
        _ => return,
    };
    let Some((group, name)) = key.split_once('/') else {
        return;
    };
    let own = format!("{group}/Microsoft.Network/{kind}/{name}").to_lowercase();
    let children = format!("{own}/");
    config.resources.retain(|key, _| {
        let key = key.to_lowercase();
        key != own && !key.starts_with(&children)
    });
}

fn stands(config: &Config, objects: &Objects, key: &str) -> bool {
    let parts: Vec<&str> = key.split('/').collect();
    let [group, _, kind, name, child @ ..] = parts.as_slice() else {
        return true;
    };
    let other = format!("{group}/{name}");
    let parent = match (objects.declares(kind, &other), objects.declares(kind, name)) {
        (None, _) => return true,
        (Some(true), _) => other.as_str(),
        (_, Some(true)) => name,
        _ => return false,
    };
    match child {
        [kind, name] if kind.eq_ignore_ascii_case("subnets") => {
            value(&config.vnets, parent).is_some_and(|it| value(&it.subnets, name).is_some())
        }
        [kind, name] if kind.eq_ignore_ascii_case("virtualNetworkPeerings") => {
            super::peerings::find(config, parent, name).is_some()
        }
        [kind, name] if kind.eq_ignore_ascii_case("routes") => {
            value(&config.route_tables, parent).is_some_and(|it| value(&it.routes, name).is_some())
        }
        [kind, name] if kind.eq_ignore_ascii_case("securityRules") => {
            value(&config.network_security_groups, parent)
                .is_some_and(|it| value(&it.security_rules, name).is_some())
        }
        _ => true,
    }
}
