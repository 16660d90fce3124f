//! `links:` with real packets, what `links` and `explain` say of it, and changes of it while packets flow.

use serde_json::{Value, json};

use crate::support::{Peerlane, User, unique};

fn lab(name: &str, links: &str) -> String {
    format!(
        r#"
apiVersion: peerlane/v1
kind: Lab
name: {name}
profile: azure-2025
vnets:
  one: {{ location: eastus, addressSpace: [10.0.0.0/16], subnets: {{ default: {{ addressPrefix: 10.0.0.0/24 }} }} }}
  two: {{ location: eastus, addressSpace: [10.1.0.0/16], subnets: {{ default: {{ addressPrefix: 10.1.0.0/24 }} }} }}
  chile: {{ location: chilecentral, addressSpace: [10.2.0.0/16], subnets: {{ default: {{ addressPrefix: 10.2.0.0/24 }} }} }}
peerings: [ one <-> two, one <-> chile ]
vms:
  a: {{ subnet: one/default, privateIPAddress: 10.0.0.4 }}
  b: {{ subnet: two/default, privateIPAddress: 10.1.0.4 }}
seed: 3
links:
{links}
"#
    )
}

fn row<'a>(rows: &'a Value, link: &str) -> &'a Value {
    let mut all = rows.as_array().unwrap().iter();
    all.find(|row| row["link"] == link)
        .unwrap_or_else(|| panic!("{link} is not in {rows:#}"))
}

/// What `ping` says: how many answers and how many of them twice, and the least round trip in milliseconds.
fn ping(peerlane: &Peerlane, name: &str, count: &str) -> (String, [u64; 2], f64) {
    let ran = peerlane.exec(
        name,
        "a",
        &["ping", "-q", "-c", count, "-i", "0.005", "-W", "1", "10.1.0.4"],
    );
    let line = ran.stdout.lines().find(|line| line.contains("transmitted"));
    let line = line.unwrap_or_else(|| panic!("{ran:?}"));
    let number = |what: &str| {
        let part = line.split(", ").find(|part| part.contains(what));
        part.map_or(0, |part| {
            let digits = part.trim_start_matches('+');
            digits.split(' ').next().unwrap().parse().unwrap()
        })
    };
    let least = ran.stdout.split("min/avg/max/mdev = ").nth(1);
    let least = least.map_or(0.0, |times| times.split('/').next().unwrap().parse().unwrap());
    assert_eq!(number("transmitted").to_string(), count);
    (line.to_owned(), ["received", "duplicates"].map(number), least)
}

#[test]
fn packets_meet_what_links_say_and_every_one_is_counted() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("links");
    let first =
        "  one/one-to-two: { latency: 4ms, loss: 20%, duplicate: 10% }\n  two/two-to-one: { latency: 6ms }";
    peerlane.up(&peerlane.file(&name, &lab(&name, first)));
    let links = || peerlane.run(["links", &name, "-o", "json"]).json();
    let (said, [received, copies], least) = ping(&peerlane, &name, "300");
    let rows = links();
    let schema = peerlane.run(["schema", "links"]).json();
    jsonschema::validate(&schema, &rows).unwrap();
    let (out, back) = (row(&rows, "one/one-to-two"), row(&rows, "two/two-to-one"));
    assert_eq!(
        (out["latency_us"].as_f64(), out["loss"].as_f64()),
        (Some(4000.0), Some(0.2)),
        "{out:#}"
    );
    let count = |row: &Value, key: &str| row["counters"][key].as_u64().unwrap();
    assert_eq!(
        300 + count(out, "duplicated"),
        count(out, "packets") + count(out, "lost"),
        "{said}: {out:#}"
    );
    assert!(count(out, "lost") > 20 && count(out, "duplicated") > 5, "{out:#}");
    assert_eq!(received + copies, count(out, "packets"), "{said}: {out:#}");
    assert_eq!(count(back, "packets"), count(out, "packets"));
    assert!((10.0..12.0).contains(&least), "{least} ms");
    // How late they came out, of each link: in the lists, and for Prometheus.
    let (late, packets) = (&out["counters"]["late"], &out["counters"]["packets"]);
    assert_eq!(&late["packets"], packets, "{out:#}");
    let buckets = late["histogram"].as_array().unwrap().iter();
    let sum: u64 = buckets.map(|it| it["packets"].as_u64().unwrap()).sum();
    assert_eq!(Some(sum), packets.as_u64(), "{late:#}");
    let table = peerlane.run(["links", &name, "-o", "table"]).stdout;
    let row_of = |link: &str| table.lines().filter(|line| line.starts_with(link)).count();
    assert!(
        table.contains("\nLate at") && row_of("one/one-to-two") == 2,
        "{table}"
    );
    let page = peerlane.get(&name, "/metrics");
    let sample = format!(
        "peerlane_link_delay_error_seconds_count{{link=\"one/one-to-two\",back=\"false\"}} {packets}"
    );
    assert!(
        page.lines().any(|line| line == sample),
        "{sample} is not in {page}"
    );
    let drops = peerlane.run(["drops", &name, "-o", "json"]).json();
    let lost = json!([{ "reason": "LinkLoss", "nic": "a-nic", "packets": count(out, "lost"), "bytes": 84 * count(out, "lost") }]);
    assert_eq!(drops, lost);

    // A running lab: what the new file says, and no more.
    let second = peerlane.file(&name, &lab(&name, "  one/one-to-two: { latency: 25ms }"));
    let plan = peerlane
        .run(["plan", &name, second.to_str().unwrap(), "-o", "json"])
        .json();
    let changed: Vec<&str> = plan["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(changed, ["one/one-to-two", "two/two-to-one"], "{plan:#}");
    let ran = peerlane.run(["apply", &name, second.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let (said, [received, _], least) = ping(&peerlane, &name, "50");
    assert_eq!(received, 50, "{said}");
    assert!((25.0..27.0).contains(&least), "{least} ms");
    let exported = peerlane.run(["export", &name]).stdout;
    assert!(
        exported.contains("one/one-to-two:") && exported.contains("25ms"),
        "{exported}"
    );
    assert!(!exported.contains("two/two-to-one:"), "{exported}");
}

#[test]
fn explain_and_the_lists_say_what_links_do() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("links");
    let links = "  one/one-to-two: { loss: 1%, mtu: 1300 }\n  two/two-to-one: { down: true }";
    let file = peerlane.file(&name, &lab(&name, links));
    let file = file.to_str().unwrap();
    let told = peerlane
        .run(["explain", file, "a", "b", "--port", "80", "-o", "json"])
        .json();
    assert_eq!(told["drop"]["reason"], "LinkDown", "{told:#}");
    assert_eq!(
        (&told["drop"]["path"], &told["drop"]["at"]),
        (&json!("return"), &json!("b-nic"))
    );
    let codes: Vec<&str> = told["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["LinkLoss", "PathMtu", "LinkDown"], "{told:#}");

    // chilecentral is in no published table.
    let rows = peerlane.run(["peerings", file, "-o", "json"]).json();
    let chile = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == "one-to-chile");
    let chile = chile.unwrap();
    assert_eq!(chile["latencySource"], "estimate");
    let us = chile["latency_us"].as_u64().unwrap();
    assert!((55_000..75_000).contains(&us), "{us}");
    let rows = peerlane.run(["links", file, "-o", "json"]).json();
    assert_eq!(row(&rows, "one/one-to-chile")["latencySource"], "estimate");
    assert_eq!(row(&rows, "one/one-to-chile")["counters"], Value::Null);
    assert_eq!(row(&rows, "two/two-to-one")["down"], true);
    let table = peerlane.run(["links", file, "-o", "table"]).stdout;
    assert!(table.contains("(estimate)") && table.contains("down"), "{table}");
    let noted = peerlane.run(["validate", file]);
    assert!(
        noted.stderr.contains("is estimated from their distance"),
        "{noted:?}"
    );
}
