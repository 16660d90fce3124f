//! Reads YAML (and JSON, its subset) into a tree that remembers where everything stood.

use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Location, Spanned};

/// Far beyond the largest lab the limits of Azure allow; a bound on memory, not on use.
pub(crate) const MOST_BYTES: usize = 8 << 20;

/// Aliases save typing in a lab; a file that unfolds to more than this many events means harm.
const MOST_REPLAYED: usize = 20_000;

/// The deepest lab needs 7 levels; bounds the stack.
const DEEPEST: usize = 32;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Bytes of the value; of its first token for a map or list.
    pub(crate) span: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    /// As written, without quotes: what it means is the decoder's to say.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) node: Node,
}

/// Not YAML.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) span: Range<usize>,
}

/// Duplicate keys are kept, for the decoder to refuse with their place.
///
/// # Errors
/// The text is not one YAML document, or is deeper or larger than a lab can be.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            flow_nesting_limit: DEEPEST,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_REPLAYED },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Merge,
        emit_comments: false,
        strict_booleans: true,
    };
    let raw: Spanned<Raw> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| syntax_error(text, &error))?;
    Ok(node(text, raw))
}

/// What serde hands over; scalars that are not strings are read again from the text.
enum Raw {
    Null,
    Text(String),
    Other(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Other(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Other(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Other(value.to_string()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Other(value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Other(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Other(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

fn syntax_error(text: &str, error: &serde_saphyr::Error) -> SyntaxError {
    let message = error.without_snippet().to_string();
    // The place is told beside the message, not in it.
    let message = message
        .split(" at line ")
        .next()
        .unwrap_or("")
        .split(" (defined at")
        .next()
        .unwrap_or("");
    let place = error
        .location()
        .map_or(0..0, |location| match location.span().byte_offset() {
            Some(_) => span(&location),
            None => {
                let at = offset(text, location.line(), location.column());
                at..at
            }
        });
    SyntaxError {
        message: message.to_owned(),
        span: clip(text, place),
    }
}

/// The byte at a line and column, both from 1, the column in characters.
fn offset(text: &str, line: u64, column: u64) -> usize {
    let before = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let start: usize = text.split_inclusive('\n').take(before).map(str::len).sum();
    let columns = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    start
        + text[start..]
            .chars()
            .take(columns)
            .map(char::len_utf8)
            .sum::<usize>()
}

fn node(text: &str, raw: Spanned<Raw>) -> Node {
    let defined = clip(text, span(&raw.defined));
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(scalar) => Value::Scalar(scalar),
        // `1e3` or `007` is a name where a name is wanted: keep the letters.
        Raw::Other(parsed) => Value::Scalar(match text.get(defined.clone()) {
            Some(written) if !written.is_empty() => written.to_owned(),
            _ => parsed,
        }),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(text, item)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key_span: clip(text, span(&key.defined)),
                    key: key.value,
                    node: node(text, value),
                })
                .collect(),
        ),
    };
    Node { value, span: defined }
}

fn span(location: &Location) -> Range<usize> {
    let start = location
        .span()
        .byte_offset()
        .and_then(|at| usize::try_from(at).ok())
        .unwrap_or(0);
    let length = location
        .span()
        .byte_len()
        .and_then(|at| usize::try_from(at).ok())
        .unwrap_or(0);
    start..start.saturating_add(length)
}

/// Inside the text, on one line, and on character boundaries.
fn clip(text: &str, span: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    let end = floor(span.end).max(start);
    match text.get(start..end).and_then(|part| part.find('\n')) {
        Some(at) => start..start + at,
        None => start..end,
    }
}
