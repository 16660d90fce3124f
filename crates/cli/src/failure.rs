//! Why a command failed: the exit code of the contract, what happened and what to do.

use std::fmt::{self, Display};

/// The contract's exit codes.
pub(crate) mod exit {
    pub(crate) const SUCCESS: u8 = 0;
    pub(crate) const FAILURE: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const NOT_FOUND: u8 = 3;
    pub(crate) const EXPECTATION: u8 = 4;
    pub(crate) const MACHINE: u8 = 5;
    /// `plan --detailed-exitcode`: the plan has changes.
    pub(crate) const CHANGES: u8 = 6;
    /// `exec`: peerlane itself failed.
    pub(crate) const EXEC_FAILED: u8 = 125;
}

/// What a command ends with: an exit code, or why it failed.
pub(crate) type Outcome = Result<u8, Failure>;

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            help: None,
        }
    }

    /// Exit code 1.
    pub(crate) fn failed(message: impl Display) -> Self {
        Self::new(exit::FAILURE, message)
    }

    /// Exit code 2.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(exit::USAGE, message)
    }

    /// Exit code 3.
    pub(crate) fn not_found(message: impl Display) -> Self {
        Self::new(exit::NOT_FOUND, message)
    }

    pub(crate) fn help(mut self, help: impl Display) -> Self {
        self.help = Some(help.to_string());
        self
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peerlane: {}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}
