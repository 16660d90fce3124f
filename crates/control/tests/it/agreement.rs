//! What `explain` says is what packets do: random labs, real packets through the engine's worker.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use control::present::Explanation;
use control::{Compiled, Query, compile, explain};
use model::topology::{Endpoint, ForwardedSemantics, NicIndex, Profile, SiteIndex, TestProtocol};
use model::{Source, Topology};
use packet::key::mapped;
use packet::{FlowKey, Protocol};
use proptest::prelude::*;
use proptest::sample::select;

use crate::random::{build, machines, nsgs, pairs, ways};
use crate::world::{End, Place, World, key_of, packet};

/// Who is told of, but for gateways: a packet that passes one is written nowhere on the way.
fn told(topology: &Topology, hops: &[control::present::Hop]) -> Vec<String> {
    // What forwards without being a place: explain names it, packets do not stop there.
    let passed = |name: &String| {
        topology.gateways.iter().any(|gateway| gateway.name == *name)
            || topology
                .load_balancers
                .iter()
                .any(|balancer| balancer.name == *name)
    };
    let mut names: Vec<String> = hops
        .iter()
        .map(|hop| hop.nic.clone().unwrap_or_else(|| hop.node.clone().unwrap()))
        .filter(|name| !passed(name))
        .collect();
    names.dedup();
    names
}

/// Sends the packet and its reply for real, and compares.
fn compare(
    topology: &Topology,
    compiled: &Compiled,
    from: Place,
    [source, destination]: [IpAddr; 2],
    protocol: TestProtocol,
) -> Result<(), TestCaseError> {
    let query = Query {
        source: match from {
            Place::Nic(nic) => Endpoint::Nic(nic),
            Place::Internet => Endpoint::Internet,
            Place::Site(site) => Endpoint::Site(site),
        },
        destination: Endpoint::Address(destination),
        protocol,
        source_port: 50000,
        port: 80,
    };
    let explanation: Explanation = explain(topology, compiled, &query).unwrap();
    let context = format!("{query:?}\n{explanation:#?}\n{topology:#?}");
    let mut world = World::new(topology, compiled);
    let (ip, ports) = match protocol {
        TestProtocol::Tcp => (Protocol::TCP, (50000, 80)),
        TestProtocol::Udp => (Protocol::UDP, (50000, 80)),
        TestProtocol::Icmp if source.is_ipv4() => (Protocol::ICMP, (50000, 50000)),
        TestProtocol::Icmp => (Protocol::ICMPV6, (50000, 50000)),
    };
    let key = FlowKey {
        source: mapped(source),
        destination: mapped(destination),
        source_port: ports.0,
        destination_port: ports.1,
        protocol: ip,
    };
    let (mut end, places, arrived) = world.travel(from, None, packet(&key, true));
    let mut path = "forward";
    let names = |world: &World<'_>, places: &[Place]| {
        let mut names: Vec<String> = places.iter().map(|&place| world.name(place)).collect();
        names.dedup();
        names
    };
    let mut reply_names = Vec::new();
    if let End::Delivered(at) = end {
        path = "return";
        let answer = packet(&key_of(&arrived).reversed(), false);
        let (reply_end, reply_places, returned) = world.travel(at, places.last().copied(), answer);
        reply_names = names(&world, &reply_places);
        end = match reply_end {
            End::Delivered(back) if key_of(&returned) != key.reversed() => End::InGuest(world.name(back)),
            other => other,
        };
    }
    prop_assert_eq!(
        told(topology, &explanation.forward),
        names(&world, &places),
        "{}",
        context
    );
    prop_assert_eq!(told(topology, &explanation.reply), reply_names, "{}", context);
    match (&end, &explanation.drop) {
        (End::Delivered(_), None) => prop_assert_eq!(explanation.verdict, "Allow"),
        (End::Dropped(reason, _), Some(drop))
            if topology.gateways.iter().any(|gateway| gateway.name == drop.at) =>
        {
            prop_assert_eq!((Some(*reason), path), (drop.reason, drop.path), "{}", context);
        }
        (End::Dropped(reason, at), Some(drop)) => {
            prop_assert_eq!(
                (Some(*reason), at.as_str(), path),
                (drop.reason, drop.at.as_str(), drop.path),
                "{}",
                context
            );
        }
        (End::InGuest(at), Some(drop)) => {
            prop_assert_eq!(
                (None, at.as_str(), path),
                (drop.reason, drop.at.as_str(), drop.path),
                "{}",
                context
            );
        }
        other => prop_assert!(false, "{other:?}\n{context}"),
    }
    Ok(())
}

/// Every ordered pair of NICs and the Internet, every address, every protocol. Returns how many were compared.
fn compare_all(topology: &Topology) -> Result<usize, TestCaseError> {
    let compiled = compile(topology, 3);
    let mut places: Vec<Place> = (0..topology.nics.len()).map(NicIndex).map(Place::Nic).collect();
    places.extend(topology.internet.as_ref().map(|_| Place::Internet));
    places.extend((0..topology.sites.len()).map(SiteIndex).map(Place::Site));
    let internet = topology.internet.clone().unwrap_or_default();
    let vm = |place| match place {
        Place::Nic(nic) => topology.nics[nic.0].vm,
        Place::Internet | Place::Site(_) => None,
    };
    let own = |place| match place {
        Place::Nic(nic) => topology.nics[nic.0].addresses.clone(),
        Place::Internet => internet.clone(),
        Place::Site(site) => topology.sites[site.0].addresses.clone(),
    };
    let known = |place| match place {
        Place::Nic(nic) => [own(place), topology.nics[nic.0].public_addresses.clone()].concat(),
        Place::Internet => internet.clone(),
        Place::Site(_) => own(place),
    };
    let mut compared = 0;
    let pairs = places
        .iter()
        .flat_map(|&from| places.iter().map(move |&to| (from, to)));
    for (from, to) in pairs.filter(|&(from, to)| from != to && (vm(from).is_none() || vm(from) != vm(to))) {
        for destination in known(to) {
            if own(from).contains(&destination) {
                // VNets that are not connected may use an address twice; the guest keeps packets to its own.
                continue;
            }
            let Some(source) = own(from)
                .into_iter()
                .find(|own| own.is_ipv4() == destination.is_ipv4())
            else {
                continue;
            };
            for protocol in [TestProtocol::Tcp, TestProtocol::Udp, TestProtocol::Icmp] {
                compare(topology, &compiled, from, [source, destination], protocol)?;
                compared += 1;
            }
        }
    }
    Ok(compared)
}

#[test]
fn packets_do_what_explain_says_in_every_lab_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files: Vec<PathBuf> = ["examples", "tests/lab/cases"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".vnet.yaml"))
        .collect();
    files.sort();
    assert!(files.len() > 40, "{files:?}");
    let mut compared = 0;
    for file in files {
        let topology = model::load(Source::Path(file.clone())).unwrap().topology;
        compared += compare_all(&topology).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    assert!(compared > 1000, "{compared}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_do_what_explain_says(
        profile in select(vec![Profile::Azure2018, Profile::Azure2025]),
        tag in any::<bool>(),
        machines in machines(),
        pairs in pairs(),
        ways in ways(),
        nsgs in nsgs(),
    ) {
        let mut topology = build(profile, &machines, &pairs, &ways, &nsgs);
        if tag {
            topology.settings.forwarded_semantics = ForwardedSemantics::Tag;
        }
        compare_all(&topology)?;
    }
}
