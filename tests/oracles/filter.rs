//! NSG verdicts and the rules that give them against nftables: the same rules there, real packets, a counter per rule.

use std::collections::BTreeMap;

use control::compile::{Compiled, RuleOrigin};
use engine::filter::{Access, inbound, outbound};
use engine::snapshot::{FilterId, NicId};
use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};
use model::Source;
use packet::{Headers, Protocol, VnetHeader};
use port::Queue;

use crate::nftables::{Count, LANES, arrived, counter, counts, load, script};
use crate::rules::{Case, Packet};
use crate::{case_random, count, namespace, seed};

type Counts = BTreeMap<String, Count>;

/// Shows: NSG-04, NSG-05, NSG-06, NSG-07, NSG-10, NSG-12, NSG-13, NSG-20, NSG-21, NSG-22, NSG-30, NSG-31.
#[test]
fn verdict_and_rule_are_those_of_nftables() {
    if !namespace::entered("filter::verdict_and_rule_are_those_of_nftables") {
        return;
    }
    let (seed, sets, packets) = (seed("NSG"), count(320, 10_000), count(300, 1_000));
    let mut queue = namespace::device();
    let (mut rules, mut met, mut allowed) = (0, 0, 0);
    for first in (0..sets).step_by(LANES) {
        let positions: Vec<usize> = (first..sets.min(first + LANES)).collect();
        let cases: Vec<Case> = positions
            .iter()
            .map(|&position| Case::random(&mut case_random(seed, position)))
            .collect();
        load(&cases);
        let mut ours = Counts::new();
        for (lane, case) in cases.iter().enumerate() {
            let (compiled, mut tally) = (compiled(case), Tally::default());
            // Of their own numbers, so that a smaller case keeps them.
            let mut random = case_random(!seed, positions[lane]);
            for _ in 0..packets {
                let bytes = bytes(&case.packet(&mut random), lane);
                send(&mut queue, &bytes);
                tally.add(case, &compiled, &bytes);
            }
            allowed += tally.arrived.packets;
            ours.extend(tally.counts(&compiled, lane));
        }
        let theirs = counts();
        rules += theirs.len();
        met += theirs.values().filter(|count| count.packets > 0).count();
        let differing = |lane: usize| {
            let mine = format!("l{lane}_");
            let of = |counts: &Counts| -> Counts {
                let some = counts
                    .iter()
                    .filter(|(name, count)| name.starts_with(&mine) && count.packets > 0);
                some.map(|(name, count)| (name.clone(), *count)).collect()
            };
            of(&ours) != of(&theirs)
        };
        if let Some(lane) = (0..cases.len()).find(|&lane| differing(lane)) {
            let told = smallest(&mut queue, &cases[lane], packets, seed, positions[lane]);
            panic!("PEERLANE_SEED={seed}, rule set {}: {told}", positions[lane]);
        }
    }
    let sent = sets * packets;
    println!(
        "{sent} packets, {allowed} allowed, {met} of {rules} counters met, in {sets} rule sets: as nftables"
    );
    assert!(allowed > sent as u64 / 20 && allowed < sent as u64 * 19 / 20 && met > rules / 4);
}

fn compiled(case: &Case) -> Compiled {
    let source = Source::Text {
        name: "filter.json".to_owned(),
        text: case.lab().to_string(),
    };
    let topology = model::load(source)
        .unwrap_or_else(|errors| panic!("{errors}\n{:#}", case.lab()))
        .topology;
    control::compile(&topology, 1)
}

/// What the engine's compiled filters say, counted as nftables counts.
#[derive(Default)]
struct Tally {
    /// By level, the NSG there and what its rules counted.
    levels: [Option<(FilterId, Vec<Count>)>; 2],
    arrived: Count,
}

impl Tally {
    fn add(&mut self, case: &Case, compiled: &Compiled, bytes: &[u8]) {
        let key = Headers::parse(bytes, &VnetHeader::default())
            .expect("a packet that VNets carry")
            .key;
        let filtered = if case.inbound {
            inbound(&compiled.snapshot, NicId(0), &key)
        } else {
            outbound(&compiled.snapshot, NicId(0), &key)
        };
        let present = (0..2).filter(|&level| case.levels()[level].is_some());
        for (level, (filter, decision)) in present.zip(filtered.decisions.into_iter().flatten()) {
            let rules = compiled.provenance.filters[filter.index()].rules.len();
            let (_, counts) =
                self.levels[level].get_or_insert_with(|| (filter, vec![Count::default(); rules]));
            counts[usize::from(decision.rule.expect("the default rules match everything"))].add(bytes);
        }
        if filtered.access == Access::Allow {
            self.arrived.add(bytes);
        }
    }

    /// By the names of nftables' counters, zeros left out.
    fn counts(&self, compiled: &Compiled, lane: usize) -> Counts {
        let levels = self.levels.iter().enumerate();
        let rules = levels
            .filter_map(|(level, counted)| Some((level, counted.as_ref()?)))
            .flat_map(|(level, (filter, counts))| {
                let rules = compiled.provenance.filters[filter.index()].rules.iter();
                let name =
                    move |rule: &RuleOrigin| counter(lane, level, rule.name.rsplit('/').next().unwrap());
                rules.zip(counts).map(move |(rule, &count)| (name(rule), count))
            });
        let all = rules.chain([(arrived(lane), self.arrived)]);
        all.filter(|(_, count)| count.packets > 0).collect()
    }
}

/// One packet as it is on the wire. Transport checksums stay zero: nobody on this way reads them.
fn bytes(packet: &Packet, lane: usize) -> Vec<u8> {
    let mut transport = vec![0; 20 + packet.payload];
    match packet.protocol {
        Protocol::TCP => {
            transport[12] = 5 << 4;
            transport[13] = 2;
        }
        Protocol::UDP => {
            let length = u16::try_from(transport.len()).unwrap();
            transport[4..6].copy_from_slice(&length.to_be_bytes());
        }
        // An echo request.
        Protocol::ICMP => transport[0] = 8,
        _ => {}
    }
    if matches!(packet.protocol, Protocol::TCP | Protocol::UDP) {
        transport[0..2].copy_from_slice(&packet.ports.0.to_be_bytes());
        transport[2..4].copy_from_slice(&packet.ports.1.to_be_bytes());
    }
    let length = u16::try_from(transport.len()).unwrap();
    let class = u8::try_from(lane).unwrap() << 2;
    let mut bytes = Vec::with_capacity(40 + transport.len());
    match (packet.source, packet.destination) {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
            let number = IpNumber(packet.protocol.0);
            let mut header =
                Ipv4Header::new(length, 64, number, source.octets(), destination.octets()).unwrap();
            header.dscp = (class >> 2).try_into().unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut bytes).unwrap();
        }
        (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => Ipv6Header {
            traffic_class: class,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: length,
            next_header: IpNumber(packet.protocol.0),
            hop_limit: 64,
            source: source.octets(),
            destination: destination.octets(),
        }
        .write(&mut bytes)
        .unwrap(),
        _ => unreachable!("one family per packet"),
    }
    bytes.extend_from_slice(&transport);
    bytes
}

fn send(queue: &mut Queue, bytes: &[u8]) {
    let mut packet = packet::buffer::Packet::from_bytes(bytes);
    queue.write(&mut packet).expect("the kernel takes the packet");
}

/// The first packet of a set that is decided differently, and the fewest rules with which it still is.
fn smallest(queue: &mut Queue, case: &Case, packets: usize, seed: u64, position: usize) -> String {
    let mut differs = |case: &Case, packet: &Packet| {
        load(std::slice::from_ref(case));
        let bytes = bytes(packet, 0);
        send(queue, &bytes);
        let (compiled, mut tally) = (compiled(case), Tally::default());
        tally.add(case, &compiled, &bytes);
        let ours = tally.counts(&compiled, 0);
        let mut theirs = counts();
        theirs.retain(|_, count| count.packets > 0);
        (ours != theirs).then(|| format!("ours {:?}, nftables {:?}", ours.keys(), theirs.keys()))
    };
    let mut random = case_random(!seed, position);
    let found = (0..packets)
        .map(|_| case.packet(&mut random))
        .find_map(|packet| differs(case, &packet).map(|told| (packet, told)));
    let Some((packet, mut told)) = found else {
        return "the counters differ, but for no packet alone".to_owned();
    };
    let mut case = case.clone();
    let mut shrunk = true;
    while shrunk {
        shrunk = false;
        let lengths = [&case.subnet, &case.nic].map(|level| level.as_ref().map_or(0, Vec::len));
        let all = (0..2).flat_map(|level| (0..lengths[level]).map(move |at| (level, at)));
        for (level, at) in all {
            let mut fewer = case.clone();
            let rules = if level == 0 {
                &mut fewer.subnet
            } else {
                &mut fewer.nic
            };
            rules.as_mut().unwrap().remove(at);
            if let Some(less) = differs(&fewer, &packet) {
                (case, told, shrunk) = (fewer, less, true);
                break;
            }
        }
    }
    format!(
        "{packet:?}: {told}\n{}\n{:#}",
        script(&[case.clone()]),
        case.lab()
    )
}
