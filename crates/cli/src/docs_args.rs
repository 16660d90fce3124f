//! The command line of what the program says about itself.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// The command whose JSON output is described; the lab file when absent.
    pub(crate) command: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The command; the whole program when absent.
    pub(crate) command: Option<String>,
    /// Write every page into this directory instead.
    #[arg(long, conflicts_with = "command")]
    pub(crate) dir: Option<PathBuf>,
}
