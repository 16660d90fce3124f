//! A long-lived worker against a slow model that decides every packet anew and keeps state in a plain map.

use std::collections::HashMap;

use engine::fib::NextHop;
use engine::filter::{self, Access};
use engine::snapshot::{NicId, PortId};
use engine::{DropReason, Sender, Verdict, admit, classify, route};
use packet::{FlowKey, Headers, VnetHeader};
use proptest::prelude::*;

use crate::support::*;

/// State by NIC and key as the NIC sends it: when last seen, and whether FIN or RST was.
#[derive(Default)]
struct Model {
    records: HashMap<(NicId, FlowKey), (u64, bool)>,
}

impl Model {
    fn decide(&mut self, lab: &Lab, port: PortId, bytes: &[u8]) -> Result<NicId, DropReason> {
        let headers = Headers::parse(bytes, &VnetHeader::default()).unwrap();
        let (snapshot, key, flags) = (&lab.snapshot, headers.key, headers.tcp_flags);
        let Sender::Nic(from) = classify::classify(snapshot, port, &key)? else {
            panic!("not from the Internet")
        };
        let syn = flags & (SYN | ACK) == SYN;
        let own = self.known(from, key, lab.now_ns, syn);
        if !own && filter::outbound(snapshot, from, &key).access == Access::Deny {
            return Err(DropReason::NsgOutbound);
        }
        let hop = route::route(snapshot, from, &key, &key, None).outcome?;
        admit::admit(snapshot, &hop, &key)?;
        let to = hop.to.unwrap();
        let there = self.known(to, key.reversed(), lab.now_ns, syn);
        if !there && filter::inbound(snapshot, to, &key).access == Access::Deny {
            return Err(DropReason::NsgInbound);
        }
        for end in [(from, key), (to, key.reversed())] {
            let record = self.records.entry(end).or_default();
            record.0 = lab.now_ns;
            record.1 |= flags & (FIN | RST) != 0;
        }
        Ok(to)
    }

    fn known(&mut self, nic: NicId, key: FlowKey, now_ns: u64, syn: bool) -> bool {
        let Some(&(seen_ns, closing)) = self.records.get(&(nic, key)) else {
            return false;
        };
        let limit = if closing { 10 * SECOND } else { 4 * MINUTE };
        let alive = now_ns - seen_ns <= limit && !(closing && syn);
        if !alive {
            self.records.remove(&(nic, key));
        }
        alive
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// Sender, source NIC's address, destination NIC's address, ports, TCP flags or None for UDP.
    Packet {
        port: usize,
        source: usize,
        destination: usize,
        ports: (u16, u16),
        flags: Option<u8>,
    },
    /// In weeks of seven seconds: never close to a timeout, since the worker keeps time in quarters of a second.
    Wait(u64),
    /// Denies or allows everything at a NIC.
    Filter {
        nic: u32,
        inbound: bool,
        deny: bool,
    },
    Peering {
        at: usize,
        access: bool,
        forwarded: bool,
    },
    Route {
        direct: bool,
    },
}

const ADDRESSES: [&str; 6] = [WEB_IP, DB_IP, NVA_IP, OTHER_IP, P1_IP, P2_IP];

fn event() -> impl Strategy<Value = Event> {
    let flags = prop_oneof![
        3 => Just(None),
        3 => prop_oneof![Just(SYN), Just(SYN | ACK), Just(ACK), Just(ACK), Just(FIN | ACK), Just(RST)].prop_map(Some),
    ];
    let packet = (0..5_usize, 0..6_usize, 0..6_usize, (1..3_u16, 1..3_u16), flags);
    prop_oneof![
        40 => packet.prop_map(|(port, source, destination, ports, flags)| {
            // Mostly honest: from the port of the source.
            let port = if port < 4 { source.min(4) } else { port };
            Event::Packet { port, source, destination, ports, flags }
        }),
        4 => prop_oneof![Just(0), Just(1), Just(2), Just(16), Just(34), Just(36)].prop_map(Event::Wait),
        3 => (0..6_u32, any::<bool>(), any::<bool>()).prop_map(|(nic, inbound, deny)| Event::Filter { nic, inbound, deny }),
        1 => (0..4_usize, any::<bool>(), any::<bool>())
            .prop_map(|(at, access, forwarded)| Event::Peering { at, access, forwarded }),
        1 => any::<bool>().prop_map(|direct| Event::Route { direct }),
    ]
}

/// Publishes a change that concerns these VNets only.
fn publish(lab: &mut Lab, vnets: &[usize]) {
    lab.snapshot.generation += 1;
    let generation = lab.snapshot.generation;
    vnets
        .iter()
        .for_each(|&vnet| lab.snapshot.vnets[vnet].generation = generation);
}

fn apply(lab: &mut Lab, event: &Event) {
    match *event {
        Event::Packet { .. } => {}
        Event::Wait(weeks) => lab.pass(7 * weeks),
        Event::Filter { nic, inbound, deny } => {
            let filter = if deny { lab.filter(vec![]) } else { None };
            let nic = lab.nic(NicId(nic));
            if inbound {
                nic.inbound[1] = filter;
            } else {
                nic.outbound[0] = filter;
            }
            let vnet = nic.vnet.index();
            publish(lab, &[vnet]);
        }
        Event::Peering {
            at,
            access,
            forwarded,
        } => {
            let peering = &mut lab.snapshot.peerings[at];
            (peering.access, peering.forwarded_accepted) = (access, forwarded);
            let vnets = [peering.local.index(), peering.remote.index()];
            publish(lab, &vnets);
        }
        Event::Route { direct } => {
            let next_hop = if direct {
                NextHop::Appliance(None)
            } else {
                NextHop::Appliance(Some((NVA, Some(A_TO_HUB))))
            };
            lab.route(WEB, "10.2.0.0/16", next_hop);
            publish(lab, &[0]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_worker_decides_as_a_fresh_look_would(events in prop::collection::vec(event(), 1..400)) {
        let mut lab = Lab::new();
        let mut model = Model::default();
        for (at, event) in events.iter().enumerate() {
            apply(&mut lab, event);
            if let &Event::Packet { port, source, destination, ports, flags } = event {
                let (from, to_ip) = (ADDRESSES[source], ADDRESSES[destination]);
                let bytes = flags.map_or_else(|| udp(from, to_ip, ports), |flags| tcp(from, to_ip, ports, flags));
                let port = PortId(u32::try_from(port).unwrap());
                let expected = match model.decide(&lab, port, &bytes) {
                    Ok(nic) => to(nic),
                    Err(reason) => Verdict::Drop(reason),
                };
                prop_assert_eq!(lab.send(port, &bytes), expected, "event {}", at);
            }
        }
    }
}
