//! `/metrics`: taken by promtool, and equal to what tcpdump counts; and the OpenAPI document of what stands beside it.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Peerlane, User, two_vnets, unique, wait_for};

const SOON: Duration = Duration::from_secs(10);

fn samples(page: &str) -> HashMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Packets and IP bytes of a capture of raw IP, from and to an address.
fn captured(pcap: &[u8], address: [u8; 4]) -> [[f64; 2]; 2] {
    let number = |at: usize| u32::from_ne_bytes(pcap[at..at + 4].try_into().unwrap()) as usize;
    let (mut counts, mut at) = ([[0.0; 2]; 2], 24);
    while at + 16 <= pcap.len() {
        let (kept, length) = (number(at + 8), number(at + 12));
        let packet = &pcap[at + 16..at + 16 + kept];
        let direction = usize::from(packet[12..16] != address);
        counts[direction][0] += 1.0;
        counts[direction][1] += length as f64;
        at += 16 + kept;
    }
    counts
}

#[test]
fn promtool_takes_the_page_and_tcpdump_counts_the_same() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("metrics");
    let text = two_vnets(&name, "").replace(", \"fd00:a::4\"", "");
    let file = peerlane.file(&name, &text);
    let up = peerlane.run(["up", file.to_str().unwrap(), "--detach", "--io", "plain"]);
    assert_eq!(up.code, 0, "{up:?}");

    let pcap = peerlane.dir.join("a.pcap");
    let mut tcpdump = peerlane.spawn(
        &name,
        "a",
        &[
            "tcpdump",
            "-i",
            "eth0",
            "-U",
            "-B",
            "16384",
            "-s",
            "96",
            "-w",
            pcap.to_str().unwrap(),
        ],
    );
    assert!(
        wait_for(SOON, || fs::metadata(&pcap).is_ok_and(|file| file.len() >= 24)),
        "tcpdump does not start"
    );
    let ping = peerlane.exec(
        &name,
        "a",
        &["ping", "-c", "20", "-i", "0.01", "-s", "700", "10.1.0.4"],
    );
    assert_eq!(ping.code, 0, "{ping:?}");
    let server = peerlane.spawn(&name, "b", &["iperf3", "-s", "-1"]);
    let mut iperf = peerlane.exec(&name, "a", &["iperf3", "-c", "10.1.0.4", "-n", "300K"]);
    for _ in 0..20 {
        if iperf.code == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        iperf = peerlane.exec(&name, "a", &["iperf3", "-c", "10.1.0.4", "-n", "300K"]);
    }
    assert_eq!(iperf.code, 0, "{iperf:?}");
    server.wait_with_output().unwrap();
    // Denied, so that something is lost.
    peerlane.exec(
        &name,
        "a",
        &["ping", "-c", "3", "-i", "0.01", "-W", "1", "10.1.0.5"],
    );

    let counted = || {
        let page = samples(&peerlane.get(&name, "/metrics"));
        let of = |what: &str| page[&format!("peerlane_nic_{what}_total{{nic=\"a-nic\"}}")];
        [
            [of("transmitted_packets"), of("transmitted_bytes")],
            [of("received_packets"), of("received_bytes")],
        ]
    };
    // What the fabric loses was sent all the same: 84 bytes each.
    let lost = || {
        let page = samples(&peerlane.get(&name, "/metrics"));
        page["peerlane_dropped_packets_total{reason=\"NsgInbound\",nic=\"c-nic\"}"]
    };
    let same = wait_for(SOON, || {
        let [sent, received] = counted();
        let sent = [sent[0] + lost(), sent[1] + lost() * 84.0];
        [sent, received] == captured(&fs::read(&pcap).unwrap(), [10, 0, 0, 4])
    });
    let seen = captured(&fs::read(&pcap).unwrap(), [10, 0, 0, 4]);
    assert!(same, "tcpdump {seen:?}, metrics {:?}, lost {}", counted(), lost());
    // iperf3 ends when it has handed over its bytes, not when all have been sent.
    assert!(seen[0][0] > 100.0 && seen[0][1] > 100_000.0, "{seen:?}");
    assert_eq!(lost(), 3.0);
    tcpdump.kill().unwrap();
    tcpdump.wait().unwrap();

    let apply = peerlane.run(["nsg", "rule", "delete", "-n", "deny-all", "--nsg-name", "closed"]);
    assert_eq!(apply.code, 0, "{apply:?}");
    assert_eq!(peerlane.run(["nsg", "delete", "-n", "closed"]).code, 1);
    let page = peerlane.get(&name, "/metrics");
    let values = samples(&page);
    let is = |name: &str, value: f64| assert_eq!(values[name], value, "{name}");
    is("peerlane_generation", 2.0);
    is("peerlane_changes_total{outcome=\"success\"}", 1.0);
    is("peerlane_changes_total{outcome=\"failure\"}", 1.0);
    is("peerlane_last_change_successful", 0.0);
    is(
        "peerlane_peering_state{peering=\"one/one-to-two\",state=\"Connected\"}",
        1.0,
    );
    assert!(values["peerlane_worker_busy_seconds_total{worker=\"0\"}"] > 0.0);
    assert!(values["peerlane_flows"] > 0.0);
    assert!(values["peerlane_peering_egress_bytes_total{peering=\"one/one-to-two\"}"] > 100_000.0);
    assert!(
        !page.contains("10.0.0.4") && !page.contains("10.1.0."),
        "addresses are no labels"
    );

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(said.status.success(), "{said:?}\n{page}");
    assert_eq!(peerlane.run(["down", &name]).code, 0);
    peerlane.assert_nothing_left(&name);
}

/// Beside the ARM API the page is for those who have a token.
#[test]
fn over_tls_the_page_needs_a_token() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("tls-page");
    let file = peerlane.file(&name, &two_vnets(&name, ""));
    let up = peerlane.run([
        "up",
        file.to_str().unwrap(),
        "--detach",
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(up.code, 0, "{up:?}");
    let run_dir = peerlane.state_dir().join(&name);
    let text = |file: &str| fs::read_to_string(run_dir.join(file)).unwrap();
    let listen: Value = serde_json::from_str(&text("listen")).unwrap();
    let url = format!("https://{}/metrics", listen["address"].as_str().unwrap());
    let ask = |token: &str| {
        let output = Command::new("curl")
            .args(["-sS", "-w", "\n%{http_code}", "--cacert"])
            .arg(run_dir.join("cert.pem"))
            .args(["-H", &format!("Authorization: Bearer {token}"), &url])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let page = ask(text("token").trim());
    assert!(
        page.contains("peerlane_generation 1\n") && page.ends_with("\n200"),
        "{page}"
    );
    assert!(ask("no-token").ends_with("\n401"));
    assert_eq!(peerlane.run(["down", &name]).code, 0);
    peerlane.assert_nothing_left(&name);
}

/// Every question that the document has is answered as it says.
#[test]
fn the_openapi_document_says_what_is_answered() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("openapi");
    peerlane.up(&peerlane.file(&name, &two_vnets(&name, "")));
    peerlane.exec(&name, "a", &["ping", "-c", "1", "10.1.0.4"]);
    let document: Value = serde_json::from_str(&peerlane.get(&name, "/v1/openapi.json")).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let schema = &methods["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        if schema.is_null() || path.contains('{') {
            continue;
        }
        let mut whole = schema.clone();
        whole["components"] = document["components"].clone();
        let answer: Value = serde_json::from_str(&peerlane.get(&name, path)).unwrap();
        jsonschema::validate(&whole, &answer).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
        asked += 1;
    }
    assert!(asked > 8, "{asked}");
    assert_eq!(peerlane.run(["down", &name]).code, 0);
    peerlane.assert_nothing_left(&name);
}
