//! The state, sync level and remote space of each peering: they follow from both directions together.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::check::peering_overlaps::current_space;
use crate::check::peerings::Declared;
use crate::config;
use crate::measured;
use crate::problems::Problems;
use crate::topology::{
    LatencySource, Peering, PeeringIndex, PeeringState, Profile, SyncLevel, Topology, VnetIndex,
};

/// PEER-03..07, PEER-16..18, PEER-31.
pub(crate) fn check(declared: &[Declared], topology: &mut Topology, problems: &mut Problems) {
    let mut by_ends: HashMap<(usize, usize), usize> = HashMap::new();
    let mut kept: Vec<&Declared> = Vec::new();
    for one in declared {
        // The classic end of a short form owns no object (PEER-31).
        if !topology.vnets[one.from].classic && !by_ends.contains_key(&(one.from, one.to)) {
            by_ends.insert((one.from, one.to), kept.len());
            kept.push(one);
        }
    }
    let disconnected = Declared::disconnected;
    for one in &kept {
        let reverse = by_ends.get(&(one.to, one.from)).map(|index| kept[*index]);
        let (from, to) = (&topology.vnets[one.from], &topology.vnets[one.to]);
        let state = match reverse {
            _ if disconnected(one) => PeeringState::Disconnected,
            Some(back) if disconnected(back) => PeeringState::Initiated,
            Some(_) => PeeringState::Connected,
            None if to.classic => PeeringState::Connected,
            None => PeeringState::Initiated,
        };
        let current = current_space(one, topology);
        let space = match one.stale_space() {
            stale if stale.is_empty() => current.clone(),
            stale => stale,
        };
        let reverse_index = by_ends.get(&(one.to, one.from)).map(|index| PeeringIndex(*index));
        given_state(one, reverse, state, topology, problems);
        if let Some(back) = reverse.filter(|_| reverse_index.is_some_and(|it| it.0 < topology.peerings.len()))
        {
            one_kind(one, back, topology, problems);
        }
        let (latency_us, latency_source) = latency(&from.location, &to.location);
        let peering = Peering {
            name: one.name.clone(),
            from: VnetIndex(one.from),
            to: VnetIndex(one.to),
            state,
            sync_level: SyncLevel::FullyInSync,
            allow_virtual_network_access: one.given.allow_virtual_network_access.unwrap_or(true),
            allow_forwarded_traffic: one.given.allow_forwarded_traffic.unwrap_or(false),
            allow_gateway_transit: one.given.allow_gateway_transit.unwrap_or(false),
            use_remote_gateways: one.given.use_remote_gateways.unwrap_or(false),
            remote_address_space: space,
            remote_current_space: current,
            subnets: one.subnets.clone(),
            do_not_verify_remote_gateways: one.given.do_not_verify_remote_gateways.unwrap_or(false),
            global: from.location != to.location,
            latency_us,
            latency_source,
            reverse: reverse_index,
        };
        topology.peerings.push(peering);
    }
    sync_levels(topology);
}

/// One way between two regions: half of the published round trip (PEER-39), or an estimate.
fn latency(from: &str, to: &str) -> (u64, LatencySource) {
    if from == to {
        return (0, LatencySource::Region);
    }
    if let Some(ms) = measured::round_trip_ms(from, to) {
        return (ms * 1000 / 2, LatencySource::Published);
    }
    match measured::estimate_us(from, to) {
        Some(us) => (us, LatencySource::Estimate),
        None => (0, LatencySource::Unknown),
    }
}

/// PEER-40: both directions peer whole VNets, or both subnets.
fn one_kind(one: &Declared, back: &Declared, topology: &Topology, problems: &mut Problems) {
    if one.subnets.is_some() == back.subnets.is_some() {
        return;
    }
    let kind = |it: &Declared| {
        if it.subnets.is_some() {
            "subnets"
        } else {
            "whole VNets"
        }
    };
    let message = format!(
        "peering {} is one of {}, and its other direction {} is one of {}",
        one.shown(topology),
        kind(one),
        back.shown(topology),
        kind(back)
    );
    problems
        .error("Sim.PEER-40", one.place("peerCompleteVnets"), message)
        .help("give both the same 'peerCompleteVnets'");
}

/// What the file says of states and remote spaces must be possible.
fn given_state(
    one: &Declared,
    reverse: Option<&Declared>,
    state: PeeringState,
    topology: &Topology,
    problems: &mut Problems,
) {
    let shown = one.shown(topology);
    if topology.profile == Profile::Azure2018
        && !one.disconnected()
        && !one.given.remote_address_space.is_empty()
    {
        problems
            .error(
                "Sim.PEER-18",
                one.place("remoteAddressSpace"),
                "azure-2018 has no stale remote address space",
            )
            .help("remove 'remoteAddressSpace', or use profile azure-2025");
    }
    if topology.profile == Profile::Azure2025
        && let Some(back) = reverse
        && back.disconnected()
    {
        let message = format!(
            "Cannot create or update peering {shown} because remote peering {} referencing parent virtual network {} \
             is in Disconnected state. Update or re-create the remote peering to get it back to Initiated state. \
             Peering gets Disconnected when remote vnet or remote peering is deleted and re-created.",
            back.shown(topology),
            topology.vnets[one.from].name
        );
        problems
            .error("RemotePeeringIsDisconnected", one.place("from"), message)
            .help("remove 'peeringState' there, or this peering here");
        return;
    }
    let given = match one.given.peering_state {
        Some(config::PeeringState::Initiated) => PeeringState::Initiated,
        Some(config::PeeringState::Connected) => PeeringState::Connected,
        _ => return,
    };
    if given != state {
        let rule = if given == PeeringState::Connected {
            "Sim.PEER-03"
        } else {
            "Sim.PEER-04"
        };
        problems
            .error(
                rule,
                one.place("peeringState"),
                format!("peering {shown} is {state:?}, not {given:?}"),
            )
            .help("leave 'peeringState' out: it follows from the other direction");
    }
}

/// PEER-16: local is stale when our view of the remote is, remote when its view of us is.
fn sync_levels(topology: &mut Topology) {
    let sorted = |space: &[IpNet]| {
        let mut space = space.to_vec();
        space.sort();
        space
    };
    let stale: Vec<bool> = topology
        .peerings
        .iter()
        .map(|it| sorted(&it.remote_address_space) != sorted(&it.remote_current_space))
        .collect();
    for (index, peering) in topology.peerings.iter_mut().enumerate() {
        let remote = peering.reverse.is_some_and(|reverse| stale[reverse.0]);
        peering.sync_level = match (stale[index], remote) {
            (false, false) => SyncLevel::FullyInSync,
            (true, false) => SyncLevel::LocalNotInSync,
            (false, true) => SyncLevel::RemoteNotInSync,
            (true, true) => SyncLevel::LocalAndRemoteNotInSync,
        };
    }
}
