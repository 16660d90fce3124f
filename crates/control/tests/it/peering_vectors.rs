//! The peering sequences of the specification, step by step through the change layer: states, sync levels, routes, traffic.

use std::collections::BTreeSet;

use control::rib::{Rib, RouteType, scope};
use control::{Query, compile, explain};
use model::Source;
use model::change::{self, Changed, Operation, Refusal};
use model::config::{Address, Cidr, Config, DeploymentModel, Peering, Subnet, Vm, Vnet};
use serde_json::Value;

use crate::vectors::document;

const NAMES: [&str; 3] = ["A", "B", "C"];

fn names(peering: &str) -> (String, String) {
    let (from, to) = peering.split_once("->").unwrap();
    (from.to_owned(), to.to_owned())
}

fn put(peering: &str, set: &Value) -> Operation {
    let (from, to) = names(peering);
    Operation::PutPeering {
        peering: Box::new(Peering {
            name: format!("{from}-to-{to}"),
            from,
            to,
            allow_forwarded_traffic: set["allowForwardedTraffic"].as_bool(),
            ..Peering::default()
        }),
    }
}

fn delete(peering: &str) -> Operation {
    let (from, to) = names(peering);
    Operation::DeletePeering {
        name: format!("{from}-to-{to}"),
        vnet: from,
    }
}

fn sync(peering: &str) -> Operation {
    let (from, to) = names(peering);
    Operation::SyncPeering {
        name: format!("{from}-to-{to}"),
        vnet: from,
    }
}

/// VNets A, B and C with one VM each, built by operations on an empty lab.
fn start(profile: &str, models: [DeploymentModel; 2]) -> Config {
    let text = format!("apiVersion: peerlane/v1\nkind: Lab\nname: case\nprofile: {profile}\n");
    let name = "case.vnet.yaml".to_owned();
    let empty = model::load(Source::Text { name, text }).unwrap().config;
    let mut operations = Vec::new();
    for (index, name) in NAMES.iter().enumerate() {
        let net = |length: u8| Cidr(format!("10.{}.0.0/{length}", index + 1).parse().unwrap());
        let subnet = Subnet {
            address_prefix: Some(net(24)),
            ..Subnet::default()
        };
        operations.push(Operation::PutVnet {
            name: (*name).to_owned(),
            vnet: Box::new(Vnet {
                address_space: vec![net(16)],
                deployment_model: models.get(index).copied(),
                subnets: [("s".to_owned(), subnet)].into_iter().collect(),
                ..Vnet::default()
            }),
        });
        operations.push(Operation::PutVm {
            name: format!("vm-{name}"),
            vm: Box::new(Vm {
                subnet: Some(format!("{name}/s")),
                private_ip_address: Some(Address(format!("10.{}.0.4", index + 1).parse().unwrap())),
                ..Vm::default()
            }),
        });
    }
    change::apply(&empty, &operations, None).unwrap().config
}

/// The lab after the operation, or its refusal.
fn carry_out(config: &Config, operation: Operation) -> Result<Changed, Refusal> {
    change::apply(config, &[operation], None)
}

fn present(config: &Config) -> Changed {
    change::apply(config, &[], None).unwrap()
}

fn of<'a>(now: &'a Changed, peering: &str) -> Option<&'a model::topology::Peering> {
    let (from, to) = names(peering);
    let vnets = &now.topology.vnets;
    let mut all = now.topology.peerings.iter();
    all.find(|it| vnets[it.from.0].name == from && vnets[it.to.0].name == to)
}

fn state(now: &Changed, peering: &str) -> String {
    of(now, peering).map_or("absent".to_owned(), |it| format!("{:?}", it.state))
}

/// The prefixes of the peering routes of a VNet's subnets.
fn peering_routes(now: &Changed, vnet: &str) -> BTreeSet<String> {
    let index = now.topology.vnets.iter().position(|it| it.name == vnet).unwrap();
    let rib = Rib::new(&scope(&now.topology, now.topology.vnets[index].subnets[0]));
    let routes = rib
        .routes()
        .iter()
        .filter(|route| route.kind == RouteType::VnetPeering);
    routes.map(|route| route.prefix.to_string()).collect()
}

/// A TCP connection, by the tables that decide packets.
fn connects(now: &Changed, from: &str, to: &str) -> bool {
    let compiled = compile(&now.topology, 1);
    let end = |name: &str| now.topology.endpoint(&format!("vm-{name}")).unwrap();
    let query = Query {
        source: end(from),
        destination: end(to),
        protocol: model::topology::TestProtocol::Tcp,
        source_port: 50000,
        port: 80,
    };
    explain(&now.topology, &compiled, &query).unwrap().verdict == "Allow"
}

fn check_step(now: &Changed, step: &Value, id: &str) {
    for (peering, wanted) in step["expect"].as_object().into_iter().flatten() {
        assert_eq!(state(now, peering), wanted.as_str().unwrap(), "{id} {peering}");
    }
    for peering in step["absent"].as_array().into_iter().flatten() {
        assert_eq!(state(now, peering.as_str().unwrap()), "absent", "{id}");
    }
    if let Some(traffic) = step["traffic"].as_bool() {
        for (from, to) in [("A", "B"), ("B", "A")] {
            assert_eq!(connects(now, from, to), traffic, "{id} {from} {to}");
        }
    }
    if step["peeringRoutes"].is_array() {
        for vnet in ["A", "B"] {
            assert!(peering_routes(now, vnet).is_empty(), "{id} {vnet}");
        }
    }
    for (pair, wanted) in step["connectivity"].as_object().into_iter().flatten() {
        let (one, other) = pair.split_once('-').unwrap();
        assert_eq!(Some(connects(now, one, other)), wanted.as_bool(), "{id} {pair}");
        assert_eq!(Some(connects(now, other, one)), wanted.as_bool(), "{id} {pair}");
    }
    for (vnet, remotes) in step["peeringRoutes"].as_object().into_iter().flatten() {
        let space = |name: &Value| {
            let index = NAMES.iter().position(|it| name == it).unwrap();
            format!("10.{}.0.0/16", index + 1)
        };
        let wanted: BTreeSet<String> = remotes.as_array().unwrap().iter().map(space).collect();
        assert_eq!(peering_routes(now, vnet), wanted, "{id} {vnet}");
    }
}

/// Shows: PEER-03, PEER-04, PEER-05, PEER-06, PEER-07, PEER-09, PEER-12, PEER-31.
#[test]
fn peerings_go_through_the_states_of_the_vectors() {
    let vectors = document("peering_state_machine.json");
    for sequence in vectors["sequences"].as_array().unwrap() {
        let id = sequence["id"].as_str().unwrap();
        let wanted = &sequence["profile"];
        let both = ["azure-2018", "azure-2025"].into_iter();
        for profile in both.filter(|it| wanted == "both" || wanted == it) {
            let steps = sequence["steps"].as_array().unwrap();
            let model = |side: &str| match steps[0][side].as_str() {
                Some("Classic") => DeploymentModel::Classic,
                _ => DeploymentModel::ResourceManager,
            };
            let mut config = start(profile, [model("modelA"), model("modelB")]);
            for step in steps {
                let peering = step["peering"].as_str().unwrap_or("");
                let result = match step["op"].as_str().unwrap() {
                    "create" | "update" => carry_out(&config, put(peering, &step["set"])),
                    "delete" => carry_out(&config, delete(peering)),
                    "check" => Ok(present(&config)),
                    other => panic!("{id}: unknown step {other}"),
                };
                let now = match (result, step["error"].as_str()) {
                    (Ok(now), None) => now,
                    (Err(refusal), Some(code)) => {
                        assert_eq!(refusal.code, code, "{id}");
                        present(&config)
                    }
                    (Ok(_), Some(code)) => panic!("{id}: not refused with {code}"),
                    (Err(refusal), None) => panic!("{id}: {refusal}"),
                };
                assert_eq!(now.transient, step["transient"].as_str(), "{id}");
                check_step(&now, step, id);
                config = now.config;
            }
        }
    }
}

fn prefixes(list: &Value) -> Vec<Cidr> {
    let list = list.as_array().into_iter().flatten();
    list.map(|it| Cidr(it.as_str().unwrap().parse().unwrap()))
        .collect()
}

fn shown(space: &[ipnet::IpNet]) -> Vec<String> {
    space.iter().map(ToString::to_string).collect()
}

/// A VNet with another address space, its subnets as they are.
fn grown(config: &Config, vnet: &str, space: Vec<Cidr>) -> Operation {
    let vnet_now = config.vnets.get(vnet).unwrap().clone();
    Operation::PutVnet {
        name: vnet.to_owned(),
        vnet: Box::new(Vnet {
            address_space: space,
            ..vnet_now
        }),
    }
}

/// Shows: PEER-15, PEER-16, PEER-17, PEER-18.
#[test]
fn address_spaces_change_and_synchronise_as_the_vectors_say() {
    let vectors = document("peering_sync.json");
    for sequence in vectors["sequences"].as_array().unwrap() {
        let id = sequence["id"].as_str().unwrap();
        let profile = sequence["profile"].as_str().unwrap();
        let mut config = start(profile, [DeploymentModel::ResourceManager; 2]);
        for peering in ["A->B", "B->A"] {
            config = carry_out(&config, put(peering, &Value::Null)).unwrap().config;
        }
        for step in sequence["steps"].as_array().unwrap() {
            let peering = step["peering"].as_str().unwrap_or("");
            let mut space = prefixes(&step["prefixes"]);
            if space.is_empty() {
                space = prefixes(&serde_json::json!(["10.1.0.0/16", "10.99.0.0/16"]));
            }
            let result = match step["op"].as_str() {
                None => Ok(present(&config)),
                Some("update-address-space") => {
                    carry_out(&config, grown(&config, step["vnet"].as_str().unwrap(), space))
                }
                Some("sync") => carry_out(&config, sync(peering)),
                Some("create") => carry_out(&config, put(peering, &Value::Null)),
                Some("delete") => carry_out(&config, delete(peering)),
                Some(other) => panic!("{id}: unknown step {other}"),
            };
            let now = match (result, step["error"].as_str()) {
                (Ok(now), None) => now,
                (Err(refusal), Some(code)) => {
                    assert_eq!(refusal.code, code, "{id}");
                    present(&config)
                }
                (Ok(_), Some(code)) => panic!("{id}: not refused with {code}"),
                (Err(refusal), None) => panic!("{id}: {refusal}"),
            };
            check_sync(&now, step, id);
            config = now.config;
        }
    }
}

fn check_sync(now: &Changed, step: &Value, id: &str) {
    for (peering, wanted) in step["expect"].as_object().into_iter().flatten() {
        let found = of(now, peering).unwrap();
        let said = [format!("{:?}", found.sync_level), format!("{:?}", found.state)];
        assert!(
            said.contains(&wanted.as_str().unwrap().to_owned()),
            "{id} {peering} {said:?}"
        );
    }
    let list = |value: &Value| -> Option<Vec<String>> {
        let list = value.as_array()?.iter();
        Some(list.map(|it| it.as_str().unwrap().to_owned()).collect())
    };
    if let Some(wanted) = list(&step["peeringRoutesInB"]) {
        assert_eq!(peering_routes(now, "B"), wanted.into_iter().collect(), "{id}");
    }
    let back = of(now, "B->A");
    if let Some(wanted) = list(&step["B->A.remoteAddressSpace"]) {
        assert_eq!(shown(&back.unwrap().remote_address_space), wanted, "{id}");
    }
    if let Some(wanted) = list(&step["B->A.remoteVirtualNetworkAddressSpace"]) {
        assert_eq!(shown(&back.unwrap().remote_current_space), wanted, "{id}");
    }
}

/// Shows: PEER-01.
#[test]
fn a_peering_shows_its_properties() {
    for (profile, modern) in [("azure-2018", false), ("azure-2025", true)] {
        let config = start(profile, [DeploymentModel::ResourceManager; 2]);
        let one = carry_out(&config, put("A->B", &Value::Null)).unwrap().config;
        let now = carry_out(&one, put("B->A", &Value::Null)).unwrap();
        let shown = serde_json::to_value(control::present::peerings(&now.topology)).unwrap();
        let wanted = serde_json::json!({
            "name": "A-to-B", "from": "A", "to": "B", "peeringState": "Connected", "provisioningState": "Succeeded",
            "peeringSyncLevel": "FullyInSync", "allowVirtualNetworkAccess": true, "allowForwardedTraffic": false,
            "allowGatewayTransit": false, "useRemoteGateways": false, "remoteAddressSpace": ["10.2.0.0/16"],
            "remoteVirtualNetworkAddressSpace": ["10.2.0.0/16"]
        });
        for (property, value) in wanted.as_object().unwrap() {
            assert_eq!(&shown[0][property], value, "{property}");
        }
        for property in [
            "peerCompleteVnets",
            "enableOnlyIPv6Peering",
            "localSubnetNames",
            "doNotVerifyRemoteGateways",
        ] {
            assert_eq!(shown[0].get(property).is_some(), modern, "{property}");
        }
        assert_eq!(shown[0]["resourceGuid"], shown[1]["resourceGuid"]);
    }
}

/// Shows: PEER-32.
#[test]
fn a_classic_subnet_follows_its_peering_routes_without_listing_them() {
    let config = start(
        "azure-2018",
        [DeploymentModel::ResourceManager, DeploymentModel::Classic],
    );
    let now = carry_out(&config, put("A->B", &Value::Null)).unwrap();
    let listed = |vnet: usize| {
        let nic = model::topology::NicIndex(vnet);
        let table = control::present::effective_routes(&now.topology, nic);
        serde_json::to_string(&table).unwrap().contains("VNetPeering")
    };
    assert!(listed(0) && !listed(1));
    assert!(connects(&now, "B", "A"));
}
