//! The binary `peerlane`: reads the command line, runs the command, and turns its end into an exit code.

mod args;
mod commands;
mod failure;
mod lab_ref;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::failure::{Outcome, exit};
use crate::output::Output;

fn main() -> ExitCode {
    let code = match Cli::try_parse() {
        Ok(cli) => {
            let own_codes = !matches!(cli.command, Command::Exec(_) | Command::Shell(_));
            match run(cli) {
                Ok(code) => code,
                Err(failure) => {
                    output::say(&failure);
                    if own_codes {
                        failure.code
                    } else {
                        exit::EXEC_FAILED
                    }
                }
            }
        }
        Err(refused) => {
            // Help and version come this way too, with exit code 0; a reader that went away is ignored.
            let _ = refused.print();
            usage_code(&refused)
        }
    };
    ExitCode::from(code)
}

fn run(cli: Cli) -> Outcome {
    let output = Output::new(cli.output);
    match cli.command {
        Command::Schema(args) => commands::docs::schema(&args),
        Command::Completions(args) => commands::docs::completions(&args),
        Command::Man(args) => commands::docs::man(&args),
        _ => {
            let _ = output;
            Err(failure::Failure::failed("this command is not built yet"))
        }
    }
}

/// `exec` keeps 0 to 124 for the program it runs, so that its own usage errors are 125.
fn usage_code(refused: &clap::Error) -> u8 {
    if !refused.use_stderr() {
        return exit::SUCCESS;
    }
    let exec = std::env::args_os()
        .skip(1)
        .find(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    if exec.is_some_and(|command| command == "exec" || command == "shell") {
        exit::EXEC_FAILED
    } else {
        exit::USAGE
    }
}
