//! The lab that is wanted, on disk: a transactional store in the run directory, written before a change is acknowledged.
//!
//! It outlives the daemon, as the keeper does: the next daemon forwards by it. A row per declared object, each change one
//! transaction; a lab is read whole or not at all.

mod rows;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lab::RunDir;
use model::Config;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::labs;
use crate::up::{Forwarding, UpError};
use rows::{Form, Section};

/// In the run directory.
pub(crate) const FILE: &str = "state.redb";
/// Of the tables below; raised when a program of before could not read them.
const VERSION: u64 = 1;
/// Labs are some hundred KiB; the default of 1 GiB is for other stores.
const CACHE_BYTES: usize = 4 << 20;

/// By number: `version`, `generation`.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// By name: `file`, `forwarding` (JSON), `text` where the user's own file still declares the lab, `serviceTags` where it names a file.
const WORDS: TableDefinition<'_, &str, &str> = TableDefinition::new("words");
/// By property of the lab file: its place in it, its [`Form`], and how many rows it has.
const SECTIONS: TableDefinition<'_, &str, (u32, u8, u32)> = TableDefinition::new("sections");
/// By property and place in it: JSON.
const ROWS: TableDefinition<'_, (&str, u32), &str> = TableDefinition::new("rows");

/// The open store of one lab. One process at a time has it.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    path: PathBuf,
    written: Option<Written>,
}

/// A lab as it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) generation: u64,
    /// How the file was named to `up` or `apply`.
    pub(crate) file: &'a str,
    pub(crate) forwarding: Forwarding,
    pub(crate) config: &'a Config,
    /// The user's own file, where it declares `config` and needs no more words.
    pub(crate) text: Option<&'a str>,
}

/// What an earlier daemon stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) generation: u64,
    pub(crate) file: String,
    pub(crate) forwarding: Forwarding,
    /// The lab file that declares it all, as JSON.
    pub(crate) declared: String,
    pub(crate) text: Option<String>,
    /// What the file of service tags held.
    pub(crate) service_tags: Option<String>,
}

/// What the latest transaction left in the store, to write only what differs.
#[derive(Debug, Default)]
struct Written {
    sections: Vec<Section>,
    text: Option<String>,
    service_tags: Option<String>,
}

impl<'a> Wanted<'a> {
    fn service_tags(&self) -> Option<&'a str> {
        let file = self.config.service_tags.as_ref()?;
        Some(&file.text)
    }
}

type Result<T> = std::result::Result<T, UpError>;

impl Store {
    /// An empty store, in place of any that is there.
    ///
    /// # Errors
    /// It cannot be written, or another process has it.
    pub(crate) fn create(run_dir: &RunDir) -> Result<Self> {
        Self::create_at(&run_dir.file(FILE))
    }

    /// One for a lab that ends with its daemon: nothing is written.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn in_memory() -> Result<Self> {
        let path = PathBuf::from("memory");
        let backend = redb::backends::InMemoryBackend::new();
        let database = builder().create_with_backend(backend);
        Ok(Self {
            database: database.map_err(|error| cannot("make", &path, &error))?,
            path,
            written: None,
        })
    }

    /// The store of a lab that an earlier daemon brought up, and what is in it.
    ///
    /// # Errors
    /// It is missing, damaged, of another version, or another process has it. Nothing of it is used then.
    pub(crate) fn open(run_dir: &RunDir) -> Result<(Self, Stored)> {
        let path = run_dir.file(FILE);
        let opened = check_elsewhere(&path).and_then(|()| Self::open_at(&path));
        // Where its newest pages are damaged the database falls back to those before, as after a loss of power.
        let opened = opened.and_then(|(store, stored)| {
            match stored.generation < labs::remembered_generation(run_dir) {
                true => Err(damaged(&path, "its latest change is missing")),
                false => Ok((store, stored)),
            }
        });
        opened.map_err(|error| {
            let lab = run_dir.lab();
            error.with_remedy(format!(
                "its programs still run and nothing forwards; `peerlane down {lab}` ends them, then `peerlane up FILE` begins anew"
            ))
        })
    }

    /// Makes `wanted` what the next daemon begins with: all of it or, when this fails or the process dies, nothing.
    ///
    /// # Errors
    /// The disk is full, or fails.
    pub(crate) fn commit(&mut self, wanted: Wanted<'_>) -> Result<()> {
        let sections = rows::split(wanted.config)
            .map_err(|error| UpError::failed(format!("cannot write down what the lab is: {error}")))?;
        let text = wanted.text.map(str::to_owned);
        let past = self.written.take().unwrap_or_default();
        let forwarding = serde_json::json!(wanted.forwarding).to_string();
        let done = write(&self.database, wanted, &forwarding, &past, &sections);
        // After a failure nobody knows what is there: the next commit writes all.
        done.map_err(|error| {
            cannot("write", &self.path, &error)
                .with_remedy("the lab is as it was; look at the space left on this disk (df), then try again")
        })?;
        self.written = Some(Written {
            sections,
            text,
            service_tags: wanted.service_tags().map(str::to_owned),
        });
        Ok(())
    }

    /// A generation that declares nothing new (routes were learned).
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub(crate) fn count(&self, generation: u64) -> Result<()> {
        let write = || -> std::result::Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction
                .open_table(NUMBERS)?
                .insert("generation", generation)?;
            Ok(transaction.commit()?)
        };
        write().map_err(|error| cannot("write", &self.path, &error))
    }

    fn create_at(path: &Path) -> Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(cannot("replace", path, &error));
            }
            _ => {}
        }
        Ok(Self {
            database: builder()
                .create(path)
                .map_err(|error| cannot("make", path, &error))?,
            path: path.to_owned(),
            written: None,
        })
    }

    fn open_at(path: &Path) -> Result<(Self, Stored)> {
        let mut database = builder()
            .open(path)
            .map_err(|error| cannot("open", path, &error))?;
        match database.check_integrity() {
            Ok(true) => {}
            Ok(false) => return Err(damaged(path, "its pages contradict each other")),
            Err(error) => return Err(damaged(path, &error.to_string())),
        }
        let (stored, written) = read(&database, path)?;
        let store = Self {
            database,
            path: path.to_owned(),
            written: Some(written),
        };
        Ok((store, stored))
    }
}

/// The hidden subcommand `store PATH`: reads a store as a daemon does, and says what is wrong with it.
#[must_use]
pub fn check(path: &Path) -> u8 {
    match Store::open_at(path) {
        Ok(_) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

/// Reads the store in a process of its own: what a disk made of it may end the one that reads it, and that must not be
/// the daemon, which could not say why.
fn check_elsewhere(path: &Path) -> Result<()> {
    let checked = Command::new("/proc/self/exe")
        .arg0("peerlane")
        .arg("store")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| cannot("check", path, &error))?;
    if checked.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&checked.stderr);
    if checked.status.code() == Some(1) {
        return Err(UpError::failed(said.trim()));
    }
    let said = said
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with("thread"));
    let why = said.map_or_else(|| checked.status.to_string(), str::to_owned);
    Err(damaged(path, &why))
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn write(
    database: &Database,
    wanted: Wanted<'_>,
    forwarding: &str,
    past: &Written,
    sections: &[Section],
) -> std::result::Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut numbers = transaction.open_table(NUMBERS)?;
        numbers.insert("version", VERSION)?;
        numbers.insert("generation", wanted.generation)?;
        let mut words = transaction.open_table(WORDS)?;
        words.insert("file", wanted.file)?;
        words.insert("forwarding", forwarding)?;
        for (word, before, now) in [
            ("text", &past.text, wanted.text),
            ("serviceTags", &past.service_tags, wanted.service_tags()),
        ] {
            match now {
                Some(text) if before.as_deref() != now => drop(words.insert(word, text)?),
                None if before.is_some() || past.sections.is_empty() => drop(words.remove(word)?),
                _ => {}
            }
        }
        let mut heads = transaction.open_table(SECTIONS)?;
        let mut rows = transaction.open_table(ROWS)?;
        let empty = past.sections.is_empty();
        if empty {
            heads.retain(|_, _| false)?;
            rows.retain(|_, _| false)?;
        }
        for gone in &past.sections {
            if !sections.iter().any(|section| section.name == gone.name) {
                heads.remove(gone.name.as_str())?;
                for index in 0..gone.rows.len() {
                    rows.remove((gone.name.as_str(), place(index)))?;
                }
            }
        }
        for (position, section) in sections.iter().enumerate() {
            let before = past.sections.iter().find(|before| before.name == section.name);
            let before = before.map_or(&[][..], |before| &before.rows);
            let name = section.name.as_str();
            heads.insert(
                name,
                (place(position), section.form.code(), place(section.rows.len())),
            )?;
            for (index, row) in section.rows.iter().enumerate() {
                if before.get(index) != Some(row) {
                    rows.insert((name, place(index)), row.as_str())?;
                }
            }
            for index in section.rows.len()..before.len() {
                rows.remove((name, place(index)))?;
            }
        }
    }
    Ok(transaction.commit()?)
}

fn read(database: &Database, path: &Path) -> Result<(Stored, Written)> {
    let broken = |error: redb::Error| damaged(path, &error.to_string());
    let transaction = database.begin_read().map_err(|error| broken(error.into()))?;
    let numbers = transaction
        .open_table(NUMBERS)
        .map_err(|error| broken(error.into()))?;
    let number = |name: &str| -> Result<u64> {
        let value = numbers.get(name).map_err(|error| broken(error.into()))?;
        value
            .map(|value| value.value())
            .ok_or_else(|| damaged(path, &format!("it says no {name}")))
    };
    let version = number("version")?;
    if version != VERSION {
        return Err(UpError::failed(format!(
            "{} is of version {version}, and this program reads version {VERSION}",
            path.display()
        )));
    }
    let words = transaction
        .open_table(WORDS)
        .map_err(|error| broken(error.into()))?;
    let word = |name: &str| -> Result<Option<String>> {
        let value = words.get(name).map_err(|error| broken(error.into()))?;
        Ok(value.map(|value| value.value().to_owned()))
    };
    let needed = |name: &str| word(name)?.ok_or_else(|| damaged(path, &format!("it says no {name}")));
    let sections = read_sections(&transaction)
        .map_err(broken)?
        .ok_or_else(|| damaged(path, "a part of the lab is missing"))?;
    let forwarding = needed("forwarding")?;
    let forwarding =
        serde_json::from_str(&forwarding).map_err(|error| damaged(path, &format!("forwarding: {error}")))?;
    let (text, service_tags) = (word("text")?, word("serviceTags")?);
    let stored = Stored {
        generation: number("generation")?,
        file: needed("file")?,
        forwarding,
        declared: rows::join(&sections),
        text: text.clone(),
        service_tags: service_tags.clone(),
    };
    let written = Written {
        sections,
        text,
        service_tags,
    };
    Ok((stored, written))
}

/// None: rows are missing, or there are too many.
fn read_sections(
    transaction: &redb::ReadTransaction,
) -> std::result::Result<Option<Vec<Section>>, redb::Error> {
    let heads = transaction.open_table(SECTIONS)?;
    let rows = transaction.open_table(ROWS)?;
    let mut found = Vec::new();
    let mut counted = 0_u64;
    for head in heads.iter()? {
        let (name, head) = head?;
        let (name, (position, form, count)) = (name.value().to_owned(), head.value());
        let Some(form) = Form::of_code(form) else {
            return Ok(None);
        };
        let mut section = Section {
            name,
            form,
            rows: Vec::new(),
        };
        for index in 0..count {
            match rows.get((section.name.as_str(), index))? {
                Some(row) => section.rows.push(row.value().to_owned()),
                None => return Ok(None),
            }
        }
        counted += u64::from(count);
        found.push((position, section));
    }
    found.sort_by_key(|(position, _)| *position);
    let whole = redb::ReadableTableMetadata::len(&rows)? == counted && !found.is_empty();
    Ok(whole.then(|| found.into_iter().map(|(_, section)| section).collect()))
}

/// A lab file is some MiB at most.
fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> UpError {
    UpError::failed(format!(
        "cannot {what} the lab's store {}: {error}",
        path.display()
    ))
}

fn damaged(path: &Path, why: &str) -> UpError {
    UpError::failed(format!("the lab's store {} is damaged: {why}", path.display()))
}

#[cfg(test)]
mod tests;
