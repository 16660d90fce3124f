//! Next hop (DIAG-03, DIAG-05): the route a packet of a NIC would take.

use std::net::IpAddr;

use model::Topology;
use model::topology::NicIndex;
use packet::key::mapped;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Refusal, network_id, vnet_of};
use crate::compile::Compiled;
use crate::rib::{RouteSource, RouteType};

/// The body of the answer.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NextHop {
    pub next_hop_ip_address: Option<String>,
    pub next_hop_type: &'static str,
    /// The id of the route table of a user route, else `System Route`.
    pub route_table_id: String,
}

/// Looks the destination up in the NIC's compiled table.
///
/// # Errors
/// The source is not an address of the NIC (DIAG-05).
pub fn next_hop(
    topology: &Topology,
    compiled: &Compiled,
    nic: NicIndex,
    source: IpAddr,
    destination: IpAddr,
) -> Result<NextHop, Refusal> {
    let own = &topology.nics[nic.0];
    if !own.addresses.contains(&source) {
        let addresses: Vec<String> = own.addresses.iter().map(IpAddr::to_string).collect();
        return Err(Refusal {
            code: "SourceIpDoesNotMatchNicIp",
            message: format!(
                "{source} is no address of {}; use {}",
                own.name,
                addresses.join(" or ")
            ),
        });
    }
    let fib = compiled.snapshot.nics[nic.0].fib;
    let found = compiled.snapshot.fibs[fib.index()].lookup(mapped(destination));
    let route = found.and_then(|route| compiled.provenance.routes.get(fib.index())?.get(route.index()));
    let table = topology.subnets[own.subnet.0].route_table;
    let user = route.is_some_and(|route| route.source == RouteSource::User);
    Ok(NextHop {
        next_hop_ip_address: route.and_then(|route| Some(route.next_hops.first()?.to_string())),
        next_hop_type: route.map_or("None", |route| type_name(route.kind)),
        route_table_id: match table.filter(|_| user) {
            Some(table) => {
                let path = format!("routeTables/{}", topology.route_tables[table.0].name);
                network_id(topology, vnet_of(topology, nic), &path)
            }
            None => "System Route".to_owned(),
        },
    })
}

/// Next hop spells peerings its own way, and knows no global ones.
const fn type_name(kind: RouteType) -> &'static str {
    match kind {
        RouteType::VnetLocal => "VnetLocal",
        RouteType::VnetPeering | RouteType::VnetGlobalPeering => "VnetPeering",
        RouteType::VirtualNetworkServiceEndpoint => "VirtualNetworkServiceEndpoint",
        RouteType::VirtualNetworkGateway => "VirtualNetworkGateway",
        RouteType::VirtualAppliance => "VirtualAppliance",
        RouteType::VirtualApplianceEcmp => "VirtualApplianceEcmp",
        RouteType::Internet => "Internet",
        RouteType::None => "None",
    }
}
