//! Single objects of a running lab, created, changed and deleted by command; and what watching shows of it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Peerlane, Ran, User, two_vnets, unique};

fn done(peerlane: &Peerlane, command: &str) -> Ran {
    let ran = peerlane.run(command.split(' '));
    assert_eq!(ran.code, 0, "{command}: {ran:?}");
    let schema = peerlane
        .run(["schema", command.split(' ').next().unwrap()])
        .json();
    jsonschema::validate(&schema, &ran.json()).unwrap_or_else(|error| panic!("{command}: {error}"));
    ran
}

fn pings(peerlane: &Peerlane, lab: &str, from: &str, to: &str) -> bool {
    peerlane.exec(lab, from, &["ping", "-c", "1", "-W", "1", to]).code == 0
}

/// Each command does with packets what it says, and what is refused says why.
#[test]
fn single_objects_change_what_packets_do() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("edits");
    peerlane.up(&peerlane.file(&name, &two_vnets(&name, "")));
    let mut watch = peerlane
        .command(["watch", &name])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(told.next().unwrap().unwrap().contains("\"event\":\"generation\""));

    let reaches = |from: &str, to: &str| pings(&peerlane, &name, from, to);
    assert!(reaches("a", "10.1.0.4"));
    let dry = done(
        &peerlane,
        "peering delete -n one-to-two --vnet-name one --dry-run",
    );
    assert!(
        dry.stdout.contains("Delete") && reaches("a", "10.1.0.4"),
        "{dry:?}"
    );
    done(&peerlane, "peering delete -n one-to-two --vnet-name one");
    assert!(!reaches("a", "10.1.0.4"));
    done(&peerlane, "peering delete -n two-to-one --vnet-name two");
    done(
        &peerlane,
        "peering create -n one-to-two --vnet-name one --remote-vnet two",
    );
    done(
        &peerlane,
        "peering create -n two-to-one --vnet-name two --remote-vnet one",
    );
    assert!(reaches("a", "10.1.0.4"));
    done(
        &peerlane,
        "peering update -n one-to-two --vnet-name one --allow-vnet-access false --set allowForwardedTraffic=true",
    );
    let rows = peerlane.run(["peerings", &name, "-o", "json"]).json();
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == "one-to-two")
        .unwrap();
    assert_eq!(
        (&row["allowVirtualNetworkAccess"], &row["allowForwardedTraffic"]),
        (&Value::from(false), &Value::from(true))
    );
    done(
        &peerlane,
        "peering update -n one-to-two --vnet-name one --allow-vnet-access",
    );
    done(
        &peerlane,
        "vnet update -n two --address-prefixes 10.1.0.0/16 fd00:b::/48 10.7.0.0/16",
    );
    done(&peerlane, "peering sync -n one-to-two --vnet-name one");

    assert!(!reaches("a", "10.1.0.5"), "c is closed");
    done(
        &peerlane,
        "nsg rule create -n ping --nsg-name closed --priority 150 --protocol Icmp --destination-port-ranges *",
    );
    assert!(!reaches("a", "10.1.0.5"), "after the denying rule");
    done(
        &peerlane,
        "nsg rule update -n deny-all --nsg-name closed --set priority=4000",
    );
    assert!(reaches("a", "10.1.0.5"));
    done(&peerlane, "nsg rule delete -n ping --nsg-name closed");

    done(&peerlane, "route-table create -n nowhere");
    done(
        &peerlane,
        "route create -n none --route-table-name nowhere --address-prefix 10.1.0.4/32 --next-hop-type None",
    );
    done(
        &peerlane,
        "subnet update -n default --vnet-name one --route-table nowhere",
    );
    assert!(!reaches("a", "10.1.0.4"));
    done(&peerlane, "route delete -n none --route-table-name nowhere");
    assert!(reaches("a", "10.1.0.4"));
    done(&peerlane, "vnet create -n three --address-prefixes 10.3.0.0/16");
    done(
        &peerlane,
        "subnet create -n s --vnet-name three --address-prefixes 10.3.0.0/24",
    );
    done(&peerlane, "subnet delete -n s --vnet-name three");
    done(&peerlane, "vnet delete -n three");

    let refusals = [
        (
            "peering update -n no --vnet-name one --allow-vnet-access",
            3,
            "ResourceNotFound",
        ),
        ("nsg rule create -n r --nsg-name closed --priority 7", 1, "Sim."),
        ("nsg rule delete -n r --nsg-name no", 3, "ParentResourceNotFound"),
        ("route-table delete -n nowhere", 1, "nowhere"),
        ("vnet update -n two", 2, "--set"),
        ("vnet update -n two --set colour=blue", 1, "Sim.UnknownField"),
    ];
    let before = peerlane.run(["export", &name]).stdout;
    for (command, code, word) in refusals {
        let ran = peerlane.run(command.split(' '));
        assert_eq!(ran.code, code, "{command}: {ran:?}");
        assert!(ran.stderr.contains(word), "{command}: {ran:?}");
    }
    assert_eq!(peerlane.run(["export", &name]).stdout, before);

    // Everything above was told, and what was lost and carried.
    let (mut changed, mut lost, mut carried) = (Vec::new(), false, false);
    while changed.len() < 19 || !lost || !carried {
        let event: Value = serde_json::from_str(&told.next().unwrap().unwrap()).unwrap();
        match event["event"].as_str().unwrap() {
            "change" => changed.push(event["data"]["generation"].as_u64().unwrap()),
            "drops" => lost |= event["data"].to_string().contains("NsgInbound"),
            "rates" => carried |= event["data"]["nics"].to_string().contains("a-nic"),
            other => panic!("{other}"),
        }
    }
    assert!(changed.windows(2).all(|two| two[0] < two[1]), "{changed:?}");
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(peerlane.run(["down", &name]).code, 0);
    peerlane.assert_nothing_left(&name);
}
