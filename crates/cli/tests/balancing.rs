//! Load balancers with real programs behind them: who answers, and what health probes make of it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Peerlane, User, unique, wait_for};

/// Says its name to whoever connects.
fn server(name: &str) -> String {
    format!(
        "exec python3 -c 'import socket\ns=socket.create_server((\"\",8080))\nwhile 1:\n c,_=s.accept(); c.sendall(b\"{name}\"); c.close()'"
    )
}

/// Connects ten times and prints who answered, one a line.
const ASK: &str = "
import socket
for _ in range(10):
    with socket.create_connection(('10.0.1.100',80),timeout=2) as s: print(s.recv(99).decode())
";

fn balancer(vnet: &str) -> String {
    format!(
        "{{ frontends: {{ fe: {{ subnet: {vnet}/app, privateIPAddress: 10.0.1.100 }} }}, backendPools: {{ be: [{vnet}1, {vnet}2] }},
       probes: {{ alive: {{ protocol: Tcp, port: 8080, intervalInSeconds: 5, numberOfProbes: 1 }} }},
       rules: {{ web: {{ frontend: fe, backendPool: be, probe: alive, protocol: Tcp, frontendPort: 80, backendPort: 8080 }} }} }}"
    )
}

/// Two VNets with the same addresses (VNET-07). In the second one nobody listens at 10.0.1.4.
fn lab(name: &str) -> String {
    let vnet = |vnet: &str| {
        format!(
            "{vnet}: {{ addressSpace: [10.0.0.0/16], subnets: {{ app: {{ addressPrefix: 10.0.1.0/24 }} }} }}"
        )
    };
    let vm = |vnet: &str, number: u8, serves: bool| {
        let run = if serves {
            serde_json::json!([server(&format!("{vnet}{number}"))])
        } else {
            serde_json::json!([])
        };
        format!(
            "{vnet}{number}: {{ subnet: {vnet}/app, privateIPAddress: 10.0.1.{}, run: {run} }}",
            number + 3
        )
    };
    let client = |vnet: &str| format!("{vnet}c: {{ subnet: {vnet}/app, privateIPAddress: 10.0.1.9 }}");
    let vms = [
        vm("a", 1, true),
        vm("a", 2, true),
        vm("b", 1, false),
        vm("b", 2, true),
        client("a"),
        client("b"),
    ];
    format!(
        "apiVersion: peerlane/v1\nkind: Lab\nname: {name}\nprofile: azure-2025\nvnets:\n  {}\n  {}\nvms:\n  {}\nloadBalancers:\n  la: {}\n  lb: {}\n",
        vnet("a"),
        vnet("b"),
        vms.join("\n  "),
        balancer("a"),
        balancer("b"),
    )
}

fn health(peerlane: &Peerlane, name: &str) -> Vec<(String, String)> {
    let rows = peerlane.run(["loadbalancers", name, "-o", "json"]).json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| (text(&row["backend"]), text(&row["health"])))
        .collect()
}

fn answers(peerlane: &Peerlane, name: &str, client: &str) -> BTreeSet<String> {
    let ran = peerlane.exec(name, client, &["python3", "-c", ASK]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout.lines().map(str::to_owned).collect()
}

/// Shows: LB-05, LB-07, VNET-08.
#[test]
fn probes_reach_the_right_backends_and_flows_the_healthy_ones() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("balance");
    let file = peerlane.file(&name, &lab(&name));
    peerlane.up(&file);
    let is = |wanted: [&str; 4]| {
        let expected = ["a1-nic", "a2-nic", "b1-nic", "b2-nic"].into_iter().zip(wanted);
        let expected: Vec<_> = expected
            .map(|(nic, health)| (nic.to_owned(), health.to_owned()))
            .collect();
        wait_for(Duration::from_secs(30), || health(&peerlane, &name) == expected)
    };
    assert!(is(["Up", "Up", "Down", "Up"]), "{:?}", health(&peerlane, &name));
    let all = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    // Ten flows from ports the kernel chooses: both answer, but for one run in 500, which asks again.
    let both = || answers(&peerlane, &name, "ac") == all(&["a1", "a2"]);
    assert!(both() || both());
    assert_eq!(answers(&peerlane, &name, "bc"), all(&["b2"]));
    // A server ends: within two intervals it is down, and the other one has all flows.
    let ran = peerlane.exec(
        &name,
        "a1",
        &[
            "sh",
            "-c",
            "kill $(ss -ltnp 'sport = 8080' | grep -o 'pid=[0-9]*' | cut -d= -f2)",
        ],
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(is(["Down", "Up", "Down", "Up"]), "{:?}", health(&peerlane, &name));
    assert_eq!(answers(&peerlane, &name, "ac"), all(&["a2"]));
    // One success is enough to be up again.
    let mut again = peerlane.spawn(&name, "a1", &["sh", "-c", &server("a1")]);
    assert!(is(["Up", "Up", "Down", "Up"]), "{:?}", health(&peerlane, &name));
    assert_eq!(peerlane.run(["down", &name]).code, 0);
    let _ = again.wait();
}
