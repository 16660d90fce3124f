//! `explain`: what happens to a connection and why, by the tables and, with --verify, by packets.

use control::present::Explanation;
use model::topology::TestProtocol;
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::{ExplainArgs, Io, Protocol, Verdict};
use crate::commands::{path_view, run};
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::{Lab, as_learned, not_up, unanswered};
use crate::output::{Output, View, say};
use crate::probes::{Answer, Oracle, Question, send_all};

/// The body of `explain -o json`.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Explained {
    #[serde(flatten)]
    pub(crate) explanation: Explanation,
    /// What packets did; only with --verify.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verified: Option<Verified>,
}

/// What packets did.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Verified {
    #[serde(flatten)]
    pub(crate) packets: Answer,
    /// The same result and reason as explained.
    pub(crate) agrees: bool,
}

/// Explains, and holds the answer against packets and expectations: exit code 4 when they differ.
pub(crate) fn explain(args: &ExplainArgs, output: Output) -> Outcome {
    let (lab, source, destination) = match args.operands.as_slice() {
        [source, destination] => (None, source, destination),
        [lab, source, destination] => (Some(lab.as_str()), source, destination),
        _ => return Err(Failure::usage("explain needs a sender and a receiver")),
    };
    let protocol = match args.protocol {
        Protocol::Tcp => TestProtocol::Tcp,
        Protocol::Udp => TestProtocol::Udp,
        Protocol::Icmp => TestProtocol::Icmp,
    };
    if protocol != TestProtocol::Icmp && args.port.is_none() {
        return Err(Failure::usage(format_args!("{protocol:?} needs a port"))
            .help("add `--port N`, or `--protocol Icmp`"));
    }
    let lab = Lab::open(lab)?;
    let endpoint = |word: &str| lab.topology.endpoint(word).map_err(Failure::not_found);
    let ends = (&endpoint(source)?, &endpoint(destination)?);
    let port = args.port.filter(|_| protocol != TestProtocol::Icmp);
    let mut question = Question::new(&lab.topology, ends, protocol, port, None).map_err(Failure::failed)?;
    question.source_port = args.source_port;
    let explanation = Oracle::new(&lab.topology).explain(&question, None)?;
    let verified = if args.verify {
        Some(verify(lab, &question)?)
    } else {
        None
    };
    let explained = Explained {
        explanation,
        verified,
    };
    output.show(&explained, |palette| View {
        text: Some(path_view::text(&question, &explained, palette)),
        ..path_view::rows(&explained.explanation)
    })?;
    Ok(judge(args.expect, &explained))
}

/// Sends the packet: in the running lab, or in a private copy of a file's lab.
fn verify(lab: Lab, question: &Question) -> Result<Verified, Failure> {
    let topology = lab.topology.clone();
    let questions = std::slice::from_ref(question);
    let asked = |client: &daemon::Client| {
        let results = send_all(client, questions, |_| ())?;
        Ok::<_, Failure>((results, as_learned(client, topology)?))
    };
    let (results, topology) = match &lab.running {
        Some(client) => asked(client)?,
        None => {
            let private = daemon::up_private(&run::options(lab, Io::Auto)).map_err(not_up)?;
            asked(&daemon::Client::connect(&private.running.socket).map_err(unanswered)?)?
        }
    };
    let oracle = Oracle::new(&topology);
    let Some(result) = results.first() else {
        return Err(Failure::failed("the daemon gave no answer to the probe"));
    };
    let packets = Answer::of_packets(result);
    let explained = Answer::explained(&oracle.explain(question, result.source_port)?);
    Ok(Verified {
        agrees: packets.agrees(&explained),
        packets,
    })
}

fn judge(expect: Option<Verdict>, explained: &Explained) -> u8 {
    let mut code = exit::SUCCESS;
    if let Some(verified) = explained.verified.as_ref().filter(|verified| !verified.agrees) {
        let told = Answer::explained(&explained.explanation).text();
        say(format_args!(
            "peerlane: packets and explain differ: packets {}, explain {told}",
            verified.packets.text()
        ));
        code = exit::EXPECTATION;
    }
    let expected = expect.map(|verdict| match verdict {
        Verdict::Allow => "Allow",
        Verdict::Deny => "Deny",
    });
    if let Some(expected) = expected.filter(|expected| *expected != explained.explanation.verdict) {
        say(format_args!(
            "peerlane: expected {expected}, explained {}",
            Answer::explained(&explained.explanation).text()
        ));
        code = exit::EXPECTATION;
    }
    code
}
