//! Network Watcher's commands: their outputs, their refusals, and connection checks with real packets.

use serde_json::{Value, json};

use crate::offline::assert_valid;
use crate::support::{Peerlane, User, root, two_vnets, unique};

fn ask(peerlane: &Peerlane, arguments: &[&str]) -> Value {
    let ran = peerlane.run(arguments.iter().copied().chain(["-o", "json"]));
    assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    ran.json()
}

fn hub_spoke() -> String {
    root()
        .join("examples/hub-spoke.vnet.yaml")
        .to_str()
        .unwrap()
        .to_owned()
}

/// Shows: DIAG-02, DIAG-03, DIAG-05, DIAG-08.
#[test]
fn questions_of_routes_and_rules_are_answered_from_the_file() {
    let peerlane = Peerlane::new(User::Caller);
    let lab = hub_spoke();
    let hop = ask(
        &peerlane,
        &[
            "show-next-hop",
            &lab,
            "client",
            "--source-ip",
            "10.1.0.4",
            "--dest-ip",
            "10.2.0.4",
        ],
    );
    assert_eq!(
        (&hop["nextHopType"], &hop["nextHopIpAddress"]),
        (&json!("VirtualAppliance"), &json!("10.0.1.4"))
    );
    let foreign = [
        "show-next-hop",
        &lab,
        "client",
        "--source-ip",
        "10.1.0.5",
        "--dest-ip",
        "10.2.0.4",
    ];
    let ran = peerlane.run(foreign);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("(SourceIpDoesNotMatchNicIp)"), "{ran:?}");
    let flow = |port: &str| {
        let local = format!("10.2.0.4:{port}");
        let ends = ["--local", &local, "--remote", "10.1.0.4:*"];
        let question = [
            "test-ip-flow",
            &lab,
            "web",
            "--direction",
            "Inbound",
            "--protocol",
            "TCP",
        ];
        ask(&peerlane, &[&question[..], &ends].concat())["access"].clone()
    };
    assert_eq!([flow("80"), flow("8080")], [json!("Allow"), json!("Deny")]);
    let judged = |port: &str| {
        let traffic = [
            "--source",
            "10.1.0.0/16",
            "--destination",
            "10.2.0.4",
            "--port",
            port,
        ];
        let question = [
            "run-configuration-diagnostic",
            &lab,
            "web",
            "--direction",
            "Inbound",
            "--protocol",
            "Tcp",
        ];
        let told = ask(&peerlane, &[&question[..], &traffic].concat());
        told["results"][0]["networkSecurityGroupResult"]["securityRuleAccessResult"].clone()
    };
    assert_eq!([judged("80"), judged("8080")], [json!("Allow"), json!("Deny")]);
    assert_eq!(
        peerlane.run(["show-topology", &lab, "-o", "json"]).json()["resources"][0]["name"],
        "hub"
    );
}

/// Shows: DIAG-01.
#[test]
fn diagnostics_are_of_virtual_machines() {
    let peerlane = Peerlane::new(User::Caller);
    let lab = root().join("examples/vnet-ports.vnet.yaml");
    let lab = lab.to_str().unwrap();
    let ran = peerlane.run([
        "show-next-hop",
        lab,
        "desk1",
        "--source-ip",
        "10.1.1.4",
        "--dest-ip",
        "10.1.1.5",
    ]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("(Sim.DIAG-01)"), "{ran:?}");
    let ran = peerlane.run(["test-connectivity", lab, "nobody", "desk2", "--dest-port", "80"]);
    assert_eq!(ran.code, 3, "{ran:?}");
}

/// Shows: DIAG-07.
#[test]
fn a_connection_check_sends_packets() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("watch");
    peerlane.up(&peerlane.file(&name, &two_vnets(&name, "")));
    let check = |to: &str, more: &[&str]| {
        ask(
            &peerlane,
            &[&["test-connectivity", &name, "a", to], more].concat(),
        )
    };
    let reached = check("b", &["--dest-port", "80"]);
    assert_valid(&peerlane, "test-connectivity", &reached);
    assert_eq!(reached["connectionStatus"], "Connected", "{reached:#}");
    assert_eq!(
        (&reached["probesSent"], &reached["probesFailed"]),
        (&json!(10), &json!(0))
    );
    assert!(reached["avgLatencyInMs"].is_u64(), "{reached:#}");
    let types = |answer: &Value| -> Vec<String> {
        let hops = answer["hops"].as_array().unwrap().iter();
        hops.map(|hop| hop["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(types(&reached), ["Source", "VnetLocal"]);
    let refused = check("c", &["--protocol", "Icmp"]);
    assert_eq!(refused["connectionStatus"], "Disconnected");
    assert_eq!(refused["probesFailed"], 10);
    assert_eq!(
        refused["hops"][1]["issues"],
        json!([{ "origin": "Inbound", "severity": "Error", "type": "NetworkSecurityRule",
                 "context": [{ "key": "RuleName", "value": "UserRule_deny-all" }] }])
    );
    // What explain cannot know: the guest's own firewall.
    let table = "add table inet f; add chain inet f i { type filter hook input priority 0; policy drop; }";
    let closed = peerlane.exec(&name, "b", &["nft", table]);
    assert_eq!(closed.code, 0, "{closed:?}");
    let silent = check("b", &["--dest-port", "80"]);
    assert_eq!(silent["connectionStatus"], "Disconnected");
    assert_eq!(silent["hops"][1]["issues"][0]["type"], "GuestFirewall");
}
