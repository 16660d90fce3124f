//! Where a lab comes from: a file, or text already read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Errors, ModelError};
use crate::yaml::MOST_BYTES;

#[derive(Clone, Debug)]
pub enum Source {
    /// A file, or a directory with one lab file in it.
    Path(PathBuf),
    /// Text under a name for messages, such as standard input's.
    Text { name: String, text: String },
}

/// Why a path leads to no lab file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoLabFile(String);

impl fmt::Display for NoLabFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for NoLabFile {}

/// The file itself, or for a directory the only `*.vnet.yaml` in it.
///
/// # Errors
/// The path does not exist, or the directory holds no or several lab files.
pub fn find_lab_file(path: &Path) -> Result<PathBuf, NoLabFile> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| NoLabFile(format!("cannot read {shown}: {error}"));
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(path.to_owned());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().to_string_lossy().ends_with(".vnet.yaml") {
            found.push(entry.path());
        }
    }
    found.sort();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(NoLabFile(format!(
            "{shown} holds no *.vnet.yaml: name a lab file"
        ))),
        [first, second, ..] => Err(NoLabFile(format!(
            "{shown} holds several lab files ({}, {}, …): name one",
            first.display(),
            second.display()
        ))),
    }
}

impl Source {
    /// The name for messages, and the text.
    pub(crate) fn read(self) -> Result<(String, String), Errors> {
        let (file, bytes) = match self {
            Self::Text { name, text } => (name, text.into_bytes()),
            Self::Path(path) => {
                let file = path.display().to_string();
                let path = find_lab_file(&path).map_err(|error| refuse(&file, error.to_string(), 0, ""))?;
                let file = path.display().to_string();
                let bytes = read_bounded(&path)
                    .map_err(|error| refuse(&file, format!("cannot read the file: {error}"), 0, ""))?;
                (file, bytes)
            }
        };
        if bytes.len() > MOST_BYTES {
            return Err(refuse(
                &file,
                format!("the file is larger than {} MiB", MOST_BYTES >> 20),
                0,
                "",
            ));
        }
        match String::from_utf8(bytes) {
            // A byte order mark is no part of the text: it has no column.
            Ok(text) => Ok((
                file,
                text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text),
            )),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                Err(refuse(
                    &file,
                    "the file is not UTF-8 text".to_owned(),
                    good,
                    &text,
                ))
            }
        }
    }
}

/// One byte more than is allowed tells that there is more, of a device without end too.
pub(crate) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An error of the file as a whole, at the byte where it shows.
fn refuse(file: &str, message: String, at: usize, text: &str) -> Errors {
    let before = text.get(..at).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let error = ModelError {
        code: "Sim.Syntax",
        message,
        target: String::new(),
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        help: None,
        span: at..at,
    };
    Errors {
        file: file.to_owned(),
        text: text.to_owned(),
        errors: vec![error],
    }
}
