//! Workers, probes and publishing over real TUNs in namespaces of the test's own (needs root).

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control::Generation;
use lab::{LabSpec, Namespace};

use crate::api::{ProbeOutcome, ProbeProtocol, ProbeRequest, ProbeResult};
use crate::change::Hands;
use crate::ports::{self, Opened, Opening};
use crate::probe;
use crate::publish::Published;
use crate::running::{Current, Lab};
use crate::up::{Forwarding, Io};
use crate::worker::{Settings, Workers};

const TWO_VNETS: &str = r#"
apiVersion: peerlane/v1
kind: Lab
name: daemon-tests
profile: azure-2018
vnets:
  a: { addressSpace: [10.0.0.0/16, "fd00:a::/48"], subnets: { s: { addressPrefixes: [10.0.0.0/24, "fd00:a::/64"] } } }
  b: { addressSpace: [10.1.0.0/16, "fd00:b::/48"], subnets: { s: { addressPrefixes: [10.1.0.0/24, "fd00:b::/64"] } } }
peerings: [ "a <-> b" ]
networkSecurityGroups:
  closed:
    securityRules:
      no-ssh: { priority: 100, direction: Inbound, access: Deny, protocol: Tcp, sourceAddressPrefix: "*", sourcePortRange: "*",
                destinationAddressPrefix: "*", destinationPortRange: "22" }
vms:
  one: { subnet: a/s, privateIPAddresses: [10.0.0.4, "fd00:a::4"] }
  two: { subnet: b/s, privateIPAddresses: [10.1.0.4, "fd00:b::4"], networkSecurityGroup: closed }
  three: { subnet: b/s, privateIPAddresses: [10.1.0.5, "fd00:b::5"] }
"#;

/// A lab of this process alone, without keeper or run directory.
fn bring_up(text: &str, io: Io, workers: usize) -> Arc<Lab> {
    let source = model::Source::Text {
        name: String::from("test"),
        text: text.to_owned(),
    };
    let model::Loaded { topology, config, .. } = model::load(source).unwrap();
    let spec = LabSpec::of(&topology).unwrap();
    let mut opened = Opened::default();
    for wanted in &spec.namespaces {
        let namespace = Namespace::of(wanted).expect(
            "this test makes network namespaces and TUNs: run it as root (CAP_SYS_ADMIN, CAP_NET_ADMIN)",
        );
        let opening = Opening {
            io,
            workers,
            named: false,
        };
        for device in ports::open_namespace(wanted, &namespace, opening).unwrap() {
            opened.push(&wanted.name, device);
        }
        opened
            .ports
            .namespaces
            .push((wanted.name.clone(), Arc::new(namespace)));
    }
    let compiled = control::compile(&topology, 1);
    let generation = Generation::first(Arc::new(topology), compiled);
    let published = Arc::new(Published::new(workers));
    published.publish(Arc::clone(&generation.snapshot));
    let workers = Workers::start(opened.queues, Settings::default(), &published).unwrap();
    let current = Current {
        file: String::from("test"),
        text: Some(Arc::from(text)),
        config: Arc::new(config),
        spec,
        generation,
        ports: opened.ports,
    };
    Arc::new(Lab::new(
        current,
        Forwarding {
            io,
            ..Forwarding::default()
        },
        published,
        workers,
        Hands::default(),
    ))
}

fn request(from: (&str, &str), to: (&str, &str), protocol: ProbeProtocol, port: u16) -> ProbeRequest {
    ProbeRequest {
        from: from.0.to_owned(),
        source: from.1.parse().unwrap(),
        to: Some(to.0.to_owned()),
        destination: to.1.parse().unwrap(),
        listen: None,
        backends: Vec::new(),
        protocol,
        port,
        source_port: None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// All at once.
fn probe_all(lab: &Arc<Lab>, requests: Vec<ProbeRequest>) -> Vec<ProbeResult> {
    let runtime = runtime();
    let tasks: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let lab = Arc::clone(lab);
            runtime.spawn(async move { probe::probe(&lab, request).await })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(runtime.block_on(task).unwrap().unwrap());
    }
    results
}

fn ip(lab: &Lab, namespace: &str, arguments: &[&str]) {
    let run = || Command::new("ip").args(arguments).status().unwrap();
    assert!(lab.namespace(namespace).unwrap().run(run).unwrap().success());
}

#[test]
fn packets_pass_and_losses_have_their_reason() {
    for io in [Io::Vnet, Io::Plain] {
        let lab = bring_up(TWO_VNETS, io, 1);
        let (one, two) = (("one", "10.0.0.4"), ("two", "10.1.0.4"));
        let (one6, two6) = (("one", "fd00:a::4"), ("two", "fd00:b::4"));
        let mut requests = Vec::new();
        for (from, to) in [(one, two), (one6, two6), (two, one)] {
            requests.push(request(from, to, ProbeProtocol::Tcp, 80));
            requests.push(request(from, to, ProbeProtocol::Udp, 53));
            requests.push(request(from, to, ProbeProtocol::Icmp, 0));
        }
        let allowed = requests.len();
        requests.push(request(one, two, ProbeProtocol::Tcp, 22));
        requests.push(request(one6, two6, ProbeProtocol::Tcp, 22));
        let results = probe_all(&lab, requests);
        for result in &results[..allowed] {
            assert_eq!(result.result, ProbeOutcome::Allow, "{io:?} {result:?}");
        }
        for result in &results[allowed..] {
            assert_eq!(result.result, ProbeOutcome::Deny, "{io:?} {result:?}");
            assert_eq!(result.reason.as_deref(), Some("NsgInbound"));
            assert_eq!(result.nic.as_deref(), Some("two-nic"));
            assert_eq!(result.path.as_deref(), Some("forward"));
        }
        let drops = runtime().block_on(lab.drops());
        assert_eq!(drops.len(), 1, "{drops:?}");
        assert_eq!((drops[0].reason.as_str(), drops[0].packets), ("NsgInbound", 2));
        let ports = runtime().block_on(lab.ports());
        assert!(ports.iter().all(|port| port.forwarding));
        let sent = |port: usize| ports[port].counters.unwrap().sent_packets;
        assert!(sent(0) > 0 && sent(1) > 0 && sent(2) == 0, "{ports:?}");
    }
}

#[test]
fn a_port_that_dies_takes_nothing_with_it() {
    let lab = bring_up(TWO_VNETS, Io::Vnet, 1);
    ip(&lab, "two", &["link", "delete", "eth0"]);
    let end = Instant::now() + Duration::from_secs(10);
    while runtime().block_on(lab.ports())[1].forwarding {
        assert!(Instant::now() < end, "the worker does not notice");
        std::thread::sleep(Duration::from_millis(10));
    }
    let one = ("one", "10.0.0.4");
    let mut requests = vec![request(one, ("two", "10.1.0.4"), ProbeProtocol::Icmp, 0)];
    requests.extend((0..20).map(|_| request(one, ("three", "10.1.0.5"), ProbeProtocol::Icmp, 0)));
    let results = probe_all(&lab, requests);
    assert_eq!(results[0].result, ProbeOutcome::Deny);
    assert_eq!(results[0].reason.as_deref(), Some("PortGone"));
    assert!(
        results[1..]
            .iter()
            .all(|result| result.result == ProbeOutcome::Allow)
    );
}

#[test]
fn a_port_that_is_down_for_a_while_comes_back() {
    let lab = bring_up(TWO_VNETS, Io::Vnet, 1);
    let there = || {
        vec![request(
            ("one", "10.0.0.4"),
            ("three", "10.1.0.5"),
            ProbeProtocol::Icmp,
            0,
        )]
    };
    ip(&lab, "three", &["link", "set", "eth0", "down"]);
    let lost = probe_all(&lab, there());
    assert_eq!(lost[0].reason.as_deref(), Some("PortGone"), "{lost:?}");
    ip(&lab, "three", &["link", "set", "eth0", "up"]);
    ip(&lab, "three", &["route", "add", "default", "dev", "eth0"]);
    assert_eq!(probe_all(&lab, there())[0].result, ProbeOutcome::Allow);
}

#[test]
fn publishing_a_generation_loses_no_packet() {
    let lab = bring_up(TWO_VNETS, Io::Vnet, 1);
    let done = AtomicBool::new(false);
    let published = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let topology = Arc::clone(&lab.current().generation.topology);
            for generation in 2.. {
                if done.load(Ordering::Relaxed) {
                    return Ok(generation);
                }
                lab.published
                    .publish(control::compile(&topology, generation).snapshot);
                lab.workers.wake();
                if !lab.published.retired(generation, Duration::from_secs(5)) {
                    return Err(generation);
                }
            }
            Err(0)
        });
        let requests = (0..200).map(|number| {
            let (to, protocol) = if number % 2 == 0 {
                (80, ProbeProtocol::Tcp)
            } else {
                (0, ProbeProtocol::Icmp)
            };
            request(("one", "10.0.0.4"), ("three", "10.1.0.5"), protocol, to)
        });
        let results = probe_all(&lab, requests.collect());
        assert!(results.iter().all(|result| result.result == ProbeOutcome::Allow));
        done.store(true, Ordering::Relaxed);
        publisher.join().unwrap()
    });
    let generations = published.expect("a generation is retired within 5 s");
    assert!(generations > 3, "{generations} generations only");
    assert_eq!(runtime().block_on(lab.drops()), []);
}
