//! Principals and roles: that what they name exists (PEER-35).

use crate::access;
use crate::config::Config;
use crate::keys::value;
use crate::problems::{Problems, join};
use crate::words::{closest, shown};

pub(crate) fn check(config: &Config, problems: &mut Problems) {
    for (name, role) in &config.roles {
        let at = join("roles", name);
        if access::is_built_in(name) {
            problems
                .error(
                    "Sim.DuplicateName",
                    &at,
                    format!("'{}' is a role of Azure's own", shown(name)),
                )
                .on_key()
                .help("give the custom role another name");
        }
        let lists = [("actions", &role.actions), ("notActions", &role.not_actions)];
        for (word, list) in lists {
            for (index, action) in list.iter().enumerate().filter(|(_, action)| !is_action(action)) {
                problems
                    .error(
                        "Sim.Value",
                        join(&at, &format!("{word}.{index}")),
                        format!("'{}' is no action", shown(action)),
                    )
                    .help("such as Microsoft.Network/virtualNetworks/peer/action; '*' stands for anything");
            }
        }
    }
    for (name, principal) in &config.principals {
        for (index, assignment) in principal.roles.iter().enumerate() {
            let at = format!("principals.{name}.roles.{index}");
            if problems.unreadable(&at) {
                continue;
            }
            let role = &assignment.role;
            if !access::is_built_in(role) && value(&config.roles, role).is_none() {
                let message = format!("there is no role '{}'", shown(role));
                let problem = problems.error("InvalidResourceReference", join(&at, "role"), message);
                match closest(role, access::roles(config)) {
                    Some(near) => problem.help(format!("did you mean '{near}'?")),
                    None => problem.help("declare it in 'roles', or use Network Contributor"),
                };
            }
            if access::scope(config, &assignment.scope).is_none() {
                problems
                    .error(
                        "InvalidResourceReference",
                        join(&at, "scope"),
                        format!("there is no '{}' to have a role at", shown(&assignment.scope)),
                    )
                    .help(
                        "name a subscription, a resource group, a VNet, an NSG, a route table, or an ARM id",
                    );
            }
        }
    }
}

/// `*`, or a provider, a type and an operation, any of which may be `*`.
fn is_action(text: &str) -> bool {
    let parts = text.split('/').count();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'*' | b'-' | b'_');
    (text == "*" || parts >= 2) && text.len() <= 256 && text.bytes().all(word)
}
