//! A lab in pieces: one row of JSON per declared object, so that a change writes what it changes and not the whole lab.

use std::borrow::Cow;

use indexmap::IndexMap;
use model::Config;
use serde_json::value::RawValue;

/// What a section's rows are when they are put together again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The value itself, one row.
    Plain,
    /// Elements.
    List,
    /// `"name":value`.
    Object,
}

/// One property of the lab file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) form: Form,
    pub(super) rows: Vec<String>,
}

/// In the order of the lab file. Whatever a lab can declare is in it: nothing here knows the sections by name.
///
/// # Errors
/// None that is known.
pub(super) fn split(config: &Config) -> serde_json::Result<Vec<Section>> {
    let text = serde_json::to_string(config)?;
    let sections: IndexMap<String, &RawValue> = serde_json::from_str(&text)?;
    let sections = sections
        .into_iter()
        .map(|(name, value)| section(name, value.get()));
    sections.collect()
}

/// The lab file again, as JSON.
pub(super) fn join(sections: &[Section]) -> String {
    let mut text = String::from("{");
    for (position, section) in sections.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        text.push_str(&quoted(&section.name));
        text.push(':');
        let rows = section.rows.join(",");
        let (open, close) = section.form.brackets();
        text.push_str(open);
        text.push_str(&rows);
        text.push_str(close);
    }
    text.push('}');
    text
}

impl Form {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::List => 1,
            Self::Object => 2,
        }
    }

    pub(super) const fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Plain),
            1 => Some(Self::List),
            2 => Some(Self::Object),
            _ => None,
        }
    }

    const fn brackets(self) -> (&'static str, &'static str) {
        match self {
            Self::Plain => ("", ""),
            Self::List => ("[", "]"),
            Self::Object => ("{", "}"),
        }
    }
}

fn section(name: String, value: &str) -> serde_json::Result<Section> {
    let (form, rows) = match value.as_bytes().first() {
        Some(b'{') => {
            let entries: IndexMap<Cow<'_, str>, &RawValue> = serde_json::from_str(value)?;
            let rows = entries
                .iter()
                .map(|(key, value)| format!("{}:{}", quoted(key), value.get()));
            (Form::Object, rows.collect())
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(value)?;
            let rows = elements.iter().map(|value| value.get().to_owned());
            (Form::List, rows.collect())
        }
        _ => (Form::Plain, vec![value.to_owned()]),
    };
    Ok(Section { name, form, rows })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let source = model::Source::Text {
            name: "test".to_owned(),
            text: text.to_owned(),
        };
        model::load(source).unwrap().config
    }

    #[test]
    fn a_lab_in_pieces_is_the_same_lab() {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
        let mut seen = 0;
        for entry in std::fs::read_dir(examples).unwrap() {
            let path = entry.unwrap().path();
            if !path.to_string_lossy().ends_with(".vnet.yaml") {
                continue;
            }
            seen += 1;
            let loaded = model::load(model::Source::Path(path.clone())).unwrap();
            let sections = split(&loaded.config).unwrap();
            let source = model::Source::Text {
                name: path.display().to_string(),
                text: join(&sections),
            };
            let again = model::load(source).unwrap();
            assert_eq!(again.config, loaded.config, "{}", path.display());
            assert_eq!(
                format!("{:?}", again.topology),
                format!("{:?}", loaded.topology),
                "{}",
                path.display()
            );
        }
        assert!(seen > 5);
    }

    #[test]
    fn one_object_is_one_row() {
        let lab = |peerings: &str| {
            config(&format!(
                "{{apiVersion: peerlane/v1, kind: Lab, name: rows, vnets: {{
                   \"a\": {{addressSpace: [10.0.0.0/16]}}, b: {{addressSpace: [10.1.0.0/16]}},
                   c: {{addressSpace: [10.2.0.0/16]}}}}, peerings: [{peerings}]}}"
            ))
        };
        let [before, after] = ["a <-> b", "a <-> b, b <-> c"].map(|it| split(&lab(it)).unwrap());
        let rows = |sections: &[Section]| {
            let rows = sections.iter().flat_map(|section| section.rows.clone());
            rows.collect::<Vec<_>>()
        };
        assert_eq!(rows(&after).len(), rows(&before).len() + 1);
        assert_eq!(rows(&after).last().unwrap(), "\"b <-> c\"");
    }
}
