//! What needs no running lab: outputs against their schemas, exit codes, what a LAB argument means, broken input.

use std::io::Read;
use std::process::Stdio;

use crate::support::{Peerlane, User, two_vnets};
use serde_json::Value;

struct Fixture {
    peerlane: Peerlane,
    file: String,
}

fn fixture() -> Fixture {
    let peerlane = Peerlane::new(User::Caller);
    let file = peerlane
        .file("lab", &two_vnets("lab", ""))
        .to_str()
        .unwrap()
        .to_owned();
    Fixture { peerlane, file }
}

/// The schema of a command, closed: what it does not name is an error here, so that no output goes undescribed.
fn closed_schema(peerlane: &Peerlane, command: &str) -> Value {
    let ran = peerlane.run(["schema", command]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut schema = ran.json();
    close(&mut schema);
    schema
}

fn close(schema: &mut Value) {
    if let Value::Object(fields) = schema {
        // Flattened parts live beside other fields: only the whole can be closed.
        if fields.contains_key("properties") && !fields.contains_key("$ref") && !fields.contains_key("allOf")
        {
            fields.entry("additionalProperties").or_insert(Value::Bool(false));
        }
        fields.values_mut().for_each(close);
    } else if let Value::Array(items) = schema {
        items.iter_mut().for_each(close);
    }
}

pub(crate) fn assert_valid(peerlane: &Peerlane, command: &str, output: &Value) {
    let validator = jsonschema::validator_for(&closed_schema(peerlane, command)).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(output)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{command}: {errors:#?}\n{output:#}");
}

#[test]
fn every_offline_output_follows_its_schema() {
    let Fixture { peerlane, file } = fixture();
    let cases: [(&str, Vec<&str>); 13] = [
        (
            "show-next-hop",
            vec![
                "show-next-hop",
                &file,
                "a",
                "--source-ip",
                "10.0.0.4",
                "--dest-ip",
                "10.1.0.4",
            ],
        ),
        (
            "test-ip-flow",
            vec![
                "test-ip-flow",
                &file,
                "a",
                "--direction",
                "Outbound",
                "--protocol",
                "TCP",
                "--local",
                "10.0.0.4:*",
                "--remote",
                "10.1.0.4:80",
            ],
        ),
        (
            "run-configuration-diagnostic",
            vec![
                "run-configuration-diagnostic",
                &file,
                "c",
                "--direction",
                "Inbound",
                "--protocol",
                "Tcp",
                "--source",
                "10.0.0.0/16",
                "--destination",
                "10.1.0.5",
            ],
        ),
        ("show-topology", vec!["show-topology", &file]),
        ("validate", vec!["validate", &file]),
        ("routes", vec!["routes", &file, "a"]),
        ("rules", vec!["rules", &file, "c"]),
        ("rules", vec!["rules", &file, "a"]),
        ("peerings", vec!["peerings", &file]),
        ("explain", vec!["explain", &file, "a", "b", "--port", "80"]),
        ("explain", vec!["explain", &file, "a", "c", "--port", "80"]),
        ("test", vec!["test", &file, "--static"]),
        ("list", vec!["list"]),
    ];
    for (command, arguments) in cases {
        let ran = peerlane.run(arguments.iter().copied().chain(["-o", "json"]));
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_valid(&peerlane, command, &ran.json());
    }
    let broken = peerlane.run_with_stdin(["validate", "-", "-o", "json"], "kind: Lab\nvnets: 3\n");
    assert_eq!(broken.code, 1);
    assert_valid(&peerlane, "validate", &broken.json());
}

#[test]
fn a_lab_file_follows_the_schema_of_lab_files() {
    let Fixture { peerlane, .. } = fixture();
    let schema = peerlane.run(["schema"]).json();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let lab: Value = serde_saphyr::from_str(&two_vnets("lab", "")).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&lab)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let wrong: Value = serde_saphyr::from_str("kind: Lab\nvnets: 3\n").unwrap();
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn explain_tells_route_rule_and_reason() {
    let Fixture { peerlane, file } = fixture();
    let allowed = peerlane
        .run(["explain", &file, "a", "b", "--port", "80", "-o", "json"])
        .json();
    assert_eq!(allowed["verdict"], "Allow");
    assert_eq!(allowed["drop"], Value::Null);
    assert_eq!(allowed["forward"][0]["nic"], "a-nic");
    assert_eq!(allowed["forward"][0]["route"]["nextHopType"], "VNetPeering");
    assert_eq!(allowed["forward"][0]["link"], "one/one-to-two");
    assert_eq!(allowed["forward"][1]["nic"], "b-nic");
    assert_eq!(allowed["return"][0]["nic"], "b-nic");

    let denied = peerlane
        .run([
            "explain",
            &file,
            "a",
            "c",
            "--protocol",
            "udp",
            "--port",
            "53",
            "-o",
            "json",
        ])
        .json();
    assert_eq!(denied["verdict"], "Deny");
    assert_eq!(denied["drop"]["at"], "c-nic");
    assert_eq!(denied["drop"]["path"], "forward");
    assert_eq!(denied["drop"]["reason"], "NsgInbound");
    assert_eq!(denied["drop"]["nsg"], "closed");
    assert_eq!(denied["drop"]["rule"], "securityRules/deny-all");

    let text = peerlane
        .run(["explain", &file, "a", "c", "--port", "80", "-o", "table"])
        .stdout;
    for part in [
        "✘ Deny",
        "a 10.0.0.4",
        "c 10.1.0.5",
        "NsgInbound at c-nic",
        "securityRules/deny-all",
        "one/one-to-two",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains('\x1b'), "colours without a terminal");
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let Fixture { peerlane, file } = fixture();
    let cases: [(i32, Vec<&str>); 20] = [
        (0, vec!["validate", &file]),
        (0, vec!["--help"]),
        (0, vec!["explain", "--help"]),
        (0, vec!["--version"]),
        (2, vec![]),
        (2, vec!["no-such-command"]),
        (2, vec!["validate"]),
        (2, vec!["explain", &file, "a", "b"]),
        (2, vec!["explain", &file, "a", "b", "--port", "0"]),
        (2, vec!["explain", "a"]),
        (3, vec!["validate", "./no-such-file.yaml"]),
        (3, vec!["routes", &file, "no-such-nic"]),
        (3, vec!["explain", &file, "a", "no-such-vm", "--port", "80"]),
        (3, vec!["down", "no-such-lab"]),
        (3, vec!["flows"]),
        (3, vec!["schema", "no-such-command"]),
        (
            0,
            vec!["explain", &file, "a", "b", "--port", "80", "--expect", "allow"],
        ),
        (
            4,
            vec!["explain", &file, "a", "b", "--port", "80", "--expect", "Deny"],
        ),
        (125, vec!["exec", "--lab", "no-such-lab", "a", "--", "true"]),
        (125, vec!["exec"]),
    ];
    for (code, arguments) in cases {
        let ran = peerlane.run(&arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    }
    let wrong = two_vnets("lab", "").replace("port: 80, expect: Allow", "port: 80, expect: Deny");
    assert_eq!(peerlane.run_with_stdin(["test", "-", "--static"], &wrong).code, 4);
    let reason = two_vnets("lab", "").replace("NsgInbound", "NsgOutbound");
    assert_eq!(
        peerlane.run_with_stdin(["test", "-", "--static"], &reason).code,
        4
    );
}

#[test]
fn a_lab_argument_may_be_a_file_a_directory_or_standard_input() {
    let Fixture { peerlane, file } = fixture();
    let text = two_vnets("lab", "");
    let directory = peerlane.dir.to_str().unwrap().to_owned();
    for argument in [file.as_str(), &directory, "."] {
        let ran = peerlane.run(["peerings", argument, "-o", "json"]);
        assert_eq!(ran.code, 0, "{argument}: {ran:?}");
        assert_eq!(ran.json()[0]["name"], "one-to-two");
    }
    assert_eq!(
        peerlane.run_with_stdin(["peerings", "-"], &text).json()[0]["name"],
        "one-to-two"
    );
    let json: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(
        peerlane.run_with_stdin(["peerings", "-"], &json.to_string()).code,
        0
    );

    // A bare word is a running lab, even where a file has that name.
    std::fs::write(peerlane.dir.join("bare"), &text).unwrap();
    let ran = peerlane.run(["peerings", "bare"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("no lab bare is running"), "{ran:?}");

    peerlane.file("second", &text);
    let ran = peerlane.run(["peerings", &directory]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("second.vnet.yaml"), "{ran:?}");
}

#[test]
fn errors_of_a_file_come_all_at_once_with_place_and_caret() {
    let Fixture { peerlane, .. } = fixture();
    let text = two_vnets("lab", "")
        .replace("10.1.0.4", "10.9.0.4")
        .replace("networkSecurityGroup: closed", "networkSecurityGroup: open");
    let file = peerlane.file("broken", &text);
    let file = file.to_str().unwrap();
    let json = peerlane.run(["validate", file, "-o", "json"]);
    assert_eq!(json.code, 1);
    let report = json.json();
    assert_eq!(report["valid"], false);
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{report:#}");
    for (error, word) in errors.iter().zip(["10.9.0.4", "open"]) {
        let line = usize::try_from(error["line"].as_u64().unwrap()).unwrap();
        let column = usize::try_from(error["column"].as_u64().unwrap()).unwrap();
        let at = text
            .lines()
            .nth(line - 1)
            .unwrap()
            .chars()
            .skip(column - 1)
            .collect::<String>();
        assert!(
            at.trim_start_matches('"').starts_with(word),
            "{error:#} points at {at:?}"
        );
    }
    let shown = peerlane.run(["validate", file, "-o", "table"]).stdout;
    for part in ["broken.vnet.yaml:", "10.9.0.4", "open", "2 errors"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let up = peerlane.run(["up", file, "--detach"]);
    assert_eq!(up.code, 1);
    assert!(up.stderr.contains("2 errors"), "{up:?}");
    peerlane.assert_nothing_left("lab");
}

#[test]
fn hostile_input_is_refused_in_words() {
    let Fixture { peerlane, .. } = fixture();
    let deep = "[".repeat(200_000);
    let long = format!("name: {}", "x".repeat(1 << 20));
    let bombs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                 d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    for text in [
        "",
        "\u{0}",
        "{",
        "- - -",
        "vnets: [",
        "\u{feff}",
        "name: \"\u{1b}[31m\"",
        &deep,
        &long,
        bombs,
    ] {
        let ran = peerlane.run_with_stdin(["validate", "-", "-o", "table"], text);
        let start: String = text.chars().take(40).collect();
        assert_eq!(ran.code, 1, "{start:?}: {ran:?}");
        assert!(
            !ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'),
            "an escape sequence comes through"
        );
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    }
    let mut command = peerlane.command(["validate", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &[0xff, 0xfe, 0x80]).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
}

#[test]
fn formats_write_the_same_data() {
    let Fixture { peerlane, file } = fixture();
    let of = |format: &str| peerlane.run(["routes", &file, "a", "-o", format]).stdout;
    let json: Value = serde_json::from_str(&of("json")).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&of("jsonc")).unwrap(),
        json,
        "no colours without a terminal"
    );
    assert_eq!(serde_saphyr::from_str::<Value>(&of("yaml")).unwrap(), json);
    assert_eq!(of("none"), "");
    let rows = json["value"].as_array().unwrap();
    let tsv = of("tsv");
    assert_eq!(tsv.lines().count(), rows.len());
    assert!(tsv.lines().all(|line| line.split('\t').count() == 5), "{tsv}");
    let table = of("table");
    assert_eq!(table.lines().count(), rows.len() + 2, "{table}");
    assert!(table.starts_with("Source"), "{table}");
    // Not a terminal: JSON.
    assert_eq!(
        serde_json::from_str::<Value>(&peerlane.run(["routes", &file, "a"]).stdout).unwrap(),
        json
    );
}

#[test]
fn a_terminal_gets_a_table_in_colours_unless_refused() {
    let Fixture { peerlane, file } = fixture();
    let on_terminal = |no_color: &str| {
        let line = format!("'{}' routes '{file}' a", env!("CARGO_BIN_EXE_peerlane"));
        let mut script = std::process::Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .env("NO_COLOR", no_color);
        let output = script.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let coloured = on_terminal("");
    assert!(
        coloured.contains("Source") && coloured.contains('\x1b'),
        "{coloured}"
    );
    let plain = on_terminal("1").replace('\r', "");
    assert_eq!(plain, peerlane.run(["routes", &file, "a", "-o", "table"]).stdout);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let Fixture { peerlane, .. } = fixture();
    let mut child = peerlane
        .command(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn every_command_has_help_with_an_example_and_a_manual_page() {
    let Fixture { peerlane, .. } = fixture();
    let pages = peerlane.dir.join("man");
    assert_eq!(peerlane.run(["man", "--dir", pages.to_str().unwrap()]).code, 0);
    let commands = [
        "validate",
        "up",
        "down",
        "list",
        "exec",
        "shell",
        "routes",
        "rules",
        "explain",
        "peerings",
        "test",
        "doctor",
        "drops",
        "flows",
        "schema",
        "completions",
        "man",
    ];
    for command in commands {
        let help = peerlane.run([command, "--help"]).stdout;
        assert!(
            help.contains("Example") && help.contains(&format!("peerlane {command}")),
            "{command}: {help}"
        );
        let page = std::fs::read_to_string(pages.join(format!("peerlane-{command}.1"))).unwrap();
        assert_eq!(page, peerlane.run(["man", command]).stdout);
    }
    assert!(peerlane.run(["man"]).stdout.contains(".TH peerlane 1"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(
            peerlane.run(["completions", shell]).stdout.contains("explain"),
            "{shell}"
        );
    }
}
