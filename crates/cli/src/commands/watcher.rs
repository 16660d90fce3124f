//! `show-next-hop`, `test-ip-flow`, `test-connectivity`, `run-configuration-diagnostic`, `show-topology`: Network Watcher
//! (DIAG-01 to DIAG-09), with the bodies of `az network watcher`.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use control::compile;
use control::diagnose::{
    self, Connectivity, Flow, Probes, Profile, Refusal, configuration, connectivity, ip_flow, layout,
    next_hop,
};
use daemon::api::ProbeOutcome;
use model::topology::{Direction, NicIndex, PortRange, TestProtocol};

use crate::args::{Io, LabArg};
use crate::commands::run;
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::{Lab, not_up, unanswered};
use crate::output::{Cell, Output, Tone, View};
use crate::probes::{Oracle, Question, send_all};
use crate::watcher_args::{
    self as args, CheckProtocol, ConfigurationArgs, ConnectivityArgs, FlowProtocol, IpFlowArgs, NextHopArgs,
    TrafficProtocol, Verbosity,
};

/// Packets of one connection check: enough to tell a lossy path from a broken one.
const PROBES: usize = 10;

/// The next hop of a packet (DIAG-03).
pub(crate) fn show_next_hop(args: &NextHopArgs, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let nic = target(&lab, &args.target)?;
    let compiled = compile(&lab.topology, 1);
    let hop = next_hop(&lab.topology, &compiled, nic, args.source_ip, args.dest_ip).map_err(refused)?;
    output.show(&hop, |_| View {
        header: vec!["Next Hop Type", "Next Hop IP", "Route Table"],
        rows: vec![vec![
            hop.next_hop_type.into(),
            hop.next_hop_ip_address.clone().unwrap_or_default().into(),
            hop.route_table_id.as_str().into(),
        ]],
        ..View::default()
    })?;
    Ok(exit::SUCCESS)
}

/// What the NSGs say of a packet (DIAG-02).
pub(crate) fn test_ip_flow(args: &IpFlowArgs, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let nic = target(&lab, &args.target)?;
    let flow = Flow {
        direction: direction(args.direction),
        protocol: match args.protocol {
            FlowProtocol::Tcp => TestProtocol::Tcp,
            FlowProtocol::Udp => TestProtocol::Udp,
        },
        local: end(&args.local, args.direction == args::Direction::Outbound)?,
        remote: end(&args.remote, args.direction == args::Direction::Inbound)?,
    };
    let verdict = ip_flow(&lab.topology, &compile(&lab.topology, 1), nic, &flow);
    output.show(&verdict, |_| View {
        header: vec!["Access", "Rule"],
        rows: vec![vec![
            access(verdict.access),
            verdict.rule_name.clone().unwrap_or_default().into(),
        ]],
        ..View::default()
    })?;
    Ok(exit::SUCCESS)
}

/// Packets from one VM to another, and where and why they are lost (DIAG-07). A file's lab is brought up for them.
pub(crate) fn test_connectivity(args: &ConnectivityArgs, output: Output) -> Outcome {
    let (lab, source, destination) = match args.operands.as_slice() {
        [source, destination] => (None, source, destination),
        [lab, source, destination] => (Some(lab.as_str()), source, destination),
        _ => return Err(Failure::usage("test-connectivity needs a sender and a receiver")),
    };
    let (protocol, port) = match (args.protocol, args.dest_port) {
        (CheckProtocol::Icmp, _) => (TestProtocol::Icmp, None),
        (CheckProtocol::Tcp, Some(port)) => (TestProtocol::Tcp, Some(port)),
        (CheckProtocol::Tcp, None) => {
            return Err(Failure::usage("Tcp needs a port").help("add `--dest-port N`, or `--protocol Icmp`"));
        }
    };
    let lab = Lab::open(lab)?;
    let from = model::topology::Endpoint::Nic(target(&lab, source)?);
    let to = lab.topology.endpoint(destination).map_err(Failure::not_found)?;
    let question =
        Question::new(&lab.topology, (&from, &to), protocol, port, None).map_err(Failure::failed)?;
    let explanation = Oracle::new(&lab.topology).explain(&question, None)?;
    let topology = lab.topology.clone();
    let probes = send(lab, &question)?;
    let ends = (question.source, question.destination);
    let told = connectivity(&topology, &explanation, ends, &probes);
    output.show(&told, |_| hops(&told))?;
    Ok(exit::SUCCESS)
}

/// How traffic fares with the NSGs of a network interface, rule by rule (DIAG-08).
pub(crate) fn run_configuration_diagnostic(args: &ConfigurationArgs, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let nic = target(&lab, &args.target)?;
    let profile = Profile {
        direction: direction(args.direction),
        protocol: match args.protocol {
            TrafficProtocol::Tcp => "Tcp",
            TrafficProtocol::Udp => "Udp",
            TrafficProtocol::Icmp => "Icmp",
        },
        source: prefix(&args.source)?,
        destination: prefix(&args.destination)?,
        destination_port: ports(&args.port)?,
    };
    let verbosity = match args.verbosity_level {
        Verbosity::Normal => diagnose::Verbosity::Normal,
        Verbosity::Minimum => diagnose::Verbosity::Minimum,
        Verbosity::Full => diagnose::Verbosity::Full,
    };
    let told = configuration(&lab.topology, nic, &[profile], verbosity);
    output.show(&told, |_| {
        let results = told
            .results
            .iter()
            .map(|result| &result.network_security_group_result);
        let nsgs = results.flat_map(|result| &result.evaluated_network_security_groups);
        View {
            header: vec!["NSG", "Applied to", "Rule", "Action"],
            rows: nsgs
                .map(|nsg| {
                    let rule = nsg.matched_rule.as_ref();
                    vec![
                        last(&nsg.network_security_group_id).into(),
                        last(&nsg.applied_to).into(),
                        rule.map_or("", |rule| rule.rule_name.as_str()).into(),
                        access(rule.map_or("", |rule| rule.action)),
                    ]
                })
                .collect(),
            ..View::default()
        }
    })?;
    Ok(exit::SUCCESS)
}

/// The objects of the lab and what they belong to (DIAG-09).
pub(crate) fn show_topology(args: &LabArg, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Names the answer, no more: no two within a nanosecond.
    let id = format!(
        "00000000-0000-4000-8000-{:012x}",
        now.as_nanos() & 0xffff_ffff_ffff
    );
    let told = layout(&lab.topology, id, rfc3339(now.as_secs()));
    output.show(&told, |_| View {
        header: vec!["Name", "Location", "Associations"],
        rows: told
            .resources
            .iter()
            .map(|resource| {
                let associations = resource.associations.iter();
                let texts: Vec<String> = associations
                    .map(|it| format!("{} {}", it.association_type, it.name))
                    .collect();
                vec![
                    resource.name.as_str().into(),
                    resource.location.as_str().into(),
                    texts.join(", ").into(),
                ]
            })
            .collect(),
        ..View::default()
    })?;
    Ok(exit::SUCCESS)
}

fn target(lab: &Lab, name: &str) -> Result<NicIndex, Failure> {
    diagnose::target(&lab.topology, name).map_err(refused)
}

fn refused(refusal: Refusal) -> Failure {
    let code = if refusal.code == "ResourceNotFound" {
        exit::NOT_FOUND
    } else {
        exit::FAILURE
    };
    Failure::new(code, format_args!("{} ({})", refusal.message, refusal.code))
}

fn send(lab: Lab, question: &Question) -> Result<Probes, Failure> {
    let questions = vec![question.clone(); PROBES];
    let results = match &lab.running {
        Some(client) => send_all(client, &questions, |_| ())?,
        None => {
            let private = daemon::up_private(&run::options(lab, Io::Auto)).map_err(not_up)?;
            let client = daemon::Client::connect(&private.running.socket).map_err(unanswered)?;
            send_all(&client, &questions, |_| ())?
        }
    };
    let answered = results.iter().map(|result| match result.result {
        ProbeOutcome::Allow => Some(result.latency_us.unwrap_or_default()),
        ProbeOutcome::Deny => None,
    });
    Ok(Probes(answered.collect()))
}

fn hops(told: &Connectivity) -> View {
    let row = |hop: &diagnose::Hop| {
        let issues: Vec<String> = hop
            .issues
            .iter()
            .map(|issue| {
                let context = issue.context.iter().map(|it| format!("{}={}", it.key, it.value));
                let context: Vec<String> = context.collect();
                format!("{} {} {}", issue.origin, issue.kind, context.join(" "))
                    .trim_end()
                    .to_owned()
            })
            .collect();
        vec![
            hop.kind.into(),
            hop.resource_id.as_deref().map_or("", last).into(),
            hop.address.clone().unwrap_or_default().into(),
            Cell::new(Tone::Bad, issues.join(", ")),
        ]
    };
    let mut rows: Vec<Vec<Cell>> = told.hops.iter().map(row).collect();
    let sent = format!("{} of {} probes failed", told.probes_failed, told.probes_sent);
    let tone = if told.connection_status == "Connected" {
        Tone::Good
    } else {
        Tone::Bad
    };
    rows.push(vec![
        Cell::new(tone, told.connection_status),
        "".into(),
        "".into(),
        sent.into(),
    ]);
    View {
        header: vec!["Hop", "Network interface", "Address", "Issues"],
        rows,
        ..View::default()
    }
}

fn access(text: &'static str) -> Cell {
    let tone = if text == "Deny" { Tone::Bad } else { Tone::Good };
    Cell::new(tone, text)
}

/// The name at the end of an ARM id.
fn last(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

const fn direction(direction: args::Direction) -> Direction {
    match direction {
        args::Direction::Inbound => Direction::Inbound,
        args::Direction::Outbound => Direction::Outbound,
    }
}

/// `address:port`; IPv6 in brackets. Only a source's port may be `*`.
fn end(text: &str, source: bool) -> Result<(IpAddr, Option<u16>), Failure> {
    let wrong = || {
        let what = if source {
            "an address and a port or `*`"
        } else {
            "an address and a port"
        };
        Failure::usage(format_args!("{text:?} is not {what}")).help("write 10.0.0.4:80 or [fd00::4]:80")
    };
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let address = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    let port = match port {
        "*" if source => None,
        port => Some(port.parse().map_err(|_| wrong())?),
    };
    Ok((address.parse().map_err(|_| wrong())?, port))
}

fn prefix(text: &str) -> Result<ipnet::IpNet, Failure> {
    let address = text.parse::<IpAddr>().map(ipnet::IpNet::from);
    address.or_else(|_| text.parse::<ipnet::IpNet>()).map_err(|_| {
        Failure::usage(format_args!("{text:?} is no address or prefix")).help("write 10.0.0.0/16")
    })
}

fn ports(text: &str) -> Result<PortRange, Failure> {
    let (first, last) = match text {
        "*" => ("0", "65535"),
        text => text.split_once('-').unwrap_or((text, text)),
    };
    let range = first.parse().ok().zip(last.parse().ok());
    range
        .filter(|(first, last)| first <= last)
        .map(|(first, last)| PortRange { first, last })
        .ok_or_else(|| Failure::usage(format_args!("{text:?} is no port")).help("write 80, 80-90 or `*`"))
}

/// The UTC time of seconds since 1970, by Howard Hinnant's `civil_from_days`.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Counted from March, so that the leap day is the last.
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn only_a_source_port_may_be_left_open() {
        assert!(matches!(end("10.0.0.4:*", true), Ok((_, None))));
        assert!(end("10.0.0.4:*", false).is_err());
        assert!(matches!(end("[fd00::4]:80", false), Ok((address, Some(80))) if address.is_ipv6()));
        assert!(end("10.0.0.4", true).is_err() && end("10.0.0.4:70000", true).is_err());
        assert!(ports("90-80").is_err() && ports("80-90").is_ok() && ports("*").is_ok());
    }
}
