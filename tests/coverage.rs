//! Writes and checks `docs/spec-coverage.md`: every rule of the specification, and the tests that show it or why none can.
#![expect(clippy::expect_used, reason = "a failed read is a failed check")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The rules of the specification. A rule lost from the table must not go unnoticed.
const RULES: usize = 191;

/// More exemptions than these would be a way around the specification.
const MOST_EXEMPT: usize = 20;

const PAGE: &str = "docs/spec-coverage.md";

/// Set, the page is written instead of compared. `scripts/coverage` does it.
const WRITE: &str = "PEERLANE_WRITE_COVERAGE";

/// Folders of lab files whose rules are in their names and their `# Shows:` lines. Each folder is run whole by a test.
const LAB_FOLDERS: &[&str] = &["tests/lab/cases", "examples", "crates/model/tests/broken"];

/// Where tests bring up labs with the real binary.
const REAL_LABS: &str = "crates/cli/tests/";

const SHOWS: &str = "Shows:";

struct Rule {
    id: String,
    profile: String,
    title: String,
}

/// A test function or a lab file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Proof {
    path: String,
    /// None for a lab file.
    test: Option<String>,
}

/// What the sources claim: rule -> proofs, and claims that are none.
#[derive(Default)]
struct Claims {
    proofs: BTreeMap<String, BTreeSet<Proof>>,
    wrong: Vec<String>,
}

#[test]
fn every_claim_is_of_a_rule_and_by_a_test() {
    let (rules, exempt, claims) = (rules(), exempt(), claims());
    let known: BTreeSet<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(
        (rules.len(), known.len()),
        (RULES, RULES),
        "tests/coverage/rules.csv lost or repeats a rule"
    );
    let mut wrong = claims.wrong;
    for (id, proofs) in &claims.proofs {
        let paths: Vec<&str> = proofs.iter().map(|proof| proof.path.as_str()).collect();
        if !known.contains(id.as_str()) {
            wrong.push(format!("{}: no rule {id}", paths.join(", ")));
        }
        if exempt.contains_key(id) {
            wrong.push(format!(
                "{}: shows {id}, which exempt.csv exempts",
                paths.join(", ")
            ));
        }
    }
    for (id, reason) in &exempt {
        if !known.contains(id.as_str()) || reason.is_empty() {
            wrong.push(format!(
                "tests/coverage/exempt.csv: {id} is no rule or has no reason"
            ));
        }
    }
    for (number, rules, _) in founding() {
        for id in rules.iter().filter(|id| !known.contains(id.as_str())) {
            wrong.push(format!("tests/coverage/founding.csv: {number} names {id}"));
        }
    }
    assert!(
        exempt.len() <= MOST_EXEMPT,
        "{} exemptions, at most {MOST_EXEMPT}",
        exempt.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_is_shown_or_exempt() {
    let (exempt, proofs) = (exempt(), claims().proofs);
    let missing: Vec<String> = rules()
        .into_iter()
        .map(|rule| rule.id)
        .filter(|id| !exempt.contains_key(id) && !proofs.contains_key(id))
        .collect();
    assert!(
        missing.is_empty(),
        "no test shows {}: add `/// Shows: ID.` above one that fails without the rule's code, or a lab",
        missing.join(", ")
    );
}

#[test]
fn the_page_is_up_to_date() {
    let page = page(&rules(), &exempt(), &claims().proofs);
    if std::env::var_os(WRITE).is_some() {
        fs::write(root().join(PAGE), &page).expect("the page can be written");
    }
    assert!(read(PAGE) == page, "{PAGE} is stale: run scripts/coverage");
}

/// The machine-readable cases: a file that no test opens would look like coverage.
#[test]
fn every_vector_file_is_run() {
    let sources: Vec<String> = files("crates", ".rs").iter().map(|path| read(path)).collect();
    let vectors = files("tests/vectors", ".json");
    let idle: Vec<&String> = vectors
        .iter()
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap_or(path);
            !sources.iter().any(|source| source.contains(name))
        })
        .collect();
    assert!(!vectors.is_empty() && idle.is_empty(), "no test opens {idle:?}");
}

#[test]
fn claims_are_read_as_they_are_meant() {
    let mut claims = Claims::default();
    let source = "/// What it does.\n/// Shows: A-1, B-2,\n/// C-3.\n#[test]\n#[expect(x, reason = \"y\")]\nfn one() {}\n\
                  /// Shows: A-1.\nfn no_test() {}\n\
                  proptest! {\n    /// Shows: D-4.\n    #[test]\n    fn two(x in 0..1) {}\n}\n\
                  /// Shows: E-5.\n#[test]\n#[ignore = \"slow\"]\nfn three() {}\n";
    claims.read_rust("x.rs", source);
    let found: Vec<(&str, Vec<&str>)> = claims
        .proofs
        .iter()
        .map(|(id, proofs)| {
            (
                id.as_str(),
                proofs.iter().filter_map(|it| it.test.as_deref()).collect(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("A-1", vec!["one"]),
            ("B-2", vec!["one"]),
            ("C-3", vec!["one"]),
            ("D-4", vec!["two"])
        ]
    );
    assert_eq!(claims.wrong.len(), 2, "{:?}", claims.wrong);

    let mut claims = Claims::default();
    claims.read_lab(
        "a/PEER-12-V6.vnet.yaml",
        "# Words.\n# Shows: NVA-04, ROUTE-13\nkind: Lab\n",
    );
    claims.read_lab(
        "a/OR-CIDR.vnet.yaml",
        "kind: Lab # Shows: NET-01\n# Shows: no rule\n",
    );
    assert_eq!(
        claims.proofs.keys().collect::<Vec<_>>(),
        ["NVA-04", "PEER-12", "ROUTE-13"]
    );
    assert_eq!(claims.wrong.len(), 2, "{:?}", claims.wrong);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("a text file of the repository")
}

/// The rows of a table below its head line, cut at the first `columns - 1` commas.
fn rows(path: &str, columns: usize) -> Vec<Vec<String>> {
    read(path)
        .lines()
        .skip(1)
        .map(|line| {
            let row: Vec<String> = line
                .splitn(columns, ',')
                .map(|field| field.trim().to_owned())
                .collect();
            assert_eq!(row.len(), columns, "{path}: {line}");
            row
        })
        .collect()
}

fn rules() -> Vec<Rule> {
    let rows = rows("tests/coverage/rules.csv", 3).into_iter();
    rows.map(|row| Rule {
        id: row[0].clone(),
        profile: row[1].clone(),
        title: row[2].clone(),
    })
    .collect()
}

/// Rule -> why no test can show it.
fn exempt() -> BTreeMap<String, String> {
    let rows = rows("tests/coverage/exempt.csv", 2).into_iter();
    rows.map(|row| (row[0].clone(), row[1].clone())).collect()
}

/// The statements of the document that peering was founded on: number, rules, what it says.
fn founding() -> Vec<(String, Vec<String>, String)> {
    let rows = rows("tests/coverage/founding.csv", 3).into_iter();
    rows.map(|row| {
        let rules = row[1].split(' ').map(str::to_owned).collect();
        (row[0].clone(), rules, row[2].clone())
    })
    .collect()
}

fn claims() -> Claims {
    let mut claims = Claims::default();
    for path in files("crates", ".rs").into_iter().chain(files("tests", ".rs")) {
        if path != "tests/coverage.rs" {
            claims.read_rust(&path, &read(&path));
        }
    }
    for path in LAB_FOLDERS.iter().flat_map(|folder| files(folder, ".vnet.yaml")) {
        claims.read_lab(&path, &read(&path));
    }
    claims
}

/// Every file below `folder` whose name ends so, from the root, sorted.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a directory of the repository") {
            let path = entry.expect("a directory entry").path();
            let shown = path.strip_prefix(root()).expect("below the root");
            let shown = shown.to_str().expect("a name in UTF-8").to_owned();
            if path.is_dir() {
                open.push(path);
            } else if shown.ends_with(ending) {
                found.push(shown);
            }
        }
    }
    found.sort();
    found
}

impl Claims {
    /// The claims in the doc comments of test functions.
    fn read_rust(&mut self, path: &str, source: &str) {
        let (mut doc, mut attributes) = (String::new(), String::new());
        for line in source.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("///") {
                doc.push_str(text);
                doc.push(' ');
                continue;
            }
            if line.starts_with("#[") {
                attributes.push_str(line);
                continue;
            }
            if let Some((_, claimed)) = doc.split_once(SHOWS) {
                let name = line
                    .split_once("fn ")
                    .map(|(_, rest)| rest.split(['(', '<']).next().unwrap_or(rest));
                let is_test = attributes.contains("#[test]") || attributes.contains("::test");
                match name {
                    Some(name) if is_test && !attributes.contains("#[ignore") => {
                        let claimed = claimed.split('.').next().unwrap_or(claimed);
                        self.claim(path, Some(name), claimed);
                    }
                    _ => self
                        .wrong
                        .push(format!("{path}: a claim above what no run tests: {line}")),
                }
            }
            doc.clear();
            attributes.clear();
        }
    }

    /// The claims of a lab file: its name, and the lines that list more.
    fn read_lab(&mut self, path: &str, text: &str) {
        let name = path.rsplit('/').next().unwrap_or(path);
        if let Some(id) = leading_id(name) {
            self.claim(path, None, id);
        }
        for line in text.lines().filter(|line| line.contains(SHOWS)) {
            match line.strip_prefix("# Shows:") {
                Some(claimed) => self.claim(path, None, claimed.trim_end().trim_end_matches('.')),
                None => self
                    .wrong
                    .push(format!("{path}: a claim is a line `# Shows: ID, ID`: {line}")),
            }
        }
    }

    fn claim(&mut self, path: &str, test: Option<&str>, ids: &str) {
        for id in ids.split(',').map(str::trim) {
            if leading_id(id) == Some(id) {
                self.proofs.entry(id.to_owned()).or_default().insert(Proof {
                    path: path.to_owned(),
                    test: test.map(str::to_owned),
                });
            } else {
                self.wrong.push(format!("{path}: {id:?} is no rule"));
            }
        }
    }
}

/// The `PEER-12` of `PEER-12-V6.vnet.yaml`.
fn leading_id(text: &str) -> Option<&str> {
    let letters = text.find(|c: char| !c.is_ascii_uppercase())?;
    let digits = text.get(letters..)?.strip_prefix('-')?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    (letters > 0 && end > 0)
        .then(|| text.get(..letters + 1 + end))
        .flatten()
}

fn page(
    rules: &[Rule],
    exempt: &BTreeMap<String, String>,
    proofs: &BTreeMap<String, BTreeSet<Proof>>,
) -> String {
    let shown = rules.iter().filter(|rule| proofs.contains_key(&rule.id)).count();
    let open = |rule: &&Rule| !proofs.contains_key(&rule.id) && !exempt.contains_key(&rule.id);
    let missing = rules.iter().filter(open).count();
    let mut page = format!(
        "# Coverage of the specification\n\n\
         Generated by `scripts/coverage` from the tests themselves; `cargo test --test coverage` checks it.\n\n\
         {} rules: {shown} shown by tests, {} exempt, {missing} missing. A rule is shown by tests that fail when its code is \
         disabled: functions whose comment says `Shows:`, and lab files, named by their rule, that the tests of \
         [`lab.rs`](../crates/cli/tests/lab.rs) run with real packets and those of \
         [`broken.rs`](../crates/model/tests/broken.rs) see refused. \
         A profile of its own means that the rule holds in that profile only.\n\n\
         | rule | profile | says | shown by |\n|---|---|---|---|\n",
        rules.len(),
        exempt.len()
    );
    for rule in rules {
        let by = match (proofs.get(&rule.id), exempt.get(&rule.id)) {
            (Some(proofs), _) => proofs.iter().map(link).collect::<Vec<_>>().join(", "),
            (None, Some(reason)) => format!("exempt: {reason}"),
            (None, None) => "MISSING".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| {} | {} | {} | {by} |", rule.id, rule.profile, rule.title);
    }
    page.push_str(
        "\n## The founding document\n\n\
         Every statement of Azure's overview of VNet peering of September 2017, the rules that carry it out, and the lab files and tests of running labs that show it.\n\n\
         | # | statement | rules | labs and tests of running labs |\n|---|---|---|---|\n",
    );
    for (number, rules, says) in founding() {
        let labs: BTreeSet<&Proof> = rules
            .iter()
            .filter_map(|id| proofs.get(id))
            .flatten()
            .filter(|proof| proof.test.is_none() || proof.path.starts_with(REAL_LABS))
            .collect();
        let labs: Vec<String> = labs.into_iter().map(link).collect();
        let _ = writeln!(
            page,
            "| {number} | {says} | {} | {} |",
            rules.join(", "),
            labs.join(", ")
        );
    }
    page
}

/// A proof as a link from the page.
fn link(proof: &Proof) -> String {
    let name = proof.test.as_deref().unwrap_or_else(|| {
        let file = proof.path.rsplit('/').next().unwrap_or(&proof.path);
        file.strip_suffix(".vnet.yaml").unwrap_or(file)
    });
    format!("[{name}](../{})", proof.path)
}
