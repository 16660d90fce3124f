//! Network configuration diagnostic (DIAG-08): every NSG on the way, and which fields of which rules matched.

use ipnet::IpNet;
use model::Topology;
use model::topology::{Direction, NicIndex, PortRange};
use schemars::JsonSchema;
use serde::Serialize;

use super::{network_id, vnet_of};
use crate::present::{EffectiveNsg, EffectiveRule, effective_nsgs};

/// Traffic to judge: whole prefixes and port ranges. A rule matches only what it covers wholly.
#[derive(Clone, Debug)]
pub struct Profile {
    pub direction: Direction,
    /// `Tcp`, `Udp`, `Icmp`; `All`: any.
    pub protocol: &'static str,
    pub source: IpNet,
    pub destination: IpNet,
    pub destination_port: PortRange,
}

/// How many rules the answer lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Up to the one that matched.
    Normal,
    /// None.
    Minimum,
    /// All.
    Full,
}

/// The body of the answer.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct ConfigurationDiagnostic {
    pub results: Vec<ProfileResult>,
}

/// The answer for one profile.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileResult {
    pub profile: ShownProfile,
    pub network_security_group_result: SecurityResult,
}

/// The question, repeated.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownProfile {
    pub direction: &'static str,
    pub protocol: &'static str,
    pub source: String,
    pub destination: String,
    pub destination_port: String,
}

/// What the NSGs make of it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityResult {
    pub security_rule_access_result: &'static str,
    /// In the order asked; a deny ends it.
    pub evaluated_network_security_groups: Vec<EvaluatedNsg>,
}

/// One NSG.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EvaluatedNsg {
    pub network_security_group_id: String,
    /// The subnet or NIC it is associated with.
    pub applied_to: String,
    pub matched_rule: Option<MatchedRule>,
    pub rules_evaluation_result: Vec<RuleEvaluation>,
}

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MatchedRule {
    pub rule_name: String,
    pub action: &'static str,
}

/// Which fields of a rule cover the profile's.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleEvaluation {
    pub name: String,
    pub protocol_matched: bool,
    pub source_matched: bool,
    pub source_port_matched: bool,
    pub destination_matched: bool,
    pub destination_port_matched: bool,
}

/// Judges traffic at a NIC by the effective rules as they are shown.
#[must_use]
pub fn configuration(
    topology: &Topology,
    nic: NicIndex,
    profiles: &[Profile],
    verbosity: Verbosity,
) -> ConfigurationDiagnostic {
    let nsgs = effective_nsgs(topology, nic).value;
    let results = profiles.iter().map(|profile| ProfileResult {
        profile: shown(profile),
        network_security_group_result: judge(topology, nic, &nsgs, profile, verbosity),
    });
    ConfigurationDiagnostic {
        results: results.collect(),
    }
}

fn judge(
    topology: &Topology,
    nic: NicIndex,
    nsgs: &[EffectiveNsg],
    profile: &Profile,
    verbosity: Verbosity,
) -> SecurityResult {
    // They are shown from the subnet to the NIC, as inbound packets meet them (NSG-20); outbound ones meet the NIC's
    // first (NSG-21), and both meet a network manager's before all (NSG-43).
    let mut order: Vec<&EffectiveNsg> = nsgs.iter().collect();
    order.sort_by_key(|nsg| match profile.direction {
        _ if nsg.association.network_manager.is_some() => 0,
        Direction::Inbound => 1 + u8::from(nsg.association.subnet.is_none()),
        Direction::Outbound => 1 + u8::from(nsg.association.subnet.is_some()),
    });
    let mut evaluated = Vec::new();
    let mut access = "Allow";
    for nsg in order {
        let told = evaluate(topology, nic, nsg, profile, verbosity);
        let action = told.matched_rule.as_ref().map(|rule| rule.action);
        evaluated.push(told);
        if action == Some("Deny") {
            access = "Deny";
        }
        if matches!(action, Some("Deny" | "AlwaysAllow")) {
            break;
        }
    }
    SecurityResult {
        security_rule_access_result: access,
        evaluated_network_security_groups: evaluated,
    }
}

fn evaluate(
    topology: &Topology,
    nic: NicIndex,
    nsg: &EffectiveNsg,
    profile: &Profile,
    verbosity: Verbosity,
) -> EvaluatedNsg {
    let direction = shown(profile).direction;
    let mut rules: Vec<&EffectiveRule> = nsg.effective_security_rules.iter().collect();
    rules.retain(|rule| rule.direction == direction);
    rules.sort_by_key(|rule| rule.priority);
    let all: Vec<RuleEvaluation> = rules.iter().map(|rule| compare(rule, profile)).collect();
    let matched = all.iter().position(RuleEvaluation::matched);
    let listed = match verbosity {
        Verbosity::Minimum => 0,
        Verbosity::Normal => matched.map_or(all.len(), |at| at + 1),
        Verbosity::Full => all.len(),
    };
    let association = &nsg.association;
    let applied_to = association
        .subnet
        .as_ref()
        .or(association.network_interface.as_ref());
    EvaluatedNsg {
        network_security_group_id: nsg.network_security_group.id.clone(),
        applied_to: applied_to.map_or_else(
            || {
                let vnet = vnet_of(topology, nic);
                let name = &topology.vnets[vnet.0].name;
                network_id(topology, vnet, &format!("virtualNetworks/{name}"))
            },
            |place| place.id.clone(),
        ),
        matched_rule: matched.map(|at| MatchedRule {
            rule_name: rules[at].name.clone(),
            action: rules[at].access,
        }),
        rules_evaluation_result: all.into_iter().take(listed).collect(),
    }
}

impl RuleEvaluation {
    fn matched(&self) -> bool {
        self.protocol_matched
            && self.source_matched
            && self.source_port_matched
            && self.destination_matched
            && self.destination_port_matched
    }
}

fn compare(rule: &EffectiveRule, profile: &Profile) -> RuleEvaluation {
    let all_ports = PortRange {
        first: 0,
        last: u16::MAX,
    };
    // NSG-07: ports are ignored for protocols without ports.
    let ports = |ranges: &[String], wanted: PortRange| {
        profile.protocol == "Icmp" || ranges.iter().any(|range| covers_ports(range, wanted))
    };
    RuleEvaluation {
        name: rule.name.clone(),
        protocol_matched: rule.protocol == "All" || rule.protocol == profile.protocol,
        source_matched: covers(
            rule.expanded_source_address_prefix.as_ref(),
            &rule.source_address_prefixes,
            profile.source,
        ),
        // The profile has no source port, so it means any.
        source_port_matched: ports(&rule.source_port_ranges, all_ports),
        destination_matched: covers(
            rule.expanded_destination_address_prefix.as_ref(),
            &rule.destination_address_prefixes,
            profile.destination,
        ),
        destination_port_matched: ports(&rule.destination_port_ranges, profile.destination_port),
    }
}

/// A tag stands with its expansion; `*` is shown as 0.0.0.0/0 and means both families (NSG-35).
fn covers(expanded: Option<&Vec<String>>, prefixes: &[String], wanted: IpNet) -> bool {
    let any = |text: &String| expanded.is_none() && text == "0.0.0.0/0";
    expanded
        .map_or(prefixes, Vec::as_slice)
        .iter()
        .any(|text| any(text) || text.parse::<IpNet>().is_ok_and(|net| net.contains(&wanted)))
}

fn covers_ports(range: &str, wanted: PortRange) -> bool {
    let ends = range
        .split_once('-')
        .and_then(|(first, last)| Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?)));
    ends.is_some_and(|(first, last)| first <= wanted.first && wanted.last <= last)
}

fn shown(profile: &Profile) -> ShownProfile {
    let PortRange { first, last } = profile.destination_port;
    ShownProfile {
        direction: match profile.direction {
            Direction::Inbound => "Inbound",
            Direction::Outbound => "Outbound",
        },
        protocol: profile.protocol,
        source: profile.source.to_string(),
        destination: profile.destination.to_string(),
        destination_port: if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        },
    }
}
