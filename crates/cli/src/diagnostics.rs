//! What is wrong with a lab file, for people (a caret under the value) and for programs.

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report};
use model::{Errors, ModelError};
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::Palette;

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
    let text = harmless(&errors.text);
    for error in &errors.errors {
        let mut diagnostic = MietteDiagnostic::new(harmless(&error.message))
            .with_code(error.code)
            .with_label(LabeledSpan::new_primary_with_span(
                Some(harmless(&error.target)),
                error.span.clone(),
            ));
        if let Some(help) = &error.help {
            diagnostic = diagnostic.with_help(harmless(help));
        }
        let report = Report::new(diagnostic).with_source_code(NamedSource::new(&errors.file, text.clone()));
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
