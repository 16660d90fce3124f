//! The section `resources`: what management clients said of resources.

use super::names;
use crate::config::{Config, StoredResource};
use crate::keys::{Objects, split_resource};
use crate::problems::{Problems, join};
use crate::words::shown;

/// Azure's bounds of tags.
const MOST_TAGS: usize = 50;
const LONGEST_TAG: usize = 512;
const LONGEST_TAG_VALUE: usize = 256;

/// Keys lead somewhere, tags are within their bounds, properties are JSON.
pub(crate) fn check(config: &Config, problems: &mut Problems) {
    let objects = Objects::of(config);
    for (key, resource) in &config.resources {
        let at = join("resources", key);
        where_it_is(&objects, key, &at, problems);
        tags(resource, &at, problems);
        if let Some(text) = &resource.properties
            && !serde_json::from_str(text).is_ok_and(|it: serde_json::Value| it.is_object())
        {
            problems
                .error("Sim.Value", join(&at, "properties"), "this is no JSON object")
                .help("write it as text, such as '{\"sku\":\"Standard\"}'");
        }
    }
}

fn where_it_is(objects: &Objects, key: &str, at: &str, problems: &mut Problems) {
    let parts: Vec<&str> = key.split('/').collect();
    names::resource_name(parts[0], at, true, problems);
    // A group; else provider, type and name, and then types and names of children.
    if parts.len() != 1
        && (parts.len() < 4 || parts.len() % 2 == 1 || parts.iter().any(|part| part.is_empty()))
    {
        problems
            .error("Sim.Value", at, format!("'{}' is no resource", shown(key)))
            .on_key()
            .help("write GROUP, or GROUP/PROVIDER/TYPE/NAME such as web/Microsoft.Network/publicIPAddresses/pip");
        return;
    }
    let Some((group, kind, name)) = split_resource(key) else {
        return;
    };
    let here = |key: &str| objects.declares(kind, key) == Some(false);
    if here(name) && here(&format!("{group}/{name}")) {
        problems
            .error(
                "InvalidResourceReference",
                at,
                format!("the lab has no {} '{}'", shown(kind), shown(name)),
            )
            .on_key()
            .help("declare the object, or remove this entry");
    }
}

fn tags(resource: &StoredResource, at: &str, problems: &mut Problems) {
    let long =
        |(name, value): (&String, &String)| name.len() > LONGEST_TAG || value.len() > LONGEST_TAG_VALUE;
    if resource.tags.len() > MOST_TAGS || resource.tags.iter().any(long) {
        problems
            .error("Sim.Value", join(at, "tags"), "too many tags, or one too long")
            .help("at most 50, their names up to 512 characters, their values up to 256");
    }
}
