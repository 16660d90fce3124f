//! What may be a name, and finding what a name refers to.

use std::collections::HashMap;

use crate::keys::name_of;
use crate::problems::{Problems, join};
use crate::topology::Groups;
use crate::words::{closest, shown};

/// The lab's name stands in paths, socket names and interface names.
const LONGEST_LAB: usize = 32;

/// Azure's bound for Linux VMs; also the bound of a host name.
const LONGEST_VM: usize = 64;

/// PEER-02, NSG-02; the bound of all network resources.
const LONGEST_RESOURCE: usize = 80;

/// IFNAMSIZ less its final zero byte.
pub(crate) const LONGEST_INTERFACE: usize = 15;

/// The names of one kind of thing, matched without regard to case.
#[derive(Debug)]
pub(crate) struct Names {
    kind: &'static str,
    names: Vec<String>,
    by_name: HashMap<String, usize>,
}

impl Names {
    pub(crate) fn new<'a>(kind: &'static str, names: impl Iterator<Item = &'a String>) -> Self {
        let names: Vec<String> = names.cloned().collect();
        let by_name = names
            .iter()
            .enumerate()
            .map(|(index, name)| (name.to_lowercase(), index))
            .collect();
        Self { kind, names, by_name }
    }

    /// The index of the thing; an error at `target` when there is none.
    pub(crate) fn find(&self, name: &str, target: &str, problems: &mut Problems) -> Option<usize> {
        let found = self.position(name);
        if found.is_none() {
            let message = format!("there is no {} '{}'", self.kind, shown(name));
            let problem = problems.error("InvalidResourceReference", target, message);
            match closest(name, self.names.iter().map(String::as_str)) {
                Some(near) => problem.help(format!("did you mean '{near}'?")),
                None => problem.help(format!("declare it, or correct the name of the {}", self.kind)),
            };
        }
        found
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.to_lowercase()).copied()
    }
}

/// The lab's name: letters, digits and '-', at most 32.
pub(crate) fn lab_name(name: &str, problems: &mut Problems) {
    if !plain(name, LONGEST_LAB) {
        problems
            .error(
                "Sim.Value",
                "name",
                format!("'{}' cannot name a lab", shown(name)),
            )
            .help("use letters, digits and '-', at most 32, with a letter or digit first and last");
    }
}

/// A VM's name is also a host name and part of a namespace's name.
pub(crate) fn vm_name(name: &str, target: &str, problems: &mut Problems) {
    if !plain(name, LONGEST_VM) {
        problems
            .error(
                "InvalidResourceName",
                target,
                format!("Resource name {} is invalid for a VM.", shown(name)),
            )
            .on_key()
            .help("use letters, digits and '-', at most 64, with a letter or digit first and last");
    }
}

/// PEER-02, and the same for every other resource.
pub(crate) fn resource_name(name: &str, target: &str, on_key: bool, problems: &mut Problems) {
    if is_resource_name(name) {
        return;
    }
    let problem = problems.error(
        "InvalidResourceName",
        target,
        format!(
            "Resource name {} is invalid. The name can be up to 80 characters long. It must begin with a word \
             character, and it must end with a word character or with '_'. The name may contain word characters \
             or '.', '-', '_'.",
            shown(name)
        ),
    );
    problem.help("rename it");
    if on_key {
        problem.on_key();
    }
}

fn is_resource_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = name.as_bytes();
    let ends =
        bytes.first().is_some_and(|&first| word(first)) && bytes.last().is_some_and(|&last| word(last));
    ends && name.len() <= LONGEST_RESOURCE && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

/// The key of a resource in the file: its name, or `group/name` where two groups have one of that name.
pub(crate) fn resource_key(key: &str, target: &str, problems: &mut Problems) {
    let grouped = key.split_once('/');
    if !grouped.is_some_and(|(group, name)| is_resource_name(group) && is_resource_name(name)) {
        resource_name(key, target, true, problems);
    }
}

/// A resource is declared once: `web`, and `lab/web` where the lab's group is `lab`, are one.
pub(crate) fn one_key_each<'a>(
    (section, kind): (&str, &str),
    keys: impl Iterator<Item = &'a String>,
    groups: &Groups,
    problems: &mut Problems,
) {
    let mut seen: HashMap<(String, String), &str> = HashMap::new();
    for key in keys {
        let resource = (
            groups.group(kind, key).to_lowercase(),
            name_of(key).to_lowercase(),
        );
        if let Some(other) = seen.insert(resource, key) {
            let message = format!("'{}' and '{}' are one resource", shown(other), shown(key));
            problems
                .error("Sim.DuplicateName", join(section, key), message)
                .on_key()
                .help("remove one of the two, or name another resource group in its key");
        }
    }
}

/// A name the kernel takes for an interface.
pub(crate) fn interface_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    (1..=LONGEST_INTERFACE).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

/// A name of a file under /run/netns.
pub(crate) fn namespace_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=255).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.')
}

fn plain(name: &str, longest: usize) -> bool {
    let bytes = name.as_bytes();
    name.len() <= longest
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
