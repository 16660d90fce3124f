//! Which namespaces, interfaces and programs a topology needs: plain data, comparable and serialisable.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use model::Topology;
use model::topology::{Nic, PLATFORM_V4, PLATFORM_V6, PortNamespace, SiteIndex, VnetIndex};
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
    /// VMs in file order, then VNet ports, then the Internet, then the platform of each VNet with health probes, then
    /// sites, then gateways that speak BGP.
    pub namespaces: Vec<NamespaceSpec>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceSpec {
    /// The VM's, VNet's, site's or gateway's name, or [`INTERNET`]; unique in the lab.
    pub name: String,
    pub kind: NamespaceKind,
    pub place: Place,
    /// ip_forward in the guest.
    pub forwarding: bool,
    /// A stopped VM: no process runs in it and its interfaces are down.
    #[serde(default)]
    pub stopped: bool,
    /// Shell commands to start in it.
    pub run: Vec<String>,
    pub interfaces: Vec<InterfaceSpec>,
    /// Every address of these is the namespace's own, unless a longer route leads away: what a site stands for.
    pub own_prefixes: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceKind {
    Vm,
    VnetPort,
    Internet,
    /// An on-premises site.
    Site,
    /// Where a gateway speaks BGP.
    Gateway,
    /// 168.63.129.16, as one VNet sees it.
    Platform,
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
                forwarding: vm.forwarding,
                stopped: !vm.running,
                run: if vm.running { vm.run.clone() } else { Vec::new() },
                ..NamespaceSpec::new(&vm.name, NamespaceKind::Vm, interfaces)
            });
        }
        for index in 0..topology.vnets.len() {
            namespaces.extend(vnet_port(topology, VnetIndex(index)));
        }
        if let Some(addresses) = &topology.internet {
            let interface = eth0(addresses);
            namespaces.push(NamespaceSpec::new(
                INTERNET,
                NamespaceKind::Internet,
                vec![interface],
            ));
        }
        for vnet in topology.probing_vnets() {
            namespaces.push(platform(&topology.vnets[vnet.0].name));
        }
        namespaces.extend((0..topology.sites.len()).map(|index| site(topology, SiteIndex(index))));
        namespaces.extend(topology.speakers().map(|index| {
            let gateway = &topology.gateways[index.0];
            // The first instance is the one that speaks.
            let interface = eth0(&gateway.addresses[..1]);
            NamespaceSpec::new(&gateway.name, NamespaceKind::Gateway, vec![interface])
        }));
        let mut seen = HashSet::new();
        for namespace in &namespaces {
            if !seen.insert(namespace.name.to_lowercase()) {
                return Err(Error::Spec(format!(
                    "two namespaces of the lab would be named {}; rename the VM, the VNet that has a tun, the site or \
                     the gateway",
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

/// Name of the namespace from which a VNet's backends are probed: no VM can have it.
#[must_use]
pub fn platform_name(vnet: &str) -> String {
    format!("{}.platform", vnet.replace('/', "."))
}

impl NamespaceSpec {
    /// A namespace of the lab without programs.
    #[must_use]
    pub fn new(name: &str, kind: NamespaceKind, interfaces: Vec<InterfaceSpec>) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            place: Place::Lab,
            forwarding: false,
            stopped: false,
            run: Vec::new(),
            interfaces,
            own_prefixes: Vec::new(),
        }
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

/// One for each VNet: two VNets may use the same addresses (VNET-07).
fn platform(vnet: &str) -> NamespaceSpec {
    let interface = eth0(&[IpAddr::from(PLATFORM_V4), IpAddr::from(PLATFORM_V6)]);
    NamespaceSpec::new(&platform_name(vnet), NamespaceKind::Platform, vec![interface])
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
    let interface = InterfaceSpec {
        source_routing: true,
        ..interface
    };
    Some(NamespaceSpec {
        place,
        ..NamespaceSpec::new(&vnet.port_namespace(), NamespaceKind::VnetPort, vec![interface])
    })
}

/// One interface for each connection, all with the site's addresses. The way out of what no other route names is the first.
fn site(topology: &Topology, index: SiteIndex) -> NamespaceSpec {
    let site = &topology.sites[index.0];
    let mut addresses = site.addresses.clone();
    if !addresses.contains(&site.bgp_address) {
        addresses.push(site.bgp_address);
    }
    let addresses: Vec<IpNet> = addresses.into_iter().map(IpNet::from).collect();
    let interfaces = topology.connections_to(index).enumerate();
    let interfaces = interfaces.map(|(position, connection)| InterfaceSpec {
        mtu: u32::from(topology.connections[connection.0].mtu),
        ..InterfaceSpec::new(format!("eth{position}"), addresses.clone(), position == 0)
    });
    let interfaces: Vec<InterfaceSpec> = interfaces.collect();
    NamespaceSpec {
        // From one connection to another; with one alone it would only send back what it does not know.
        forwarding: interfaces.len() > 1,
        run: site.run.clone(),
        own_prefixes: site.prefixes.clone(),
        ..NamespaceSpec::new(&site.name, NamespaceKind::Site, interfaces)
    }
}

fn eth0(addresses: &[IpAddr]) -> InterfaceSpec {
    let addresses = addresses.iter().copied().map(IpNet::from).collect();
    InterfaceSpec::new("eth0".to_owned(), addresses, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<LabSpec> {
        let loaded = model::load(model::Source::Text {
            name: "lab.vnet.yaml".to_owned(),
            text: text.to_owned(),
        })
        .unwrap();
        LabSpec::of(&loaded.topology)
    }

    const LAB: &str = "
apiVersion: peerlane/v1
kind: Lab
name: small
profile: azure-2018
vnets:
  hub:
    addressSpace: [10.0.0.0/16, 'fd00:a::/48']
    subnets:
      one: { addressPrefixes: [10.0.1.0/24, 'fd00:a:0:1::/64'] }
      two: { addressPrefix: 10.0.2.0/27 }
    tun: {}
vms:
  web:
    forwarding: true
    nics:
      - { name: web-nic, subnet: hub/one, privateIPAddresses: [10.0.1.4, 'fd00:a:0:1::4'] }
      - { name: web-nic2, subnet: hub/two, privateIPAddress: 10.0.2.9 }
    run: ['sleep 1']
networkInterfaces:
  printer: { subnet: hub/one, privateIPAddresses: [10.0.1.7, 'fd00:a:0:1::7'] }
  scanner: { subnet: hub/two, privateIPAddress: 10.0.2.8 }
internet: { addresses: [198.51.100.7] }
";

    #[test]
    fn a_topology_becomes_namespaces_in_order() {
        let spec = spec(LAB).unwrap();
        let names: Vec<&str> = spec
            .namespaces
            .iter()
            .map(|namespace| namespace.name.as_str())
            .collect();
        assert_eq!(
            (spec.name.as_str(), names),
            ("small", vec!["web", "hub", "internet"])
        );
        let addresses = |namespace: usize, interface: usize| {
            let interface = &spec.namespaces[namespace].interfaces[interface];
            let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
            let flags = (interface.default_route, interface.ipv6, interface.source_routing);
            (interface.name.clone(), addresses.join(" "), flags)
        };
        let expect = |name: &str, addresses: &str, flags| (name.to_owned(), addresses.to_owned(), flags);
        assert_eq!(
            addresses(0, 0),
            expect("eth0", "10.0.1.4/24 fd00:a:0:1::4/64", (true, true, false))
        );
        assert_eq!(
            addresses(0, 1),
            expect("eth1", "10.0.2.9/27", (false, false, false))
        );
        let port = "10.0.1.7/32 fd00:a:0:1::7/128 10.0.2.8/32";
        assert_eq!(addresses(1, 0), expect("pl-hub", port, (true, true, true)));
        assert_eq!(
            addresses(2, 0),
            expect("eth0", "198.51.100.7/32", (true, false, false))
        );
        assert!(spec.namespaces[0].forwarding && !spec.namespaces[1].forwarding);
        assert_eq!(spec.namespaces[0].run, ["sleep 1"]);
        assert_eq!(
            spec.namespace("WEB").map(|namespace| namespace.kind),
            Some(NamespaceKind::Vm)
        );
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<LabSpec>(&text).unwrap(), spec);
    }

    #[test]
    fn sites_and_bgp_speakers_have_namespaces_of_their_own() {
        let text = "
apiVersion: peerlane/v1
kind: Lab
name: small
profile: azure-2025
vnets:
  hub:
    addressSpace: [10.0.0.0/16]
    subnets: { GatewaySubnet: { addressPrefix: 10.0.255.0/27 } }
  other:
    addressSpace: [10.1.0.0/16]
    subnets: { GatewaySubnet: { addressPrefix: 10.1.255.0/27 } }
gateways:
  hub-vpn: { vnet: hub }
  other-vpn: { vnet: other }
sites:
  dc1: { addressPrefixes: [192.168.10.0/24, 192.168.11.0/24], asn: 65010, bgpPeeringAddress: 192.168.10.9, run: ['sleep 1'] }
  dc2: { addressPrefixes: [192.168.20.0/24] }
connections:
  hub-dc2: { gateway: hub-vpn, site: dc2 }
  hub-dc1: { gateway: hub-vpn, site: dc1, enableBgp: true }
  other-dc1: { gateway: other-vpn, site: dc1 }
";
        let spec = spec(text).unwrap();
        let namespaces: Vec<(&str, NamespaceKind, bool)> = spec
            .namespaces
            .iter()
            .map(|it| (it.name.as_str(), it.kind, it.forwarding))
            .collect();
        // other-vpn speaks no BGP.
        let expected = [
            ("dc1", NamespaceKind::Site, true),
            ("dc2", NamespaceKind::Site, false),
            ("hub-vpn", NamespaceKind::Gateway, false),
        ];
        assert_eq!(namespaces, expected);
        let interfaces = |namespace: &str| -> Vec<(String, String, u32, bool)> {
            let interfaces = &spec.namespace(namespace).unwrap().interfaces;
            let addresses = |it: &InterfaceSpec| {
                it.addresses
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            interfaces
                .iter()
                .map(|it| (it.name.clone(), addresses(it), it.mtu, it.default_route))
                .collect()
        };
        let dc1 = "192.168.10.1/32 192.168.11.1/32 192.168.10.9/32".to_owned();
        let eth =
            |name: &str, addresses: &str, mtu, default| (name.to_owned(), addresses.to_owned(), mtu, default);
        assert_eq!(
            interfaces("dc1"),
            [eth("eth0", &dc1, 1400, true), eth("eth1", &dc1, 1400, false)]
        );
        assert_eq!(interfaces("hub-vpn"), [eth("eth0", "10.0.255.4/32", 1500, true)]);
        let dc1 = spec.namespace("dc1").unwrap();
        assert_eq!((dc1.own_prefixes.len(), dc1.run.len()), (2, 1));
    }

    #[test]
    fn a_namespace_that_is_not_ours_keeps_its_default_route() {
        let spec = spec(&LAB.replace("tun: {}", "tun: { namespace: lab-spec }")).unwrap();
        assert_eq!(spec.namespaces[1].place, Place::Existing("lab-spec".to_owned()));
        assert!(!spec.namespaces[1].interfaces[0].default_route);
    }
}
