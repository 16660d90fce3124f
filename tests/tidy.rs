//! House rules that code can check: crate graph, licences, where `unsafe` may stand, file shapes.
#![expect(clippy::expect_used, reason = "a failed read is a failed check")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crate -> the crates of ours it may use. `control` names `packet` for the prefixes it compiles, `cli` is the edge.
const CRATE_GRAPH: &[(&str, &[&str])] = &[
    ("peerlane-packet", &[]),
    ("peerlane-model", &[]),
    ("peerlane-engine", &["packet"]),
    ("peerlane-port", &["packet"]),
    ("peerlane-control", &["engine", "model", "packet"]),
    ("peerlane-lab", &["model"]),
    ("peerlane-arm", &["control", "model"]),
    (
        "peerlane-daemon",
        &["arm", "control", "engine", "lab", "model", "packet", "port"],
    ),
    (
        "peerlane",
        &["control", "daemon", "engine", "lab", "model", "port"],
    ),
    ("peerlane-workspace", &[]),
];

/// May be linked into a binary that is MIT OR Apache-2.0: permissive, no copyleft.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "BSL-1.0",
    "Unlicense",
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Where the kernel or the CPU needs it (design: habits).
const UNSAFE_PLACES: &[&str] = &["crates/port/", "crates/lab/", "crates/engine/src/simd.rs"];

/// The steps of the packet path that have a file of their own.
const PATH_STEPS: &[&str] = &[
    "crates/packet/src/parse.rs",
    "crates/engine/src/classify.rs",
    "crates/engine/src/flow.rs",
    "crates/engine/src/filter.rs",
    "crates/engine/src/route.rs",
    "crates/engine/src/admit.rs",
    "crates/engine/src/rewrite.rs",
    "crates/engine/src/link.rs",
];

/// What the engine must not know: `now` is an argument, ports and logs are others' work.
const OUTSIDE_ENGINE: &[&str] = &[
    "Instant",
    "SystemTime",
    "thread",
    "fs",
    "net",
    "Mutex",
    "RwLock",
    "tracing",
    "println",
    "eprintln",
    "dyn",
];

/// Lines of code before a file's tests. 400 is the aim; far beyond it a file hides a second idea.
const FILE_LINES: usize = 600;

/// Names that say nothing about what a type is.
const EMPTY_NAMES: &[&str] = &["Manager", "Handler", "Helper", "Util", "Utils"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository below `dir` whose path ends so, sorted; build output and .git left out.
fn files(dir: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of the repository") {
            let path = entry.expect("a directory entry").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    open.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a text file of the repository")
}

/// The path as people write it.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo metadata starts");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn no_findings(what: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{what}:\n  {}", findings.join("\n  "));
}

/// Code without `//` comments and without string literals, line by line, up to the file's tests when asked.
fn code_lines(source: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    source.lines().enumerate().map(|(index, line)| {
        let mut code = String::new();
        let (mut in_string, mut escaped) = (false, false);
        let mut previous = ' ';
        for c in line.chars() {
            if in_string {
                in_string = escaped || c != '"';
                escaped = !escaped && c == '\\';
            } else if c == '"' && previous != '\'' {
                in_string = true;
            } else if c == '/' && previous == '/' {
                code.pop();
                break;
            } else {
                code.push(c);
            }
            previous = c;
        }
        (index + 1, code)
    })
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// SPDX with the old `/` for OR; an exception after WITH only adds permissions.
fn licence_allowed(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let allowed = any_of(&tokens, &mut at);
    allowed && at == tokens.len()
}

fn any_of(tokens: &[&str], at: &mut usize) -> bool {
    let mut allowed = all_of(tokens, at);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        allowed |= all_of(tokens, at);
    }
    allowed
}

fn all_of(tokens: &[&str], at: &mut usize) -> bool {
    let mut allowed = one_licence(tokens, at);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        allowed &= one_licence(tokens, at);
    }
    allowed
}

fn one_licence(tokens: &[&str], at: &mut usize) -> bool {
    let Some(token) = tokens.get(*at) else {
        return false;
    };
    *at += 1;
    if *token == "(" {
        let allowed = any_of(tokens, at);
        *at += 1;
        return allowed;
    }
    if tokens.get(*at) == Some(&"WITH") {
        *at += 2;
    }
    LICENCES.contains(token)
}

/// The value of a top-level key of a lab file, as written.
fn top_level<'a>(lab: &'a str, key: &str) -> Option<&'a str> {
    lab.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .map(str::trim)
}

#[test]
fn crate_graph_is_the_designs() {
    let metadata = metadata(&["--no-deps"]);
    let built: BTreeMap<String, BTreeSet<String>> = list(&metadata, "packages")
        .iter()
        .map(|package| {
            let ours = list(package, "dependencies")
                .iter()
                .filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string())
                .map(|dependency| {
                    text(dependency, "name")
                        .trim_start_matches("peerlane-")
                        .to_owned()
                })
                .collect();
            (text(package, "name").to_owned(), ours)
        })
        .collect();
    let drawn: BTreeMap<String, BTreeSet<String>> = CRATE_GRAPH
        .iter()
        .map(|(name, uses)| {
            (
                (*name).to_owned(),
                uses.iter().map(|name| (*name).to_owned()).collect(),
            )
        })
        .collect();
    assert_eq!(
        built, drawn,
        "the crates and what they use differ from the graph (left: built)"
    );
}

#[test]
fn every_crate_inherits_the_lints() {
    let metadata = metadata(&["--no-deps"]);
    let findings: Vec<String> = list(&metadata, "packages")
        .iter()
        .map(|package| PathBuf::from(text(package, "manifest_path")))
        .filter(|manifest| !read(manifest).contains("[lints]\nworkspace = true"))
        .map(|manifest| shown(&manifest))
        .collect();
    no_findings("without `[lints] workspace = true`", &findings);
}

#[test]
fn dependencies_are_permissive_and_from_crates_io() {
    let metadata = metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let mut findings = Vec::new();
    for package in list(&metadata, "packages") {
        let (name, licence) = (text(package, "name"), text(package, "license"));
        if !licence_allowed(licence) {
            findings.push(format!("{name}: licence `{licence}`"));
        }
        let ours = CRATE_GRAPH.iter().any(|(ours, _)| *ours == name);
        if !ours && text(package, "source") != CRATES_IO {
            findings.push(format!("{name}: source {}", package["source"]));
        }
    }
    no_findings("dependencies that the house does not take", &findings);
}

#[test]
fn licence_expressions_are_read_right() {
    for allowed in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-2.0 OR MIT",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
    ] {
        assert!(licence_allowed(allowed), "{allowed}");
    }
    assert!(licence_allowed("Apache-2.0 WITH LLVM-exception"));
    for refused in [
        "",
        "GPL-3.0",
        "MIT AND GPL-2.0",
        "(MIT OR Apache-2.0) AND MPL-2.0",
        "(MIT",
    ] {
        assert!(!licence_allowed(refused), "{refused}");
    }
}

#[test]
fn rust_files_say_their_purpose_first() {
    let findings: Vec<String> = files("", ".rs")
        .iter()
        .filter(|path| {
            let source = read(path);
            !source.starts_with("//! ") || source.lines().next().is_some_and(|line| line.len() < 20)
        })
        .map(|path| shown(path))
        .collect();
    no_findings(
        "the first line is no `//!` line that states the purpose",
        &findings,
    );
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let mut findings = Vec::new();
    for path in files("", ".rs") {
        let name = shown(&path);
        if UNSAFE_PLACES.iter().any(|place| name.starts_with(place)) {
            continue;
        }
        let source = read(&path);
        let lines = code_lines(&source).filter(|(_, code)| words(code).any(|word| word == "unsafe"));
        findings.extend(lines.map(|(line, _)| format!("{name}:{line}")));
    }
    no_findings("`unsafe` outside port, lab and engine/src/simd.rs", &findings);
}

#[test]
fn unsafe_blocks_state_their_invariant() {
    let mut findings = Vec::new();
    for path in files("crates", ".rs") {
        let source = read(&path);
        let lines: Vec<&str> = source.lines().collect();
        for (line, code) in code_lines(&source) {
            let block = code.contains("unsafe {") || code.contains("unsafe impl");
            let stated = lines[line.saturating_sub(6)..line]
                .iter()
                .any(|line| line.contains("SAFETY:"));
            if block && !stated {
                findings.push(format!("{}:{line}", shown(&path)));
            }
        }
    }
    no_findings("`unsafe` without a SAFETY comment within five lines", &findings);
}

#[test]
fn no_unfinished_code() {
    // Put together here, or this file would find itself.
    let stub = ["not built", " yet"].concat();
    let mut findings = Vec::new();
    for path in files("", ".rs") {
        let source = read(&path);
        for ((line, code), whole) in code_lines(&source).zip(source.lines()) {
            let unfinished = ["todo!", "dbg!", "unimplemented!"]
                .iter()
                .any(|mark| code.contains(mark));
            if unfinished || whole.contains(&stub) {
                findings.push(format!("{}:{line}", shown(&path)));
            }
        }
    }
    no_findings("todo!, dbg!, unimplemented! or a stub that says so", &findings);
}

#[test]
fn steps_say_what_they_read_write_and_end_with() {
    let mut findings = Vec::new();
    for step in PATH_STEPS {
        let source = read(&root().join(step));
        let purpose: String = source
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        if !["Reads", "Writes", "Ends with"]
            .iter()
            .all(|what| purpose.contains(what))
        {
            findings.push((*step).to_owned());
        }
    }
    no_findings(
        "steps of the packet path without *Reads / Writes / Ends with*",
        &findings,
    );
}

#[test]
fn engine_stays_pure() {
    let mut findings = Vec::new();
    for path in files("crates/engine/src", ".rs") {
        let source = read(&path);
        let code = code_lines(&source).take_while(|(_, code)| code != "#[cfg(test)]");
        for (line, code) in code {
            if words(&code).any(|word| OUTSIDE_ENGINE.contains(&word)) {
                findings.push(format!("{}:{line}", shown(&path)));
            }
        }
    }
    no_findings(
        "clocks, threads, files, sockets, locks, printing or `dyn` in the engine",
        &findings,
    );
}

#[test]
fn files_hold_one_idea() {
    let mut findings = Vec::new();
    for path in files("crates", ".rs") {
        if shown(&path).contains("/tests/") {
            continue;
        }
        let lines = read(&path)
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .count();
        if lines > FILE_LINES {
            findings.push(format!("{}: {lines} lines", shown(&path)));
        }
    }
    no_findings(
        "more than 600 lines before the tests; look for the second idea",
        &findings,
    );
}

#[test]
fn types_are_named_for_what_they_are() {
    let mut findings = Vec::new();
    for path in files("crates", ".rs") {
        let source = read(&path);
        for (line, code) in code_lines(&source) {
            let all: Vec<&str> = words(&code).collect();
            let empty = |pair: &[&str]| {
                ["struct", "enum", "trait", "type"].contains(&pair[0])
                    && EMPTY_NAMES.iter().any(|name| pair[1].ends_with(name))
            };
            if all.windows(2).any(empty) {
                findings.push(format!("{}:{line}", shown(&path)));
            }
        }
    }
    no_findings("a type named Manager, Handler, Helper or Util", &findings);
}

#[test]
fn examples_show_a_profile_and_prove_themselves() {
    let mut findings = Vec::new();
    let examples = files("examples", ".vnet.yaml");
    assert!(examples.len() >= 7, "only {} examples", examples.len());
    for path in &examples {
        let lab = read(path);
        for key in ["profile", "tests"] {
            if top_level(&lab, key).is_none() {
                findings.push(format!("{} has no `{key}:`", shown(path)));
            }
        }
        if !lab.starts_with("# ") {
            findings.push(format!("{} does not begin by saying what it shows", shown(path)));
        }
    }
    no_findings("examples", &findings);
}

#[test]
fn lab_names_are_the_file_names() {
    let mut findings = Vec::new();
    let mut labs = files("examples", ".vnet.yaml");
    labs.extend(files("tests/lab/cases", ".vnet.yaml"));
    for path in &labs {
        let stem = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let stem = stem.trim_end_matches(".vnet.yaml").to_lowercase();
        let lab = read(path);
        if top_level(&lab, "name") != Some(&stem) || top_level(&lab, "tests").is_none() {
            findings.push(shown(path));
        }
    }
    no_findings(
        "labs without `tests:`, or whose `name:` is not the file's",
        &findings,
    );
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // Put together here, or this file would find itself.
    let marks = [
        ["/wo", "rk/"].concat(),
        ["/tmp", "/wt"].concat(),
        ["/home", "/"].concat(),
        ["/ro", "ot/"].concat(),
    ];
    let mut findings = Vec::new();
    for ending in [".rs", ".toml", ".md", ".yaml", ".json"] {
        for path in files("", ending) {
            let source = read(&path);
            for (index, line) in source.lines().enumerate() {
                if marks.iter().any(|mark| line.contains(mark.as_str())) {
                    findings.push(format!("{}:{}", shown(&path), index + 1));
                }
            }
        }
    }
    no_findings("paths of one machine", &findings);
}

#[test]
fn code_is_told_from_comments_and_strings() {
    let source = "let a = \"unsafe // no\"; // unsafe\nunsafe { b('\"') }";
    let found: Vec<usize> = code_lines(source)
        .filter(|(_, code)| words(code).any(|word| word == "unsafe"))
        .map(|(line, _)| line)
        .collect();
    assert_eq!(found, [2]);
}
