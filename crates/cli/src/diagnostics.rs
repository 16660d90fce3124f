//! What is wrong with a lab file, for people (a caret under the value) and for programs.

use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report};
use model::{Errors, ModelError};
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::Palette;

/// Errors beyond this many take one line each: nobody reads more, and each drawing reads the file from its start.
const MOST_DRAWN: usize = 100;

/// Bytes of a line beside which a caret still says something. The renderer cannot lay out lines of 65536 columns.
const LONGEST_DRAWN: usize = 2000;

/// The body of `validate -o json`.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Validation {
    pub(crate) valid: bool,
    /// By position in the file.
    pub(crate) errors: Vec<FileError>,
}

/// One error.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct FileError {
    /// ARM's code where one is confirmed, else `Sim.` and the rule.
    pub(crate) code: String,
    pub(crate) message: String,
    /// Path in the file: `vnets.hub.subnets.nva.addressPrefix`, list entries by index.
    pub(crate) target: String,
    pub(crate) file: String,
    /// Of the offending value, from 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
}

impl Validation {
    pub(crate) fn failed(errors: &Errors) -> Self {
        Self {
            valid: false,
            errors: errors.errors.iter().map(FileError::new).collect(),
        }
    }
}

impl FileError {
    fn new(error: &ModelError) -> Self {
        Self {
            code: error.code.to_owned(),
            message: error.message.clone(),
            target: error.target.clone(),
            file: error.file.clone(),
            line: error.line,
            column: error.column,
        }
    }
}

/// Every error with its place, the line, a caret and what to do, and how many there are.
pub(crate) fn render(errors: &Errors, palette: Palette) -> String {
    let theme = if palette.coloured() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme);
    let mut out = String::new();
    let text = Arc::new(harmless(&errors.text));
    for (index, error) in errors.errors.iter().enumerate() {
        if index >= MOST_DRAWN || !drawable(&text, error) {
            out.push_str(&(harmless(&error.to_string()) + "\n"));
            continue;
        }
        let mut diagnostic = MietteDiagnostic::new(harmless(&error.message))
            .with_code(error.code)
            .with_label(LabeledSpan::new_primary_with_span(
                Some(harmless(&error.target)),
                error.span.clone(),
            ));
        if let Some(help) = &error.help {
            diagnostic = diagnostic.with_help(harmless(help));
        }
        let report =
            Report::new(diagnostic).with_source_code(NamedSource::new(&errors.file, Arc::clone(&text)));
        if handler.render_report(&mut out, report.as_ref()).is_err() {
            // The one-line form needs no source text.
            out.push_str(&(harmless(&error.to_string()) + "\n"));
        }
    }
    let count = errors.errors.len();
    out.push_str(&format!(
        "{}: {count} error{}\n",
        errors.file,
        if count == 1 { "" } else { "s" }
    ));
    out
}

/// Whether the line of the error and its neighbours, which are drawn too, are of a length to look at.
fn drawable(text: &str, error: &ModelError) -> bool {
    let before = text.get(..error.span.start).unwrap_or("").rsplit('\n').take(2);
    let after = text.get(error.span.start..).unwrap_or("").split('\n').take(2);
    before.chain(after).map(str::len).sum::<usize>() <= LONGEST_DRAWN
}

/// Text from a file without what would steer a terminal; as long in bytes, so that places stay where they are.
fn harmless(text: &str) -> String {
    let safe = |char: char| match char {
        '\n' | '\t' => char,
        _ if !char.is_control() => char,
        // Control characters take one byte or two.
        _ if char.is_ascii() => '?',
        _ => '¿',
    };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> String {
        let source = model::Source::Text {
            name: "lab.vnet.yaml".to_owned(),
            text: text.to_owned(),
        };
        render(&model::load(source).unwrap_err(), Palette::on(false))
    }

    #[test]
    fn puts_a_caret_under_the_value() {
        let out = drawn("apiVersion: peerlane/v1\nkind: Lab\nname: x\nseed: many\n");
        assert!(out.contains("lab.vnet.yaml:4:7"), "{out}");
        assert!(out.contains('╰'), "{out}");
    }

    #[test]
    fn takes_lines_and_files_of_any_length() {
        let long = format!(
            "apiVersion: peerlane/v1\nkind: Lab\nname: x\ntests: [{}]\n",
            "1,".repeat(50_000)
        );
        let out = drawn(&long);
        assert!(out.contains("lab.vnet.yaml:4:9: Sim.Value"), "{}", &out[..200]);
        assert!(out.ends_with("lab.vnet.yaml: 1000 errors\n"));
        let wide = format!("name: x\n#{}\nseed: many\n", "é".repeat(70_000));
        assert!(drawn(&wide).contains("lab.vnet.yaml:3:7: Sim.Value"));
    }
}
