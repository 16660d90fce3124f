//! Distance between regions and the egress of VM sizes, measured from outside.

use serde_json::Value;

use crate::support::{Peerlane, User, unique};

fn lab(name: &str) -> String {
    format!(
        r#"
apiVersion: peerlane/v1
kind: Lab
name: {name}
profile: azure-2025
vnets:
  here: {{ location: eastus, addressSpace: [10.0.0.0/16], subnets: {{ default: {{ addressPrefix: 10.0.0.0/24 }} }} }}
  near: {{ location: eastus, addressSpace: [10.1.0.0/16], subnets: {{ default: {{ addressPrefix: 10.1.0.0/24 }} }} }}
  far: {{ location: centralus, addressSpace: [10.2.0.0/16], subnets: {{ default: {{ addressPrefix: 10.2.0.0/24 }} }} }}
peerings: [ here <-> near, here <-> far ]
vms:
  a: {{ subnet: here/default, privateIPAddress: 10.0.0.4 }}
  small: {{ subnet: here/default, privateIPAddress: 10.0.0.5, size: Standard_A1_v2 }}
  b: {{ subnet: near/default, privateIPAddress: 10.1.0.4 }}
  c: {{ subnet: far/default, privateIPAddress: 10.2.0.4 }}
"#
    )
}

/// Shortest round trip of some pings, in milliseconds.
fn round_trip(peerlane: &Peerlane, name: &str, address: &str) -> f64 {
    let ran = peerlane.exec(name, "a", &["ping", "-q", "-c", "20", "-i", "0.02", address]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let times = ran.stdout.split("min/avg/max/mdev = ").nth(1).unwrap();
    times.split('/').next().unwrap().parse().unwrap()
}

/// Shows: PEER-39, NET-11.
#[test]
fn a_global_peering_takes_the_published_time_and_a_regional_one_none() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("distance");
    peerlane.up(&peerlane.file(&name, &lab(&name)));
    let inside = round_trip(&peerlane, &name, "10.0.0.5");
    let near = round_trip(&peerlane, &name, "10.1.0.4");
    let far = round_trip(&peerlane, &name, "10.2.0.4");
    let rows = peerlane.run(["peerings", &name, "-o", "json"]).json();
    let latency = |peering: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == peering);
        row.unwrap()["latency_us"].as_f64().unwrap() / 1000.0
    };
    println!("round trips: {inside} ms inside, {near} ms in the region, {far} ms between regions");
    assert_eq!((latency("here-to-near"), latency("near-to-here")), (0.0, 0.0));
    let published = latency("here-to-far") + latency("far-to-here");
    assert!(published >= 20.0, "{rows:#}");
    assert!(
        (far - near - published).abs() < 2.0,
        "{far} - {near} is not {published} ms"
    );
    assert!((near - inside).abs() < 2.0, "{near} against {inside} ms");
}

/// Shows: NET-12, PEER-39.
#[test]
fn a_vm_of_a_size_sends_what_it_may_and_receives_what_it_can() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("egress");
    peerlane.up(&peerlane.file(&name, &lab(&name)));
    let mut server = peerlane.spawn(&name, "b", &["iperf3", "-s"]);
    let rate = |reverse: bool| {
        let mut program = vec!["iperf3", "-J", "-t", "3", "-O", "1", "-c", "10.1.0.4"];
        program.extend(reverse.then_some("-R"));
        let mut ran = peerlane.exec(&name, "small", &program);
        for _ in 0..50 {
            // A server that starts, or ends the test before, turns a client away.
            let result: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
            if let Some(rate) = result["end"]["sum_received"]["bits_per_second"].as_f64() {
                return rate / 1e6;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            ran = peerlane.exec(&name, "small", &program);
        }
        panic!("iperf3 does not get through: {ran:?}")
    };
    let (sent, received) = (rate(false), rate(true));
    let _ = server.kill();
    let _ = server.wait();
    println!("Standard_A1_v2: {sent:.0} Mbit/s out, {received:.0} Mbit/s in");
    // 250 Mbit/s of IP; iperf3 counts what TCP carried.
    assert!((200.0..=250.0).contains(&sent), "{sent} Mbit/s");
    assert!(received > 400.0, "{received} Mbit/s");
}
