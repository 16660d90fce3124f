//! `bench`: every test measures something, in a private copy, behind a VNet port and by name; what NSGs deny is refused.

use crate::support::{Peerlane, Ran, User, root, unique, users};

/// Short runs: the tests ask whether something is measured, not how much.
const SHORT: [&str; 6] = ["--runs", "2", "--seconds", "0.2", "--warm-up", "0.05"];

fn checked(peerlane: &Peerlane, ran: &Ran, tests: usize) {
    assert_eq!(ran.code, 0, "{ran:?}");
    let report = ran.json();
    let schema = peerlane.run(["schema", "bench"]).json();
    jsonschema::validate(&schema, &report).unwrap_or_else(|error| panic!("{error}"));
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), tests, "{report:#}");
    for result in results {
        let [lowest, median, highest] =
            ["lowest", "median", "highest"].map(|name| result[name].as_f64().unwrap());
        assert!(
            0.0 < lowest && lowest <= median && median <= highest,
            "{result:#}"
        );
        assert_eq!(result["runs"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn a_lab_is_measured_as_every_user() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let file = root().join("examples/two-peered-vnets.vnet.yaml");
        let ran = peerlane.run([&["bench", file.to_str().unwrap()][..], &SHORT].concat());
        checked(&peerlane, &ran, 9);
        assert!(peerlane.list().is_empty(), "the private copy is gone");
    }
}

#[test]
fn nics_behind_vnet_ports_and_ipv6_are_measured() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("bench");
    let text = format!(
        r#"
apiVersion: peerlane/v1
kind: Lab
name: {name}
profile: azure-2025
vnets:
  one: {{ addressSpace: ["fd00:1::/48", 10.0.0.0/16], tun: {{ interface: pl-one }},
         subnets: {{ default: {{ addressPrefixes: ["fd00:1::/64", 10.0.0.0/24] }} }} }}
  two: {{ addressSpace: ["fd00:2::/48", 10.1.0.0/16], subnets: {{ default: {{ addressPrefixes: ["fd00:2::/64", 10.1.0.0/24] }} }} }}
peerings: [ one <-> two ]
networkInterfaces:
  first: {{ subnet: one/default, privateIPAddresses: [10.0.0.4] }}
  second: {{ subnet: one/default, privateIPAddresses: [10.0.0.5] }}
networkSecurityGroups:
  closed: {{ securityRules: {{ no: {{ priority: 100, direction: Inbound, access: Deny, protocol: Udp, sourceAddressPrefix: "*",
            sourcePortRange: "*", destinationAddressPrefix: "*", destinationPortRange: "7000" }} }} }}
vms:
  b: {{ subnet: two/default, privateIPAddresses: [10.1.0.4, "fd00:2::4"], networkSecurityGroup: closed }}
  c: {{ subnet: two/default, privateIPAddresses: [10.1.0.5, "fd00:2::5"] }}
"#
    );
    let file = peerlane.file("bench.vnet.yaml", &text);
    peerlane.up(&file);
    let measure = |words: &[&str]| peerlane.run([&["bench", &name][..], words, &SHORT].concat());
    let pair = [
        "--from",
        "second",
        "--to",
        "b",
        "--test",
        "udp-22",
        "--test",
        "tcp-1",
        "--test",
        "connections",
    ];
    checked(&peerlane, &measure(&pair), 3);
    let refused = measure(&["--from", "second", "--to", "b", "--port", "7000"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("second to b, Udp 7000: Deny (NsgInbound at"),
        "{refused:?}"
    );
    let untold = measure(&[]);
    assert_eq!(untold.code, 2, "no tests, no pair: {untold:?}");
    let unknown = measure(&["--from", "b", "--to", "nobody"]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
}
