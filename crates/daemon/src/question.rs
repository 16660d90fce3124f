//! From two endpoints to a packet that real sockets can exchange: which addresses, which namespaces, who listens.

use std::net::IpAddr;

use model::Topology;
use model::topology::{BalancedProtocol, BalancingRule, Endpoint, NicIndex, TestProtocol, VnetIndex};

use crate::api::{ProbeBackend, ProbeProtocol, ProbeRequest};

/// One packet and its reply, asked about.
#[derive(Clone, Debug)]
pub struct Question {
    /// As messages name the ends.
    pub from: String,
    pub to: String,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: TestProtocol,
    /// None for Icmp.
    pub port: Option<u16>,
    pub source_port: Option<u16>,
    pub sender: Endpoint,
    /// None: no namespace of the lab owns the address.
    from_namespace: Option<String>,
    to_namespace: Option<String>,
    /// What the receiver binds, where the fabric rewrites the destination.
    listen: Option<IpAddr>,
    /// Where a packet to a load balancer may arrive.
    backends: Vec<ProbeBackend>,
}

impl Question {
    /// Chooses addresses both ends have: IPv4 before IPv6, unless one family is asked for.
    ///
    /// # Errors
    /// The ends share no family.
    pub fn new(
        topology: &Topology,
        ends: (&Endpoint, &Endpoint),
        protocol: TestProtocol,
        port: Option<u16>,
        ipv6: Option<bool>,
    ) -> Result<Self, String> {
        let (sender, receiver) = ends;
        let from = topology.endpoint_name(sender);
        let to = topology.endpoint_name(receiver);
        let sources = own_addresses(topology, sender);
        let destinations = match receiver {
            // The Internet knows a NIC by its public address only.
            Endpoint::Nic(nic) if *sender == Endpoint::Internet => {
                topology.nics[nic.0].public_addresses.clone()
            }
            _ => own_addresses(topology, receiver),
        };
        let wanted: &[bool] = match ipv6 {
            None => &[false, true],
            Some(true) => &[true],
            Some(false) => &[false],
        };
        let first = |addresses: &[IpAddr], v6: bool| {
            addresses.iter().copied().find(|address| address.is_ipv6() == v6)
        };
        let pair = wanted
            .iter()
            .find_map(|v6| Some((first(&sources, *v6)?, first(&destinations, *v6)?)));
        let Some((source, destination)) = pair else {
            return Err(format!(
                "{from} and {to} have no addresses of one family that reach each other (a NIC is known to the Internet \
                 by its publicIPAddress)"
            ));
        };
        let (owner, listen) = receiving_nic(topology, receiver, sender, destination);
        let is_internet = |endpoint: &Endpoint, address: IpAddr| {
            *endpoint == Endpoint::Internet
                || topology
                    .internet
                    .as_ref()
                    .is_some_and(|list| list.contains(&address))
        };
        let internet = || Some("internet".to_owned());
        let elsewhere = |endpoint: &Endpoint, address: IpAddr| {
            if is_internet(endpoint, address) {
                return internet();
            }
            let site = match endpoint {
                Endpoint::Site(site) => Some(*site),
                _ => topology.site_at(address),
            };
            site.map(|site| topology.sites[site.0].name.clone())
        };
        let from_namespace = match sending_nic(topology, sender) {
            Some(nic) => namespace(topology, nic),
            None => elsewhere(sender, source),
        };
        let backends = match owner {
            Some(_) => Vec::new(),
            None => backends(topology, sender, destination, protocol, port.unwrap_or(0)),
        };
        let to_namespace = match owner {
            Some(nic) => namespace(topology, nic),
            None => elsewhere(receiver, destination),
        };
        Ok(Self {
            from,
            to,
            source,
            destination,
            protocol,
            port,
            source_port: None,
            sender: sender.clone(),
            from_namespace,
            to_namespace,
            listen,
            backends,
        })
    }

    /// The namespaces that send and receive, and what the receiver binds; None: the packet ends in none of the lab's,
    /// or in one of several.
    pub fn namespaces(&self) -> Option<(&str, &str, IpAddr)> {
        let from = self.from_namespace.as_deref()?;
        let to = self.to_namespace.as_deref()?;
        Some((from, to, self.listen.unwrap_or(self.destination)))
    }

    /// For the daemon that is to send the packets.
    ///
    /// # Errors
    /// No namespace of the lab has the sender's address.
    pub fn request(&self) -> Result<ProbeRequest, String> {
        let Some(from) = self.from_namespace.clone() else {
            return Err(format!(
                "{} cannot send packets: no namespace of the lab has {}",
                self.from, self.source
            ));
        };
        Ok(ProbeRequest {
            from,
            source: self.source,
            to: self.to_namespace.clone(),
            destination: self.destination,
            listen: self.listen,
            backends: self.backends.clone(),
            protocol: match self.protocol {
                TestProtocol::Tcp => ProbeProtocol::Tcp,
                TestProtocol::Udp => ProbeProtocol::Udp,
                TestProtocol::Icmp => ProbeProtocol::Icmp,
            },
            port: self.port.unwrap_or(0),
            source_port: self.source_port,
        })
    }
}

fn own_addresses(topology: &Topology, endpoint: &Endpoint) -> Vec<IpAddr> {
    match endpoint {
        Endpoint::Nic(nic) => topology.nics[nic.0].addresses.clone(),
        Endpoint::Address(address) => vec![*address],
        Endpoint::Internet => topology.internet.clone().unwrap_or_default(),
        Endpoint::Site(site) => topology.sites[site.0].addresses.clone(),
    }
}

fn sending_nic(topology: &Topology, sender: &Endpoint) -> Option<NicIndex> {
    match sender {
        Endpoint::Nic(nic) => Some(*nic),
        Endpoint::Address(address) => topology.nic_at(*address),
        Endpoint::Internet | Endpoint::Site(_) => None,
    }
}

/// Whose listener answers, and what it binds where that is not the destination itself. Of several NICs with one
/// address (VNET-07) it is the one in the sender's VNet, or in one peered with it.
fn receiving_nic(
    topology: &Topology,
    receiver: &Endpoint,
    sender: &Endpoint,
    destination: IpAddr,
) -> (Option<NicIndex>, Option<IpAddr>) {
    let private = |nic: NicIndex| {
        let addresses = &topology.nics[nic.0].addresses;
        addresses
            .iter()
            .copied()
            .find(|address| address.is_ipv6() == destination.is_ipv6())
    };
    let nics = || (0..topology.nics.len()).map(NicIndex);
    let owner = match receiver {
        Endpoint::Nic(nic) => Some(*nic),
        Endpoint::Internet | Endpoint::Site(_) => None,
        Endpoint::Address(_) => {
            let vnet = |nic: NicIndex| topology.subnets[topology.nics[nic.0].subnet.0].vnet;
            let home = sending_nic(topology, sender).map(vnet);
            let peered = |nic: NicIndex| {
                topology
                    .peerings
                    .iter()
                    .any(|peering| Some(peering.from) == home && peering.to == vnet(nic))
            };
            let holders = || nics().filter(|nic| topology.nics[nic.0].addresses.contains(&destination));
            let near = holders()
                .find(|nic| Some(vnet(*nic)) == home)
                .or_else(|| holders().find(|nic| peered(*nic)));
            near.or_else(|| topology.nic_at(destination))
                .or_else(|| nics().find(|nic| topology.nics[nic.0].public_addresses.contains(&destination)))
        }
    };
    let listen = owner
        .filter(|nic| topology.nics[nic.0].public_addresses.contains(&destination))
        .and_then(private)
        .filter(|address| *address != destination);
    (owner, listen)
}

/// Where a packet to a frontend may arrive: a frontend of the sender's VNet, or of one peered with it.
fn backends(
    topology: &Topology,
    sender: &Endpoint,
    destination: IpAddr,
    protocol: TestProtocol,
    port: u16,
) -> Vec<ProbeBackend> {
    let home = sending_nic(topology, sender).map(|nic| topology.subnets[topology.nics[nic.0].subnet.0].vnet);
    let near = |vnet: VnetIndex| {
        let peered = |peering: &model::topology::Peering| Some(peering.from) == home && peering.to == vnet;
        Some(vnet) == home || topology.peerings.iter().any(peered)
    };
    let takes = |rule: &BalancingRule| match (rule.protocol, protocol) {
        (BalancedProtocol::All, TestProtocol::Tcp | TestProtocol::Udp) => true,
        (BalancedProtocol::Tcp, TestProtocol::Tcp) | (BalancedProtocol::Udp, TestProtocol::Udp) => {
            rule.frontend_port == port
        }
        _ => false,
    };
    let mut backends = Vec::new();
    for balancer in topology
        .load_balancers
        .iter()
        .filter(|balancer| near(balancer.vnet))
    {
        let rules = balancer.rules.iter().filter(|rule| takes(rule));
        for rule in rules.filter(|rule| balancer.frontends[rule.frontend].address == destination) {
            for &nic in &balancer.backend_pools[rule.backend_pool].nics {
                let mut own = topology.nics[nic.0].addresses.iter().copied();
                let private = own.find(|address| address.is_ipv4() == destination.is_ipv4());
                let address = if rule.floating_ip {
                    Some(destination)
                } else {
                    private
                };
                backends.extend(namespace(topology, nic).zip(address).map(|(namespace, address)| {
                    ProbeBackend {
                        namespace,
                        address,
                        port: if rule.backend_port == 0 {
                            port
                        } else {
                            rule.backend_port
                        },
                    }
                }));
            }
        }
    }
    backends
}

/// The VM's, or that of the VNet's port.
fn namespace(topology: &Topology, nic: NicIndex) -> Option<String> {
    let nic = &topology.nics[nic.0];
    let vnet = &topology.vnets[topology.subnets[nic.subnet.0].vnet.0];
    match nic.vm {
        Some(vm) => Some(topology.vms[vm.0].name.clone()),
        None => vnet.tun.as_ref().map(|_| vnet.port_namespace()),
    }
}
