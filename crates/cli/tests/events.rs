//! Things that happen to a running lab, by its file's `events:` and by command, seen by real packets.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Peerlane, Ran, User, kill, two_vnets, unique, wait_for};

/// Longer than any answer takes on a busy machine.
const SOON: Duration = Duration::from_secs(10);

struct Lab {
    peerlane: Peerlane,
    name: String,
}

impl Lab {
    fn up(prefix: &str, more: &str) -> Self {
        let lab = Self {
            peerlane: Peerlane::new(User::Caller),
            name: unique(prefix),
        };
        let beat = "while :; do date +%s%N >> beats; sleep 0.05; done";
        let file = lab.peerlane.file(&lab.name, &(two_vnets(&lab.name, beat) + more));
        lab.peerlane.up(&file);
        lab
    }

    fn event(&self, words: &[&str]) -> Ran {
        let all = ["event", &self.name].into_iter().chain(words.iter().copied());
        self.peerlane.run(all.chain(["-o", "json"]))
    }

    /// What happens is to happen.
    fn happens(&self, words: &[&str]) {
        let ran = self.event(words);
        assert_eq!(ran.code, 0, "{ran:?}");
        let happened = &ran.json()[0];
        assert_eq!(happened["state"], "Done", "{happened}");
    }

    /// Each event's words and state, in order.
    fn events(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let all = self.event(&[]).json();
        let all = all.as_array().unwrap();
        all.iter()
            .map(|it| (text(&it["event"]), text(&it["state"])))
            .collect()
    }

    fn pings(&self, from: &str, to: &str) -> bool {
        let ping = ["ping", "-c", "1", "-W", "1", to];
        self.peerlane.exec(&self.name, from, &ping).code == 0
    }

    /// Whether the program of b writes.
    fn beats(&self) -> bool {
        let size = || std::fs::metadata(self.peerlane.dir.join("beats")).map_or(0, |it| it.len());
        let before = size();
        std::thread::sleep(Duration::from_millis(300));
        size() > before
    }

    fn dropped(&self, reason: &str) -> u64 {
        let drops = self.peerlane.run(["drops", &self.name, "-o", "json"]).json();
        let rows = drops.as_array().unwrap().iter();
        let rows = rows.filter(|row| row["reason"] == reason);
        rows.map(|row| row["packets"].as_u64().unwrap()).sum()
    }

    fn states(&self) -> Vec<String> {
        let rows = self.peerlane.run(["peerings", &self.name, "-o", "json"]).json();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["peeringState"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Shows: ROUTE-39.
#[test]
fn a_stopped_vm_is_gone_from_the_network_and_comes_back() {
    let lab = Lab::up("stopped", "");
    let mut other = lab.peerlane.spawn(&lab.name, "b", &["sleep", "1000"]);
    assert!(lab.pings("a", "10.1.0.4") && lab.pings("a", "fd00:b::4") && lab.beats());
    lab.happens(&["stop", "b"]);
    let refused = lab.peerlane.exec(&lab.name, "b", &["true"]);
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(
        refused.stderr.contains("VM b is stopped") && refused.stderr.contains("start b"),
        "{refused:?}"
    );
    assert!(!lab.pings("a", "10.1.0.4") && !lab.pings("a", "fd00:b::4"));
    assert!(lab.dropped("NoDestination") >= 2);
    assert!(!lab.beats(), "its program goes on");
    assert!(
        wait_for(SOON, || other.try_wait().unwrap().is_some()),
        "what was started there goes on"
    );
    let routes = lab.peerlane.run(["routes", &lab.name, "b"]);
    assert_eq!(routes.code, 1, "{routes:?}");
    assert!(routes.stderr.contains("Sim.ROUTE-39"), "{routes:?}");
    assert_eq!(lab.peerlane.run(["routes", &lab.name, "a"]).code, 0);
    // Once more is no error, and what is said of the lab says it.
    lab.happens(&["stop", "b"]);
    let exported = lab.peerlane.run(["export", &lab.name]).stdout;
    assert!(exported.contains("powerState: Stopped"), "{exported}");
    lab.happens(&["start", "b"]);
    assert!(lab.pings("a", "10.1.0.4") && lab.pings("a", "fd00:b::4") && lab.pings("b", "10.0.0.4"));
    assert!(wait_for(SOON, || lab.beats()), "its program is not back");
    assert!(
        !lab.peerlane
            .run(["export", &lab.name])
            .stdout
            .contains("powerState")
    );
}

/// Shows: PEER-05, PEER-06.
#[test]
fn peerings_go_and_come_by_command() {
    let lab = Lab::up("peered", "");
    assert!(lab.pings("a", "10.1.0.4"));
    lab.happens(&["delete", "one/one-to-two"]);
    assert_eq!(lab.states(), ["Disconnected"]);
    assert!(!lab.pings("a", "10.1.0.4"));
    let refused = lab.event(&["delete", "one/one-to-two"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    let refused = lab.event(&["create", "one", "two"]);
    assert!(
        refused.stderr.contains("RemotePeeringIsDisconnected"),
        "{refused:?}"
    );
    let states: Vec<String> = lab.events().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["Done", "Failed", "Failed"]);
    lab.happens(&["create", "two", "one"]);
    lab.happens(&["create", "one", "two"]);
    assert_eq!(lab.states(), ["Connected", "Connected"]);
    assert!(lab.pings("a", "10.1.0.4"));
}

#[test]
fn events_of_the_file_happen_at_their_times_whatever_becomes_of_the_daemon() {
    let lab = Lab::up(
        "timed",
        "events:
  - { at: 4s, start: { vm: b } }
  - { at: 1500ms, stop: { vm: b } }
  - { at: 3600s, delete: { peering: one/one-to-two } }
",
    );
    let began = Instant::now();
    let first = lab.events();
    assert_eq!(first.len(), 3, "{first:?}");
    assert!(wait_for(SOON, || lab.events()[0]
        == ("stop VM b".to_owned(), "Done".to_owned())));
    let stopped = began.elapsed();
    assert!(stopped >= Duration::from_millis(1000), "after {stopped:?}");
    let exported = lab.peerlane.run(["export", &lab.name]).stdout;
    assert!(
        !exported.contains("stop:") && exported.contains("delete:"),
        "{exported}"
    );
    // The next one comes at its time though nobody is there to count.
    kill(lab.peerlane.daemon_pid());
    assert!(wait_for(SOON, || lab.peerlane.list()[0]["state"] == "Orphaned"));
    let file = lab.peerlane.dir.join(format!("{}.vnet.yaml", lab.name));
    lab.peerlane.up(&file);
    assert!(wait_for(SOON, || lab.beats() && lab.pings("a", "10.1.0.4")));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(3500), "after {took:?}");
    let rest = lab.events();
    assert_eq!(rest[rest.len() - 1].1, "Pending", "{rest:?}");
    // A new file brings its own events; those of a time that is over do not happen.
    let text = two_vnets(&lab.name, "sleep 1000")
        + "events: [ { at: 1ms, stop: { vm: a } }, { at: 1800s, stop: { vm: c } } ]\n";
    let file = lab.peerlane.file("next", &text);
    let applied = lab.peerlane.run(["apply", &lab.name, file.to_str().unwrap()]);
    assert_eq!(applied.code, 0, "{applied:?}");
    let pending = lab.events().into_iter().filter(|(_, state)| state == "Pending");
    assert_eq!(pending.map(|(event, _)| event).collect::<Vec<_>>(), ["stop VM c"]);
    assert!(lab.pings("a", "10.1.0.4"));
}

/// Shows: PEER-39.
#[test]
fn a_link_changes_while_it_carries_and_loses_nothing_that_is_under_way() {
    let lab = Lab::up(
        "impaired",
        "links: { one/one-to-two: { latency: 20ms } }
events: [ { at: 3600s, set: { link: two/two-to-one, down: true } } ]
",
    );
    let impair = |words: &[&str]| {
        let all = ["impair", &lab.name, "one/one-to-two"]
            .into_iter()
            .chain(words.iter().copied());
        lab.peerlane.run(all.chain(["-o", "json"]))
    };
    let shortest = || -> f64 {
        let ping = ["ping", "-q", "-c", "10", "-i", "0.05", "10.1.0.4"];
        let ran = lab.peerlane.exec(&lab.name, "a", &ping);
        let times = ran.stdout.split("min/avg/max/mdev = ").nth(1);
        times.map_or(f64::INFINITY, |times| {
            times.split('/').next().unwrap().parse().unwrap()
        })
    };
    let own = shortest();
    assert!((20.0..40.0).contains(&own), "{own} ms");
    // Half a second of the way: those that have left before it is shortened again arrive all the same.
    assert_eq!(impair(&["--latency", "500ms"]).code, 0);
    let ping = ["ping", "-q", "-c", "5", "-i", "0.1", "-W", "5", "10.1.0.4"];
    let pinging = lab.peerlane.spawn(&lab.name, "a", &ping);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(impair(&["--latency", "80ms", "--loss", "0%"]).code, 0);
    let pinged = String::from_utf8(pinging.wait_with_output().unwrap().stdout).unwrap();
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    let longer = shortest();
    assert!((80.0..100.0).contains(&longer), "{longer} ms");
    assert!(
        lab.peerlane
            .run(["export", &lab.name])
            .stdout
            .contains("impairments:")
    );
    assert_eq!(impair(&["--down"]).code, 0);
    assert!(!lab.pings("a", "10.1.0.4") && lab.dropped("LinkDown") >= 1);
    assert_eq!(impair(&["--up", "--loss", "100%"]).code, 0);
    assert!(!lab.pings("a", "10.1.0.4") && lab.dropped("LinkLoss") >= 1);
    assert_eq!(impair(&["--reset"]).code, 0);
    let own = shortest();
    assert!((20.0..40.0).contains(&own), "{own} ms");
    assert!(
        !lab.peerlane
            .run(["export", &lab.name])
            .stdout
            .contains("impairments:")
    );
    // What is refused changes nothing.
    assert_eq!(impair(&[]).code, 2);
    assert!(impair(&["--latency", "soon"]).stderr.contains("a time such as"));
    let other = lab.peerlane.run(["impair", &lab.name, "one/nowhere", "--down"]);
    assert!(other.stderr.contains("InvalidResourceReference"), "{other:?}");
    lab.happens(&["set", "two/two-to-one", "--latency", "30ms"]);
    let both = shortest();
    assert!((50.0..70.0).contains(&both), "{both} ms");
    let events = lab.events();
    let last = &events[events.len() - 2..];
    assert_eq!(last[0].0, "set link two/two-to-one: latency 30ms", "{events:?}");
    assert_eq!(
        last[1],
        (
            "set link two/two-to-one: down true".to_owned(),
            "Pending".to_owned()
        )
    );
}

#[test]
fn a_withdrawn_prefix_is_unknown_to_the_gateway_until_it_is_announced() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("withdrawn");
    let text = format!(
        "
apiVersion: peerlane/v1
kind: Lab
name: {name}
profile: azure-2025
vnets:
  hub:
    addressSpace: [10.0.0.0/16]
    subnets: {{ default: {{ addressPrefix: 10.0.0.0/24 }}, GatewaySubnet: {{ addressPrefix: 10.0.255.0/27 }} }}
gateways: {{ vpn: {{ vnet: hub }} }}
sites:
  dc1: {{ addressPrefixes: [192.168.10.0/24, 192.168.11.0/24] }}
  dc2: {{ addressPrefixes: [192.168.20.0/24], asn: 65010 }}
connections:
  one: {{ gateway: vpn, site: dc1 }}
  two: {{ gateway: vpn, site: dc2, enableBgp: true }}
vms: {{ a: {{ subnet: hub/default }} }}
"
    );
    peerlane.up(&peerlane.file(&name, &text));
    let lab = Lab { peerlane, name };
    for (site, prefix, address) in [
        ("dc1", "192.168.10.0/24", "192.168.10.1"),
        // The neighbour itself stays known: its session needs it.
        ("dc2", "192.168.20.0/24", "192.168.20.7"),
    ] {
        assert!(
            wait_for(SOON, || lab.pings("a", address)),
            "{site} is not reached"
        );
        lab.happens(&["withdraw", site, prefix]);
        assert!(
            wait_for(SOON, || !lab.pings("a", address)),
            "{site} is still reached"
        );
        let routes = lab.peerlane.run(["routes", &lab.name, "a", "-o", "json"]).stdout;
        assert!(!routes.contains(prefix), "{routes}");
        lab.happens(&["announce", site, prefix]);
        assert!(
            wait_for(SOON, || lab.pings("a", address)),
            "{site} is not reached again"
        );
    }
    // The other prefix of the site was there all the time, and one that it has not is refused.
    assert!(lab.pings("a", "192.168.11.1"));
    let refused = lab.event(&["withdraw", "dc1", "192.168.12.0/24"]);
    assert!(refused.stderr.contains("it has 192.168.10.0/24"), "{refused:?}");
}
