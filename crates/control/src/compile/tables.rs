//! FIBs and filters under construction: each distinct one is made once and shared.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use engine::fib::{Fib, NextHop, SharedId};
use engine::filter::Filter;
use engine::snapshot::{FibId, FilterId, FrontendId, GatewayId, PeeringId, Vnet, VnetId};
use ipnet::IpNet;
use model::Topology;
use model::gateways::InUse;
use model::topology::{
    AsgIndex, Direction, Nsg, NsgIndex, PeeringIndex, RouteTableIndex, RuleAddress, SubnetIndex, VnetIndex,
};
use packet::key::mapped;

use super::pieces::{FilterKey, FilterPiece, Kept, Meaning};
use super::{FilterOrigin, Provenance, RuleOrigin, balancers, dense, peering_id};
use crate::platform::exemptions;
use crate::rib::{Route, RouteType};
use crate::security_admin::applying;
use crate::subnet_peering::{closed, leads_nowhere};
use crate::surroundings::Surroundings;

/// Subnets with the same VNet, route table, peerings and service endpoints share a FIB and the meaning of tags.
type PlaceKey = (VnetIndex, Option<RouteTableIndex>, Unlike);

/// What sets a subnet apart: the first subnet of the same VNet with the same service endpoints (ROUTE-09) that the same
/// subnet peerings do not join (PEER-40). None: it has no endpoint, and all join it.
type Unlike = Option<SubnetIndex>;

/// The NSG, the direction, whether the Internet is reached by the system's own route, and a hash of the rules.
type ContentKey = (NsgIndex, Direction, bool, u64);

/// The tables under construction, each made once.
pub(super) struct Tables<'a> {
    topology: &'a Topology,
    before: &'a Kept,
    pub(super) kept: Kept,
    pub(super) around: &'a Surroundings<'a>,
    pub(super) vnets: Vec<Vnet>,
    /// By local VNet.
    peerings_of: Vec<Vec<PeeringId>>,
    /// By object: those it gives, and their local VNets.
    ids_of: Vec<Vec<(VnetIndex, PeeringId)>>,
    /// By subnet: the subnet peerings that do not join it.
    closed: Vec<Vec<PeeringIndex>>,
    /// By frontend: VNet, address, and the peerings over which it is out of reach.
    frontends: Vec<(VnetId, u128, Vec<PeeringId>)>,
    places: HashMap<PlaceKey, (FibId, Arc<Meaning>)>,
    /// The ASGs that the rules' near sides name, and whether the rules name any at all.
    named: HashMap<(NsgIndex, Direction), (Vec<AsgIndex>, bool)>,
    by_place: HashMap<FilterKey, FilterId>,
    by_content: HashMap<ContentKey, Vec<FilterId>>,
    admin_by_place: HashMap<(Direction, PlaceKey), Option<FilterId>>,
    pub(super) fibs: Vec<Fib>,
    pub(super) filters: Vec<Filter>,
    pub(super) provenance: Provenance,
}

impl<'a> Tables<'a> {
    /// `vnets` with their addresses; `peerings` by id: the local VNet and the object. `kept` has the inputs alone.
    pub(super) fn new(
        topology: &'a Topology,
        (before, kept): (&'a Kept, Kept),
        around: &'a Surroundings<'a>,
        vnets: Vec<Vnet>,
        peerings: Vec<(VnetIndex, PeeringIndex)>,
        frontends: &[balancers::Compiled],
    ) -> Self {
        let mut peerings_of = vec![Vec::new(); vnets.len()];
        let mut ids_of = vec![Vec::new(); topology.peerings.len()];
        for (id, &(local, object)) in peerings.iter().enumerate() {
            peerings_of[local.0].push(peering_id(id));
            ids_of[object.0].push((local, peering_id(id)));
        }
        Self {
            topology,
            before,
            kept,
            around,
            vnets,
            peerings_of,
            ids_of,
            closed: closed(topology),
            frontends: frontends
                .iter()
                .map(|(it, _)| (it.vnet, it.address, it.out_of_reach.clone()))
                .collect(),
            places: HashMap::new(),
            named: HashMap::new(),
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
        if let Some(&(fib, _)) = self.places.get(&key) {
            return fib;
        }
        let vnet = &self.topology.vnets[key.0.0].name;
        let own = self.around.peerings(key.0);
        let scope = self.around.scope(subnet).relative(own);
        let before = self.before.places.get(vnet).map_or(&[][..], Vec::as_slice);
        let meaning = Meaning::of(scope, self.kept.inputs.services(), before);
        let routes = meaning.routes(own);
        let mut shared = Vec::new();
        let next_hops: Vec<NextHop> = routes
            .iter()
            .map(|route| self.next_hop(key, route, &mut shared))
            .collect();
        let id = self.add(meaning.fib.leading(next_hops).sharing(shared), routes);
        let places = self.kept.places.entry(vnet.clone()).or_default();
        places.push(Arc::clone(&meaning));
        self.places.insert(key, (id, meaning));
        id
    }

    /// A FIB, and what its routes are.
    pub(super) fn add(&mut self, fib: Fib, origins: Vec<Route>) -> FibId {
        let id = FibId(dense(self.fibs.len()));
        self.fibs.push(fib);
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
        let own = self.ids_of[object.0].iter();
        let mut own = own.filter(|(local, _)| *local == place.0).map(|&(_, id)| id);
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
        let topology = self.topology;
        let rules = &topology.nsgs[nsg.0];
        let meaning = Arc::clone(&self.places[&self.place_key(nic.subnet)].1);
        let named = self
            .named
            .entry((nsg, direction))
            .or_insert_with(|| named_asgs(rules, direction));
        let key = FilterKey {
            nsg: self.kept.inputs.nsg(nsg),
            direction,
            place: Arc::as_ptr(&meaning) as usize,
            member_of: named
                .0
                .iter()
                .copied()
                .filter(|asg| nic.asgs.contains(asg))
                .collect(),
            members: match named.1 {
                true => self.kept.inputs.members_address(),
                false => 0,
            },
        };
        if let Some(&id) = self.by_place.get(&key) {
            return id;
        }
        let known = self.before.filters.get(&key).cloned();
        let piece = known.unwrap_or_else(|| {
            let place = meaning.place(self.kept.inputs.members(), &key.member_of);
            FilterPiece::of(rules, direction, &place)
        });
        let hash = piece.hash;
        let id = self.numbered((nsg, direction, meaning.internet_by_default, hash), piece);
        // Of equal ones the first is kept.
        let piece = FilterPiece {
            filter: self.filters[id.index()].clone(),
            rules: Arc::clone(&self.provenance.filters[id.index()].rules),
            hash,
        };
        self.kept.filters.insert(key.clone(), piece);
        self.by_place.insert(key, id);
        id
    }

    /// The id of a filter; those of one NSG that are equal share it.
    fn numbered(&mut self, content: ContentKey, piece: FilterPiece) -> FilterId {
        let alike = self.by_content.entry(content).or_default();
        let mut equal = alike.iter().copied();
        let rules = piece.filter.rules();
        if let Some(id) = equal.find(|id| self.filters[id.index()].rules() == rules) {
            return id;
        }
        let id = FilterId(dense(self.filters.len()));
        alike.push(id);
        self.filters.push(piece.filter);
        self.provenance.filters.push(FilterOrigin {
            nsg: Some(content.0),
            direction: content.1,
            rules: piece.rules,
        });
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
        let place = self.places[&key.1].1.place(self.kept.inputs.members(), &[]);
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

/// The ASGs that the near sides of the rules name, each once; and whether the rules name any at all.
fn named_asgs(nsg: &Nsg, direction: Direction) -> (Vec<AsgIndex>, bool) {
    let (mut near, mut any) = (Vec::new(), false);
    for rule in nsg.rules.iter().filter(|rule| rule.direction == direction) {
        let sides = match direction {
            Direction::Inbound => [&rule.destination, &rule.source],
            Direction::Outbound => [&rule.source, &rule.destination],
        };
        for (side, is_near) in sides.into_iter().zip([true, false]) {
            if let RuleAddress::Asgs(asgs) = side {
                any = true;
                near.extend(asgs.iter().filter(|_| is_near));
            }
        }
    }
    near.sort_unstable();
    near.dedup();
    (near, any)
}

pub(super) fn origin(owner: String, name: String) -> RuleOrigin {
    RuleOrigin { owner, name }
}
