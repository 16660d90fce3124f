//! What belongs to one NIC only, and which NICs may share a group: NSG-32.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::check::Scope;
use crate::check::addresses::Wish;
use crate::endpoint::INTERNET;
use crate::problems::{Problems, join};
use crate::topology::{RuleAddress, Topology, VmIndex, VnetIndex};
use crate::words::shown;

pub(crate) fn check(wishes: &[Wish], scope: &Scope<'_>, topology: &Topology, problems: &mut Problems) {
    unique(wishes, topology, problems);
    groups(wishes, scope, topology, problems);
}

/// NIC names and public addresses belong to one NIC each.
fn unique(wishes: &[Wish], topology: &Topology, problems: &mut Problems) {
    let mut names: HashMap<String, usize> = HashMap::new();
    let vms: HashMap<String, VmIndex> = topology
        .vms
        .iter()
        .enumerate()
        .map(|(index, vm)| (vm.name.to_lowercase(), VmIndex(index)))
        .collect();
    let mut public: HashMap<IpAddr, String> = HashMap::new();
    for (index, address) in topology.internet.iter().flatten().enumerate() {
        if public.insert(*address, "the Internet".to_owned()).is_some() {
            let message = format!("the address {address} is given twice");
            problems
                .error(
                    "Sim.DuplicateName",
                    format!("internet.addresses.{index}"),
                    message,
                )
                .help("remove one");
        }
    }
    for wish in wishes {
        let nic = &topology.nics[wish.nic.0];
        let lower = nic.name.to_lowercase();
        let other_vm = vms.get(&lower).is_some_and(|vm| nic.vm != Some(*vm));
        if names.insert(lower, wish.nic.0).is_some() || other_vm || nic.name.eq_ignore_ascii_case(INTERNET) {
            let what = if other_vm { "a VM" } else { "another NIC" };
            let what = if nic.name.eq_ignore_ascii_case(INTERNET) {
                "the test addresses"
            } else {
                what
            };
            let problem = problems.error(
                "Sim.DuplicateName",
                &wish.name_at,
                format!("the name '{}' of the NIC belongs to {what} too", shown(&nic.name)),
            );
            problem.help("names of VMs and NICs are unique in a lab: rename one");
            if wish.name_on_key {
                problem.on_key();
            }
        }
        for address in &nic.public_addresses {
            if let Some(owner) = public.insert(*address, nic.name.clone()) {
                let message = format!("the public address {address} belongs to {owner}");
                problems
                    .error("Sim.DuplicateName", join(&wish.at, "publicIPAddress"), message)
                    .help("give each NIC its own");
            }
        }
    }
}

/// NSG-32: the members of a group, and the groups of one rule, are in one VNet.
fn groups(wishes: &[Wish], scope: &Scope<'_>, topology: &Topology, problems: &mut Problems) {
    let mut homes: Vec<Option<VnetIndex>> = vec![None; topology.asgs.len()];
    for wish in wishes {
        let nic = &topology.nics[wish.nic.0];
        let vnet = topology.subnets[nic.subnet.0].vnet;
        for asg in &nic.asgs {
            let home = *homes[asg.0].get_or_insert(vnet);
            if home != vnet {
                let message = format!(
                    "NIC '{}' of VNet '{}' cannot join application security group '{}': its members are in VNet '{}'",
                    shown(&nic.name),
                    topology.vnets[vnet.0].name,
                    topology.asgs[asg.0].name,
                    topology.vnets[home.0].name
                );
                problems
                    .error("Sim.NSG-32", join(&wish.at, "applicationSecurityGroups"), message)
                    .help("use one group per VNet");
            }
        }
    }
    for (nsg, name) in topology
        .nsgs
        .iter()
        .zip(scope.config.network_security_groups.keys())
    {
        for rule in &nsg.rules {
            let sides = [&rule.source, &rule.destination];
            let members = sides.iter().filter_map(|side| match side {
                RuleAddress::Asgs(list) => Some(list),
                _ => None,
            });
            let mut found = members.flatten().filter_map(|asg| homes[asg.0]);
            if let Some(first) = found.next()
                && found.any(|other| other != first)
            {
                problems
                    .error(
                        "Sim.NSG-32",
                        format!("networkSecurityGroups.{name}.securityRules.{}", rule.name),
                        format!(
                            "the application security groups of rule '{}' are in different VNets",
                            rule.name
                        ),
                    )
                    .on_key()
                    .help("use address prefixes for NICs of another VNet");
            }
        }
    }
}
