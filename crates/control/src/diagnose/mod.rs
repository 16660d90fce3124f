//! Network Watcher's diagnostics (DIAG-01 to DIAG-09), asked of the compiled tables.

mod configuration;
mod connectivity;
mod flow;
mod layout;
mod next_hop;

use model::Topology;
use model::topology::{Endpoint, NicIndex, VnetIndex};

use crate::present::rules::group_and_path;

pub use configuration::{
    ConfigurationDiagnostic, EvaluatedNsg, MatchedRule, Profile, ProfileResult, RuleEvaluation,
    SecurityResult, Verbosity, configuration,
};
pub use connectivity::{Connectivity, Hop, Issue, Link, Probes, connectivity};
pub use flow::{Flow, FlowVerdict, ip_flow};
pub use layout::{Association, Layout, Resource, layout};
pub use next_hop::{NextHop, next_hop};

/// Why a diagnostic has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Azure's where one is confirmed, else `Sim.` and the rule (ERR-04).
    pub code: &'static str,
    /// For people; says what to do.
    pub message: String,
}

/// The NIC that a target, a VM or a NIC by name, means.
///
/// # Errors
/// Nothing has the name. The NIC has no VM: diagnostics are of running VMs (DIAG-01). A VM
/// has several NICs and one of them forwards, so that the NIC must be named (DIAG-02).
pub fn target(topology: &Topology, name: &str) -> Result<NicIndex, Refusal> {
    let Ok(Endpoint::Nic(nic)) = topology.endpoint(name) else {
        return Err(Refusal {
            code: "ResourceNotFound",
            message: format!("lab {} has no VM or network interface {name}", topology.name),
        });
    };
    let Some(vm) = topology.nics[nic.0].vm else {
        return Err(Refusal {
            code: "Sim.DIAG-01",
            message: format!(
                "{name} belongs to no VM; diagnostics are of running VMs, so ask about a NIC of one"
            ),
        });
    };
    let vm = &topology.vms[vm.0];
    if !vm.running {
        return Err(Refusal {
            code: "Sim.DIAG-01",
            message: format!(
                "VM {} is stopped; diagnostics are of running VMs, so start it first",
                vm.name
            ),
        });
    }
    let named_vm = !topology.nics[nic.0].name.eq_ignore_ascii_case(name);
    let forwards = vm.nics.iter().any(|nic| topology.nics[nic.0].ip_forwarding);
    if named_vm && forwards && vm.nics.len() > 1 {
        let nics: Vec<&str> = vm
            .nics
            .iter()
            .map(|nic| topology.nics[nic.0].name.as_str())
            .collect();
        return Err(Refusal {
            code: "Sim.DIAG-02",
            message: format!(
                "{name} forwards and has several network interfaces; name the one meant: {}",
                nics.join(", ")
            ),
        });
    }
    Ok(nic)
}

/// The ARM id of an object of the lab; `path` begins with the provider.
fn resource_id(topology: &Topology, vnet: VnetIndex, path: &str) -> String {
    let subscription = &topology.vnets[vnet.0].subscription;
    let (provider, path) = path.split_once('/').unwrap_or((path, ""));
    let (group, path) = group_and_path(topology, path);
    format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{provider}/{path}")
}

fn network_id(topology: &Topology, vnet: VnetIndex, path: &str) -> String {
    resource_id(topology, vnet, &format!("Microsoft.Network/{path}"))
}

fn vnet_of(topology: &Topology, nic: NicIndex) -> VnetIndex {
    topology.subnets[topology.nics[nic.0].subnet.0].vnet
}
