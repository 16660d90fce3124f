//! `plan`, `apply`, `export`: what a change would do, doing it, and what came of it.

use control::plan::{Action, Declared, Fate, FlowChange, ObjectChange, Origin, Plan};
use daemon::api::ApplyRequest;

use crate::change_args::{ApplyArgs, ExportArgs, PlanArgs};
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::{self, Lab, LabRef};
use crate::output::{Cell, Output, Tone, View, write_out};

/// What would change, in objects and in flows.
pub(crate) fn plan(args: &PlanArgs, output: Output) -> Outcome {
    let plan = match LabRef::parse(args.lab.as_deref()) {
        LabRef::File(file) => between_files(&file, &args.file)?,
        reference => ask(&reference, &args.file, true)?,
    };
    show(&plan, output)?;
    if args.detailed_exitcode && !plan.is_empty() {
        return Ok(exit::CHANGES);
    }
    Ok(exit::SUCCESS)
}

/// Makes a running lab what a file says.
pub(crate) fn apply(args: &ApplyArgs, output: Output) -> Outcome {
    let plan = ask(&LabRef::parse(args.lab.as_deref()), &args.file, args.dry_run)?;
    show(&plan, output)?;
    Ok(exit::SUCCESS)
}

/// Writes a lab back as a file.
pub(crate) fn export(args: &ExportArgs) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    write_out(lab.text.trim_end())?;
    Ok(exit::SUCCESS)
}

/// Two files: as if the first ran, with no flow under way.
fn between_files(old: &str, new: &str) -> Result<Plan, Failure> {
    let [old, new] = [Lab::from_file(old)?, Lab::from_file(new)?];
    let changed = model::change::converge(&old.config, &new.config)
        .map_err(|refusal| refused(refusal.code, &refusal.message, refusal.help.as_deref()))?;
    let before = Declared {
        config: &old.config,
        topology: &old.topology,
    };
    let after = Declared {
        config: &changed.config,
        topology: &changed.topology,
    };
    Ok(control::plan(before, after, &[]))
}

fn ask(reference: &LabRef, file: &str, dry_run: bool) -> Result<Plan, Failure> {
    let wanted = Lab::from_file(file)?;
    let running = lab_ref::connect(&lab_ref::running(reference)?)?;
    let request = ApplyRequest {
        file: wanted
            .path
            .map_or_else(|| "-".to_owned(), |path| path.display().to_string()),
        text: wanted.text,
        dry_run,
    };
    running.apply(&request).map_err(|error| match &error {
        daemon::ClientError::Refused(body) => match &body.code {
            Some(code) => refused(code, &body.message, body.help.as_deref()),
            None => helped(Failure::failed(&body.message), body.help.as_deref()),
        },
        _ => lab_ref::unanswered(error),
    })
}

fn refused(code: &str, message: &str, help: Option<&str>) -> Failure {
    helped(Failure::failed(format_args!("{code}: {message}")), help)
}

fn helped(failure: Failure, help: Option<&str>) -> Failure {
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

pub(crate) fn show(plan: &Plan, output: Output) -> Result<(), Failure> {
    output.show(plan, |_| View {
        below: None,
        header: vec!["Action", "Type", "Name", "What", "Before", "After"],
        rows: plan
            .objects
            .iter()
            .flat_map(object_rows)
            .chain(plan.flows.iter().map(flow_row))
            .collect(),
        text: plan
            .is_empty()
            .then(|| "nothing changes: the lab is what the file says".to_owned()),
    })
}

fn object_rows(object: &ObjectChange) -> Vec<Vec<Cell>> {
    let (word, tone) = match object.action {
        Action::Create => ("Create", Tone::Good),
        Action::Update => ("Update", Tone::Notice),
        Action::Delete => ("Delete", Tone::Bad),
    };
    let kind = object.kind.rsplit('/').next().unwrap_or_default();
    let row = |what: &str, before: String, after: String| {
        vec![
            Cell::new(tone, word),
            kind.into(),
            Cell::new(Tone::Strong, &object.name),
            what.into(),
            before.into(),
            after.into(),
        ]
    };
    if object.action != Action::Update {
        return vec![row("", String::new(), String::new())];
    }
    let value = |value: &serde_json::Value| match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let properties = object.properties.iter();
    properties
        .map(|property| {
            let [before, after] = where_they_differ(&value(&property.before), &value(&property.after));
            row(&property.name, before, after)
        })
        .collect()
}

/// Two values as one row can show them: long ones from a little before their first difference. JSON has them whole.
fn where_they_differ(before: &str, after: &str) -> [String; 2] {
    const LONGEST: usize = 60; // two of them and the columns before fit a wide terminal
    const KNOWN: usize = 12; // characters in common, to see where it is
    let common = before
        .chars()
        .zip(after.chars())
        .take_while(|(b, a)| b == a)
        .count();
    [before, after].map(|text| {
        let length = text.chars().count();
        if length <= LONGEST {
            return text.to_owned();
        }
        let start = common.saturating_sub(KNOWN).min(length - LONGEST);
        let shown: String = text.chars().skip(start).take(LONGEST).collect();
        let mark = |cut: bool| if cut { "…" } else { "" };
        format!("{}{shown}{}", mark(start > 0), mark(start + LONGEST < length))
    })
}

fn flow_row(flow: &FlowChange) -> Vec<Cell> {
    let origin = match flow.origin {
        Origin::Flow => "flow",
        Origin::Test => "test",
    };
    let port = match flow.port {
        0 => String::new(), // ICMP has none
        port => format!(" {port}"),
    };
    let name = format!("{} -> {} {}{port}", flow.from, flow.to, flow.protocol);
    vec![
        Cell::new(Tone::Notice, "Reroute"),
        origin.into(),
        Cell::new(Tone::Strong, name),
        "".into(),
        fate(&flow.before),
        fate(&flow.after),
    ]
}

fn fate(fate: &Fate) -> Cell {
    let tone = if fate.verdict == "Allow" {
        Tone::Good
    } else {
        Tone::Bad
    };
    let reason = fate.reason.as_deref().unwrap_or_default();
    let mut text = format!("{} {reason}", fate.verdict).trim_end().to_owned();
    // What a packet enters and leaves is named twice.
    let mut path: Vec<&str> = fate.path.iter().map(String::as_str).collect();
    path.dedup();
    if !path.is_empty() {
        text = format!("{text} by {}", path.join(" "));
    }
    Cell::new(tone, text)
}

#[cfg(test)]
mod tests {
    use super::where_they_differ;

    #[test]
    fn long_values_are_shown_where_they_differ() {
        assert_eq!(where_they_differ("true", "false"), ["true", "false"]);
        let long = |middle: &str| format!("{}{middle}{}", "a".repeat(100), "z".repeat(100));
        let [before, after] = where_they_differ(&long("old"), &long("new"));
        assert!(
            before.starts_with("…aaaaaaaaaaaaoldzzz") && before.ends_with("z…"),
            "{before}"
        );
        assert!(after.starts_with("…aaaaaaaaaaaanewzzz"), "{after}");
        let [before, after] = where_they_differ(&"é".repeat(70), &"é".repeat(61));
        assert_eq!(before.chars().count(), 1 + 60, "{before}");
        assert_eq!(after, format!("…{}", "é".repeat(60)));
    }
}
