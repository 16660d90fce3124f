//! A valid file: everything the format has that this version carries out, resolved.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic, its functions too"
)]

use std::net::IpAddr;

use model::topology::{
    Access, Endpoint, NicIndex, PeeringState, PortNamespace, Profile, RuleAddress, SyncLevel, UdrNextHop,
    VnetIndex,
};
use model::{Loaded, Source};

const FULL: &str = include_str!("full.vnet.yaml");

fn load(text: &str) -> Loaded {
    let source = Source::Text {
        name: "lab.vnet.yaml".to_owned(),
        text: text.to_owned(),
    };
    model::load(source).unwrap_or_else(|errors| panic!("{errors}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn resolves_every_section() {
    let loaded = load(FULL);
    let topology = &loaded.topology;
    assert_eq!(topology.name, "hub-spoke");
    assert_eq!(topology.profile, Profile::Azure2025);
    assert_eq!(topology.vnets.len(), 4);
    assert_eq!(
        topology.vnets[0].subscription,
        "11111111-1111-1111-1111-111111111111"
    );
    assert_eq!(topology.vnets[0].tenant, "contoso");
    assert_eq!(topology.vnets[1].location, "westus2");
    let port = topology.vnets[2].tun.as_ref().unwrap();
    assert_eq!(
        (port.interface.as_str(), &port.namespace),
        ("pl-shop", &PortNamespace::Lab)
    );
    assert_eq!(
        topology.route_tables[0].routes[0].next_hop,
        UdrNextHop::VirtualAppliance(ip("10.0.1.4"))
    );
    let rule = &topology.nsgs[0].rules[0];
    assert_eq!(rule.source, RuleAddress::Tag("VirtualNetwork".to_owned()));
    assert_eq!(rule.destination, RuleAddress::Any);
    assert_eq!(
        (rule.destination_ports[1].first, rule.destination_ports[1].last),
        (8000, 8099)
    );
    assert!(matches!(topology.nsgs[0].rules[1].source, RuleAddress::Asgs(ref list) if list.len() == 1));
    assert_eq!(topology.internet.as_deref(), Some(&[ip("198.51.100.7")][..]));
    assert_eq!(topology.tests.len(), 5);
    assert_eq!(topology.tests[1].expect, Access::Deny);
    assert_eq!(topology.tests[1].reason.as_deref(), Some("RouteNone"));
    assert_eq!(topology.tests[3].to, Endpoint::Internet);
}

#[test]
fn gives_addresses_in_file_order_after_static_ones() {
    let topology = load(FULL).topology;
    let nic = |name: &str| topology.nics.iter().find(|nic| nic.name == name).unwrap();
    assert_eq!(nic("nva-nic").addresses, [ip("10.0.1.4")]);
    assert_eq!(nic("web-nic").addresses, [ip("10.1.0.5"), ip("fd00:b::5")]);
    // db comes before app in the file; .5 and .6 are static.
    assert_eq!(nic("db-nic").addresses, [ip("10.1.0.4"), ip("fd00:b::4")]);
    assert_eq!(nic("app-nic").addresses, [ip("10.1.0.7"), ip("fd00:b::6")]);
    assert_eq!(nic("till1").addresses, [ip("10.2.0.4")]);
    assert_eq!(nic("till1").vm, None);
}

#[test]
fn joins_both_directions_of_a_peering() {
    let topology = load(FULL).topology;
    let peering = |name: &str| {
        topology
            .peerings
            .iter()
            .find(|peering| peering.name == name)
            .unwrap()
    };
    let there = peering("hub-to-spoke1");
    assert_eq!(there.state, PeeringState::Connected);
    assert!(there.allow_virtual_network_access && !there.allow_forwarded_traffic);
    let back = &topology.peerings[there.reverse.unwrap().0];
    assert_eq!(
        (back.name.as_str(), back.from, back.to),
        ("spoke1-to-hub", VnetIndex(1), VnetIndex(0))
    );
    assert_eq!(peering("one-sided").state, PeeringState::Initiated);
    assert_eq!(peering("one-sided").reverse, None);
    assert_eq!(there.sync_level, SyncLevel::FullyInSync);
    assert_eq!(there.remote_address_space, topology.vnets[1].address_space);
}

#[test]
fn finds_endpoints_without_regard_to_case() {
    let topology = load(FULL).topology;
    assert_eq!(
        topology.endpoint("WEB").unwrap(),
        topology.endpoint("web-nic").unwrap()
    );
    assert_eq!(topology.endpoint("nva").unwrap(), Endpoint::Nic(NicIndex(0)));
    assert_eq!(
        topology.endpoint("10.9.9.9").unwrap(),
        Endpoint::Address(ip("10.9.9.9"))
    );
    assert_eq!(topology.endpoint("Internet").unwrap(), Endpoint::Internet);
    assert_eq!(
        topology.endpoint("webb").unwrap_err().suggestion.as_deref(),
        Some("web")
    );
}

#[test]
fn says_what_has_no_effect_yet() {
    let loaded = load(FULL);
    let notes: Vec<&str> = loaded.notes.iter().map(|note| note.target.as_str()).collect();
    let expected = [
        "settings.fabricMtu",
        "vnets.hub.subnets.shared.serviceEndpoints",
        "peerings.1",
        "vms.web.size",
    ];
    assert_eq!(notes, expected);
    assert_eq!(loaded.notes[0].line, 9);
}

/// What was declared, written out and read again, is the same.
#[test]
fn keeps_what_was_declared() {
    let loaded = load(FULL);
    let json = serde_json::to_string(&loaded.config).unwrap();
    assert_eq!(load(&json).config, loaded.config);
}

#[test]
fn schema_accepts_what_the_reader_accepts() {
    let schema = model::json_schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let value = serde_json::to_value(&load(FULL).config).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&value)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    let mut wrong = value;
    wrong["vnets"]["hub"]["addresSpace"] = serde_json::json!([]);
    assert!(!validator.is_valid(&wrong));
}
