//! VMs and NICs, and their membership in groups: NVA-02, NSG-32, NSG-34, GW-01, VNET-10.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::check::Scope;
use crate::check::addresses::{self, Wish};
use crate::check::names;
use crate::check::ranges;
use crate::config::{self, Address, PublicAddresses};
use crate::decode::shown;
use crate::endpoint::INTERNET;
use crate::problems::{Problems, join};
use crate::topology::{
    AsgIndex, Nic, NicIndex, NsgIndex, PortNamespace, RuleAddress, SubnetIndex, Topology, Vm, VmIndex,
    VnetIndex,
};

/// NSG-34.
const MOST_ASGS: usize = 20;

/// What the three places that declare a NIC have in common.
struct Declared<'a> {
    name: String,
    /// Made from the VM's name, which is checked itself.
    automatic: bool,
    /// Where the properties stand.
    at: String,
    /// Where the name stands: a property, or the key of a VM or NIC.
    name_at: String,
    name_on_key: bool,
    subnet: &'a str,
    single: Option<Address>,
    listed: &'a [Address],
    ip_forwarding: bool,
    nsg: Option<&'a String>,
    asgs: &'a [String],
    public: Option<&'a PublicAddresses>,
}

/// Fills `topology.vms`, `topology.nics` and `topology.internet`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let mut wishes = Vec::new();
    internet(scope, topology, problems);
    for (name, vm) in &scope.config.vms {
        let at = join("vms", name);
        names::vm_name(name, &at, problems);
        let index = VmIndex(topology.vms.len());
        vm_facts(name, vm, &at, topology, problems);
        let nics = vm_nics(name, vm, &at, problems);
        let nics = nics
            .into_iter()
            .filter_map(|nic| add(scope, nic, Some(index), topology, &mut wishes, problems));
        let nics = nics.collect();
        topology.vms[index.0].nics = nics;
    }
    for (name, nic) in &scope.config.network_interfaces {
        let at = join("networkInterfaces", name);
        if nic.enable_ip_forwarding == Some(true) {
            problems
                .error(
                    "Sim.NVA-02",
                    join(&at, "enableIPForwarding"),
                    "a NIC without a VM cannot forward",
                )
                .help("make it a NIC of a VM with 'forwarding: true'");
        }
        let declared = Declared {
            name: name.clone(),
            automatic: false,
            name_at: at.clone(),
            name_on_key: true,
            at,
            subnet: &nic.subnet,
            single: nic.private_ip_address,
            listed: &nic.private_ip_addresses,
            ip_forwarding: nic.enable_ip_forwarding.unwrap_or(false),
            nsg: nic.network_security_group.as_ref(),
            asgs: &nic.application_security_groups,
            public: nic.public_ip_address.as_ref(),
        };
        add(scope, declared, None, topology, &mut wishes, problems);
    }
    addresses::allocate(&wishes, topology, problems);
    unique(&wishes, topology, problems);
    groups(&wishes, scope, topology, problems);
}

/// Everything of a VM but its NICs.
fn vm_facts(name: &str, vm: &config::Vm, at: &str, topology: &mut Topology, problems: &mut Problems) {
    let taken = topology.vnets.iter().find(|vnet| {
        vnet.name.eq_ignore_ascii_case(name)
            && vnet
                .tun
                .as_ref()
                .is_some_and(|port| port.namespace == PortNamespace::Lab)
    });
    if let Some(vnet) = taken {
        let message = format!("the port of VNet '{}' has a namespace of this name", vnet.name);
        problems
            .error("Sim.DuplicateName", at, message)
            .on_key()
            .help("rename the VM");
    }
    if name.eq_ignore_ascii_case(INTERNET) {
        problems
            .error(
                "Sim.DuplicateName",
                at,
                format!("'{INTERNET}' is the namespace of the test addresses"),
            )
            .on_key()
            .help("rename the VM");
    }
    if vm.size.is_some() {
        problems.note(
            join(at, "size"),
            "the size has no effect yet: egress is not capped",
        );
    }
    for (index, command) in vm.run.iter().enumerate() {
        if command.trim().is_empty() || command.contains('\0') {
            let message = format!("'{}' is no command", shown(command));
            problems
                .error("Sim.Value", join(at, &format!("run.{index}")), message)
                .help("remove it");
        }
    }
    topology.vms.push(Vm {
        name: name.to_owned(),
        size: vm.size.clone(),
        forwarding: vm.forwarding.unwrap_or(false),
        nics: Vec::new(),
        run: vm.run.clone(),
    });
}

/// The short form is one NIC; both forms together are refused.
fn vm_nics<'a>(name: &str, vm: &'a config::Vm, at: &str, problems: &mut Problems) -> Vec<Declared<'a>> {
    let listed = vm.nics.iter().enumerate().map(|(index, nic)| {
        let at = join(at, &format!("nics.{index}"));
        let automatic = if index == 0 {
            format!("{name}-nic")
        } else {
            format!("{name}-nic{index}")
        };
        Declared {
            automatic: nic.name.is_none(),
            name: nic.name.clone().unwrap_or(automatic),
            name_at: join(&at, "name"),
            name_on_key: false,
            at,
            subnet: &nic.subnet,
            single: nic.private_ip_address,
            listed: &nic.private_ip_addresses,
            ip_forwarding: nic.enable_ip_forwarding.unwrap_or(false),
            nsg: nic.network_security_group.as_ref(),
            asgs: &nic.application_security_groups,
            public: nic.public_ip_address.as_ref(),
        }
    });
    let mut nics: Vec<Declared<'a>> = listed.collect();
    let Some(subnet) = &vm.subnet else {
        if nics.is_empty() && !problems.unreadable(at) {
            problems
                .error("Sim.Value", at, format!("VM '{name}' has no NIC"))
                .on_key()
                .help("add 'subnet: VNET/SUBNET', or 'nics'");
        }
        let short = [
            ("privateIPAddress", vm.private_ip_address.is_some()),
            ("privateIPAddresses", !vm.private_ip_addresses.is_empty()),
            ("enableIPForwarding", vm.enable_ip_forwarding.is_some()),
            ("networkSecurityGroup", vm.network_security_group.is_some()),
            (
                "applicationSecurityGroups",
                !vm.application_security_groups.is_empty(),
            ),
            ("publicIPAddress", vm.public_ip_address.is_some()),
        ];
        for (property, _) in short.into_iter().filter(|(_, given)| *given) {
            problems
                .error(
                    "Sim.Value",
                    join(at, property),
                    format!("'{property}' belongs to a NIC of 'nics'"),
                )
                .help("move it into the entry of 'nics'");
        }
        return nics;
    };
    if !nics.is_empty() {
        problems
            .error(
                "Sim.Value",
                join(at, "subnet"),
                "both 'subnet' and 'nics' are given",
            )
            .help("move the NIC's properties into the entries of 'nics'");
        return nics;
    }
    nics.push(Declared {
        name: format!("{name}-nic"),
        automatic: true,
        name_at: at.to_owned(),
        name_on_key: true,
        at: at.to_owned(),
        subnet,
        single: vm.private_ip_address,
        listed: &vm.private_ip_addresses,
        ip_forwarding: vm.enable_ip_forwarding.unwrap_or(false),
        nsg: vm.network_security_group.as_ref(),
        asgs: &vm.application_security_groups,
        public: vm.public_ip_address.as_ref(),
    });
    nics
}

/// Adds the NIC without its addresses; None where its subnet does not exist.
fn add(
    scope: &Scope<'_>,
    declared: Declared<'_>,
    vm: Option<VmIndex>,
    topology: &mut Topology,
    wishes: &mut Vec<Wish>,
    problems: &mut Problems,
) -> Option<NicIndex> {
    let Declared {
        name,
        at,
        name_at,
        name_on_key,
        ..
    } = declared;
    if !declared.automatic && !problems.unreadable(&at) {
        names::resource_name(&name, &name_at, name_on_key, problems);
    }
    let nsg = declared.nsg.and_then(|name| {
        scope
            .nsgs
            .find(name, &join(&at, "networkSecurityGroup"), problems)
    });
    let asgs = asgs(scope, declared.asgs, &at, problems);
    let public_addresses = public(declared.public, &at, problems);
    let subnet = subnet(scope, declared.subnet, &join(&at, "subnet"), topology, problems)?;
    let vnet = &topology.vnets[topology.subnets[subnet.0].vnet.0];
    if vm.is_none() && vnet.tun.is_none() {
        let message = format!("NIC '{name}' has no VM, and VNet '{}' has no 'tun'", vnet.name);
        problems
            .error("Sim.Value", join(&at, "subnet"), message)
            .help(format!(
                "add 'tun: {{}}' to VNet '{}', or give the NIC a VM",
                vnet.name
            ));
    }
    if topology.subnets[subnet.0]
        .name
        .eq_ignore_ascii_case("GatewaySubnet")
    {
        problems
            .error(
                "Sim.GW-01",
                join(&at, "subnet"),
                "GatewaySubnet holds gateways only",
            )
            .help("put the NIC into another subnet");
    }
    let index = NicIndex(topology.nics.len());
    wishes.push(Wish {
        nic: index,
        addresses_at: join(
            &at,
            if declared.single.is_some() {
                "privateIPAddress"
            } else {
                "privateIPAddresses"
            },
        ),
        single: declared.single.is_some(),
        addresses: declared
            .single
            .iter()
            .chain(declared.listed)
            .map(|address| address.0)
            .collect(),
        at,
        name_at,
        name_on_key,
    });
    let last = wishes.last();
    if let Some(wish) = last.filter(|_| declared.single.is_some() && !declared.listed.is_empty()) {
        problems
            .error(
                "Sim.Value",
                join(&wish.at, "privateIPAddresses"),
                "addresses are given in two ways",
            )
            .help("keep one of 'privateIPAddress' and 'privateIPAddresses'");
    }
    topology.nics.push(Nic {
        name,
        subnet,
        vm,
        addresses: Vec::new(),
        ip_forwarding: declared.ip_forwarding,
        nsg: nsg.map(NsgIndex),
        asgs,
        public_addresses,
    });
    Some(index)
}

/// `VNET/SUBNET`.
fn subnet(
    scope: &Scope<'_>,
    text: &str,
    at: &str,
    topology: &Topology,
    problems: &mut Problems,
) -> Option<SubnetIndex> {
    if text.is_empty() && problems.unreadable(at) {
        return None;
    }
    let Some((vnet, name)) = text.split_once('/') else {
        problems
            .error(
                "Sim.Value",
                at,
                format!("expected VNET/SUBNET, found '{}'", shown(text)),
            )
            .help("name the VNet, a '/', and the subnet");
        return None;
    };
    let vnet = scope.vnets.find(vnet, at, problems)?;
    let position = scope.subnets[vnet].find(name, at, problems)?;
    topology.vnets[vnet].subnets.get(position).copied()
}

fn asgs(scope: &Scope<'_>, names: &[String], at: &str, problems: &mut Problems) -> Vec<AsgIndex> {
    let at = join(at, "applicationSecurityGroups");
    if names.len() > MOST_ASGS {
        problems.error(
            "Sim.NSG-34",
            &at,
            format!("a NIC is in at most {MOST_ASGS} application security groups"),
        );
    }
    let mut found = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if let Some(asg) = scope.asgs.find(name, &join(&at, &index.to_string()), problems)
            && !found.contains(&AsgIndex(asg))
        {
            found.push(AsgIndex(asg));
        }
    }
    found
}

/// At most one of each family, and of the Internet.
fn public(declared: Option<&PublicAddresses>, at: &str, problems: &mut Problems) -> Vec<IpAddr> {
    let at = join(at, "publicIPAddress");
    let addresses: Vec<IpAddr> = declared
        .into_iter()
        .flat_map(|list| &list.0)
        .map(|address| address.0)
        .collect();
    if addresses.iter().filter(|it| it.is_ipv4()).count() > 1
        || addresses.iter().filter(|it| it.is_ipv6()).count() > 1
    {
        problems
            .error("Sim.Value", &at, "at most one public address of each family")
            .help("remove the others");
    }
    for address in addresses.iter().filter(|address| !ranges::public(**address)) {
        not_public(*address, &at, problems);
    }
    addresses
}

fn not_public(address: IpAddr, at: &str, problems: &mut Problems) {
    problems
        .error("Sim.Value", at, format!("{address} is not a public address"))
        .help("use one such as 198.51.100.7 or 2001:db8::7");
}

fn internet(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let Some(internet) = &scope.config.internet else {
        return;
    };
    let addresses: Vec<IpAddr> = internet.addresses.iter().map(|address| address.0).collect();
    for (index, address) in addresses
        .iter()
        .enumerate()
        .filter(|(_, address)| !ranges::public(**address))
    {
        not_public(*address, &format!("internet.addresses.{index}"), problems);
    }
    if addresses.is_empty() && !problems.unreadable("internet") {
        problems
            .error("Sim.Value", "internet", "the Internet of the lab has no address")
            .help("add 'addresses'");
    }
    topology.internet = Some(addresses);
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
