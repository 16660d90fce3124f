//! Gateways, connections and circuits with their own tables.

use engine::fib::{self, Fib, NextHop};
use engine::snapshot::{Connection, ConnectionId, Far, FibId, Gateway, GatewayId, PortId, VnetId};
use ipnet::IpNet;
use model::Topology;
use model::gateways::InUse;
use model::topology::{self, GatewayIndex, PeeringState, VnetIndex};
use packet::key::mapped;

use super::tables::Tables;
use super::{PortOwner, dense, links, prefix};
use crate::rib::{Rib, Route, RouteSource, RouteState, RouteType};

/// `GatewayId(n)` is `GatewayIndex(n)`.
pub(super) fn gateways(topology: &Topology, owners: &[PortOwner], tables: &mut Tables<'_>) -> Vec<Gateway> {
    let gateway = |(index, gateway): (GatewayIndex, &topology::Gateway)| Gateway {
        vnet: VnetId(dense(gateway.vnet.0)),
        addresses: gateway.addresses.iter().map(|&address| mapped(address)).collect(),
        port: port(owners, PortOwner::Gateway(index)),
        outside: outside(topology, index, tables),
        inside: inside(topology, gateway.vnet, tables),
    };
    (0..)
        .map(GatewayIndex)
        .zip(&topology.gateways)
        .map(gateway)
        .collect()
}

/// `ConnectionId(n)` is `ConnectionIndex(n)`.
pub(super) fn connections(
    topology: &Topology,
    owners: &[PortOwner],
    tables: &mut Tables<'_>,
) -> Vec<Connection> {
    let mut circuits: Vec<(String, FibId)> = Vec::new();
    let mut compiled = Vec::new();
    for (index, connection) in (0..).map(topology::ConnectionIndex).zip(&topology.connections) {
        let far = match &connection.far {
            topology::Far::Site(_) => Far::Site,
            topology::Far::Gateway(gateway) => Far::Gateway(GatewayId(dense(gateway.0))),
            topology::Far::Circuit { name, .. } => {
                let known = circuits
                    .iter()
                    .find(|(other, _)| other.eq_ignore_ascii_case(name));
                let fib = known.map(|(_, fib)| *fib).unwrap_or_else(|| {
                    let fib = circuit(topology, name, tables);
                    circuits.push((name.clone(), fib));
                    fib
                });
                Far::Circuit(fib)
            }
        };
        let [out, back] = links::of_connection(tables.provenance.peerings.len(), index.0);
        compiled.push(Connection {
            gateway: GatewayId(dense(connection.gateway.0)),
            far,
            port: port(owners, PortOwner::Connection(index)),
            selectors: connection.selectors.as_ref().map(|pairs| {
                pairs
                    .iter()
                    .map(|&(azure, site)| (prefix(azure), prefix(site)))
                    .collect()
            }),
            mtu: connection.mtu,
            out,
            back,
        });
    }
    compiled
}

fn port(owners: &[PortOwner], wanted: PortOwner) -> Option<PortId> {
    let port = owners.iter().position(|owner| *owner == wanted)?;
    Some(PortId(dense(port)))
}

/// What a gateway knows itself. What its VNet and the peers have is not behind it, however specific a learned route is
/// (ROUTE-22, GW-05).
fn outside(topology: &Topology, index: GatewayIndex, tables: &mut Tables<'_>) -> FibId {
    let vnet = topology.gateways[index.0].vnet;
    let used = InUse {
        gateway: index,
        over: None,
    };
    let mut ranges: Vec<IpNet> = topology.vnets[vnet.0].address_space.clone();
    for peering in tables.around.peering_inputs(vnet) {
        if peering.state == PeeringState::Connected {
            ranges.extend(peering.remote_space);
        }
    }
    let mut rows: Vec<(Route, NextHop)> = ranges
        .iter()
        .map(|&range| (row(range, RouteSource::Default, None), NextHop::VnetLocal))
        .collect();
    let behind = tables.around.behind(index.0);
    rows.extend(behind.iter().map(|behind| {
        let next_hop = NextHop::Connection(ConnectionId(dense(behind.connection.0)));
        let source = RouteSource::VirtualNetworkGateway;
        (row(behind.prefix, source, Some(used)), next_hop)
    }));
    table(topology, rows, tables)
}

/// The table of GatewaySubnet, with its user routes (ROUTE-31).
fn inside(topology: &Topology, vnet: VnetIndex, tables: &mut Tables<'_>) -> FibId {
    let subnets = topology.vnets[vnet.0].subnets.iter().copied();
    let mut named = subnets.filter(|subnet| {
        topology.subnets[subnet.0]
            .name
            .eq_ignore_ascii_case("GatewaySubnet")
    });
    match named.next() {
        Some(subnet) => tables.fib(subnet),
        // The model refuses it.
        None => table(topology, Vec::new(), tables),
    }
}

/// What is where on a circuit: what each gateway tells it, and the sites behind it (GW-06).
fn circuit(topology: &Topology, name: &str, tables: &mut Tables<'_>) -> FibId {
    let mut rows = Vec::new();
    for (index, connection) in topology.circuit(name) {
        let used = InUse {
            gateway: connection.gateway,
            over: None,
        };
        let source = RouteSource::VirtualNetworkGateway;
        let gateway = NextHop::Gateway(GatewayId(dense(connection.gateway.0)), None);
        let told = topology.advertised(connection.gateway, index);
        rows.extend(
            told.into_iter()
                .map(|told| (row(told, source, Some(used)), gateway)),
        );
        if let Some(site) = connection.site() {
            let out = NextHop::Connection(ConnectionId(dense(index.0)));
            let prefixes = topology.sites[site.0].announced();
            rows.extend(prefixes.map(|told| (row(told, source, Some(used)), out)));
        }
    }
    table(topology, rows, tables)
}

/// A FIB of the rows that win, the first of equal ones.
fn table(topology: &Topology, rows: Vec<(Route, NextHop)>, tables: &mut Tables<'_>) -> FibId {
    let (routes, next_hops): (Vec<Route>, Vec<NextHop>) = rows.into_iter().unzip();
    let rib = Rib::of(topology.profile, routes);
    // In the order of the routes.
    let mut winners = rib.winners().into_iter().peekable();
    let mut kept: Vec<(Route, NextHop)> = Vec::new();
    for (route, next_hop) in rib.routes().iter().zip(next_hops) {
        if winners.next_if(|winner| std::ptr::eq(*winner, route)).is_some() {
            kept.push((route.clone(), next_hop));
        }
    }
    let routes = kept
        .iter()
        .map(|(route, next_hop)| fib::Route {
            prefix: prefix(route.prefix),
            next_hop: *next_hop,
        })
        .collect();
    tables.add(
        Fib::compile(routes),
        kept.into_iter().map(|(route, _)| route).collect(),
    )
}

fn row(prefix: IpNet, source: RouteSource, gateway: Option<InUse>) -> Route {
    Route {
        name: None,
        tag: None,
        prefix: prefix.trunc(),
        source,
        kind: match source {
            RouteSource::VirtualNetworkGateway => RouteType::VirtualNetworkGateway,
            _ => RouteType::VnetLocal,
        },
        next_hops: Vec::new(),
        peering: None,
        gateway,
        state: RouteState::Active,
        listed: true,
    }
}
