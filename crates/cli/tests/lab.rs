//! The real binary. Here: every lab file of `tests/lab/cases` and `examples`, with packets and by explain alone: both hold, and both agree.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "these are tests; clippy knows only functions marked so"
)]

mod api;
mod balancing;
mod bench;
mod bgp;
mod capture;
mod distance;
mod edits;
mod events;
mod facts;
mod flow_logs;
mod ip;
mod lifecycle;
mod links;
mod live;
mod load;
mod meter;
mod metrics;
mod offline;
mod planned;
mod programs;
mod readme;
mod replay;
mod support;
mod top;
mod upgrade;
mod watcher;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use support::{Peerlane, User, root, users};

/// Labs at work at a time: they mostly wait for a second of silence, and two cores bear this many.
const PARALLEL: usize = 3;

#[test]
fn tests_hold_by_explain_alone() {
    on_every_file(|peerlane, file| run(peerlane, file, "--static").map(|_| ()));
}

#[test]
fn tests_hold_with_packets_and_agree_with_explain() {
    on_every_file(|peerlane, file| {
        let told = verdicts(&run(peerlane, file, "--static")?);
        let sent = verdicts(&run(peerlane, file, "--io=auto")?);
        if told == sent {
            Ok(())
        } else {
            Err(format!("packets and explain differ:\n{sent:#?}\n{told:#?}"))
        }
    });
}

#[test]
fn packets_and_explain_agree_for_every_pair_protocol_and_family() {
    on_every_file(|peerlane, file| {
        let rows = run(peerlane, file, "--all-pairs")?;
        if rows.is_empty() {
            Err("no pair was tried".to_owned())
        } else {
            Ok(())
        }
    });
}

#[test]
fn the_plain_backend_forwards_alike() {
    let peerlane = Peerlane::new(User::Caller);
    for example in ["hub-spoke", "dual-stack", "vnet-ports"] {
        let file = root().join(format!("examples/{example}.vnet.yaml"));
        run(&peerlane, &file, "--io=plain").unwrap();
    }
}

#[test]
fn an_ordinary_user_has_every_example() {
    let peerlane = Peerlane::new(*users().last().unwrap());
    let examples = root().join("examples");
    for file in lab_files().iter().filter(|file| file.starts_with(&examples)) {
        let copy = peerlane.file("copy", &fs::read_to_string(file).unwrap());
        run(&peerlane, &copy, "--io=auto").unwrap();
    }
}

/// Runs `test FILE FLAG`; an error says which rows failed and what was said.
fn run(peerlane: &Peerlane, file: &Path, flag: &str) -> Result<Vec<Value>, String> {
    let ran = peerlane.run(["test", file.to_str().unwrap(), flag, "-o", "json"]);
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap_or_default();
    let failed: Vec<&Value> = rows.iter().filter(|row| row["passed"] != true).collect();
    if ran.code != 0 || !failed.is_empty() {
        return Err(format!(
            "test {flag} exited {}\n{failed:#?}\n{}",
            ran.code, ran.stderr
        ));
    }
    Ok(rows)
}

fn verdicts(rows: &[Value]) -> Vec<(Value, Value)> {
    rows.iter()
        .map(|row| (row["result"].clone(), row["reason"].clone()))
        .collect()
}

fn lab_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (directory, least) in [("tests/lab/cases", 10), ("examples", 7)] {
        let directory = root().join(directory);
        let entries =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let found: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().ends_with(".vnet.yaml"))
            .collect();
        assert!(
            found.len() >= least,
            "only {} lab files in {}",
            found.len(),
            directory.display()
        );
        files.extend(found);
    }
    files.sort();
    files
}

fn on_every_file(check: impl Fn(&Peerlane, &Path) -> Result<(), String> + Sync) {
    let files = lab_files();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                let peerlane = Peerlane::new(User::Caller);
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(failure) = check(&peerlane, file) {
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("{}: {failure}", file.display()));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} of {} files failed:\n{}",
        failures.len(),
        files.len(),
        failures.join("\n")
    );
}
