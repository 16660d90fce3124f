//! Network security groups and their rules.

use control::rules::ordered;
use indexmap::IndexMap;
use model::change::Operation;
use model::config::{Access, Direction, Nsg, RuleProtocol, SecurityRule};
use model::topology::{self, RuleAddress, SubnetIndex};
use serde_json::{Map, Value, json};

use super::body::{self, set};
use super::kinds::{ASGS, By, Kind, NETWORK, NICS, NSGS};
use super::lab::{Lab, Target};
use super::read::Reader;
use crate::Error;
use crate::id::same;

pub(super) const KIND: Kind = Kind {
    provider: NETWORK,
    name: NSGS,
    owned: &[
        "securityRules",
        "defaultSecurityRules",
        "networkInterfaces",
        "subnets",
        "flowLogs",
    ],
    children: &["securityRules", "defaultSecurityRules"],
    carried_out: By::Model {
        keys: |lab| lab.config.network_security_groups.keys().cloned().collect(),
        show,
        put,
        delete: |_, key| Ok(vec![Operation::DeleteNsg { name: key.to_owned() }]),
    },
};

pub(super) fn put_rule(
    lab: &Lab<'_>,
    target: &Target<'_>,
    name: &str,
    body: &Value,
) -> Result<Vec<Operation>, Error> {
    let rule = read(lab, &Reader::new(body, "")?.object("properties")?)?;
    Ok(vec![Operation::PutRule {
        nsg: target.key.clone(),
        name: name.to_owned(),
        rule: Box::new(rule),
    }])
}

pub(super) fn delete_rule(target: &Target<'_>, name: &str) -> Operation {
    Operation::DeleteRule {
        nsg: target.key.clone(),
        name: name.to_owned(),
    }
}

fn put(lab: &Lab<'_>, target: &Target<'_>, body: &Value) -> Result<Vec<Operation>, Error> {
    let given = Reader::new(body, "")?.object("properties")?;
    let old = lab.config.network_security_groups.get(&target.key);
    let security_rules = match (given.children("securityRules")?, old) {
        (Some(children), _) => {
            let each = children
                .iter()
                .map(|it| Ok((it.name.clone(), read(lab, &it.properties)?)));
            each.collect::<Result<IndexMap<_, _>, Error>>()?
        }
        (None, Some(old)) => old.security_rules.clone(),
        (None, None) => IndexMap::new(),
    };
    Ok(vec![Operation::PutNsg {
        name: target.key.clone(),
        nsg: Box::new(Nsg { security_rules }),
    }])
}

fn read(lab: &Lab<'_>, given: &Reader<'_>) -> Result<SecurityRule, Error> {
    let missing = |name: &str| Error::body(&given.at(name), format!("{} is missing", given.at(name)));
    let groups = |name: &str| {
        let ids = given.list(name)?.unwrap_or_default();
        let one = |id: &Value| lab.resolve(id, ASGS, &given.at(name));
        ids.iter().map(one).collect::<Result<Vec<String>, Error>>()
    };
    let owned = |name: &str| Ok::<_, Error>(given.text(name)?.map(str::to_owned));
    Ok(SecurityRule {
        description: owned("description")?,
        priority: given.number("priority")?.ok_or_else(|| missing("priority"))?,
        direction: given
            .word("direction", Direction::of, Direction::WORDS)?
            .ok_or_else(|| missing("direction"))?,
        access: given
            .word("access", Access::of, Access::WORDS)?
            .ok_or_else(|| missing("access"))?,
        protocol: given
            .word("protocol", RuleProtocol::of, RuleProtocol::WORDS)?
            .ok_or_else(|| missing("protocol"))?,
        source_address_prefix: owned("sourceAddressPrefix")?,
        source_address_prefixes: given.texts("sourceAddressPrefixes")?,
        source_application_security_groups: groups("sourceApplicationSecurityGroups")?,
        source_port_range: owned("sourcePortRange")?,
        source_port_ranges: given.texts("sourcePortRanges")?,
        destination_address_prefix: owned("destinationAddressPrefix")?,
        destination_address_prefixes: given.texts("destinationAddressPrefixes")?,
        destination_application_security_groups: groups("destinationApplicationSecurityGroups")?,
        destination_port_range: owned("destinationPortRange")?,
        destination_port_ranges: given.texts("destinationPortRanges")?,
    })
}

fn show(lab: &Lab<'_>, key: &str) -> Map<String, Value> {
    let Some(nsg) = lab.config.network_security_groups.get(key) else {
        return Map::new();
    };
    let id = lab.id(&KIND, key);
    let mut properties = Map::new();
    let rules = nsg.security_rules.iter();
    let rules = rules.map(|(name, rule)| body::child(&id, "securityRules", name, rule_properties(lab, rule)));
    properties.insert("securityRules".to_owned(), rules.collect());
    properties.insert(
        "defaultSecurityRules".to_owned(),
        Value::Array(default_rules(&id)),
    );
    let own =
        |nsg: Option<topology::NsgIndex>| nsg.is_some_and(|it| same(&lab.topology.nsgs[it.0].name, key));
    let nics = lab
        .nics()
        .filter(|nic| own(nic.nsg))
        .map(|nic| lab.reference(NICS, &nic.name));
    let subnets = (0..lab.topology.subnets.len()).map(SubnetIndex);
    let subnets = subnets.filter(|it| own(lab.topology.subnets[it.0].nsg));
    let subnets = subnets.map(|subnet| json!({ "id": lab.subnet_id(subnet) }));
    for (name, users) in [
        ("networkInterfaces", nics.collect::<Vec<_>>()),
        ("subnets", subnets.collect()),
    ] {
        if !users.is_empty() {
            properties.insert(name.to_owned(), Value::Array(users));
        }
    }
    properties
}

fn rule_properties(lab: &Lab<'_>, rule: &SecurityRule) -> Map<String, Value> {
    let mut properties = Map::new();
    set(&mut properties, "description", rule.description.clone());
    for (name, value) in [
        ("priority", json!(rule.priority)),
        ("direction", json!(rule.direction.word())),
        ("access", json!(rule.access.word())),
        ("protocol", json!(rule.protocol.word())),
        ("sourceAddressPrefixes", json!(rule.source_address_prefixes)),
        ("sourcePortRanges", json!(rule.source_port_ranges)),
        (
            "destinationAddressPrefixes",
            json!(rule.destination_address_prefixes),
        ),
        ("destinationPortRanges", json!(rule.destination_port_ranges)),
    ] {
        properties.insert(name.to_owned(), value);
    }
    for (name, value) in [
        ("sourceAddressPrefix", &rule.source_address_prefix),
        ("sourcePortRange", &rule.source_port_range),
        ("destinationAddressPrefix", &rule.destination_address_prefix),
        ("destinationPortRange", &rule.destination_port_range),
    ] {
        set(&mut properties, name, value.clone());
    }
    for (name, groups) in [
        (
            "sourceApplicationSecurityGroups",
            &rule.source_application_security_groups,
        ),
        (
            "destinationApplicationSecurityGroups",
            &rule.destination_application_security_groups,
        ),
    ] {
        if !groups.is_empty() {
            let ids = groups.iter().map(|group| lab.reference(ASGS, group));
            properties.insert(name.to_owned(), ids.collect());
        }
    }
    properties
}

/// NSG-10: the six that every group has.
fn default_rules(id: &str) -> Vec<Value> {
    let empty = topology::Nsg {
        name: String::new(),
        rules: Vec::new(),
    };
    let field = |address: &RuleAddress| match address {
        RuleAddress::Tag(tag) => tag.clone(),
        _ => "*".to_owned(),
    };
    let mut all = Vec::new();
    for (direction, word) in [
        (topology::Direction::Inbound, "Inbound"),
        (topology::Direction::Outbound, "Outbound"),
    ] {
        for named in ordered(&empty, direction) {
            let access = match named.rule.access {
                topology::Access::Allow => "Allow",
                topology::Access::Deny => "Deny",
            };
            let properties = json!({
                "priority": named.rule.priority,
                "direction": word,
                "access": access,
                "protocol": "*",
                "sourceAddressPrefix": field(&named.rule.source),
                "sourceAddressPrefixes": [],
                "sourcePortRange": "*",
                "sourcePortRanges": [],
                "destinationAddressPrefix": field(&named.rule.destination),
                "destinationAddressPrefixes": [],
                "destinationPortRange": "*",
                "destinationPortRanges": [],
            });
            let properties = properties.as_object().cloned().unwrap_or_default();
            all.push(body::child(
                id,
                "defaultSecurityRules",
                &named.rule.name,
                properties,
            ));
        }
    }
    all
}
