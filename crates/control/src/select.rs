//! Route choice: which of the routes that match a destination carries the packet.

use model::topology::Profile;

use crate::rib::{Route, RouteSource, RouteState, RouteType};

/// The route that carries a packet, of all routes whose prefix contains its destination.
///
/// In this order:
/// 1. Rows that are not Active do not take part (ROUTE-26).
/// 2. `azure-2025`: where a service endpoint's row matches, only such rows take part, not even user routes
///    displace them (ROUTE-23).
/// 3. A gateway's row (`VirtualNetworkGateway`) does not take part when its prefix equals or lies inside that of a
///    matching system row of type VnetLocal, VNetPeering, VNetGlobalPeering or VirtualNetworkServiceEndpoint (ROUTE-22).
/// 4. The longest prefix wins (ROUTE-20).
/// 5. Of equal prefixes: User, then `VirtualNetworkGateway`, then Default (ROUTE-21).
/// 6. Of equal prefixes of user routes: written as a prefix, from a regional service tag, from a service tag, from the
///    regional `AzureCloud`, from `AzureCloud` (ROUTE-33).
/// 7. Of two rows equal in all this, the first (a route table cannot hold two, gateways may offer two).
///
/// None: nothing matches, the packet is lost (ROUTE-25).
#[must_use]
pub fn select<'a>(profile: Profile, matching: &[&'a Route]) -> Option<&'a Route> {
    let active = || {
        matching
            .iter()
            .copied()
            .filter(|route| route.state == RouteState::Active)
    };
    let endpoint = |route: &Route| route.kind == RouteType::VirtualNetworkServiceEndpoint;
    let endpoints_only = profile == Profile::Azure2025 && active().any(endpoint);
    let preferred = active()
        .filter(|route| displaces_gateway(route))
        .map(|route| route.prefix.prefix_len())
        .min();
    active()
        .filter(|route| !endpoints_only || endpoint(route))
        .filter(|route| {
            // All of them contain the destination, so the shorter prefix contains the longer.
            route.source != RouteSource::VirtualNetworkGateway
                || preferred.is_none_or(|length| route.prefix.prefix_len() < length)
        })
        .reduce(|best, route| if rank(route) > rank(best) { route } else { best })
}

/// The system rows of ROUTE-22.
fn displaces_gateway(route: &Route) -> bool {
    route.source == RouteSource::Default
        && matches!(
            route.kind,
            RouteType::VnetLocal
                | RouteType::VnetPeering
                | RouteType::VnetGlobalPeering
                | RouteType::VirtualNetworkServiceEndpoint
        )
}

/// Step 6; higher wins.
#[must_use]
pub fn tag_rank(route: &Route) -> u8 {
    let Some(tag) = &route.tag else { return 4 };
    let (service, regional) =
        (tag.split_once('.')).map_or((tag.as_str(), false), |(service, _)| (service, true));
    match (service.eq_ignore_ascii_case("AzureCloud"), regional) {
        (false, true) => 3,
        (false, false) => 2,
        (true, true) => 1,
        (true, false) => 0,
    }
}

/// Steps 4 to 6; higher wins.
fn rank(route: &Route) -> (u8, u8, u8) {
    let source = match route.source {
        RouteSource::User => 2,
        RouteSource::VirtualNetworkGateway => 1,
        RouteSource::Default => 0,
    };
    (route.prefix.prefix_len(), source, tag_rank(route))
}
