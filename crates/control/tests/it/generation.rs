//! Generations of a running lab: ids that last, decisions that do not outlive what they were made from.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use control::{Generation, compile, compile_after};
use engine::snapshot::{NicId, PortId};
use engine::{DropReason, Snapshot, Verdict, Worker, WorkerOptions};
use model::Topology;
use model::topology::{
    Access, Direction, NicIndex, Nsg, NsgIndex, PeeringState, PortNamespace, PortRange, Profile, RuleAddress,
    RuleProtocol, SecurityRule, UdrNextHop, VnetIndex, VnetPort,
};
use packet::key::mapped;
use packet::{Burst, FlowKey, Protocol, VnetHeader};
use proptest::prelude::*;

use crate::common::{lab, nets, peer, routes, subnet, vm};
use crate::random::{build, machines, pairs, ways};
use crate::world::packet;

const GENERATIONS: usize = 4;

fn first(topology: Topology) -> Generation {
    let compiled = compile(&topology, 1);
    Generation::first(Arc::new(topology), compiled)
}

fn next(previous: &Generation, topology: Topology) -> Generation {
    let compiled = compile_after(&previous.pieces, &topology, 0);
    previous.next(Arc::new(topology), compiled)
}

fn worker() -> Worker {
    Worker::new(
        WorkerOptions {
            flow_capacity: 4096,
            ..WorkerOptions::default()
        },
        7,
    )
}

/// A first packet.
fn key(ends: [IpAddr; 2]) -> FlowKey {
    FlowKey {
        source: mapped(ends[0]),
        destination: mapped(ends[1]),
        source_port: 50000,
        destination_port: 80,
        protocol: Protocol::UDP,
    }
}

/// One UDP packet through a worker.
fn send(worker: &mut Worker, snapshot: &Snapshot, now_ns: u64, port: PortId, key: FlowKey) -> Verdict {
    let (mut burst, mut verdicts) = (Burst::new(1), Vec::new());
    assert!(burst.push(&packet(&key, true), VnetHeader::default()));
    worker.process(snapshot, now_ns, port, &mut burst, &mut verdicts);
    verdicts[0]
}

/// Every NIC and every address of another that it can send to.
fn conversations(topology: &Topology) -> Vec<(usize, [IpAddr; 2])> {
    let mut all = Vec::new();
    for (from, nic) in topology.nics.iter().enumerate() {
        for to in topology.nics.iter().flat_map(|nic| &nic.addresses) {
            let own = nic.addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4());
            all.extend(own.map(|&own| (from, [own, *to])));
        }
    }
    all
}

/// A verdict in words that hold in any numbering.
fn told(verdict: Verdict, name: impl Fn(NicId) -> String) -> String {
    match verdict {
        Verdict::Forward { nic, .. } => format!("to {}", nic.map_or_else(String::new, name)),
        Verdict::UnderWay => "under way".to_owned(),
        Verdict::Drop(reason) => reason.name().to_owned(),
    }
}

#[test]
fn a_flow_log_finds_the_rules_of_an_nsg_in_another_group() {
    let text = "apiVersion: peerlane/v1\nkind: Lab\nname: groups\nprofile: azure-2025\n\
                vnets: { a: { addressSpace: [10.0.0.0/16], subnets: { s: { addressPrefix: 10.0.0.0/24, \
                networkSecurityGroup: other/web } } } }\n\
                networkSecurityGroups: { other/web: {} }\nflowLogs: { log: { networkSecurityGroup: other/web } }\n\
                vms: { one: { subnet: a/s } }\n";
    let source = model::Source::Text {
        name: "groups.vnet.yaml".to_owned(),
        text: text.to_owned(),
    };
    let generation = first(
        model::load(source)
            .unwrap_or_else(|errors| panic!("{errors}"))
            .topology,
    );
    let rule = generation
        .snapshot
        .log_rules
        .iter()
        .flatten()
        .flatten()
        .next()
        .unwrap();
    let (nsg, name) = generation.log_rule(*rule).unwrap();
    assert_eq!(nsg, "other/web");
    assert!(name.starts_with("DefaultRule_"), "{name}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A worker that lived through changes sends every packet where a new one, with tables of that lab alone, does.
    #[test]
    fn no_decision_outlives_what_it_was_made_from(
        labs in proptest::collection::vec((machines(), pairs(), ways()), GENERATIONS),
        profile in proptest::sample::select(vec![Profile::Azure2018, Profile::Azure2025]),
    ) {
        let mut aged = worker();
        let mut present: Option<Generation> = None;
        for (number, (machines, pairs, ways)) in (1_u64..).zip(&labs) {
            let topology = build(profile, machines, pairs, ways, &[]);
            let generation = match &present {
                None => first(topology),
                Some(previous) => next(previous, topology),
            };
            let topology = Arc::clone(&generation.topology);
            let dense = compile(&topology, 1);
            let mut fresh = worker();
            // Twice: what is kept by the first is used by the second.
            for now_ns in [number * 1_000, number * 1_000 + 500] {
                for (from, ends) in conversations(&topology) {
                    let port = generation.snapshot.nics[generation.nic_id(NicIndex(from)).index()].port;
                    let aged = send(&mut aged, &generation.snapshot, now_ns, port, key(ends));
                    let port = dense.snapshot.nics[from].port;
                    let anew = send(&mut fresh, &dense.snapshot, now_ns, port, key(ends));
                    let aged = told(aged, |nic| generation.nic_name(nic).unwrap_or("nobody").to_owned());
                    let anew = told(anew, |nic| topology.nics[nic.index()].name.clone());
                    prop_assert_eq!(aged, anew, "{} {:?}", &topology.nics[from].name, ends);
                }
            }
            present = Some(generation);
        }
    }

    /// An id has one owner for ever.
    #[test]
    fn no_id_passes_to_another(
        labs in proptest::collection::vec((machines(), pairs(), ways()), GENERATIONS),
    ) {
        let mut owners: HashMap<NicId, String> = HashMap::new();
        let mut ports: HashMap<PortId, String> = HashMap::new();
        let mut present: Option<Generation> = None;
        for (machines, pairs, ways) in &labs {
            let topology = build(Profile::Azure2018, machines, pairs, ways, &[]);
            let generation = match &present {
                None => first(topology),
                Some(previous) => next(previous, topology),
            };
            let topology = &generation.topology;
            for (index, nic) in topology.nics.iter().enumerate() {
                let vnet = &topology.vnets[topology.subnets[nic.subnet.0].vnet.0].name;
                let vm = nic.vm.map(|vm| topology.vms[vm.0].name.clone());
                let owner = format!("{vnet} {vm:?} {}", nic.name);
                let id = generation.nic_id(NicIndex(index));
                prop_assert_eq!(owners.entry(id).or_insert_with(|| owner.clone()), &owner);
                let port = generation.snapshot.nics[id.index()].port;
                let behind = vm.map_or_else(|| vnet.clone(), |_| owner);
                prop_assert_eq!(ports.entry(port).or_insert_with(|| behind.clone()), &behind);
            }
            present = Some(generation);
        }
    }
}

/// Three VNets with a VM each; the first two are peered.
fn three() -> Topology {
    let mut topology = lab(Profile::Azure2018);
    for vnet in 0..3 {
        let range = nets(&[&format!("10.{vnet}.0.0/16")]);
        let subnet = subnet(&mut topology, &format!("v{vnet}"), &range, &range);
        let address = format!("10.{vnet}.0.4").parse().unwrap();
        vm(&mut topology, &format!("vm{vnet}"), subnet, &[address]);
    }
    peer(&mut topology, VnetIndex(0), VnetIndex(1));
    topology
}

fn generations(generation: &Generation) -> Vec<u64> {
    generation
        .snapshot
        .vnets
        .iter()
        .map(|vnet| vnet.generation)
        .collect()
}

fn deny_all() -> Nsg {
    let all = || {
        vec![PortRange {
            first: 0,
            last: u16::MAX,
        }]
    };
    let rule = SecurityRule {
        name: "deny".to_owned(),
        priority: 100,
        direction: Direction::Inbound,
        access: Access::Deny,
        protocol: RuleProtocol::Any,
        source: RuleAddress::Any,
        source_ports: all(),
        destination: RuleAddress::Any,
        destination_ports: all(),
    };
    Nsg {
        name: "closed".to_owned(),
        rules: vec![rule],
    }
}

/// Shows: PEER-41, NSG-09.
#[test]
fn only_vnets_whose_tables_changed_begin_anew() {
    let start = first(three());
    assert_eq!(generations(&start), [1, 1, 1]);
    assert_eq!(generations(&next(&start, three())), [1, 1, 1], "nothing changed");

    let mut peered = three();
    peer(&mut peered, VnetIndex(1), VnetIndex(2));
    assert_eq!(generations(&next(&start, peered)), [1, 2, 2], "a peering");

    let mut flag = three();
    flag.peerings[1].allow_virtual_network_access = false;
    assert_eq!(generations(&next(&start, flag)), [2, 2, 1], "a flag of a peering");

    let mut alone = three();
    alone.peerings.clear();
    assert_eq!(generations(&next(&start, alone)), [2, 2, 1], "no peering");

    let mut routed = three();
    routes(
        &mut routed,
        model::topology::SubnetIndex(2),
        &[("0.0.0.0/0", UdrNextHop::None)],
    );
    assert_eq!(generations(&next(&start, routed)), [1, 1, 2], "a route");

    let mut denied = three();
    denied.nsgs.push(deny_all());
    denied.nics[1].nsg = Some(NsgIndex(0));
    assert_eq!(
        generations(&next(&start, denied)),
        [1, 1, 1],
        "rules are for new flows"
    );

    let mut added = three();
    let subnet = added.nics[2].subnet;
    vm(&mut added, "another", subnet, &["10.2.0.5".parse().unwrap()]);
    assert_eq!(generations(&next(&start, added)), [1, 1, 2], "a NIC");
}

/// Shows: PEER-05, PEER-07, NSG-09.
#[test]
fn flows_keep_their_state_and_lose_their_way_with_the_peering() {
    let mut worker = worker();
    let ends = key(["10.0.0.4".parse().unwrap(), "10.1.0.4".parse().unwrap()]);
    let reply = ends.reversed();
    let start = first(three());
    let passes = |verdict: Verdict| matches!(verdict, Verdict::Forward { .. });
    assert!(passes(send(&mut worker, &start.snapshot, 1, PortId(0), ends)));

    let mut denied = three();
    denied.nsgs.push(deny_all());
    for nic in &mut denied.nics {
        nic.nsg = Some(NsgIndex(0));
    }
    let denied = next(&start, denied);
    assert!(
        passes(send(&mut worker, &denied.snapshot, 2, PortId(0), ends)),
        "state"
    );
    assert!(
        passes(send(&mut worker, &denied.snapshot, 3, PortId(1), reply)),
        "state"
    );
    let mut another = self::worker();
    assert_eq!(
        send(&mut another, &denied.snapshot, 3, PortId(0), ends),
        Verdict::Drop(DropReason::NsgInbound),
        "a new flow"
    );

    let mut cut = (*denied.topology).clone();
    cut.peerings.pop();
    cut.peerings[0].state = PeeringState::Disconnected;
    cut.peerings[0].reverse = None;
    let cut = next(&denied, cut);
    for (port, ends) in [(PortId(0), ends), (PortId(1), reply)] {
        let verdict = send(&mut worker, &cut.snapshot, 4, port, ends);
        assert_eq!(verdict, Verdict::Drop(DropReason::RouteNone), "{ends:?}");
    }
}

/// Behind a VNet port the address alone tells a NIC from the one that had it before.
#[test]
fn a_nic_inherits_no_state_with_an_address() {
    let with = |name: &str, closed: bool| {
        let mut topology = three();
        topology.nsgs.push(deny_all());
        topology.vnets[1].tun = Some(VnetPort {
            interface: "pl-v1".to_owned(),
            namespace: PortNamespace::Lab,
        });
        let subnet = topology.nics[1].subnet;
        let nic = vm(&mut topology, name, subnet, &["10.1.0.9".parse().unwrap()]);
        topology.vms.pop();
        topology.nics[nic.0].vm = None;
        topology.nics[nic.0].nsg = closed.then_some(NsgIndex(0));
        topology
    };
    let ends = key(["10.0.0.4".parse().unwrap(), "10.1.0.9".parse().unwrap()]);
    let mut worker = worker();
    let start = first(with("one", false));
    let passed = send(&mut worker, &start.snapshot, 1, PortId(0), ends);
    assert!(matches!(passed, Verdict::Forward { .. }), "{passed:?}");
    let same = next(&start, with("one", true));
    let kept = send(&mut worker, &same.snapshot, 2, PortId(0), ends);
    assert!(matches!(kept, Verdict::Forward { .. }), "its own state: {kept:?}");
    let other = next(&same, with("other", true));
    let verdict = send(&mut worker, &other.snapshot, 3, PortId(0), ends);
    assert_eq!(verdict, Verdict::Drop(DropReason::NsgInbound));
    assert_eq!(
        other.nic_name(NicId(3)),
        Some("one-nic"),
        "the name of what is gone stays"
    );
    assert_eq!(other.nic_index(NicId(3)), None);
}
