//! The body and the table of `az network nic show-effective-route-table` (ROUTE-38, ROUTE-40).

use std::collections::{BTreeMap, HashMap};

use model::Topology;
use model::topology::NicIndex;
use schemars::JsonSchema;
use serde::Serialize;

use super::explanation::HopRoute;
use crate::rib::{Rib, Route, RouteSource, RouteState, RouteType, scope};

/// The whole body.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveRoutes {
    pub next_link: Option<String>,
    pub value: Vec<EffectiveRoute>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveRoute {
    pub address_prefix: Vec<String>,
    pub destination_service_tags: Vec<String>,
    pub disable_bgp_route_propagation: bool,
    pub has_bgp_override: bool,
    pub name: Option<String>,
    pub next_hop_ip_address: Vec<String>,
    pub next_hop_type: &'static str,
    pub source: &'static str,
    pub state: &'static str,
    pub tag_map: BTreeMap<String, Vec<String>>,
}

/// The effective routes of a NIC.
#[must_use]
pub fn effective_routes(topology: &Topology, nic: NicIndex) -> EffectiveRoutes {
    let scope = scope(topology, topology.nics[nic.0].subnet);
    let rib = Rib::new(&scope);
    let mut value: Vec<EffectiveRoute> = Vec::new();
    let mut of_tags = HashMap::new();
    for route in rib.routes().iter().filter(|route| route.listed) {
        let row = effective_route(route, scope.disable_bgp_route_propagation);
        let Some(tag) = &route.tag else {
            value.push(row);
            continue;
        };
        // ROUTE-33: a service tag's prefixes make one row, or two where some lose theirs.
        let at = *of_tags
            .entry((&route.name, row.state))
            .or_insert_with(|| value.len());
        match value.get_mut(at) {
            Some(first) => {
                let own = first.tag_map.entry(tag.clone()).or_default();
                own.extend_from_slice(&row.address_prefix);
                first.address_prefix.extend(row.address_prefix);
            }
            None => value.push(row),
        }
    }
    EffectiveRoutes {
        next_link: None,
        value,
    }
}

/// The table's headings and rows (ROUTE-40).
#[must_use]
pub fn route_columns(routes: &EffectiveRoutes) -> (&'static [&'static str], Vec<Vec<String>>) {
    let cells = |route: &EffectiveRoute| {
        vec![
            route.source.to_owned(),
            route.state.to_owned(),
            route.address_prefix.join(" "),
            route.next_hop_type.to_owned(),
            route.next_hop_ip_address.join(" "),
        ]
    };
    (
        &[
            "Source",
            "State",
            "Address Prefix",
            "Next Hop Type",
            "Next Hop IP",
        ],
        routes.value.iter().map(cells).collect(),
    )
}

const fn source_name(source: RouteSource) -> &'static str {
    match source {
        RouteSource::Default => "Default",
        RouteSource::VirtualNetworkGateway => "VirtualNetworkGateway",
        RouteSource::User => "User",
    }
}

const fn type_name(kind: RouteType) -> &'static str {
    match kind {
        RouteType::VnetLocal => "VnetLocal",
        RouteType::VnetPeering => "VNetPeering",
        RouteType::VnetGlobalPeering => "VNetGlobalPeering",
        RouteType::VirtualNetworkServiceEndpoint => "VirtualNetworkServiceEndpoint",
        RouteType::VirtualNetworkGateway => "VirtualNetworkGateway",
        RouteType::VirtualAppliance => "VirtualAppliance",
        RouteType::VirtualApplianceEcmp => "VirtualApplianceEcmp",
        RouteType::Internet => "Internet",
        RouteType::None => "None",
    }
}

/// A route as `explain` tells it.
pub(crate) fn hop_route(route: &Route) -> HopRoute {
    HopRoute {
        address_prefix: route.prefix.to_string(),
        source: source_name(route.source),
        next_hop_type: type_name(route.kind),
        next_hop_ip_address: route.next_hops.iter().map(ToString::to_string).collect(),
    }
}

/// One row as shown.
#[must_use]
pub fn effective_route(route: &Route, disable_bgp_route_propagation: bool) -> EffectiveRoute {
    EffectiveRoute {
        address_prefix: vec![route.prefix.to_string()],
        destination_service_tags: route.tag.iter().cloned().collect(),
        disable_bgp_route_propagation,
        has_bgp_override: false,
        name: route.name.clone(),
        next_hop_ip_address: route.next_hops.iter().map(ToString::to_string).collect(),
        next_hop_type: type_name(route.kind),
        source: source_name(route.source),
        state: match route.state {
            RouteState::Active => "Active",
            RouteState::Invalid => "Invalid",
        },
        tag_map: (route.tag.iter())
            .map(|tag| (tag.clone(), vec![route.prefix.to_string()]))
            .collect(),
    }
}
