//! What the user declares (`Config`), its validation, and the checked result (`Topology`).

pub mod access;
pub mod change;
mod check;
pub mod config;
mod decode;
pub mod endpoint;
pub mod error;
mod export;
pub mod gateways;
mod keys;
mod limits;
mod measured;
mod problems;
pub mod service_tags;
mod source;
pub mod topology;
mod units;
mod values;
mod words;
mod yaml;

pub use check::expectations::DROP_REASONS;
pub use config::Config;
pub use endpoint::UnknownEndpoint;
pub use error::{Errors, ModelError, Note};
pub use export::export;
pub use keys::{DEFAULT_SUBSCRIPTION, subscription_id};
pub use measured::regions;
pub use source::{NoLabFile, Source, find_lab_file};
pub use topology::Topology;

use problems::Problems;

/// A lab that holds no contradiction, with what was declared beside it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub topology: Topology,
    pub config: Config,
    /// What was accepted and has no effect yet, in order of position.
    pub notes: Vec<Note>,
    pub file: String,
    /// The text the spans of notes point into.
    pub text: String,
}

/// Reads, decodes and checks a lab that is to be brought up, with what its links refer to and its events do.
///
/// # Errors
/// Everything that is wrong with it, in order of position.
pub fn load(source: Source) -> Result<Loaded, Errors> {
    read(source, None, true)
}

/// Reads a lab that runs, as [`load`]: what links refer to may be gone, and events may have become impossible.
///
/// # Errors
/// As [`load`].
pub fn reload(source: Source) -> Result<Loaded, Errors> {
    read(source, None, false)
}

/// As [`reload`], with what the lab's file of service tags held when it was read first; None: it is read now.
///
/// # Errors
/// As [`load`].
pub fn restore(source: Source, service_tags: Option<&str>) -> Result<Loaded, Errors> {
    read(source, service_tags, false)
}

/// `fresh`: it is to be brought up, and not what a lab has become.
fn read(source: Source, service_tags: Option<&str>, fresh: bool) -> Result<Loaded, Errors> {
    let (file, text) = source.read()?;
    let mut problems = Problems::default();
    let root = match yaml::parse(&text) {
        Ok(root) => root,
        Err(error) => {
            problems
                .error("Sim.Syntax", "", error.message)
                .at(error.span)
                .help("a lab file is YAML (or JSON); see `peerlane schema` for its form");
            return Err(problems.into_errors(&file, &text, None));
        }
    };
    let Some(mut config) = <Config as decode::Decode>::decode(&root, "", &mut problems) else {
        return Err(problems.into_errors(&file, &text, Some(&root)));
    };
    config::read_service_tags(&mut config, &file, service_tags, &mut problems);
    let topology = check::check(&config, &mut problems);
    if fresh {
        check::links::refer(&config, &topology, &mut problems);
        if problems.is_empty() {
            check::events::rehearse(&config, &mut problems);
        }
    }
    if !problems.is_empty() {
        return Err(problems.into_errors(&file, &text, Some(&root)));
    }
    let notes = problems.into_notes(&file, &text, &root);
    Ok(Loaded {
        topology,
        config,
        notes,
        file,
        text,
    })
}

/// Reads one event, as an entry of `events:`, such as `{ at: 0s, stop: { vm: web } }`; JSON too.
///
/// # Errors
/// It is none, or says several things at once.
pub fn read_event(text: &str) -> Result<config::Event, change::Refusal> {
    let mut problems = Problems::default();
    let root = yaml::parse(text).map_err(|error| {
        let refusal = change::Refusal::new("Sim.Syntax", "", error.message);
        refusal.help("such as { at: 0s, stop: { vm: web } }")
    })?;
    let event = <config::Event as decode::Decode>::decode(&root, "", &mut problems);
    if let Some(event) = &event {
        check::events::one(event, "", &mut problems);
    }
    match (problems.into_refusal(), event) {
        (None, Some(event)) => Ok(event),
        (refusal, _) => Err(refusal.unwrap_or_else(|| change::Refusal::new("Sim.Value", "", "no event"))),
    }
}

/// The JSON Schema of lab files.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}
