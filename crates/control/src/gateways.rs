//! What gateways give a VNet: rows for its subnets, and prefixes for its VirtualNetwork tag (ROUTE-08, NSG-11).

use std::collections::HashSet;

use ipnet::IpNet;
use model::Topology;
use model::gateways::InUse;
use model::topology::VnetIndex;

use crate::rib::GatewayRoute;

/// The prefixes behind the gateways that a VNet uses, its own or a peer's (GW-08), each once: of two gateways with the
/// same prefix ExpressRoute is preferred (GW-14). What lies inside the VNet itself is left out.
#[must_use]
pub fn routes(topology: &Topology, vnet: VnetIndex) -> Vec<GatewayRoute> {
    let mut used = topology.gateways_in_use(vnet);
    used.sort_by_key(|used| topology.gateways[used.gateway.0].is_vpn());
    let space = &topology.vnets[vnet.0].address_space;
    let mut seen: HashSet<IpNet> = HashSet::new();
    let mut routes = Vec::new();
    for used in used {
        let next_hops = topology.gateways[used.gateway.0].shown_next_hops();
        for behind in topology.behind(used.gateway) {
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
#[must_use]
pub fn vpn(topology: &Topology, vnet: VnetIndex) -> Option<InUse> {
    match topology.gateways_in_use(vnet)[..] {
        [only] if topology.gateways[only.gateway.0].is_vpn() => Some(only),
        _ => None,
    }
}
