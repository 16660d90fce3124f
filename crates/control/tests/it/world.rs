//! A lab at work in memory: real packets through the engine's worker, guests played here.

use std::net::{IpAddr, Ipv6Addr};

use control::Compiled;
use control::compile::PortOwner;
use engine::snapshot::{NicId, PortId};
use engine::{DropReason, Verdict, Worker, WorkerOptions};
use etherparse::PacketBuilder;
use model::Topology;
use model::topology::{NicIndex, SiteIndex, VmIndex};
use packet::edit::decrement_ttl;
use packet::key::unmapped;
use packet::{Burst, FlowKey, Packet, Protocol, VnetHeader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Nic(NicIndex),
    Internet,
    /// A site: any address of its prefixes answers.
    Site(SiteIndex),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Delivered(Place),
    Dropped(&'static str, String),
    InGuest(String),
}

/// The lab at work.
pub(crate) struct World<'a> {
    topology: &'a Topology,
    compiled: &'a Compiled,
    worker: Worker,
    burst: Burst,
    verdicts: Vec<Verdict>,
    now_ns: u64,
}

impl<'a> World<'a> {
    pub(crate) fn new(topology: &'a Topology, compiled: &'a Compiled) -> Self {
        let worker = Worker::new(
            WorkerOptions {
                flow_capacity: 512,
                ..WorkerOptions::default()
            },
            7,
        );
        Self {
            topology,
            compiled,
            worker,
            burst: Burst::new(1),
            verdicts: Vec::new(),
            now_ns: 1,
        }
    }

    /// None: the site has no route there.
    fn port(&self, place: Place, destination: IpAddr) -> Option<PortId> {
        let owner = match place {
            Place::Nic(nic) => return Some(self.compiled.snapshot.nics[nic.0].port),
            Place::Internet => PortOwner::Internet,
            Place::Site(site) => PortOwner::Connection(self.topology.site_egress(site, destination)?),
        };
        let mut owners = self.compiled.provenance.ports.iter();
        let at = owners.position(|other| *other == owner).unwrap();
        Some(PortId(u32::try_from(at).unwrap()))
    }

    /// One packet through the fabric.
    pub(crate) fn carry(
        &mut self,
        from: Place,
        bytes: &[u8],
    ) -> Result<(Place, Vec<u8>), (DropReason, Option<NicId>)> {
        self.burst.clear();
        assert!(self.burst.push(bytes, VnetHeader::default()));
        self.now_ns += 1_000;
        let port = self.port(from, unmapped(key_of(bytes).destination)).unwrap();
        self.worker.process(
            &self.compiled.snapshot,
            self.now_ns,
            port,
            &mut self.burst,
            &mut self.verdicts,
        );
        while self.verdicts.first().is_none_or(|it| *it == Verdict::UnderWay) {
            // Over one link after the other, on any of which it may be lost.
            let Some(at_ns) = self.worker.next_arrival_ns() else {
                let lost = self.worker.stats().recent_drops.pop().unwrap();
                return Err((lost.reason, lost.nic));
            };
            self.now_ns = at_ns;
            self.worker.arrive(
                &self.compiled.snapshot,
                self.now_ns,
                &mut self.burst,
                &mut self.verdicts,
            );
        }
        match self.verdicts[0] {
            Verdict::Forward { nic, port, .. } => {
                let beyond = match self.compiled.provenance.ports[port.index()] {
                    PortOwner::Connection(connection) => {
                        Place::Site(self.topology.connections[connection.0].site().unwrap())
                    }
                    _ => Place::Internet,
                };
                let to = nic.map_or(beyond, |nic| Place::Nic(NicIndex(nic.index())));
                Ok((to, self.burst.filled()[0].bytes().to_vec()))
            }
            Verdict::UnderWay => panic!("what arrives is no more under way"),
            Verdict::Drop(reason) => {
                let lost = self.worker.stats().recent_drops.pop().unwrap();
                assert_eq!(lost.reason, reason);
                Err((reason, lost.nic))
            }
        }
    }

    pub(crate) fn name(&self, place: Place) -> String {
        match place {
            Place::Nic(nic) => self.topology.nics[nic.0].name.clone(),
            Place::Internet => "internet".to_owned(),
            Place::Site(site) => self.topology.sites[site.0].name.clone(),
        }
    }

    pub(crate) fn speaks(&self, nic: NicIndex, v4: bool) -> bool {
        self.topology.nics[nic.0]
            .addresses
            .iter()
            .any(|address| address.is_ipv4() == v4)
    }

    /// Linux: connected subnets by length, then order; else eth0.
    pub(crate) fn interface(&self, vm: VmIndex, to: IpAddr, came_by: Option<NicIndex>) -> Option<NicIndex> {
        let nics = &self.topology.vms[vm.0].nics;
        let mut best: Option<(u8, NicIndex)> = None;
        for &nic in nics {
            for prefix in &self.topology.subnets[self.topology.nics[nic.0].subnet.0].prefixes {
                let better = best.is_none_or(|(length, _)| {
                    length < prefix.prefix_len() || (length == prefix.prefix_len() && came_by == Some(nic))
                });
                if prefix.contains(&to) && better {
                    best = Some((prefix.prefix_len(), nic));
                }
            }
        }
        best.map(|best| best.1)
            .or_else(|| Some(nics[0]).filter(|&nic| self.speaks(nic, to.is_ipv4())))
    }

    /// From the guest that makes the packet to the guest that takes it.
    pub(crate) fn travel(
        &mut self,
        from: Place,
        came_by: Option<Place>,
        mut bytes: Vec<u8>,
    ) -> (End, Vec<Place>, Vec<u8>) {
        let key = key_of(&bytes);
        let mut places = Vec::new();
        // Only answers to pings over IPv6 look at the way the question came.
        let came_by = came_by.and_then(|place| match place {
            Place::Nic(nic) if key.protocol == Protocol::ICMPV6 => Some(nic),
            _ => None,
        });
        let mut place = match from {
            Place::Nic(nic) => match self.topology.nics[nic.0].vm {
                Some(vm) => match self.interface(vm, unmapped(key.destination), came_by) {
                    Some(nic) => Place::Nic(nic),
                    None => return (End::InGuest(self.name(from)), places, bytes),
                },
                None => from,
            },
            Place::Internet | Place::Site(_) => from,
        };
        loop {
            places.push(place);
            if self.port(place, unmapped(key_of(&bytes).destination)).is_none() {
                return (End::InGuest(self.name(place)), places, bytes);
            }
            (place, bytes) = match self.carry(place, &bytes) {
                Ok(arrived) => arrived,
                Err((reason, nic)) => {
                    let at = nic.map_or(place, |nic| Place::Nic(NicIndex(nic.index())));
                    if at != place {
                        places.push(at);
                    }
                    return (End::Dropped(reason.name(), self.name(at)), places, bytes);
                }
            };
            places.push(place);
            if let Place::Site(site) = place {
                let to = unmapped(key_of(&bytes).destination);
                let end = match self.topology.sites[site.0].has(to) {
                    Some(_) => End::Delivered(place),
                    None => End::InGuest(self.name(place)),
                };
                return (end, places, bytes);
            }
            let Place::Nic(nic) = place else {
                return (End::Delivered(place), places, bytes);
            };
            let Some(vm) = self.topology.nics[nic.0].vm else {
                return (End::Delivered(place), places, bytes);
            };
            let [source, to] = [key_of(&bytes).source, key_of(&bytes).destination].map(unmapped);
            let guest = &self.topology.vms[vm.0];
            let own = |address| {
                guest
                    .nics
                    .iter()
                    .any(|own| self.topology.nics[own.0].addresses.contains(&address))
            };
            if source.is_ipv4() && own(source) {
                return (End::InGuest(self.name(place)), places, bytes);
            }
            if let Some(&own) = guest
                .nics
                .iter()
                .find(|own| self.topology.nics[own.0].addresses.contains(&to))
            {
                return (End::Delivered(Place::Nic(own)), places, bytes);
            }
            let mut packet = Packet::from_bytes(&bytes);
            let headers = packet.parse().unwrap();
            let by = self
                .interface(vm, to, None)
                .filter(|_| guest.forwarding && self.speaks(nic, to.is_ipv4()));
            let by = by.filter(|_| decrement_ttl(&mut packet, &headers));
            let Some(by) = by else {
                return (End::InGuest(self.name(place)), places, bytes);
            };
            (place, bytes) = (Place::Nic(by), packet.bytes().to_vec());
        }
    }
}

pub(crate) fn key_of(bytes: &[u8]) -> FlowKey {
    Packet::from_bytes(bytes).parse().unwrap().key
}

pub(crate) fn packet(key: &FlowKey, first: bool) -> Vec<u8> {
    let builder = match (unmapped(key.source), unmapped(key.destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        }
        (source, destination) => {
            let octets = |address| match address {
                IpAddr::V6(v6) => Ipv6Addr::octets(&v6),
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            };
            PacketBuilder::ipv6(octets(source), octets(destination), 64)
        }
    };
    let mut bytes = Vec::new();
    let payload = b"peerlane";
    match (key.protocol, first) {
        (Protocol::TCP, first) => {
            let tcp = builder.tcp(key.source_port, key.destination_port, 1, 1000).syn();
            let tcp = if first { tcp } else { tcp.ack(2) };
            tcp.write(&mut bytes, &[]).unwrap();
        }
        (Protocol::UDP, _) => {
            builder
                .udp(key.source_port, key.destination_port)
                .write(&mut bytes, payload)
                .unwrap();
        }
        (Protocol::ICMP, true) => {
            builder
                .icmpv4_echo_request(key.source_port, 1)
                .write(&mut bytes, payload)
                .unwrap();
        }
        (Protocol::ICMP, false) => {
            builder
                .icmpv4_echo_reply(key.source_port, 1)
                .write(&mut bytes, payload)
                .unwrap();
        }
        (_, true) => builder
            .icmpv6_echo_request(key.source_port, 1)
            .write(&mut bytes, payload)
            .unwrap(),
        (_, false) => builder
            .icmpv6_echo_reply(key.source_port, 1)
            .write(&mut bytes, payload)
            .unwrap(),
    }
    bytes
}
