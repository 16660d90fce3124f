//! TCP over links: it fills them, and loss does to it what it does on the kernel's own.

use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Peerlane, User, need_root, unique};
use crate::tbf_twin::{self, Twin};
use crate::{alone, full};

const RATE_BPS: u64 = 100_000_000;

/// What iperf3 says of one transfer.
#[derive(Clone, Copy, Debug, Default)]
struct Transfer {
    /// Received, of what TCP carried.
    mbps: f64,
    retransmits: f64,
    /// Sent.
    bytes: f64,
}

pub(crate) fn lab(name: &str, link: &str) -> String {
    format!(
        r#"
apiVersion: peerlane/v1
kind: Lab
name: {name}
profile: azure-2025
vnets:
  here: {{ location: eastus, addressSpace: [10.0.0.0/16], subnets: {{ default: {{ addressPrefix: 10.0.0.0/24 }} }} }}
  there: {{ location: eastus, addressSpace: [10.1.0.0/16], subnets: {{ default: {{ addressPrefix: 10.1.0.0/24 }} }} }}
peerings: [ here <-> there ]
links:
  here/here-to-there: {link}
vms:
  a: {{ subnet: here/default, privateIPAddress: 10.0.0.4 }}
  b: {{ subnet: there/default, privateIPAddress: 10.1.0.4 }}
"#
    )
}

#[test]
fn tcp_fills_a_long_fat_link() {
    let _alone = alone();
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("timing-long");
    let text = lab(&name, "{ latency: 100ms, rate: 100Mbit, queue: 100ms }");
    peerlane.up(&peerlane.file(&name, &text));
    let server = peerlane.spawn(&name, "b", &["iperf3", "-s"]);
    let seconds = if full() { "20" } else { "4" };
    let transfer = transfer(&["-c", "10.1.0.4", "-O", "3", "-t", seconds], |program| {
        peerlane.exec(&name, "a", program).stdout
    });
    end(server);
    println!("100 Mbit/s over 100 ms with a queue of 100 ms: {transfer:?}");
    assert!(transfer.mbps >= 90.0, "{transfer:?}");
}

#[test]
fn tcp_takes_loss_on_a_link_as_on_the_kernels_twin() {
    need_root("beside namespaces of the kernel's own");
    let _alone = alone();
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("timing-loss");
    let text = lab(&name, "{ rate: 100Mbit, queue: 20ms, loss: 1% }");
    peerlane.up(&peerlane.file(&name, &text));
    let twin = Twin::new(&unique("timing-twin"), RATE_BPS, RATE_BPS / 8 / 50);
    let servers = [
        peerlane.spawn(&name, "b", &["iperf3", "-s"]),
        twin.spawn(&["iperf3", "-s"]),
    ];
    let (rounds, seconds, tolerance) = if full() { (5, "10", 0.03) } else { (2, "3", 0.1) };
    let mut sums = [Transfer::default(); 2];
    for round in 0..rounds {
        let ours = transfer(&["-c", "10.1.0.4", "-t", seconds], |program| {
            peerlane.exec(&name, "a", program).stdout
        });
        let kernel = transfer(&["-c", tbf_twin::ADDRESS, "-t", seconds], |program| {
            twin.send(program)
        });
        println!("round {round}: link {ours:?}, TBF and nftables {kernel:?}");
        sums[0].add(ours);
        sums[1].add(kernel);
    }
    servers.into_iter().for_each(end);
    let [ours, kernel] = sums;
    let rate = ours.mbps / kernel.mbps;
    let lost = ours.loss() / kernel.loss();
    println!("link to twin: rate {rate:.3}, retransmitted {lost:.2}");
    assert!((rate - 1.0).abs() < tolerance, "{rate}");
    assert!(ours.mbps / f64::from(rounds) > 80.0, "{ours:?}");
    // Both lose one packet in a hundred; a few hundred of them are seen.
    assert!((0.7..1.4).contains(&lost), "{lost}");
}

impl Transfer {
    fn add(&mut self, other: Self) {
        self.mbps += other.mbps;
        self.retransmits += other.retransmits;
        self.bytes += other.bytes;
    }

    /// Share of packets that were sent again.
    fn loss(&self) -> f64 {
        self.retransmits / (self.bytes / 1448.0)
    }
}

/// Runs iperf3 until a server answers.
fn transfer(arguments: &[&str], run: impl Fn(&[&str]) -> String) -> Transfer {
    let program: Vec<&str> = ["iperf3", "-J"].iter().chain(arguments).copied().collect();
    let mut said = String::new();
    for _ in 0..50 {
        said = run(&program);
        let result: Value = serde_json::from_str(&said).unwrap_or_default();
        let end = &result["end"];
        if let Some(bps) = end["sum_received"]["bits_per_second"].as_f64() {
            return Transfer {
                mbps: bps / 1e6,
                retransmits: end["sum_sent"]["retransmits"].as_f64().unwrap(),
                bytes: end["sum_sent"]["bytes"].as_f64().unwrap(),
            };
        }
        // A server that starts, or ends the test before, turns a client away.
        sleep(Duration::from_millis(100));
    }
    panic!("iperf3 does not get through: {said}")
}

fn end(mut server: Child) {
    let _ = server.kill();
    let _ = server.wait();
}
