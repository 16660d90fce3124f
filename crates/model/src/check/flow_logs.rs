//! Flow logs (NSG-40).

use std::collections::HashMap;

use crate::check::Scope;
use crate::check::names;
use crate::problems::{Problems, join};
use crate::topology::{FlowLog, FlowLogVersion, NsgIndex, Topology};

/// The bound of Azure's retention policy.
const MOST_DAYS: u16 = 365;

/// Fills `topology.flow_logs`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let mut taken: HashMap<usize, &str> = HashMap::new();
    for (name, log) in &scope.config.flow_logs {
        let at = join("flowLogs", name);
        names::resource_name(name, &at, true, problems);
        let version = match log.format.as_ref().map_or(2, |format| format.version) {
            1 => FlowLogVersion::One,
            2 => FlowLogVersion::Two,
            other => {
                problems
                    .error(
                        "Sim.NSG-40",
                        join(&join(&at, "format"), "version"),
                        format!("flow log {name} has version {other}"),
                    )
                    .help("there are versions 1 and 2");
                FlowLogVersion::Two
            }
        };
        let retention = log.retention_policy.as_ref();
        let days = retention.map_or(0, |policy| policy.days);
        if days > MOST_DAYS {
            problems
                .error(
                    "Sim.NSG-40",
                    join(&join(&at, "retentionPolicy"), "days"),
                    format!("flow log {name} is kept {days} days"),
                )
                .help("give at most 365 days, or 0 for ever");
        }
        let nsg = join(&at, "networkSecurityGroup");
        let Some(position) = scope.nsgs.find(&log.network_security_group, &nsg, problems) else {
            continue;
        };
        if let Some(other) = taken.insert(position, name) {
            problems
                .error(
                    "Sim.NSG-40",
                    nsg,
                    format!("flow logs {other} and {name} are of the same NSG"),
                )
                .help("an NSG has one flow log");
        }
        if log.enabled == Some(false) {
            continue;
        }
        topology.flow_logs.push(FlowLog {
            name: name.clone(),
            nsg: NsgIndex(position),
            version,
            storage: log.storage.clone(),
            retention_days: (retention.is_some_and(|policy| policy.enabled != Some(false)) && days > 0)
                .then_some(days),
        });
    }
}
