//! `bench`: what a lab carries, measured between two of its namespaces with traffic of our own.

use std::env;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use model::Topology;
use model::topology::{Access, Endpoint, TestProtocol};
use schemars::JsonSchema;
use serde::Serialize;

use crate::bench::drive::{self, Drive, Measured, Test};
use crate::bench::sink;
use crate::bench_args::{BenchArgs, BenchEnd, BenchEndArgs, BenchTimes};
use crate::commands::run;
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::{Lab, not_up, unanswered};
use crate::output::{Cell, Output, Tone, View};
use crate::probes::{Answer, Oracle, Question};

/// What `bench -o json` writes.
#[derive(Debug, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    from: String,
    to: String,
    /// `vnet` or `plain`.
    io: String,
    /// Of each run, in seconds.
    seconds: f64,
    results: Vec<Row>,
}

/// All runs of one test.
#[derive(Debug, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    test: Test,
    /// Of what `unit` says.
    median: f64,
    lowest: f64,
    highest: f64,
    /// `bit/s`, `packets/s`, `connections/s`, or `µs` there and back.
    unit: &'static str,
    runs: Vec<Measured>,
}

/// The two ends in their namespaces.
struct Ends {
    lab: String,
    state_dir: PathBuf,
    question: Question,
    port: u16,
}

/// Measures a lab.
pub(crate) fn bench(args: &BenchArgs, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let question = pair(&lab.topology, args)?;
    let (client, private) = match &lab.running {
        Some(client) => (client.clone(), None),
        None => {
            let private = daemon::up_private(&run::options(lab, args.io.io)).map_err(not_up)?;
            let client = daemon::Client::connect(&private.running.socket).map_err(unanswered)?;
            (client, Some(private))
        }
    };
    let state = client.state().map_err(unanswered)?;
    let ends = Ends {
        lab: state.name,
        state_dir: state_dir(client.socket())?,
        question,
        port: args.port,
    };
    let results = ends.measure(args)?;
    drop(private);
    let report = Report {
        from: ends.question.from,
        to: ends.question.to,
        io: state.io,
        seconds: args.times.seconds,
        results,
    };
    output.show(&report, |_| View {
        header: vec!["Test", "Median", "Lowest", "Highest", "Unit", "CPU"],
        rows: report.results.iter().map(line).collect(),
        ..View::default()
    })?;
    Ok(exit::SUCCESS)
}

/// One end, in the namespace of the caller.
pub(crate) fn end(args: &BenchEndArgs) -> Outcome {
    match args.end {
        BenchEnd::Sink { address } => sink::serve(address, args.congestion)
            .map_err(|error| Failure::failed(format_args!("cannot receive at {address}: {error}")))?,
        BenchEnd::Drive {
            sink,
            test,
            source,
            times,
        } => {
            let drive = Drive {
                source,
                sink,
                congestion: args.congestion,
                warm_up: Duration::from_secs_f64(times.warm_up),
                time: Duration::from_secs_f64(times.seconds),
            };
            let failed = |error: &dyn std::fmt::Display| {
                Failure::failed(format_args!("{} to {sink}: {error}", test.name()))
            };
            let measured = drive::run(test, drive).map_err(|error| failed(&error))?;
            println!(
                "{}",
                serde_json::to_string(&measured).map_err(|error| failed(&error))?
            );
        }
    }
    Ok(exit::SUCCESS)
}

/// Who sends to whom; both TCP and UDP must pass.
fn pair(topology: &Topology, args: &BenchArgs) -> Result<Question, Failure> {
    let named = |word: &str| topology.endpoint(word).map_err(Failure::not_found);
    let ends: (Endpoint, Endpoint) = match (&args.from, &args.to) {
        (Some(from), Some(to)) => (named(from)?, named(to)?),
        _ => topology
            .tests
            .iter()
            .find(|test| test.expect == Access::Allow)
            .map(|test| (test.from.clone(), test.to.clone()))
            .ok_or_else(|| {
                Failure::usage("the lab has no test that expects Allow").help("say `--from VM --to VM`")
            })?,
    };
    let oracle = Oracle::new(topology);
    let asked = |protocol| {
        let question = Question::new(topology, (&ends.0, &ends.1), protocol, Some(args.port), None)
            .map_err(Failure::failed)?;
        let answer = Answer::explained(&oracle.explain(&question, None)?);
        if answer.result == "Allow" {
            return Ok(question);
        }
        let (from, to, port) = (&question.from, &question.to, args.port);
        Err(Failure::failed(format_args!(
            "{from} to {to}, {protocol:?} {port}: {}",
            answer.text()
        ))
        .help("name ends and a port between which TCP and UDP pass: --from, --to, --port"))
    };
    asked(TestProtocol::Udp)?;
    asked(TestProtocol::Tcp)
}

/// Where the commands of this lab find it.
fn state_dir(socket: &Path) -> Result<PathBuf, Failure> {
    let directory = socket.parent().and_then(Path::parent);
    directory
        .map(Path::to_path_buf)
        .ok_or_else(|| Failure::failed(format_args!("{} is in no run directory", socket.display())))
}

impl Ends {
    fn measure(&self, args: &BenchArgs) -> Result<Vec<Row>, Failure> {
        let Some((from, to, listen)) = self.question.namespaces() else {
            return Err(Failure::failed(format_args!(
                "{} to {}: not both are namespaces of the lab",
                self.question.from, self.question.to
            )));
        };
        let mut sink = self
            .program(to, &["sink", &SocketAddr::new(listen, self.port).to_string()])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::failed(format_args!("cannot start the receiver: {error}")))?;
        let ready = ready(&mut sink);
        let measured = ready.and_then(|()| self.runs(from, args));
        // Its standard input ends with it.
        drop(sink.stdin.take());
        let _ = sink.wait();
        measured
    }

    /// Round by round, so that what disturbs the machine for a while disturbs all tests alike.
    fn runs(&self, from: &str, args: &BenchArgs) -> Result<Vec<Row>, Failure> {
        let tests = if args.tests.is_empty() {
            &Test::ALL[..]
        } else {
            &args.tests
        };
        let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); tests.len()];
        let total = tests.len() * usize::from(args.runs);
        for round in 0..usize::from(args.runs) {
            for (index, (test, runs)) in tests.iter().zip(&mut measured).enumerate() {
                progress(round * tests.len() + index, total, &test.name());
                runs.push(self.drive(from, *test, args.times)?);
            }
        }
        progress(total, total, "");
        let rows = tests.iter().zip(measured);
        Ok(rows.filter_map(|(test, runs)| Row::new(*test, runs)).collect())
    }

    fn drive(&self, from: &str, test: Test, times: BenchTimes) -> Result<Measured, Failure> {
        let sink = SocketAddr::new(self.question.destination, self.port).to_string();
        let (seconds, warm_up) = (times.seconds.to_string(), times.warm_up.to_string());
        let source = self.question.source.to_string();
        let name = test.name();
        let words = [
            "drive",
            &sink,
            &name,
            "--source",
            &source,
            "--seconds",
            &seconds,
            "--warm-up",
            &warm_up,
        ];
        let ran = self.program(from, &words)?.stdin(Stdio::null()).output();
        let ran = ran.map_err(|error| Failure::failed(format_args!("cannot start the sender: {error}")))?;
        let answer = serde_json::from_slice(&ran.stdout);
        answer.map_err(|_| {
            let said = String::from_utf8_lossy(&ran.stderr);
            Failure::failed(said.trim().trim_start_matches("peerlane: "))
        })
    }

    /// This program as an end in a namespace of the lab.
    fn program(&self, namespace: &str, words: &[&str]) -> Result<Command, Failure> {
        let program = env::current_exe()
            .map_err(|error| Failure::failed(format_args!("cannot find this program: {error}")))?;
        let mut command = Command::new(&program);
        command
            .env("PEERLANE_STATE_DIR", &self.state_dir)
            .args(["exec", "--lab", &self.lab, namespace, "--"])
            .arg(&program)
            .arg("bench-end")
            .args(words);
        Ok(command)
    }
}

impl Row {
    /// None: nothing was measured.
    fn new(test: Test, runs: Vec<Measured>) -> Option<Self> {
        let figures: Vec<(f64, &'static str)> = runs.iter().filter_map(Measured::figure).collect();
        let unit = figures.first()?.1;
        let mut values: Vec<f64> = figures.into_iter().map(|(value, _)| value).collect();
        values.sort_unstable_by(f64::total_cmp);
        Some(Self {
            test,
            median: median(&values)?,
            lowest: *values.first()?,
            highest: *values.last()?,
            unit,
            runs,
        })
    }
}

/// Of values in order.
fn median(values: &[f64]) -> Option<f64> {
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get(values.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

fn ready(sink: &mut Child) -> Result<(), Failure> {
    let mut line = String::new();
    let read = sink
        .stdout
        .take()
        .map(|said| BufReader::new(said).read_line(&mut line));
    match read {
        Some(Ok(_)) if !line.is_empty() => Ok(()),
        // It has said why on standard error.
        _ => Err(Failure::failed("the receiver did not start")),
    }
}

fn progress(done: usize, total: usize, test: &str) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        let _ = match done == total {
            true => write!(stderr, "\r\x1b[K"),
            false => write!(stderr, "\r{done} of {total} runs, now {test}\x1b[K"),
        };
    }
}

fn line(row: &Row) -> Vec<Cell> {
    let cpu: Vec<f64> = row
        .runs
        .iter()
        .filter_map(|run| run.cpu_seconds_per_gigabyte)
        .collect();
    let each: Vec<f64> = row
        .runs
        .iter()
        .filter_map(|run| run.cpu_per_operation_us)
        .collect();
    let cpu = match (middle(each), middle(cpu)) {
        (Some(time), _) => format!("{time:.2} µs each"),
        (None, Some(time)) => format!("{time:.2} s/GB"),
        (None, None) => "-".to_owned(),
    };
    let figure = |value: f64| match row.unit {
        "bit/s" => format!("{:.2} G", value / 1e9),
        "µs" => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    vec![
        Cell::new(Tone::Strong, row.test.name()),
        figure(row.median).into(),
        figure(row.lowest).into(),
        figure(row.highest).into(),
        row.unit.into(),
        cpu.into(),
    ]
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    median(&values)
}
