//! Network interfaces: of a VM, behind a VNet's port, or waiting for a VM.

use std::collections::HashSet;
use std::net::IpAddr;

use model::change::Operation;
use model::config::{Address, Nic, PublicAddresses, VmNic};
use model::topology;
use serde_json::{Map, Value, json};

use super::body::guid;
use super::kinds::{ASGS, BALANCERS, By, Kind, NETWORK, NICS, NSGS, PUBLIC_IPS, VMS};
use super::lab::{Lab, Target, free};
use super::read::{Child, Reader};
use super::{body, public_ips};
use crate::Error;
use crate::id::same;

pub(super) const KIND: Kind = Kind {
    provider: NETWORK,
    name: NICS,
    // Names and allocation methods of ipConfigurations are kept.
    owned: &[
        "networkSecurityGroup",
        "enableIPForwarding",
        "virtualMachine",
        "macAddress",
        "primary",
    ],
    children: &["ipConfigurations"],
    carried_out: By::Model {
        keys: |lab| lab.nics().map(|nic| nic.name.clone()).collect(),
        show,
        put,
        delete: |lab, key| delete(lab, key, None),
    },
};

/// A NIC as it is declared, and the VM that has it, with its place there.
pub(super) struct Declared {
    pub(super) nic: VmNic,
    pub(super) vm: Option<(String, usize)>,
    detached: Option<bool>,
}

pub(super) fn declared(lab: &Lab<'_>, key: &str) -> Option<Declared> {
    if let Some((_, nic)) = lab
        .config
        .network_interfaces
        .iter()
        .find(|(name, _)| same(name, key))
    {
        return Some(Declared {
            nic: nic.to_vm_nic(),
            vm: None,
            detached: nic.detached,
        });
    }
    let resolved = lab.topology.nics.iter().find(|nic| same(&nic.name, key))?;
    let vm = &lab.topology.vms[resolved.vm?.0];
    let index = vm
        .nics
        .iter()
        .position(|nic| same(&lab.topology.nics[nic.0].name, key))?;
    let nic = lab.config.vms.get(&vm.name)?.listed_nics().get(index)?.clone();
    Some(Declared {
        nic,
        vm: Some((vm.name.clone(), index)),
        detached: None,
    })
}

pub(super) fn resolved<'a>(lab: &Lab<'a>, key: &str) -> Option<&'a topology::Nic> {
    lab.nics().find(|nic| same(&nic.name, key))
}

/// The NIC by itself, waiting for a VM, with the addresses it has.
pub(super) fn waiting(lab: &Lab<'_>, key: &str, nic: &VmNic) -> Operation {
    let addresses = resolved(lab, key)
        .map(|nic| nic.addresses.clone())
        .unwrap_or_default();
    alone(key, nic, Some(true), addresses)
}

/// The names of its IP configurations: those a client gave, else ipconfig1, ipconfig2, ...
pub(super) fn configuration_names(lab: &Lab<'_>, key: &str, count: usize) -> Vec<String> {
    let kept = kept_configurations(lab, key);
    let name = |index: usize| {
        let given = kept.get(index).and_then(|it| it["name"].as_str());
        given.map_or_else(|| format!("ipconfig{}", index + 1), str::to_owned)
    };
    (0..count).map(name).collect()
}

/// `group`: everything in it is deleted.
pub(super) fn delete(lab: &Lab<'_>, key: &str, group: Option<&str>) -> Result<Vec<Operation>, Error> {
    let Some(declared) = declared(lab, key) else {
        return Ok(Vec::new());
    };
    if let Some((vm, _)) = &declared.vm {
        let of_vm = super::kinds::network(VMS)
            .map(|kind| lab.group_of(kind, vm))
            .unwrap_or_default();
        if group.is_some_and(|group| same(group, &of_vm)) {
            return Ok(Vec::new());
        }
        return Err(in_use(lab, key, vm));
    }
    let mut operations = pools(lab, key, &[], group)?;
    operations.push(Operation::DeleteNic { name: key.to_owned() });
    Ok(operations)
}

/// A NIC that belongs to a VM.
pub(super) fn in_use(lab: &Lab<'_>, key: &str, vm: &str) -> Error {
    let id = |kind: &str, key: &str| {
        lab.reference(kind, key)["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let message = format!(
        "Network Interface {} is used by existing resource {}. In order to delete the network interface, it must be \
         dissociated from the resource.",
        id(NICS, key),
        id(VMS, vm)
    );
    Error::bad("NicInUse", message)
}

fn show(lab: &Lab<'_>, key: &str) -> Map<String, Value> {
    let (Some(nic), Some(declared)) = (resolved(lab, key), declared(lab, key)) else {
        return Map::new();
    };
    let mut properties = Map::new();
    let id = lab.id(&KIND, key);
    let kept = lab.kept_properties(&lab.entry_key(&KIND, key));
    let names = configuration_names(lab, key, nic.addresses.len());
    let configurations = (0..nic.addresses.len()).map(|index| {
        let properties = configuration(lab, key, nic, index);
        body::child(&id, "ipConfigurations", &names[index], properties)
    });
    properties.insert("ipConfigurations".to_owned(), configurations.collect());
    let hash = guid(&id).replace('-', "").to_uppercase();
    let mac = format!("00-0D-3A-{}-{}-{}", &hash[0..2], &hash[2..4], &hash[4..6]);
    properties.insert("macAddress".to_owned(), json!(mac));
    properties.insert("enableIPForwarding".to_owned(), json!(nic.ip_forwarding));
    for (name, default) in [
        ("enableAcceleratedNetworking", json!(false)),
        ("nicType", json!("Standard")),
        (
            "dnsSettings",
            json!({ "dnsServers": [], "appliedDnsServers": [] }),
        ),
        ("hostedWorkloads", json!([])),
        ("tapConfigurations", json!([])),
    ] {
        properties.insert(name.to_owned(), kept.get(name).cloned().unwrap_or(default));
    }
    if let Some(nsg) = nic.nsg {
        let reference = lab.reference(NSGS, &lab.topology.nsgs[nsg.0].name);
        properties.insert("networkSecurityGroup".to_owned(), reference);
    }
    if let Some((vm, index)) = &declared.vm {
        properties.insert("virtualMachine".to_owned(), lab.reference(VMS, vm));
        properties.insert("primary".to_owned(), json!(*index == 0));
    }
    properties
}

fn configuration(lab: &Lab<'_>, key: &str, nic: &topology::Nic, index: usize) -> Map<String, Value> {
    let kept = kept_configurations(lab, key);
    let own = kept
        .get(index)
        .map(|it| it["properties"].clone())
        .unwrap_or_default();
    let address = nic.addresses[index];
    let mut properties = Map::new();
    let dynamic = own["privateIPAllocationMethod"]
        .as_str()
        .is_some_and(|it| same(it, "Dynamic"));
    let method = if dynamic || kept.is_empty() {
        "Dynamic"
    } else {
        "Static"
    };
    properties.insert("privateIPAddress".to_owned(), json!(address));
    properties.insert("privateIPAllocationMethod".to_owned(), json!(method));
    let version = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    properties.insert("privateIPAddressVersion".to_owned(), json!(version));
    properties.insert("subnet".to_owned(), json!({ "id": lab.subnet_id(nic.subnet) }));
    let primary = own["primary"].as_bool().unwrap_or(index == 0);
    properties.insert("primary".to_owned(), json!(primary));
    // Where a client said which of several configurations has it, there; else at the first of the family.
    let said = |it: &Value| !it["properties"]["publicIPAddress"].is_null();
    let first = nic
        .addresses
        .iter()
        .position(|it| it.is_ipv4() == address.is_ipv4())
        == Some(index);
    let here = if kept.iter().any(said) {
        kept.get(index).is_some_and(said)
    } else {
        first
    };
    let public = nic
        .public_addresses
        .iter()
        .find(|it| it.is_ipv4() == address.is_ipv4());
    if let Some(public) = public.filter(|_| here) {
        let reference = match public_ips::with_address(lab, *public) {
            Some(key) => lab.reference(PUBLIC_IPS, &key),
            None => json!({ "properties": { "ipAddress": public } }),
        };
        properties.insert("publicIPAddress".to_owned(), reference);
    }
    let asgs: Vec<Value> = nic
        .asgs
        .iter()
        .map(|asg| lab.reference(ASGS, &lab.topology.asgs[asg.0].name))
        .collect();
    if !asgs.is_empty() {
        properties.insert("applicationSecurityGroups".to_owned(), Value::Array(asgs));
    }
    let pools: Vec<Value> = member_of(lab, key)
        .filter_map(|(balancer, pool)| {
            let id = lab.reference(BALANCERS, balancer)["id"].as_str()?.to_owned();
            Some(json!({ "id": format!("{id}/backendAddressPools/{pool}") }))
        })
        .collect();
    if index == 0 && !pools.is_empty() {
        properties.insert("loadBalancerBackendAddressPools".to_owned(), Value::Array(pools));
    }
    properties
}

fn put(lab: &Lab<'_>, target: &Target<'_>, body: &Value) -> Result<Vec<Operation>, Error> {
    let given = Reader::new(body, "")?.object("properties")?;
    let configurations = given.children("ipConfigurations")?.unwrap_or_default();
    let Some(first) = configurations.first() else {
        let at = given.at("ipConfigurations");
        return Err(Error::body(
            &at,
            "a network interface needs at least one IP configuration",
        ));
    };
    let subnet = subnet(lab, first)?;
    let old = declared(lab, &target.key);
    let addresses = addresses(lab, &target.key, &subnet, &configurations)?;
    let nsg = given
        .get("networkSecurityGroup")
        .filter(|it| it.get("id").is_some_and(|id| !id.is_null()));
    let nsg = nsg
        .map(|id| lab.resolve(id, NSGS, &given.at("networkSecurityGroup")))
        .transpose()?;
    let (mut asgs, mut public, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
    for configuration in &configurations {
        let own = &configuration.properties;
        if !same(&self::subnet(lab, configuration)?, &subnet) {
            let message = "all IP configurations of a network interface are in one subnet here";
            return Err(Error::body(&own.at("subnet"), message));
        }
        for id in own.list("applicationSecurityGroups")?.unwrap_or_default() {
            let asg = lab.resolve(id, ASGS, &own.at("applicationSecurityGroups"))?;
            if !asgs.contains(&asg) {
                asgs.push(asg);
            }
        }
        public.extend(public_ips::of_configuration(lab, own)?);
        for id in own.list("loadBalancerBackendAddressPools")?.unwrap_or_default() {
            let at = own.at("loadBalancerBackendAddressPools");
            wanted.push(lab.resolve_child(id, BALANCERS, Some("backendAddressPools"), &at)?);
        }
    }
    let nic = VmNic {
        name: old
            .as_ref()
            .map_or(Some(target.key.clone()), |old| old.nic.name.clone()),
        subnet: subnet.clone(),
        private_ip_address: None,
        private_ip_addresses: addresses.iter().copied().map(Address).collect(),
        enable_ip_forwarding: given.flag("enableIPForwarding")?.filter(|forwards| *forwards),
        network_security_group: nsg,
        application_security_groups: asgs,
        public_ip_address: (!public.is_empty()).then_some(PublicAddresses(public)),
    };
    let mut operations = Vec::new();
    match old.as_ref().and_then(|old| old.vm.clone()) {
        Some((name, index)) => {
            let vm = lab.config.vms.get(&name).cloned().unwrap_or_default();
            let mut nics = vm.listed_nics();
            nics[index] = nic;
            operations.push(Operation::PutVm {
                name,
                vm: Box::new(vm.with_nics(nics)),
            });
        }
        None => {
            let vnet = subnet.rsplit_once('/').map_or("", |(vnet, _)| vnet);
            let port = lab.config.vnets.get(vnet).is_some_and(|vnet| vnet.tun.is_some());
            let detached = old.map_or((!port).then_some(true), |old| old.detached);
            operations.push(alone(&target.key, &nic, detached, addresses));
        }
    }
    operations.extend(pools(lab, &target.key, &wanted, None)?);
    Ok(operations)
}

fn alone(key: &str, nic: &VmNic, detached: Option<bool>, addresses: Vec<IpAddr>) -> Operation {
    Operation::PutNic {
        name: key.to_owned(),
        nic: Box::new(Nic {
            subnet: nic.subnet.clone(),
            detached,
            private_ip_address: None,
            private_ip_addresses: addresses.into_iter().map(Address).collect(),
            enable_ip_forwarding: nic.enable_ip_forwarding,
            network_security_group: nic.network_security_group.clone(),
            application_security_groups: nic.application_security_groups.clone(),
            public_ip_address: nic.public_ip_address.clone(),
        }),
    }
}

fn subnet(lab: &Lab<'_>, configuration: &Child<'_>) -> Result<String, Error> {
    let own = &configuration.properties;
    let at = own.at("subnet");
    match own.get("subnet") {
        Some(id) => lab.resolve_subnet(id, &at),
        None => Err(Error::body(&at, format!("{at} is missing"))),
    }
}

/// The address of each configuration: the static one, the one it has, or the lowest that is free.
fn addresses(
    lab: &Lab<'_>,
    key: &str,
    subnet: &str,
    configurations: &[Child<'_>],
) -> Result<Vec<IpAddr>, Error> {
    let old = resolved(lab, key);
    let index = lab.subnet(subnet);
    let stays = old.is_some_and(|nic| Some(nic.subnet) == index);
    let present: Vec<(String, IpAddr)> = match old.filter(|_| stays) {
        Some(nic) => {
            let names = configuration_names(lab, key, nic.addresses.len());
            names.into_iter().zip(nic.addresses.iter().copied()).collect()
        }
        None => Vec::new(),
    };
    let mut statics = HashSet::new();
    for configuration in configurations {
        statics.extend(fixed(&configuration.properties)?);
    }
    let vnet = index.map(|index| lab.topology.subnets[index.0].vnet);
    let mut taken = vnet.map(|vnet| lab.taken(vnet)).unwrap_or_default();
    taken.extend(statics);
    let mut addresses = Vec::new();
    for configuration in configurations {
        let own = &configuration.properties;
        if let Some(address) = fixed(own)? {
            addresses.push(address);
            continue;
        }
        let ipv6 = own
            .text("privateIPAddressVersion")?
            .is_some_and(|it| same(it, "IPv6"));
        let before = present
            .iter()
            .find(|(name, address)| same(name, &configuration.name) && address.is_ipv6() == ipv6);
        if let Some((_, address)) = before {
            addresses.push(*address);
            continue;
        }
        let prefixes = index
            .map(|index| lab.topology.subnets[index.0].prefixes.as_slice())
            .unwrap_or_default();
        let mut prefixes = prefixes.iter().filter(|prefix| prefix.addr().is_ipv6() == ipv6);
        let Some(address) = prefixes.find_map(|prefix| free(*prefix, &taken).next()) else {
            let message = format!("Subnet {subnet} does not have enough capacity for 1 IP addresses.");
            return Err(Error::bad("SubnetIsFull", message));
        };
        taken.insert(address);
        addresses.push(address);
    }
    Ok(addresses)
}

/// The static address of a configuration.
fn fixed(own: &Reader<'_>) -> Result<Option<IpAddr>, Error> {
    let method = own.text("privateIPAllocationMethod")?;
    if !method.is_some_and(|it| same(it, "Static")) {
        return Ok(None);
    }
    match own.address("privateIPAddress")? {
        Some(address) => Ok(Some(address.0)),
        None => {
            let at = own.at("privateIPAddress");
            Err(Error::body(
                &at,
                format!("{at} is missing, and the allocation method is Static"),
            ))
        }
    }
}

/// The balancers and pools that a NIC is in.
fn member_of<'a>(lab: &Lab<'a>, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    let words = words(lab, key);
    let pools = lab.config.load_balancers.iter().flat_map(|(name, it)| {
        it.backend_pools
            .iter()
            .map(move |(pool, members)| (name.as_str(), pool.as_str(), members))
    });
    pools
        .filter(move |(_, _, members)| {
            members
                .iter()
                .any(|member| words.iter().any(|word| same(word, member)))
        })
        .map(|(name, pool, _)| (name, pool))
}

/// What a pool may call a NIC: its name, and its VM's where it is the first.
fn words(lab: &Lab<'_>, key: &str) -> Vec<String> {
    let vm = declared(lab, key)
        .and_then(|it| it.vm)
        .filter(|(_, index)| *index == 0);
    std::iter::once(key.to_owned())
        .chain(vm.map(|(vm, _)| vm))
        .collect()
}

/// Puts a NIC into the pools wanted and takes it off the others; but not those of balancers in a group that goes.
fn pools(
    lab: &Lab<'_>,
    key: &str,
    wanted: &[(String, String)],
    group: Option<&str>,
) -> Result<Vec<Operation>, Error> {
    let words = words(lab, key);
    let mut operations = Vec::new();
    for (name, balancer) in &lab.config.load_balancers {
        let of = super::kinds::network(BALANCERS)
            .map(|kind| lab.group_of(kind, name))
            .unwrap_or_default();
        if group.is_some_and(|group| same(group, &of)) {
            continue;
        }
        let mut new = balancer.clone();
        for (pool, members) in &mut new.backend_pools {
            let here = |member: &String| words.iter().any(|word| same(word, member));
            let should = wanted.iter().any(|(of, it)| same(of, name) && same(it, pool));
            if should && !members.iter().any(here) {
                members.push(key.to_owned());
            }
            if !should {
                members.retain(|member| !here(member));
            }
        }
        if new != *balancer {
            operations.push(Operation::PutLoadBalancer {
                name: name.clone(),
                balancer: Box::new(new),
            });
        }
    }
    for (balancer, pool) in wanted {
        let known = lab.config.load_balancers.get(balancer);
        if !known.is_some_and(|it| it.backend_pools.keys().any(|name| same(name, pool))) {
            let message = format!("load balancer {balancer} has no backend address pool {pool}");
            return Err(Error::bad("InvalidResourceReference", message));
        }
    }
    Ok(operations)
}

fn kept_configurations(lab: &Lab<'_>, key: &str) -> Vec<Value> {
    let kept = lab
        .kept_properties(&lab.entry_key(&KIND, key))
        .remove("ipConfigurations");
    match kept {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}
