//! From the YAML tree to declared types, collecting every error on the way; one declaration gives reader, writer and JSON Schema.

use std::net::IpAddr;

use indexmap::IndexMap;
use ipnet::IpNet;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::problems::{Problems, join};
use crate::yaml::{Entry, Node, Value};

/// A type that a lab file can hold.
pub(crate) trait Decode: Sized {
    /// None after at least one error was recorded.
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self>;

    /// What an absent property means; None: it is required.
    fn absent() -> Option<Self> {
        None
    }

    /// Not worth writing out.
    fn is_absent(&self) -> bool {
        false
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema;
}

/// Declares an object of the file: `field: Type = "propertyName"`. Types with no `absent` value are required.
macro_rules! object {
    ($(#[doc = $doc:literal])* $name:ident {
        $($(#[doc = $field_doc:literal])* $field:ident: $ty:ty = $key:literal,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
        pub struct $name {
            $($(#[doc = $field_doc])*
            #[serde(rename = $key, skip_serializing_if = "crate::decode::Decode::is_absent")]
            pub $field: $ty,)*
        }

        impl crate::decode::Decode for $name {
            fn decode(node: &crate::yaml::Node, at: &str, problems: &mut crate::problems::Problems) -> Option<Self> {
                let object = crate::decode::Object::open(node, at, &[$($key),*], problems)?;
                Some(Self { $($field: object.property($key, problems),)* })
            }

            fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                generator.subschema_for::<Self>()
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut properties = serde_json::Map::new();
                let mut required: Vec<&str> = Vec::new();
                $({
                    let doc = concat!($($field_doc, "\n"),*);
                    properties.insert($key.to_owned(), crate::decode::described::<$ty>(doc, generator));
                    if <$ty as crate::decode::Decode>::absent().is_none() {
                        required.push($key);
                    }
                })*
                crate::decode::object_schema(concat!($($doc, "\n"),*), properties, &required)
            }
        }
    };
}

/// Declares a closed set of words, matched without regard to case; the first is the default.
macro_rules! choice {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $word_doc:literal])* $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
        pub enum $name { $($(#[doc = $word_doc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            pub const WORDS: &[&str] = &[$($word),+];
        }

        impl Default for $name {
            fn default() -> Self {
                const ALL: &[$name] = &[$($name::$variant),+];
                ALL[0]
            }
        }

        impl crate::decode::Decode for $name {
            fn decode(node: &crate::yaml::Node, at: &str, problems: &mut crate::problems::Problems) -> Option<Self> {
                let word = crate::decode::word(node, at, Self::WORDS, problems)?;
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }

            fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": [$($word),+] })
            }
        }
    };
}

pub(crate) use {choice, object};

/// An object whose keys are known to be property names, each once.
pub(crate) struct Object<'a> {
    node: &'a Node,
    entries: &'a [Entry],
    at: &'a str,
}

impl<'a> Object<'a> {
    /// None, and an error, when the node is no object; unknown and repeated properties are errors too.
    pub(crate) fn open(node: &'a Node, at: &'a str, known: &[&str], problems: &mut Problems) -> Option<Self> {
        const EMPTY: &[Entry] = &[];
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => EMPTY,
            _ => {
                wrong(node, at, "an object with properties", problems);
                return None;
            }
        };
        let mut seen = vec![false; known.len()];
        for entry in entries {
            let target = join(at, &entry.key);
            match known.iter().position(|name| *name == entry.key) {
                None => unknown(&target, entry, known, problems),
                Some(index) if seen[index] => duplicate(&target, entry, problems),
                Some(index) => seen[index] = true,
            }
        }
        Some(Self { node, entries, at })
    }

    /// The property's value; when it cannot be had, an error is recorded and a default stands in.
    pub(crate) fn property<T: Decode + Default>(&self, key: &str, problems: &mut Problems) -> T {
        let target = join(self.at, key);
        let Some(entry) = self.entries.iter().find(|entry| entry.key == key) else {
            return T::absent().unwrap_or_else(|| {
                problems
                    .error("Sim.Value", &target, format!("'{key}' is missing"))
                    .at(self.node.span.clone())
                    .help(format!("add '{key}'"));
                problems.mark_unreadable(&target);
                T::default()
            });
        };
        if matches!(entry.node.value, Value::Null)
            && let Some(absent) = T::absent()
        {
            return absent;
        }
        T::decode(&entry.node, &target, problems).unwrap_or_default()
    }
}

fn unknown(target: &str, entry: &Entry, known: &[&str], problems: &mut Problems) {
    let key = &entry.key;
    let problem = problems
        .error(
            "Sim.UnknownField",
            target,
            format!("unknown property '{}'", shown(key)),
        )
        .at(entry.key_span.clone());
    match closest(key, known.iter().copied()) {
        Some(name) if name.eq_ignore_ascii_case(key) => {
            problem.help(format!("property names are spelled as in ARM: write '{name}'"));
        }
        Some(name) => {
            problem.help(format!("did you mean '{name}'?"));
        }
        None => {
            problem.help(format!("known here: {}", known.join(", ")));
        }
    }
}

fn duplicate(target: &str, entry: &Entry, problems: &mut Problems) {
    problems
        .error(
            "Sim.DuplicateName",
            target,
            format!("'{}' is given twice", shown(&entry.key)),
        )
        .at(entry.key_span.clone())
        .help("remove one of the two, or rename it (names differ in more than case)");
}

/// Records that a value has the wrong form.
pub(crate) fn wrong(node: &Node, at: &str, expected: &str, problems: &mut Problems) {
    let found = match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Scalar(text) => format!("'{}'", shown(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "an object".to_owned(),
    };
    problems
        .error("Sim.Value", at, format!("expected {expected}, found {found}"))
        .at(node.span.clone());
    problems.mark_unreadable(at);
}

/// Text of the file inside a message: bounded, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80; // one line of a terminal
    let mut short: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

/// The known word a person most likely meant.
pub(crate) fn closest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 80; // longer words are no typing mistake, and distance costs the product of lengths
    if wanted.len() > LONGEST {
        return None;
    }
    let wanted_lower = wanted.to_lowercase();
    known
        .filter(|word| word.len() <= LONGEST)
        .map(|word| (distance(&wanted_lower, &word.to_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Edits (insert, delete, replace) between two short words.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

pub(crate) fn word(
    node: &Node,
    at: &str,
    words: &[&'static str],
    problems: &mut Problems,
) -> Option<&'static str> {
    let Value::Scalar(text) = &node.value else {
        wrong(node, at, &format!("one of {}", words.join(", ")), problems);
        return None;
    };
    let found = words.iter().copied().find(|word| word.eq_ignore_ascii_case(text));
    if found.is_none() {
        wrong(node, at, &format!("one of {}", words.join(", ")), problems);
    }
    found
}

pub(crate) fn described<T: Decode>(doc: &str, generator: &mut SchemaGenerator) -> serde_json::Value {
    let mut schema = T::schema(generator);
    let doc = doc.trim();
    if !doc.is_empty() {
        schema.insert("description".to_owned(), doc.into());
    }
    schema.to_value()
}

pub(crate) fn object_schema(
    doc: &str,
    properties: serde_json::Map<String, serde_json::Value>,
    required: &[&str],
) -> Schema {
    let mut schema = json_schema!({ "type": "object", "additionalProperties": false });
    if !doc.trim().is_empty() {
        schema.insert("description".to_owned(), doc.trim().into());
    }
    schema.insert("properties".to_owned(), properties.into());
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

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

/// A section of the format that this version knows and does not carry out: refused unless empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unsupported;

impl Decode for Unsupported {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        let empty = match &node.value {
            Value::Null => true,
            Value::Map(entries) => entries.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Scalar(_) => false,
        };
        if !empty {
            problems
                .error(
                    "Sim.Unsupported",
                    at,
                    format!("this version does not carry out '{at}'"),
                )
                .on_key()
                .help(format!(
                    "remove the section '{at}'; a lab never ignores part of its file"
                ));
        }
        Some(Self)
    }

    fn absent() -> Option<Self> {
        Some(Self)
    }

    fn is_absent(&self) -> bool {
        true
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "not carried out by this version", "maxProperties": 0, "maxItems": 0 })
    }
}
