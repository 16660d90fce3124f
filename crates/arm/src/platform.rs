//! What is no resource: tenants, subscriptions, locations, providers, and lists over all resources.

use model::Config;
use model::config::Subscription;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::id::same;
use crate::{Error, Method, Reply, Request, View, groups, resources};

/// The directory of what says none.
const TENANT: Uuid = Uuid::nil();
/// The types that are here. `global` would do as well; clients look for their own region in it.
const PROVIDERS: &[(&str, &[&str])] = &[
    (
        "Microsoft.Network",
        &[
            "virtualNetworks",
            "virtualNetworks/subnets",
            "virtualNetworks/virtualNetworkPeerings",
            "routeTables",
            "routeTables/routes",
            "networkSecurityGroups",
            "networkSecurityGroups/securityRules",
            "applicationSecurityGroups",
            "networkInterfaces",
            "publicIPAddresses",
            "loadBalancers",
            "virtualNetworkGateways",
            "localNetworkGateways",
            "connections",
            "networkWatchers",
            "networkWatchers/flowLogs",
            "networkWatchers/packetCaptures",
        ],
    ),
    ("Microsoft.Compute", &["virtualMachines"]),
    ("Microsoft.Resources", &["subscriptions", "resourceGroups"]),
];
/// Any version is taken; clients that look one up get one of these.
const API_VERSIONS: &[&str] = &[
    "2025-05-01",
    "2024-11-01",
    "2024-07-01",
    "2024-05-01",
    "2023-11-01",
    "2022-09-01",
];

/// A resource, as lists over all of them show it.
const LISTED: &[&str] = &["id", "name", "type", "location", "tags"];

/// None: the request is about a resource.
pub(crate) fn plan(request: &Request, view: &View<'_>) -> Option<Result<Reply, Error>> {
    let path: Vec<String> = request
        .path
        .iter()
        .map(|segment| segment.to_lowercase())
        .collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let raw = |index: usize| request.path.get(index).map_or("", String::as_str);
    let reply = match path.as_slice() {
        ["tenants"] => read(request, || Ok(list(tenants(view.config)))),
        ["subscriptions"] => read(request, || Ok(list(subscriptions(view.config)))),
        ["providers"] => read(request, || Ok(list(providers("")))),
        ["subscriptions", _, ..] => {
            let subscription = match find_subscription(view.config, raw(1)) {
                Ok(subscription) => subscription,
                Err(error) => return Some(Err(error)),
            };
            let id = subscription["subscriptionId"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            match &path[2..] {
                [] => read(request, || Ok(subscription)),
                ["locations"] => read(request, || Ok(list(locations(&id)))),
                ["providers"] => read(request, || Ok(list(providers(&id)))),
                ["providers", _] => read(request, || provider(&id, raw(3))),
                ["providers", _, "register" | "unregister"] => post(request, || provider(&id, raw(3))),
                ["resources"] => read(request, || {
                    let filter = request.parameter("$filter").map(filter).transpose()?;
                    Ok(list(listed(view, &id, None, filter.unwrap_or_default())))
                }),
                ["resourcegroups"] => read(request, || Ok(list(groups::all(view, &id)))),
                ["resourcegroups", _] => groups::plan(request, view, &id, raw(3)),
                ["resourcegroups", _, "resources"] => read(request, || {
                    let group = groups::find(view, raw(3))?;
                    let filter = request.parameter("$filter").map(filter).transpose()?;
                    Ok(list(listed(
                        view,
                        &id,
                        Some(&group.name),
                        filter.unwrap_or_default(),
                    )))
                }),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(reply)
}

/// The tenant of a principal of the lab, or of its owner.
#[must_use]
pub fn tenant_of(config: &Config, principal: Option<&str>) -> String {
    let declared = principal.and_then(|name| config.principals.get(name));
    match declared {
        Some(principal) => tenant_id(principal.tenant.as_deref()),
        // The default subscription's, in which its objects are.
        None => tenant_id(None),
    }
}

/// The declared name where it is a UUID, else one made of it.
fn tenant_id(name: Option<&str>) -> String {
    let id = |name: &str| {
        Uuid::parse_str(name)
            .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, name.to_lowercase().as_bytes()))
    };
    name.map_or(TENANT, id).to_string()
}

pub(crate) fn read(request: &Request, body: impl FnOnce() -> Result<Value, Error>) -> Result<Reply, Error> {
    match request.method {
        Method::Get | Method::Head => body().map(Reply::ok),
        _ => Err(Error::method_not_allowed()),
    }
}

fn post(request: &Request, body: impl FnOnce() -> Result<Value, Error>) -> Result<Reply, Error> {
    match request.method {
        Method::Post => body().map(Reply::ok),
        _ => Err(Error::method_not_allowed()),
    }
}

pub(crate) fn list(values: Vec<Value>) -> Value {
    json!({ "value": values })
}

fn tenants(config: &Config) -> Vec<Value> {
    let named = config.subscriptions.values().map(|it| it.tenant.as_deref());
    let principals = config.principals.values().map(|it| it.tenant.as_deref());
    let mut seen: Vec<(String, &str)> = Vec::new();
    for name in std::iter::once(None).chain(named).chain(principals) {
        let id = tenant_id(name);
        if !seen.iter().any(|(known, _)| *known == id) {
            seen.push((id, name.unwrap_or("peerlane")));
        }
    }
    let shown = |(id, name): (String, &str)| {
        json!({
            "id": format!("/tenants/{id}"),
            "tenantId": id,
            "displayName": name,
            "tenantCategory": "Home",
        })
    };
    seen.into_iter().map(shown).collect()
}

fn subscriptions(config: &Config) -> Vec<Value> {
    let shown = |id: &str, name: &str, declared: Option<&Subscription>| {
        json!({
            "id": format!("/subscriptions/{id}"),
            "subscriptionId": id,
            "tenantId": tenant_id(declared.and_then(|it| it.tenant.as_deref())),
            "displayName": name,
            "state": "Enabled",
            "authorizationSource": "RoleBased",
            "managedByTenants": [],
        })
    };
    let mut all = vec![shown(model::DEFAULT_SUBSCRIPTION, "peerlane", None)];
    for (name, declared) in &config.subscriptions {
        let id = model::subscription_id(config, Some(name));
        if id != model::DEFAULT_SUBSCRIPTION {
            all.push(shown(&id, name, Some(declared)));
        }
    }
    all
}

fn find_subscription(config: &Config, id: &str) -> Result<Value, Error> {
    let mut all = subscriptions(config).into_iter();
    all.find(|it| it["subscriptionId"].as_str().is_some_and(|known| same(known, id)))
        .ok_or_else(|| {
            let message = format!("The subscription '{id}' could not be found.");
            Error::new(404, "SubscriptionNotFound", message)
        })
}

fn locations(subscription: &str) -> Vec<Value> {
    let shown = |name: &&str| {
        json!({
            "id": format!("/subscriptions/{subscription}/locations/{name}"),
            "name": name,
            "displayName": name,
            "regionalDisplayName": name,
            "type": "Region",
            "metadata": { "regionType": "Physical", "regionCategory": "Recommended" },
        })
    };
    model::regions().iter().map(shown).collect()
}

fn providers(subscription: &str) -> Vec<Value> {
    let namespaces = PROVIDERS.iter().map(|(namespace, _)| *namespace);
    namespaces
        .filter_map(|namespace| provider(subscription, namespace).ok())
        .collect()
}

fn provider(subscription: &str, namespace: &str) -> Result<Value, Error> {
    let found = PROVIDERS.iter().find(|(known, _)| same(known, namespace));
    let Some((namespace, types)) = found else {
        let message = format!("The resource namespace '{namespace}' is invalid.");
        return Err(Error::new(404, "InvalidResourceNamespace", message));
    };
    let types = types.iter().map(|kind| {
        json!({
            "resourceType": kind,
            "locations": model::regions(),
            "apiVersions": API_VERSIONS,
            "capabilities": "None",
        })
    });
    Ok(json!({
        "id": format!("/subscriptions/{subscription}/providers/{namespace}"),
        "namespace": namespace,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationFree",
        "resourceTypes": types.collect::<Vec<_>>(),
    }))
}

/// What a `$filter` asks for: members and the values they are to have.
type Filter = Vec<(String, String)>;

fn listed(view: &View<'_>, subscription: &str, group: Option<&str>, filter: Filter) -> Vec<Value> {
    let scope = format!("/subscriptions/{subscription}/").to_lowercase();
    let all = resources::list(view, group).into_iter();
    let wanted = all.filter(|resource| {
        let id = resource["id"].as_str().unwrap_or_default().to_lowercase();
        id.starts_with(&scope) && filter.iter().all(|(member, value)| has(resource, member, value))
    });
    let reduced = wanted.map(|resource| {
        let members = LISTED
            .iter()
            .filter_map(|key| Some((String::from(*key), resource.get(*key)?.clone())));
        Value::Object(members.collect())
    });
    reduced.collect()
}

fn has(resource: &Value, member: &str, value: &str) -> bool {
    let is = |key: &str| resource[key].as_str().is_some_and(|said| same(said, value));
    match member {
        "resourcegroup" => {
            let id = crate::Id::parse(resource["id"].as_str().unwrap_or_default());
            id.and_then(|id| id.group)
                .is_some_and(|group| same(&group, value))
        }
        "resourcetype" => is("type"),
        "tagname" => resource["tags"].get(value).is_some(),
        _ => is(member),
    }
}

/// `resourceGroup eq 'g' and name eq 'n' and resourceType eq 't'`: honoured, or clients take a VNet for missing and make it anew.
///
/// # Errors
/// It says what is not understood, rather than list too much.
fn filter(text: &str) -> Result<Filter, Error> {
    let wrong = || {
        Error::bad(
            "InvalidFilterInQueryString",
            format!("the filter {text} is not understood"),
        )
    };
    let mut conditions = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (member, after) = rest.split_once(' ').ok_or_else(wrong)?;
        let member = member.to_lowercase();
        if !["resourcegroup", "name", "resourcetype", "location", "tagname"].contains(&member.as_str()) {
            return Err(wrong());
        }
        let after = word(after, "eq")
            .and_then(|after| after.strip_prefix('\''))
            .ok_or_else(wrong)?;
        let (value, after) = after.split_once('\'').ok_or_else(wrong)?;
        conditions.push((member, value.to_owned()));
        rest = match after.trim_start() {
            "" => "",
            more => word(more, "and").filter(|it| !it.is_empty()).ok_or_else(wrong)?,
        };
    }
    Ok(conditions)
}

/// What follows the word.
fn word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let text = text.trim_start();
    let head = text
        .get(..word.len())
        .filter(|head| head.eq_ignore_ascii_case(word))?;
    text[head.len()..].strip_prefix(' ').map(str::trim_start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_filter_is_understood_or_refused() {
        let pair = |member: &str, value: &str| (member.to_owned(), value.to_owned());
        let of = |text: &str| filter(text).ok();
        assert_eq!(
            of(
                "resourceGroup eq 'g' and name eq 'ev' AND resourceType eq 'Microsoft.Network/virtualNetworks'"
            ),
            Some(vec![
                pair("resourcegroup", "g"),
                pair("name", "ev"),
                pair("resourcetype", "Microsoft.Network/virtualNetworks"),
            ])
        );
        assert_eq!(of(""), Some(Vec::new()));
        for wrong in [
            "name",
            "name eq",
            "name eq x",
            "name ne 'x'",
            "x eq 'y'",
            "name eq 'x' or name eq 'y'",
            "name eq 'x' and",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_resource_matches_by_every_member() {
        let resource = json!({
            "id": "/subscriptions/s/resourceGroups/G/providers/Microsoft.Network/virtualNetworks/v",
            "name": "v",
            "type": "Microsoft.Network/virtualNetworks",
            "tags": { "env": "x" },
        });
        for (member, value, expected) in [
            ("resourcegroup", "g", true),
            ("name", "V", true),
            ("resourcetype", "microsoft.network/virtualnetworks", true),
            ("tagname", "env", true),
            ("resourcegroup", "h", false),
            ("name", "w", false),
            ("location", "eastus", false),
        ] {
            assert_eq!(has(&resource, member, value), expected, "{member} {value}");
        }
    }

    proptest! {
        #[test]
        fn no_filter_panics(text in "\\PC{0,60}|(name|eq|and|'| |é){0,12}") {
            let _ = filter(&text);
        }
    }
}
