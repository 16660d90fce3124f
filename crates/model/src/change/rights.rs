//! Which right each operation needs (PEER-35).

use super::{Operation, Refusal};
use crate::access::{Resource, authorize, authorize_peering, declared_vnet, object};
use crate::config::{Config, DeploymentModel, Vnet};
use crate::keys::{position, value};
use crate::words::shown;

/// # Errors
/// `AuthorizationFailed`, `LinkedAuthorizationFailed`.
pub(super) fn check(config: &Config, operation: &Operation, actor: Option<&str>) -> Result<(), Refusal> {
    if let Operation::PutPeering { peering } = operation {
        // Who asks; what the body says only where nobody in particular does.
        let who = actor.or(peering.principal.as_deref());
        known(config, who)?;
        return authorize_peering(config, who, &peering.name, &peering.from, &peering.to);
    }
    known(config, actor)?;
    let (resource, action) = needs(config, operation);
    authorize(config, actor, &action, &resource)
}

/// What an operation does, in ARM's words: the action, and the resource it is done to or in.
pub(super) fn summary(config: &Config, operation: &Operation) -> String {
    let (resource, action) = match operation {
        Operation::PutPeering { peering } => {
            let vnet = peering.from.clone();
            let name = peering.name.clone();
            needs(config, &Operation::SyncPeering { vnet, name })
        }
        operation => needs(config, operation),
    };
    format!("{action} {}", resource.path)
}

/// Whoever is no principal may do nothing.
fn known(config: &Config, actor: Option<&str>) -> Result<(), Refusal> {
    match actor {
        Some(name) if position(&config.principals, name).is_none() => Err(Refusal::new(
            "AuthorizationFailed",
            "principals",
            format!("there is no principal '{}'", shown(name)),
        )
        .help("declare it in 'principals'")),
        _ => Ok(()),
    }
}

/// A key of `resources`.
fn stored(config: &Config, key: &str, verb: &str) -> (Resource, String) {
    let (group, path) = key.split_once('/').unwrap_or((key, ""));
    let kinds: Vec<&str> = path
        .split('/')
        .enumerate()
        .filter(|(at, _)| *at == 0 || at % 2 == 1)
        .map(|(_, it)| it)
        .collect();
    let action = match path {
        "" => format!("Microsoft.Resources/subscriptions/resourceGroups/{verb}"),
        _ => format!("{}/{verb}", kinds.join("/")),
    };
    let resource = Resource {
        subscription: crate::keys::subscription_id(config, None),
        group: group.to_owned(),
        path: path.to_owned(),
    };
    (resource, action)
}

/// The resource and the action on it.
fn needs(config: &Config, operation: &Operation) -> (Resource, String) {
    use Operation as Op;
    let network = |kind: &str, parent: &str, child: &str, verb: &str| {
        let child = if child.is_empty() {
            String::new()
        } else {
            format!("/{child}")
        };
        let provider = if kind == "virtualMachines" {
            "Compute"
        } else {
            "Network"
        };
        (
            object(config, kind, parent),
            format!("Microsoft.{provider}/{kind}{child}/{verb}"),
        )
    };
    let of_vnet = |key: &str, declared: Option<&Vnet>, child: &str, verb: &str| {
        let classic = declared.is_some_and(|it| it.deployment_model == Some(DeploymentModel::Classic));
        let provider = if classic { "ClassicNetwork" } else { "Network" };
        let child = if child.is_empty() {
            String::new()
        } else {
            format!("/{child}")
        };
        (
            declared_vnet(config, key, declared.or(value(&config.vnets, key))),
            format!("Microsoft.{provider}/virtualNetworks{child}/{verb}"),
        )
    };
    let existing = |key: &str| value(&config.vnets, key);
    match operation {
        Op::PutVnet { name, vnet } => of_vnet(name, Some(existing(name).unwrap_or(vnet)), "", "write"),
        Op::DeleteVnet { name } => of_vnet(name, existing(name), "", "delete"),
        Op::PutSubnet { vnet, .. } => of_vnet(vnet, existing(vnet), "subnets", "write"),
        Op::DeleteSubnet { vnet, .. } => of_vnet(vnet, existing(vnet), "subnets", "delete"),
        Op::PutPeering { peering } => of_vnet(&peering.from, None, "virtualNetworkPeerings", "write"),
        Op::SyncPeering { vnet, .. } => of_vnet(vnet, None, "virtualNetworkPeerings", "write"),
        Op::DeletePeering { vnet, .. } => of_vnet(vnet, None, "virtualNetworkPeerings", "delete"),
        Op::PutRouteTable { name, .. } => network("routeTables", name, "", "write"),
        Op::DeleteRouteTable { name } => network("routeTables", name, "", "delete"),
        Op::PutRoute { table, .. } => network("routeTables", table, "routes", "write"),
        Op::DeleteRoute { table, .. } => network("routeTables", table, "routes", "delete"),
        Op::PutNsg { name, .. } => network("networkSecurityGroups", name, "", "write"),
        Op::DeleteNsg { name } => network("networkSecurityGroups", name, "", "delete"),
        Op::PutRule { nsg, .. } => network("networkSecurityGroups", nsg, "securityRules", "write"),
        Op::DeleteRule { nsg, .. } => network("networkSecurityGroups", nsg, "securityRules", "delete"),
        Op::PutAsg { name } => network("applicationSecurityGroups", name, "", "write"),
        Op::DeleteAsg { name } => network("applicationSecurityGroups", name, "", "delete"),
        Op::PutVm { name, .. } => network("virtualMachines", name, "", "write"),
        Op::DeleteVm { name } => network("virtualMachines", name, "", "delete"),
        Op::PutNic { name, .. } => network("networkInterfaces", name, "", "write"),
        Op::DeleteNic { name } => network("networkInterfaces", name, "", "delete"),
        Op::PutLoadBalancer { name, .. } => network("loadBalancers", name, "", "write"),
        Op::PutGateway { name, .. } => network("virtualNetworkGateways", name, "", "write"),
        Op::DeleteGateway { name } => network("virtualNetworkGateways", name, "", "delete"),
        Op::PutSite { name, .. } => network("localNetworkGateways", name, "", "write"),
        Op::DeleteSite { name } => network("localNetworkGateways", name, "", "delete"),
        Op::PutConnection { name, .. } => network("connections", name, "", "write"),
        Op::DeleteConnection { name } => network("connections", name, "", "delete"),
        // Azure has no such object: whoever may do everything with networks may do this.
        Op::PutLink { name, .. } | Op::Impair { name, .. } => network("links", name, "", "write"),
        Op::DeleteLink { name } => network("links", name, "", "delete"),
        // Nobody but the lab itself does this; the event was asked about when it happened.
        Op::ForgetEvent { .. } => network("events", "", "", "delete"),
        Op::DeleteLoadBalancer { name } => network("loadBalancers", name, "", "delete"),
        Op::PutFlowLog { .. } => network("networkWatchers", "NetworkWatcherRG", "flowLogs", "write"),
        Op::DeleteFlowLog { .. } => network("networkWatchers", "NetworkWatcherRG", "flowLogs", "delete"),
        Op::PutResource { key, .. } => stored(config, key, "write"),
        Op::DeleteResource { key } => stored(config, key, "delete"),
    }
}
