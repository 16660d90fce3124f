//! The body of `peerings -o json`: the properties of PEER-01.

use ipnet::IpNet;
use model::Topology;
use model::topology::{
    LatencySource, OrphanedPeering, Peering, PeeringIndex, PeeringState, Profile, SubnetIndex, SyncLevel,
    VnetIndex,
};
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
    pub provisioning_state: &'static str,
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
    /// Where the latency comes from: half the published round trip, an estimate from the distance of the regions, or the
    /// lab's `links`. Null: there is none.
    pub latency_source: Option<&'static str>,
    /// What azure-2018 does not know.
    #[serde(flatten)]
    pub modern: Option<ModernProperties>,
}

/// Properties that came after 2018.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModernProperties {
    /// False: only the named subnets are peered (PEER-40).
    pub peer_complete_vnets: bool,
    #[serde(rename = "enableOnlyIPv6Peering")]
    pub enable_only_ipv6_peering: bool,
    pub local_subnet_names: Vec<String>,
    pub remote_subnet_names: Vec<String>,
    pub do_not_verify_remote_gateways: bool,
    /// The same for both directions.
    pub resource_guid: String,
}

/// Every peering, in file order, and then those whose remote VNet is gone.
#[must_use]
pub fn peerings(topology: &Topology) -> Vec<PeeringRow> {
    let rows = topology.peerings.iter().enumerate();
    let rows = rows.map(|(index, peering)| row(topology, PeeringIndex(index), peering));
    let orphans = topology
        .orphaned_peerings
        .iter()
        .map(|orphan| orphaned(topology, orphan));
    rows.chain(orphans).collect()
}

/// The peerings of one VNet.
#[must_use]
pub fn peerings_of(topology: &Topology, vnet: VnetIndex) -> Vec<PeeringRow> {
    let own = topology
        .peerings
        .iter()
        .enumerate()
        .filter(|(_, it)| it.from == vnet);
    let rows = own.map(|(index, peering)| row(topology, PeeringIndex(index), peering));
    let orphans = topology.orphaned_peerings.iter().filter(|it| it.from == vnet);
    rows.chain(orphans.map(|orphan| orphaned(topology, orphan)))
        .collect()
}

fn row(topology: &Topology, index: PeeringIndex, peering: &Peering) -> PeeringRow {
    let subnets = peering.subnets.as_ref();
    let names = |list: &[SubnetIndex]| {
        list.iter()
            .map(|it| topology.subnets[it.0].name.clone())
            .collect()
    };
    PeeringRow {
        name: peering.name.clone(),
        from: topology.vnets[peering.from.0].name.clone(),
        to: topology.vnets[peering.to.0].name.clone(),
        peering_state: match peering.state {
            PeeringState::Initiated => "Initiated",
            PeeringState::Connected => "Connected",
            PeeringState::Disconnected => "Disconnected",
        },
        provisioning_state: "Succeeded",
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
        remote_address_space: shown(&peering.remote_address_space),
        remote_virtual_network_address_space: shown(&peering.remote_current_space),
        global: peering.global,
        latency_us: peering.latency_us,
        latency_source: latency_source(peering),
        modern: (topology.profile == Profile::Azure2025).then(|| ModernProperties {
            peer_complete_vnets: subnets.is_none(),
            enable_only_ipv6_peering: subnets.is_some_and(|it| it.only_ipv6),
            local_subnet_names: subnets.map_or_else(Vec::new, |it| names(&it.local)),
            remote_subnet_names: subnets.map_or_else(Vec::new, |it| names(&it.remote)),
            do_not_verify_remote_gateways: peering.do_not_verify_remote_gateways,
            resource_guid: topology.peering_guid(index),
        }),
    }
}

/// As it is shown.
pub(crate) fn latency_source(peering: &Peering) -> Option<&'static str> {
    match peering.latency_source {
        LatencySource::Published => Some("published"),
        LatencySource::Estimate => Some("estimate"),
        LatencySource::File => Some("links"),
        LatencySource::Region | LatencySource::Unknown => None,
    }
}

/// PEER-05: what a deleted VNet leaves behind.
fn orphaned(topology: &Topology, orphan: &OrphanedPeering) -> PeeringRow {
    PeeringRow {
        name: orphan.name.clone(),
        from: topology.vnets[orphan.from.0].name.clone(),
        to: orphan.to.clone(),
        peering_state: "Disconnected",
        provisioning_state: "Succeeded",
        peering_sync_level: "LocalNotInSync",
        allow_virtual_network_access: orphan.allow_virtual_network_access,
        allow_forwarded_traffic: orphan.allow_forwarded_traffic,
        allow_gateway_transit: orphan.allow_gateway_transit,
        use_remote_gateways: orphan.use_remote_gateways,
        remote_address_space: shown(&orphan.remote_address_space),
        remote_virtual_network_address_space: Vec::new(),
        global: false,
        latency_us: 0,
        latency_source: None,
        modern: None,
    }
}

fn shown(space: &[IpNet]) -> Vec<String> {
    space.iter().map(ToString::to_string).collect()
}
