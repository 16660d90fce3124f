//! `test`: what must hold, asked of real packets or of explain alone.

use std::io::{self, IsTerminal, Write};

use model::Topology;
use model::topology::{Access, Endpoint, NicIndex, TestProtocol};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::TestArgs;
use crate::commands::run;
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::{Lab, as_learned, not_up, unanswered};
use crate::output::{Cell, Output, Tone, View, say};
use crate::probes::{Answer, Oracle, Question, send_all};

/// Destination ports of --all-pairs, where the lab's tests name none.
const TCP_PORT: u16 = 80;
const UDP_PORT: u16 = 53;

/// One line of `test -o json`.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct TestRow {
    from: String,
    to: String,
    /// `Tcp`, `Udp` or `Icmp`.
    protocol: String,
    port: Option<u16>,
    /// `Allow` or `Deny`.
    expect: &'static str,
    result: &'static str,
    /// The drop reason of a Deny.
    reason: Option<String>,
    passed: bool,
    /// `packets` or `static`.
    mode: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// A question and what must come of it.
struct Case {
    question: Question,
    /// None: what explain says.
    expect: Option<Access>,
    reason: Option<String>,
}

/// Runs a lab's tests; exit code 4 when one fails.
pub(crate) fn test(args: &TestArgs, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let topology = lab.topology.clone();
    let cases = if args.all_pairs {
        all_pairs(&topology)?
    } else {
        declared(&topology)?
    };
    let oracle = Oracle::new(&topology);
    let rows = if args.statically {
        cases
            .iter()
            .map(|case| explained(&oracle, case))
            .collect::<Result<Vec<_>, _>>()?
    } else {
        sent(args, lab, &oracle, &cases)?
    };
    output.show(&rows, |_| View {
        header: vec!["", "From", "To", "Protocol", "Port", "Expect", "Result", "Reason"],
        rows: rows.iter().map(row).collect(),
        ..View::default()
    })?;
    let failed: Vec<&TestRow> = rows.iter().filter(|row| !row.passed).collect();
    for row in &failed {
        let port = row.port.map(|port| format!(" {port}")).unwrap_or_default();
        let message = row.message.as_deref().unwrap_or_default();
        say(format_args!(
            "failed: {} to {} {}{port}: {message}",
            row.from, row.to, row.protocol
        ));
    }
    say(format_args!(
        "{} of {} passed",
        rows.len() - failed.len(),
        rows.len()
    ));
    Ok(if failed.is_empty() {
        exit::SUCCESS
    } else {
        exit::EXPECTATION
    })
}

fn declared(topology: &Topology) -> Result<Vec<Case>, Failure> {
    let case = |test: &model::topology::Test| {
        let mut question = Question::new(topology, (&test.from, &test.to), test.protocol, test.port, None)
            .map_err(Failure::failed)?;
        question.source_port = test.source_port;
        Ok(Case {
            question,
            expect: Some(test.expect),
            reason: test.reason.clone(),
        })
    };
    topology.tests.iter().map(case).collect()
}

/// Every ordered pair of VMs (their first NICs) and NICs behind VNet ports, for every protocol and every family both
/// have, and for Tcp and Udp every port that the lab's tests name.
fn all_pairs(topology: &Topology) -> Result<Vec<Case>, Failure> {
    let firsts = topology.vms.iter().filter_map(|vm| vm.nics.first().copied());
    let behind_ports = (0..topology.nics.len())
        .map(NicIndex)
        .filter(|nic| topology.nics[nic.0].vm.is_none());
    let ends: Vec<NicIndex> = firsts.chain(behind_ports).collect();
    let ports = |protocol: TestProtocol, usual: u16| {
        let named = topology
            .tests
            .iter()
            .filter(|test| test.protocol == protocol)
            .filter_map(|test| test.port);
        let mut ports: Vec<u16> = named.chain([usual]).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.into_iter().map(move |port| (protocol, Some(port)))
    };
    let questions: Vec<(TestProtocol, Option<u16>)> = ports(TestProtocol::Tcp, TCP_PORT)
        .chain(ports(TestProtocol::Udp, UDP_PORT))
        .chain([(TestProtocol::Icmp, None)])
        .collect();
    let has = |nic: NicIndex, ipv6: bool| {
        topology.nics[nic.0]
            .addresses
            .iter()
            .any(|address| address.is_ipv6() == ipv6)
    };
    let mut cases = Vec::new();
    for from in &ends {
        for to in ends.iter().filter(|to| *to != from) {
            for ipv6 in [false, true] {
                if !(has(*from, ipv6) && has(*to, ipv6)) {
                    continue;
                }
                for (protocol, port) in &questions {
                    let nics = (&Endpoint::Nic(*from), &Endpoint::Nic(*to));
                    let mut question = Question::new(topology, nics, *protocol, *port, Some(ipv6))
                        .map_err(Failure::failed)?;
                    // VNET-07: an address of the sender's own never leaves the guest.
                    if question.source == question.destination {
                        continue;
                    }
                    question.to = format!("{} ({})", question.to, question.destination);
                    cases.push(Case {
                        question,
                        expect: None,
                        reason: None,
                    });
                }
            }
        }
    }
    Ok(cases)
}

fn explained(oracle: &Oracle<'_>, case: &Case) -> Result<TestRow, Failure> {
    let answer = Answer::explained(&oracle.explain(&case.question, None)?);
    Ok(judge(case, &answer, &answer, "static"))
}

/// Asks packets: in the running lab, or in a private copy that is gone afterwards.
fn sent(args: &TestArgs, lab: Lab, oracle: &Oracle<'_>, cases: &[Case]) -> Result<Vec<TestRow>, Failure> {
    let questions: Vec<Question> = cases.iter().map(|case| case.question.clone()).collect();
    let progress = |done: usize| {
        let mut stderr = io::stderr().lock();
        if stderr.is_terminal() {
            let end = if done == questions.len() { "\r\x1b[K" } else { "" };
            let _ = write!(stderr, "\r{done} of {} probes{end}", questions.len());
        }
    };
    let asked = |client: &daemon::Client| {
        let results = send_all(client, &questions, progress)?;
        // By now BGP has told what there is to tell.
        Ok::<_, Failure>((results, as_learned(client, oracle.topology.clone())?))
    };
    let (results, topology) = match &lab.running {
        Some(client) => asked(client)?,
        None => {
            let private = daemon::up_private(&run::options(lab, args.io.io)).map_err(not_up)?;
            asked(&daemon::Client::connect(&private.running.socket).map_err(unanswered)?)?
        }
    };
    let oracle = Oracle::new(&topology);
    let judged = |(case, result): (&Case, &daemon::api::ProbeResult)| {
        let told = Answer::explained(&oracle.explain(&case.question, result.source_port)?);
        Ok(judge(case, &Answer::of_packets(result), &told, "packets"))
    };
    cases.iter().zip(&results).map(judged).collect()
}

/// Passed: the result is the expected one, for the expected reason where one is given, and explain says the same.
fn judge(case: &Case, answer: &Answer, explained: &Answer, mode: &'static str) -> TestRow {
    let expect = match case.expect {
        Some(Access::Allow) => "Allow",
        Some(Access::Deny) => "Deny",
        None => explained.result,
    };
    let message = if !answer.agrees(explained) {
        Some(format!(
            "packets and explain differ: packets {}, explain {}",
            answer.text(),
            explained.text()
        ))
    } else if answer.result != expect {
        Some(format!("expected {expect}, got {}", answer.text()))
    } else if case.reason.is_some() && case.reason != answer.reason {
        let wanted = case.reason.as_deref().unwrap_or_default();
        Some(format!("expected reason {wanted}, got {}", answer.text()))
    } else {
        None
    };
    TestRow {
        from: case.question.from.clone(),
        to: case.question.to.clone(),
        protocol: format!("{:?}", case.question.protocol),
        port: case.question.port,
        expect,
        result: answer.result,
        reason: answer.reason.clone(),
        passed: message.is_none(),
        mode,
        message,
    }
}

fn row(test: &TestRow) -> Vec<Cell> {
    let (tone, mark) = if test.passed {
        (Tone::Good, "✔")
    } else {
        (Tone::Bad, "✘")
    };
    vec![
        Cell::new(tone, mark),
        test.from.as_str().into(),
        test.to.as_str().into(),
        test.protocol.as_str().into(),
        test.port.map(|port| port.to_string()).unwrap_or_default().into(),
        test.expect.into(),
        Cell::new(
            if test.result == "Allow" {
                Tone::Good
            } else {
                Tone::Plain
            },
            test.result,
        ),
        test.reason.as_deref().unwrap_or_default().into(),
    ]
}
