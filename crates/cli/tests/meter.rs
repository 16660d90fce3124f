//! `meter`: what it counts is what tcpdump sees, and only what crosses a peering.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Peerlane, User, unique, wait_for};

/// Sends 4 MB over TCP and 500 datagrams of 1 to 1400 bytes from `a` to an address, as one program.
const SEND: &str = "
import socket,sys
address=sys.argv[1]
with socket.create_connection((address,8000)) as s:
    for _ in range(4): s.sendall(bytes(1000000))
    s.shutdown(1); s.recv(1)
u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
for size in range(500): u.sendto(bytes(1+size*1399//499),(address,9000))
";
/// Its other end: takes what comes.
const TAKE: &str = "
import socket
s=socket.create_server(('0.0.0.0',8000))
u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.bind(('0.0.0.0',9000))
while True:
    c,_=s.accept()
    while c.recv(65536): pass
    c.sendall(b'.'); c.close()
";

fn lab(name: &str) -> String {
    format!(
        r#"
apiVersion: peerlane/v1
kind: Lab
name: {name}
profile: azure-2025
vnets:
  one: {{ location: westus, addressSpace: [10.0.0.0/16], subnets: {{ default: {{ addressPrefix: 10.0.0.0/24 }} }} }}
  two: {{ location: japaneast, addressSpace: [10.1.0.0/16], subnets: {{ default: {{ addressPrefix: 10.1.0.0/24 }} }} }}
peerings: [ one <-> two ]
vms:
  a: {{ subnet: one/default, privateIPAddress: 10.0.0.4 }}
  neighbour: {{ subnet: one/default, privateIPAddress: 10.0.0.5 }}
  b: {{ subnet: two/default, privateIPAddress: 10.1.0.4 }}
"#
    )
}

/// Packets and IP bytes of a capture without link-layer headers, by source address.
fn count(capture: &Path, source: [u8; 4]) -> (u64, u64) {
    let bytes = fs::read(capture).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(
        (word(0), word(20)),
        (0xa1b2_c3d4, 101),
        "a pcap of raw IP, little-endian"
    );
    let (mut at, mut packets, mut total) = (24, 0, 0);
    while at < bytes.len() {
        let (kept, length) = (word(at + 8) as usize, word(at + 12));
        let packet = &bytes[at + 16..at + 16 + kept];
        if packet[12..16] == source {
            packets += 1;
            total += u64::from(length);
        }
        at += 16 + kept;
    }
    (packets, total)
}

fn start_capture(peerlane: &Peerlane, name: &str, file: &Path) -> Child {
    let file = file.to_str().unwrap();
    // `exec` leaves Ctrl-C to the program, which a shell's kill can reach.
    let program = format!(
        "echo $$ >{file}.pid; exec tcpdump --immediate-mode -Z root -i eth0 -s 64 -B 32768 -U -w {file} ip host 10.1.0.4"
    );
    let command = ["exec", "--lab", name, "a", "--", "sh", "-c", &program];
    let child = peerlane.command(command).stderr(Stdio::piped()).spawn().unwrap();
    // It writes the file's header when it listens.
    let listens = || fs::metadata(file).is_ok_and(|meta| meta.len() >= 24);
    assert!(
        wait_for(Duration::from_secs(10), listens),
        "tcpdump does not start"
    );
    child
}

/// Ends tcpdump as Ctrl-C does, and fails if it missed a packet.
fn stop_capture(peerlane: &Peerlane, name: &str, file: &Path, child: Child) {
    let interrupt = format!("kill -INT $(cat {}.pid)", file.display());
    let ran = peerlane.exec(name, "a", &["sh", "-c", &interrupt]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("0 packets dropped by kernel"), "{said}");
}

/// Shows: PEER-37.
#[test]
fn it_counts_what_tcpdump_sees_cross_the_peering_and_nothing_else() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("meter");
    let file = peerlane.file(&name, &lab(&name));
    // Without segmentation offload, so that tcpdump in the VM sees packets as they cross.
    let ran = peerlane.run(["up", file.to_str().unwrap(), "--detach", "--io", "plain"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut servers = [peerlane.spawn(&name, "b", &["python3", "-c", TAKE])]
        .into_iter()
        .chain([peerlane.spawn(&name, "neighbour", &["python3", "-c", TAKE])])
        .collect::<Vec<_>>();
    for address in ["10.1.0.4", "10.0.0.5"] {
        let ready = || {
            let probe = format!("import socket;socket.create_connection(('{address}',8000),timeout=1)");
            peerlane.exec(&name, "a", &["python3", "-c", &probe]).code == 0
        };
        assert!(wait_for(Duration::from_secs(10), ready), "no server at {address}");
    }
    let meter = || {
        let rows = peerlane.run(["meter", &name, "-o", "json"]).json();
        ["one/one-to-two", "two/two-to-one"].map(|peering| {
            let row = rows
                .as_array()
                .unwrap()
                .iter()
                .find(|row| row["peering"] == peering);
            row.unwrap_or_else(|| panic!("{peering} is not in {rows:#}"))
                .clone()
        })
    };
    // The last acknowledgements of the connections above must not fall between the two counts.
    let settled = || {
        let before = meter();
        std::thread::sleep(Duration::from_millis(300));
        before == meter()
    };
    assert!(wait_for(Duration::from_secs(10), settled));
    let before = meter();
    let capture = peerlane.dir.join("crossing.pcap");
    let tcpdump = start_capture(&peerlane, &name, &capture);
    for address in ["10.1.0.4", "10.0.0.5"] {
        let ran = peerlane.exec(&name, "a", &["python3", "-c", SEND, address]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert!(wait_for(Duration::from_secs(10), settled));
    let after = meter();
    stop_capture(&peerlane, &name, &capture, tcpdump);
    for server in &mut servers {
        let _ = server.kill();
        let _ = server.wait();
    }
    let drops = peerlane.run(["drops", &name, "-o", "json"]).json();
    assert_eq!(drops, Value::Array(Vec::new()));

    let grown =
        |side: usize, key: &str| after[side][key].as_u64().unwrap() - before[side][key].as_u64().unwrap();
    let (out, back) = (count(&capture, [10, 0, 0, 4]), count(&capture, [10, 1, 0, 4]));
    assert!(out.1 > 4_364_000, "{out:?}");
    for (side, egress, ingress) in [(0, out, back), (1, back, out)] {
        assert_eq!((grown(side, "egressPackets"), grown(side, "egressBytes")), egress);
        assert_eq!(
            (grown(side, "ingressPackets"), grown(side, "ingressBytes")),
            ingress
        );
    }
    println!("tcpdump and meter: {out:?} out, {back:?} back (packets, bytes)");
    let schema = peerlane.run(["schema", "meter"]).json();
    jsonschema::validate(&schema, &Value::Array(after.to_vec())).unwrap();
    // West US is in zone 1, Japan East in zone 2.
    let usd = |side: usize| after[side]["usd"].as_f64().unwrap();
    let bytes =
        (after[0]["egressBytes"].as_u64().unwrap() + after[0]["ingressBytes"].as_u64().unwrap()) as f64;
    assert!((usd(0) - bytes * 0.035e-9).abs() < 1e-9, "{after:#?}");
    assert!((usd(1) - bytes * 0.09e-9).abs() < 1e-9, "{after:#?}");
}
