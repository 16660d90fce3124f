//! `schema`, `completions`, `man`: what the program says about itself.

use std::fs;

use clap::CommandFactory;
use clap_mangen::Man;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::args::Cli;
use crate::commands::explain::Explained;
use crate::commands::test::TestRow;
use crate::commands::{bench, doctor, links, meter, run};
use crate::diagnostics::Validation;
use crate::docs_args::{CompletionsArgs, ManArgs, SchemaArgs};
use crate::failure::{Failure, Outcome, exit};
use crate::output::write_out;

/// Prints the JSON Schema of the lab file or of a command's JSON output.
pub(crate) fn schema(args: &SchemaArgs) -> Outcome {
    let schema = match args.command.as_deref() {
        None => model::json_schema(),
        Some(command) => output_schema(command)?,
    };
    let text = serde_json::to_string_pretty(&schema)
        .map_err(|error| Failure::failed(format_args!("the schema cannot be written: {error}")))?;
    write_out(&text)?;
    Ok(exit::SUCCESS)
}

/// What a command writes with `-o json`.
fn output_schema(command: &str) -> Result<Value, Failure> {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let schema = match command {
        "validate" => generator.root_schema_for::<Validation>(),
        "up" => generator.root_schema_for::<run::Announcement>(),
        "down" => generator.root_schema_for::<run::Farewell>(),
        "list" => generator.root_schema_for::<Vec<run::ListedLab>>(),
        "routes" => generator.root_schema_for::<control::present::EffectiveRoutes>(),
        "rules" => generator.root_schema_for::<control::present::EffectiveNsgs>(),
        "explain" => generator.root_schema_for::<Explained>(),
        "peerings" => generator.root_schema_for::<Vec<control::present::PeeringRow>>(),
        "loadbalancers" => generator.root_schema_for::<Vec<control::present::LoadBalancerRow>>(),
        "test" => generator.root_schema_for::<Vec<TestRow>>(),
        "plan" | "apply" | "peering" | "nsg" | "route-table" | "route" | "vnet" | "subnet" => {
            generator.root_schema_for::<control::Plan>()
        }
        "doctor" => generator.root_schema_for::<doctor::Report>(),
        "drops" => generator.root_schema_for::<Vec<daemon::api::Drop>>(),
        "event" | "impair" => generator.root_schema_for::<Vec<daemon::api::EventState>>(),
        "replay" => generator.root_schema_for::<daemon::replay::Replayed>(),
        "flows" => generator.root_schema_for::<Vec<daemon::api::Flow>>(),
        "links" => generator.root_schema_for::<Vec<links::LinkReport>>(),
        "meter" => generator.root_schema_for::<Vec<meter::Charge>>(),
        "bench" => generator.root_schema_for::<bench::Report>(),
        "show-next-hop" => generator.root_schema_for::<control::diagnose::NextHop>(),
        "test-ip-flow" => generator.root_schema_for::<control::diagnose::FlowVerdict>(),
        "test-connectivity" => generator.root_schema_for::<control::diagnose::Connectivity>(),
        "run-configuration-diagnostic" => {
            generator.root_schema_for::<control::diagnose::ConfigurationDiagnostic>()
        }
        "show-topology" => generator.root_schema_for::<control::diagnose::Layout>(),
        other => {
            return Err(Failure::not_found(format_args!("{other} is no command with JSON output")).help(
                "there are validate, up, down, list, routes, rules, explain, peerings, loadbalancers, test, plan, apply, peering, nsg, route-table, route, vnet, subnet, doctor, drops, flows, event, impair, replay, links, meter, bench, show-next-hop, test-ip-flow, test-connectivity, \
                 run-configuration-diagnostic and show-topology",
            ));
        }
    };
    Ok(schema.to_value())
}

/// Prints a completion script.
pub(crate) fn completions(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "peerlane", &mut script);
    write_out(&String::from_utf8_lossy(&script))?;
    Ok(exit::SUCCESS)
}

/// Prints a manual page, or writes all of them.
pub(crate) fn man(args: &ManArgs) -> Outcome {
    let mut program = Cli::command();
    // Fills in the full names of subcommands and the global options.
    program.build();
    if let Some(directory) = &args.dir {
        let unwritable =
            |error| Failure::failed(format_args!("cannot write to {}: {error}", directory.display()));
        fs::create_dir_all(directory).map_err(unwritable)?;
        for (name, page) in pages(&program)? {
            fs::write(directory.join(format!("{name}.1")), page).map_err(unwritable)?;
        }
        return Ok(exit::SUCCESS);
    }
    let wanted = args
        .command
        .as_ref()
        .map_or_else(|| "peerlane".to_owned(), |name| format!("peerlane-{name}"));
    let page = pages(&program)?.into_iter().find(|(name, _)| *name == wanted);
    let Some((_, page)) = page else {
        return Err(Failure::not_found(format_args!("no manual page {wanted}"))
            .help("`peerlane --help` lists the commands"));
    };
    write_out(&String::from_utf8_lossy(&page))?;
    Ok(exit::SUCCESS)
}

/// Every page by its name: `peerlane`, `peerlane-up`, ...
fn pages(program: &clap::Command) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let own = std::iter::once(("peerlane".to_owned(), program.clone()));
    let commands = program
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| (format!("peerlane-{}", command.get_name()), command.clone()));
    own.chain(commands)
        .map(|(name, command)| {
            let mut page = Vec::new();
            Man::new(command.disable_help_subcommand(true))
                .title(name.clone())
                .render(&mut page)
                .map_err(|error| {
                    Failure::failed(format_args!("cannot render the manual page {name}: {error}"))
                })?;
            Ok((name, page))
        })
        .collect()
}
