//! The binary `peerlane`: reads the command line, runs the command, and turns its end into an exit code.

mod args;
mod bench;
mod bench_args;
mod capture_args;
mod change_args;
mod commands;
mod diagnostics;
mod docs_args;
mod edit_args;
mod event_args;
mod failure;
mod lab_ref;
mod output;
mod prices;
mod probes;
mod replay_args;
mod top;
mod watcher_args;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::failure::{Outcome, exit};
use crate::output::Output;

fn main() -> ExitCode {
    // These two enter namespaces, which the kernel allows to a process of one thread: nothing comes before them.
    let arguments: Vec<OsString> = env::args_os().collect();
    match arguments.get(1).and_then(|word| word.to_str()) {
        Some("keeper") => return lab::keeper::main(arguments.get(2..).unwrap_or_default()),
        Some("daemon") => return ExitCode::from(daemon::main()),
        Some("store") => {
            let path = arguments.get(2).map(Path::new).unwrap_or(Path::new(""));
            return ExitCode::from(daemon::check_store(path));
        }
        _ => {}
    }
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
        Command::Validate(args) => commands::validate::validate(&args, output),
        Command::Up(args) => commands::run::up(&args, output),
        Command::Restart(args) => commands::run::restart(&args, output),
        Command::Serve(args) => commands::run::serve(&args, output),
        Command::Down(args) => commands::run::down(&args, output),
        Command::List => commands::run::list(output),
        Command::Exec(args) => commands::exec::exec(&args),
        Command::Shell(args) => commands::exec::shell(&args),
        Command::Doctor => commands::doctor::doctor(output),
        Command::Routes(args) => commands::inspect::routes(&args, output),
        Command::Rules(args) => commands::inspect::rules(&args, output),
        Command::Peerings(args) => commands::inspect::peerings(&args, output),
        Command::LoadBalancers(args) => commands::balancers::load_balancers(&args, output),
        Command::Explain(args) => commands::explain::explain(&args, output),
        Command::Test(args) => commands::test::test(&args, output),
        Command::Drops(args) => commands::counters::drops(&args, output),
        Command::Capture(args) => commands::capture::capture(&args),
        Command::Top(args) => commands::top::top(&args),
        Command::Flows(args) => commands::counters::flows(&args, output),
        Command::Links(args) => commands::links::links(&args, output),
        Command::Meter(args) => commands::meter::meter(&args, output),
        Command::Plan(args) => commands::change::plan(&args, output),
        Command::Apply(args) => commands::change::apply(&args, output),
        Command::Peering(verb) => commands::edit::peering(&verb, output),
        Command::Nsg(verb) => commands::edit::nsg(&verb, output),
        Command::RouteTable(verb) => commands::edit::route_table(&verb, output),
        Command::Route(verb) => commands::edit::route(&verb, output),
        Command::Vnet(verb) => commands::edit::vnet(&verb, output),
        Command::Subnet(verb) => commands::edit::subnet(&verb, output),
        Command::Watch(args) => commands::watch::watch(&args, output),
        Command::Event(args) => commands::event::event(&args, output),
        Command::Impair(args) => commands::event::impair(&args, output),
        Command::Export(args) => commands::change::export(&args),
        Command::Bench(args) => commands::bench::bench(&args, output),
        Command::BenchEnd(args) => commands::bench::end(&args),
        Command::Replay(args) => commands::replay::replay(&args, output),
        Command::ShowNextHop(args) => commands::watcher::show_next_hop(&args, output),
        Command::TestIpFlow(args) => commands::watcher::test_ip_flow(&args, output),
        Command::TestConnectivity(args) => commands::watcher::test_connectivity(&args, output),
        Command::RunConfigurationDiagnostic(args) => {
            commands::watcher::run_configuration_diagnostic(&args, output)
        }
        Command::ShowTopology(args) => commands::watcher::show_topology(&args, output),
        Command::Schema(args) => commands::docs::schema(&args),
        Command::Completions(args) => commands::docs::completions(&args),
        Command::Man(args) => commands::docs::man(&args),
    }
}

/// `exec` keeps 0 to 124 for the program it runs, so that its own usage errors are 125.
fn usage_code(refused: &clap::Error) -> u8 {
    if !refused.use_stderr() {
        return exit::SUCCESS;
    }
    let exec = env::args_os()
        .skip(1)
        .find(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    if exec.is_some_and(|command| command == "exec" || command == "shell") {
        exit::EXEC_FAILED
    } else {
        exit::USAGE
    }
}
