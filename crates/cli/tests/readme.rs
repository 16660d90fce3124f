//! The README keeps its promises: every command and script that it names exists, and its first lab does what it says.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Peerlane, User, root};

#[test]
fn readme_names_only_what_exists() {
    let (commands, scripts) = promises(&readme());
    assert!(
        commands.contains("up") && scripts.contains("lab"),
        "the README shows no command"
    );
    let peerlane = Peerlane::new(User::Caller);
    for command in &commands {
        let help = peerlane.run(["help", command.as_str()]);
        assert_eq!(help.code, 0, "README.md names `peerlane {command}`: {help:?}");
    }
    for script in &scripts {
        let executable = fs::metadata(root().join("scripts").join(script))
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
        assert!(executable, "README.md names scripts/{script}");
    }
}

#[test]
fn the_first_lab_of_the_readme_does_what_its_tests_say() {
    let text = readme();
    let lab = text
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let peerlane = Peerlane::new(User::Caller);
    let ran = peerlane.run([
        "test",
        peerlane.file("first", lab.unwrap()).to_str().unwrap(),
        "-o",
        "json",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json().as_array().map(Vec::len), Some(2), "it has two tests");
}

#[test]
fn promises_are_found_in_code_only() {
    let (commands, scripts) = promises(
        "peerlane is; run `scripts/lab`, `target/release/peerlane down`\n```sh\npeerlane up x.yaml\n```\n",
    );
    assert_eq!(commands, BTreeSet::from(["down".to_owned(), "up".to_owned()]));
    assert_eq!(scripts, BTreeSet::from(["lab".to_owned()]));
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// What a text promises: the words after `peerlane ` and the paths below `scripts/`, in code only.
fn promises(markdown: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut commands, mut scripts) = (BTreeSet::new(), BTreeSet::new());
    let mut fenced = false;
    for line in markdown.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let spans: Vec<&str> = if fenced {
            vec![line]
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        for span in spans {
            let parts: Vec<&str> = span.split_whitespace().collect();
            scripts.extend(
                parts
                    .iter()
                    .filter_map(|part| part.strip_prefix("scripts/"))
                    .map(str::to_owned),
            );
            for pair in parts.windows(2) {
                let ours = pair[0] == "peerlane" || pair[0].ends_with("/peerlane");
                if ours && pair[1].chars().all(|c| c.is_ascii_lowercase()) {
                    commands.insert(pair[1].to_owned());
                }
            }
        }
    }
    (commands, scripts)
}
