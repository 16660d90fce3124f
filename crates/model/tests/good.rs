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

/// Shows: VNET-03.
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

/// Shows: PEER-04.
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

/// What a template, PowerShell and Terraform give: access on, the rest off.
/// Shows: PEER-19.
#[test]
fn flags_left_out_have_their_defaults() {
    for peerings in [
        "  - { name: ab, from: a, to: b }\n  - { name: ba, from: b, to: a }\n",
        "  - a <-> b\n",
    ] {
        for profile in ["azure-2018", "azure-2025"] {
            let topology = two_vnets(profile, "", peerings).topology;
            assert_eq!(topology.peerings.len(), 2);
            for peering in &topology.peerings {
                let flags = [
                    peering.allow_virtual_network_access,
                    peering.allow_forwarded_traffic,
                    peering.allow_gateway_transit,
                    peering.use_remote_gateways,
                ];
                assert_eq!(flags, [true, false, false, false], "{profile} {}", peering.name);
            }
        }
    }
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
fn says_what_has_no_effect() {
    assert_eq!(load(FULL).notes, []);
    let text = FULL.replace("Standard_D2_v5", "Standard_Z9").replace(
        "addressSpace: [10.3.0.0/16], location: westeurope",
        "addressSpace: [10.3.0.0/16], location: atlantis",
    );
    let loaded = load(&text);
    let notes: Vec<&str> = loaded.notes.iter().map(|note| note.target.as_str()).collect();
    assert_eq!(notes, ["peerings", "vms.web.size"]);
    let said = "between westeurope and atlantis; that of hub/one-sided is unknown";
    assert!(loaded.notes[0].message.contains(said), "{:?}", loaded.notes);
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

fn two_vnets(profile: &str, second: &str, peerings: &str) -> Loaded {
    load(&format!(
        "apiVersion: peerlane/v1\nkind: Lab\nname: two\nprofile: {profile}\nvnets:\n  a: {{ addressSpace: [10.0.0.0/16] }}\n  \
         b: {{ addressSpace: [10.1.0.0/16, 10.2.0.0/16], {second} }}\npeerings:\n{peerings}"
    ))
}

/// PEER-16: the side whose view is old is LocalNotInSync, its reverse RemoteNotInSync.
/// Shows: PEER-16, PEER-18.
#[test]
fn tells_which_side_of_a_peering_is_out_of_sync() {
    let old = "  - { name: ab, from: a, to: b, remoteAddressSpace: [10.1.0.0/16] }\n";
    let topology = two_vnets(
        "azure-2025",
        "",
        &format!("{old}  - {{ name: ba, from: b, to: a }}\n"),
    )
    .topology;
    let levels: Vec<SyncLevel> = topology
        .peerings
        .iter()
        .map(|peering| peering.sync_level)
        .collect();
    assert_eq!(levels, [SyncLevel::LocalNotInSync, SyncLevel::RemoteNotInSync]);
    assert_eq!(
        topology.peerings[0].remote_address_space,
        ["10.1.0.0/16".parse().unwrap()]
    );
    let both = format!("{old}  - {{ name: ba, from: b, to: a, remoteAddressSpace: [10.9.0.0/16] }}\n");
    let topology = two_vnets("azure-2025", "", &both).topology;
    assert!(
        topology
            .peerings
            .iter()
            .all(|it| it.sync_level == SyncLevel::LocalAndRemoteNotInSync)
    );
    let same = old.replace("[10.1.0.0/16]", "[10.2.0.0/16, 10.1.0.0/16]");
    let topology = two_vnets("azure-2025", "", &same).topology;
    assert_eq!(topology.peerings[0].sync_level, SyncLevel::FullyInSync);
}

/// PEER-31: one object from the ResourceManager side joins both, in the short form too.
/// Shows: PEER-31.
#[test]
fn a_classic_vnet_is_joined_by_one_object() {
    let classic = "deploymentModel: Classic";
    for peerings in [
        "  - { name: a-to-b, from: a, to: b }\n",
        "  - a <-> b\n",
        "  - b <-> a\n",
    ] {
        let topology = two_vnets("azure-2018", classic, peerings).topology;
        assert_eq!(topology.peerings.len(), 1, "{peerings}");
        let only = &topology.peerings[0];
        assert_eq!(
            (only.name.as_str(), only.state, only.reverse),
            ("a-to-b", PeeringState::Connected, None)
        );
    }
}

/// PEER-06: azure-2018 knows no refusal here; the side that was created again waits.
#[test]
fn a_disconnected_side_leaves_the_other_initiated() {
    let peerings =
        "  - { name: ab, from: a, to: b, peeringState: disconnected }\n  - { name: ba, from: b, to: a }\n";
    let topology = two_vnets("azure-2018", "", peerings).topology;
    let states: Vec<PeeringState> = topology.peerings.iter().map(|peering| peering.state).collect();
    assert_eq!(states, [PeeringState::Disconnected, PeeringState::Initiated]);
}

#[test]
fn a_subscription_without_id_has_one_made_of_its_name() {
    let lab = |name: &str| {
        let text = format!(
            "apiVersion: peerlane/v1\nkind: Lab\nname: x\nsubscriptions: {{ {name}: {{}} }}\n\
             vnets: {{ a: {{ addressSpace: [10.0.0.0/8], subscription: {name} }}, b: {{ addressSpace: [10.0.0.0/8] }} }}\n"
        );
        load(&text).topology.vnets
    };
    let (one, other) = (lab("corp"), lab("labs"));
    assert_eq!(one[0].subscription, lab("Corp")[0].subscription);
    assert_ne!(one[0].subscription, other[0].subscription);
    assert_eq!(one[0].subscription.len(), 36);
    assert_eq!(one[1].subscription, "00000000-0000-0000-0000-000000000000");
}

#[test]
fn cuts_the_name_of_a_port_to_what_the_kernel_takes() {
    let topology = two_vnets("azure-2018", "tun: {}", "").topology;
    assert_eq!(topology.vnets[1].tun.as_ref().unwrap().interface, "pl-b");
    let text = "apiVersion: peerlane/v1\nkind: Lab\nname: x\n\
                vnets: { a-rather-long-name: { addressSpace: [10.0.0.0/8], tun: { namespace: HOST } } }\n";
    let port = load(text).topology.vnets[0].tun.clone().unwrap();
    assert_eq!(
        (port.interface.as_str(), port.namespace),
        ("pl-a-rather-lon", PortNamespace::Host)
    );
}

/// An anchor's text serves twice; a merge key fills in what is absent.
#[test]
fn takes_anchors_and_merge_keys() {
    let text = "apiVersion: peerlane/v1\nkind: Lab\nname: x\nvnets:\n  a: &a\n    location: eastus\n    \
                addressSpace: &space [10.0.0.0/16]\n  b:\n    <<: *a\n    addressSpace: *space\n";
    let vnets = load(text).topology.vnets;
    assert_eq!(vnets[1].location, "eastus");
    assert_eq!(vnets[0].address_space, vnets[1].address_space);
}

/// YAML reads these as numbers; where a name is wanted they are names, as written.
#[test]
fn keeps_the_letters_of_names_that_look_like_numbers() {
    let text = "apiVersion: peerlane/v1\nkind: Lab\nname: 007\nvnets: { 1e3: { addressSpace: [10.0.0.0/16], \
                subnets: { 0x1f: { addressPrefix: 10.0.0.0/24 } } } }\nvms: { true: { subnet: 1e3/0x1f } }\n";
    let topology = load(text).topology;
    assert_eq!(
        (topology.name.as_str(), topology.vnets[0].name.as_str()),
        ("007", "1e3")
    );
    assert_eq!(
        (topology.subnets[0].name.as_str(), topology.vms[0].name.as_str()),
        ("0x1f", "true")
    );
}
