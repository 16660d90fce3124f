//! The file of service tags that a lab names: its name, and what it held when the lab was read.

use std::path::Path;
use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::config::Config;
use crate::decode::Decode;
use crate::problems::Problems;
use crate::service_tags::ServiceTags;
use crate::source::read_bounded;
use crate::yaml::{MOST_BYTES, Node};

/// A declaration is written and compared as the file's name; its tags stay what they were, whatever happens to the file.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct TagFile {
    pub name: String,
    #[serde(skip)]
    pub tags: ServiceTags,
    /// What the file held, for whoever keeps the lab.
    #[serde(skip)]
    pub text: Arc<str>,
}

impl PartialEq for TagFile {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Decode for TagFile {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        let name = String::decode(node, at, problems)?;
        Some(Self {
            name,
            tags: ServiceTags::default(),
            text: Arc::from(""),
        })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "the path of a JSON file, relative to the lab file" })
    }
}

/// Reads the file that the lab names, if it names one; `lab_file` is where the lab itself comes from. `kept` is what the
/// file held when the lab came up: it may be another by now, or gone.
pub(crate) fn read_service_tags(
    config: &mut Config,
    lab_file: &str,
    kept: Option<&str>,
    problems: &mut Problems,
) {
    let Some(file) = &mut config.service_tags else {
        return;
    };
    let path = Path::new(lab_file)
        .parent()
        .unwrap_or(Path::new(""))
        .join(&file.name);
    let text = kept.map_or_else(|| read_text(&path), |text| Ok(text.to_owned()));
    match text.and_then(|text| Ok((ServiceTags::read(&text)?, text))) {
        Ok((tags, text)) => (file.tags, file.text) = (tags, Arc::from(text)),
        Err(error) => {
            problems
                .error(
                    "Sim.Value",
                    "serviceTags",
                    format!("cannot use {}: {error}", path.display()),
                )
                .help("name a file in the form of Microsoft's ServiceTags_Public JSON, relative to the lab file");
        }
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let bytes = read_bounded(path).map_err(|error| error.to_string())?;
    if bytes.len() > MOST_BYTES {
        return Err(format!("it is larger than {} MiB", MOST_BYTES >> 20));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}
