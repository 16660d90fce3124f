//! `validate`: all errors of a lab file at once.

use model::topology::Topology;

use crate::args::FileArg;
use crate::diagnostics::{self, Validation};
use crate::failure::{Outcome, exit};
use crate::lab_ref;
use crate::output::{Cell, Output, Tone, View};

/// Checks a file. Exit code 1 when it has errors.
pub(crate) fn validate(args: &FileArg, output: Output) -> Outcome {
    match lab_ref::load(lab_ref::source(&args.file)?) {
        Ok(loaded) => {
            let topology = &loaded.topology;
            let valid = Validation {
                valid: true,
                errors: Vec::new(),
            };
            output.show(&valid, |palette| View {
                text: Some(format!(
                    "{} {}: {}",
                    palette.paint(Tone::Good, "valid"),
                    loaded.file,
                    inventory(topology),
                )),
                ..View::default()
            })?;
            Ok(exit::SUCCESS)
        }
        Err(errors) => {
            let report = Validation::failed(&errors);
            output.show(&report, |palette| View {
                rows: report
                    .errors
                    .iter()
                    .map(|error| {
                        let position = [error.line as u64, error.column as u64].map(Cell::from);
                        let texts = [&error.code, &error.target, &error.message]
                            .map(|text| Cell::from(text.as_str()));
                        std::iter::once(Cell::from(error.file.as_str()))
                            .chain(position)
                            .chain(texts)
                            .collect()
                    })
                    .collect(),
                text: Some(diagnostics::render(&errors, palette)),
                ..View::default()
            })?;
            Ok(exit::FAILURE)
        }
    }
}

/// How many of each there are, as far as there are any: `2 VNets, 1 subnet`.
fn inventory(topology: &Topology) -> String {
    let counts = [
        (topology.vnets.len(), "VNet"),
        (topology.subnets.len(), "subnet"),
        (topology.peerings.len(), "peering"),
        (topology.nics.len(), "NIC"),
        (topology.vms.len(), "VM"),
        (topology.gateways.len(), "gateway"),
        (topology.sites.len(), "site"),
        (topology.connections.len(), "connection"),
        (topology.load_balancers.len(), "load balancer"),
        (topology.tests.len(), "test"),
    ];
    let some: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
        .collect();
    some.join(", ")
}
