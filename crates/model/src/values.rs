//! The values a lab file can hold: texts, numbers, addresses, lists, and maps of names.

use std::net::IpAddr;

use indexmap::IndexMap;
use ipnet::IpNet;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::decode::{Decode, duplicate, wrong};
use crate::problems::{Problems, join};
use crate::yaml::{Node, Value};

fn scalar<'a>(node: &'a Node, at: &str, expected: &str, problems: &mut Problems) -> Option<&'a str> {
    match &node.value {
        Value::Scalar(text) => Some(text),
        _ => {
            wrong(node, at, expected, problems);
            None
        }
    }
}

fn parsed<T: std::str::FromStr>(node: &Node, at: &str, expected: &str, problems: &mut Problems) -> Option<T> {
    let value = scalar(node, at, expected, problems)?.parse().ok();
    if value.is_none() {
        wrong(node, at, expected, problems);
    }
    value
}

impl Decode for String {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        scalar(node, at, "a text", problems).map(str::to_owned)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number"] })
    }
}

impl Decode for bool {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        match scalar(node, at, "true or false", problems)? {
            text if text.eq_ignore_ascii_case("true") => Some(true),
            text if text.eq_ignore_ascii_case("false") => Some(false),
            _ => {
                wrong(node, at, "true or false", problems);
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

impl Decode for u16 {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        parsed(node, at, "a whole number from 0 to 65535", problems)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 65535 })
    }
}

impl Decode for u32 {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        parsed(node, at, "a whole number from 0 to 4294967295", problems)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
    }
}

impl Decode for u64 {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        parsed(node, at, "a whole number", problems)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }
}

/// An address as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Address(pub IpAddr);

impl Default for Address {
    fn default() -> Self {
        Self(IpAddr::from([0, 0, 0, 0]))
    }
}

impl Decode for Address {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        parsed(node, at, "an IP address", problems).map(Self)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "an IPv4 or IPv6 address" })
    }
}

/// An address prefix without host bits, as declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Cidr(pub IpNet);

impl Decode for Cidr {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        const EXPECTED: &str = "an address prefix such as 10.0.0.0/16 or fd00:a::/48";
        let net: IpNet = parsed(node, at, EXPECTED, problems)?;
        if net.addr() != net.network() {
            host_bits(net, at, problems);
            problems.mark_unreadable(at);
            return None;
        }
        Some(Self(net))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "an IPv4 or IPv6 prefix, ADDRESS/LENGTH" })
    }
}

/// A prefix whose address has bits beyond its length (VNET-05; ARM's code is unconfirmed).
pub(crate) fn host_bits(net: IpNet, at: &str, problems: &mut Problems) {
    problems
        .error(
            "Sim.VNET-05",
            at,
            format!("the address prefix {net} is not valid: it has host bits set"),
        )
        .help(format!("write {}", net.trunc()));
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        T::decode(node, at, problems).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let inner = T::schema(generator).to_value();
        json_schema!({ "anyOf": [inner, { "type": "null" }] })
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        let Value::List(items) = &node.value else {
            wrong(node, at, "a list", problems);
            return None;
        };
        let decoded = items.iter().enumerate();
        Some(
            decoded
                .filter_map(|(i, item)| T::decode(item, &join(at, &i.to_string()), problems))
                .collect(),
        )
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let items = T::schema(generator).to_value();
        json_schema!({ "type": ["array", "null"], "items": items })
    }
}

/// Names are unique without regard to case, as in ARM.
impl<T: Decode + Default> Decode for IndexMap<String, T> {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            wrong(node, at, "an object with names as keys", problems);
            return None;
        };
        let mut seen = std::collections::HashSet::new();
        let mut map = Self::new();
        for entry in entries {
            let target = join(at, &entry.key);
            if !seen.insert(entry.key.to_lowercase()) {
                duplicate(&target, entry, problems);
                continue;
            }
            // A thing that cannot be read still exists: what refers to it is not wrong.
            let value = T::decode(&entry.node, &target, problems).unwrap_or_default();
            map.insert(entry.key.clone(), value);
        }
        Some(map)
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let values = T::schema(generator).to_value();
        json_schema!({ "type": ["object", "null"], "additionalProperties": values })
    }
}
