//! Addresses stay with their NICs: what the file leaves out is given once, not again after each change.

use super::{Refusal, checked};
use crate::config::{Address, Config, LoadBalancer, Nic, Vm, VmNic};
use crate::keys::value;
use crate::topology::{self, NicIndex};

/// Writes down the address of every NIC that declares none.
///
/// # Errors
/// The declared state is itself refused.
pub(super) fn addresses(config: &mut Config) -> Result<(), Refusal> {
    let given = |single: &Option<Address>, list: &[Address]| single.is_some() || !list.is_empty();
    let all = config.vms.values().all(|vm| {
        vm.nics
            .iter()
            .all(|it| given(&it.private_ip_address, &it.private_ip_addresses))
            && (vm.subnet.is_none() || given(&vm.private_ip_address, &vm.private_ip_addresses))
    }) && config
        .network_interfaces
        .values()
        .all(|it| given(&it.private_ip_address, &it.private_ip_addresses))
        && config.load_balancers.values().all(|it| {
            it.frontends
                .values()
                .all(|frontend| frontend.private_ip_address.is_some())
        });
    if all {
        return Ok(());
    }
    let topology = checked(config)?;
    let mut nics = (0..topology.nics.len()).map(NicIndex);
    for (vm, resolved) in config.vms.values_mut().zip(&topology.vms) {
        if vm.nics.is_empty() {
            let nic = nics.next().and_then(|index| topology.nics.get(index.0));
            if !given(&vm.private_ip_address, &vm.private_ip_addresses) {
                vm.private_ip_addresses = of(nic);
            }
        }
        debug_assert_eq!(
            resolved.nics.len(),
            vm.nics.len().max(1),
            "a NIC of the file is one of the topology"
        );
        for nic in &mut vm.nics {
            let resolved = nics.next().and_then(|index| topology.nics.get(index.0));
            if !given(&nic.private_ip_address, &nic.private_ip_addresses) {
                nic.private_ip_addresses = of(resolved);
            }
        }
    }
    let mut waiting = topology.detached_nics.iter();
    for nic in config.network_interfaces.values_mut() {
        let resolved = if nic.detached == Some(true) {
            waiting.next()
        } else {
            nics.next().and_then(|index| topology.nics.get(index.0))
        };
        if !given(&nic.private_ip_address, &nic.private_ip_addresses) {
            nic.private_ip_addresses = of(resolved);
        }
    }
    for (balancer, resolved) in config.load_balancers.values_mut().zip(&topology.load_balancers) {
        for (frontend, resolved) in balancer.frontends.values_mut().zip(&resolved.frontends) {
            frontend
                .private_ip_address
                .get_or_insert(Address(resolved.address));
        }
    }
    Ok(())
}

/// The VM as wanted, with the addresses its NICs have where it says none and they stay in their subnets.
pub(super) fn kept(old: Option<&Vm>, wanted: &Vm) -> Vm {
    let mut vm = wanted.clone();
    let Some(old) = old else { return vm };
    let before = vm_nics(old);
    let silent = |nic: &VmNic| nic.private_ip_address.is_none() && nic.private_ip_addresses.is_empty();
    if vm.nics.is_empty() {
        let (nic, _) = vm.short_form();
        let same = before
            .first()
            .filter(|old| old.name.is_none() && stays(old, &nic));
        if silent(&nic)
            && let Some(old) = same
        {
            vm.private_ip_address = old.private_ip_address;
            vm.private_ip_addresses.clone_from(&old.private_ip_addresses);
        }
    }
    for (index, nic) in vm.nics.iter_mut().enumerate() {
        let same = match &nic.name {
            Some(name) => before.iter().find(|old| old.name.as_deref() == Some(name)),
            None => before.get(index).filter(|old| old.name.is_none()),
        };
        if silent(nic)
            && let Some(old) = same.filter(|old| stays(old, nic))
        {
            nic.private_ip_address = old.private_ip_address;
            nic.private_ip_addresses.clone_from(&old.private_ip_addresses);
        }
    }
    vm
}

/// The same for a NIC without a VM.
pub(super) fn kept_nic(old: Option<&Nic>, wanted: &Nic) -> Nic {
    let mut nic = wanted.clone();
    if let Some(old) = old
        && nic.private_ip_address.is_none()
        && nic.private_ip_addresses.is_empty()
        && old.subnet.eq_ignore_ascii_case(&nic.subnet)
    {
        nic.private_ip_address = old.private_ip_address;
        nic.private_ip_addresses.clone_from(&old.private_ip_addresses);
    }
    nic
}

/// The same for the frontends of a load balancer.
pub(super) fn kept_balancer(old: Option<&LoadBalancer>, wanted: &LoadBalancer) -> LoadBalancer {
    let mut balancer = wanted.clone();
    for (name, frontend) in &mut balancer.frontends {
        let old = old.and_then(|old| value(&old.frontends, name));
        if frontend.private_ip_address.is_none()
            && let Some(old) = old.filter(|old| old.subnet.eq_ignore_ascii_case(&frontend.subnet))
        {
            frontend.private_ip_address = old.private_ip_address;
        }
    }
    balancer
}

fn stays(old: &VmNic, new: &VmNic) -> bool {
    old.subnet.eq_ignore_ascii_case(&new.subnet)
}

fn vm_nics(vm: &Vm) -> Vec<VmNic> {
    if vm.nics.is_empty() {
        vec![vm.short_form().0]
    } else {
        vm.nics.clone()
    }
}

fn of(nic: Option<&topology::Nic>) -> Vec<Address> {
    let addresses = nic.into_iter().flat_map(|nic| &nic.addresses);
    addresses.map(|address| Address(*address)).collect()
}
