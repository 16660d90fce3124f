//! `validate`: all errors of a lab file at once.

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
                    "{} {}: {} VNets, {} subnets, {} peerings, {} NICs, {} VMs, {} tests",
                    palette.paint(Tone::Good, "valid"),
                    loaded.file,
                    topology.vnets.len(),
                    topology.subnets.len(),
                    topology.peerings.len(),
                    topology.nics.len(),
                    topology.vms.len(),
                    topology.tests.len(),
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
