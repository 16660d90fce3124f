//! What links cost packets that cross none: labs with and without `links:`, by turns, beside a lab against its like.

use std::fmt::Write;

use crate::support::{Peerlane, User, unique};
use crate::{alone, full};

const ROUNDS: usize = 9;
const TESTS: [&str; 2] = ["tcp-1", "udp-22"];

fn lab(name: &str, links: &str) -> String {
    let mut text = format!("apiVersion: peerlane/v1\nkind: Lab\nname: {name}\nprofile: azure-2025\nvnets:\n");
    for (number, vnet) in ["one", "two", "three"].iter().enumerate() {
        writeln!(
            text,
            "  {vnet}: {{ location: eastus, addressSpace: [10.{number}.0.0/16], \
             subnets: {{ default: {{ addressPrefix: 10.{number}.0.0/24 }} }} }}"
        )
        .unwrap();
    }
    text += "peerings: [ one <-> two, one <-> three ]\nvms:\n";
    text += "  a: { subnet: one/default, privateIPAddress: 10.0.0.4 }\n";
    text += "  b: { subnet: two/default, privateIPAddress: 10.1.0.4 }\n";
    text + links
}

/// What `peerlane bench` measures in this lab, one run of each test.
fn bench(peerlane: &Peerlane, name: &str) -> [f64; TESTS.len()] {
    TESTS.map(|test| {
        let ran = peerlane.run([
            "bench",
            name,
            "--from",
            "a",
            "--to",
            "b",
            "--test",
            test,
            "--runs",
            "1",
            "--seconds",
            "1",
            "--warm-up",
            "0.3",
            "-o",
            "json",
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.json()["results"][0]["median"].as_f64().unwrap()
    })
}

/// The middle, and half of what lies between the quarters divided by the root of how many there are, times 1.57 (about
/// what a median of as many others would be off by).
fn median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
    let noise = 1.57 * (at(0.75) - at(0.25)) / (values.len() as f64).sqrt();
    (at(0.5), noise)
}

/// Only with PEERLANE_FULL: throughput says nothing on a machine that does other things.
#[test]
fn a_link_that_nobody_crosses_costs_nothing() {
    if !full() {
        return;
    }
    let _alone = alone();
    let peerlane = Peerlane::new(User::Caller);
    let idle =
        "links:\n  one/one-to-three: { latency: 35ms, jitter: { deviation: 2ms }, loss: 1%, rate: 1Gbit }\n";
    let names = [("", 'a'), ("", 'b'), (idle, 'c')].map(|(links, which)| {
        let name = unique(&format!("timing-idle-{which}"));
        peerlane.up(&peerlane.file(&name, &lab(&name, links)));
        name
    });
    let mut ratios = [const { [const { Vec::new() }; 2] }; TESTS.len()];
    for round in 0..ROUNDS {
        let mut figures = [[0.0; TESTS.len()]; 3];
        for turn in 0..3 {
            let which = (round + turn) % 3;
            figures[which] = bench(&peerlane, &names[which]);
        }
        for test in 0..TESTS.len() {
            ratios[test][0].push(figures[1][test] / figures[0][test]);
            ratios[test][1].push(figures[2][test] / figures[0][test]);
        }
    }
    for (test, ratios) in TESTS.iter().zip(ratios) {
        let [(same, noise), (linked, spread)] = ratios.map(median);
        println!(
            "{test}: with an idle link {linked:.4} +- {spread:.4} of without; without beside without {same:.4} +- {noise:.4}"
        );
        let allowed = (same - 1.0).abs() + noise + spread;
        assert!(
            (linked - 1.0).abs() <= allowed,
            "{test}: {linked}, noise {allowed}"
        );
    }
}
