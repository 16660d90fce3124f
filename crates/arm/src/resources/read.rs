//! Members of request bodies, read with errors that say where.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use model::config::{Address, Cidr};
use serde_json::{Map, Value};

use crate::Error;

/// An object of a body, and its path in it.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    object: Option<&'a Map<String, Value>>,
    at: String,
}

impl<'a> Reader<'a> {
    /// # Errors
    /// It is no object.
    pub(super) fn new(value: &'a Value, at: &str) -> Result<Self, Error> {
        match value {
            Value::Null => Ok(Self {
                object: None,
                at: at.to_owned(),
            }),
            Value::Object(object) => Ok(Self {
                object: Some(object),
                at: at.to_owned(),
            }),
            _ => Err(wrong(at, "an object", value)),
        }
    }

    pub(super) fn at(&self, name: &str) -> String {
        if self.at.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.at)
        }
    }

    /// None where it is missing or null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object?.get(name).filter(|value| !value.is_null())
    }

    /// A member that is an object; an empty one where it is missing.
    pub(super) fn object(&self, name: &str) -> Result<Self, Error> {
        Self::new(self.get(name).unwrap_or(&Value::Null), &self.at(name))
    }

    /// A text; None where it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(other) => Err(wrong(&self.at(name), "a text", other)),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(other) => Err(wrong(&self.at(name), "true or false", other)),
        }
    }

    /// A whole number in the range of its type.
    pub(super) fn number<T: TryFrom<u64> + FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = match value {
            Value::String(text) => text.parse().ok(),
            _ => value.as_u64().and_then(|number| T::try_from(number).ok()),
        };
        let refused = || wrong(&self.at(name), "a whole number in its range", value);
        number.map(Some).ok_or_else(refused)
    }

    /// A word of a closed set.
    pub(super) fn word<T>(
        &self,
        name: &str,
        of: impl Fn(&str) -> Option<T>,
        words: &[&str],
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let refused = || {
            let at = self.at(name);
            let expected = format!("one of {}", words.join(", "));
            Error::body(
                &at,
                format!("expected {expected} at {at}, found '{}'", short(text)),
            )
        };
        of(text).map(Some).ok_or_else(refused)
    }

    pub(super) fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let refused = || {
            let at = self.at(name);
            Error::body(
                &at,
                format!("expected {expected} at {at}, found '{}'", short(text)),
            )
        };
        text.parse().map(Some).map_err(|_| refused())
    }

    pub(super) fn address(&self, name: &str) -> Result<Option<Address>, Error> {
        Ok(self.parsed::<IpAddr>(name, "an IP address")?.map(Address))
    }

    /// None where it is missing.
    pub(super) fn list(&self, name: &str) -> Result<Option<&'a [Value]>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(wrong(&self.at(name), "a list", other)),
        }
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Error> {
        let items = self.list(name)?.unwrap_or_default();
        let text = |(index, item): (usize, &Value)| match item {
            Value::String(text) => Ok(text.clone()),
            other => Err(wrong(&format!("{}[{index}]", self.at(name)), "a text", other)),
        };
        items.iter().enumerate().map(text).collect()
    }

    pub(super) fn addresses(&self, name: &str) -> Result<Vec<Address>, Error> {
        let texts = self.texts(name)?;
        let refused = |text: &str| Error::body(&self.at(name), format!("'{}' is no IP address", short(text)));
        let one = |text: &String| text.parse().map(Address).map_err(|_| refused(text));
        texts.iter().map(one).collect()
    }

    pub(super) fn prefixes(&self, name: &str) -> Result<Vec<Cidr>, Error> {
        let texts = self.texts(name)?;
        texts.iter().map(|text| prefix(text, &self.at(name))).collect()
    }

    pub(super) fn prefix(&self, name: &str) -> Result<Option<Cidr>, Error> {
        let text = self.text(name)?;
        text.map(|text| prefix(text, &self.at(name))).transpose()
    }

    /// The named objects of a list: the name of each, and a reader of its properties.
    pub(super) fn children(&self, name: &str) -> Result<Option<Vec<Child<'a>>>, Error> {
        let Some(items) = self.list(name)? else {
            return Ok(None);
        };
        let child = |(index, item): (usize, &'a Value)| {
            let at = format!("{}[{index}]", self.at(name));
            let whole = Reader::new(item, &at)?;
            let own = whole.text("name")?.map(str::to_owned);
            let name = match own.or_else(|| last_name(whole.text("id").ok().flatten())) {
                Some(name) => name,
                None => return Err(Error::body(&at, format!("{at} has no name"))),
            };
            let properties = whole.object("properties")?;
            Ok(Child {
                name,
                properties,
                value: item,
            })
        };
        let children: Result<Vec<_>, Error> = items.iter().enumerate().map(child).collect();
        children.map(Some)
    }
}

/// A named object in a list of a body.
#[derive(Clone, Debug)]
pub(super) struct Child<'a> {
    pub(super) name: String,
    pub(super) properties: Reader<'a>,
    pub(super) value: &'a Value,
}

/// An IP prefix without host bits.
fn prefix(text: &str, at: &str) -> Result<Cidr, Error> {
    let refused = || {
        Error::body(
            at,
            format!("'{}' is no address prefix such as 10.0.0.0/16", short(text)),
        )
    };
    let net: IpNet = text.parse().map_err(|_| refused())?;
    if net.trunc() != net {
        let message = format!(
            "the address prefix {net} is not valid: it has host bits set (write {})",
            net.trunc()
        );
        return Err(Error {
            target: Some(at.to_owned()),
            ..Error::bad("Sim.VNET-05", message)
        });
    }
    Ok(Cidr(net))
}

fn last_name(id: Option<&str>) -> Option<String> {
    id?.rsplit('/').next().map(str::to_owned)
}

fn wrong(at: &str, expected: &str, found: &Value) -> Error {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("'{}'", short(text)),
        other => other.to_string(),
    };
    Error::body(at, format!("expected {expected} at {at}, found {found}"))
}

/// What of a client's text an error repeats.
fn short(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(100).collect()
}
