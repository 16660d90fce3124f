//! `exec`, `shell`: programs in a VM's namespace, with the caller's terminal and exit code.

use std::env;
use std::ffi::OsString;

use lab::{Error, Keeper, RunDir};

use crate::args::{ExecArgs, ShellArgs};
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::{LabRef, running};

/// Runs a program. Must be called before any thread starts.
pub(crate) fn exec(args: &ExecArgs) -> Outcome {
    enter(args.lab.as_deref(), &args.vm, &args.command)
}

/// Runs the user's shell, or sh.
pub(crate) fn shell(args: &ShellArgs) -> Outcome {
    let shell = env::var_os("SHELL").filter(|shell| !shell.is_empty());
    enter(
        args.lab.as_deref(),
        &args.vm,
        &[shell.unwrap_or_else(|| OsString::from("/bin/sh"))],
    )
}

fn enter(lab: Option<&str>, vm: &str, command: &[OsString]) -> Outcome {
    let listed = running(&LabRef::parse(lab)).map_err(|failure| match failure.code {
        // Elsewhere the lab is the first argument.
        exit::USAGE => failure.help("name one of them with `--lab NAME`, before the VM"),
        _ => failure,
    })?;
    let run_dir = RunDir::open(&listed.name).map_err(refused)?;
    let namespaces = Keeper::connect(&run_dir)
        .and_then(|mut keeper| keeper.namespaces(vm))
        .map_err(refused)?;
    lab::exec::run(&namespaces, command).map_err(refused)
}

fn refused(error: Error) -> Failure {
    let code = error.exit_code();
    match error {
        Error::Machine { cause, remedy } => Failure::new(code, cause).help(remedy),
        other => Failure::new(code, other),
    }
}
