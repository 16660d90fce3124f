//! Labs on a clock of their own: what is sent, what becomes of it and when, without anything running.

use std::fs;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, TsResolution};
use serde_json::Value;

use crate::support::{Peerlane, Ran, User};

/// a and b far apart, b and c in one VNet; c takes nothing.
const LAB: &str = "
apiVersion: peerlane/v1
kind: Lab
name: replayed
profile: azure-2025
vnets:
  one: { location: eastus, addressSpace: [10.0.0.0/16], subnets: { default: { addressPrefix: 10.0.0.0/24 } } }
  two: { location: centralus, addressSpace: [10.1.0.0/16], subnets: { default: { addressPrefix: 10.1.0.0/24 } } }
peerings: [ one <-> two ]
networkSecurityGroups:
  closed:
    securityRules:
      deny-all: { priority: 100, direction: Inbound, access: Deny, protocol: '*', sourceAddressPrefix: '*', sourcePortRange: '*',
                  destinationAddressPrefix: '*', destinationPortRange: '*' }
vms:
  a: { subnet: one/default, privateIPAddress: 10.0.0.4 }
  b: { subnet: two/default, privateIPAddress: 10.1.0.4 }
  c: { subnet: two/default, privateIPAddress: 10.1.0.5, networkSecurityGroup: closed }
";

struct Replays {
    peerlane: Peerlane,
    lab: String,
}

impl Replays {
    fn new(more: &str) -> Self {
        let peerlane = Peerlane::new(User::Caller);
        let lab = peerlane.file("replayed", &format!("{LAB}{more}"));
        let lab = lab.to_str().unwrap().to_owned();
        Self { peerlane, lab }
    }

    fn run(&self, words: &[&str]) -> Ran {
        let all = ["replay", "-o", "json"].into_iter().chain(words.iter().copied());
        self.peerlane.run(all.chain([self.lab.as_str()]))
    }

    fn replay(&self, words: &[&str]) -> Value {
        let ran = self.run(words);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.json()
    }

    fn path(&self, name: &str) -> String {
        self.peerlane.dir.join(name).to_str().unwrap().to_owned()
    }
}

const GENERATE: [&str; 8] = ["--generate", "1k", "--from", "a", "--to", "b", "--for", "1s"];

fn received(result: &Value, nic: &str) -> u64 {
    let nics = result["nics"].as_array().unwrap().iter();
    let mut found = nics.filter(|row| row["nic"] == nic);
    found.next().unwrap()["receivedPackets"].as_u64().unwrap()
}

fn dropped(result: &Value, reason: &str) -> u64 {
    let drops = result["drops"].as_array().unwrap().iter();
    let drops = drops.filter(|row| row["reason"] == reason);
    drops.map(|row| row["packets"].as_u64().unwrap()).sum()
}

/// Of every packet: the interface, whether it was received there, its time, its comment.
fn packets(path: &str) -> Vec<(String, bool, Duration, String)> {
    let bytes = fs::read(path).unwrap();
    let mut reader = PcapNgReader::new(bytes.as_slice()).unwrap();
    let mut all = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.unwrap().into_owned() else {
            continue;
        };
        let mut comment = String::new();
        let mut received = false;
        for option in &packet.options {
            match option {
                EnhancedPacketOption::Comment(text) => comment = text.to_string(),
                EnhancedPacketOption::Flags(flags) => received = flags & 3 == 1,
                _ => {}
            }
        }
        let interface = format!("{:?}", reader.packet_interface(&packet).unwrap().options);
        all.push((interface, received, packet.timestamp, comment));
    }
    all
}

#[test]
fn the_same_input_gives_the_same_bytes_and_exact_times() {
    let replays = Replays::new("");
    let [first, second] = ["first.pcapng", "second.pcapng"].map(|name| replays.path(name));
    let one = replays.replay(&[&GENERATE[..], &["--seed", "7", "-w", &first]].concat());
    let two = replays.replay(&[&GENERATE[..], &["--seed", "7", "-w", &second]].concat());
    assert_eq!(one, two);
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
    assert_eq!(
        (one["seed"].as_u64(), one["packets"].as_u64()),
        (Some(7), Some(1000))
    );
    assert_eq!((received(&one, "b-nic"), dropped(&one, "NsgInbound")), (1000, 0));
    // To the nanosecond: each packet arrives after what `peerings` says.
    let peerings = replays
        .peerlane
        .run(["peerings", &replays.lab, "-o", "json"])
        .json();
    let latency = Duration::from_micros(peerings[0]["latency_us"].as_u64().unwrap());
    assert!(latency > Duration::from_millis(5), "{peerings}");
    let all = packets(&first);
    let times = |name: &str, arrived: bool| -> Vec<Duration> {
        let of = all
            .iter()
            .filter(|(interface, received, ..)| interface.contains(name) && *received == arrived);
        of.map(|(_, _, at, _)| *at).collect()
    };
    let (sent, arrived) = (times("\"a-nic\"", false), times("\"b-nic\"", true));
    assert_eq!((sent.len(), arrived.len()), (1000, 1000));
    for (number, (sent, arrived)) in (0..).zip(sent.iter().zip(&arrived)) {
        assert_eq!(*sent, Duration::from_millis(number));
        assert_eq!(*arrived, *sent + latency);
    }
    // What a capture says was sent is sent again; what was received, or passed a link, is not sent twice.
    let again = replays.replay(&[&first]);
    assert_eq!(again["packets"], one["packets"]);
    assert_eq!((&again["nics"], &again["links"]), (&one["nics"], &one["links"]));
}

#[test]
fn events_happen_on_the_clock_of_a_replay() {
    let replays = Replays::new(
        "events:
  - { at: 500ms, stop: { vm: b } }
  - { at: 750ms, start: { vm: b } }
  - { at: 900ms, delete: { peering: one/one-to-two } }
  - { at: 9s, stop: { vm: a } }
",
    );
    let result = replays.replay(&GENERATE);
    // At 0 to 499 ms, and at 750 to 899 ms; what was under way when b stopped arrives where it was.
    assert_eq!(result["packets"].as_u64(), Some(1000));
    assert_eq!(received(&result, "b-nic"), 650, "{result}");
    assert_eq!(dropped(&result, "NoDestination"), 250, "{result}");
    assert_eq!(dropped(&result, "RouteNone"), 100, "{result}");
    let states = result["events"].as_array().unwrap().iter();
    let states: Vec<&str> = states.map(|event| event["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["Done", "Done", "Done", "Pending"]);
}

fn udp(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    let sum: u32 = packet
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]))
        .sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0xc3, 0x50, 0, 9, 0, 12, 0, 0, 1, 2, 3, 4]);
    packet
}

#[test]
fn recorded_packets_are_sent_by_whoever_has_their_source() {
    let replays = Replays::new("");
    let path = replays.path("traffic.pcap");
    let header = PcapHeader {
        datalink: DataLink::ETHERNET,
        ts_resolution: TsResolution::NanoSecond,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(fs::File::create(&path).unwrap(), header).unwrap();
    let (a, b, c, stranger) = ([10, 0, 0, 4], [10, 1, 0, 4], [10, 1, 0, 5], [192, 0, 2, 1]);
    let ends = [(a, b), (b, a), (a, c), (stranger, b), (b, c)];
    for (number, (from, to)) in (0..).zip(ends) {
        let mut frame = vec![2; 12];
        // One in a VLAN; Ethernet pads all of them.
        frame.extend(if number == 0 {
            &[0x81, 0, 0, 5, 8, 0][..]
        } else {
            &[8, 0][..]
        });
        frame.extend(udp(from, to));
        frame.resize(60, 0);
        let at = Duration::from_secs(1_700_000_000) + Duration::from_millis(number);
        let length = u32::try_from(frame.len()).unwrap();
        writer.write_packet(&PcapPacket::new(at, length, &frame)).unwrap();
    }
    // No IP.
    let arp = [[2; 12].as_slice(), &[8, 6], &[0; 46]].concat();
    let at = Duration::from_secs(1_700_000_001);
    writer.write_packet(&PcapPacket::new(at, 60, &arp)).unwrap();
    drop(writer);
    let result = replays.replay(&[&path]);
    assert_eq!(result["packets"].as_u64(), Some(4), "{result}");
    assert_eq!(result["skipped"][0]["packets"].as_u64(), Some(1), "{result}");
    assert_eq!((received(&result, "a-nic"), received(&result, "b-nic")), (1, 1));
    assert_eq!(dropped(&result, "NsgInbound"), 2, "{result}");
    // Who it is said to be sends it, and does not get away with it.
    let result = replays.replay(&[&path, "--vm", "a"]);
    assert_eq!(result["packets"].as_u64(), Some(5), "{result}");
    assert_eq!(dropped(&result, "SpoofedSource"), 1, "{result}");
    assert_eq!(replays.run(&[&path, "--vm", "nobody"]).code, 3);
    // A file that ends too early, and one that is none.
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 70]).unwrap();
    assert!(replays.run(&[&path]).stderr.contains("no whole pcap"));
    fs::write(&path, "nothing of the kind").unwrap();
    assert!(replays.run(&[&path]).stderr.contains("no whole pcap"));
    assert_eq!(replays.run(&[]).code, 2);
}

#[test]
fn chance_on_links_follows_from_the_seed_alone() {
    let replays =
        Replays::new("links: { one/one-to-two: { loss: 10%, duplicate: 1%, jitter: { deviation: 1ms } } }\n");
    let outputs = [("7", "a.pcapng"), ("7", "b.pcapng"), ("8", "c.pcapng")].map(|(seed, name)| {
        let path = replays.path(name);
        let result = replays.replay(&[&GENERATE[..], &["--seed", seed, "-w", &path]].concat());
        (result, fs::read(path).unwrap())
    });
    let [(one, first), (two, second), (three, third)] = outputs;
    assert_eq!(one, two);
    assert!(first == second && first != third);
    for result in [one, three] {
        let lost = dropped(&result, "LinkLoss");
        let duplicated = result["links"][0]["duplicated"].as_u64().unwrap();
        assert!((60..140).contains(&lost), "{result}");
        assert_eq!(received(&result, "b-nic"), 1000 - lost + duplicated, "{result}");
    }
}
