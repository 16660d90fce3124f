//! Flow logs of a running lab, read from their files.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Peerlane, User, unique};

fn lab(name: &str) -> String {
    format!(
        r#"
apiVersion: peerlane/v1
kind: Lab
name: {name}
profile: azure-2025
vnets: {{ one: {{ addressSpace: [10.0.0.0/16], subnets: {{ default: {{ addressPrefix: 10.0.0.0/24 }} }} }} }}
networkSecurityGroups:
  web:
    securityRules:
      allow-web: {{ priority: 100, direction: Inbound, access: Allow, protocol: Tcp, sourceAddressPrefix: "*",
                   sourcePortRange: "*", destinationAddressPrefix: "*", destinationPortRange: "8000" }}
      deny-rest: {{ priority: 200, direction: Inbound, access: Deny, protocol: "*", sourceAddressPrefix: "*",
                   sourcePortRange: "*", destinationAddressPrefix: "*", destinationPortRange: "*" }}
flowLogs: {{ web-log: {{ networkSecurityGroup: web, storage: logs, retentionPolicy: {{ days: 7 }} }} }}
vms:
  a: {{ subnet: one/default, privateIPAddress: 10.0.0.4 }}
  b: {{ subnet: one/default, privateIPAddress: 10.0.0.5, networkSecurityGroup: web }}
"#
    )
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.path().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Shows: NSG-36, NSG-40, NSG-41, NSG-42.
#[test]
fn they_hold_what_was_allowed_and_what_was_denied_under_the_rules_that_did_it() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("flowlog");
    peerlane.up(&peerlane.file(&name, &lab(&name)));
    let serve = "import socket;s=socket.create_server(('0.0.0.0',8000));c,_=s.accept();c.recv(9);c.close()";
    let mut server = peerlane.spawn(&name, "b", &["python3", "-c", serve]);
    let talk = "
import socket,time
for attempt in range(100):
    try: s=socket.create_connection(('10.0.0.5',8000)); break
    except ConnectionRefusedError: time.sleep(.1)
s.sendall(b'hi'); s.recv(1)
u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.bind(('',9)); u.sendto(b'x',('10.0.0.5',53))
";
    let ran = peerlane.exec(&name, "a", &["python3", "-c", talk]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(server.wait().unwrap().success());
    // What waits for its minute is written when the lab goes down.
    let ran = peerlane.run(["down", &name]);
    assert_eq!(ran.code, 0, "{ran:?}");

    let mut found = Vec::new();
    files(&peerlane.dir.join("logs"), &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
    let path = found[0].to_str().unwrap().to_owned();
    let nsg = format!(
        "resourceId=/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/{}/PROVIDERS/MICROSOFT.NETWORK/\
         NETWORKSECURITYGROUPS/WEB/y=",
        name.to_uppercase()
    );
    assert!(path.contains(&nsg) && path.ends_with("/PT1H.json"), "{path}");
    let log: Value = serde_json::from_slice(&fs::read(&found[0]).unwrap()).unwrap();
    let flows = &log["records"][0]["properties"]["flows"];
    let tuples = |rule: &str| -> Vec<Vec<String>> {
        let of_rule = flows.as_array().unwrap().iter().find(|flow| flow["rule"] == rule);
        let of_rule = of_rule.unwrap_or_else(|| panic!("no {rule} in {log:#}"));
        let lines = of_rule["flows"][0]["flowTuples"].as_array().unwrap();
        let split = |line: &Value| line.as_str().unwrap().split(',').map(str::to_owned).collect();
        lines.iter().map(split).collect()
    };
    let allowed = tuples("UserRule_allow-web");
    for line in &allowed {
        assert_eq!(line.len(), 13, "{line:?}");
        assert_eq!(line[1..3], ["10.0.0.4", "10.0.0.5"]);
        assert_eq!(line[4..8], ["8000", "T", "I", "A"]);
    }
    assert_eq!(allowed[0][8..], ["B", "", "", "", ""]);
    let denied = tuples("UserRule_deny-rest");
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!(
        denied[0][1..],
        [
            "10.0.0.4", "10.0.0.5", "9", "53", "U", "I", "D", "B", "", "", "", ""
        ]
    );
}
