//! From the YAML tree to declared types, collecting every error on the way; one declaration gives reader, writer and JSON Schema.

use schemars::{Schema, SchemaGenerator, json_schema};

use crate::problems::{Problems, join};
use crate::words::{closest, shown};
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

            /// The choice a word means, whatever its case.
            #[must_use]
            pub fn of(word: &str) -> Option<Self> {
                $(if word.eq_ignore_ascii_case($word) {
                    return Some(Self::$variant);
                })+
                None
            }

            /// As a file spells it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
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

pub(crate) fn duplicate(target: &str, entry: &Entry, problems: &mut Problems) {
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

/// As [`wrong`], where the words there are may have one that was meant.
fn unknown_word(node: &Node, at: &str, text: &str, words: &[&'static str], problems: &mut Problems) {
    let message = format!("expected one of {}, found '{}'", words.join(", "), shown(text));
    let problem = problems.error("Sim.Value", at, message).at(node.span.clone());
    if let Some(near) = closest(text, words.iter().copied()) {
        problem.help(format!("did you mean '{near}'?"));
    }
    problems.mark_unreadable(at);
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
        unknown_word(node, at, text, words, problems);
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
