//! Two peered VNets of 64 NICs each, every NIC with filters of 100 rules, a table of 1,000 routes, and flows that pass;
//! and the same once more for the usual path: etherparse, std's HashMap, treebitmap, rules in a list.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use engine::Snapshot;
use engine::fib::{Fib, NextHop, Route};
use engine::filter::{Access, Filter, Rule};
use engine::snapshot::{FibId, FilterId, LinkId, Nic, NicId, Peering, PeeringId, Port, PortId, Vnet, VnetId};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use packet::key::mapped;
use packet::{FlowKey, Prefix, Protocol};
use treebitmap::IpLookupTable;

use super::packets::{LENGTH, udp};
use super::random::Random;
use super::rules::{rules, scan};

pub(crate) const NICS: u32 = 64;
const RULES: usize = 100;
const ROUTES: usize = 1000;
/// The port of the first VNet: all packets come from here.
pub(crate) const PORT: PortId = PortId(0);

/// NIC `nic` of VNet 0 or 1.
fn address(vnet: u32, nic: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0004 | vnet << 16 | nic << 8)
}

fn prefix(address: Ipv4Addr, length: u8) -> Prefix {
    Prefix::new(IpAddr::V4(address), length)
}

pub(crate) struct Fabric {
    pub(crate) snapshot: Snapshot,
    routes: Vec<Route>,
    outbound: Vec<Rule>,
    inbound: Vec<Rule>,
}

impl Fabric {
    pub(crate) fn new() -> Self {
        let mut random = Random::new(11);
        let mut routes = vec![
            Route {
                prefix: prefix(Ipv4Addr::UNSPECIFIED, 0),
                next_hop: NextHop::None,
            },
            Route {
                prefix: prefix(address(0, 0), 16),
                next_hop: NextHop::VnetLocal,
            },
            Route {
                prefix: prefix(address(1, 0), 16),
                next_hop: NextHop::Peering(PeeringId(0)),
            },
        ];
        while routes.len() < ROUTES {
            let address = Ipv4Addr::from_bits(0x0a02_0000 + random.below(0x00f0_0000));
            routes.push(Route {
                prefix: prefix(address, 24),
                next_hop: NextHop::None,
            });
        }
        let (outbound, inbound) = (rules(RULES, &mut random), rules(RULES, &mut random));
        let snapshot = Snapshot {
            generation: 1,
            flows_per_nic: 500_000,
            vnets: (0..2).map(vnet).collect(),
            nics: (0..2)
                .flat_map(|vnet| (0..NICS).map(move |id| nic(vnet, id)))
                .collect(),
            ports: vec![Port::Vnet(VnetId(0)), Port::Vnet(VnetId(1))],
            peerings: vec![Peering {
                local: VnetId(0),
                remote: VnetId(1),
                reverse: None,
                access: true,
                forwarded_accepted: false,
                transit: false,
                link: LinkId(u32::MAX),
            }],
            fibs: vec![Fib::compile(routes.clone())],
            filters: vec![
                Filter::compile(outbound.clone()),
                Filter::compile(inbound.clone()),
            ],
            ..Snapshot::default()
        };
        Self {
            snapshot,
            routes,
            outbound,
            inbound,
        }
    }

    /// Packets of `count` different flows that both filters allow.
    pub(crate) fn packets(&self, count: usize) -> Vec<[u8; LENGTH]> {
        let mut random = Random::new(12);
        let mut flows = HashMap::new();
        while flows.len() < count {
            let (source, destination) = (address(0, random.below(NICS)), address(1, random.below(NICS)));
            let ports = (random.below(65_536) as u16, random.below(65_536) as u16);
            let key = FlowKey {
                source: mapped(source.into()),
                destination: mapped(destination.into()),
                source_port: ports.0,
                destination_port: ports.1,
                protocol: Protocol::UDP,
            };
            let allowed = |rules: &[Rule]| scan(rules, &key).access == Access::Allow;
            if allowed(&self.outbound) && allowed(&self.inbound) {
                flows.insert(key, udp(source, destination, ports));
            }
        }
        // std's map yields them in random order.
        flows.into_values().collect()
    }

    pub(crate) fn usual(&self) -> Usual {
        let mut routes = IpLookupTable::new();
        for route in &self.routes {
            if let IpAddr::V4(address) = route.prefix.address() {
                routes.insert(address, u32::from(route.prefix.length()) - 96, route.next_hop);
            }
        }
        let nics = self
            .snapshot
            .nics
            .iter()
            .zip(0..)
            .map(|(nic, id)| (nic.addresses[0], NicId(id)))
            .collect();
        Usual {
            nics,
            routes,
            outbound: self.outbound.clone(),
            inbound: self.inbound.clone(),
            flows: HashMap::new(),
            counters: vec![[0; 4]; self.snapshot.nics.len()],
        }
    }
}

fn vnet(id: u32) -> Vnet {
    Vnet {
        generation: 1,
        ranges: vec![prefix(address(id, 0), 16)],
        tcp_idle_minutes: 4,
        addresses: (0..NICS)
            .map(|nic| (mapped(address(id, nic).into()), NicId(id * NICS + nic)))
            .collect(),
        gateways: Vec::new(),
    }
}

fn nic(vnet: u32, id: u32) -> Nic {
    Nic {
        vnet: VnetId(vnet),
        port: PortId(vnet),
        fib: FibId(0),
        addresses: vec![mapped(address(vnet, id).into())],
        routers: vec![],
        ip_forwarding: false,
        admin_outbound: None,
        admin_inbound: None,
        outbound: [Some(FilterId(0)), None],
        inbound: [Some(FilterId(1)), None],
        public: vec![],
        egress_cap: None,
    }
}

/// The usual path: what a careful programmer writes first, from crates that everybody uses.
pub(crate) struct Usual {
    nics: HashMap<u128, NicId>,
    routes: IpLookupTable<Ipv4Addr, NextHop>,
    outbound: Vec<Rule>,
    inbound: Vec<Rule>,
    flows: HashMap<FlowKey, UsualFlow>,
    counters: Vec<[u64; 4]>,
}

struct UsualFlow {
    from: NicId,
    to: NicId,
    packets: u64,
    bytes: u64,
    seen_ns: u64,
}

impl Usual {
    /// The receiver, or None for a packet that is dropped.
    pub(crate) fn process(&mut self, now_ns: u64, bytes: &[u8]) -> Option<NicId> {
        let key = usual_key(bytes)?;
        let length = bytes.len() as u64;
        let flow = match self.flows.get_mut(&key) {
            Some(flow) => flow,
            None => {
                let (from, to) = self.decide(&key)?;
                let flow = |from, to| UsualFlow {
                    from,
                    to,
                    packets: 0,
                    bytes: 0,
                    seen_ns: now_ns,
                };
                self.flows.insert(key.reversed(), flow(to, from));
                self.flows.entry(key).or_insert(flow(from, to))
            }
        };
        (flow.packets, flow.bytes, flow.seen_ns) = (flow.packets + 1, flow.bytes + length, now_ns);
        let (from, to) = (flow.from, flow.to);
        self.counters[from.index()][0] += 1;
        self.counters[from.index()][1] += length;
        self.counters[to.index()][2] += 1;
        self.counters[to.index()][3] += length;
        Some(to)
    }

    /// Forgets all flows, but not the memory for them.
    pub(crate) fn forget(&mut self) {
        self.flows.clear();
    }

    fn decide(&self, key: &FlowKey) -> Option<(NicId, NicId)> {
        let from = *self.nics.get(&key.source)?;
        if scan(&self.outbound, key).access == Access::Deny {
            return None;
        }
        match self
            .routes
            .longest_match(Ipv4Addr::from_bits(key.destination as u32))?
        {
            (.., NextHop::VnetLocal | NextHop::Peering(_)) => {}
            _ => return None,
        }
        let to = *self.nics.get(&key.destination)?;
        (scan(&self.inbound, key).access == Access::Allow).then_some((from, to))
    }
}

fn usual_key(bytes: &[u8]) -> Option<FlowKey> {
    let sliced = SlicedPacket::from_ip(bytes).ok()?;
    match (sliced.net?, sliced.transport?) {
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => Some(FlowKey {
            source: mapped(ip.header().source_addr().into()),
            destination: mapped(ip.header().destination_addr().into()),
            source_port: udp.source_port(),
            destination_port: udp.destination_port(),
            protocol: Protocol::UDP,
        }),
        _ => None,
    }
}
