//! The body of `peerings -o json`.

use model::Topology;
use model::topology::{PeeringState, SyncLevel};
use schemars::JsonSchema;
use serde::Serialize;

/// One peering, one direction.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeeringRow {
    pub name: String,
    pub from: String,
    pub to: String,
    pub peering_state: &'static str,
    pub peering_sync_level: &'static str,
    pub allow_virtual_network_access: bool,
    pub allow_forwarded_traffic: bool,
    pub allow_gateway_transit: bool,
    pub use_remote_gateways: bool,
    pub remote_address_space: Vec<String>,
    pub remote_virtual_network_address_space: Vec<String>,
    pub global: bool,
    /// One way, of the simulated link.
    #[serde(rename = "latency_us")]
    pub latency_us: u64,
}

/// Every peering, in file order.
#[must_use]
pub fn peerings(topology: &Topology) -> Vec<PeeringRow> {
    let row = |peering: &model::topology::Peering| PeeringRow {
        name: peering.name.clone(),
        from: topology.vnets[peering.from.0].name.clone(),
        to: topology.vnets[peering.to.0].name.clone(),
        peering_state: match peering.state {
            PeeringState::Initiated => "Initiated",
            PeeringState::Connected => "Connected",
            PeeringState::Disconnected => "Disconnected",
        },
        peering_sync_level: match peering.sync_level {
            SyncLevel::FullyInSync => "FullyInSync",
            SyncLevel::RemoteNotInSync => "RemoteNotInSync",
            SyncLevel::LocalNotInSync => "LocalNotInSync",
            SyncLevel::LocalAndRemoteNotInSync => "LocalAndRemoteNotInSync",
        },
        allow_virtual_network_access: peering.allow_virtual_network_access,
        allow_forwarded_traffic: peering.allow_forwarded_traffic,
        allow_gateway_transit: peering.allow_gateway_transit,
        use_remote_gateways: peering.use_remote_gateways,
        remote_address_space: peering
            .remote_address_space
            .iter()
            .map(ToString::to_string)
            .collect(),
        remote_virtual_network_address_space: topology.vnets[peering.to.0]
            .address_space
            .iter()
            .map(ToString::to_string)
            .collect(),
        global: peering.global,
        latency_us: 0,
    };
    topology.peerings.iter().map(row).collect()
}
