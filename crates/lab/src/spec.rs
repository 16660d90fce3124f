//! Which namespaces, interfaces and programs a topology needs: plain data, comparable and serialisable.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use model::Topology;
use model::topology::{Nic, PortNamespace, VnetIndex};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// MTU of every NIC, as in Azure.
pub const MTU: u32 = 1500;

/// Packets the kernel may queue in a TUN before it drops: room for bursts while the engine runs elsewhere.
pub const TX_QUEUE_LENGTH: u32 = 4096;

/// Name of the namespace that plays the Internet, and of no other.
pub const INTERNET: &str = "internet";

/// Everything of a lab that lives in the kernel. A running lab is adopted only by an equal one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabSpec {
    pub name: String,
    /// VMs in file order, then VNet ports, then the Internet.
    pub namespaces: Vec<NamespaceSpec>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceSpec {
    /// The VM's or VNet's name, or [`INTERNET`]; unique in the lab.
    pub name: String,
    pub kind: NamespaceKind,
    pub place: Place,
    /// ip_forward in the guest.
    pub forwarding: bool,
    /// Shell commands to start in it.
    pub run: Vec<String>,
    pub interfaces: Vec<InterfaceSpec>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceKind {
    Vm,
    VnetPort,
    Internet,
}

/// Where the namespace comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Made for the lab, gone with it.
    Lab,
    /// A name under /run/netns or a path; only our interfaces in it are touched.
    Existing(String),
    /// The caller's own; only our interfaces in it are touched.
    Host,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSpec {
    /// `eth0`, `eth1`, … in a VM and in the Internet; the VNet port's own name otherwise.
    pub name: String,
    /// With the subnet's length in a VM, /32 and /128 elsewhere.
    pub addresses: Vec<IpNet>,
    pub mtu: u32,
    pub tx_queue_length: u32,
    /// The namespace's default routes leave here.
    pub default_route: bool,
    /// False: IPv6 is switched off on it.
    pub ipv6: bool,
    /// Traffic of its addresses leaves through it even towards its other addresses (VNet ports).
    pub source_routing: bool,
}

impl LabSpec {
    /// The namespaces of a topology.
    ///
    /// # Errors
    /// [`Error::Spec`] when two namespaces would have one name (a VM and a VNet with a port), or an
    /// address lies in no prefix of its subnet.
    pub fn of(topology: &Topology) -> Result<Self> {
        let mut namespaces = Vec::new();
        for vm in &topology.vms {
            let mut interfaces = Vec::new();
            for (position, nic) in vm.nics.iter().enumerate() {
                let addresses = subnet_addresses(topology, &topology.nics[nic.0])?;
                let name = format!("eth{position}");
                interfaces.push(InterfaceSpec::new(name, addresses, position == 0));
            }
            namespaces.push(NamespaceSpec {
                name: vm.name.clone(),
                kind: NamespaceKind::Vm,
                place: Place::Lab,
                forwarding: vm.forwarding,
                run: vm.run.clone(),
                interfaces,
            });
        }
        for index in 0..topology.vnets.len() {
            namespaces.extend(vnet_port(topology, VnetIndex(index)));
        }
        if let Some(addresses) = &topology.internet {
            let addresses = addresses.iter().copied().map(IpNet::from).collect();
            namespaces.push(NamespaceSpec {
                name: INTERNET.to_owned(),
                kind: NamespaceKind::Internet,
                place: Place::Lab,
                forwarding: false,
                run: Vec::new(),
                interfaces: vec![InterfaceSpec::new("eth0".to_owned(), addresses, true)],
            });
        }
        let mut seen = HashSet::new();
        for namespace in &namespaces {
            if !seen.insert(namespace.name.to_lowercase()) {
                return Err(Error::Spec(format!(
                    "two namespaces of the lab would be named {}; rename the VM, or the VNet that has a tun",
                    namespace.name
                )));
            }
        }
        Ok(Self {
            name: topology.name.clone(),
            namespaces,
        })
    }

    /// The namespace of this name, without regard to case.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&NamespaceSpec> {
        self.namespaces
            .iter()
            .find(|namespace| namespace.name.eq_ignore_ascii_case(name))
    }
}

impl InterfaceSpec {
    /// An interface as Azure's guests have it, without source routing.
    #[must_use]
    pub fn new(name: String, addresses: Vec<IpNet>, default_route: bool) -> Self {
        let ipv6 = addresses.iter().any(|address| matches!(address, IpNet::V6(_)));
        Self {
            name,
            addresses,
            mtu: MTU,
            tx_queue_length: TX_QUEUE_LENGTH,
            default_route,
            ipv6,
            source_routing: false,
        }
    }
}

fn subnet_addresses(topology: &Topology, nic: &Nic) -> Result<Vec<IpNet>> {
    let subnet = &topology.subnets[nic.subnet.0];
    let with_length = |address: &IpAddr| {
        let prefix = subnet.prefixes.iter().find(|prefix| prefix.contains(address));
        prefix
            .and_then(|prefix| IpNet::new(*address, prefix.prefix_len()).ok())
            .ok_or_else(|| {
                Error::Spec(format!(
                    "{}: {address} lies in no prefix of subnet {}",
                    nic.name, subnet.name
                ))
            })
    };
    nic.addresses.iter().map(with_length).collect()
}

fn vnet_port(topology: &Topology, index: VnetIndex) -> Option<NamespaceSpec> {
    let vnet = &topology.vnets[index.0];
    let port = vnet.tun.as_ref()?;
    let behind = |nic: &&Nic| nic.vm.is_none() && topology.subnets[nic.subnet.0].vnet == index;
    let addresses = topology.nics.iter().filter(behind).flat_map(|nic| &nic.addresses);
    let addresses = addresses.copied().map(IpNet::from).collect();
    let place = match &port.namespace {
        PortNamespace::Lab => Place::Lab,
        PortNamespace::Existing(namespace) => Place::Existing(namespace.clone()),
        PortNamespace::Host => Place::Host,
    };
    // A namespace that is not ours keeps its own default route.
    let default_route = place == Place::Lab;
    let interface = InterfaceSpec::new(port.interface.clone(), addresses, default_route);
    Some(NamespaceSpec {
        name: vnet.name.clone(),
        kind: NamespaceKind::VnetPort,
        place,
        forwarding: false,
        run: Vec::new(),
        interfaces: vec![InterfaceSpec {
            source_routing: true,
            ..interface
        }],
    })
}
