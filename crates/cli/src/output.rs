//! The one place where data meets standard output: a serialisable value and its table, in the format asked for.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{Attribute, Color, LineStyle, TableStyle};
use serde::Serialize;
use serde_json::Value;

use crate::args::Format;
use crate::failure::Failure;

/// Where and how data is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    palette: Palette,
}

/// What a value looks like to people.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) header: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<Cell>>,
    /// Shown instead of the table; the rows then serve tsv only.
    pub(crate) text: Option<String>,
    /// A second table for people, of what would make the first too wide.
    pub(crate) below: Option<Box<View>>,
}

#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// What a colour would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
    Notice,
    Strong,
    Faint,
}

/// Colours, or none of them (`NO_COLOR`, or not a terminal).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Palette {
    coloured: bool,
}

impl Output {
    /// For standard output: a table on a terminal and JSON otherwise, unless a format is asked for.
    pub(crate) fn new(format: Option<Format>) -> Self {
        let terminal = io::stdout().is_terminal();
        let format = format.unwrap_or(if terminal { Format::Table } else { Format::Json });
        Self {
            format,
            palette: Palette::on(terminal),
        }
    }

    /// Whether a person reads it.
    pub(crate) fn is_table(self) -> bool {
        self.format == Format::Table
    }

    /// Writes a value; `view` is called when a person or tsv wants it.
    ///
    /// # Errors
    /// When the value cannot be written. A reader that went away is not an error.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        view: impl FnOnce(Palette) -> View,
    ) -> Result<(), Failure> {
        let text = match self.format {
            Format::None => return Ok(()),
            Format::Table => {
                let mut view = view(self.palette);
                view.text.take().unwrap_or_else(|| self.table(view))
            }
            Format::Tsv => tab_separated(&view(Palette { coloured: false })),
            Format::Json => serde_json::to_string_pretty(value).map_err(unwritable)?,
            Format::Jsonc => {
                let value = serde_json::to_value(value).map_err(unwritable)?;
                let mut text = String::new();
                self.palette.json(&value, 0, &mut text);
                text
            }
            Format::Yaml => serde_saphyr::to_string(value).map_err(unwritable)?,
        };
        write_out(&text)
    }

    /// Writes a value that is one line for people and, as JSON, one line for programs.
    ///
    /// # Errors
    /// As [`Output::show`].
    pub(crate) fn show_line<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(Palette) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => write_out(&serde_json::to_string(value).map_err(unwritable)?),
            _ => self.show(value, |palette| {
                let text = text(palette);
                View {
                    rows: vec![vec![text.clone().into()]],
                    text: Some(text),
                    ..View::default()
                }
            }),
        }
    }

    fn table(self, mut view: View) -> String {
        let below = view.below.take();
        let mut table = comfy_table::Table::new();
        table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
        // Never folded: a wide row stays a row, to read and to grep.
        table.force_no_tty();
        if self.palette.coloured {
            table.enforce_styling();
        }
        table.set_header(view.header.into_iter().map(|title| {
            let cell = comfy_table::Cell::new(title);
            if self.palette.coloured {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        }));
        for row in view.rows {
            table.add_row(row.into_iter().map(|cell| self.palette.cell(cell)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.trim_fmt();
        match below {
            Some(below) => format!("{text}\n\n{}", self.table(*below)),
            None => text,
        }
    }
}

impl Palette {
    /// Colours when the stream is a terminal and `NO_COLOR` is absent or empty.
    pub(crate) fn on(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            coloured: terminal && !refused,
        }
    }

    pub(crate) fn for_stderr() -> Self {
        Self::on(io::stderr().is_terminal())
    }

    pub(crate) const fn coloured(self) -> bool {
        self.coloured
    }

    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.coloured || tone == Tone::Plain || text.is_empty() {
            return text.to_owned();
        }
        let style = match tone {
            Tone::Plain => Style::new(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Notice => AnsiColor::Yellow.on_default(),
            Tone::Strong => Style::new().bold(),
            Tone::Faint => Style::new().dimmed(),
        };
        format!("{style}{text}{style:#}")
    }

    fn cell(self, cell: Cell) -> comfy_table::Cell {
        let styled = comfy_table::Cell::new(&cell.text);
        if !self.coloured {
            return styled;
        }
        match cell.tone {
            Tone::Plain => styled,
            Tone::Good => styled.fg(Color::Green),
            Tone::Bad => styled.fg(Color::Red).add_attribute(Attribute::Bold),
            Tone::Notice => styled.fg(Color::Yellow),
            Tone::Strong => styled.add_attribute(Attribute::Bold),
            Tone::Faint => styled.add_attribute(Attribute::Dim),
        }
    }

    /// JSON as `serde_json` indents it, with coloured keys and values.
    fn json(self, value: &Value, depth: usize, out: &mut String) {
        let indent = |out: &mut String, depth: usize| {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
        };
        match value {
            Value::Array(items) if !items.is_empty() => {
                out.push('[');
                for (position, item) in items.iter().enumerate() {
                    out.push_str(if position == 0 { "" } else { "," });
                    indent(out, depth + 1);
                    self.json(item, depth + 1, out);
                }
                indent(out, depth);
                out.push(']');
            }
            Value::Object(fields) if !fields.is_empty() => {
                out.push('{');
                for (position, (key, item)) in fields.iter().enumerate() {
                    out.push_str(if position == 0 { "" } else { "," });
                    indent(out, depth + 1);
                    out.push_str(&self.paint(Tone::Strong, &Value::from(key.as_str()).to_string()));
                    out.push_str(": ");
                    self.json(item, depth + 1, out);
                }
                indent(out, depth);
                out.push('}');
            }
            Value::String(_) => out.push_str(&self.paint(Tone::Good, &value.to_string())),
            Value::Null => out.push_str(&self.paint(Tone::Faint, "null")),
            other => out.push_str(&self.paint(Tone::Notice, &other.to_string())),
        }
    }
}

impl Cell {
    pub(crate) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(Tone::Plain, text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(Tone::Plain, text)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::new(Tone::Plain, number.to_string())
    }
}

/// Writes text and a line end to standard output.
///
/// # Errors
/// When it cannot be written. A reader that went away is not an error.
pub(crate) fn write_out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let end: &[u8] = if text.is_empty() || text.ends_with('\n') {
        b""
    } else {
        b"\n"
    };
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(end))
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::failed(format_args!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

/// Says something on standard error; a reader that went away is ignored.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// As `az -o tsv`: one row per line, no header; tabs and line ends in values become blanks.
fn tab_separated(view: &View) -> String {
    let line = |row: &Vec<Cell>| {
        let cells: Vec<String> = row
            .iter()
            .map(|cell| cell.text.replace(['\t', '\n', '\r'], " "))
            .collect();
        cells.join("\t") + "\n"
    };
    view.rows.iter().map(line).collect()
}

fn unwritable(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format_args!(
        "the output cannot be written in this format: {error}"
    ))
}
