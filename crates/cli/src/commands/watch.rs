//! `watch`: what happens in a running lab, as it happens.

use std::io::{ErrorKind, Write};

use serde_json::{Value, json};

use crate::args::LabArg;
use crate::commands::counters::client;
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::unanswered;
use crate::output::Output;

/// Until Ctrl-C, or the end of the lab.
pub(crate) fn watch(args: &LabArg, output: Output) -> Outcome {
    let client = client(args.lab.as_deref())?;
    let mut written = Ok(());
    let told = client.watch(|event, data| {
        let line = match output.is_table() {
            true => lines(event, &data),
            false => Some(json!({ "event": event, "data": data }).to_string()),
        };
        let mut out = std::io::stdout().lock();
        written = line.map_or(Ok(()), |line| writeln!(out, "{line}"));
        written.is_ok()
    });
    told.map_err(unanswered)?;
    match written {
        // Whoever read it has seen enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format_args!("cannot write: {error}")))
        }
        _ => Ok(exit::SUCCESS),
    }
}

/// For people; None: nothing to say.
fn lines(event: &str, data: &Value) -> Option<String> {
    let rows = |rows: &Value, line: fn(&Value) -> String| {
        let rows = rows.as_array().cloned().unwrap_or_default();
        let lines: Vec<String> = rows.iter().map(line).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    };
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    match event {
        "generation" => Some(format!("generation {data} forwards")),
        "change" => {
            let what: Vec<String> = data["what"].as_array()?.iter().map(text).collect();
            let what = if what.is_empty() {
                "nothing declared".to_owned()
            } else {
                what.join(", ")
            };
            Some(format!("generation {}: {what}", data["generation"]))
        }
        "missed" => Some(format!("{data} changes were not shown: this reader is too slow")),
        "drops" => rows(data, |drop| {
            let nic = drop["nic"].as_str().unwrap_or("-");
            let reason = drop["reason"].as_str().unwrap_or_default();
            format!("dropped {} packets at {nic}: {reason}", drop["packets"])
        }),
        "rates" => rows(&data["nics"], |nic| {
            let name = nic["nic"].as_str().unwrap_or_default();
            format!(
                "{name}: sent {} packets ({} bytes), received {} ({} bytes)",
                nic["transmittedPackets"],
                nic["transmittedBytes"],
                nic["receivedPackets"],
                nic["receivedBytes"]
            )
        }),
        other => Some(format!("{other} {data}")),
    }
}
