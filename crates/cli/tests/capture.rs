//! `capture`: what real packets look like in pcapng, read by tshark, and counted as the counters count.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Peerlane, Ran, User, unique, users, wait_for};

/// Longer than any answer takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// `a` and `d` beside each other, `b` and `c` in another region; `c` takes nothing.
const LAB: &str = r#"
apiVersion: peerlane/v1
kind: Lab
name: LAB
profile: azure-2025
vnets:
  one: { location: westus2, addressSpace: [10.0.0.0/16, "fd00:a::/48"], subnets: { s: { addressPrefixes: [10.0.0.0/24, "fd00:a::/64"] } } }
  two: { location: eastus, addressSpace: [10.1.0.0/16, "fd00:b::/48"], subnets: { s: { addressPrefixes: [10.1.0.0/24, "fd00:b::/64"] } } }
peerings: [ one <-> two ]
networkSecurityGroups:
  closed:
    securityRules:
      deny-all: { priority: 100, direction: Inbound, access: Deny, protocol: "*", sourceAddressPrefix: "*",
                  sourcePortRange: "*", destinationAddressPrefix: "*", destinationPortRange: "*" }
vms:
  a: { subnet: one/s, privateIPAddresses: [10.0.0.4, "fd00:a::4"] }
  d: { subnet: one/s, privateIPAddresses: [10.0.0.5, "fd00:a::5"] }
  b: { subnet: two/s, privateIPAddresses: [10.1.0.4, "fd00:b::4"] }
  c: { subnet: two/s, privateIPAddresses: [10.1.0.5, "fd00:b::5"], networkSecurityGroup: closed }
"#;

/// Sends so many bytes over one TCP connection to 10.0.0.5, in writes that become super-packets.
const SEND: &str = "
import socket, sys
s = socket.create_connection(('10.0.0.5', 5000)); s.sendall(bytes(int(sys.argv[1]))); s.shutdown(1); s.recv(1)
";
const RECEIVE: &str = "
import socket
l = socket.create_server(('10.0.0.5', 5000)); print('ready', flush=True)
c = l.accept()[0]
while c.recv(1 << 20): pass
";
/// A UDP super-packet of ten segments for `c`, which takes none, and a packet of a kind that the fabric does not carry.
const LOST: &str = "
import socket
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.setsockopt(17, 103, 500); u.sendto(bytes(5000), ('10.1.0.5', 53))
g = socket.socket(socket.AF_INET, socket.SOCK_RAW, 47); g.sendto(bytes(40), ('10.1.0.4', 0))
";

/// Super-packets of ten segments each for `b`.
const FLOOD: &str = "
import socket
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.setsockopt(17, 103, 1400)
for _ in range(40): u.sendto(bytes(14000), ('10.1.0.4', 53))
";

struct Lab {
    peerlane: Peerlane,
    name: String,
}

/// A capture that runs.
struct Capture {
    child: Child,
    path: PathBuf,
}

impl Lab {
    fn up() -> Self {
        Self::up_with(User::Caller, "")
    }

    fn up_with(user: User, more: &str) -> Self {
        let lab = Self {
            peerlane: Peerlane::new(user),
            name: unique("capture"),
        };
        lab.peerlane.up(&lab.file(&(LAB.to_owned() + more)));
        lab
    }

    fn file(&self, text: &str) -> PathBuf {
        self.peerlane.file(&self.name, &text.replace("LAB", &self.name))
    }

    /// Starts a capture, and returns when it sees packets.
    fn capture(&self, file: &str, arguments: &[&str]) -> Capture {
        // Where an ordinary user may write.
        let path = self.peerlane.dir.join("tmp").join(format!("{file}.pcapng"));
        let written = path.to_str().unwrap();
        let start = ["capture", &self.name, "-w", written].into_iter();
        let child = self
            .peerlane
            .command(start.chain(arguments.iter().copied()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = || fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0);
        assert!(wait_for(SOON, begun), "no capture {file}");
        Capture { child, path }
    }

    fn exec(&self, vm: &str, program: &[&str]) -> Ran {
        self.peerlane.exec(&self.name, vm, program)
    }

    /// Transfers bytes from `a` to `d`, which share a VNet.
    fn transfer(&self, bytes: u64) {
        let mut receiver = self.peerlane.spawn(&self.name, "d", &["python3", "-c", RECEIVE]);
        let mut ready = [0; 5];
        receiver.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let sent = self.exec("a", &["timeout", "60", "python3", "-c", SEND, &bytes.to_string()]);
        assert_eq!(sent.code, 0, "{sent:?}");
        receiver.wait().unwrap();
    }

    fn json(&self, command: &str) -> Vec<Value> {
        let answer = self.peerlane.run([command, &self.name, "-o", "json"]).json();
        answer.as_array().unwrap().clone()
    }

    /// Lost packets by reason, as counted.
    fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = BTreeMap::new();
        for drop in self.json("drops") {
            let reason = drop["reason"].as_str().unwrap().to_owned();
            *drops.entry(reason).or_default() += drop["packets"].as_u64().unwrap();
        }
        drops
    }
}

impl Capture {
    /// Ends it in order; what it says.
    fn stop(mut self) -> (String, PathBuf) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.ended()
    }

    fn ended(&mut self) -> (String, PathBuf) {
        let mut said = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        (said, self.path.clone())
    }
}

/// The fields of each packet of a capture that fits a display filter; tshark must have nothing to say.
fn tshark(path: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r", path.to_str().unwrap(), "-Y", filter, "-T", "fields"]);
    for protocol in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("tshark, which scripts/test installs: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("Running as user"))
        .collect();
    assert!(
        output.status.success() && said.is_empty(),
        "{}: {said:?}",
        path.display()
    );
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines
        .lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

/// Packets by the reason of their loss, as captured.
fn lost(path: &Path) -> BTreeMap<String, u64> {
    let mut lost = BTreeMap::new();
    for comment in tshark(path, "", &["frame.comment"]) {
        if let Some(rest) = comment[0].strip_prefix("Drop ") {
            let reason = rest.split([' ', ':']).next().unwrap().to_owned();
            *lost.entry(reason).or_default() += 1;
        }
    }
    lost
}

#[test]
fn tshark_reads_every_capture_and_drops_are_those_counted() {
    let lab = Lab::up();
    let all = lab.capture("all", &[]);
    let drops = lab.capture("drops", &["--drops"]);
    let raw = lab.capture("raw", &["--raw", "--vm", "d", "tcp", "and", "src", "a"]);
    let backbone = lab.capture("backbone", &["--vxlan", "icmp or icmp6"]);
    lab.transfer(2_000_000);
    for (address, answers) in [
        ("10.1.0.4", true),
        ("fd00:b::4", true),
        ("10.1.0.5", false),
        ("10.9.9.9", false),
    ] {
        let ping = lab.exec("a", &["ping", "-c", "3", "-i", "0.1", "-W", "1", address]);
        assert_eq!(ping.code == 0, answers, "{ping:?}");
    }
    let sent = lab.exec("a", &["python3", "-c", LOST]);
    assert_eq!(sent.code, 0, "{sent:?}");
    let counted = lab.drops();
    let [all, drops, raw, backbone] = [all, drops, raw, backbone].map(|capture| {
        let (said, path) = capture.stop();
        assert!(
            said.contains("packets captured") && !said.contains("missing"),
            "{said}"
        );
        path
    });

    // Every reason, and as often as it was counted, in wire packets.
    assert_eq!(counted.get("NsgInbound"), Some(&13), "{counted:?}");
    assert!(
        counted.contains_key("RouteNone") && counted.contains_key("UnsupportedProtocol"),
        "{counted:?}"
    );
    assert_eq!(lost(&drops), counted);
    assert_eq!(lost(&all), counted);
    assert!(tshark(&drops, "frame.comment contains \"Forward\"", &["frame.number"]).is_empty());

    // Segments with finished checksums: none bad, and none longer than the MTU.
    let bad =
        "ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0 || frame.len > 1500";
    assert!(tshark(&all, bad, &["frame.number"]).is_empty());
    let good = tshark(
        &all,
        "tcp.checksum.status == 1 && tcp.len > 1000",
        &["frame.number"],
    );
    assert!(good.len() > 2 * 2_000_000 / 1500, "{} segments", good.len());
    // As read, the same bytes are few and long.
    assert!(!tshark(&raw, "frame.len > 9000", &["frame.number"]).is_empty());
    let places = tshark(
        &raw,
        "",
        &["frame.interface_name", "frame.packet_flags_direction", "ip.src"],
    );
    assert!(
        places
            .iter()
            .all(|place| *place == ["d-nic", "0x00000001", "10.0.0.4"]),
        "{places:?}"
    );

    // One packet at four places, in order, later by the way to the other region; the times have nanoseconds.
    let fields = [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.time_epoch",
        "frame.comment",
    ];
    let echo = tshark(
        &all,
        "icmp.type == 8 && ip.dst == 10.1.0.4 && icmp.seq == 2",
        &fields,
    );
    let places: Vec<(&str, &str, &str)> = echo
        .iter()
        .map(|place| (place[0].as_str(), place[1].as_str(), place[3].as_str()))
        .collect();
    assert_eq!(
        places,
        [
            ("a-nic", "0x00000002", "Forward over one/one-to-two"),
            ("one/one-to-two", "0x00000002", "Forward"),
            ("one/one-to-two", "0x00000001", "Forward"),
            ("b-nic", "0x00000001", "Forward"),
        ]
    );
    let times: Vec<f64> = echo.iter().map(|place| place[2].parse().unwrap()).collect();
    let one_way = times[2] - times[1];
    assert!((0.010..0.200).contains(&one_way), "{one_way} s from west to east");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(
        (now.as_secs_f64() - times[0]).abs() < 120.0,
        "captured at {}",
        times[0]
    );
    let all_times = tshark(&all, "", &["frame.time_epoch"]);
    let odd = all_times.iter().filter(|time| !time[0].ends_with("000")).count();
    assert!(
        odd * 2 > all_times.len(),
        "{odd} of {} have nanoseconds",
        all_times.len()
    );

    // The backbone in VXLAN: the VNI is that of the VNet that gets the packet.
    let fields = [
        "udp.dstport",
        "vxlan.vni",
        "ip.src",
        "ip.dst",
        "frame.interface_name",
    ];
    let requests = tshark(
        &backbone,
        "icmp.type == 8 && icmp.seq == 1 && ip.dst == 10.1.0.4",
        &fields,
    );
    let expected = [
        "4789",
        "2",
        "100.64.0.1,10.0.0.4",
        "100.64.0.2,10.1.0.4",
        "one/one-to-two",
    ];
    assert_eq!(requests, [expected, expected]);
    let replies = tshark(
        &backbone,
        "icmpv6.type == 129",
        &["vxlan.vni", "frame.interface_name"],
    );
    assert!(!replies.is_empty() && replies.iter().all(|reply| *reply == ["1", "two/two-to-one"]));
    assert!(
        tshark(
            &backbone,
            "_ws.malformed || ip.checksum.status == 0",
            &["frame.number"]
        )
        .is_empty()
    );
}

/// What links lose, wire packet by wire packet, super-packets and fragments among them.
#[test]
fn losses_on_links_are_those_counted() {
    let lab = Lab::up_with(
        User::Caller,
        "links:
  one/one-to-two: { latency: 5ms, loss: 30%, rate: 20Mbit, queue: 30ms, duplicate: 10% }
  two/two-to-one: { down: true }
",
    );
    let all = lab.capture("all", &[]);
    let drops = lab.capture("drops", &["--drops"]);
    let own = lab.capture("own", &["--vm", "b", "--drops"]);
    let sent = lab.exec("a", &["python3", "-c", FLOOD]);
    assert_eq!(sent.code, 0, "{sent:?}");
    assert_eq!(
        lab.exec("b", &["ping", "-c", "2", "-i", "0.1", "-W", "1", "10.0.0.4"])
            .code,
        1
    );
    // Far longer than the queue is.
    std::thread::sleep(Duration::from_millis(500));
    let counted = lab.drops();
    let [all, drops, own] = [all, drops, own].map(|capture| capture.stop().1);
    for reason in ["LinkLoss", "LinkQueueFull", "LinkDown"] {
        assert!(counted.contains_key(reason), "{counted:?}");
    }
    assert_eq!(lost(&all), counted);
    assert_eq!(lost(&drops), counted);
    // Who does not look at the link sees its losses at the sender.
    assert_eq!(lost(&own).get("LinkDown"), counted.get("LinkDown"));
    let on_link = "frame.interface_name == \"one/one-to-two\" && udp";
    let count = |filter: &str| tshark(&all, &format!("{on_link} && {filter}"), &["frame.number"]).len();
    let (came_in, dropped) = (
        count("frame.packet_flags_direction == 2"),
        count("frame.comment contains \"Drop\""),
    );
    let out = count("frame.packet_flags_direction == 1");
    // Copies come out and do not come in.
    assert!(
        out > came_in - dropped,
        "{came_in} in, {dropped} dropped, {out} out"
    );
}

/// Whoever reads nothing costs those packets, which are counted, and no others.
#[test]
fn a_slow_reader_loses_packets_and_the_lab_does_not() {
    let lab = Lab::up();
    let mut slow = lab
        .peerlane
        .command(["capture", &lab.name, "--vm", "a", "tcp and src a"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pcapng = vec![0; 12];
    slow.stdout.as_mut().unwrap().read_exact(&mut pcapng).unwrap();
    // More than the ring, the pieces and the pipe hold.
    lab.transfer(60_000_000);
    let flows = lab.json("flows");
    let flow = flows
        .iter()
        .find(|flow| flow["nic"] == "a-nic" && flow["destinationPort"] == 5000)
        .unwrap();
    let pid = rustix::process::Pid::from_child(&slow);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    slow.stdout.take().unwrap().read_to_end(&mut pcapng).unwrap();
    let mut said = String::new();
    slow.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(slow.wait().unwrap().success(), "{said}");
    let number = |what: &str| {
        let line = said
            .lines()
            .find(|line| line.contains(what))
            .unwrap_or_else(|| panic!("{said}"));
        line.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let (captured, missing) = (number("captured"), number("missing"));
    assert!(captured > 0 && missing > 0, "{said}");
    assert_eq!(Some(captured + missing), flow["packets"].as_u64(), "{said}");
    let path = lab.peerlane.dir.join("slow.pcapng");
    fs::write(&path, pcapng).unwrap();
    assert_eq!(tshark(&path, "", &["frame.number"]).len() as u64, captured);
}

/// A capture goes on while the lab changes, and ends in order with it, or when its reader has seen enough.
#[test]
fn captures_follow_the_lab_to_its_end() {
    for user in users() {
        follow_to_the_end(&Lab::up_with(user, ""));
    }
}

fn follow_to_the_end(lab: &Lab) {
    let mut capture = lab.capture("follow", &["icmp"]);
    let more = LAB.to_owned() + "  e: { subnet: one/s, privateIPAddress: 10.0.0.9 }\n";
    let file = lab.file(&more);
    let applied = lab.peerlane.run(["apply", &lab.name, file.to_str().unwrap()]);
    assert_eq!(applied.code, 0, "{applied:?}");
    let seen = wait_for(SOON, || {
        lab.exec("e", &["ping", "-c", "1", "-W", "1", "10.0.0.4"]);
        !tshark(
            &capture.path,
            "frame.interface_name == \"e-nic\"",
            &["frame.number"],
        )
        .is_empty()
    });
    assert!(seen, "the new VM is not captured");

    // So many packets, and no more, to a pipe.
    let mut few = lab
        .peerlane
        .command(["capture", &lab.name, "-c", "3", "icmp"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut pcapng = vec![0; 12];
    few.stdout.as_mut().unwrap().read_exact(&mut pcapng).unwrap();
    assert_eq!(
        lab.exec("a", &["ping", "-c", "4", "-i", "0.1", "10.1.0.4"]).code,
        0
    );
    few.stdout.take().unwrap().read_to_end(&mut pcapng).unwrap();
    assert!(few.wait().unwrap().success());
    let path = lab.peerlane.dir.join("few.pcapng");
    fs::write(&path, pcapng).unwrap();
    assert_eq!(tshark(&path, "", &["frame.number"]).len(), 3);

    let down = lab.peerlane.run(["down", &lab.name]);
    assert_eq!(down.code, 0, "{down:?}");
    let (said, path) = capture.ended();
    assert!(said.contains("packets captured"), "{said}");
    assert!(!tshark(&path, "", &["frame.number"]).is_empty());
}

#[test]
fn what_cannot_be_captured_is_refused() {
    let lab = Lab::up();
    let path = lab.peerlane.dir.join("kept");
    fs::write(&path, "kept").unwrap();
    for (arguments, code, part) in [
        (
            &["--vm", "nobody"][..],
            1,
            "no VM, NIC or other port is called nobody; there are a-nic,",
        ),
        (
            &["--link", "one/two"],
            1,
            "no link is called one/two; there are one/one-to-two, two/two-to-one",
        ),
        (&["vlan", "3"], 1, "`vlan` is not known here"),
        (&["host", "nobody"], 1, "no VM or NIC of the lab has that name"),
        (&["--vxlan", "--vm", "a"], 2, "cannot be used with"),
        (&["--vxlan", "--raw"], 2, "cannot be used with"),
    ] {
        let start = ["capture", &lab.name, "-w", path.to_str().unwrap()].into_iter();
        let ran = lab.peerlane.run(start.chain(arguments.iter().copied()));
        assert!(
            ran.code == code && ran.stderr.contains(part),
            "{arguments:?}: {ran:?}"
        );
    }
    // A capture that does not begin leaves a file as it was.
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    let ran = lab.peerlane.run(["capture", "no-such-lab", "-w", "-"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("`no-such-lab` is not known here"),
        "{ran:?}"
    );

    // As many as may run, and no more; those whose readers are killed make room.
    let mut running: Vec<Capture> = (0..8)
        .map(|number| lab.capture(&format!("n{number}"), &[]))
        .collect();
    let ran = lab
        .peerlane
        .run(["capture", &lab.name, "-w", path.to_str().unwrap()]);
    assert!(ran.code == 1 && ran.stderr.contains("8 captures run"), "{ran:?}");
    for capture in &mut running {
        capture.child.kill().unwrap();
        capture.child.wait().unwrap();
        // What a killed reader left can be read.
        tshark(&capture.path, "", &["frame.number"]);
    }
    let again = wait_for(SOON, || {
        let ran = lab.peerlane.run([
            "capture",
            &lab.name,
            "-w",
            path.to_str().unwrap(),
            "--duration",
            "1",
        ]);
        ran.code == 0
    });
    assert!(again, "captures of killed readers go on");
}
