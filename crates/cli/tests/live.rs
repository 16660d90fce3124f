//! Labs that change while traffic runs: real packets before, during and after `apply`.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Peerlane, Ran, User, kill, unique, wait_for};

/// Longer than any answer takes on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A lab of a test, and the text its file has at present.
struct Lab {
    peerlane: Peerlane,
    name: String,
}

impl Lab {
    fn up(prefix: &str, text: &str) -> Self {
        let lab = Self {
            peerlane: Peerlane::new(User::Caller),
            name: unique(prefix),
        };
        let file = lab.file(text);
        lab.peerlane.up(&file);
        lab
    }

    fn file(&self, text: &str) -> PathBuf {
        self.peerlane.file(&self.name, &text.replace("LAB", &self.name))
    }

    fn try_apply(&self, text: &str) -> Ran {
        let file = self.file(text);
        self.peerlane
            .run(["apply", &self.name, file.to_str().unwrap(), "-o", "json"])
    }

    /// Makes the lab what the text says; the plan it prints.
    fn apply(&self, text: &str) -> Value {
        let ran = self.try_apply(text);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.json()
    }

    fn pings(&self, from: &str, to: &str) -> bool {
        let ping = ["ping", "-c", "1", "-W", "1", to];
        self.peerlane.exec(&self.name, from, &ping).code == 0
    }

    /// State of each peering by its name.
    fn states(&self) -> Vec<(String, String)> {
        let rows = self.peerlane.run(["peerings", &self.name, "-o", "json"]).json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rows = rows.as_array().unwrap();
        rows.iter()
            .map(|row| (text(&row["name"]), text(&row["peeringState"])))
            .collect()
    }

    fn drops(&self) -> Vec<Value> {
        let drops = self.peerlane.run(["drops", &self.name, "-o", "json"]).json();
        drops.as_array().unwrap().clone()
    }

    /// Starts a Python program in a VM.
    fn python(&self, vm: &str, program: &str) -> Child {
        self.peerlane
            .spawn(&self.name, vm, &["python3", "-u", "-c", program])
    }

    /// The number a program has written into a file of the test last.
    fn number(&self, file: &str) -> u64 {
        let text = fs::read_to_string(self.peerlane.dir.join(file)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Whether the number in a file grows.
    fn goes_on(&self, file: &str) -> bool {
        let before = self.number(file);
        wait_for(Duration::from_secs(3), || self.number(file) > before + 5)
    }

    /// Packets a VM has forwarded.
    fn forwarded(&self, vm: &str) -> u64 {
        let script = "awk '/^Ip:/ && $2 ~ /[0-9]/ {print $7}' /proc/net/snmp";
        let ran = self.peerlane.exec(&self.name, vm, &["sh", "-c", script]);
        ran.stdout.trim().parse().unwrap_or_else(|_| panic!("{ran:?}"))
    }
}

fn names(states: &[(&str, &str)]) -> Vec<(String, String)> {
    states
        .iter()
        .map(|(name, state)| ((*name).to_owned(), (*state).to_owned()))
        .collect()
}

const TWO: &str = "
apiVersion: peerlane/v1
kind: Lab
name: LAB
profile: azure-2018
vnets:
  one: { addressSpace: [10.0.0.0/16], subnets: { s: { addressPrefix: 10.0.0.0/24 } } }
  two: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24 } } }
vms:
  a: { subnet: one/s, privateIPAddress: 10.0.0.4 }
  b: { subnet: two/s, privateIPAddress: 10.1.0.4 }
peerings:
";
const ONE_TO_TWO: &str = "  - { name: one-to-two, from: one, to: two }\n";
const TWO_TO_ONE: &str = "  - { name: two-to-one, from: two, to: one }\n";

/// Shows: PEER-03, PEER-04, PEER-05, PEER-07, PEER-42.
#[test]
fn packets_pass_while_both_sides_of_a_peering_are_connected() {
    let lab = Lab::up("peerlife", TWO);
    let passes = |lab: &Lab| [lab.pings("a", "10.1.0.4"), lab.pings("b", "10.0.0.4")];
    assert_eq!(passes(&lab), [false; 2], "no peering");
    lab.apply(&format!("{TWO}{ONE_TO_TWO}"));
    assert_eq!(lab.states(), names(&[("one-to-two", "Initiated")]));
    assert_eq!(passes(&lab), [false; 2], "one side");
    lab.apply(&format!("{TWO}{ONE_TO_TWO}{TWO_TO_ONE}"));
    assert_eq!(
        lab.states(),
        names(&[("one-to-two", "Connected"), ("two-to-one", "Connected")])
    );
    assert_eq!(passes(&lab), [true; 2], "both sides");
    lab.apply(&format!("{TWO}{ONE_TO_TWO}"));
    assert_eq!(lab.states(), names(&[("one-to-two", "Disconnected")]));
    assert_eq!(passes(&lab), [false; 2], "one side deleted");
}

/// Spokes `x` and `y`, with two VMs, whose peerings come and go beside that of `one` and `two`.
const FOUR: &str = "
apiVersion: peerlane/v1
kind: Lab
name: LAB
profile: azure-2018
vnets:
  one: { addressSpace: [10.0.0.0/16], subnets: { s: { addressPrefix: 10.0.0.0/24 } } }
  two: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24 } } }
  x: { addressSpace: [10.2.0.0/16], subnets: { s: { addressPrefix: 10.2.0.0/24 } } }
  y: { addressSpace: [10.3.0.0/16], subnets: { s: { addressPrefix: 10.3.0.0/24 } } }
vms:
  a: { subnet: one/s, privateIPAddress: 10.0.0.4 }
  b: { subnet: two/s, privateIPAddress: 10.1.0.4 }
  c: { subnet: x/s, privateIPAddress: 10.2.0.4 }
  d: { subnet: y/s, privateIPAddress: 10.3.0.4 }
peerings:
  - one <-> two
";

const RECEIVER: &str = "
import socket, hashlib
s = socket.create_server(('', 7000)); c, _ = s.accept()
h = hashlib.sha256(); n = 0
while True:
    d = c.recv(1 << 20)
    if not d: break
    h.update(d); n += len(d)
print(n, h.hexdigest())";

/// Sends about 16 MB/s until the file `stop` appears.
const SENDER: &str = "
import socket, hashlib, os, time
for _ in range(50):
    try: c = socket.create_connection(('10.1.0.4', 7000), timeout=5); break
    except OSError: time.sleep(.1)
c.settimeout(60)
h = hashlib.sha256(); n = 0
while not os.path.exists('stop'):
    d = os.urandom(1 << 16)
    c.sendall(d); h.update(d); n += len(d)
    with open('sent.new', 'w') as f: f.write(str(n))
    os.rename('sent.new', 'sent')
    time.sleep(.004)
c.shutdown(socket.SHUT_WR); c.recv(1)
print(n, h.hexdigest())";

/// Shows: PEER-41, PEER-09.
#[test]
fn a_long_transfer_loses_nothing_while_other_peerings_change_200_times() {
    const LEAST: Duration = Duration::from_secs(30);
    let x_to_y = "  - { name: x-to-y, from: x, to: y }\n";
    let y_to_x = "  - { name: y-to-x, from: y, to: x }\n";
    let updated = "  - { name: y-to-x, from: y, to: x, allowForwardedTraffic: true }\n";
    let lab = Lab::up("longflow", FOUR);
    let receiver = lab.python("b", RECEIVER);
    let sender = lab.python("a", SENDER);
    assert!(wait_for(SOON, || lab.number("sent") > 0), "nothing is sent");
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    for cycle in 0..50 {
        // Create, create, update, and delete both.
        for peerings in [
            x_to_y.to_owned(),
            format!("{x_to_y}{y_to_x}"),
            format!("{x_to_y}{updated}"),
            String::new(),
        ] {
            let change = Instant::now();
            lab.apply(&format!("{FOUR}{peerings}"));
            slowest = slowest.max(change.elapsed());
        }
        if cycle == 25 {
            lab.apply(&format!("{FOUR}{x_to_y}{y_to_x}"));
            assert!(lab.pings("c", "10.3.0.4"), "the changes are real");
            lab.apply(FOUR);
        }
    }
    let changes = start.elapsed();
    std::thread::sleep(LEAST.saturating_sub(changes));
    fs::write(lab.peerlane.dir.join("stop"), "").unwrap();
    let sent = Ran::of(sender.wait_with_output().unwrap());
    let received = Ran::of(receiver.wait_with_output().unwrap());
    let took = start.elapsed();
    assert_eq!((sent.code, received.code), (0, 0), "{sent:?} {received:?}");
    assert_eq!(sent.stdout, received.stdout, "the same bytes, by number and hash");
    let ours = |drop: &Value| ["a-nic", "b-nic"].contains(&drop["nic"].as_str().unwrap_or_default());
    let lost: Vec<Value> = lab.drops().into_iter().filter(ours).collect();
    assert_eq!(lost, Vec::<Value>::new());
    let dropped = "cat /sys/class/net/eth0/statistics/tx_dropped /sys/class/net/eth0/statistics/rx_dropped";
    for vm in ["a", "b"] {
        let counts = lab.peerlane.exec(&lab.name, vm, &["sh", "-c", dropped]).stdout;
        assert_eq!(counts, "0\n0\n", "lost between {vm} and the engine");
    }
    println!(
        "{} bytes in {took:.1?}; 200 changes in {changes:.1?}, the slowest {slowest:.1?}",
        sent.stdout.split(' ').next().unwrap()
    );
}

/// Counts answers of a line-by-line echo over one TCP connection into the file `echoes`.
const ECHO_CLIENT: &str = "
import socket, os, time
for _ in range(50):
    try: c = socket.create_connection(('TARGET', 7000), timeout=2); break
    except OSError: time.sleep(.1)
c.settimeout(30); n = 0
while True:
    c.sendall(b'x'); c.recv(1); n += 1
    with open('echoes.new', 'w') as f: f.write(str(n))
    os.rename('echoes.new', 'echoes')
    time.sleep(.01)";
const ECHO_SERVER: &str = "
import socket, threading
s = socket.create_server(('', 7000))
def serve(c):
    while d := c.recv(100): c.sendall(d)
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()";

fn echo(lab: &Lab, from: &str, to: &str, address: &str) -> [Child; 2] {
    let server = lab.python(to, ECHO_SERVER);
    let client = lab.python(from, &ECHO_CLIENT.replace("TARGET", address));
    assert!(wait_for(SOON, || lab.number("echoes") > 5), "no echo");
    [server, client]
}

fn end(programs: [Child; 2]) {
    for mut program in programs {
        let _ = program.kill();
        let _ = program.wait();
    }
}

const CONNECT: [&str; 3] = [
    "python3",
    "-c",
    "import socket; socket.create_connection(('10.1.0.4', 7000), timeout=1)",
];

/// Shows: NSG-09, NSG-08.
#[test]
fn a_connection_outlives_the_rule_that_would_deny_it() {
    let deny = "
networkSecurityGroups:
  closed:
    securityRules:
      deny-all: { priority: 100, direction: Inbound, access: Deny, protocol: '*', sourceAddressPrefix: '*',
                  sourcePortRange: '*', destinationAddressPrefix: '*', destinationPortRange: '*' }
";
    let open = format!("{TWO}{ONE_TO_TWO}{TWO_TO_ONE}");
    let guarded = open.replace(
        "{ subnet: two/s, ",
        "{ networkSecurityGroup: closed, subnet: two/s, ",
    );
    let lab = Lab::up("rules", &open);
    let programs = echo(&lab, "a", "b", "10.1.0.4");
    assert_eq!(lab.peerlane.exec(&lab.name, "a", &CONNECT).code, 0);
    let plan = lab.apply(&format!("{guarded}{deny}"));
    assert_eq!(
        plan["flows"],
        Value::Array(Vec::new()),
        "no flow under way changes"
    );
    assert!(lab.goes_on("echoes"), "the connection continues");
    assert_ne!(
        lab.peerlane.exec(&lab.name, "a", &CONNECT).code,
        0,
        "a new one is denied"
    );
    let drops = lab.drops();
    assert!(
        drops
            .iter()
            .all(|drop| drop["reason"] == "NsgInbound" && drop["nic"] == "b-nic"),
        "{drops:?}"
    );
    assert!(lab.goes_on("echoes"));
    end(programs);
}

const ROUTED: &str = "
apiVersion: peerlane/v1
kind: Lab
name: LAB
profile: azure-2018
vnets:
  one: { addressSpace: [10.0.0.0/16], subnets: { s: { addressPrefix: 10.0.0.0/24 ROUTES }, nva: { addressPrefix: 10.0.1.0/24 } } }
  two: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24 } } }
vms:
  a: { subnet: one/s, privateIPAddress: 10.0.0.4 }
  nva: { subnet: one/nva, privateIPAddress: 10.0.1.4, enableIPForwarding: true, forwarding: true }
  b: { subnet: two/s, privateIPAddress: 10.1.0.4 }
peerings: [ one <-> two ]
";

/// Shows: ROUTE-20, ROUTE-13, ROUTE-14.
#[test]
fn a_connection_follows_routes_at_once() {
    let routed = |next_hop: &str| {
        let table = format!(
            "routeTables: {{ way: {{ routes: {{ there: {{ addressPrefix: 10.1.0.0/16, {next_hop} }} }} }} }}\n"
        );
        format!("{}{table}", ROUTED.replace("ROUTES", ", routeTable: way"))
    };
    let direct = ROUTED.replace("ROUTES", "");
    let by_appliance = routed("nextHopType: VirtualAppliance, nextHopIpAddress: 10.0.1.4");
    let nowhere = routed("nextHopType: None");
    let lab = Lab::up("routes", &direct);
    let programs = echo(&lab, "a", "b", "10.1.0.4");
    assert_eq!(lab.forwarded("nva"), 0);
    let plan = lab.apply(&by_appliance);
    // Attempts to connect before the server listened are flows too.
    let flows = plan["flows"].as_array().unwrap();
    assert!(!flows.is_empty());
    for flow in flows {
        assert_eq!(flow["port"], 7000, "{flow:#}");
        assert!(flow["after"]["path"].to_string().contains("nva-nic"), "{flow:#}");
    }
    assert!(lab.goes_on("echoes"), "by the appliance");
    assert!(lab.forwarded("nva") > 0, "the appliance forwards it");
    lab.apply(&direct);
    let before = lab.forwarded("nva");
    assert!(lab.goes_on("echoes"), "directly again");
    assert_eq!(lab.forwarded("nva"), before);
    assert_eq!(lab.drops(), Vec::<Value>::new(), "nothing was lost on the way");
    lab.apply(&nowhere);
    let stopped = lab.number("echoes");
    assert!(wait_for(SOON, || lab
        .drops()
        .iter()
        .any(|drop| drop["reason"] == "RouteNone")));
    assert!(lab.number("echoes") <= stopped + 2, "it is cut");
    lab.apply(&direct);
    assert!(
        wait_for(SOON, || lab.number("echoes") > stopped + 5),
        "and goes on"
    );
    end(programs);
}

#[test]
fn vms_come_and_go_and_inherit_nothing() {
    let both = format!("{TWO}{ONE_TO_TWO}{TWO_TO_ONE}");
    let add = |vm: &str| both.replace("peerings:", &format!("{vm}peerings:"));
    let server = "run: [\"python3 -m http.server 80\"]";
    let third = add(&format!(
        "  third: {{ subnet: two/s, privateIPAddress: 10.1.0.9, {server} }}\n"
    ));
    let lab = Lab::up("vms", &both);
    let programs = echo(&lab, "a", "b", "10.1.0.4");
    lab.apply(&third);
    assert!(lab.pings("a", "10.1.0.9") && lab.pings("third", "10.1.0.4"));
    let get = "import urllib.request; urllib.request.urlopen('http://10.1.0.9/', timeout=2)";
    let fetched = || lab.peerlane.exec(&lab.name, "a", &["python3", "-c", get]).code == 0;
    assert!(wait_for(SOON, fetched), "its program runs");
    // A flow that the next machine at this address must not inherit.
    let talk = "
import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 6000)); s.sendto(b'x', ('10.1.0.9', 6001))";
    assert_eq!(
        lab.peerlane.exec(&lab.name, "a", &["python3", "-c", talk]).code,
        0
    );
    assert_eq!(lab.drops(), Vec::<Value>::new());

    lab.apply(&both);
    assert!(!lab.pings("a", "10.1.0.9"));
    assert_ne!(lab.peerlane.exec(&lab.name, "third", &["true"]).code, 0);
    let gone = |name: &str| !fs::exists(format!("/run/netns/{}-{name}", lab.name)).unwrap();
    assert!(gone("third"), "its namespace has a name still");
    let http = || {
        lab.peerlane
            .processes()
            .iter()
            .any(|(_, line)| line.contains("http.server"))
    };
    assert!(wait_for(SOON, || !http()), "its program ends");
    let reasons = |lab: &Lab| -> Vec<String> {
        let drops = lab.drops();
        drops
            .iter()
            .map(|drop| format!("{} {}", drop["reason"], drop["nic"]))
            .collect()
    };
    assert_eq!(reasons(&lab), ["\"NoDestination\" \"a-nic\""]);

    let guarded =
        add("  other: { subnet: two/s, privateIPAddress: 10.1.0.9, networkSecurityGroup: closed }\n");
    let closed = "networkSecurityGroups: { closed: { securityRules: { deny: { priority: 100, direction: Inbound, access: Deny, \
                  protocol: '*', sourceAddressPrefix: '*', sourcePortRange: '*', destinationAddressPrefix: '*', destinationPortRange: '*' } } } }\n";
    lab.apply(&format!("{guarded}{closed}"));
    assert_eq!(
        lab.peerlane.exec(&lab.name, "a", &["python3", "-c", talk]).code,
        0
    );
    assert!(
        wait_for(SOON, || reasons(&lab)
            .contains(&"\"NsgInbound\" \"other-nic\"".to_owned())),
        "{:?}",
        reasons(&lab)
    );
    assert!(lab.goes_on("echoes"), "the others notice nothing");
    end(programs);
    assert_eq!(lab.peerlane.run(["down", &lab.name]).code, 0);
    lab.peerlane.assert_nothing_left(&lab.name);
}

#[test]
fn what_cannot_be_applied_changes_nothing() {
    let both = format!("{TWO}{ONE_TO_TWO}{TWO_TO_ONE}");
    let lab = Lab::up("undo", &both);
    let programs = echo(&lab, "a", "b", "10.1.0.4");
    let before = lab.peerlane.run(["export", &lab.name]).stdout;
    // The new VM can be made, and then the namespace of the VNet port is missing.
    let broken = both
        .replace("peerings:", "  new: { subnet: two/s, privateIPAddress: 10.1.0.9 }\npeerings:")
        .replace(
            "  two: {",
            "  three: { addressSpace: [10.9.0.0/16], tun: { namespace: pl-no-such-namespace }, subnets: { s: { addressPrefix: 10.9.0.0/24 } } }\n  two: {",
        );
    let broken = format!("{broken}networkInterfaces: {{ n: {{ subnet: three/s }} }}\n");
    let ran = lab.try_apply(&broken);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("pl-no-such-namespace"), "{ran:?}");
    // A rule forbids it: an overlap with the peered VNet.
    let ran = lab.try_apply(&both.replace("10.1.0.0/16", "10.1.0.0/16, 10.0.128.0/17"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("VnetAddressSpace"), "{ran:?}");
    // Another lab.
    let ran = lab.try_apply(&both.replace("name: LAB", "name: another"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(lab.peerlane.run(["export", &lab.name]).stdout, before);
    assert_ne!(lab.peerlane.exec(&lab.name, "new", &["true"]).code, 0);
    assert!(!fs::exists(format!("/run/netns/{}-new", lab.name)).unwrap());
    assert!(lab.goes_on("echoes"), "nobody noticed");
    assert_eq!(lab.drops(), Vec::<Value>::new());
    // And the lab can still change.
    lab.apply(&both.replace(
        "peerings:",
        "  new: { subnet: two/s, privateIPAddress: 10.1.0.9 }\npeerings:",
    ));
    assert!(lab.pings("a", "10.1.0.9"));
    end(programs);
    assert_eq!(lab.peerlane.run(["down", &lab.name]).code, 0);
    lab.peerlane.assert_nothing_left(&lab.name);
}

#[test]
fn after_the_daemon_is_killed_up_goes_on_with_what_was_applied() {
    let lab = Lab::up("applied", TWO);
    let original = lab.file(TWO);
    lab.apply(&format!("{TWO}{ONE_TO_TWO}{TWO_TO_ONE}"));
    let third = TWO.replace(
        "peerings:",
        "  third: { subnet: one/s, privateIPAddress: 10.0.0.9 }\npeerings:",
    );
    lab.apply(&format!("{third}{ONE_TO_TWO}"));
    let before = lab.peerlane.run(["export", &lab.name]).stdout;
    assert!(before.contains("Disconnected"), "{before}");
    let programs = echo(&lab, "third", "a", "10.0.0.4");
    kill(lab.peerlane.daemon_pid());
    let orphaned = || lab.peerlane.list()[0]["state"] == "Orphaned";
    assert!(wait_for(SOON, orphaned), "{:?}", lab.peerlane.list());
    let ran = lab.peerlane.run(["up", original.to_str().unwrap(), "--detach"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("as it was"), "it says so: {ran:?}");
    assert_eq!(lab.peerlane.run(["export", &lab.name]).stdout, before);
    assert_eq!(lab.states(), names(&[("one-to-two", "Disconnected")]));
    assert!(lab.goes_on("echoes"), "the connection goes on");
    end(programs);
}

/// A VM and the NICs behind a VNet port get other addresses, a VM gets and loses a NIC.
#[test]
fn nics_change_where_they_are() {
    let lab_of = |address: &str, nics: &str, behind: &str| {
        format!(
            "
apiVersion: peerlane/v1
kind: Lab
name: LAB
profile: azure-2018
vnets:
  one: {{ addressSpace: [10.0.0.0/16], subnets: {{ s: {{ addressPrefix: 10.0.0.0/24 }}, t: {{ addressPrefix: 10.0.1.0/24 }} }}, tun: {{}} }}
vms:
  a: {{ nics: [ {{ name: a0, subnet: one/s, privateIPAddresses: [{address}] }}{nics} ] }}
  b: {{ subnet: one/t, privateIPAddress: 10.0.1.4 }}
networkInterfaces: {{ {behind} }}
"
        )
    };
    let printer = "printer: { subnet: one/s, privateIPAddress: 10.0.0.7 }";
    let scanner = "scanner: { subnet: one/t, privateIPAddress: 10.0.1.8 }";
    let second = ", { name: a1, subnet: one/t, privateIPAddress: 10.0.1.5 }";
    let lab = Lab::up("nics", &lab_of("10.0.0.4", "", printer));
    let from = |vm: &str, source: &str, to: &str| {
        let ping = ["ping", "-c", "1", "-W", "1", "-I", source, to];
        lab.peerlane.exec(&lab.name, vm, &ping).code == 0
    };
    assert!(from("b", "10.0.1.4", "10.0.0.4") && from("b", "10.0.1.4", "10.0.0.7"));
    lab.apply(&lab_of("10.0.0.5", "", printer));
    assert!(from("b", "10.0.1.4", "10.0.0.5"), "the new address");
    assert!(!from("b", "10.0.1.4", "10.0.0.4"), "not the old one");
    assert!(from("a", "10.0.0.5", "10.0.1.4"), "the guest sends by it");
    lab.apply(&lab_of("10.0.0.5", second, &format!("{printer}, {scanner}")));
    assert!(from("b", "10.0.1.4", "10.0.1.5"), "a second NIC");
    assert!(from("b", "10.0.1.4", "10.0.1.8"), "a second NIC behind the port");
    assert!(
        from("one", "10.0.0.7", "10.0.1.8"),
        "two NICs behind one port, through the engine"
    );
    lab.apply(&lab_of("10.0.0.5", "", scanner));
    assert!(!from("b", "10.0.1.4", "10.0.1.5") && !from("b", "10.0.1.4", "10.0.0.7"));
    assert!(from("b", "10.0.1.4", "10.0.1.8") && from("b", "10.0.1.4", "10.0.0.5"));
    let interfaces = lab
        .peerlane
        .exec(&lab.name, "a", &["ls", "/sys/class/net"])
        .stdout;
    assert!(!interfaces.contains("eth1"), "{interfaces}");
    assert_eq!(lab.peerlane.run(["down", &lab.name]).code, 0);
    lab.peerlane.assert_nothing_left(&lab.name);
}

#[test]
fn a_plan_says_what_a_file_would_change() {
    let peerlane = Peerlane::new(User::Caller);
    let old = peerlane.file("old", &TWO.replace("LAB", "plan"));
    let new =
        format!("{TWO}{ONE_TO_TWO}{TWO_TO_ONE}tests: [ {{ from: a, to: b, port: 80, expect: Allow }} ]\n");
    let new = peerlane.file("new", &new.replace("LAB", "plan"));
    let [old, new] = [&old, &new].map(|path| path.to_str().unwrap());
    let same = peerlane.run(["plan", old, old, "--detailed-exitcode", "-o", "json"]);
    assert_eq!(same.code, 0, "{same:?}");
    assert_eq!(same.json(), serde_json::json!({ "objects": [], "flows": [] }));
    assert_eq!(peerlane.run(["plan", old, new]).code, 0);
    let ran = peerlane.run(["plan", old, new, "--detailed-exitcode", "-o", "json"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    let plan = ran.json();
    let schema = peerlane.run(["schema", "plan"]).json();
    jsonschema::validate(&schema, &plan).unwrap_or_else(|error| panic!("{error}"));
    let objects = plan["objects"].as_array().unwrap();
    let created = objects.iter().filter(|object| object["action"] == "Create");
    let created: Vec<&str> = created.map(|object| object["name"].as_str().unwrap()).collect();
    assert_eq!(created, ["one/one-to-two", "two/two-to-one"]);
    let flow = &plan["flows"][0];
    assert_eq!((&flow["from"], &flow["port"]), (&"a".into(), &80.into()));
    assert_eq!(flow["before"]["reason"], "RouteNone");
    assert_eq!(flow["after"]["verdict"], "Allow");
}
