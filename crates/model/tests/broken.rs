//! The table of broken lab files: each must be refused with exactly the errors its header lists.
#![expect(clippy::unwrap_used, reason = "a test may panic, its functions too")]

use std::fs;
use std::path::PathBuf;

use model::{Errors, Source};

/// A header line: `# expect: CODE line:column text`, the text being part of the message or the help.
struct Expected {
    code: String,
    line: usize,
    column: usize,
    text: String,
}

fn expectations(text: &str) -> Vec<Expected> {
    let lines = text.lines().map_while(|line| line.strip_prefix("# expect: "));
    let expected = lines.map(|line| {
        let mut words = line.splitn(3, ' ');
        let code = words.next().unwrap().to_owned();
        let (line, column) = words.next().unwrap().split_once(':').unwrap();
        let text = words.next().unwrap_or("").to_owned();
        Expected {
            code,
            line: line.parse().unwrap(),
            column: column.parse().unwrap(),
            text,
        }
    });
    expected.collect()
}

/// None when the errors are as expected, else what differs.
fn difference(expected: &[Expected], errors: &Errors) -> Option<String> {
    let same = expected.len() == errors.errors.len()
        && expected.iter().zip(&errors.errors).all(|(expected, error)| {
            let said = format!("{} {}", error.message, error.help.as_deref().unwrap_or(""));
            expected.code == error.code
                && (expected.line, expected.column) == (error.line, error.column)
                && said.contains(&expected.text)
        });
    if same {
        return None;
    }
    let wanted: Vec<String> = expected
        .iter()
        .map(|it| format!("  want {} {}:{} {}", it.code, it.line, it.column, it.text))
        .collect();
    let found = errors.errors.iter();
    let found: Vec<String> = found
        .map(|it| {
            let help = it.help.as_deref().unwrap_or("");
            format!(
                "  have {} {}:{} {} ({help})",
                it.code, it.line, it.column, it.message
            )
        })
        .collect();
    Some(format!("{}\n{}", wanted.join("\n"), found.join("\n")))
}

#[test]
fn every_broken_file_is_refused_as_its_header_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 40, "only {} broken files", files.len());
    let mut failures = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expected = expectations(&fs::read_to_string(&path).unwrap());
        assert!(!expected.is_empty(), "{name} expects nothing");
        match model::load(Source::Path(path)) {
            Ok(_) => failures.push(format!("{name}: accepted")),
            Err(errors) => {
                failures.extend(difference(&expected, &errors).map(|it| format!("{name}:\n{it}")));
                for error in &errors.errors {
                    assert!(
                        !error.message.is_empty() && error.file.ends_with(&name),
                        "{name}: {error:?}"
                    );
                    assert!(errors.text.get(error.span.clone()).is_some(), "{name}: {error:?}");
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} wrong\n{}",
        failures.len(),
        failures.join("\n")
    );
}
