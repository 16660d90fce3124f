//! A small hand-built fabric, packets for it, and a clock that only tests move.

use std::net::IpAddr;

use engine::fib::{Fib, NextHop, Route};
use engine::filter::{Access, Filter, Rule};
use engine::snapshot::{
    FibId, FilterId, Internet, Link, LinkId, Nic, NicId, Peering, PeeringId, Port, PortId, Vnet, VnetId,
};
use engine::{DropReason, Snapshot, Verdict, Worker, WorkerOptions};
use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep};
use packet::key::mapped;
use packet::{Burst, Prefix, Protocol, VnetHeader};

/// NICs, each with a VM port of the same number, in VNets A (10.1/16), HUB (10.0/16) and B (10.2/16).
pub(crate) const WEB: NicId = NicId(0);
pub(crate) const DB: NicId = NicId(1);
pub(crate) const NVA: NicId = NicId(2);
pub(crate) const OTHER: NicId = NicId(3);
/// Two NICs of A behind [`VNET_PORT`].
pub(crate) const P1: NicId = NicId(4);
pub(crate) const P2: NicId = NicId(5);
pub(crate) const VNET_PORT: PortId = PortId(4);
pub(crate) const INTERNET: PortId = PortId(5);

pub(crate) const A_TO_HUB: PeeringId = PeeringId(0);
pub(crate) const HUB_TO_A: PeeringId = PeeringId(1);
pub(crate) const B_TO_HUB: PeeringId = PeeringId(2);
pub(crate) const HUB_TO_B: PeeringId = PeeringId(3);

pub(crate) const WEB_IP: &str = "10.1.0.4";
pub(crate) const DB_IP: &str = "10.2.0.4";
pub(crate) const NVA_IP: &str = "10.0.1.4";
pub(crate) const OTHER_IP: &str = "10.1.0.5";
pub(crate) const P1_IP: &str = "10.1.1.4";
pub(crate) const P2_IP: &str = "10.1.1.5";
pub(crate) const WEB_PUBLIC: &str = "203.0.113.10";
pub(crate) const OTHER_PUBLIC: &str = "203.0.113.11";
pub(crate) const CLIENT: &str = "198.51.100.7";

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// A worker, the snapshot it forwards by, and its time.
pub(crate) struct Lab {
    pub(crate) snapshot: Snapshot,
    pub(crate) worker: Worker,
    pub(crate) now_ns: u64,
    burst: Burst,
}

impl Lab {
    /// Hub and spokes, both spokes sending to each other through NVA; nothing is filtered.
    pub(crate) fn new() -> Self {
        Self::with(WorkerOptions {
            flow_capacity: 4096,
            ..WorkerOptions::default()
        })
    }

    pub(crate) fn with(options: WorkerOptions) -> Self {
        Self {
            snapshot: fabric(),
            worker: Worker::new(options, 7),
            now_ns: SECOND,
            burst: Burst::new(8),
        }
    }

    pub(crate) fn send(&mut self, port: impl Into<From>, bytes: &[u8]) -> Verdict {
        self.send_all(port, &[bytes])[0]
    }

    pub(crate) fn send_all(&mut self, port: impl Into<From>, packets: &[&[u8]]) -> Vec<Verdict> {
        self.burst.clear();
        packets
            .iter()
            .for_each(|bytes| assert!(self.burst.push(bytes, VnetHeader::default())));
        let mut verdicts = Vec::new();
        let From(port) = port.into();
        self.worker
            .process(&self.snapshot, self.now_ns, port, &mut self.burst, &mut verdicts);
        verdicts
    }

    /// The bytes of packet `index` of the burst sent last, as they leave.
    pub(crate) fn left(&self, index: usize) -> &[u8] {
        self.burst.filled()[index].bytes()
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND;
    }

    /// The link of a peering.
    pub(crate) fn link(&mut self, peering: PeeringId) -> &mut Link {
        let peerings = (0..).zip(&mut self.snapshot.peerings);
        peerings.for_each(|(at, peering)| peering.link = LinkId(at));
        self.snapshot
            .links
            .resize(self.snapshot.peerings.len(), Link::default());
        &mut self.snapshot.links[peering.index()]
    }

    pub(crate) fn nic(&mut self, nic: NicId) -> &mut Nic {
        &mut self.snapshot.nics[nic.index()]
    }

    /// Adds a route to a NIC's table.
    pub(crate) fn route(&mut self, nic: NicId, to: &str, next_hop: NextHop) {
        let fib = &mut self.snapshot.fibs[self.snapshot.nics[nic.index()].fib.index()];
        let mut routes = fib.routes().to_vec();
        routes.retain(|route| route.prefix != prefix(to));
        routes.push(Route {
            prefix: prefix(to),
            next_hop,
        });
        *fib = Fib::compile(routes);
    }

    pub(crate) fn filter(&mut self, rules: Vec<Rule>) -> Option<FilterId> {
        self.snapshot.filters.push(Filter::compile(rules));
        Some(FilterId(u32::try_from(self.snapshot.filters.len() - 1).unwrap()))
    }

    pub(crate) fn deny_inbound(&mut self, nic: NicId) {
        self.nic(nic).inbound[0] = self.filter(vec![]);
    }

    pub(crate) fn deny_outbound(&mut self, nic: NicId) {
        self.nic(nic).outbound[0] = self.filter(vec![]);
    }

    /// A new generation of everything.
    pub(crate) fn publish(&mut self) {
        self.snapshot.generation += 1;
        let generation = self.snapshot.generation;
        self.snapshot
            .vnets
            .iter_mut()
            .for_each(|vnet| vnet.generation = generation);
    }

    /// Sends, expects `reason`, and expects that it was counted once, at `nic`, and kept with its key.
    pub(crate) fn refused(
        &mut self,
        port: impl Into<From>,
        bytes: &[u8],
        reason: DropReason,
        nic: Option<NicId>,
    ) {
        let before = self.count(reason, nic);
        assert_eq!(self.send(port, bytes), Verdict::Drop(reason));
        let (packets, count) = self.count(reason, nic);
        assert_eq!(
            (packets, count),
            (before.0 + 1, before.1 + bytes.len() as u64),
            "{reason:?} at {nic:?}"
        );
    }

    pub(crate) fn count(&self, reason: DropReason, nic: Option<NicId>) -> (u64, u64) {
        let stats = self.worker.stats();
        let found = stats
            .drops
            .iter()
            .find(|count| count.reason == reason && count.nic == nic);
        found.map_or((0, 0), |count| (count.packets, count.bytes))
    }
}

/// A NIC means its port.
pub(crate) struct From(PortId);

impl std::convert::From<NicId> for From {
    fn from(nic: NicId) -> Self {
        Self(if nic == P1 || nic == P2 {
            VNET_PORT
        } else {
            PortId(nic.0)
        })
    }
}

impl std::convert::From<PortId> for From {
    fn from(port: PortId) -> Self {
        Self(port)
    }
}

pub(crate) fn to(nic: NicId) -> Verdict {
    Verdict::Forward {
        port: From::from(nic).0,
        nic: Some(nic),
        fragment: None,
    }
}

fn fabric() -> Snapshot {
    let nic = |vnet: u32, id: u32, address: &str| Nic {
        vnet: VnetId(vnet),
        port: From::from(NicId(id)).0,
        fib: FibId(vnet),
        addresses: vec![ip(address), ip(&v6(address))],
        routers: vec![ip(&router(address)), ip(&v6(&router(address)))],
        ip_forwarding: NicId(id) == NVA,
        admin_outbound: None,
        admin_inbound: None,
        outbound: [None; 2],
        inbound: [None; 2],
        public: vec![],
        egress_cap: None,
    };
    let mut nics = vec![
        nic(0, 0, WEB_IP),
        nic(2, 1, DB_IP),
        nic(1, 2, NVA_IP),
        nic(0, 3, OTHER_IP),
        nic(0, 4, P1_IP),
        nic(0, 5, P2_IP),
    ];
    nics[WEB.index()].public = vec![ip(WEB_PUBLIC), ip(&v6(WEB_PUBLIC))];
    nics[OTHER.index()].public = vec![ip(OTHER_PUBLIC)];
    let mut public_addresses: Vec<_> = (0..)
        .zip(&nics)
        .flat_map(|(id, nic)| nic.public.iter().map(move |&address| (address, NicId(id))))
        .collect();
    public_addresses.sort_unstable();
    Snapshot {
        generation: 1,
        vnets: (0..3).map(|vnet| fabric_vnet(VnetId(vnet), &nics)).collect(),
        ports: vec![
            Port::Nic(WEB),
            Port::Nic(DB),
            Port::Nic(NVA),
            Port::Nic(OTHER),
            Port::Vnet(VnetId(0)),
            Port::Internet,
        ],
        peerings: vec![
            peering(0, 1, HUB_TO_A),
            peering(1, 0, A_TO_HUB),
            peering(2, 1, HUB_TO_B),
            peering(1, 2, B_TO_HUB),
        ],
        gateways: Vec::new(),
        connections: Vec::new(),
        fibs: vec![
            fib(&[
                ("10.1.0.0/16", NextHop::VnetLocal),
                ("10.0.0.0/16", NextHop::Peering(A_TO_HUB)),
                ("10.2.0.0/16", NextHop::Appliance(Some((NVA, Some(A_TO_HUB))))),
            ]),
            fib(&[
                ("10.0.0.0/16", NextHop::VnetLocal),
                ("10.1.0.0/16", NextHop::Peering(HUB_TO_A)),
                ("10.2.0.0/16", NextHop::Peering(HUB_TO_B)),
            ]),
            fib(&[
                ("10.2.0.0/16", NextHop::VnetLocal),
                ("10.0.0.0/16", NextHop::Peering(B_TO_HUB)),
                ("10.1.0.0/16", NextHop::Appliance(Some((NVA, Some(B_TO_HUB))))),
            ]),
        ],
        nics,
        fabric_mtu: None,
        log_rules: vec![],
        flows_per_nic: 500_000,
        carries_ipsec: true,
        filters: vec![],
        public_addresses,
        internet: Some(Internet {
            port: INTERNET,
            addresses: sorted(vec![ip(CLIENT), ip(&v6(CLIENT))]),
            endpoint_clients: vec![],
        }),
        ..Snapshot::default()
    }
}

/// Base + 1 of the /24 of an address.
pub(crate) fn router(address: &str) -> String {
    let (subnet, _) = address.rsplit_once('.').unwrap();
    format!("{subnet}.1")
}

fn fabric_vnet(id: VnetId, nics: &[Nic]) -> Vnet {
    let range = ["10.1.0.0/16", "10.0.0.0/16", "10.2.0.0/16"][id.index()];
    let addresses = (0..).zip(nics).filter(|(_, nic)| nic.vnet == id);
    let addresses =
        addresses.flat_map(|(at, nic)| nic.addresses.iter().map(move |&address| (address, NicId(at))));
    Vnet {
        generation: 1,
        ranges: vec![prefix(range), prefix(&v6(range))],
        tcp_idle_minutes: 4,
        addresses: sorted(addresses.collect()),
        gateways: Vec::new(),
    }
}

fn peering(local: u32, remote: u32, reverse: PeeringId) -> Peering {
    Peering {
        local: VnetId(local),
        remote: VnetId(remote),
        reverse: Some(reverse),
        access: true,
        forwarded_accepted: true,
        transit: false,
        // That of its place in the list.
        link: LinkId(u32::MAX),
    }
}

/// The table for both families, with the Internet as its default route.
fn fib(routes: &[(&str, NextHop)]) -> Fib {
    let mut all = vec![Route {
        prefix: prefix("0.0.0.0/0"),
        next_hop: NextHop::Internet,
    }];
    all.push(Route {
        prefix: prefix("::/0"),
        next_hop: NextHop::Internet,
    });
    for &(to, next_hop) in routes {
        all.push(Route {
            prefix: prefix(to),
            next_hop,
        });
        all.push(Route {
            prefix: prefix(&v6(to)),
            next_hop,
        });
    }
    Fib::compile(all)
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list
}

/// The IPv6 counterpart of an IPv4 address or prefix: 64 fixed bits, then the IPv4 one.
pub(crate) fn v6(v4: &str) -> String {
    let (address, length) = v4
        .split_once('/')
        .map_or((v4, None), |(address, length)| (address, Some(length)));
    let o: Vec<u8> = address.split('.').map(|octet| octet.parse().unwrap()).collect();
    let address = format!(
        "fd00::{:x}:{:x}",
        u16::from_be_bytes([o[0], o[1]]),
        u16::from_be_bytes([o[2], o[3]])
    );
    length.map_or(address.clone(), |length| {
        format!("{address}/{}", 96 + length.parse::<u8>().unwrap())
    })
}

pub(crate) fn ip(address: &str) -> u128 {
    mapped(address.parse().unwrap())
}

pub(crate) fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix::new(address.parse().unwrap(), length.parse().unwrap())
}

/// A rule for any address.
pub(crate) fn rule(access: Access, protocol: Option<Protocol>, destination_port: Option<u16>) -> Rule {
    Rule {
        access,
        protocol,
        sources: vec![prefix("::/0")],
        destinations: vec![prefix("::/0")],
        source_ports: vec![0..=u16::MAX],
        destination_ports: vec![destination_port.map_or(0..=u16::MAX, |port| port..=port)],
    }
}

fn ip_header(source: &str, destination: &str) -> PacketBuilderStep<etherparse::IpHeaders> {
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header =
                etherparse::Ipv4Header::new(0, 64, IpNumber(0), source.octets(), destination.octets());
            PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header.unwrap(), Default::default()))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = etherparse::Ipv6Header {
                source: source.octets(),
                destination: destination.octets(),
                hop_limit: 64,
                ..Default::default()
            };
            PacketBuilder::ip(etherparse::IpHeaders::Ipv6(header, Default::default()))
        }
        _ => panic!("families differ"),
    }
}

pub(crate) fn udp(source: &str, destination: &str, ports: (u16, u16)) -> Vec<u8> {
    udp_with(source, destination, ports, b"payload")
}

pub(crate) fn udp_with(source: &str, destination: &str, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip_header(source, destination)
        .udp(ports.0, ports.1)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

pub(crate) fn tcp(source: &str, destination: &str, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut header = etherparse::TcpHeader::new(ports.0, ports.1, 1, 1000);
    header.fin = flags & FIN != 0;
    header.syn = flags & SYN != 0;
    header.rst = flags & RST != 0;
    header.ack = flags & ACK != 0;
    let mut bytes = Vec::new();
    ip_header(source, destination)
        .tcp_header(header)
        .write(&mut bytes, b"")
        .unwrap();
    bytes
}

pub(crate) fn ping(source: &str, destination: &str, id: u16, reply: bool) -> Vec<u8> {
    let echo = etherparse::IcmpEchoHeader { id, seq: 1 };
    let step = ip_header(source, destination);
    let mut bytes = Vec::new();
    match (source.contains(':'), reply) {
        (false, false) => step
            .icmpv4(etherparse::Icmpv4Type::EchoRequest(echo))
            .write(&mut bytes, b""),
        (false, true) => step
            .icmpv4(etherparse::Icmpv4Type::EchoReply(echo))
            .write(&mut bytes, b""),
        (true, false) => step
            .icmpv6(etherparse::Icmpv6Type::EchoRequest(echo))
            .write(&mut bytes, b""),
        (true, true) => step
            .icmpv6(etherparse::Icmpv6Type::EchoReply(echo))
            .write(&mut bytes, b""),
    }
    .unwrap();
    bytes
}

/// Port unreachable, quoting a packet whole.
pub(crate) fn unreachable(source: &str, destination: &str, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let step = ip_header(source, destination);
    if source.contains(':') {
        let code = etherparse::icmpv6::DestUnreachableCode::Port;
        step.icmpv6(etherparse::Icmpv6Type::DestinationUnreachable(code))
            .write(&mut bytes, quoted)
            .unwrap();
    } else {
        let code = etherparse::icmpv4::DestUnreachableHeader::Port;
        step.icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(code))
            .write(&mut bytes, quoted)
            .unwrap();
    }
    bytes
}

/// The IPv4 header checksum of a packet that was changed by hand.
pub(crate) fn renew_checksum(bytes: &mut [u8]) {
    let header = etherparse::Ipv4Header::from_slice(bytes).unwrap().0;
    bytes[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
}

pub(crate) fn in_fragments(nic: NicId, mtu: u16) -> Verdict {
    let Verdict::Forward { port, nic, .. } = to(nic) else {
        unreachable!()
    };
    Verdict::Forward {
        port,
        nic,
        fragment: Some(mtu),
    }
}

/// A whole packet made a fragment of something larger.
pub(crate) fn fragment(whole: &[u8], offset: u16, more: bool, identification: u32) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    if whole[0] >> 4 == 4 {
        let field = (offset / 8) | if more { 0x2000 } else { 0 };
        bytes[4..6].copy_from_slice(&(identification as u16).to_be_bytes());
        bytes[6..8].copy_from_slice(&field.to_be_bytes());
        renew_checksum(&mut bytes);
        return bytes;
    }
    let mut header = vec![bytes[6], 0];
    header.extend_from_slice(&(offset | u16::from(more)).to_be_bytes());
    header.extend_from_slice(&identification.to_be_bytes());
    bytes[6] = 44;
    bytes.splice(40..40, header);
    let length = u16::try_from(bytes.len() - 40).unwrap();
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes
}
