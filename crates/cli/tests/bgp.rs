//! BGP for real: BIRD at the gateways, BIRD and FRR at the sites; what they say becomes routes, and stops being routes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Peerlane, Ran, User, kill, need_root, root, unique, users, wait_for};

/// Sessions come up within a second or two; a busy machine may need more.
const SESSIONS: Duration = Duration::from_secs(20);
/// What effective routes may lag behind the speakers.
const FOLLOW: Duration = Duration::from_secs(2);

/// `web` in the hub, `app` in a spoke that uses the hub's gateway, `quiet` in a subnet without propagation.
fn lab_text(name: &str, dc1: &str, dc2: &str) -> String {
    format!(
        "
apiVersion: peerlane/v1
kind: Lab
name: {name}
profile: azure-2025
vnets:
  hub:
    addressSpace: [10.0.0.0/16]
    subnets:
      default: {{ addressPrefix: 10.0.1.0/24 }}
      quiet: {{ addressPrefix: 10.0.2.0/24, routeTable: no-propagation }}
      GatewaySubnet: {{ addressPrefix: 10.0.255.0/27 }}
  spoke:
    addressSpace: [10.1.0.0/16]
    subnets: {{ default: {{ addressPrefix: 10.1.1.0/24 }} }}
peerings:
  - {{ name: hub-to-spoke, from: hub, to: spoke, allowGatewayTransit: true }}
  - {{ name: spoke-to-hub, from: spoke, to: hub, useRemoteGateways: true }}
routeTables:
  no-propagation: {{ disableBgpRoutePropagation: true }}
vms:
  web: {{ subnet: hub/default, privateIPAddress: 10.0.1.4 }}
  quiet: {{ subnet: hub/quiet, privateIPAddress: 10.0.2.4 }}
  app: {{ subnet: spoke/default, privateIPAddress: 10.1.1.4 }}
gateways: {{ hub-vpn: {{ vnet: hub, asn: 65515, publicIPAddresses: [203.0.113.10] }} }}
sites:
  dc1: {{ addressPrefixes: [192.168.10.0/24], asn: 65010{dc1} }}
  dc2: {{ addressPrefixes: [192.168.20.0/24], asn: 65020{dc2} }}
connections:
  hub-dc1: {{ gateway: hub-vpn, site: dc1, enableBgp: true }}
  hub-dc2: {{ gateway: hub-vpn, site: dc2, enableBgp: true }}
tests:
  - {{ from: web, to: dc1, protocol: Icmp, expect: Allow }}
  - {{ from: dc2, to: app, protocol: Tcp, port: 80, expect: Allow }}
  - {{ from: dc1, to: dc2, protocol: Icmp, expect: Allow }}
"
    )
}

/// The user's own BIRD in dc1: `extra` and `inside` are announced once they are enabled.
const DC1: &str = "
log stderr all;
router id 192.168.10.1;
protocol device { }
protocol static own { ipv4; route 192.168.10.0/24 blackhole; }
protocol static extra { disabled; ipv4; route 172.30.0.0/16 blackhole; }
protocol static inside { disabled; ipv4; route 10.1.1.0/25 blackhole; route 10.0.1.0/25 blackhole; }
protocol bgp azure {
  local 192.168.10.1 as 65010;
  neighbor 10.0.255.4 as 65515;
  multihop;
  connect delay time 1;
  connect retry time 1;
  ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
";

/// The user's own FRR in dc2: without zebra, as the site's default route leads to the gateway anyway.
const DC2: &str = "
router bgp 65020
 bgp router-id 192.168.20.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 neighbor 10.0.255.4 remote-as 65515
 neighbor 10.0.255.4 ebgp-multihop
 neighbor 10.0.255.4 timers connect 1
 neighbor 10.0.255.4 update-source 192.168.20.1
 address-family ipv4 unicast
  neighbor 10.0.255.4 activate
  network 192.168.20.0/24
 exit-address-family
";

struct Lab {
    peerlane: Peerlane,
    name: String,
    file: PathBuf,
}

impl Lab {
    /// With the BIRDs that peerlane runs itself.
    fn generated(user: User, prefix: &str) -> Self {
        Self::with(user, prefix, "", "")
    }

    /// With BIRD and FRR as the user's own programs: FRR needs root.
    fn of_users(prefix: &str) -> Self {
        need_root("FRR");
        let dc1 = ", run: [\"/usr/sbin/bird -f -c dc1.conf -s dc1.ctl\"]";
        let dc2 = ", run: [\"/usr/lib/frr/bgpd -S -Z -f $PWD/frr.conf -i $PWD/bgpd.pid -P 0 --vty_socket $PWD --log stdout\"]";
        Self::with(User::Caller, prefix, dc1, dc2)
    }

    fn with(user: User, prefix: &str, dc1: &str, dc2: &str) -> Self {
        let peerlane = Peerlane::new(user);
        let name = unique(prefix);
        fs::write(peerlane.dir.join("dc1.conf"), DC1).unwrap();
        fs::write(peerlane.dir.join("frr.conf"), DC2).unwrap();
        let file = peerlane.file(&name, &lab_text(&name, dc1, dc2));
        // From elsewhere: programs start in the lab file's directory.
        let mut up = peerlane.command(["up", file.to_str().unwrap(), "--detach"]);
        let ran = Ran::of(up.current_dir("/").output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
        let lab = Self { peerlane, name, file };
        for prefix in ["192.168.10.0/24", "192.168.20.0/24"] {
            lab.follows("app", prefix, true, SESSIONS);
        }
        lab
    }

    /// The gateway's rows among the effective routes.
    fn learned(&self, vm: &str) -> Vec<String> {
        let ran = self.peerlane.run(["routes", &self.name, vm, "-o", "json"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let body = ran.json();
        let rows = body["value"].as_array().unwrap().iter();
        let learned = rows.filter(|row| row["source"] == "VirtualNetworkGateway");
        learned
            .map(|row| row["addressPrefix"][0].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until the VM's effective routes have the prefix, or no more, and returns how long that took.
    fn follows(&self, vm: &str, prefix: &str, present: bool, limit: Duration) -> Duration {
        let start = Instant::now();
        let there = || self.learned(vm).iter().any(|learned| learned == prefix);
        let logs = || {
            let directory = self.peerlane.state_dir().join(&self.name);
            let logs = ["daemon.log", "log/hub-vpn.log", "log/dc1.log", "log/dc2.log"];
            logs.map(|log| fs::read_to_string(directory.join(log)).unwrap_or_default())
                .join("\n")
        };
        while there() != present {
            assert!(
                start.elapsed() < limit,
                "{vm}: {prefix} {present}: {:?}\n{}",
                self.learned(vm),
                logs()
            );
            sleep(Duration::from_millis(5));
        }
        start.elapsed()
    }

    /// Tells dc1's BIRD something; that has happened when this returns.
    fn birdc(&self, command: &str) {
        let ran = Command::new("/usr/sbin/birdc")
            .args(["-s", self.peerlane.dir.join("dc1.ctl").to_str().unwrap()])
            .args(command.split(' '))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }

    /// Tells dc2's FRR what to announce, or with `no` not to.
    fn frr(&self, network: &str) {
        let lines = [
            "configure terminal",
            "router bgp 65020",
            "address-family ipv4 unicast",
            network,
        ];
        let ran = Command::new("/usr/bin/vtysh")
            .args(["--vty_socket", self.peerlane.dir.to_str().unwrap()])
            .args(lines.iter().flat_map(|line| ["-c", line]))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }

    fn ping(&self, vm: &str, arguments: &[&str]) -> Ran {
        let ping = ["ping", "-W", "1"]
            .iter()
            .chain(arguments)
            .copied()
            .collect::<Vec<_>>();
        self.peerlane.exec(&self.name, vm, &ping)
    }

    /// The process of the gateway's BIRD.
    fn gateways_bird(&self) -> i32 {
        let processes = self.peerlane.processes();
        let mut birds = processes
            .iter()
            .filter(|(_, line)| line.contains("bird -f -c hub-vpn.conf"));
        birds
            .next()
            .unwrap_or_else(|| panic!("no BIRD among {processes:#?}"))
            .0
    }

    fn generation(&self) -> u64 {
        let socket = self.peerlane.state_dir().join(&self.name).join("api.sock");
        let ran = Command::new("curl")
            .args([
                "-sS",
                "--unix-socket",
                socket.to_str().unwrap(),
                "http://localhost/v1/state",
            ])
            .output()
            .unwrap();
        let state: Value =
            serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        state["generation"].as_u64().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.peerlane.state_dir().join(&self.name).join("daemon.log")).unwrap()
    }
}

/// Shows: ROUTE-08.
#[test]
fn effective_routes_follow_bird_and_frr_within_two_seconds() {
    let lab = Lab::of_users("bgp-follow");
    let owned = lab.peerlane.exec(
        &lab.name,
        "dc2",
        &["ip", "addr", "add", "172.29.0.5/32", "dev", "lo"],
    );
    assert_eq!(owned.code, 0, "{owned:?}");
    let mut slowest = Duration::ZERO;
    let mut measure = |what: &str, took: Duration| {
        eprintln!("{what}: effective routes followed in {took:?}");
        slowest = slowest.max(took);
    };
    let unrelated = std::thread::scope(|scope| {
        let lab = &lab;
        let ping = scope.spawn(|| {
            lab.ping("web", &["-q", "-c", "300", "-i", "0.01", "192.168.10.1"])
                .stdout
        });
        for round in 0..3 {
            lab.birdc("enable extra");
            measure(
                "BIRD announces",
                lab.follows("app", "172.30.0.0/16", true, FOLLOW),
            );
            lab.frr("network 172.29.0.0/16");
            measure("FRR announces", lab.follows("app", "172.29.0.0/16", true, FOLLOW));
            let reached = lab.ping("app", &["-c", "1", "172.29.0.5"]);
            assert_eq!(reached.code, 0, "round {round}: {reached:?}");
            lab.frr("no network 172.29.0.0/16");
            measure(
                "FRR withdraws",
                lab.follows("app", "172.29.0.0/16", false, FOLLOW),
            );
            assert_ne!(
                lab.ping("app", &["-c", "1", "172.29.0.5"]).code,
                0,
                "round {round}"
            );
            lab.birdc("disable extra");
            measure(
                "BIRD withdraws",
                lab.follows("app", "172.30.0.0/16", false, FOLLOW),
            );
        }
        ping.join().unwrap()
    });
    assert!(unrelated.contains(" 0% packet loss"), "{unrelated}");
    eprintln!("slowest: {slowest:?}");
    let explained = lab.peerlane.run([
        "explain",
        &lab.name,
        "app",
        "172.29.0.5",
        "--protocol",
        "icmp",
        "-o",
        "json",
    ]);
    assert_eq!(explained.json()["drop"]["reason"], "RouteNone", "{explained:?}");
    assert_eq!(lab.peerlane.run(["test", &lab.name]).code, 0);
    assert_eq!(lab.peerlane.run(["down", &lab.name]).code, 0);
    lab.peerlane.assert_nothing_left(&lab.name);
}

#[test]
fn flapping_costs_one_publish_per_10_ms_and_no_packet_of_others() {
    let lab = Lab::of_users("bgp-flap");
    let before = lab.generation();
    let start = Instant::now();
    let lost = std::thread::scope(|scope| {
        let pings = [("web", "10.1.1.4"), ("app", "192.168.10.1")].map(|(from, to)| {
            let lab = &lab;
            scope.spawn(move || lab.ping(from, &["-q", "-c", "400", "-i", "0.01", to]).stdout)
        });
        for _ in 0..40 {
            lab.birdc("enable extra");
            lab.birdc("disable extra");
        }
        lab.birdc("enable extra");
        lab.follows("app", "172.30.0.0/16", true, FOLLOW);
        pings.map(|ping| ping.join().unwrap())
    });
    let published = lab.generation() - before;
    let most = u64::try_from(start.elapsed().as_millis() / 10).unwrap() + 1;
    eprintln!("81 changes: {published} publishes");
    assert!(
        (1..=most).contains(&published),
        "{published} publishes in {:?}",
        start.elapsed()
    );
    for said in lost {
        assert!(said.contains(" 0% packet loss"), "{said}");
    }
}

/// Shows: ROUTE-22, ROUTE-32, GW-05.
#[test]
fn vnet_and_peering_routes_win_and_propagation_off_removes_all() {
    let lab = Lab::of_users("bgp-order");
    lab.birdc("enable inside");
    for (vm, prefix) in [("web", "10.1.1.0/25"), ("app", "10.0.1.0/25")] {
        lab.follows(vm, prefix, true, FOLLOW);
    }
    for (from, to, kind) in [
        ("web", "app", "VNetPeering"),
        ("app", "web", "VNetPeering"),
        ("web", "quiet", "VnetLocal"),
        ("quiet", "web", "VnetLocal"),
    ] {
        let explained = lab
            .peerlane
            .run(["explain", &lab.name, from, to, "--port", "80", "-o", "json"])
            .json();
        assert_eq!(
            explained["forward"][0]["route"]["nextHopType"], kind,
            "{explained:#}"
        );
    }
    // A gateway would take one of the 64.
    let direct = lab.ping("web", &["-c", "1", "10.1.1.4"]);
    assert!(direct.stdout.contains("ttl=64"), "{direct:?}");
    assert_eq!(lab.learned("quiet"), Vec::<String>::new());
    assert_ne!(lab.ping("quiet", &["-c", "1", "192.168.10.1"]).code, 0);
    assert_eq!(lab.ping("web", &["-c", "1", "192.168.10.1"]).code, 0);
}

/// Shows: GW-08.
#[test]
fn a_peering_made_on_a_running_lab_is_advertised_without_a_new_session() {
    let lab = Lab::generated(User::Caller, "bgp-live");
    let text = fs::read_to_string(&lab.file).unwrap();
    let bird = lab.gateways_bird();
    let told = || {
        let routes = lab
            .peerlane
            .exec(&lab.name, "dc1", &["ip", "route", "show", "proto", "bird"]);
        routes.stdout.contains("10.1.0.0/16")
    };
    let apply = |text: &str| {
        let file = lab.peerlane.file("changed", text);
        let ran = lab.peerlane.run(["apply", &lab.name, file.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let start = Instant::now();
        move || start.elapsed()
    };
    assert!(wait_for(SESSIONS, told), "the spoke is not told");
    // Without useRemoteGateways its ranges are nobody else's business.
    let since = apply(&text.replace("useRemoteGateways: true", "useRemoteGateways: false"));
    assert!(wait_for(FOLLOW, || !told()), "still told");
    eprintln!("withdrawn after {:?}", since());
    assert_eq!(lab.learned("app"), Vec::<String>::new());
    let since = apply(&text);
    assert!(wait_for(FOLLOW, told), "not told again");
    eprintln!("announced after {:?}", since());
    // Propagation off takes the rows away on the running lab, too.
    assert!(lab.learned("web").contains(&"192.168.10.0/24".to_owned()));
    let _ = apply(&text.replace(
        "default: { addressPrefix: 10.0.1.0/24 }",
        "default: { addressPrefix: 10.0.1.0/24, routeTable: no-propagation }",
    ));
    assert_eq!(lab.learned("web"), Vec::<String>::new());
    assert!(lab.learned("app").contains(&"192.168.10.0/24".to_owned()));
    assert_eq!(lab.gateways_bird(), bird);
    assert!(!lab.log().contains("BIRD has ended"), "{}", lab.log());
}

#[test]
fn a_site_without_bgp_has_no_bird_any_more_and_gets_one_again() {
    let lab = Lab::generated(User::Caller, "bgp-off");
    let text = fs::read_to_string(&lab.file).unwrap();
    let listens = || {
        let sockets = ["ss", "-Hltn", "sport", "=", ":179"];
        !lab.peerlane.exec(&lab.name, "dc1", &sockets).stdout.is_empty()
    };
    let apply = |text: &str| {
        let file = lab.peerlane.file("changed", text);
        let ran = lab.peerlane.run(["apply", &lab.name, file.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    assert!(listens());
    apply(&text.replace("site: dc1, enableBgp: true", "site: dc1"));
    assert!(
        wait_for(SESSIONS, || !listens()),
        "BIRD still listens: {}",
        lab.log()
    );
    apply(&text);
    assert!(wait_for(SESSIONS, listens), "no BIRD again: {}", lab.log());
    lab.follows("app", "192.168.10.0/24", true, SESSIONS);
}

#[test]
fn thousands_of_routes_are_taken_and_more_than_the_limit_end_the_session() {
    let lab = Lab::of_users("bgp-many");
    let announce = |count: usize| {
        let routes: Vec<String> = (0..count)
            .map(|number| {
                format!(
                    "route 172.{}.{}.{}/30 blackhole;",
                    16 + number / 4096,
                    number / 16 % 256,
                    number % 16 * 16
                )
            })
            .collect();
        let config = DC1.replace(
            "ipv4; route 172.30.0.0/16",
            &format!("ipv4; {} route 172.30.0.0/16", routes.join("\n")),
        );
        fs::write(lab.peerlane.dir.join("dc1.conf"), config).unwrap();
        lab.birdc("configure");
        lab.birdc("enable extra");
    };
    let learned = || {
        lab.learned("app")
            .iter()
            .filter(|prefix| prefix.ends_with("/30"))
            .count()
    };
    announce(3900);
    let start = Instant::now();
    assert!(wait_for(SESSIONS, || learned() == 3900), "{} of 3900", learned());
    eprintln!("3900 routes after {:?}", start.elapsed());
    announce(4100);
    assert!(wait_for(SESSIONS, || learned() == 0), "{} still there", learned());
    // The other neighbour's session goes on.
    assert!(lab.learned("app").contains(&"192.168.20.0/24".to_owned()));
    announce(1);
    lab.follows("app", "172.30.0.0/16", true, SESSIONS);
}

#[test]
fn a_bird_that_dies_takes_its_routes_along_and_comes_back() {
    for user in users() {
        let lab = Lab::generated(user, "bgp-kill");
        let bird = lab.gateways_bird();
        kill(bird);
        let took = lab.follows("app", "192.168.10.0/24", false, FOLLOW);
        eprintln!("{user:?}: routes gone {took:?} after BIRD was killed");
        assert!(lab.log().contains("hub-vpn: BIRD has ended"), "{}", lab.log());
        lab.follows("app", "192.168.10.0/24", true, SESSIONS);
        assert_ne!(lab.gateways_bird(), bird);
        assert_eq!(lab.peerlane.run(["test", &lab.name]).code, 0, "{user:?}");
        assert_eq!(lab.peerlane.run(["down", &lab.name]).code, 0);
        lab.peerlane.assert_nothing_left(&lab.name);
    }
}

#[test]
fn a_new_daemon_keeps_bird_and_reads_its_routes_again() {
    for user in users() {
        let lab = Lab::generated(user, "bgp-adopt");
        let bird = lab.gateways_bird();
        kill(lab.peerlane.daemon_pid());
        assert!(wait_for(SESSIONS, || lab.peerlane.list()[0]["state"] == "Orphaned"));
        lab.peerlane.up(&lab.file);
        let read = || lab.learned("app").contains(&"192.168.20.0/24".to_owned());
        assert!(wait_for(FOLLOW, read), "{user:?}: {:?}", lab.learned("app"));
        assert_eq!(lab.peerlane.run(["test", &lab.name]).code, 0, "{user:?}");
        assert_eq!(lab.gateways_bird(), bird, "{user:?}: BIRD was started anew");
        assert!(!lab.log().contains("BIRD has ended"), "{}", lab.log());
    }
}

#[test]
fn without_bird_up_fails_with_cause_and_remedy() {
    need_root("hiding BIRD in a mount namespace");
    for user in users() {
        let peerlane = Peerlane::without_bird(user);
        let name = unique("bgp-none");
        let file = peerlane.file(&name, &lab_text(&name, "", ""));
        for arguments in [
            vec!["up", file.to_str().unwrap(), "--detach"],
            vec!["test", file.to_str().unwrap()],
        ] {
            let ran = peerlane.run(&arguments);
            assert_eq!(ran.code, 5, "{user:?}: {ran:?}");
            assert!(
                ran.stderr.contains("hub-vpn") && ran.stderr.contains("apt-get install bird2"),
                "{ran:?}"
            );
            peerlane.assert_nothing_left(&name);
        }
        // Nothing else needs it.
        let doctor = peerlane.run(["doctor", "-o", "json"]);
        assert_eq!(doctor.code, 0, "{doctor:?}");
        let checks = doctor.json()["checks"].to_string();
        assert!(checks.contains("apt-get install bird2"), "{checks}");
        let example = root().join("examples/two-peered-vnets.vnet.yaml");
        assert_eq!(peerlane.run(["test", example.to_str().unwrap()]).code, 0);
    }
}
