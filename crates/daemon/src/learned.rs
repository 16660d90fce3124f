//! Learned routes by name: as they travel to a client, and from one topology of a lab to the next.

use model::Topology;
use model::topology::{self, ConnectionIndex, Far, GatewayIndex};

use crate::api::LearnedRoute;

/// What the gateways of a lab have learned; None: none of them speaks BGP, or nobody has asked them.
pub(crate) fn named(topology: &Topology) -> Option<Vec<LearnedRoute>> {
    let named = |route: &topology::LearnedRoute| LearnedRoute {
        gateway: topology.gateways[route.gateway.0].name.clone(),
        connection: topology.connections[route.connection.0].name.clone(),
        prefix: route.prefix,
        as_path: route.as_path.clone(),
    };
    let learned = topology.learned_routes.as_ref()?;
    Some(learned.iter().map(named).collect())
}

/// Gives a topology the routes that its gateways have learned. Those of objects it does not have are left out.
pub fn learn(topology: &mut Topology, learned: Option<Vec<LearnedRoute>>) {
    let same = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
    let resolved = |route: LearnedRoute| {
        let mut gateways = topology.gateways.iter();
        let mut connections = topology.connections.iter();
        Some(topology::LearnedRoute {
            gateway: GatewayIndex(gateways.position(|it| same(&it.name, &route.gateway))?),
            connection: ConnectionIndex(connections.position(|it| same(&it.name, &route.connection))?),
            prefix: route.prefix,
            as_path: route.as_path,
        })
    };
    topology.learned_routes = learned.map(|routes| routes.into_iter().filter_map(resolved).collect());
}

/// Hands what was learned on to a changed topology of the same lab, which knows nothing of it.
pub(crate) fn carry(from: &Topology, to: &mut Topology) {
    if to.learned_routes.is_none() && to.speakers().next().is_some() {
        learn(to, Some(named(from).unwrap_or_default()));
    }
}

/// Whether every BGP neighbour of every gateway has said something.
pub(crate) fn heard_all(topology: &Topology) -> bool {
    let learned = topology.learned_routes.as_deref().unwrap_or_default();
    topology.speakers().all(|gateway| {
        let mut spoken = topology
            .connections_of(gateway)
            .filter(|(_, it)| it.bgp && !matches!(it.far, Far::Circuit { .. }));
        spoken.all(|(connection, _)| {
            let mut heard = learned.iter();
            heard.any(|route| (route.gateway, route.connection) == (gateway, connection))
        })
    })
}
