//! Traffic at full rate and a paced flow, while everything around them changes: neither feels it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daemon::Client;
use daemon::api::{ApplyRequest, EventRequest};

use crate::support::{Peerlane, Ran, User, unique, wait_for};

/// VNets that change; the traffic has its own.
const OTHERS: usize = 6;
/// Longer than programs take to start.
const SOON: Duration = Duration::from_secs(20);

const BASE: &str = "
apiVersion: peerlane/v1
kind: Lab
name: LAB
profile: azure-2025
vnets:
  one: { addressSpace: [10.0.0.0/16], subnets: { s: { addressPrefix: 10.0.0.0/24 } } }
  two: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24 } } }
  three: { addressSpace: [10.2.0.0/16], subnets: { s: { addressPrefix: 10.2.0.0/24 } } }
  four: { addressSpace: [10.3.0.0/16], subnets: { s: { addressPrefix: 10.3.0.0/24 } } }
";
const VMS: &str = "
vms:
  a: { subnet: one/s, privateIPAddress: 10.0.0.4 }
  b: { subnet: two/s, privateIPAddress: 10.1.0.4 }
  c: { subnet: three/s, privateIPAddress: 10.2.0.4 }
  d: { subnet: four/s, privateIPAddress: 10.3.0.4 }
";

/// How long and how often traffic runs undisturbed and disturbed in turn.
#[derive(Clone, Copy)]
struct Campaign {
    pairs: usize,
    seconds: u64,
    /// Changes in one disturbed run, evenly spread.
    changes: usize,
    packets_per_second: u64,
}

/// What one run came to.
#[derive(Debug)]
struct Run {
    /// Of the flow at full rate.
    bits_per_second: f64,
    /// Of the paced flow.
    lost: i64,
    sent: i64,
    made: usize,
    slowest: Duration,
}

/// What changes, as random steps leave it.
#[derive(Default)]
struct Others {
    peered: BTreeSet<(usize, usize)>,
    rules: BTreeSet<usize>,
    routes: BTreeSet<usize>,
    subnets: BTreeSet<(usize, usize)>,
    random: u64,
}

impl Others {
    fn below(&mut self, count: usize) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap() % count
    }

    /// Puts one thing in, or takes it out where it is.
    fn step(&mut self) {
        fn toggle<T: Ord>(set: &mut BTreeSet<T>, it: T) {
            if !set.remove(&it) {
                set.insert(it);
            }
        }
        let (kind, one, other) = (self.below(4), self.below(OTHERS), self.below(OTHERS));
        match kind {
            0 if one != other => toggle(&mut self.peered, (one.min(other), one.max(other))),
            0 | 1 => {
                let rule = self.below(40);
                toggle(&mut self.rules, rule);
            }
            2 => {
                let route = self.below(40);
                toggle(&mut self.routes, route);
            }
            _ => {
                let subnet = 1 + self.below(9);
                toggle(&mut self.subnets, (one, subnet));
            }
        }
    }

    fn text(&self, name: &str) -> String {
        let mut text = BASE.replace("LAB", name);
        for vnet in 0..OTHERS {
            let range = 100 + vnet;
            let _ = write!(
                text,
                "  x{vnet}: {{ addressSpace: [10.{range}.0.0/16], subnets: {{ "
            );
            let _ = write!(
                text,
                "s: {{ addressPrefix: 10.{range}.0.0/24, networkSecurityGroup: guard, routeTable: way }}"
            );
            for (_, subnet) in self.subnets.iter().filter(|(own, _)| *own == vnet) {
                let _ = write!(text, ", e{subnet}: {{ addressPrefix: 10.{range}.{subnet}.0/24 }}");
            }
            text.push_str(" } }\n");
        }
        text.push_str(VMS);
        for vnet in 0..OTHERS {
            let _ = writeln!(
                text,
                "  m{vnet}: {{ subnet: x{vnet}/s, privateIPAddress: 10.{}.0.4 }}",
                100 + vnet
            );
        }
        text.push_str("peerings:\n  - one <-> two\n  - three <-> four\n");
        for (one, other) in &self.peered {
            let _ = writeln!(text, "  - x{one} <-> x{other}");
        }
        text.push_str("networkSecurityGroups:\n  guard:\n    securityRules:\n      first: { priority: 4000, direction: Inbound, access: Allow, protocol: Tcp, sourceAddressPrefix: '*', sourcePortRange: '*', destinationAddressPrefix: '*', destinationPortRange: '22' }\n");
        for rule in &self.rules {
            let _ = writeln!(
                text,
                "      r{rule}: {{ priority: {}, direction: Inbound, access: Deny, protocol: Tcp, sourceAddressPrefix: VirtualNetwork, sourcePortRange: '*', destinationAddressPrefix: '*', destinationPortRange: '{}' }}",
                100 + rule,
                1000 + rule
            );
        }
        text.push_str("routeTables:\n  way:\n    routes:\n      first: { addressPrefix: 192.168.0.0/16, nextHopType: None }\n");
        for route in &self.routes {
            let _ = writeln!(
                text,
                "      t{route}: {{ addressPrefix: 172.16.{route}.0/24, nextHopType: VirtualAppliance, nextHopIpAddress: 10.100.0.4 }}"
            );
        }
        text
    }
}

struct Lab {
    peerlane: Peerlane,
    name: String,
    client: Client,
    others: Others,
}

impl Lab {
    fn up() -> Self {
        let (peerlane, name) = (Peerlane::new(User::Caller), unique("load"));
        let others = Others {
            random: 7,
            ..Others::default()
        };
        peerlane.up(&peerlane.file(&name, &others.text(&name)));
        let socket = peerlane.list()[0]["socket"].as_str().unwrap().to_owned();
        let client = Client::connect(socket.as_ref()).unwrap();
        Self {
            peerlane,
            name,
            client,
            others,
        }
    }

    fn iperf(&self, vm: &str, arguments: &[&str]) -> std::process::Child {
        let program: Vec<&str> = ["iperf3"].iter().chain(arguments).copied().collect();
        self.peerlane.spawn(&self.name, vm, &program)
    }

    /// Changes at even distances until told to stop; returns how many were made and the longest.
    fn change(&mut self, every: Duration, most: usize, stop: &AtomicBool) -> (usize, Duration) {
        let (start, mut slowest) = (Instant::now(), Duration::ZERO);
        for number in 0..most {
            if stop.load(Ordering::Relaxed) {
                return (number, slowest);
            }
            self.others.step();
            let request = ApplyRequest {
                file: format!("{}.vnet.yaml", self.name),
                text: self.others.text(&self.name),
                dry_run: false,
            };
            let begun = Instant::now();
            self.client.apply(&request).unwrap();
            slowest = slowest.max(begun.elapsed());
            let due = every * u32::try_from(number + 1).unwrap();
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        (most, slowest)
    }

    /// Both flows for so long; meanwhile changes, or none.
    fn run(&mut self, campaign: Campaign, disturbed: bool) -> Run {
        let servers = [("b", "10.1.0.4"), ("d", "10.3.0.4")].map(|(vm, _)| self.iperf(vm, &["-s", "-1"]));
        for vm in ["b", "d"] {
            let listens = || {
                let ran = self
                    .peerlane
                    .exec(&self.name, vm, &["sh", "-c", "ss -tlnH | grep -c :5201"]);
                ran.stdout.trim() == "1"
            };
            assert!(wait_for(SOON, listens), "iperf3 does not listen in {vm}");
        }
        let seconds = campaign.seconds.to_string();
        // 100 bytes of payload.
        let rate = (campaign.packets_per_second * 800).to_string();
        let paced = [
            "-c", "10.1.0.4", "-u", "-l", "100", "-b", &rate, "-t", &seconds, "-J",
        ];
        let paced = self.iperf("a", &paced);
        let full = self.iperf("c", &["-c", "10.3.0.4", "-t", &seconds, "-J"]);
        let stop = AtomicBool::new(false);
        let before = self.client.state().unwrap().generation;
        let (ran, changes) = std::thread::scope(|scope| {
            let (stop, lab) = (&stop, &mut *self);
            let every = Duration::from_secs(campaign.seconds) / u32::try_from(campaign.changes).unwrap();
            let changes = disturbed.then(|| scope.spawn(move || lab.change(every, campaign.changes, stop)));
            let ran = [paced, full].map(|program| Ran::of(program.wait_with_output().unwrap()));
            stop.store(true, Ordering::Relaxed);
            (ran, changes.map(|changes| changes.join().unwrap()))
        });
        let (made, slowest) = changes.unwrap_or_default();
        let generations = self.client.state().unwrap().generation - before;
        assert_eq!(generations, made as u64, "each change is a generation");
        for mut server in servers {
            server.wait().unwrap();
        }
        let [paced, full] = ran.map(|ran| {
            assert_eq!(ran.code, 0, "{ran:?}");
            ran.json()
        });
        let sum = &paced["end"]["sum"];
        Run {
            bits_per_second: full["end"]["sum_received"]["bits_per_second"].as_f64().unwrap(),
            lost: sum["lost_packets"].as_i64().unwrap(),
            sent: sum["packets"].as_i64().unwrap(),
            made,
            slowest,
        }
    }

    /// Losses of the machines that have the traffic, by any reason, full queues of the fast flow excepted.
    fn drops(&self) -> Vec<String> {
        let drops = self.client.drops().unwrap().into_iter();
        let ours = drops.filter(|drop| {
            let nic = drop.nic.as_deref().unwrap_or_default();
            let fast = ["c-nic", "d-nic"].contains(&nic) && drop.reason == "PortFull";
            ["a-nic", "b-nic", "c-nic", "d-nic"].contains(&nic) && !fast
        });
        ours.map(|drop| format!("{drop:?}")).collect()
    }
}

/// Unrelated changes by the control socket: peerings, rules, routes and subnets come and go.
///
/// Shows: PEER-41.
#[test]
fn traffic_does_not_feel_changes_around_it() {
    let full = std::env::var_os("PEERLANE_FULL").is_some();
    let campaign = match full {
        true => Campaign {
            pairs: 10,
            seconds: 10,
            changes: 100,
            packets_per_second: 10_000,
        },
        false => Campaign {
            pairs: 1,
            seconds: 3,
            changes: 30,
            packets_per_second: 1000,
        },
    };
    let mut lab = Lab::up();
    let (mut quiet, mut disturbed) = (Vec::new(), Vec::new());
    for pair in 0..campaign.pairs {
        // Whichever comes first has no advantage in the end.
        let order = if pair % 2 == 0 {
            [false, true]
        } else {
            [true, false]
        };
        for changes in order {
            let run = lab.run(campaign, changes);
            println!("{}: {run:?}", if changes { "changes" } else { "quiet" });
            if changes { &mut disturbed } else { &mut quiet }.push(run);
        }
    }
    assert_eq!(lab.drops(), Vec::<String>::new());
    let made: usize = disturbed.iter().map(|run| run.made).sum();
    let ratios = quiet.iter().zip(&disturbed);
    let mut ratios: Vec<f64> = ratios
        .map(|(quiet, disturbed)| disturbed.bits_per_second / quiet.bits_per_second)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = (ratios[(ratios.len() - 1) / 2] + ratios[ratios.len() / 2]) / 2.0;
    let lost = |runs: &[Run]| runs.iter().map(|run| run.lost).sum::<i64>();
    let sent: i64 = disturbed.iter().map(|run| run.sent).sum();
    println!(
        "{made} changes, the slowest {:?}; throughput {median:.3} of undisturbed; of {sent} paced packets {} lost, {} undisturbed",
        disturbed.iter().map(|run| run.slowest).max().unwrap(),
        lost(&disturbed),
        lost(&quiet)
    );
    let least = if full {
        campaign.changes * campaign.pairs
    } else {
        5
    };
    assert!(made >= least, "{made} changes only");
    if full {
        assert!(lost(&disturbed) <= lost(&quiet), "the paced flow loses more");
        assert!(
            (0.95..=1.05).contains(&median),
            "throughput {median} of undisturbed"
        );
    }
}

/// A hub and its spokes, each with a VM; the last is peered in its own direction only.
fn hub(name: &str, spokes: usize) -> String {
    let mut text = format!("apiVersion: peerlane/v1\nkind: Lab\nname: {name}\nprofile: azure-2025\nvnets:\n");
    let range = |vnet: usize| format!("{}.{}", 10 + vnet / 256, vnet % 256);
    for vnet in 0..=spokes {
        let range = range(vnet);
        let _ = writeln!(
            text,
            "  v{vnet}: {{ addressSpace: [{range}.0.0/16], subnets: {{ s: {{ addressPrefix: {range}.0.0/24, networkSecurityGroup: guard }} }} }}"
        );
    }
    text.push_str("networkSecurityGroups: { guard: { securityRules: {} } }\nvms:\n");
    for vnet in 0..=spokes {
        let range = range(vnet);
        let _ = writeln!(
            text,
            "  m{vnet}: {{ subnet: v{vnet}/s, privateIPAddress: {range}.0.4 }}"
        );
    }
    let _ = writeln!(text, "peerings:\n  - {{ name: back, from: v{spokes}, to: v0 }}");
    for spoke in 1..spokes {
        let _ = writeln!(text, "  - v0 <-> v{spoke}");
    }
    text
}

/// From the request on the control socket to the answer: the change is on disk and forwards by then. Of 500 peerings where all is
/// asked for; bringing that lab up is timed too.
#[test]
fn one_peering_among_many_is_soon_there() {
    let full = std::env::var_os("PEERLANE_FULL").is_some();
    let (spokes, rounds) = if full { (500, 100) } else { (20, 5) };
    let (peerlane, name) = (Peerlane::new(User::Caller), unique("hub"));
    let file = peerlane.file(&name, &hub(&name, spokes));
    let begun = Instant::now();
    peerlane.up(&file);
    let up = begun.elapsed();
    let socket = peerlane.list()[0]["socket"].as_str().unwrap().to_owned();
    let client = Client::connect(socket.as_ref()).unwrap();
    let last = format!("{}.{}.0.4", 10 + spokes / 256, spokes % 256);
    let passes = || {
        let ping = ["ping", "-c", "1", "-W", "1", last.as_str()];
        peerlane.exec(&name, "m0", &ping).code == 0
    };
    // Another spoke's traffic goes on meanwhile: 500 packets a second.
    let pings = (rounds * 40).to_string();
    let other = peerlane.spawn(
        &name,
        "m0",
        &["ping", "-q", "-i", "0.002", "-c", &pings, "10.1.0.4"],
    );
    let happen = |what: &str| {
        let text = what.to_owned();
        let begun = Instant::now();
        client.event(&EventRequest { text }).unwrap();
        begun.elapsed()
    };
    assert!(!passes(), "one side alone");
    let mut times = Vec::new();
    for round in 0..rounds {
        times.push(happen(&format!(
            "{{ at: 0s, create: {{ peering: {{ name: last, from: v0, to: v{spokes} }} }} }}"
        )));
        if round == 0 {
            assert!(passes(), "both sides");
        }
        times.push(happen("{ at: 0s, delete: { peering: v0/last } }"));
        // The other side has become Disconnected, and is to be Initiated again.
        happen(&format!("{{ at: 0s, delete: {{ peering: v{spokes}/back }} }}"));
        happen(&format!(
            "{{ at: 0s, create: {{ peering: {{ name: back, from: v{spokes}, to: v0 }} }} }}"
        ));
    }
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "{spokes} spokes: up in {up:.1?}; a peering in {:.1?} at the median, {:.1?} at p99",
        at(50),
        at(99)
    );
    let other = Ran::of(other.wait_with_output().unwrap());
    assert!(other.stdout.contains(" 0% packet loss"), "{other:?}");
    if full {
        assert!(at(99) <= Duration::from_millis(30), "a change takes {:?}", at(99));
        assert!(up <= Duration::from_secs(5), "up takes {up:?}");
    }
}
