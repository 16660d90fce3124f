//! What gateways give a VNet, and what they do with packets: rows, announcements, time to live, MTU, loops.

use std::net::IpAddr;

use control::present::effective_routes;
use control::{Compiled, compile};
use engine::snapshot::PortId;
use engine::{DropReason, Verdict, Worker, WorkerOptions};
use etherparse::PacketBuilder;
use model::topology::{ConnectionIndex, GatewayIndex, LearnedRoute, NicIndex, PeeringState, VnetIndex};
use model::{Source, Topology};
use packet::{Burst, Packet, VnetHeader};

use crate::world::key_of;

/// A hub with a VPN gateway and a site, a spoke that uses it, and another VNet behind a second gateway.
const LAB: &str = "
apiVersion: peerlane/v1
kind: Lab
name: gateways
profile: azure-2018
vnets:
  hub: { addressSpace: [10.0.0.0/16], subnets: { vms: { addressPrefix: 10.0.0.0/24 }, GatewaySubnet: { addressPrefix: 10.0.255.0/27 } } }
  spoke: { addressSpace: [10.1.0.0/16], subnets: { vms: { addressPrefix: 10.1.0.0/24 } } }
  other: { addressSpace: [10.2.0.0/16], subnets: { vms: { addressPrefix: 10.2.0.0/24 }, GatewaySubnet: { addressPrefix: 10.2.255.0/27 } } }
peerings:
  - { name: hub-to-spoke, from: hub, to: spoke, allowGatewayTransit: true }
  - { name: spoke-to-hub, from: spoke, to: hub, useRemoteGateways: true }
gateways:
  hub-vpn: { vnet: hub, publicIPAddresses: [203.0.113.1] }
  other-vpn: { vnet: other, asn: 65002, publicIPAddresses: [203.0.113.2, 203.0.113.3] }
sites:
  dc1: { addressPrefixes: [192.168.10.0/24], asn: 65010 }
connections:
  hub-dc1: { gateway: hub-vpn, site: dc1 }
  hub-other: { gateway: hub-vpn, remoteGateway: other-vpn, connectionType: Vnet2Vnet }
vms:
  h1: { subnet: hub/vms, privateIPAddress: 10.0.0.4 }
  s1: { subnet: spoke/vms, privateIPAddress: 10.1.0.4 }
  o1: { subnet: other/vms, privateIPAddress: 10.2.0.4 }
";

const H1: NicIndex = NicIndex(0);
const S1: NicIndex = NicIndex(1);
const O1: NicIndex = NicIndex(2);
const HUB_VPN: GatewayIndex = GatewayIndex(0);
const OTHER_VPN: GatewayIndex = GatewayIndex(1);
const HUB_DC1: ConnectionIndex = ConnectionIndex(0);
const HUB_OTHER: ConnectionIndex = ConnectionIndex(1);

fn lab(text: &str) -> Topology {
    let loaded = model::load(Source::Text {
        name: "lab.vnet.yaml".to_owned(),
        text: text.to_owned(),
    });
    loaded.unwrap_or_else(|errors| panic!("{errors}")).topology
}

/// With BGP on both connections.
fn bgp() -> Topology {
    lab(&LAB
        .replace("site: dc1 }", "site: dc1, enableBgp: true }")
        .replace("Vnet2Vnet }", "Vnet2Vnet, enableBgp: true }"))
}

/// `prefix next-hop` of the rows that the gateway gives a NIC.
fn rows(topology: &Topology, nic: NicIndex) -> Vec<String> {
    let all = effective_routes(topology, nic).value.into_iter();
    let learned = all.filter(|row| row.source == "VirtualNetworkGateway" && row.state == "Active");
    learned
        .map(|row| {
            assert_eq!(row.next_hop_type, "VirtualNetworkGateway");
            format!(
                "{} {}",
                row.address_prefix.join(" "),
                row.next_hop_ip_address.join(" ")
            )
        })
        .collect()
}

fn prefixes(nets: Vec<ipnet::IpNet>) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

/// Shows: ROUTE-08.
#[test]
fn a_gateway_gives_rows_of_sites_and_vnets_with_its_public_or_both_private_addresses() {
    let topology = lab(LAB);
    let hub = ["192.168.10.0/24 203.0.113.1", "10.2.0.0/16 203.0.113.1"];
    assert_eq!(rows(&topology, H1), hub);
    // The spoke uses the hub's (GW-08).
    assert_eq!(rows(&topology, S1), hub);
    // Active-active: one row for each instance. Without BGP nobody tells of the spoke.
    assert_eq!(
        rows(&topology, O1),
        ["10.0.0.0/16 10.2.255.4", "10.0.0.0/16 10.2.255.5"]
    );
}

/// Shows: GW-07.
#[test]
fn a_gateway_serves_a_peer_when_both_sides_say_so_and_are_connected() {
    // The hub's peering, then the spoke's.
    let changes: [fn(&mut Topology); 5] = [
        |it| it.peerings[0].allow_gateway_transit = false,
        |it| it.peerings[1].use_remote_gateways = false,
        |it| it.peerings[1].state = PeeringState::Initiated,
        |it| it.peerings[1].state = PeeringState::Disconnected,
        |it| it.gateways[HUB_VPN.0].vnet = it.gateways[OTHER_VPN.0].vnet,
    ];
    let (hub, spoke) = (VnetIndex(0), VnetIndex(1));
    let uses = |topology: &Topology| {
        (
            topology.gateways_in_use(spoke).len(),
            topology.transit_users(hub).count(),
        )
    };
    assert_eq!(uses(&lab(LAB)), (1, 1));
    for (index, change) in changes.into_iter().enumerate() {
        let mut topology = lab(LAB);
        change(&mut topology);
        assert_eq!(uses(&topology), (0, 0), "change {index}");
    }
}

/// Shows: ROUTE-08, GW-08.
#[test]
fn over_bgp_rows_are_what_the_neighbours_announce_and_their_own_addresses() {
    let topology = bgp();
    let hub = [
        "192.168.10.1/32 203.0.113.1",
        "10.2.255.4/32 203.0.113.1",
        "10.2.255.5/32 203.0.113.1",
        "192.168.10.0/24 203.0.113.1",
        "10.2.0.0/16 203.0.113.1",
    ];
    assert_eq!(rows(&topology, S1), hub);
    let other = rows(&topology, O1);
    // The spoke's range and the site's come through the hub.
    for prefix in ["10.0.0.0/16", "10.1.0.0/16", "192.168.10.0/24", "10.0.255.4/32"] {
        let both = [format!("{prefix} 10.2.255.4"), format!("{prefix} 10.2.255.5")];
        assert!(both.iter().all(|row| other.contains(row)), "{prefix}: {other:?}");
    }
    assert_eq!(
        prefixes(topology.advertised(HUB_VPN, HUB_DC1)),
        [
            "10.0.0.0/16",
            "10.1.0.0/16",
            "10.2.255.4/32",
            "10.2.255.5/32",
            "10.2.0.0/16"
        ]
    );
    let mut alone = topology;
    alone.peerings[0].allow_gateway_transit = false;
    assert!(rows(&alone, S1).is_empty(), "GW-07");
    assert!(!prefixes(alone.advertised(HUB_VPN, HUB_DC1)).contains(&"10.1.0.0/16".to_owned()));
}

/// What a speaker has reported stands in place of what should be; fewer ASNs win, and what is configured wins over all.
/// Shows: ROUTE-08.
#[test]
fn reported_routes_replace_expected_ones() {
    let mut topology = bgp();
    let learned = |connection, prefix: &str, as_path: &[u32]| LearnedRoute {
        gateway: HUB_VPN,
        connection,
        prefix: prefix.parse().unwrap(),
        as_path: as_path.to_vec(),
    };
    topology.learned_routes = Some(vec![
        learned(HUB_OTHER, "172.16.0.0/16", &[65002, 65010]),
        learned(HUB_DC1, "172.16.0.0/16", &[65010]),
        learned(HUB_DC1, "10.1.7.0/24", &[65010]),
    ]);
    let shown = rows(&topology, H1);
    assert!(
        shown.contains(&"172.16.0.0/16 203.0.113.1".to_owned()),
        "{shown:?}"
    );
    assert!(
        !shown.iter().any(|row| row.starts_with("192.168.10.0/24")),
        "{shown:?}"
    );
    let best = topology.behind(HUB_VPN);
    let found = best.iter().find(|it| it.prefix.to_string() == "172.16.0.0/16");
    assert_eq!(found.map(|it| it.connection), Some(HUB_DC1));
}

/// A packet through the worker: who gets it with which time to live, or why nobody does; and what the sender is told.
struct Wire<'a> {
    compiled: &'a Compiled,
    worker: Worker,
    /// The packet as it was written last.
    arrived: Option<Vec<u8>>,
}

/// The port it is written to and its TTL there.
type Fate = Result<(PortId, u8), DropReason>;

impl<'a> Wire<'a> {
    fn new(compiled: &'a Compiled) -> Self {
        Self {
            compiled,
            worker: Worker::new(WorkerOptions::default(), 1),
            arrived: None,
        }
    }

    fn send(&mut self, from: NicIndex, bytes: &[u8]) -> (Fate, Option<Vec<u8>>) {
        self.send_at(self.compiled.snapshot.nics[from.0].port, bytes)
    }

    fn send_at(&mut self, port: PortId, bytes: &[u8]) -> (Fate, Option<Vec<u8>>) {
        let mut burst = Burst::new(1);
        assert!(burst.push(bytes, VnetHeader::default()));
        let mut verdicts = Vec::new();
        let snapshot = &self.compiled.snapshot;
        self.worker.process(snapshot, 1, port, &mut burst, &mut verdicts);
        let told = self
            .worker
            .replies_mut()
            .filled()
            .first()
            .map(|told| told.bytes().to_vec());
        let outcome = match verdicts[0] {
            Verdict::Forward { port, .. } => {
                let arrived = burst.filled()[0].bytes().to_vec();
                let ttl = arrived[8];
                self.arrived = Some(arrived);
                Ok((port, ttl))
            }
            Verdict::UnderWay => panic!("no peering of this lab has a distance"),
            Verdict::Drop(reason) => Err(reason),
        };
        (outcome, told)
    }
}

fn ping(from: &str, to: &str, ttl: u8, payload: usize) -> Vec<u8> {
    let octets = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => panic!("{text}"),
    };
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(octets(from), octets(to), ttl)
        .icmpv4_echo_request(1, 1)
        .write(&mut bytes, &vec![7; payload])
        .unwrap();
    bytes
}

/// Shows: GW-13, NET-08.
#[test]
fn each_gateway_takes_one_from_the_time_to_live_and_a_peering_none() {
    let topology = lab(LAB);
    let compiled = compile(&topology, 1);
    let mut wire = Wire::new(&compiled);
    let port = |nic: NicIndex| compiled.snapshot.nics[nic.0].port;
    let site = compiled.snapshot.connections[HUB_DC1.0].port.unwrap();
    let cases = [
        (H1, "10.0.0.4", "10.1.0.4", port(S1), 64),
        (H1, "10.0.0.4", "192.168.10.9", site, 63),
        (S1, "10.1.0.4", "192.168.10.9", site, 63),
        (H1, "10.0.0.4", "10.2.0.4", port(O1), 62),
    ];
    for (from, source, destination, to, ttl) in cases {
        let sent = ping(source, destination, 64, 8);
        let (outcome, told) = wire.send(from, &sent);
        assert_eq!((outcome, told), (Ok((to, ttl)), None), "{source} {destination}");
        let arrived = wire.arrived.take().unwrap();
        // Nobody translates, and the header's checksum holds.
        assert_eq!(key_of(&arrived), key_of(&sent));
        assert_eq!(
            packet::checksum::finish(packet::checksum::sum(&arrived[..20], 0)),
            0
        );
    }
}

/// Shows: VNET-08.
#[test]
fn no_site_speaks_as_the_platform_and_no_gateway_reaches_it() {
    let topology = bgp();
    let compiled = compile(&topology, 1);
    let mut wire = Wire::new(&compiled);
    let site = compiled.snapshot.connections[HUB_DC1.0].port.unwrap();
    let to = compiled.snapshot.nics[H1.0].port;
    let (outcome, _) = wire.send_at(site, &ping("192.168.10.9", "10.0.0.4", 64, 8));
    assert_eq!(outcome, Ok((to, 63)));
    for platform in ["168.63.129.16", "169.254.169.254"] {
        let (outcome, _) = wire.send_at(site, &ping(platform, "10.0.0.4", 64, 8));
        assert_eq!(outcome, Err(DropReason::PlatformReserved), "{platform}");
    }
    let speaker = compiled.snapshot.gateways[HUB_VPN.0].port.unwrap();
    let (outcome, _) = wire.send_at(speaker, &ping("10.0.255.4", "169.254.169.254", 64, 8));
    assert_eq!(outcome, Err(DropReason::PlatformReserved));
}

/// Shows: GW-13, NET-09.
#[test]
fn the_gateway_at_which_the_time_to_live_ends_says_so() {
    let topology = lab(LAB);
    let compiled = compile(&topology, 1);
    let mut wire = Wire::new(&compiled);
    for (ttl, teller) in [(1, [10, 0, 255, 4]), (2, [10, 2, 255, 4])] {
        let (outcome, told) = wire.send(H1, &ping("10.0.0.4", "10.2.0.4", ttl, 8));
        assert_eq!(outcome, Err(DropReason::TtlExpired));
        let told = told.unwrap();
        assert_eq!(told[12..16], teller, "ttl {ttl}");
        assert_eq!(told[16..20], [10, 0, 0, 4]);
        assert_eq!((told[20], told[21]), (11, 0));
        assert!(Packet::from_bytes(&told).parse().is_ok());
    }
    let (outcome, _) = wire.send(H1, &ping("10.0.0.4", "10.2.0.4", 3, 8));
    assert_eq!(outcome.map(|(_, ttl)| ttl), Ok(1));
}

/// Shows: NET-03.
#[test]
fn a_vpn_connection_takes_1400_bytes_and_a_circuit_1500() {
    let circuit = LAB
        .replace(
            "vnet: hub, public",
            "vnet: hub, gatewayType: ExpressRoute, public",
        )
        .replace(
            "site: dc1 }",
            "site: dc1, circuit: metro, connectionType: ExpressRoute }",
        )
        .replace(
            "  hub-other: { gateway: hub-vpn, remoteGateway: other-vpn, connectionType: Vnet2Vnet }\n",
            "",
        );
    for (text, mtu) in [(LAB, 1400_usize), (circuit.as_str(), 1500)] {
        let topology = lab(text);
        let compiled = compile(&topology, 1);
        let mut wire = Wire::new(&compiled);
        let of_length = |length: usize| {
            let mut bytes = ping("10.0.0.4", "192.168.10.9", 64, length - 28);
            bytes[6] |= 0x40;
            let checksum = packet::checksum::finish(packet::checksum::sum(
                &[&bytes[..10], &[0, 0], &bytes[12..20]].concat(),
                0,
            ));
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            bytes
        };
        let (outcome, told) = wire.send(H1, &of_length(mtu));
        assert!(outcome.is_ok() && told.is_none(), "{mtu}: {outcome:?}");
        let (outcome, told) = wire.send(H1, &of_length(mtu + 1));
        assert_eq!(outcome, Err(DropReason::TooBig), "{mtu}");
        let told = told.unwrap();
        assert_eq!((told[20], told[21]), (3, 4));
        assert_eq!(usize::from(u16::from_be_bytes([told[26], told[27]])), mtu);
    }
}

/// Two gateways that each learned a prefix from the other.
#[test]
fn routes_in_a_circle_end() {
    let mut topology = bgp();
    let learned = |gateway| LearnedRoute {
        gateway,
        connection: HUB_OTHER,
        prefix: "172.16.0.0/16".parse().unwrap(),
        as_path: vec![1],
    };
    topology.learned_routes = Some(vec![learned(HUB_VPN), learned(OTHER_VPN)]);
    let compiled = compile(&topology, 1);
    let (outcome, _) = Wire::new(&compiled).send(H1, &ping("10.0.0.4", "172.16.0.1", 255, 8));
    assert_eq!(outcome, Err(DropReason::TtlExpired));
}

/// A learned default route takes what the Internet would have, but no VNet or peer, however specific what is learned.
/// Shows: ROUTE-21, ROUTE-22, GW-05.
#[test]
fn learned_routes_beat_the_internet_and_never_a_peering() {
    let mut topology = bgp();
    let learned = |prefix: &str| LearnedRoute {
        gateway: HUB_VPN,
        connection: HUB_DC1,
        prefix: prefix.parse().unwrap(),
        as_path: vec![65010],
    };
    topology.learned_routes = Some(vec![
        learned("0.0.0.0/0"),
        learned("10.1.0.4/32"),
        learned("10.1.0.0/16"),
    ]);
    let compiled = compile(&topology, 1);
    let mut wire = Wire::new(&compiled);
    let site = compiled.snapshot.connections[HUB_DC1.0].port.unwrap();
    let spoke = compiled.snapshot.nics[S1.0].port;
    assert_eq!(
        wire.send(H1, &ping("10.0.0.4", "8.8.8.8", 64, 8)).0,
        Ok((site, 63))
    );
    assert_eq!(
        wire.send(H1, &ping("10.0.0.4", "10.1.0.4", 64, 8)).0,
        Ok((spoke, 64))
    );
}

/// Shows: PEER-37.
#[test]
fn a_peering_does_not_count_what_a_gateway_takes_to_a_site() {
    let topology = lab(LAB);
    let compiled = compile(&topology, 1);
    let mut wire = Wire::new(&compiled);
    let counted = |wire: &Wire<'_>| -> u64 { wire.worker.stats().peerings.iter().map(|it| it.packets).sum() };
    assert!(wire.send(S1, &ping("10.1.0.4", "192.168.10.9", 64, 8)).0.is_ok());
    assert_eq!(counted(&wire), 0);
    assert!(wire.send(S1, &ping("10.1.0.4", "10.0.0.4", 64, 8)).0.is_ok());
    assert_eq!(counted(&wire), 1);
}
