//! Topology -> Snapshot: dense ids, shared tables, and what each id means in the user's words.

pub mod balancers;
mod gateways;
mod links;
mod log_rules;
mod pieces;
mod tables;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use engine::snapshot::{
    ConnectionId, EgressCap, GatewayId, Internet, Nic, NicId, Peering, PeeringId, Port, PortId, Snapshot,
    Vnet, VnetId,
};
use ipnet::IpNet;
use model::Topology;
use model::topology::{
    ConnectionIndex, Direction, ForwardedSemantics, GatewayIndex, LoadBalancerIndex, NicIndex, NsgIndex,
    PeeringIndex, PeeringState, Profile, VmIndex, VnetIndex,
};
use packet::Prefix;
use packet::key::mapped;

use crate::rib::Route;
use crate::surroundings::Surroundings;
pub use links::LinkOrigin;
pub use log_rules::LogRule;
pub use pieces::Pieces;
use pieces::{Inputs, Kept};
use tables::Tables;

/// NSG-19: of a VNet without `flowTimeoutInMinutes`.
const TCP_IDLE_MINUTES: u8 = 4;

/// A snapshot and its meaning.
///
/// `NicId(n)` is `NicIndex(n)` and `VnetId(n)` is `VnetIndex(n)`; a running lab renumbers them ([`crate::Generation`]).
#[derive(Clone, Debug)]
pub struct Compiled {
    pub snapshot: Arc<Snapshot>,
    pub provenance: Provenance,
    /// For the next compilation of this lab.
    pub pieces: Pieces,
}

/// What ids and positions in a snapshot mean.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// By port: who is behind it.
    pub ports: Vec<PortOwner>,
    /// By peering: the object it comes from. A peering with a classic VNet, one object, gives both directions (PEER-31).
    pub peerings: Vec<PeeringIndex>,
    /// By link.
    pub links: Vec<LinkOrigin>,
    /// By FIB and route number.
    pub routes: Vec<Vec<Route>>,
    /// By filter.
    pub filters: Vec<FilterOrigin>,
    /// By [`engine::snapshot::LogRuleId`], of a first generation.
    pub log_rules: Vec<LogRule>,
    /// By frontend: the balancer, and the position in its list.
    pub frontends: Vec<(LoadBalancerIndex, usize)>,
    /// By health id: whom which probe asks.
    pub probed: Vec<Probed>,
}

/// A backend that a probe asks, by position in [`model::topology::LoadBalancer::probes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probed {
    pub balancer: LoadBalancerIndex,
    pub probe: usize,
    pub nic: NicIndex,
    /// The backend's address; the probe comes from the platform's of the same family.
    pub address: IpAddr,
}

/// Who is behind a port. `PortId`s count the NICs of VMs first, in the topology's order (VM by VM, eth0 first), then
/// the VNets with a VNet port, in file order, then the Internet, then the platform of each VNet that has probes, then the
/// connections that lead to a site (site by site, each in file order), then the gateways that speak BGP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortOwner {
    /// `eth<interface>` of a VM.
    Vm {
        vm: VmIndex,
        interface: usize,
        nic: NicIndex,
    },
    Vnet(VnetIndex),
    Internet,
    /// 168.63.129.16 for a VNet that has load balancers with probes (VNET-08).
    Platform(VnetIndex),
    /// The site's end of a connection.
    Connection(ConnectionIndex),
    /// A gateway's own namespace.
    Gateway(GatewayIndex),
}

/// Which rules a filter was made of: those of an NSG, or the security admin rules of a VNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterOrigin {
    /// None: security admin rules (NSG-43).
    pub nsg: Option<NsgIndex>,
    pub direction: Direction,
    /// By rule number.
    pub rules: Arc<[RuleOrigin]>,
}

/// Whose rule it is, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOrigin {
    /// The NSG's name, or `<configuration>/<collection>` of a security admin rule.
    pub owner: String,
    /// `securityRules/<name>`, `defaultSecurityRules/<name>` (NSG-36), `securityAdminRules/<name>`, or
    /// `platformRules/<name>` of what passes whatever the rules say (NSG-14).
    pub name: String,
}

/// Compiles a lab. The same topology and generation give the same tables.
#[must_use]
pub fn compile(topology: &Topology, generation: u64) -> Compiled {
    compile_after(&Pieces::default(), topology, generation)
}

/// The same tables as [`compile`] makes, whatever the pieces: those whose inputs are equal now are not made again.
#[must_use]
pub fn compile_after(before: &Pieces, topology: &Topology, generation: u64) -> Compiled {
    let owners = port_owners(topology);
    let before = before.kept();
    let kept = Kept {
        inputs: Inputs::of(topology, &before.inputs),
        ..Kept::default()
    };
    let around = Surroundings::with(topology, kept.inputs.user_routes());
    let (peerings, peering_ids) = peerings(topology, &around);
    let (links, link_origins) = links::links(topology, &ways(topology, &peering_ids));
    let (probed, health) = balancers::probed(topology);
    let frontends = balancers::frontends(topology, &probed, &peering_ids);
    let vnets = vnets(topology, generation);
    let mut tables = Tables::new(topology, (before, kept), &around, vnets, peering_ids, &frontends);
    let nics = nics(topology, &owners, &mut tables);
    let origins = frontends.iter().map(|&(_, origin)| origin).collect();
    let gateways = gateways::gateways(topology, &owners, &mut tables);
    let connections = gateways::connections(topology, &owners, &mut tables);
    let mut public_addresses: Vec<(u128, NicId)> = (0..)
        .zip(&topology.nics)
        .filter(|(_, nic)| is_on(topology, nic))
        .flat_map(|(id, nic)| {
            nic.public_addresses
                .iter()
                .map(move |&address| (mapped(address), NicId(id)))
        })
        .collect();
    public_addresses.sort_unstable();
    let (log_rules, logged) = log_rules::log_rules(topology, &tables.provenance.filters);
    let snapshot = Snapshot {
        generation,
        vnets: tables.vnets,
        nics,
        ports: owners.iter().map(port).collect(),
        peerings,
        gateways,
        connections,
        links,
        fibs: tables.fibs,
        filters: tables.filters,
        log_rules,
        public_addresses,
        internet: internet(topology, &owners),
        fabric_mtu: topology.settings.fabric_mtu,
        flows_per_nic: topology.settings.flows_per_nic,
        carries_ipsec: topology.profile == Profile::Azure2025,
        frontend_index: balancers::index(&frontends),
        frontends: frontends.into_iter().map(|(frontend, _)| frontend).collect(),
        health,
        platform: platform(&owners),
    };
    balancers::deny_probes(topology, &snapshot, &probed);
    Compiled {
        snapshot: Arc::new(snapshot),
        provenance: Provenance {
            ports: owners,
            links: link_origins,
            frontends: origins,
            probed,
            log_rules: logged,
            ..tables.provenance
        },
        pieces: Pieces::new(tables.kept),
    }
}

fn port_owners(topology: &Topology) -> Vec<PortOwner> {
    let of_vms = topology.nics.iter().enumerate().filter_map(|(index, nic)| {
        let vm = nic.vm?;
        let nic = NicIndex(index);
        let interface = topology.vms[vm.0].nics.iter().position(|&other| other == nic)?;
        Some(PortOwner::Vm { vm, interface, nic })
    });
    let of_vnets = topology
        .vnets
        .iter()
        .enumerate()
        .filter(|(_, vnet)| vnet.tun.is_some())
        .map(|(index, _)| PortOwner::Vnet(VnetIndex(index)));
    let internet = topology.internet.iter().map(|_| PortOwner::Internet);
    let platform = topology.probing_vnets().into_iter().map(PortOwner::Platform);
    let speakers = topology.speakers().map(PortOwner::Gateway);
    let connections = topology.site_ports().map(PortOwner::Connection);
    of_vms
        .chain(of_vnets)
        .chain(internet)
        .chain(platform)
        .chain(connections)
        .chain(speakers)
        .collect()
}

fn port(owner: &PortOwner) -> Port {
    match *owner {
        PortOwner::Vm { nic, .. } => Port::Nic(NicId(dense(nic.0))),
        PortOwner::Vnet(vnet) => Port::Vnet(VnetId(dense(vnet.0))),
        PortOwner::Internet => Port::Internet,
        PortOwner::Platform(vnet) => Port::Platform(VnetId(dense(vnet.0))),
        PortOwner::Connection(connection) => Port::Connection(ConnectionId(dense(connection.0))),
        PortOwner::Gateway(gateway) => Port::Gateway(GatewayId(dense(gateway.0))),
    }
}

/// Connected peerings (PEER-07), and the local VNet and object of each. A subnet peering has a second one that lets nothing
/// pass, for the routes of what it does not join (PEER-40).
fn peerings(
    topology: &Topology,
    around: &Surroundings<'_>,
) -> (Vec<Peering>, Vec<(VnetIndex, PeeringIndex)>) {
    let mut ids = Vec::new();
    for (index, peering) in topology.peerings.iter().enumerate() {
        if peering.state != PeeringState::Connected {
            continue;
        }
        ids.push((peering.from, PeeringIndex(index)));
        if peering.reverse.is_none() && topology.vnets[peering.to.0].classic {
            ids.push((peering.to, PeeringIndex(index)));
        }
    }
    let position: HashMap<(VnetIndex, PeeringIndex), usize> =
        ids.iter().enumerate().map(|(at, &key)| (key, at)).collect();
    let open = ids.len();
    let subnets = |index: PeeringIndex| topology.peerings[index.0].subnets.is_some();
    ids.extend(ids.clone().into_iter().filter(|(_, index)| subnets(*index)));
    let compiled = ids.iter().enumerate().map(|(id, &(local, index))| {
        let own = &topology.peerings[index.0];
        let remote = if own.from == local { own.to } else { own.from };
        let reverse_index = own.reverse.unwrap_or(index);
        let theirs = &topology.peerings[reverse_index.0];
        Peering {
            local: VnetId(dense(local.0)),
            remote: VnetId(dense(remote.0)),
            reverse: position.get(&(remote, reverse_index)).map(|&at| peering_id(at)),
            // PEER-20: azure-2025 only takes the ranges out of the tag.
            access: id < open
                && (topology.profile == Profile::Azure2025
                    || (own.allow_virtual_network_access && theirs.allow_virtual_network_access)),
            transit: around
                .gateways(remote)
                .iter()
                .any(|used| topology.gateways[used.gateway.0].vnet == local),
            forwarded_accepted: topology.settings.forwarded_semantics == ForwardedSemantics::Tag
                || theirs.allow_forwarded_traffic,
            link: links::of_peering(peering_id(id)),
        }
    });
    (compiled.collect(), ids)
}

/// Of each peering its object, and whether it is the object's way back (PEER-31).
fn ways(topology: &Topology, ids: &[(VnetIndex, PeeringIndex)]) -> Vec<(PeeringIndex, bool)> {
    let way = |&(local, index): &(VnetIndex, PeeringIndex)| (index, topology.peerings[index.0].from != local);
    ids.iter().map(way).collect()
}

fn vnets(topology: &Topology, generation: u64) -> Vec<Vnet> {
    let mut vnets: Vec<Vnet> = topology
        .vnets
        .iter()
        .map(|vnet| Vnet {
            generation,
            ranges: vnet.address_space.iter().map(|&range| prefix(range)).collect(),
            tcp_idle_minutes: vnet.flow_timeout_minutes.unwrap_or(TCP_IDLE_MINUTES),
            addresses: Vec::new(),
            gateways: Vec::new(),
        })
        .collect();
    for (id, gateway) in (0..).zip(&topology.gateways) {
        vnets[gateway.vnet.0].gateways.push(GatewayId(id));
    }
    let nics = (0..).zip(&topology.nics).filter(|(_, nic)| is_on(topology, nic));
    for (id, nic) in nics {
        let vnet = topology.subnets[nic.subnet.0].vnet;
        vnets[vnet.0]
            .addresses
            .extend(nic.addresses.iter().map(|&address| (mapped(address), NicId(id))));
    }
    for vnet in &mut vnets {
        vnet.addresses.sort_unstable();
    }
    vnets
}

/// Whether a NIC is on the network: that of a stopped VM keeps its addresses, and nobody finds them.
fn is_on(topology: &Topology, nic: &model::topology::Nic) -> bool {
    nic.vm.is_none_or(|vm| topology.vms[vm.0].running)
}

fn nics(topology: &Topology, owners: &[PortOwner], tables: &mut Tables<'_>) -> Vec<Nic> {
    let ports: HashMap<Behind, u32> = (0..)
        .zip(owners)
        .filter_map(|(id, owner)| match *owner {
            PortOwner::Vm { nic, .. } => Some((Behind::Own(nic), id)),
            PortOwner::Vnet(vnet) => Some((Behind::Vnet(vnet), id)),
            PortOwner::Internet
            | PortOwner::Platform(_)
            | PortOwner::Connection(_)
            | PortOwner::Gateway(_) => None,
        })
        .collect();
    let nic = |(index, nic): (usize, &model::topology::Nic)| {
        let subnet = &topology.subnets[nic.subnet.0];
        let behind = if nic.vm.is_some() {
            Behind::Own(NicIndex(index))
        } else {
            Behind::Vnet(subnet.vnet)
        };
        let filter = |tables: &mut Tables<'_>, nsg: Option<NsgIndex>, direction| {
            nsg.map(|nsg| tables.filter(nsg, direction, nic))
        };
        Nic {
            vnet: VnetId(dense(subnet.vnet.0)),
            // A NIC without a port is refused by the model; nobody answers at the id past the last.
            port: PortId(ports.get(&behind).copied().unwrap_or_else(|| dense(owners.len()))),
            fib: tables.fib(nic.subnet),
            addresses: (nic.addresses.iter().copied())
                .chain(balancers::floating(topology, NicIndex(index)))
                .map(mapped)
                .collect(),
            routers: subnet.prefixes.iter().map(router).collect(),
            ip_forwarding: nic.ip_forwarding,
            admin_outbound: tables.admin_filter(nic.subnet, Direction::Outbound),
            admin_inbound: tables.admin_filter(nic.subnet, Direction::Inbound),
            outbound: [
                filter(tables, nic.nsg, Direction::Outbound),
                filter(tables, subnet.nsg, Direction::Outbound),
            ],
            inbound: [
                filter(tables, subnet.nsg, Direction::Inbound),
                filter(tables, nic.nsg, Direction::Inbound),
            ],
            public: nic
                .public_addresses
                .iter()
                .map(|&address| mapped(address))
                .collect(),
            egress_cap: nic.vm.and_then(|vm| egress_cap(&topology.vms[vm.0])),
        }
    };
    topology.nics.iter().enumerate().map(nic).collect()
}

/// NET-12: all NICs of a VM count for its first.
fn egress_cap(vm: &model::topology::Vm) -> Option<EgressCap> {
    Some(EgressCap {
        bits_per_second: vm.egress_bps?,
        meter: NicId(dense(vm.nics.first()?.0)),
    })
}

/// Base + 1: the gateway of a subnet (VNET-03).
fn router(subnet: &IpNet) -> u128 {
    mapped(subnet.network()) + 1
}

/// What a NIC's packets come through.
#[derive(PartialEq, Eq, Hash)]
enum Behind {
    Own(NicIndex),
    Vnet(VnetIndex),
}

fn internet(topology: &Topology, owners: &[PortOwner]) -> Option<Internet> {
    let port = owners.iter().position(|owner| *owner == PortOwner::Internet)?;
    let mut addresses: Vec<u128> = topology
        .internet
        .iter()
        .flatten()
        .map(|&address| mapped(address))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    // ROUTE-09; the model refuses two NICs with one address here.
    let clients = (0..)
        .zip(&topology.nics)
        .filter(|(_, nic)| !topology.subnets[nic.subnet.0].service_endpoints.is_empty());
    let mut endpoint_clients: Vec<(u128, NicId)> = clients
        .flat_map(|(id, nic)| {
            nic.addresses
                .iter()
                .map(move |&address| (mapped(address), NicId(id)))
        })
        .collect();
    endpoint_clients.sort_unstable();
    Some(Internet {
        port: PortId(dense(port)),
        addresses,
        endpoint_clients,
    })
}

fn platform(owners: &[PortOwner]) -> Vec<(VnetId, PortId)> {
    let ports = (0..).zip(owners).filter_map(|(port, owner)| match *owner {
        PortOwner::Platform(vnet) => Some((VnetId(dense(vnet.0)), PortId(port))),
        _ => None,
    });
    let mut ports: Vec<_> = ports.collect();
    ports.sort_unstable();
    ports
}

fn prefix(net: IpNet) -> Prefix {
    Prefix::new(net.addr(), net.prefix_len())
}

fn peering_id(index: usize) -> PeeringId {
    PeeringId(dense(index))
}

/// Ids are 32 bits wide; memory ends long before they do.
pub(crate) fn dense(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
