//! The resource group of each object.

use std::collections::HashMap;

use crate::config::Config;
use crate::keys::groups_said;

/// The groups of the objects that are not in the lab's own, by type and key in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    lab: String,
    other: HashMap<String, String>,
}

impl Groups {
    /// Every object is in this one.
    #[must_use]
    pub fn all_in(group: &str) -> Self {
        Self {
            lab: group.to_owned(),
            other: HashMap::new(),
        }
    }

    pub(crate) fn of(config: &Config) -> Self {
        let lab = config.resource_group.as_deref().unwrap_or(&config.name);
        let mut other = HashMap::new();
        for (group, kind, name) in groups_said(config) {
            if !group.eq_ignore_ascii_case(lab) {
                other.insert(format!("{kind}/{name}").to_lowercase(), group.to_owned());
            }
        }
        Self {
            lab: lab.to_owned(),
            other,
        }
    }

    /// The group of the object with this key; `kind` such as `virtualNetworks`.
    #[must_use]
    pub fn group<'a>(&'a self, kind: &str, key: &'a str) -> &'a str {
        if let Some((group, _)) = key.split_once('/') {
            return group;
        }
        if self.other.is_empty() {
            return &self.lab;
        }
        let found = self.other.get(&format!("{kind}/{key}").to_lowercase());
        found.unwrap_or(&self.lab)
    }
}
