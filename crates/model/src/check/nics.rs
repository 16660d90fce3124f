//! VMs and NICs, and where they may be: NVA-02, NSG-34, GW-01.

use std::net::IpAddr;

use crate::check::addresses::{self, Wish};
use crate::check::vnets::GATEWAY_SUBNET;
use crate::check::{Scope, load_balancers, members, names, ranges};
use crate::config::{self, PublicAddresses, VmNic};
use crate::endpoint::INTERNET;
use crate::limits::Limit;
use crate::measured;
use crate::problems::{Problems, join};
use crate::topology::{AsgIndex, Nic, NicIndex, NsgIndex, PortNamespace, SubnetIndex, Topology, Vm, VmIndex};
use crate::words::shown;

/// A NIC, and where it stands.
struct Declared {
    given: VmNic,
    /// Made from the VM's name, which is checked itself, when the file gives none.
    name: String,
    automatic: bool,
    /// Where the properties stand.
    at: String,
    /// Where the name stands: a property, or the key of a VM or NIC.
    name_at: String,
    name_on_key: bool,
}

/// What a NIC's packets come from.
#[derive(Clone, Copy)]
enum Home {
    Vm(VmIndex),
    VnetPort,
    /// It waits for a VM.
    Nowhere,
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
            .filter_map(|nic| add(scope, nic, Home::Vm(index), topology, &mut wishes, problems));
        let nics = nics.collect();
        topology.vms[index.0].nics = nics;
    }
    let detached = |nic: &config::Nic| nic.detached == Some(true);
    let (waiting, standing): (Vec<_>, Vec<_>) =
        (scope.config.network_interfaces.iter()).partition(|(_, nic)| detached(nic));
    // Those that wait come last, where [`detach`] takes them off.
    for (name, nic) in standing.into_iter().chain(waiting) {
        let at = join("networkInterfaces", name);
        if nic.enable_ip_forwarding == Some(true) && !detached(nic) {
            problems
                .error(
                    "Sim.NVA-02",
                    join(&at, "enableIPForwarding"),
                    "a NIC without a VM cannot forward",
                )
                .help("make it a NIC of a VM with 'forwarding: true'");
        }
        let declared = Declared {
            given: nic.to_vm_nic(),
            name: name.clone(),
            automatic: false,
            name_at: at.clone(),
            name_on_key: true,
            at,
        };
        let home = if detached(nic) {
            Home::Nowhere
        } else {
            Home::VnetPort
        };
        add(scope, declared, home, topology, &mut wishes, problems);
    }
    let frontends = load_balancers::declared_addresses(scope, topology);
    addresses::allocate(scope.limits, &wishes, frontends, topology, problems);
    members::check(&wishes, scope, topology, problems);
}

/// Takes the NICs that wait for a VM out of what forwards, once every rule has been asked about them.
pub(crate) fn detach(config: &config::Config, topology: &mut Topology) {
    let waiting = config.network_interfaces.values();
    let waiting = waiting.filter(|nic| nic.detached == Some(true)).count();
    let standing = topology.nics.len().saturating_sub(waiting);
    topology.detached_nics = topology.nics.split_off(standing);
    for pool in topology
        .load_balancers
        .iter_mut()
        .flat_map(|it| &mut it.backend_pools)
    {
        pool.nics.retain(|nic| nic.0 < standing);
    }
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
    let egress_mbps = vm.size.as_deref().and_then(measured::egress_mbps);
    if let (Some(size), None) = (&vm.size, egress_mbps) {
        let message = format!(
            "no bandwidth is published for {}: egress is not capped",
            shown(size)
        );
        problems.note(join(at, "size"), message);
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
        egress_bps: egress_mbps.map(|mbps| mbps * 1_000_000),
        forwarding: vm.forwarding.unwrap_or(false),
        nics: Vec::new(),
        run: vm.run.clone(),
        running: vm.power_state.unwrap_or_default() == config::PowerState::Running,
    });
}

/// The short form is one NIC; both forms together are refused.
fn vm_nics(name: &str, vm: &config::Vm, at: &str, problems: &mut Problems) -> Vec<Declared> {
    let listed = vm.nics.iter().enumerate().map(|(index, nic)| {
        let at = join(at, &format!("nics.{index}"));
        let automatic = if index == 0 {
            format!("{name}-nic")
        } else {
            format!("{name}-nic{index}")
        };
        Declared {
            given: nic.clone(),
            name: nic.name.clone().unwrap_or(automatic),
            automatic: nic.name.is_none(),
            name_at: join(&at, "name"),
            name_on_key: false,
            at,
        }
    });
    let mut nics: Vec<Declared> = listed.collect();
    let (short, properties) = vm.short_form();
    if vm.subnet.is_none() && nics.is_empty() {
        if !problems.unreadable(at) {
            problems
                .error("Sim.Value", at, format!("VM '{name}' has no NIC"))
                .on_key()
                .help("add 'subnet: VNET/SUBNET', or 'nics'");
        }
    } else if nics.is_empty() {
        nics.push(Declared {
            given: short,
            name: format!("{name}-nic"),
            automatic: true,
            at: at.to_owned(),
            name_at: at.to_owned(),
            name_on_key: true,
        });
    } else {
        for property in properties {
            problems
                .error(
                    "Sim.Value",
                    join(at, property),
                    format!("both '{property}' and 'nics' are given"),
                )
                .help("move it into the entry of 'nics'");
        }
    }
    nics
}

/// Adds the NIC without its addresses; None where its subnet does not exist.
fn add(
    scope: &Scope<'_>,
    declared: Declared,
    home: Home,
    topology: &mut Topology,
    wishes: &mut Vec<Wish>,
    problems: &mut Problems,
) -> Option<NicIndex> {
    let Declared { given, name, at, .. } = &declared;
    if !declared.automatic && !problems.unreadable(at) {
        if declared.name_on_key && !matches!(home, Home::Vm(_)) {
            names::resource_key(name, &declared.name_at, problems);
        } else {
            names::resource_name(name, &declared.name_at, declared.name_on_key, problems);
        }
    }
    let nsg = given.network_security_group.as_ref();
    let nsg = nsg.and_then(|name| scope.nsgs.find(name, &join(at, "networkSecurityGroup"), problems));
    let asgs = asgs(scope, &given.application_security_groups, at, problems);
    let public_addresses = public(given.public_ip_address.as_ref(), at, problems);
    let subnet = subnet(scope, &given.subnet, &join(at, "subnet"), topology, problems)?;
    placed(name, subnet, home, at, topology, problems);
    let index = NicIndex(topology.nics.len());
    topology.nics.push(Nic {
        name: name.clone(),
        subnet,
        vm: match home {
            Home::Vm(vm) => Some(vm),
            Home::VnetPort | Home::Nowhere => None,
        },
        addresses: Vec::new(),
        ip_forwarding: given.enable_ip_forwarding.unwrap_or(false),
        nsg: nsg.map(NsgIndex),
        asgs,
        public_addresses,
    });
    wishes.push(wish(index, declared, problems));
    Some(index)
}

/// Whether a NIC can be in the subnet.
fn placed(
    name: &str,
    subnet: SubnetIndex,
    home: Home,
    at: &str,
    topology: &Topology,
    problems: &mut Problems,
) {
    let subnet = &topology.subnets[subnet.0];
    let vnet = &topology.vnets[subnet.vnet.0];
    if matches!(home, Home::VnetPort) && vnet.tun.is_none() {
        let message = format!(
            "NIC '{}' has no VM, and VNet '{}' has no 'tun'",
            shown(name),
            vnet.name
        );
        problems
            .error("Sim.Value", join(at, "subnet"), message)
            .help(format!(
                "add 'tun: {{}}' to VNet '{}', give the NIC a VM, or say 'detached: true'",
                vnet.name
            ));
    }
    if subnet.name.eq_ignore_ascii_case(GATEWAY_SUBNET) {
        problems
            .error(
                "Sim.GW-01",
                join(at, "subnet"),
                "GatewaySubnet holds gateways only",
            )
            .help("put the NIC into another subnet");
    }
}

fn wish(nic: NicIndex, declared: Declared, problems: &mut Problems) -> Wish {
    let Declared {
        given,
        at,
        name_at,
        name_on_key,
        ..
    } = declared;
    let single = given.private_ip_address;
    if single.is_some() && !given.private_ip_addresses.is_empty() {
        problems
            .error(
                "Sim.Value",
                join(&at, "privateIPAddresses"),
                "addresses are given in two ways",
            )
            .help("keep one of 'privateIPAddress' and 'privateIPAddresses'");
    }
    Wish {
        nic,
        addresses_at: join(
            &at,
            if single.is_some() {
                "privateIPAddress"
            } else {
                "privateIPAddresses"
            },
        ),
        single: single.is_some(),
        addresses: single
            .iter()
            .chain(&given.private_ip_addresses)
            .map(|address| address.0)
            .collect(),
        at,
        name_at,
        name_on_key,
    }
}

/// `VNET/SUBNET`.
pub(crate) fn subnet(
    scope: &Scope<'_>,
    text: &str,
    at: &str,
    topology: &Topology,
    problems: &mut Problems,
) -> Option<SubnetIndex> {
    if text.is_empty() && problems.unreadable(at) {
        return None;
    }
    let Some((vnet, name)) = text.rsplit_once('/') else {
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
    let most = scope.limits.most(Limit::NicAsgs);
    if names.len() > most {
        problems.error(
            "Sim.NSG-34",
            &at,
            format!("a NIC is in at most {most} application security groups"),
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
