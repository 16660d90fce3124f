//! What is wrong with a lab: every error with its code, the path in the file and the place in the text.

use std::fmt;
use std::ops::Range;

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelError {
    /// ARM's code where one is confirmed, else `Sim.` and the rule id (ERR-04).
    pub code: &'static str,
    pub message: String,
    /// Path in the file: `vnets.hub.subnets.nva.addressPrefix`, list entries by index.
    pub target: String,
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What to do about it.
    pub help: Option<String>,
    /// Bytes of the offending value in the text.
    pub span: Range<usize>,
}

/// Something accepted that does not act as a reader might think.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub message: String,
    pub target: String,
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub span: Range<usize>,
}

/// All that is wrong, in order of position.
#[derive(Clone, Debug)]
pub struct Errors {
    pub file: String,
    /// The text the spans point into; empty where it could not be read.
    pub text: String,
    pub errors: Vec<ModelError>,
}

impl fmt::Display for ModelError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}:{}:{}: {}: {}",
            self.file, self.line, self.column, self.code, self.message
        )?;
        match &self.help {
            Some(help) => write!(out, " ({help})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}:{}:{}: note: {}",
            self.file, self.line, self.column, self.message
        )
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            write!(out, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ModelError {}

impl std::error::Error for Errors {}
