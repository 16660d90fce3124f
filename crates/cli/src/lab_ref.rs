//! What a LAB argument names: a file, or a running lab.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A lab file that could be a whole data centre stays far below this; more is a mistake or an attack.
const FILE_LIMIT_BYTES: u64 = 16 << 20;

/// A LAB argument by its spelling, before anything is looked up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LabRef {
    /// A path, or `-`.
    File(String),
    Running(String),
    /// Left out: the one lab that runs.
    Only,
}

/// A lab file, read.
#[derive(Debug)]
pub(crate) struct Source {
    /// As messages name it.
    pub(crate) name: String,
    /// None for standard input.
    pub(crate) path: Option<PathBuf>,
    pub(crate) text: String,
}

impl LabRef {
    /// A file when it holds `/`, ends in .yaml, .yml or .json, is `-`, `.` or `..`; else the name of a running lab.
    pub(crate) fn parse(argument: Option<&str>) -> Self {
        let Some(text) = argument else { return Self::Only };
        let extension = Path::new(text).extension().and_then(|e| e.to_str());
        let file = text.contains('/')
            || matches!(text, "-" | "." | "..")
            || matches!(extension, Some("yaml" | "yml" | "json"));
        if file {
            Self::File(text.to_owned())
        } else {
            Self::Running(text.to_owned())
        }
    }
}

impl Source {
    /// Reads a FILE argument: a file, the only `*.vnet.yaml` of a directory, or `-` for standard input.
    ///
    /// # Errors
    /// Not found, not the only one, not readable, not UTF-8, or too large.
    pub(crate) fn read(argument: &str) -> Result<Self, Failure> {
        if argument == "-" {
            let text = read_limited(&mut io::stdin().lock(), "standard input")?;
            return Ok(Self {
                name: "<stdin>".to_owned(),
                path: None,
                text,
            });
        }
        let mut path = PathBuf::from(argument);
        if path.is_dir() {
            path = only_lab_file(&path)?;
        }
        let name = path.display().to_string();
        let mut file = fs::File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::not_found(format_args!("no such file: {name}"))
                .help("`peerlane list` names the running labs; a lab file ends in .vnet.yaml"),
            _ => Failure::failed(format_args!("cannot open {name}: {error}")),
        })?;
        let text = read_limited(&mut file, &name)?;
        Ok(Self {
            name,
            path: Some(path),
            text,
        })
    }
}

fn read_limited(reader: &mut impl Read, name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    reader
        .take(FILE_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format_args!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > FILE_LIMIT_BYTES {
        return Err(Failure::failed(format_args!(
            "{name} is larger than 16 MiB; no lab file needs that"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        Failure::failed(format_args!("{name} is not UTF-8 text (byte {offset})"))
    })
}

fn only_lab_file(directory: &Path) -> Result<PathBuf, Failure> {
    let shown = directory.display();
    let unreadable =
        |error: io::Error| Failure::failed(format_args!("cannot read the directory {shown}: {error}"));
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.to_str().is_some_and(|name| name.ends_with(".vnet.yaml")) {
            found.push(path);
        }
    }
    found.sort();
    match found.as_slice() {
        [] => Err(Failure::not_found(format_args!("no *.vnet.yaml in {shown}"))),
        [path] => Ok(path.clone()),
        [..] => {
            let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::usage(format_args!(
                "{} lab files in {shown}: {}",
                names.len(),
                names.join(", ")
            ))
            .help("name one of them"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_tells_files_from_names() {
        for file in [
            "-",
            ".",
            "..",
            "./lab",
            "a/b",
            "lab.yaml",
            "lab.yml",
            "lab.json",
            "lab.vnet.yaml",
        ] {
            assert_eq!(LabRef::parse(Some(file)), LabRef::File(file.to_owned()));
        }
        for name in ["lab", "hub-spoke", "yaml", "lab-json"] {
            assert_eq!(LabRef::parse(Some(name)), LabRef::Running(name.to_owned()));
        }
        assert_eq!(LabRef::parse(None), LabRef::Only);
    }
}
