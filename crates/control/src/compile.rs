//! Topology -> Snapshot: dense ids, shared tables, and what each id means in the user's words.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use engine::fib::{self, Fib, NextHop};
use engine::filter::Filter;
use engine::snapshot::{
    FibId, FilterId, Internet, Nic, NicId, Peering, PeeringId, Port, PortId, Snapshot, Vnet, VnetId,
};
use ipnet::IpNet;
use model::Topology;
use model::topology::{
    AsgIndex, Direction, ForwardedSemantics, NicIndex, NsgIndex, PeeringIndex, PeeringState, Profile,
    RouteTableIndex, RuleAddress, SubnetIndex, VmIndex, VnetIndex,
};
use packet::Prefix;
use packet::key::mapped;

use crate::rib::{Rib, Route, RouteType, scope};
use crate::rules::{Expanded, NamedRule, Place, asg_members, engine_rule, expand, ordered};
use crate::tags::{Tags, tag_scope, virtual_network};

/// A snapshot and its meaning.
///
/// `NicId(n)` is `NicIndex(n)` and `VnetId(n)` is `VnetIndex(n)`.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub snapshot: Arc<Snapshot>,
    pub provenance: Provenance,
}

/// What ids and positions in a snapshot mean.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// By port: who is behind it.
    pub ports: Vec<PortOwner>,
    /// By peering: the object it comes from. A peering with a classic VNet, one object, gives both directions (PEER-31).
    pub peerings: Vec<PeeringIndex>,
    /// By FIB and route number.
    pub routes: Vec<Vec<Route>>,
    /// By filter.
    pub filters: Vec<FilterOrigin>,
}

/// Who is behind a port. `PortId`s count the NICs of VMs first, in the topology's order (VM by VM, eth0 first), then
/// the VNets with a VNet port, in file order, then the Internet.
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
}

/// Which rules a filter was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterOrigin {
    pub nsg: NsgIndex,
    pub direction: Direction,
    /// By rule number: `securityRules/<name>` or `defaultSecurityRules/<name>` (NSG-36).
    pub rules: Arc<[String]>,
}

/// Compiles a lab. The same topology and generation give the same tables.
#[must_use]
pub fn compile(topology: &Topology, generation: u64) -> Compiled {
    let owners = port_owners(topology);
    let (peerings, peering_ids) = peerings(topology);
    let mut tables = Tables {
        topology,
        vnets: vnets(topology, generation),
        peering_ids: peering_ids
            .iter()
            .enumerate()
            .map(|(id, &(vnet, index))| ((vnet, index), peering_id(id)))
            .collect(),
        members: asg_members(topology),
        places: HashMap::new(),
        by_place: HashMap::new(),
        by_content: HashMap::new(),
        fibs: Vec::new(),
        filters: Vec::new(),
        provenance: Provenance {
            peerings: peering_ids.iter().map(|&(_, index)| index).collect(),
            ..Provenance::default()
        },
    };
    let nics = nics(topology, &owners, &mut tables);
    let mut public_addresses: Vec<(u128, NicId)> = (0..)
        .zip(&topology.nics)
        .flat_map(|(id, nic)| {
            nic.public_addresses
                .iter()
                .map(move |&address| (mapped(address), NicId(id)))
        })
        .collect();
    public_addresses.sort_unstable();
    let snapshot = Snapshot {
        generation,
        vnets: tables.vnets,
        nics,
        ports: owners.iter().map(port).collect(),
        peerings,
        fibs: tables.fibs,
        filters: tables.filters,
        public_addresses,
        internet: internet(topology, &owners),
    };
    Compiled {
        snapshot: Arc::new(snapshot),
        provenance: Provenance {
            ports: owners,
            ..tables.provenance
        },
    }
}

/// Subnets with the same VNet and route table share a FIB and the meaning of tags.
type PlaceKey = (VnetIndex, Option<RouteTableIndex>);

/// The NSG, the direction, where, and which of the ASGs that the rules' near sides name the NIC is in.
type FilterKey = (NsgIndex, Direction, PlaceKey, Vec<AsgIndex>);

/// The tables under construction, each made once.
struct Tables<'a> {
    topology: &'a Topology,
    vnets: Vec<Vnet>,
    /// By local VNet and object.
    peering_ids: HashMap<(VnetIndex, PeeringIndex), PeeringId>,
    members: Vec<Vec<IpAddr>>,
    places: HashMap<PlaceKey, (FibId, Tags)>,
    by_place: HashMap<FilterKey, FilterId>,
    by_content: HashMap<(NsgIndex, Direction, Vec<Expanded>), FilterId>,
    fibs: Vec<Fib>,
    filters: Vec<Filter>,
    provenance: Provenance,
}

impl Tables<'_> {
    /// The FIB of the subnet's place, made on first use.
    fn fib(&mut self, subnet: SubnetIndex) -> FibId {
        let key = self.place_key(subnet);
        if let Some((fib, _)) = self.places.get(&key) {
            return *fib;
        }
        let rib = Rib::new(&scope(self.topology, key.0, key.1));
        // An IPv6 prefix inside IPv4's own part of the 128-bit space matches no IPv6 packet.
        let winners: Vec<&Route> = rib
            .winners()
            .into_iter()
            .filter(|route| !is_mapped(route.prefix))
            .collect();
        let routes = winners.iter().map(|route| fib::Route {
            prefix: prefix(route.prefix),
            next_hop: self.next_hop(key.0, route),
        });
        let compiled = Fib::compile(routes.collect());
        let id = FibId(dense(self.fibs.len()));
        self.fibs.push(compiled);
        self.provenance
            .routes
            .push(winners.into_iter().cloned().collect());
        let tags = Tags::new(virtual_network(&tag_scope(self.topology, subnet)));
        self.places.insert(key, (id, tags));
        id
    }

    fn next_hop(&self, vnet: VnetIndex, route: &Route) -> NextHop {
        match route.kind {
            RouteType::VnetLocal => NextHop::VnetLocal,
            RouteType::VnetPeering | RouteType::VnetGlobalPeering => route
                .peering
                .and_then(|index| self.peering_ids.get(&(vnet, index)))
                .map_or(NextHop::None, |&id| NextHop::Peering(id)),
            // The service answers at its public address.
            RouteType::VirtualNetworkServiceEndpoint | RouteType::Internet => NextHop::Internet,
            RouteType::VirtualNetworkGateway => NextHop::NoGateway,
            RouteType::VirtualAppliance => NextHop::Appliance(
                route
                    .next_hops
                    .first()
                    .and_then(|&address| self.appliance(vnet, address)),
            ),
            RouteType::None => NextHop::None,
        }
    }

    /// The NIC with the address in the own VNet or a directly Connected peer (ROUTE-13, ROUTE-18), and the peering
    /// to it. Found by address alone: user routes do not apply to the way to the next hop.
    fn appliance(&self, vnet: VnetIndex, address: IpAddr) -> Option<(NicId, Option<PeeringId>)> {
        if let Some(nic) = self.vnets[vnet.0].nic_of(mapped(address)) {
            return Some((nic, None));
        }
        // Ranges of a VNet and its peers are disjoint (PEER-13, PEER-14), so at most one peer has it; the least id
        // keeps the answer the same even so.
        let found = self
            .peering_ids
            .iter()
            .filter(|((local, _), _)| *local == vnet)
            .filter_map(|(_, &id)| {
                let peering = &self.topology.peerings[self.provenance.peerings[id.index()].0];
                let forward = peering.from == vnet;
                let remote = if forward { peering.to } else { peering.from };
                let inside = if forward {
                    &peering.remote_address_space
                } else {
                    &self.topology.vnets[remote.0].address_space
                };
                let reachable = inside.iter().any(|range| range.contains(&address));
                let nic = self.vnets[remote.0]
                    .nic_of(mapped(address))
                    .filter(|_| reachable)?;
                Some((id, nic))
            });
        found.min().map(|(id, nic)| (nic, Some(id)))
    }

    /// The filter of an NSG at a NIC.
    fn filter(&mut self, nsg: NsgIndex, direction: Direction, nic: &model::topology::Nic) -> FilterId {
        self.fib(nic.subnet);
        let place_key = self.place_key(nic.subnet);
        let rules = ordered(&self.topology.nsgs[nsg.0], direction);
        let named = near_asgs(&rules);
        let member_of: Vec<AsgIndex> = named.into_iter().filter(|asg| nic.asgs.contains(asg)).collect();
        let key = (nsg, direction, place_key, member_of);
        if let Some(&id) = self.by_place.get(&key) {
            return id;
        }
        let place = Place {
            tags: &self.places[&place_key].1,
            members: &self.members,
            member_of: &key.3,
        };
        let content: Vec<Expanded> = rules.iter().map(|named| expand(&named.rule, &place)).collect();
        let id = *self
            .by_content
            .entry((nsg, direction, content))
            .or_insert_with(|| {
                let compiled = rules
                    .iter()
                    .map(|named| engine_rule(&named.rule, &place))
                    .collect();
                self.filters.push(Filter::compile(compiled));
                self.provenance.filters.push(FilterOrigin {
                    nsg,
                    direction,
                    rules: rules.iter().map(|named| named.name.clone()).collect(),
                });
                FilterId(dense(self.filters.len() - 1))
            });
        self.by_place.insert(key, id);
        id
    }

    fn place_key(&self, subnet: SubnetIndex) -> PlaceKey {
        let subnet = &self.topology.subnets[subnet.0];
        (subnet.vnet, subnet.route_table)
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
    of_vms.chain(of_vnets).chain(internet).collect()
}

fn port(owner: &PortOwner) -> Port {
    match *owner {
        PortOwner::Vm { nic, .. } => Port::Nic(NicId(dense(nic.0))),
        PortOwner::Vnet(vnet) => Port::Vnet(VnetId(dense(vnet.0))),
        PortOwner::Internet => Port::Internet,
    }
}

/// Connected peerings (PEER-07), and the local VNet and object of each.
fn peerings(topology: &Topology) -> (Vec<Peering>, Vec<(VnetIndex, PeeringIndex)>) {
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
    let compiled = ids.iter().map(|&(local, index)| {
        let own = &topology.peerings[index.0];
        let remote = if own.from == local { own.to } else { own.from };
        let reverse_index = own.reverse.unwrap_or(index);
        let theirs = &topology.peerings[reverse_index.0];
        Peering {
            local: VnetId(dense(local.0)),
            remote: VnetId(dense(remote.0)),
            reverse: position.get(&(remote, reverse_index)).map(|&at| peering_id(at)),
            // PEER-20: azure-2025 only takes the ranges out of the tag.
            access: topology.profile == Profile::Azure2025
                || (own.allow_virtual_network_access && theirs.allow_virtual_network_access),
            forwarded_accepted: topology.settings.forwarded_semantics == ForwardedSemantics::Tag
                || theirs.allow_forwarded_traffic,
        }
    });
    (compiled.collect(), ids)
}

fn vnets(topology: &Topology, generation: u64) -> Vec<Vnet> {
    let mut vnets: Vec<Vnet> = topology
        .vnets
        .iter()
        .map(|vnet| Vnet {
            generation,
            ranges: vnet.address_space.iter().map(|&range| prefix(range)).collect(),
            addresses: Vec::new(),
        })
        .collect();
    for (id, nic) in (0..).zip(&topology.nics) {
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

fn nics(topology: &Topology, owners: &[PortOwner], tables: &mut Tables<'_>) -> Vec<Nic> {
    let ports: HashMap<Behind, u32> = (0..)
        .zip(owners)
        .filter_map(|(id, owner)| match *owner {
            PortOwner::Vm { nic, .. } => Some((Behind::Own(nic), id)),
            PortOwner::Vnet(vnet) => Some((Behind::Vnet(vnet), id)),
            PortOwner::Internet => None,
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
            addresses: nic.addresses.iter().map(|&address| mapped(address)).collect(),
            ip_forwarding: nic.ip_forwarding,
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
        }
    };
    topology.nics.iter().enumerate().map(nic).collect()
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
    Some(Internet {
        port: PortId(dense(port)),
        addresses,
    })
}

/// The ASGs that the near sides of the rules name, each once.
fn near_asgs(rules: &[NamedRule<'_>]) -> Vec<AsgIndex> {
    let near = rules.iter().filter_map(|named| {
        match (named.rule.direction, &named.rule.source, &named.rule.destination) {
            (Direction::Outbound, RuleAddress::Asgs(asgs), _)
            | (Direction::Inbound, _, RuleAddress::Asgs(asgs)) => Some(asgs),
            _ => None,
        }
    });
    let mut asgs: Vec<AsgIndex> = near.flatten().copied().collect();
    asgs.sort_unstable();
    asgs.dedup();
    asgs
}

fn prefix(net: IpNet) -> Prefix {
    Prefix::new(net.addr(), net.prefix_len())
}

fn is_mapped(net: IpNet) -> bool {
    net.prefix_len() >= 96 && matches!(net, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some())
}

fn peering_id(index: usize) -> PeeringId {
    PeeringId(dense(index))
}

/// Ids are 32 bits wide; memory ends long before they do.
fn dense(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
