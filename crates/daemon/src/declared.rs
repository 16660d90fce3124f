//! The lab file that declares what runs: as a user gave it, or as an earlier daemon stored it.

use lab::LabSpec;
use model::{Config, Topology};

use crate::api::LabFile;
use crate::store::{Stored, Wanted};
use crate::up::{Forwarding, UpError};

/// The first generation of a lab.
const FIRST_GENERATION: u64 = 1;

/// A lab as a daemon begins with it.
#[derive(Debug)]
pub(crate) struct Begin {
    /// How it was named to `up` or `apply`; `-` for standard input.
    pub(crate) file: String,
    /// The user's own words, where they still declare `config`.
    pub(crate) text: Option<String>,
    pub(crate) config: Config,
    pub(crate) topology: Topology,
    pub(crate) spec: LabSpec,
    pub(crate) generation: u64,
    pub(crate) forwarding: Forwarding,
}

impl Begin {
    /// A new lab.
    ///
    /// # Errors
    /// The file is not valid, or needs what this machine has not.
    pub(crate) fn of(given: &LabFile, forwarding: Forwarding) -> Result<Self, UpError> {
        let loaded = load(given)?;
        crate::bgp::check(&loaded.topology)?;
        Ok(Self {
            file: given.file.clone(),
            text: Some(loaded.text),
            spec: LabSpec::of(&loaded.topology)?,
            config: loaded.config,
            topology: loaded.topology,
            generation: FIRST_GENERATION,
            forwarding,
        })
    }

    /// The lab of an earlier daemon.
    ///
    /// # Errors
    /// This version refuses what that one stored.
    pub(crate) fn again(stored: Stored) -> Result<Self, UpError> {
        let declared = LabFile {
            file: stored.file,
            text: stored.declared,
            service_tags: stored.service_tags,
        };
        let loaded = load(&declared)?;
        Ok(Self {
            file: declared.file,
            text: stored.text,
            spec: LabSpec::of(&loaded.topology)?,
            config: loaded.config,
            topology: loaded.topology,
            generation: stored.generation,
            forwarding: stored.forwarding,
        })
    }

    /// For the store.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            generation: self.generation,
            file: &self.file,
            forwarding: self.forwarding,
            config: &self.config,
            text: self.text.as_deref(),
        }
    }
}

/// The checked model.
///
/// # Errors
/// It is refused; with the first of its errors.
pub(crate) fn load(file: &LabFile) -> Result<model::Loaded, UpError> {
    let source = model::Source::Text {
        name: file.file.clone(),
        text: file.text.clone(),
    };
    model::restore(source, file.service_tags.as_deref()).map_err(|errors| {
        let first = errors.errors.first().map(ToString::to_string).unwrap_or_default();
        UpError::failed(format!("the lab file is not valid: {first}"))
            .with_remedy("`peerlane validate` shows all its errors")
    })
}
