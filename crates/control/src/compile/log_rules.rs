//! What flow logs call the rules of the NSGs they follow (NSG-36, NSG-42).

use std::collections::HashMap;

use engine::snapshot::LogRuleId;
use model::Topology;
use model::topology::{Direction, NsgIndex};

use super::{FilterOrigin, dense};

/// A rule of a logged NSG.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogRule {
    pub nsg: NsgIndex,
    pub direction: Direction,
    /// `UserRule_<name>` or `DefaultRule_<name>`.
    pub name: String,
}

/// By filter and rule, for [`engine::Snapshot::log_rules`]; and by id. An NSG makes several filters, whose rules share ids.
/// What the platform lets pass whatever the rules say is not logged.
pub(super) fn log_rules(
    topology: &Topology,
    filters: &[FilterOrigin],
) -> (Vec<Vec<Option<LogRuleId>>>, Vec<LogRule>) {
    if topology.flow_logs.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let mut named = Vec::new();
    let mut ids = HashMap::new();
    let mut id = |rule: LogRule| {
        *ids.entry(rule).or_insert_with_key(|rule| {
            named.push(rule.clone());
            LogRuleId(dense(named.len() - 1))
        })
    };
    let of_filter = |filter: &FilterOrigin| {
        let Some(nsg) = filter
            .nsg
            .filter(|nsg| topology.flow_logs.iter().any(|log| log.nsg == *nsg))
        else {
            return Vec::new();
        };
        let of_rule = |rule: &super::RuleOrigin| {
            let (kind, name) = rule.name.split_once('/')?;
            let prefix = match kind {
                "securityRules" => "UserRule_",
                "defaultSecurityRules" => "DefaultRule_",
                _ => return None,
            };
            Some(id(LogRule {
                nsg,
                direction: filter.direction,
                name: format!("{prefix}{name}"),
            }))
        };
        filter.rules.iter().map(of_rule).collect()
    };
    let by_filter = filters.iter().map(of_filter).collect();
    (by_filter, named)
}
