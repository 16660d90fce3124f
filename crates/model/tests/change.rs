//! Operations on a lab: what they lead to, and what refuses them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic, its functions too"
)]

use model::change::{self, Changed, Operation};
use model::config::{Cidr, Config, Peering, Subnet, Vnet};
use model::topology::{PeeringState, SyncLevel};
use model::{Loaded, Source};

fn lab(profile: &str, body: &str) -> Loaded {
    let text = format!("apiVersion: peerlane/v1\nkind: Lab\nname: case\nprofile: {profile}\n{body}");
    let name = "case.vnet.yaml".to_owned();
    model::load(Source::Text { name, text }).unwrap_or_else(|errors| panic!("{errors}"))
}

fn put(from: &str, to: &str) -> Operation {
    Operation::PutPeering {
        peering: Box::new(Peering {
            name: format!("{from}-to-{to}"),
            from: from.to_owned(),
            to: to.to_owned(),
            ..Peering::default()
        }),
    }
}

fn delete(from: &str, to: &str) -> Operation {
    Operation::DeletePeering {
        vnet: from.to_owned(),
        name: format!("{from}-to-{to}"),
    }
}

fn apply(config: &Config, operations: &[Operation]) -> Changed {
    change::apply(config, operations, None).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn states(changed: &Changed) -> Vec<PeeringState> {
    changed.topology.peerings.iter().map(|it| it.state).collect()
}

const TWO: &str = "vnets: { A: { addressSpace: [10.1.0.0/16] }, B: { addressSpace: [10.2.0.0/16] } }\n";

/// Shows: PEER-03, PEER-04, PEER-05, PEER-06.
#[test]
fn a_peering_goes_through_its_states() {
    use PeeringState::{Connected, Disconnected, Initiated};
    let start = lab("azure-2025", TWO).config;
    let one = apply(&start, &[put("A", "B")]);
    assert_eq!(states(&one), [Initiated]);
    let both = apply(&one.config, &[put("B", "A")]);
    assert_eq!(states(&both), [Connected, Connected]);
    let left = apply(&both.config, &[delete("B", "A")]);
    assert_eq!(states(&left), [Disconnected]);
    let refusal = change::apply(&left.config, &[put("B", "A")], None).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.status()),
        ("RemotePeeringIsDisconnected", 400)
    );
    let updated = apply(&left.config, &[put("A", "B")]);
    assert_eq!(states(&updated), [Initiated]);
}

#[test]
fn a_new_file_is_a_sequence_of_operations() {
    let old = lab("azure-2025", &format!("{TWO}peerings: [A <-> B]\n"));
    let new = lab(
        "azure-2025",
        &format!("{TWO}peerings: [{{ name: A-to-B, from: A, to: B }}]\n"),
    );
    let changed = change::converge(&old.config, &new.config).unwrap();
    assert_eq!(states(&changed), [PeeringState::Disconnected]);
    let back = change::converge(&changed.config, &old.config).unwrap();
    assert_eq!(states(&back), [PeeringState::Connected; 2]);
}

fn refused(config: &Config, operation: Operation) -> &'static str {
    match change::apply(config, &[operation], None) {
        Err(refusal) => refusal.code,
        Ok(_) => panic!("carried out"),
    }
}

fn vnet(space: &[&str]) -> Vnet {
    Vnet {
        address_space: space.iter().map(|range| Cidr(range.parse().unwrap())).collect(),
        ..Vnet::default()
    }
}

fn put_vnet(name: &str, space: &[&str]) -> Operation {
    Operation::PutVnet {
        name: name.to_owned(),
        vnet: Box::new(vnet(space)),
    }
}

fn delete_vnet(name: &str) -> Operation {
    Operation::DeleteVnet {
        name: name.to_owned(),
    }
}

/// Shows: PEER-05, PEER-06, PEER-14.
#[test]
fn what_is_left_of_a_peering_to_a_deleted_vnet_still_blocks() {
    for profile in ["azure-2018", "azure-2025"] {
        let body = "vnets: { A: { addressSpace: [10.1.0.0/16] }, B: { addressSpace: [10.2.0.0/16] }, \
                    C: { addressSpace: [10.3.0.0/16] } }\npeerings: [A <-> B, C <-> B]\n";
        let without = apply(&lab(profile, body).config, &[delete_vnet("C")]);
        assert_eq!(states(&without), [PeeringState::Connected; 2]);
        let [orphan] = without.topology.orphaned_peerings.as_slice() else {
            panic!("no trace of the peering");
        };
        assert_eq!((orphan.name.as_str(), orphan.to.as_str()), ("B-to-C", "C"));
        // Another VNet with the addresses that C had cannot be peered with B.
        let next = apply(&without.config, &[put_vnet("D", &["10.3.128.0/17"])]);
        let code = refused(&next.config, put("D", "B"));
        assert_eq!(code, "VnetAddressSpaceOverlapsWithAlreadyPeeredVnet");
        // C again, with other addresses: the peering to it is Disconnected until it is put again.
        let again = apply(&without.config, &[put_vnet("C", &["10.4.0.0/16"])]);
        assert!(again.topology.orphaned_peerings.is_empty());
        assert_eq!(
            again.topology.peerings.last().unwrap().state,
            PeeringState::Disconnected
        );
        let cleared = apply(&next.config, &[delete("B", "C"), put("D", "B"), put("B", "D")]);
        assert_eq!(states(&cleared), [PeeringState::Connected; 4]);
    }
}

/// Shows: PEER-14.
#[test]
fn a_third_vnet_blocks_from_either_side_and_what_is_still_peered_too() {
    let body = "vnets: { A: { addressSpace: [10.1.0.0/16] }, B: { addressSpace: [10.2.0.0/16] }, \
                C: { addressSpace: [10.3.0.0/16, 10.9.0.0/16] }, D: { addressSpace: [10.9.1.0/24] } }\n\
                peerings: [B <-> C]\n";
    let start = lab("azure-2025", body).config;
    for operation in [put("D", "B"), put("B", "D")] {
        assert_eq!(
            refused(&start, operation),
            "VnetAddressSpaceOverlapsWithAlreadyPeeredVnet"
        );
    }
    // C gives the range up, but B has not synchronised: it is still peered.
    let shrunk = apply(&start, &[put_vnet("C", &["10.3.0.0/16"])]);
    assert_eq!(
        refused(&shrunk.config, put("D", "B")),
        "VnetAddressSpaceOverlapsWithAlreadyPeeredVnet"
    );
    let synced = apply(
        &shrunk.config,
        &[Operation::SyncPeering {
            vnet: "b".to_owned(),
            name: "b-TO-c".to_owned(),
        }],
    );
    assert_eq!(states(&apply(&synced.config, &[put("D", "B")])).len(), 3);
}

/// Shows: PEER-02, PEER-08, PEER-09.
#[test]
fn one_side_changes_and_goes_without_the_other() {
    let body = format!("{TWO}peerings: [A <-> B]\n");
    for profile in ["azure-2018", "azure-2025"] {
        let start = lab(profile, &body).config;
        let mut flags = Peering {
            name: "A-to-B".to_owned(),
            from: "A".to_owned(),
            to: "B".to_owned(),
            allow_virtual_network_access: Some(false),
            allow_forwarded_traffic: Some(true),
            ..Peering::default()
        };
        let operation = Operation::PutPeering {
            peering: Box::new(flags.clone()),
        };
        let changed = apply(&start, &[operation]);
        assert_eq!(states(&changed), [PeeringState::Connected; 2]);
        assert!(!changed.topology.peerings[0].allow_virtual_network_access);
        assert!(changed.topology.peerings[1].allow_virtual_network_access);
        let left = apply(&changed.config, &[delete("A", "B")]);
        assert_eq!(left.topology.peerings.len(), 1);
        assert_eq!(left.topology.peerings[0].name, "B-to-A");
        let more = apply(&changed.config, &[put_vnet("C", &["10.3.0.0/16"])]);
        "C".clone_into(&mut flags.to);
        let operation = Operation::PutPeering {
            peering: Box::new(flags),
        };
        assert_eq!(
            refused(&more.config, operation),
            "ChangingRemoteVirtualNetworkNotAllowed"
        );
        assert_eq!(refused(&start, delete("A", "C")), "ResourceNotFound");
    }
}

/// Shows: PEER-06.
#[test]
fn azure_2018_recovers_only_by_deleting_and_creating_again() {
    let body = format!("{TWO}peerings: [{{ name: A-to-B, from: A, to: B, peeringState: Disconnected }}]\n");
    let start = lab("azure-2018", &body).config;
    assert_eq!(
        states(&apply(&start, &[put("A", "B")])),
        [PeeringState::Disconnected]
    );
    let again = apply(&start, &[delete("A", "B"), put("A", "B"), put("B", "A")]);
    assert_eq!(states(&again), [PeeringState::Connected; 2]);
}

/// Shows: PEER-16, PEER-17, PEER-18.
#[test]
fn both_sides_can_be_out_of_sync() {
    let start = lab("azure-2025", &format!("{TWO}peerings: [A <-> B]\n")).config;
    let one = apply(&start, &[put_vnet("A", &["10.1.0.0/16", "10.5.0.0/16"])]);
    let both = apply(&one.config, &[put_vnet("B", &["10.2.0.0/17"])]);
    let levels = |changed: &Changed| -> Vec<SyncLevel> {
        changed.topology.peerings.iter().map(|it| it.sync_level).collect()
    };
    assert_eq!(levels(&both), [SyncLevel::LocalAndRemoteNotInSync; 2]);
    let sync = |vnet: &str, name: &str| Operation::SyncPeering {
        vnet: vnet.to_owned(),
        name: name.to_owned(),
    };
    let first = apply(&both.config, &[sync("A", "A-to-B")]);
    assert_eq!(
        levels(&first),
        [SyncLevel::RemoteNotInSync, SyncLevel::LocalNotInSync]
    );
    // The side that changed has nothing to synchronise.
    let still = apply(&first.config, &[sync("A", "A-to-B")]);
    assert_eq!(
        levels(&still),
        [SyncLevel::RemoteNotInSync, SyncLevel::LocalNotInSync]
    );
    let done = apply(&first.config, &[sync("B", "B-to-A")]);
    assert_eq!(levels(&done), [SyncLevel::FullyInSync; 2]);
    assert_eq!(done.topology.peerings[1].remote_address_space.len(), 2);
    // Going back is in sync again, and a range of the peer is refused.
    assert_eq!(
        levels(&apply(&one.config, &[put_vnet("A", &["10.1.0.0/16"])])),
        [SyncLevel::FullyInSync; 2]
    );
    assert_eq!(
        refused(&start, put_vnet("A", &["10.1.0.0/16", "10.2.3.0/24"])),
        "VnetAddressSpacesOverlap"
    );
    let old = lab("azure-2018", &format!("{TWO}peerings: [A <-> B]\n")).config;
    assert_eq!(refused(&old, sync("A", "A-to-B")), "Sim.PEER-17");
}

/// Shows: VNET-01, VNET-09, ROUTE-10, NSG-02.
#[test]
fn what_is_in_use_stays() {
    let body = "vnets: { A: { addressSpace: [10.1.0.0/16, 10.5.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24, \
                routeTable: t, networkSecurityGroup: g }, free: { addressPrefix: 10.5.0.0/24 } } } }\n\
                routeTables: { t: {} }\nnetworkSecurityGroups: { g: {} }\nvms: { m: { subnet: a/S } }\n";
    let start = lab("azure-2025", body).config;
    let subnet = |prefix: &str| {
        Box::new(Subnet {
            address_prefix: Some(Cidr(prefix.parse().unwrap())),
            ..Subnet::default()
        })
    };
    let name = |name: &str| name.to_owned();
    let put = |subnet_name: &str, prefix: &str| Operation::PutSubnet {
        vnet: name("A"),
        name: name(subnet_name),
        subnet: subnet(prefix),
    };
    let delete = |subnet: &str| Operation::DeleteSubnet {
        vnet: name("A"),
        name: name(subnet),
    };
    assert_eq!(refused(&start, delete("s")), "InUseSubnetCannotBeDeleted");
    assert_eq!(refused(&start, delete_vnet("A")), "InUseSubnetCannotBeDeleted");
    assert_eq!(refused(&start, put("s", "10.1.0.0/25")), "Sim.VNET-09");
    assert_eq!(
        refused(&start, Operation::DeleteRouteTable { name: name("T") }),
        "InUseRouteTableCannotBeDeleted"
    );
    assert_eq!(
        refused(&start, Operation::DeleteNsg { name: name("G") }),
        "InUseNetworkSecurityGroupCannotBeDeleted"
    );
    let with = |change: fn(&mut Vnet)| {
        let mut vnet = start.vnets["A"].clone();
        change(&mut vnet);
        Operation::PutVnet {
            name: "a".to_owned(),
            vnet: Box::new(vnet),
        }
    };
    assert_eq!(
        refused(&start, with(|it| it.location = Some("westeurope".to_owned()))),
        "Sim.VNET-01"
    );
    assert_eq!(
        refused(&start, with(|it| it.address_space.truncate(1))),
        "Sim.VNET-09"
    );
    assert_eq!(
        refused(&start, with(|it| drop(it.subnets.shift_remove("s")))),
        "InUseSubnetCannotBeDeleted"
    );
    apply(&start, &[put("free", "10.5.0.0/25"), delete("free")]);
    let gone = apply(
        &start,
        &[
            Operation::DeleteVm { name: name("M") },
            put("s", "10.1.0.0/25"),
            Operation::DeleteRouteTable { name: name("t") },
            Operation::DeleteNsg { name: name("g") },
            delete("s"),
            delete_vnet("A"),
        ],
    );
    assert!(gone.topology.vnets.is_empty());
}

/// A lab of the corporate and the classic world, and who works there.
const OFFICE: &str = "subscriptions: { corp: { tenant: contoso }, lab: { tenant: fabrikam } }
principals:
  net: { roles: [ { role: network contributor, scope: corp }, { role: Classic Network Contributor, scope: office } ] }
  reader: { roles: [ { role: Reader, scope: / } ] }
  writer: { roles: [ { role: vnets, scope: corp } ] }
  partial: { roles: [ { role: almost, scope: corp } ] }
  near: { roles: [ { role: peerer, scope: A }, { role: Owner, scope: X } ] }
  far: { roles: [ { role: peerer, scope: A }, { role: Contributor, scope: B } ] }
  classic: { roles: [ { role: peerer, scope: A }, { role: classics, scope: office } ] }
  maker: { roles: [ { role: makes, scope: A } ] }
  remover: { roles: [ { role: removes, scope: A } ] }
roles:
  vnets: { actions: [microsoft.network/virtualNetworks/Read, Microsoft.Network/virtualNetworks/write] }
  almost: { actions: [Microsoft.Network/*], notActions: [Microsoft.Network/virtualNetworks/peer/*] }
  peerer: { actions: [Microsoft.Network/*/virtualNetworkPeerings/*] }
  classics: { actions: [Microsoft.ClassicNetwork/virtualNetworks/read, Microsoft.ClassicNetwork/virtualNetworks/write] }
  makes: { actions: [Microsoft.Network/virtualNetworks/virtualNetworkPeerings/write] }
  removes: { actions: [Microsoft.Network/virtualNetworks/virtualNetworkPeerings/delete] }
vnets:
  A: { addressSpace: [10.1.0.0/16], subscription: corp }
  B: { addressSpace: [10.2.0.0/16], subscription: corp }
  X: { addressSpace: [10.3.0.0/16], subscription: lab }
  old: { addressSpace: [10.4.0.0/16], deploymentModel: Classic }
";

/// Shows: PEER-33, PEER-34, PEER-35.
#[test]
fn rights_decide_who_may_peer() {
    let text = format!("resourceGroup: office\n{OFFICE}");
    let start = lab("azure-2025", &text).config;
    let ask = |actor: &str, operation: Operation| {
        change::apply(&start, &[operation], Some(actor))
            .err()
            .map(|refusal| refusal.code)
    };
    assert_eq!(ask("net", put("A", "B")), None);
    assert_eq!(ask("NET", put("A", "old")), None);
    assert_eq!(ask("net", put("A", "X")), Some("LinkedAuthorizationFailed"));
    assert_eq!(ask("reader", put("A", "B")), Some("AuthorizationFailed"));
    assert_eq!(ask("nobody", put("A", "B")), Some("AuthorizationFailed"));
    // Whoever reads and writes VNets may peer them; not where the role says otherwise.
    assert_eq!(ask("writer", put("A", "B")), None);
    assert_eq!(ask("classic", put("A", "old")), None);
    assert_eq!(ask("near", put("A", "old")), Some("LinkedAuthorizationFailed"));
    assert_eq!(ask("partial", put("A", "B")), Some("LinkedAuthorizationFailed"));
    // The right on one VNet is not the right on the other; subscriptions and tenants may differ.
    assert_eq!(ask("near", put("A", "B")), Some("LinkedAuthorizationFailed"));
    assert_eq!(ask("near", put("A", "X")), None);
    assert_eq!(ask("far", put("A", "B")), None);
    assert_eq!(ask("far", put("B", "A")), Some("LinkedAuthorizationFailed"));
    assert_eq!(
        ask("writer", Operation::DeleteVm { name: "m".to_owned() }),
        Some("AuthorizationFailed")
    );
    assert_eq!(
        ask("writer", put_vnet("B", &["10.2.0.0/17"])),
        Some("Sim.VNET-01")
    );
    assert_eq!(
        ask("reader", put_vnet("N", &["10.7.0.0/16"])),
        Some("AuthorizationFailed")
    );
    // A body that names another is the asker's all the same.
    let Operation::PutPeering { mut peering } = put("A", "B") else {
        unreachable!()
    };
    peering.principal = Some("net".to_owned());
    assert_eq!(
        ask("reader", Operation::PutPeering { peering }),
        Some("AuthorizationFailed")
    );
    // A new VNet is made in the subscription that it says.
    let Operation::PutVnet { name, mut vnet } = put_vnet("N", &["10.7.0.0/16"]) else {
        unreachable!()
    };
    let new = |vnet| Operation::PutVnet {
        name: name.clone(),
        vnet,
    };
    assert_eq!(ask("writer", new(vnet.clone())), Some("AuthorizationFailed"));
    vnet.subscription = Some("corp".to_owned());
    assert_eq!(ask("writer", new(vnet)), None);
    // Deleting has its own right.
    let peered = change::apply(&start, &[put("A", "B"), put("B", "A")], Some("net")).unwrap();
    assert_eq!(peered.config.peerings.len(), 2);
    let delete = |actor| {
        change::apply(&peered.config, &[delete("A", "B")], Some(actor))
            .err()
            .map(|it| it.code)
    };
    assert_eq!(delete("reader"), Some("AuthorizationFailed"));
    assert_eq!(delete("far"), None);
    assert_eq!(delete("maker"), Some("AuthorizationFailed"));
    assert_eq!(delete("remover"), None);
    // Tenants of azure-2018 must be one.
    let old = lab("azure-2018", &text).config;
    let refusal = change::apply(&old, &[put("A", "X")], None).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.status()),
        ("LinkedAuthorizationFailed", 403)
    );
}

/// A peering in the short form is written out before a change of one of its VNets.
/// Shows: PEER-31.
#[test]
fn a_classic_vnet_owns_no_object_after_a_change() {
    let body = "vnets: { A: { addressSpace: [10.1.0.0/16] }, B: { addressSpace: [10.2.0.0/16] },\n\
                old: { addressSpace: [10.4.0.0/16], deploymentModel: Classic } }\npeerings: [old <-> A]\n";
    let start = lab("azure-2018", body).config;
    let changed = apply(&start, &[put("A", "B")]);
    let names: Vec<&str> = changed
        .topology
        .peerings
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(names, ["A-to-old", "A-to-B"]);
    assert_eq!(
        states(&changed),
        [PeeringState::Connected, PeeringState::Initiated]
    );
}

#[test]
fn a_nic_keeps_its_address_when_others_come_and_go() {
    let body = "vnets: { A: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24 } } } }\n\
                vms: { m0: { subnet: A/s }, m1: { subnet: A/s } }\n";
    let start = lab("azure-2018", body).config;
    let without = apply(
        &start,
        &[Operation::DeleteVm {
            name: "m0".to_owned(),
        }],
    );
    assert_eq!(without.topology.nics[0].addresses[0].to_string(), "10.1.0.5");
    let new = lab("azure-2018", &body.replace("m0: { subnet: A/s }, ", "")).config;
    assert!(change::between(&without.config, &new).is_empty());
    let converged = change::converge(&start, &new).unwrap();
    assert_eq!(converged.topology.nics[0].addresses[0].to_string(), "10.1.0.5");
}

/// Shows: VNET-10, NSG-34, ROUTE-34, PEER-38.
#[test]
fn limits_are_the_profiles_and_may_be_given() {
    let body = "vnets: { A: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24 }, \
                t: { addressPrefix: 10.1.1.0/24 } } }, B: { addressSpace: [10.2.0.0/16], \
                subnets: { s: { addressPrefix: 10.2.0.0/24 } } }, C: { addressSpace: [10.3.0.0/16] } }\n\
                peerings: [A <-> B, A <-> C]\n\
                vms: { a: { subnet: A/s }, b: { subnet: B/s }, \
                c: { nics: [ { subnet: A/s, privateIPAddresses: [10.1.0.8, 10.1.0.9], applicationSecurityGroups: [g1, g2] } ] } }\n\
                applicationSecurityGroups: { g1: {}, g2: {} }\n\
                networkSecurityGroups: { n1: { securityRules: { r1: { priority: 100, direction: Inbound, access: Deny, protocol: Tcp, \
                sourceApplicationSecurityGroups: [g1, g2] }, r2: { priority: 101, direction: Inbound, access: Deny, protocol: Tcp, \
                sourceAddressPrefixes: [10.0.0.1, 10.0.0.2] } } }, n2: {} }\n\
                routeTables: { t1: { routes: { r1: { addressPrefix: 10.8.0.0/16, nextHopType: None }, \
                r2: { addressPrefix: 10.9.0.0/16, nextHopType: None } } }, t2: {} }\n";
    let lowered = [
        ("virtualNetworks: 2", "VnetCountLimitReached"),
        ("subnetsPerVirtualNetwork: 1", "Sim.VNET-10"),
        ("privateIPAddressesPerVirtualNetwork: 2", "Sim.VNET-10"),
        ("privateIPAddressesPerPeeredVirtualNetworks: 3", "Sim.VNET-10"),
        ("privateIPAddressesPerNetworkInterface: 1", "Sim.VNET-10"),
        ("networkInterfaces: 2", "Sim.VNET-10"),
        ("peeringsPerVirtualNetwork: 1", "Sim.PEER-38"),
        ("networkSecurityGroups: 1", "Sim.NSG-34"),
        ("rulesPerNetworkSecurityGroup: 1", "Sim.NSG-34"),
        ("addressesPerRuleField: 1", "Sim.NSG-34"),
        ("applicationSecurityGroups: 1", "Sim.NSG-34"),
        ("applicationSecurityGroupsPerNetworkInterface: 1", "Sim.NSG-34"),
        ("applicationSecurityGroupsPerRuleField: 1", "Sim.NSG-34"),
        (
            "applicationSecurityGroupsPerNetworkSecurityGroup: 1",
            "Sim.NSG-34",
        ),
        ("routeTables: 1", "Sim.ROUTE-34"),
        ("routesPerRouteTable: 1", "Sim.ROUTE-34"),
    ];
    for profile in ["azure-2018", "azure-2025"] {
        lab(profile, body);
        for (limit, code) in lowered {
            let text = format!(
                "apiVersion: peerlane/v1\nkind: Lab\nname: case\nprofile: {profile}\nsettings: {{ limits: {{ {limit} }} }}\n{body}"
            );
            let name = "case.vnet.yaml".to_owned();
            let errors = model::load(Source::Text { name, text }).unwrap_err().errors;
            assert!(
                errors.iter().all(|error| error.code == code),
                "{limit}: {errors:?}"
            );
        }
    }
    let raised = |profile: &str, limit: &str| {
        let text = format!(
            "apiVersion: peerlane/v1\nkind: Lab\nname: case\nprofile: {profile}\nsettings: {{ limits: {{ {limit} }} }}\n"
        );
        model::load(Source::Text {
            name: "case.vnet.yaml".to_owned(),
            text,
        })
        .err()
        .map(|it| it.errors[0].code)
    };
    // The most of each profile, and one more.
    for (limit, old, new) in [
        ("peeringsPerVirtualNetwork", 50, 1000),
        ("rulesPerNetworkSecurityGroup", 1000, 1000),
        ("subnetsPerVirtualNetwork", 10_000, 3000),
        ("routesPerRouteTable", 400, 400),
        ("networkSecurityGroups", 5000, 5000),
        ("routeTables", 200, 200),
        ("privateIPAddressesPerVirtualNetwork", 8192, 65_536),
        ("virtualNetworks", 1000, 1000),
    ] {
        for (profile, most) in [("azure-2018", old), ("azure-2025", new)] {
            assert_eq!(
                raised(profile, &format!("{limit}: {most}")),
                None,
                "{profile} {limit}"
            );
            assert!(
                raised(profile, &format!("{limit}: {}", most + 1)).is_some(),
                "{profile} {limit}"
            );
        }
    }
}
