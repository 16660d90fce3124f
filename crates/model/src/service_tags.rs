//! Service tags as data: names and prefixes in the form of Microsoft's `ServiceTags_Public` JSON.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;
use serde::Deserialize;

/// What a lab has that names no file of its own. It is a modest set of examples, and says so.
const EXAMPLES: &str = include_str!("../data/service-tags.json");

/// The tags that follow from a lab, not from data (NSG-11..13).
pub const COMPUTED: &[&str] = &["VirtualNetwork", "Internet", "AzureLoadBalancer"];

/// The tags of the platform's own services (NSG-14): Microsoft publishes no prefixes of theirs, so that they stay
/// when a file without them replaces the examples.
const PLATFORM: &[&str] = &["AzurePlatformDNS", "AzurePlatformIMDS", "AzurePlatformLKM"];

/// The services a subnet may have an endpoint for, and the service tag whose prefixes it then routes (ROUTE-09).
pub const SERVICE_ENDPOINTS: &[(&str, &str)] = &[
    ("Microsoft.AzureActiveDirectory", "AzureActiveDirectory"),
    ("Microsoft.AzureCosmosDB", "AzureCosmosDB"),
    ("Microsoft.CognitiveServices", "CognitiveServicesManagement"),
    ("Microsoft.ContainerRegistry", "AzureContainerRegistry"),
    ("Microsoft.EventHub", "EventHub"),
    ("Microsoft.KeyVault", "AzureKeyVault"),
    ("Microsoft.ServiceBus", "ServiceBus"),
    ("Microsoft.Sql", "Sql"),
    ("Microsoft.Storage", "Storage"),
    ("Microsoft.Storage.Global", "Storage"),
    ("Microsoft.Web", "AppService"),
];

/// The prefixes of every service tag. Cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTags {
    /// By name in lower case.
    tags: Arc<BTreeMap<String, ServiceTag>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ServiceTag {
    name: String,
    prefixes: Vec<IpNet>,
}

/// The parts of the file that matter here.
#[derive(Deserialize)]
struct Document {
    values: Vec<Value>,
}

#[derive(Deserialize)]
struct Value {
    name: String,
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    #[serde(default)]
    address_prefixes: Vec<String>,
}

impl Default for ServiceTags {
    /// The examples.
    fn default() -> Self {
        static READ: OnceLock<ServiceTags> = OnceLock::new();
        // That the examples are valid is tested; a lab without any tag is better than none at all.
        let read = || Self {
            tags: Arc::new(parse(EXAMPLES).unwrap_or_default()),
        };
        READ.get_or_init(read).clone()
    }
}

impl ServiceTags {
    /// Reads a file in the form of `ServiceTags_Public` JSON. The platform's tags are kept where it has none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut tags = parse(text)?;
        for name in PLATFORM {
            let key = name.to_lowercase();
            if let Some(tag) = Self::default().tags.get(&key) {
                tags.entry(key).or_insert_with(|| tag.clone());
            }
        }
        Ok(Self { tags: Arc::new(tags) })
    }

    /// The prefixes of a tag, in any case, of both families; none: there is no data about it.
    #[must_use]
    pub fn prefixes(&self, tag: &str) -> &[IpNet] {
        self.tags
            .get(&tag.to_lowercase())
            .map_or(&[], |tag| &tag.prefixes)
    }

    /// The tag as the data spells it.
    #[must_use]
    pub fn spelling(&self, tag: &str) -> Option<&str> {
        self.tags.get(&tag.to_lowercase()).map(|tag| tag.name.as_str())
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tags.values().map(|tag| tag.name.as_str())
    }
}

/// The service tag of a service in [`SERVICE_ENDPOINTS`].
#[must_use]
pub fn service_tag_of(service: &str) -> Option<&'static str> {
    let mut known = SERVICE_ENDPOINTS.iter();
    known.find(|(name, _)| *name == service).map(|&(_, tag)| tag)
}

fn parse(text: &str) -> Result<BTreeMap<String, ServiceTag>, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut tags = BTreeMap::new();
    for Value { name, properties } in document.values {
        if COMPUTED.iter().any(|tag| tag.eq_ignore_ascii_case(&name)) {
            return Err(format!("{name} follows from the lab and cannot be given"));
        }
        let prefix = |text: &String| {
            text.parse::<IpNet>()
                .ok()
                .filter(|net| net.addr() == net.network())
                .ok_or_else(|| format!("'{text}' of {name} is no address prefix"))
        };
        let prefixes = properties
            .address_prefixes
            .iter()
            .map(prefix)
            .collect::<Result<Vec<_>, _>>()?;
        let key = name.to_lowercase();
        if tags.contains_key(&key) {
            return Err(format!("{name} is given twice"));
        }
        tags.insert(key, ServiceTag { name, prefixes });
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_valid_and_regions_lie_inside_their_tag() {
        let tags = ServiceTags::read(EXAMPLES).unwrap();
        assert!(tags.names().count() > 40);
        assert_eq!(tags.spelling("storage.westus2"), Some("Storage.WestUS2"));
        for name in tags.names() {
            assert!(!tags.prefixes(name).is_empty(), "{name}");
            let Some((service, _)) = name.split_once('.') else {
                continue;
            };
            let Some(all) = tags.spelling(service) else {
                continue;
            };
            for prefix in tags.prefixes(name) {
                assert!(
                    tags.prefixes(all).contains(prefix),
                    "{prefix} of {name} in {service}"
                );
            }
        }
        assert!(tags.prefixes("Storage.Atlantis").is_empty());
    }

    #[test]
    fn a_file_replaces_the_examples_but_for_the_platform() {
        let tags = ServiceTags::read(
            r#"{ "changeNumber": 7, "values": [
                { "name": "Storage", "id": "Storage", "properties": { "addressPrefixes": ["198.51.100.0/24"] } } ] }"#,
        )
        .unwrap();
        assert_eq!(
            tags.prefixes("STORAGE"),
            ["198.51.100.0/24".parse::<IpNet>().unwrap()]
        );
        assert!(tags.prefixes("Sql").is_empty());
        assert_eq!(
            tags.prefixes("AzurePlatformDNS"),
            ["168.63.129.16/32".parse::<IpNet>().unwrap()]
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let refused = |text: &str| ServiceTags::read(text).unwrap_err();
        assert!(refused("{}").contains("values"));
        let tag = |name: &str, prefix: &str| {
            format!(r#"{{ "name": "{name}", "properties": {{ "addressPrefixes": ["{prefix}"] }} }}"#)
        };
        let file = |tags: &[String]| format!(r#"{{ "values": [{}] }}"#, tags.join(","));
        assert!(refused(&file(&[tag("Sql", "10.0.0.1/8")])).contains("'10.0.0.1/8' of Sql"));
        assert!(refused(&file(&[tag("internet", "10.0.0.0/8")])).contains("follows from the lab"));
        assert!(refused(&file(&[tag("Sql", "10.0.0.0/8"), tag("sql", "11.0.0.0/8")])).contains("twice"));
    }
}
