//! Service endpoints of subnets (ROUTE-09): which services there are, and whose packets come back from them.

use std::collections::HashMap;

use crate::check::Scope;
use crate::problems::{Problems, join};
use crate::service_tags::{SERVICE_ENDPOINTS, service_tag_of};
use crate::topology::Topology;
use crate::words::{closest, shown};

/// The services in Azure's spelling, each once, sorted.
pub(crate) fn resolve(
    scope: &Scope<'_>,
    services: &[String],
    subnet: &str,
    problems: &mut Problems,
) -> Vec<String> {
    let mut resolved = Vec::new();
    for (index, text) in services.iter().enumerate() {
        let at = join(&join(subnet, "serviceEndpoints"), &index.to_string());
        let known = SERVICE_ENDPOINTS.iter().map(|&(service, _)| service);
        let Some(service) = known.clone().find(|service| service.eq_ignore_ascii_case(text)) else {
            let message = format!("there is no service endpoint '{}'", shown(text));
            let problem = problems.error("Sim.ROUTE-09", at, message);
            match closest(text, known.clone()) {
                Some(near) => problem.help(format!("did you mean '{near}'?")),
                None => problem.help(format!("known here: {}", known.collect::<Vec<_>>().join(", "))),
            };
            continue;
        };
        if service_tag_of(service).is_none_or(|tag| scope.service_tags.prefixes(tag).is_empty()) {
            problems.note(
                at,
                format!("no prefix of {service} is known, so that no route is added; see 'serviceTags'"),
            );
        }
        resolved.push(service.to_owned());
    }
    resolved.sort_unstable();
    resolved.dedup();
    resolved
}

/// A service answers to the private address. Where two VNets have one range, nobody could say whose it is.
pub(crate) fn distinct_clients(topology: &Topology, problems: &mut Problems) {
    let mut taken = HashMap::new();
    for nic in &topology.nics {
        let Some(subnet) = topology.subnets.get(nic.subnet.0) else {
            continue;
        };
        if topology.internet.is_none() || subnet.service_endpoints.is_empty() {
            continue;
        }
        for address in &nic.addresses {
            let Some((other, vnet)) = taken.insert(*address, (&nic.name, subnet.vnet)) else {
                continue;
            };
            if vnet == subnet.vnet {
                continue;
            }
            let vnet = &topology.vnets[subnet.vnet.0].name;
            let at = join(&join(&join("vnets", vnet), "subnets"), &subnet.name);
            let message = format!(
                "{other} and {} have the address {address}, so that a service could not tell them apart",
                nic.name
            );
            problems
                .error("Sim.ROUTE-09", join(&at, "serviceEndpoints"), message)
                .help("of VNets with the same range, let one have service endpoints");
        }
    }
}
