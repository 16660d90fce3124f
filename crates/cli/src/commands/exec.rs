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
    let mut keeper = Keeper::connect(&run_dir).map_err(refused)?;
    let namespaces = keeper.namespaces(vm).map_err(refused)?;
    if is_stopped(&mut keeper, vm).map_err(refused)? {
        let stopped = Failure::new(exit::EXEC_FAILED, format_args!("VM {vm} is stopped"));
        return Err(stopped.help(format_args!(
            "`peerlane event {} start {vm}` starts it",
            listed.name
        )));
    }
    lab::exec::run(&namespaces, command).map_err(refused)
}

/// Whether nothing runs in this namespace because its VM is stopped.
fn is_stopped(keeper: &mut Keeper, vm: &str) -> Result<bool, Error> {
    let labs = keeper.lab()?.unwrap_or_default();
    let namespaces = labs.iter().flat_map(|lab| &lab.namespaces);
    let mut own = namespaces.filter(|namespace| namespace.name.eq_ignore_ascii_case(vm));
    // While it changes there is one of before and one of after.
    Ok(own
        .next()
        .is_some_and(|first| first.stopped && own.all(|next| next.stopped)))
}

fn refused(error: Error) -> Failure {
    let code = error.exit_code();
    match error {
        Error::Machine { cause, remedy } => Failure::new(code, cause).help(remedy),
        other => Failure::new(code, other),
    }
}
