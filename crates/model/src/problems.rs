//! Collects problems while a lab is decoded and checked, and finds their places in the text at the end.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::change::Refusal;
use crate::error::{Errors, ModelError, Note};
use crate::yaml::{Node, Value};

/// Errors beyond this many are counted, not kept: a file of nothing but mistakes must not take all memory.
const MOST_ERRORS: usize = 1000;

/// Which part of an entry is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The value at the path.
    Value,
    /// The key at the end of the path.
    Key,
    /// Known already.
    At(Range<usize>),
}

#[derive(Debug)]
pub(crate) struct Problem {
    code: &'static str,
    message: String,
    target: String,
    place: Place,
    help: Option<String>,
}

impl Problem {
    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn on_key(&mut self) -> &mut Self {
        self.place = Place::Key;
        self
    }

    pub(crate) fn at(&mut self, span: Range<usize>) -> &mut Self {
        self.place = Place::At(span);
        self
    }
}

#[derive(Debug, Default)]
pub(crate) struct Problems {
    errors: Vec<Problem>,
    notes: Vec<Problem>,
    beyond: usize,
    /// Top-level objects (`vnets.hub`) of which a part could not be read: what they lack says nothing.
    unreadable: HashSet<String>,
}

impl Problems {
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        target: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Problem {
        if self.errors.len() == MOST_ERRORS {
            self.beyond += 1;
            self.errors.pop();
        }
        push(&mut self.errors, code, target.into(), message.into())
    }

    pub(crate) fn note(&mut self, target: impl Into<String>, message: impl Into<String>) {
        push(&mut self.notes, "", target.into(), message.into());
    }

    /// Remembers that a value at `target` could not be read.
    pub(crate) fn mark_unreadable(&mut self, target: &str) {
        self.unreadable.insert(top_level(target).to_owned());
    }

    pub(crate) fn unreadable(&self, target: &str) -> bool {
        self.unreadable.contains(top_level(target))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// Errors so far.
    pub(crate) fn len(&self) -> usize {
        self.errors.len() + self.beyond
    }

    pub(crate) fn into_errors(self, file: &str, text: &str, root: Option<&Node>) -> Errors {
        let places = Places::new(text, root);
        let mut errors: Vec<ModelError> = self
            .errors
            .into_iter()
            .map(|problem| {
                let span = places.span(&problem);
                let (line, column) = position(text, &places.line_starts, span.start);
                ModelError {
                    code: problem.code,
                    message: problem.message,
                    target: problem.target,
                    file: file.to_owned(),
                    line,
                    column,
                    help: problem.help,
                    span,
                }
            })
            .collect();
        errors.sort_by_key(|error| error.span.start);
        if self.beyond > 0
            && let Some(last) = errors.last_mut()
        {
            last.help = Some(format!("and {} more errors, which are not shown", self.beyond));
        }
        Errors {
            file: file.to_owned(),
            text: text.to_owned(),
            errors,
        }
    }

    /// All of them as one refusal, the first in front; None: there is no problem.
    pub(crate) fn into_refusal(self) -> Option<Refusal> {
        let mut refusals = self.errors.into_iter().map(|problem| {
            let refusal = Refusal::new(problem.code, problem.target, problem.message);
            Refusal {
                help: problem.help,
                ..refusal
            }
        });
        let first = refusals.next()?;
        Some(Refusal {
            details: refusals.collect(),
            ..first
        })
    }

    pub(crate) fn into_notes(self, file: &str, text: &str, root: &Node) -> Vec<Note> {
        let places = Places::new(text, Some(root));
        let mut notes: Vec<Note> = self
            .notes
            .into_iter()
            .map(|problem| {
                let span = places.span(&problem);
                let (line, column) = position(text, &places.line_starts, span.start);
                Note {
                    message: problem.message,
                    target: problem.target,
                    file: file.to_owned(),
                    line,
                    column,
                    span,
                }
            })
            .collect();
        notes.sort_by_key(|note| note.span.start);
        notes.dedup();
        notes
    }
}

fn push<'a>(
    list: &'a mut Vec<Problem>,
    code: &'static str,
    target: String,
    message: String,
) -> &'a mut Problem {
    list.push(Problem {
        code,
        message,
        target,
        place: Place::Value,
        help: None,
    });
    let last = list.len() - 1;
    &mut list[last]
}

/// `vnets.hub.subnets.nva` -> `vnets.hub`.
fn top_level(target: &str) -> &str {
    target
        .match_indices('.')
        .nth(1)
        .map_or(target, |(at, _)| &target[..at])
}

/// Spans of keys and values by path.
struct Places {
    values: HashMap<String, Range<usize>>,
    keys: HashMap<String, Range<usize>>,
    line_starts: Vec<usize>,
}

impl Places {
    fn new(text: &str, root: Option<&Node>) -> Self {
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let mut places = Self {
            values: HashMap::new(),
            keys: HashMap::new(),
            line_starts,
        };
        if let Some(root) = root {
            places.add(root, String::new());
        }
        places
    }

    fn add(&mut self, node: &Node, path: String) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let child = join(&path, &entry.key);
                    self.keys
                        .entry(child.clone())
                        .or_insert_with(|| entry.key_span.clone());
                    self.add(&entry.node, child);
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.add(item, join(&path, &index.to_string()));
                }
            }
            Value::Scalar(_) | Value::Null => {}
        }
        self.values.entry(path).or_insert_with(|| node.span.clone());
    }

    /// The place of a problem; of the nearest thing around it when the file does not have it.
    fn span(&self, problem: &Problem) -> Range<usize> {
        if let Place::At(span) = &problem.place {
            return span.clone();
        }
        if problem.place == Place::Key
            && let Some(span) = self.keys.get(&problem.target)
        {
            return span.clone();
        }
        if let Some(span) = self.values.get(&problem.target) {
            return span.clone();
        }
        let mut path = problem.target.as_str();
        while let Some((parent, _)) = path.rsplit_once('.') {
            if let Some(span) = self.keys.get(parent).or_else(|| self.values.get(parent)) {
                return span.clone();
            }
            path = parent;
        }
        self.values.get("").cloned().unwrap_or(0..0)
    }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Line and column, both from 1, the column in characters.
fn position(text: &str, line_starts: &[usize], offset: usize) -> (usize, usize) {
    let line = line_starts.partition_point(|&start| start <= offset).max(1);
    let start = line_starts.get(line - 1).copied().unwrap_or(0);
    let column = text.get(start..offset).map_or(0, |before| before.chars().count());
    (line, column + 1)
}
