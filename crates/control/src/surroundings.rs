//! What lies around each VNet of a lab, found in one look at all of it: its peerings, the gateways it uses, what is behind them.

use std::collections::HashSet;
use std::sync::Arc;

use ipnet::IpNet;
use model::Topology;
use model::gateways::{Behind, InUse};
use model::topology::{PeeringIndex, RouteTableIndex, SubnetIndex, Udr, VnetIndex};

use crate::rib::{GatewayRoute, PeeringInput, Scope, none_defaults, service_endpoints};

/// Of one topology.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    topology: &'a Topology,
    /// By VNet: its own, then those that stand for both sides of a classic VNet, in file order.
    peerings: Vec<Vec<PeeringIndex>>,
    /// By VNet (GW-07).
    in_use: Vec<Vec<InUse>>,
    /// By gateway.
    behind: Vec<Vec<Behind>>,
    none_defaults: Vec<IpNet>,
    /// By route table.
    user_routes: Vec<Arc<[Udr]>>,
}

impl<'a> Surroundings<'a> {
    pub(crate) fn of(topology: &'a Topology) -> Self {
        let tables = topology.route_tables.iter();
        let user_routes = tables.map(|table| table.routes.as_slice().into()).collect();
        Self::with(topology, user_routes)
    }

    /// `user_routes`: those of every route table.
    pub(crate) fn with(topology: &'a Topology, user_routes: Vec<Arc<[Udr]>>) -> Self {
        let mut peerings = vec![Vec::new(); topology.vnets.len()];
        for (index, peering) in topology.peerings.iter().enumerate() {
            peerings[peering.from.0].push(PeeringIndex(index));
        }
        // A classic VNet has no peering object of its own (PEER-31).
        for (index, peering) in topology.peerings.iter().enumerate() {
            if peering.reverse.is_none() && topology.vnets[peering.to.0].classic {
                peerings[peering.to.0].push(PeeringIndex(index));
            }
        }
        Self {
            topology,
            peerings,
            in_use: topology.all_gateways_in_use(),
            behind: topology.all_behind(),
            none_defaults: none_defaults(topology),
            user_routes,
        }
    }

    /// The peerings of a VNet, in any state.
    pub(crate) fn peerings(&self, vnet: VnetIndex) -> &[PeeringIndex] {
        &self.peerings[vnet.0]
    }

    /// The gateways a VNet uses: its own, or a peer's (GW-07).
    pub(crate) fn gateways(&self, vnet: VnetIndex) -> &[InUse] {
        &self.in_use[vnet.0]
    }

    /// What is behind a gateway, by position.
    pub(crate) fn behind(&self, gateway: usize) -> &[Behind] {
        &self.behind[gateway]
    }

    /// The scope of a subnet.
    pub(crate) fn scope(&self, subnet: SubnetIndex) -> Scope {
        let topology = self.topology;
        let subnet = &topology.subnets[subnet.0];
        let vnet = subnet.vnet;
        let table = subnet.route_table.map(|table| &topology.route_tables[table.0]);
        let user_routes = |RouteTableIndex(table)| Arc::clone(&self.user_routes[table]);
        Scope {
            profile: topology.profile,
            ranges: topology.vnets[vnet.0].address_space.clone(),
            peerings: self.peering_inputs(vnet),
            gateway_routes: self.gateway_routes(vnet),
            service_endpoints: service_endpoints(topology, subnet),
            none_defaults: self.none_defaults.clone(),
            user_routes: subnet.route_table.map(user_routes).unwrap_or_default(),
            vpn_gateway: self.vpn(vnet),
            disable_bgp_route_propagation: table.is_some_and(|table| table.disable_bgp_route_propagation),
            disable_peering_route: table.is_some_and(|table| table.disable_peering_route),
            tag_includes_default_route: topology.settings.tag_includes_default_route,
            classic: topology.vnets[vnet.0].classic,
        }
    }

    /// The peerings of a VNet as its routes see them.
    pub(crate) fn peering_inputs(&self, vnet: VnetIndex) -> Vec<PeeringInput> {
        let topology = self.topology;
        let input = |&index: &PeeringIndex| {
            let peering = &topology.peerings[index.0];
            PeeringInput {
                index: Some(index),
                state: peering.state,
                global: peering.global,
                access: peering.allow_virtual_network_access,
                remote_space: if peering.from == vnet {
                    peering.remote_address_space.clone()
                } else {
                    topology.vnets[peering.from.0].address_space.clone()
                },
            }
        };
        self.peerings[vnet.0].iter().map(input).collect()
    }

    /// The prefixes behind the gateways that a VNet uses, its own or a peer's (GW-08), each once: of two gateways with the
    /// same prefix ExpressRoute is preferred (GW-14). What lies inside the VNet itself is left out (ROUTE-08, NSG-11).
    pub(crate) fn gateway_routes(&self, vnet: VnetIndex) -> Vec<GatewayRoute> {
        let gateways = &self.topology.gateways;
        let mut used = self.in_use[vnet.0].clone();
        used.sort_by_key(|used| gateways[used.gateway.0].is_vpn());
        let space = &self.topology.vnets[vnet.0].address_space;
        let mut seen: HashSet<IpNet> = HashSet::new();
        let mut routes = Vec::new();
        for used in used {
            let next_hops = gateways[used.gateway.0].shown_next_hops();
            for behind in &self.behind[used.gateway.0] {
                let inside = space.iter().any(|range| range.contains(&behind.prefix));
                if !inside && seen.insert(behind.prefix) {
                    routes.push(GatewayRoute {
                        prefix: behind.prefix,
                        next_hops: next_hops.clone(),
                        gateway: Some(used),
                    });
                }
            }
        }
        routes
    }

    /// The gateway that user routes of type VirtualNetworkGateway lead to: a VPN gateway, the only one in use (ROUTE-17).
    fn vpn(&self, vnet: VnetIndex) -> Option<InUse> {
        match self.in_use[vnet.0][..] {
            [only] if self.topology.gateways[only.gateway.0].is_vpn() => Some(only),
            _ => None,
        }
    }
}

/// Peerings named by their place among those of the VNet: so a scope does not change when those of other VNets come and go.
impl Scope {
    pub(crate) fn relative(mut self, own: &[PeeringIndex]) -> Self {
        for (at, peering) in self.peerings.iter_mut().enumerate() {
            peering.index = Some(PeeringIndex(at));
        }
        // All routes of a VNet use the gateways of one VNet, over one peering.
        let place = |over: PeeringIndex| own.iter().position(|it| *it == over).map(PeeringIndex);
        let used = self.gateway_routes.iter().filter_map(|route| route.gateway);
        let over = used.chain(self.vpn_gateway).find_map(|used| used.over);
        let over = over.and_then(place);
        let relative = |used: &mut InUse| used.over = used.over.and(over);
        let routes = self.gateway_routes.iter_mut();
        routes
            .filter_map(|route| route.gateway.as_mut())
            .chain(self.vpn_gateway.as_mut())
            .for_each(relative);
        self
    }
}
