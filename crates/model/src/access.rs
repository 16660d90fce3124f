//! Who may do what: roles by action at scopes, as Azure's access control decides it (PEER-35).

use std::borrow::Cow;

use crate::change::Refusal;
use crate::config::{Config, DeploymentModel, Vnet};
use crate::keys::{group_of, name_of, subscription_id, value};
use crate::words::shown;

/// A role of Azure's own: its name, actions, and actions taken away.
type BuiltIn = (&'static str, &'static [&'static str], &'static [&'static str]);

/// PEER-35: those that matter to a network, as published.
const BUILT_IN: &[BuiltIn] = &[
    ("Owner", &["*"], &[]),
    (
        "Contributor",
        &["*"],
        &[
            "Microsoft.Authorization/*/Delete",
            "Microsoft.Authorization/*/Write",
            "Microsoft.Authorization/elevateAccess/Action",
        ],
    ),
    ("Reader", &["*/read"], &[]),
    (
        "Network Contributor",
        &[
            "Microsoft.Authorization/*/read",
            "Microsoft.Insights/alertRules/*",
            "Microsoft.Network/*",
            "Microsoft.ResourceHealth/availabilityStatuses/read",
            "Microsoft.Resources/deployments/*",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
            "Microsoft.Support/*",
        ],
        &[],
    ),
    (
        "Classic Network Contributor",
        &[
            "Microsoft.Authorization/*/read",
            "Microsoft.ClassicNetwork/*",
            "Microsoft.Insights/alertRules/*",
            "Microsoft.ResourceHealth/availabilityStatuses/read",
            "Microsoft.Resources/deployments/*",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
            "Microsoft.Support/*",
        ],
        &[],
    ),
];

/// Where something is, as ARM ids say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub subscription: String,
    pub group: String,
    /// Such as `Microsoft.Network/virtualNetworks/hub`.
    pub path: String,
}

impl Resource {
    /// The ARM id.
    #[must_use]
    pub fn id(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/{}",
            self.subscription, self.group, self.path
        )
    }
}

/// The VNet as a resource; of a classic one, the provider is another.
#[must_use]
pub fn vnet(config: &Config, key: &str) -> Resource {
    declared_vnet(config, key, value(&config.vnets, key))
}

/// The same, of a VNet as it is to be declared.
pub(crate) fn declared_vnet(config: &Config, key: &str, declared: Option<&Vnet>) -> Resource {
    let provider = if is_classic(declared) {
        "ClassicNetwork"
    } else {
        "Network"
    };
    Resource {
        subscription: subscription_id(config, declared.and_then(|it| it.subscription.as_deref())),
        group: group_of(config, "virtualNetworks", key).to_owned(),
        path: format!("Microsoft.{provider}/virtualNetworks/{}", name_of(key)),
    }
}

/// An object of another kind, such as `routeTables`: they live in the default subscription.
#[must_use]
pub fn object(config: &Config, kind: &str, key: &str) -> Resource {
    let provider = if kind == "virtualMachines" {
        "Compute"
    } else {
        "Network"
    };
    Resource {
        subscription: subscription_id(config, None),
        group: group_of(config, kind, key).to_owned(),
        path: format!("Microsoft.{provider}/{kind}/{}", name_of(key)),
    }
}

/// The id of a subscription by its name in the lab; of the default one without a name.
#[must_use]
pub fn subscription(config: &Config, name: Option<&str>) -> String {
    subscription_id(config, name)
}

/// Whether the principal may carry out the action on the resource. None as principal is the owner of the lab.
///
/// # Errors
/// `AuthorizationFailed`.
pub fn authorize(
    config: &Config,
    principal: Option<&str>,
    action: &str,
    resource: &Resource,
) -> Result<(), Refusal> {
    let Some(principal) = principal else {
        return Ok(());
    };
    if may(config, principal, action, resource) {
        return Ok(());
    }
    let message = format!(
        "The client '{}' does not have authorization to perform action '{action}' over scope '{}' or the scope is \
         invalid. If access was recently granted, please refresh your credentials.",
        shown(principal),
        resource.id()
    );
    Err(Refusal::new(
        "AuthorizationFailed",
        format!("principals.{principal}.roles"),
        message,
    )
    .help(format!(
        "give {} a role with the action at that scope",
        shown(principal)
    )))
}

/// PEER-35: to create or update a peering needs a right on each of the two VNets.
///
/// # Errors
/// `AuthorizationFailed` without the right on the own VNet, `LinkedAuthorizationFailed` without the one on the remote VNet.
pub fn authorize_peering(
    config: &Config,
    principal: Option<&str>,
    peering: &str,
    from: &str,
    to: &str,
) -> Result<(), Refusal> {
    const WRITE: &str = "Microsoft.Network/virtualNetworks/virtualNetworkPeerings/write";
    let Some(who) = principal else { return Ok(()) };
    let own = vnet(config, from);
    let own = Resource {
        path: format!("{}/virtualNetworkPeerings/{peering}", own.path),
        ..own
    };
    authorize(config, principal, WRITE, &own)?;
    let remote = vnet(config, to);
    let action = if is_classic(value(&config.vnets, to)) {
        "Microsoft.ClassicNetwork/virtualNetworks/peer/action"
    } else {
        "Microsoft.Network/virtualNetworks/peer/action"
    };
    if may(config, who, action, &remote) {
        return Ok(());
    }
    let message = format!(
        "The client '{}' has permission to perform action '{WRITE}' on scope '{}'; however, it does not have permission \
         to perform action '{action}' on the linked scope(s) '{}' or the linked scope(s) are invalid.",
        shown(who),
        own.id(),
        remote.id()
    );
    Err(Refusal::new(
        "LinkedAuthorizationFailed",
        format!("principals.{who}.roles"),
        message,
    )
    .help(format!(
        "give {} a role with the action on the remote virtual network too",
        shown(who)
    )))
}

/// The names of all roles: Azure's, then the custom ones.
pub(crate) fn roles(config: &Config) -> impl Iterator<Item = &str> {
    let built_in = BUILT_IN.iter().map(|(name, _, _)| *name);
    built_in.chain(config.roles.keys().map(String::as_str))
}

pub(crate) fn is_built_in(role: &str) -> bool {
    BUILT_IN
        .iter()
        .any(|(name, _, _)| name.eq_ignore_ascii_case(role))
}

/// What a scope of a role assignment holds. None: nothing of that name.
pub(crate) fn scope(config: &Config, text: &str) -> Option<Held> {
    let lower = text.to_lowercase();
    if let Some(path) = lower.strip_prefix('/') {
        return Some(Held::Id(format!("/{path}").trim_end_matches('/').to_owned()));
    }
    if value(&config.subscriptions, text).is_some() {
        return Some(Held::Id(format!(
            "/subscriptions/{}",
            subscription_id(config, Some(text)).to_lowercase()
        )));
    }
    let keys = config.vnets.keys().chain(config.route_tables.keys());
    let keys = keys.chain(config.network_security_groups.keys());
    let mut groups = keys
        .chain(config.resources.keys())
        .map(|key| key.split_once('/').map_or("", |(group, _)| group));
    let lab = config.resource_group.as_deref().unwrap_or(&config.name);
    if groups.any(|group| group.to_lowercase() == lower) || lab.to_lowercase() == lower {
        return Some(Held::Group(lower));
    }
    let resource = if value(&config.vnets, text).is_some() {
        vnet(config, text)
    } else if value(&config.network_security_groups, text).is_some() {
        object(config, "networkSecurityGroups", text)
    } else if value(&config.route_tables, text).is_some() {
        object(config, "routeTables", text)
    } else {
        return None;
    };
    Some(Held::Id(resource.id().to_lowercase()))
}

/// In lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// An ARM id and all below it; empty: everything.
    Id(String),
    /// A resource group of any subscription.
    Group(String),
}

impl Held {
    fn holds(&self, resource: &Resource) -> bool {
        match self {
            Self::Group(group) => resource.group.to_lowercase() == *group,
            Self::Id(id) => {
                let whole = resource.id().to_lowercase();
                whole
                    .strip_prefix(id.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

/// Some assignment of the principal allows it.
fn may(config: &Config, principal: &str, action: &str, resource: &Resource) -> bool {
    let Some(principal) = value(&config.principals, principal) else {
        return false;
    };
    principal.roles.iter().any(|assignment| {
        grants(config, &assignment.role, action)
            && scope(config, &assignment.scope).is_some_and(|held| held.holds(resource))
    })
}

/// One role allows the action: by one of its actions, and none of what is taken away. Whoever may read and write VNets
/// may peer them (PEER-35).
fn grants(config: &Config, role: &str, action: &str) -> bool {
    let (actions, not_actions): (Vec<Cow<'_, str>>, Vec<Cow<'_, str>>) = match BUILT_IN
        .iter()
        .find(|(name, _, _)| name.eq_ignore_ascii_case(role))
    {
        Some((_, actions, not)) => (
            actions.iter().map(|it| Cow::Borrowed(*it)).collect(),
            not.iter().map(|it| Cow::Borrowed(*it)).collect(),
        ),
        None => match value(&config.roles, role) {
            Some(role) => (
                role.actions.iter().map(Cow::from).collect(),
                role.not_actions.iter().map(Cow::from).collect(),
            ),
            None => return false,
        },
    };
    let has = |action: &str| {
        actions.iter().any(|pattern| matches(pattern, action))
            && !not_actions.iter().any(|pattern| matches(pattern, action))
    };
    let taken = not_actions.iter().any(|pattern| matches(pattern, action));
    has(action)
        || (!taken
            && inherited(action)
                .is_some_and(|vnet| has(&format!("{vnet}/read")) && has(&format!("{vnet}/write"))))
}

/// The type whose readers and writers have the action as well.
fn inherited(action: &str) -> Option<&'static str> {
    const TYPES: [&str; 2] = [
        "Microsoft.Network/virtualNetworks",
        "Microsoft.ClassicNetwork/virtualNetworks",
    ];
    let of = |kind: &&&str| {
        let head = action
            .get(..kind.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(kind));
        let rest = action.get(kind.len()..).unwrap_or("").to_lowercase();
        head && (rest.starts_with("/virtualnetworkpeerings/")
            || matches!(rest.as_str(), "/peer/action" | "/peer"))
    };
    TYPES.iter().find(of).copied()
}

/// `*` stands for any text; case does not matter.
fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_lowercase(), action.to_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = action.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pattern.contains('*').then(|| parts.next_back().unwrap_or("")) else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

fn is_classic(vnet: Option<&Vnet>) -> bool {
    vnet.is_some_and(|it| it.deployment_model == Some(DeploymentModel::Classic))
}
