//! Questions that explain and real packets both answer, and whether they agree.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use control::explain::{DEFAULT_SOURCE_PORT, Query};
use control::present::Explanation;
use control::{Compiled, compile, explain};
use daemon::Client;
pub(crate) use daemon::Question;
use daemon::api::{ProbeOutcome, ProbeResult};
use model::Topology;
use model::topology::Endpoint;
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::Failure;
use crate::lab_ref::unanswered;

/// Probes mostly wait for a second of silence, so that many at once cost little.
const PARALLEL: usize = 32;

/// What came of it, by explain or by packets.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub(crate) struct Answer {
    /// `Allow` or `Deny`.
    pub(crate) result: &'static str,
    /// A drop reason of the contract; null for Allow, and for a packet lost where the fabric cannot see it.
    pub(crate) reason: Option<String>,
    /// The NIC where it was dropped.
    pub(crate) at: Option<String>,
    /// `forward` or `return`.
    pub(crate) path: Option<String>,
}

/// The tables of a lab and the lab they are of.
#[derive(Debug)]
pub(crate) struct Oracle<'a> {
    pub(crate) topology: &'a Topology,
    pub(crate) compiled: Compiled,
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(topology: &'a Topology) -> Self {
        Self {
            topology,
            compiled: compile(topology, 1),
        }
    }

    /// Explains a question; `source_port` is what a packet used, where one was sent.
    ///
    /// # Errors
    /// The question makes no sense in this lab.
    pub(crate) fn explain(
        &self,
        question: &Question,
        source_port: Option<u16>,
    ) -> Result<Explanation, Failure> {
        let query = Query {
            source: question.sender.clone(),
            destination: Endpoint::Address(question.destination),
            protocol: question.protocol,
            source_port: source_port
                .or(question.source_port)
                .unwrap_or(DEFAULT_SOURCE_PORT),
            port: question.port.unwrap_or(0),
        };
        explain(self.topology, &self.compiled, &query)
            .map_err(|error| Failure::failed(format_args!("{} to {}: {error}", question.from, question.to)))
    }
}

impl Answer {
    pub(crate) fn explained(explanation: &Explanation) -> Self {
        let drop = explanation.drop.as_ref();
        Self {
            result: explanation.verdict,
            reason: drop.and_then(|drop| drop.reason).map(str::to_owned),
            at: drop.map(|drop| drop.at.clone()),
            path: drop.map(|drop| drop.path.to_owned()),
        }
    }

    pub(crate) fn of_packets(result: &ProbeResult) -> Self {
        match result.result {
            ProbeOutcome::Allow => Self {
                result: "Allow",
                reason: None,
                at: None,
                path: None,
            },
            ProbeOutcome::Deny => Self {
                result: "Deny",
                reason: result.reason.clone(),
                at: result.nic.clone(),
                path: result.path.clone(),
            },
        }
    }

    /// The same result for the same reason.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.result == other.result && self.reason == other.reason
    }

    /// For messages: `Deny (NsgInbound at db-nic)`.
    pub(crate) fn text(&self) -> String {
        match (&self.reason, &self.at) {
            (Some(reason), Some(at)) => format!("{} ({reason} at {at})", self.result),
            (Some(reason), None) => format!("{} ({reason})", self.result),
            (None, _) if self.result == "Deny" => "Deny (silence, dropped nowhere in the fabric)".to_owned(),
            (None, _) => self.result.to_owned(),
        }
    }
}

/// Sends packets for every question, many at a time; answers are in the order of the questions.
/// `done` is called after each one with how many there have been.
///
/// # Errors
/// The first question that the daemon did not answer.
pub(crate) fn send_all(
    client: &Client,
    questions: &[Question],
    done: impl Fn(usize) + Sync,
) -> Result<Vec<ProbeResult>, Failure> {
    let requests = questions
        .iter()
        .map(Question::request)
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::failed)?;
    let next = AtomicUsize::new(0);
    let finished = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let work = || {
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = requests.get(position) else {
                return;
            };
            let answer = client.probe(request).map_err(unanswered);
            if answer.is_err() {
                // The others finish what they began and start nothing new.
                next.store(requests.len(), Ordering::Relaxed);
            }
            answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((position, answer));
            done(finished.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    thread::scope(|scope| {
        for _ in 0..PARALLEL.min(requests.len()) {
            scope.spawn(work);
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(position, _)| *position);
    answers.into_iter().map(|(_, answer)| answer).collect()
}
