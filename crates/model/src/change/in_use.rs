//! What may not be deleted because something leans on it: VNET-09, ROUTE-10, NSG-02.

use super::Refusal;
use super::section::{same, value};
use crate::check::GATEWAY_SUBNET;
use crate::config::Config;
use crate::keys::automatic_nic;
use crate::problems::join;

/// `InUseRouteTableCannotBeDeleted` (ROUTE-10).
pub(super) fn route_table(config: &Config, name: &str) -> Result<(), Refusal> {
    let names = |given: &Option<String>| given.as_ref().is_some_and(|given| same(given, name));
    for (vnet_name, vnet) in &config.vnets {
        if let Some((subnet, _)) = vnet.subnets.iter().find(|(_, it)| names(&it.route_table)) {
            let message =
                format!("Route table {name} is in use by subnet {vnet_name}/{subnet} and cannot be deleted.");
            return Err(Refusal::new(
                "InUseRouteTableCannotBeDeleted",
                join("routeTables", name),
                message,
            )
            .help("take it off its subnets first"));
        }
    }
    Ok(())
}

/// `InUseNetworkSecurityGroupCannotBeDeleted` (NSG-02).
pub(super) fn nsg(config: &Config, name: &str) -> Result<(), Refusal> {
    let names = |given: &Option<String>| given.as_ref().is_some_and(|given| same(given, name));
    let subnets = config.vnets.iter().flat_map(|(vnet_name, vnet)| {
        let found = vnet
            .subnets
            .iter()
            .filter(|(_, it)| names(&it.network_security_group));
        found.map(move |(subnet, _)| format!("subnet {vnet_name}/{subnet}"))
    });
    let vms = config.vms.iter().filter(|(_, vm)| {
        names(&vm.network_security_group) || vm.nics.iter().any(|nic| names(&nic.network_security_group))
    });
    let nics = config
        .network_interfaces
        .iter()
        .filter(|(_, nic)| names(&nic.network_security_group));
    let mut users = subnets
        .chain(vms.map(|(vm, _)| format!("a NIC of {vm}")))
        .chain(nics.map(|(nic, _)| format!("NIC {nic}")));
    match users.next() {
        None => Ok(()),
        Some(user) => Err(Refusal::new(
            "InUseNetworkSecurityGroupCannotBeDeleted",
            join("networkSecurityGroups", name),
            format!("Network security group {name} is in use by {user} and cannot be deleted."),
        )
        .help("take it off its subnets and NICs first")),
    }
}

/// What is deployed in a subnet, the first of it (VNET-09).
pub(super) fn in_subnet(config: &Config, vnet: &str, subnet: &str) -> Option<String> {
    let here = |given: &str| {
        given
            .rsplit_once('/')
            .is_some_and(|(one, other)| same(one, vnet) && same(other, subnet))
    };
    let vms = config.vms.iter().find_map(|(name, vm)| {
        let short = vm.subnet.as_deref().filter(|given| here(given));
        let listed = vm.nics.iter().enumerate().find(|(_, nic)| here(&nic.subnet));
        match (short, listed) {
            (Some(_), _) => Some(format!("{name}-nic")),
            (None, Some((index, nic))) => {
                Some(nic.name.clone().unwrap_or_else(|| automatic_nic(name, index)))
            }
            (None, None) => None,
        }
    });
    let nics = || {
        let found = config
            .network_interfaces
            .iter()
            .find(|(_, nic)| here(&nic.subnet));
        found.map(|(name, _)| name.clone())
    };
    let balancers = || {
        let mut all = config.load_balancers.iter();
        let found = all.find(|(_, it)| it.frontends.values().any(|frontend| here(&frontend.subnet)));
        found.map(|(name, _)| name.clone())
    };
    let gateways = || {
        let gateway_subnet = same(subnet, GATEWAY_SUBNET);
        let mut all = config.gateways.iter().filter(|_| gateway_subnet);
        all.find(|(_, it)| same(&it.vnet, vnet))
            .map(|(name, _)| name.clone())
    };
    vms.or_else(nics).or_else(balancers).or_else(gateways)
}

/// `InUseSubnetCannotBeDeleted` (VNET-09).
pub(super) fn subnet(config: &Config, vnet: &str, subnet: &str) -> Result<(), Refusal> {
    let Some(user) = in_subnet(config, vnet, subnet) else {
        return Ok(());
    };
    let message = format!(
        "Subnet {subnet} is in use by {user} and cannot be deleted. In order to delete the subnet, delete all the \
         resources within the subnet."
    );
    Err(Refusal::new(
        "InUseSubnetCannotBeDeleted",
        format!("vnets.{vnet}.subnets.{subnet}"),
        message,
    ))
}

/// Nothing can be expected of a VM or NIC that is gone.
pub(super) fn forget_tests(config: &mut Config, name: &str) {
    let mut gone = vec![name.to_owned()];
    if let Some(vm) = value(&config.vms, name) {
        gone.push(automatic_nic(name, 0));
        let listed = vm.nics.iter().enumerate();
        gone.extend(
            listed.map(|(index, nic)| nic.name.clone().unwrap_or_else(|| automatic_nic(name, index))),
        );
    }
    let names = |word: &str| gone.iter().any(|name| same(word, name));
    config.tests.retain(|test| !names(&test.from) && !names(&test.to));
}
