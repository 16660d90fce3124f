//! The command line of what compares a lab with a file, changes it, and writes it out.

use clap::Args;

use crate::args::{FILE_HELP, LAB_HELP};

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[arg(help = LAB_HELP)]
    pub(crate) lab: Option<String>,
    #[arg(help = FILE_HELP)]
    pub(crate) file: String,
    /// Exit with 6 when something would change.
    #[arg(long)]
    pub(crate) detailed_exitcode: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The running lab; may be left out when exactly one runs.
    pub(crate) lab: Option<String>,
    #[arg(help = FILE_HELP)]
    pub(crate) file: String,
    /// Only say what would change.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[arg(help = LAB_HELP)]
    pub(crate) lab: Option<String>,
}
