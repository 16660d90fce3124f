//! What a LAB argument names, and opening it: its checked model and, where the lab runs, its daemon.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use daemon::api::LabState;
use daemon::{Client, ClientError, Listed, UpError};
use model::{Config, Errors, Loaded, Source, Topology};

use crate::diagnostics;
use crate::failure::{Failure, exit};
use crate::output::{Palette, say};

/// Of standard input; no lab file needs as much, and `model` refuses what is larger.
const STDIN_LIMIT_BYTES: u64 = 64 << 20;

/// A LAB argument by its spelling, before anything is looked up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LabRef {
    /// A path, or `-`.
    File(String),
    Running(String),
    /// Left out: the one lab that runs.
    Only,
}

/// A lab to ask about.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) config: Config,
    pub(crate) topology: Topology,
    pub(crate) text: String,
    /// Absolute; None for standard input.
    pub(crate) path: Option<PathBuf>,
    /// None: the lab is a file.
    pub(crate) running: Option<Client>,
}

impl LabRef {
    /// A file when it holds `/`, ends in .yaml, .yml or .json, is `-`, `.` or `..`; else the name of a running lab.
    pub(crate) fn parse(argument: Option<&str>) -> Self {
        let Some(text) = argument else { return Self::Only };
        let extension = Path::new(text)
            .extension()
            .and_then(|extension| extension.to_str());
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

impl Lab {
    /// Opens the lab that a LAB argument names.
    ///
    /// # Errors
    /// There is no such lab, or its file has errors, which are said in full.
    pub(crate) fn open(argument: Option<&str>) -> Result<Self, Failure> {
        match LabRef::parse(argument) {
            LabRef::File(file) => Self::from_file(&file),
            reference => Self::from_daemon(&running(&reference)?),
        }
    }

    /// Opens a lab file.
    ///
    /// # Errors
    /// It cannot be read, or has errors, which are said in full.
    pub(crate) fn from_file(file: &str) -> Result<Self, Failure> {
        Self::from_source(file, source(file)?)
    }

    /// Opens a lab that no file declares; `name` stands for it in messages.
    ///
    /// # Errors
    /// It has errors, which are said in full.
    pub(crate) fn from_text(name: &str, text: String) -> Result<Self, Failure> {
        let name = name.to_owned();
        Self::from_source("-", Source::Text { name, text })
    }

    fn from_source(file: &str, source: Source) -> Result<Self, Failure> {
        let loaded = load(source).map_err(|errors| refused(&errors))?;
        let path = Path::new(&loaded.file)
            .canonicalize()
            .ok()
            .filter(|_| file != "-");
        Ok(Self {
            config: loaded.config,
            topology: loaded.topology,
            text: loaded.text,
            path,
            running: None,
        })
    }

    fn from_daemon(listed: &Listed) -> Result<Self, Failure> {
        let client = connect(listed)?;
        let file = client.lab().map_err(unanswered)?;
        // Of a lab that runs, events may have happened by now.
        let source = Source::Text {
            name: file.file,
            text: file.text,
        };
        let loaded =
            model::restore(source, file.service_tags.as_deref()).map_err(|errors| refused(&errors))?;
        Ok(Self {
            config: loaded.config,
            topology: as_learned(&client, loaded.topology)?,
            text: loaded.text,
            path: None,
            running: Some(client),
        })
    }
}

/// The model of a running lab with the routes that its gateways have learned by now.
///
/// # Errors
/// The daemon does not answer.
pub(crate) fn as_learned(client: &Client, mut topology: Topology) -> Result<Topology, Failure> {
    daemon::learned::learn(&mut topology, client.learned_routes().map_err(unanswered)?);
    Ok(topology)
}

/// The source of a FILE argument: a file, the only `*.vnet.yaml` of a directory, or `-` for standard input.
///
/// # Errors
/// There is no such file (exit code 3), or standard input cannot be read.
pub(crate) fn source(argument: &str) -> Result<Source, Failure> {
    if argument == "-" {
        let mut bytes = Vec::new();
        let read = io::stdin().lock().take(STDIN_LIMIT_BYTES).read_to_end(&mut bytes);
        read.map_err(|error| Failure::failed(format_args!("cannot read standard input: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            Failure::failed(format_args!("standard input is not UTF-8 text (byte {good})"))
        })?;
        return Ok(Source::Text {
            name: "<stdin>".to_owned(),
            text,
        });
    }
    let path = model::find_lab_file(Path::new(argument)).map_err(|error| {
        let failure = Failure::not_found(error);
        if Path::new(argument).is_dir() {
            return failure;
        }
        failure.help("a lab file ends in .vnet.yaml; `peerlane list` names the running labs")
    })?;
    Ok(Source::Path(path))
}

/// The checked model of a lab file.
///
/// # Errors
/// It cannot be read, or has errors, which are said in full.
pub(crate) fn from_file(file: &str) -> Result<Loaded, Failure> {
    load(source(file)?).map_err(|errors| refused(&errors))
}

/// Reads and checks a lab file; notes about it are said on standard error.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn load(source: Source) -> Result<Loaded, Errors> {
    let loaded = model::load(source)?;
    for note in &loaded.notes {
        say(note);
    }
    Ok(loaded)
}

/// The running lab of a LAB argument. A file means the lab of the name it gives.
///
/// # Errors
/// No such lab runs, or none was named and not exactly one runs.
pub(crate) fn running(reference: &LabRef) -> Result<Listed, Failure> {
    let name = match reference {
        LabRef::File(file) => Some(Lab::from_file(file)?.topology.name),
        LabRef::Running(name) => Some(name.clone()),
        LabRef::Only => None,
    };
    let mut labs = daemon::list().map_err(not_up)?;
    let names: Vec<&str> = labs.iter().map(|lab| lab.name.as_str()).collect();
    let names = names.join(", ");
    match name {
        Some(name) => labs.into_iter().find(|lab| lab.name == name).ok_or_else(|| {
            let missing = Failure::not_found(format_args!("no lab {name} is running"));
            if names.is_empty() {
                missing.help("no lab is running; `peerlane up FILE` brings one up (a file's name holds `/` or ends in .yaml)")
            } else {
                missing.help(format_args!("running: {names}"))
            }
        }),
        None if labs.len() == 1 => Ok(labs.remove(0)),
        None if labs.is_empty() => {
            Err(Failure::not_found("no lab is running").help("name a lab file, or bring one up with `peerlane up FILE`"))
        }
        None => {
            Err(Failure::usage(format_args!("several labs are running: {names}")).help("name one of them"))
        }
    }
}

/// A running lab's daemon.
///
/// # Errors
/// The daemon is gone, or does not answer.
pub(crate) fn connect(listed: &Listed) -> Result<Client, Failure> {
    if listed.state == LabState::Orphaned {
        let name = &listed.name;
        return Err(Failure::failed(format_args!(
            "the daemon of lab {name} is gone; its programs still run"
        ))
        .help(format_args!(
            "`peerlane up {}` goes on with it, `peerlane down {name}` ends it",
            listed.file
        )));
    }
    Client::connect(&listed.socket).map_err(unanswered)
}

/// A daemon's refusal or silence as a failure.
pub(crate) fn unanswered(error: ClientError) -> Failure {
    match error {
        ClientError::NotRunning(_) => Failure::not_found(error),
        _ => Failure::failed(error),
    }
}

/// A lab that did not come up as a failure, with its remedy.
pub(crate) fn not_up(error: UpError) -> Failure {
    let failure = Failure::new(error.kind.exit_code(), &error.message);
    match error.remedy {
        Some(remedy) => failure.help(remedy),
        None => failure,
    }
}

/// Says every error of a file on standard error.
fn refused(errors: &Errors) -> Failure {
    say(diagnostics::render(errors, Palette::for_stderr()).trim_end());
    Failure::new(exit::FAILURE, format_args!("{} is not a valid lab", errors.file))
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
