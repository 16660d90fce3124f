//! FIBs and filters under construction: each distinct one is made once and shared.

use std::collections::HashMap;
use std::net::IpAddr;

use engine::fib::{self, Fib, NextHop, SharedId};
use engine::filter::Filter;
use engine::snapshot::{FibId, FilterId, FrontendId, GatewayId, PeeringId, Vnet, VnetId};
use ipnet::IpNet;
use model::Topology;
use model::gateways::InUse;
use model::topology::{
    AsgIndex, Direction, NsgIndex, PeeringIndex, RouteTableIndex, RuleAddress, SubnetIndex, VnetIndex,
};
use packet::key::mapped;

use super::{FilterOrigin, Provenance, RuleOrigin, balancers, dense, peering_id, prefix};
use crate::platform::exemptions;
use crate::rib::{Rib, Route, RouteType, scope};
use crate::rules::{Expanded, NamedRule, Place, asg_members, engine_rule, expand, ordered};
use crate::security_admin::applying;
use crate::subnet_peering::{closed, leads_nowhere};
use crate::tags::Tags;

/// Subnets with the same VNet, route table, peerings and service endpoints share a FIB and the meaning of tags.
type PlaceKey = (VnetIndex, Option<RouteTableIndex>, Unlike);

/// What sets a subnet apart: the first subnet of the same VNet with the same service endpoints (ROUTE-09) that the same
/// subnet peerings do not join (PEER-40). None: it has no endpoint, and all join it.
type Unlike = Option<SubnetIndex>;

/// The NSG, the direction, where, and which of the ASGs that the rules' near sides name the NIC is in.
type FilterKey = (NsgIndex, Direction, PlaceKey, Vec<AsgIndex>);

/// What a place means for packets and rules.
struct Meaning {
    fib: FibId,
    tags: Tags,
    internet_by_default: bool,
}

impl Meaning {
    fn place<'a>(&'a self, members: &'a [Vec<IpAddr>], member_of: &'a [AsgIndex]) -> Place<'a> {
        Place {
            tags: &self.tags,
            members,
            member_of,
            internet_by_default: self.internet_by_default,
        }
    }
}

/// The tables under construction, each made once.
pub(super) struct Tables<'a> {
    topology: &'a Topology,
    pub(super) vnets: Vec<Vnet>,
    /// By local VNet.
    peerings_of: Vec<Vec<PeeringId>>,
    /// By subnet: the subnet peerings that do not join it.
    closed: Vec<Vec<PeeringIndex>>,
    /// By frontend: VNet, address, and the peerings over which it is out of reach.
    frontends: Vec<(VnetId, u128, Vec<PeeringId>)>,
    members: Vec<Vec<IpAddr>>,
    places: HashMap<PlaceKey, Meaning>,
    by_place: HashMap<FilterKey, FilterId>,
    by_content: HashMap<(NsgIndex, Direction, bool, Vec<Expanded>), FilterId>,
    admin_by_place: HashMap<(Direction, PlaceKey), Option<FilterId>>,
    pub(super) fibs: Vec<Fib>,
    pub(super) filters: Vec<Filter>,
    pub(super) provenance: Provenance,
}

impl<'a> Tables<'a> {
    /// `vnets` with their addresses; `peerings` by id: the local VNet and the object.
    pub(super) fn new(
        topology: &'a Topology,
        vnets: Vec<Vnet>,
        peerings: Vec<(VnetIndex, PeeringIndex)>,
        frontends: &[balancers::Compiled],
    ) -> Self {
        let mut peerings_of = vec![Vec::new(); vnets.len()];
        for (id, (local, _)) in peerings.iter().enumerate() {
            peerings_of[local.0].push(peering_id(id));
        }
        Self {
            topology,
            vnets,
            peerings_of,
            closed: closed(topology),
            frontends: frontends
                .iter()
                .map(|(it, _)| (it.vnet, it.address, it.out_of_reach.clone()))
                .collect(),
            members: asg_members(topology),
            places: HashMap::new(),
            by_place: HashMap::new(),
            by_content: HashMap::new(),
            admin_by_place: HashMap::new(),
            fibs: Vec::new(),
            filters: Vec::new(),
            provenance: Provenance {
                peerings: peerings.into_iter().map(|(_, index)| index).collect(),
                ..Provenance::default()
            },
        }
    }

    /// The FIB of the subnet's place, made on first use.
    pub(super) fn fib(&mut self, subnet: SubnetIndex) -> FibId {
        let key = self.place_key(subnet);
        if let Some(meaning) = self.places.get(&key) {
            return meaning.fib;
        }
        let rib = Rib::new(&scope(self.topology, subnet));
        // An IPv6 prefix inside IPv4's own part of the 128-bit space matches no IPv6 packet.
        let winners: Vec<&Route> = rib
            .winners()
            .into_iter()
            .filter(|route| !is_mapped(route.prefix))
            .collect();
        let mut shared = Vec::new();
        let routes = winners.iter().map(|route| fib::Route {
            prefix: prefix(route.prefix),
            next_hop: self.next_hop(key, route, &mut shared),
        });
        let routes = routes.collect();
        let id = self.add(routes, shared, winners.into_iter().cloned().collect());
        let meaning = Meaning {
            fib: id,
            tags: Tags::of(self.topology, subnet),
            internet_by_default: rib.internet_by_default(),
        };
        self.places.insert(key, meaning);
        id
    }

    /// A FIB, and what its routes are.
    pub(super) fn add(
        &mut self,
        routes: Vec<fib::Route>,
        shared: Vec<Vec<NextHop>>,
        origins: Vec<Route>,
    ) -> FibId {
        let id = FibId(dense(self.fibs.len()));
        self.fibs.push(Fib::compile(routes).sharing(shared));
        self.provenance.routes.push(origins);
        id
    }

    /// `shared`: the next hops that routes of this table share so far.
    fn next_hop(&self, place: PlaceKey, route: &Route, shared: &mut Vec<Vec<NextHop>>) -> NextHop {
        match route.kind {
            RouteType::VnetLocal => NextHop::VnetLocal,
            RouteType::VnetPeering | RouteType::VnetGlobalPeering => route
                .peering
                .and_then(|index| self.peering(place, index, route.prefix))
                .map_or(NextHop::None, NextHop::Peering),
            RouteType::VirtualNetworkServiceEndpoint => NextHop::ServiceEndpoint,
            RouteType::Internet => NextHop::Internet,
            RouteType::VirtualNetworkGateway => route
                .gateway
                .and_then(|used| self.gateway(place, used))
                .unwrap_or(NextHop::NoGateway),
            RouteType::VirtualAppliance => {
                let address = route.next_hops.first();
                address.map_or(NextHop::Appliance(None), |&address| {
                    self.appliance(place, address)
                })
            }
            RouteType::VirtualApplianceEcmp => {
                let all = route.next_hops.iter();
                shared.push(all.map(|&address| self.appliance(place, address)).collect());
                NextHop::Shared(SharedId(dense(shared.len() - 1)))
            }
            RouteType::None => NextHop::None,
        }
    }

    /// The one that lets nothing pass, where the peering does not join the subnets (PEER-40).
    fn peering(&self, place: PlaceKey, object: PeeringIndex, prefix: IpNet) -> Option<PeeringId> {
        let own = self.peerings_of[place.0.0].iter().copied();
        let mut own = own.filter(|id| self.provenance.peerings[id.index()] == object);
        let open = own.next();
        if self.is_closed(place, object) || leads_nowhere(self.topology, object, prefix) {
            own.next()
        } else {
            open
        }
    }

    fn is_closed(&self, place: PlaceKey, object: PeeringIndex) -> bool {
        place
            .2
            .is_some_and(|subnet| self.closed[subnet.0].contains(&object))
    }

    /// None: the peering to it is not among the Connected ones.
    fn gateway(&self, place: PlaceKey, used: InUse) -> Option<NextHop> {
        let over = match used.over {
            Some(object) => Some(self.peering(place, object, self.first_address(used))?),
            None => None,
        };
        Some(NextHop::Gateway(GatewayId(dense(used.gateway.0)), over))
    }

    /// Where a gateway stands: what decides whether a subnet peering leads to it.
    fn first_address(&self, used: InUse) -> IpNet {
        let addresses = &self.topology.gateways[used.gateway.0].addresses;
        addresses
            .first()
            .map_or_else(IpNet::default, |&address| address.into())
    }

    /// The NIC, frontend or gateway with the address in the own VNet or a directly Connected peer (ROUTE-13, ROUTE-18,
    /// ROUTE-19, GW-08), and the peering to it. Found by address alone: user routes do not apply to the way to the next hop.
    fn appliance(&self, place: PlaceKey, address: IpAddr) -> NextHop {
        let vnet = place.0;
        if let Some(found) = self.has(vnet, address, None) {
            return found;
        }
        // Ranges of a VNet and its peers are disjoint (PEER-13, PEER-14), so at most one peer has it.
        let found = self.peerings_of[vnet.0].iter().find_map(|&id| {
            let peering = &self.topology.peerings[self.provenance.peerings[id.index()].0];
            let (remote, inside) = if peering.from == vnet {
                (peering.to, &peering.remote_address_space)
            } else {
                (peering.from, &self.topology.vnets[peering.from.0].address_space)
            };
            let object = self.provenance.peerings[id.index()];
            let closed =
                self.is_closed(place, object) || leads_nowhere(self.topology, object, address.into());
            let reachable = !closed && inside.iter().any(|range| range.contains(&address));
            reachable.then(|| self.has(remote, address, Some(id))).flatten()
        });
        found.unwrap_or(NextHop::Appliance(None))
    }

    /// Who has the address in a VNet. A frontend out of reach is nobody (PEER-28).
    fn has(&self, vnet: VnetIndex, address: IpAddr, peering: Option<PeeringId>) -> Option<NextHop> {
        let mut gateways = self.topology.gateways_in(vnet);
        if let Some(gateway) =
            gateways.find(|gateway| self.topology.gateways[gateway.0].addresses.contains(&address))
        {
            return Some(NextHop::Gateway(GatewayId(dense(gateway.0)), peering));
        }
        let address = mapped(address);
        if let Some(nic) = self.vnets[vnet.0].nic_of(address) {
            return Some(NextHop::Appliance(Some((nic, peering))));
        }
        let wanted = (VnetId(dense(vnet.0)), address);
        let at = self
            .frontends
            .iter()
            .position(|(vnet, address, _)| (*vnet, *address) == wanted)?;
        let reachable = peering.is_none_or(|id| !self.frontends[at].2.contains(&id));
        reachable.then(|| NextHop::Balancer(FrontendId(dense(at)), peering))
    }

    /// The filter of an NSG at a NIC.
    pub(super) fn filter(
        &mut self,
        nsg: NsgIndex,
        direction: Direction,
        nic: &model::topology::Nic,
    ) -> FilterId {
        self.fib(nic.subnet);
        let place_key = self.place_key(nic.subnet);
        let rules = ordered(&self.topology.nsgs[nsg.0], direction);
        let named = near_asgs(&rules);
        let member_of: Vec<AsgIndex> = named.into_iter().filter(|asg| nic.asgs.contains(asg)).collect();
        let key = (nsg, direction, place_key, member_of);
        if let Some(&id) = self.by_place.get(&key) {
            return id;
        }
        let meaning = &self.places[&key.2];
        let place = meaning.place(&self.members, &key.3);
        let content: Vec<Expanded> = rules.iter().map(|named| expand(&named.rule, &place)).collect();
        let id = *self
            .by_content
            .entry((nsg, direction, meaning.internet_by_default, content))
            .or_insert_with(|| {
                let own = rules
                    .iter()
                    .map(|named| (named.name.clone(), engine_rule(&named.rule, &place)));
                let all = exemptions(direction, &rules, &place).into_iter().chain(own);
                let owner = &self.topology.nsgs[nsg.0].name;
                let (names, compiled): (Vec<_>, Vec<_>) = all
                    .map(|(name, rule)| (origin(owner.clone(), name), rule))
                    .unzip();
                self.filters.push(Filter::compile(compiled));
                self.provenance.filters.push(FilterOrigin {
                    nsg: Some(nsg),
                    direction,
                    rules: names.into(),
                });
                FilterId(dense(self.filters.len() - 1))
            });
        self.by_place.insert(key, id);
        id
    }

    /// The security admin rules at a subnet; None: it has none (NSG-43).
    pub(super) fn admin_filter(&mut self, subnet: SubnetIndex, direction: Direction) -> Option<FilterId> {
        let rules = applying(self.topology, self.topology.subnets[subnet.0].vnet, direction);
        if rules.is_empty() {
            return None;
        }
        self.fib(subnet);
        let key = (direction, self.place_key(subnet));
        if let Some(&made) = self.admin_by_place.get(&key) {
            return made;
        }
        let place = self.places[&key.1].place(&self.members, &[]);
        let front = exemptions(direction, &[], &place).into_iter();
        let front = front.map(|(name, rule)| (origin("platform".to_owned(), name), rule));
        let own = rules.iter().map(|named| {
            let origin = origin(named.owner(self.topology), named.name());
            (origin, named.engine_rule(&place))
        });
        let (names, compiled): (Vec<_>, Vec<_>) = front.chain(own).unzip();
        self.filters.push(Filter::compile(compiled));
        self.provenance.filters.push(FilterOrigin {
            nsg: None,
            direction,
            rules: names.into(),
        });
        let made = Some(FilterId(dense(self.filters.len() - 1)));
        self.admin_by_place.insert(key, made);
        made
    }

    fn place_key(&self, subnet: SubnetIndex) -> PlaceKey {
        let own = &self.topology.subnets[subnet.0];
        let closed = &self.closed[subnet.0];
        if closed.is_empty() && own.service_endpoints.is_empty() {
            return (own.vnet, own.route_table, None);
        }
        let mut others = self.topology.vnets[own.vnet.0].subnets.iter().copied();
        let alike = |other: &SubnetIndex| {
            self.closed[other.0] == *closed
                && self.topology.subnets[other.0].service_endpoints == own.service_endpoints
        };
        (
            own.vnet,
            own.route_table,
            Some(others.find(alike).unwrap_or(subnet)),
        )
    }
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

fn origin(owner: String, name: String) -> RuleOrigin {
    RuleOrigin { owner, name }
}

fn is_mapped(net: IpNet) -> bool {
    net.prefix_len() >= 96 && matches!(net, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some())
}
