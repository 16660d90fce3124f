//! Subnet peering: which subnets of the two VNets a peering joins (PEER-40), and what only azure-2025 knows of a peering (PEER-01, PEER-24).

use std::collections::HashSet;

use crate::check::Scope;
use crate::check::peerings::Declared;
use crate::limits::Limit;
use crate::problems::{Problems, join};
use crate::topology::{PeeredSubnets, Profile, SubnetIndex, Topology};

/// None: the whole VNets are peered.
pub(crate) fn resolve(
    scope: &Scope<'_>,
    one: &Declared,
    topology: &Topology,
    problems: &mut Problems,
) -> Option<PeeredSubnets> {
    let given = &one.given;
    if topology.profile == Profile::Azure2018 {
        unknown_in_2018(one, problems);
        return None;
    }
    let lists = [
        ("localSubnetNames", &given.local_subnet_names, one.from),
        ("remoteSubnetNames", &given.remote_subnet_names, one.to),
    ];
    if given.peer_complete_vnets.unwrap_or(true) {
        let words = lists
            .iter()
            .filter(|(_, names, _)| !names.is_empty())
            .map(|(word, _, _)| *word);
        let only = given.enable_only_ipv6_peering == Some(true);
        for word in words.chain(only.then_some("enableOnlyIPv6Peering")) {
            problems
                .error(
                    "Sim.PEER-40",
                    one.place(word),
                    format!(
                        "'{word}' is for a peering of subnets, and {} is one of whole VNets",
                        one.shown(topology)
                    ),
                )
                .help("add 'peerCompleteVnets: false', or remove it");
        }
        return None;
    }
    let [local, remote] =
        lists.map(|(word, names, vnet)| subnets(scope, one, (word, names, vnet), topology, problems));
    let count = local.len() + remote.len();
    let most = scope.limits.most(Limit::PeeredSubnets);
    if count > most {
        let message = format!(
            "peering {} joins {count} subnets; at most {most} can be on one",
            one.shown(topology)
        );
        problems
            .error(
                Limit::PeeredSubnets.code(),
                one.place("localSubnetNames"),
                message,
            )
            .help("peer fewer subnets, or the whole VNets");
    }
    let classic = [one.from, one.to]
        .into_iter()
        .find(|vnet| topology.vnets[*vnet].classic);
    if let Some(vnet) = classic {
        let message = format!(
            "virtual network {} is classic, and subnets of it cannot be peered",
            topology.vnets[vnet].name
        );
        problems
            .error("Sim.PEER-40", one.place("peerCompleteVnets"), message)
            .help("peer the whole VNets");
    }
    Some(PeeredSubnets {
        local,
        remote,
        only_ipv6: given.enable_only_ipv6_peering.unwrap_or(false),
    })
}

/// The named subnets of one side: at least one, each once.
fn subnets(
    scope: &Scope<'_>,
    one: &Declared,
    (word, names, vnet): (&str, &[String], usize),
    topology: &Topology,
    problems: &mut Problems,
) -> Vec<SubnetIndex> {
    let at = one.place(word);
    if names.is_empty() {
        problems
            .error(
                "Sim.PEER-40",
                &at,
                format!("peering {} names no subnets in '{word}'", one.shown(topology)),
            )
            .help(format!("list subnets of {}", topology.vnets[vnet].name));
    }
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let at = join(&at, &index.to_string());
        let Some(position) = scope.subnets[vnet].find(name, &at, problems) else {
            continue;
        };
        if seen.insert(position) {
            found.extend(topology.vnets[vnet].subnets.get(position).copied());
        } else {
            problems
                .error(
                    "Sim.PEER-40",
                    at,
                    format!("subnet '{}' is named twice", crate::words::shown(name)),
                )
                .help("remove one of the two");
        }
    }
    found
}

fn unknown_in_2018(one: &Declared, problems: &mut Problems) {
    let given = &one.given;
    let words = [
        (
            "peerCompleteVnets",
            given.peer_complete_vnets.is_some(),
            "Sim.PEER-40",
        ),
        (
            "enableOnlyIPv6Peering",
            given.enable_only_ipv6_peering.is_some(),
            "Sim.PEER-40",
        ),
        (
            "localSubnetNames",
            !given.local_subnet_names.is_empty(),
            "Sim.PEER-40",
        ),
        (
            "remoteSubnetNames",
            !given.remote_subnet_names.is_empty(),
            "Sim.PEER-40",
        ),
        (
            "doNotVerifyRemoteGateways",
            given.do_not_verify_remote_gateways.is_some(),
            "Sim.PEER-24",
        ),
    ];
    for (word, _, code) in words.into_iter().filter(|(_, given, _)| *given) {
        problems
            .error(code, one.place(word), format!("azure-2018 has no '{word}'"))
            .help("remove it, or use profile azure-2025");
    }
}
