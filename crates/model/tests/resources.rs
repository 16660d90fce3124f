//! What a lab keeps for management clients: groups, tags, and NICs that wait for a VM.
#![expect(clippy::panic, reason = "a test may panic, its functions too")]

use model::access::object;
use model::change::{self, Changed, Operation};
use model::config::{Config, Nic, StoredResource, Vm, VmNic};
use model::{Loaded, Source};

const LAB: &str = "\
vnets: { v: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24 } } } }
networkSecurityGroups: { web: {}, rg2/web: {} }
vms: { vm0: { subnet: v/s } }
networkInterfaces: { waits: { subnet: v/s, detached: true, enableIPForwarding: true } }
resources:
  rg1: { location: eastus, tags: { Owner: Ann } }
  rg1/Microsoft.Network/virtualNetworks/v: { tags: { a: b } }
  rg1/Microsoft.Network/virtualNetworks/v/subnets/s: { properties: '{\"delegations\":[]}' }
  rg1/Microsoft.Network/networkSecurityGroups/web: { location: eastus }
  rg2/Microsoft.Network/networkSecurityGroups/web: { location: westus }
  rg1/Microsoft.Network/publicIPAddresses/pip: { properties: '{}' }
";

fn lab(body: &str) -> Loaded {
    let text = format!("apiVersion: peerlane/v1\nkind: Lab\nname: case\nprofile: azure-2025\n{body}");
    let name = "case.vnet.yaml".to_owned();
    model::load(Source::Text { name, text }).unwrap_or_else(|errors| panic!("{errors}"))
}

fn apply(config: &Config, operations: &[Operation]) -> Changed {
    change::apply(config, operations, None).unwrap_or_else(|refusal| panic!("{refusal}"))
}

#[test]
fn resources_say_the_group_of_objects() {
    let loaded = lab(LAB);
    let groups = &loaded.topology.groups;
    assert_eq!(groups.group("virtualNetworks", "V"), "rg1");
    assert_eq!(groups.group("networkSecurityGroups", "web"), "rg1");
    assert_eq!(groups.group("networkSecurityGroups", "rg2/web"), "rg2");
    assert_eq!(groups.group("virtualMachines", "vm0"), "case");
    let id = object(&loaded.config, "networkSecurityGroups", "web").id();
    assert!(id.contains("/resourceGroups/rg1/"), "{id}");
    let text = model::export(&loaded.config).unwrap();
    let name = "written".to_owned();
    assert_eq!(
        model::load(Source::Text { name, text }).unwrap().config,
        loaded.config
    );
}

#[test]
fn what_is_kept_goes_with_its_object() {
    let config = lab(LAB).config;
    let without = |name: &str| Operation::DeleteNsg {
        name: name.to_owned(),
    };
    let changed = apply(&config, &[without("rg2/web")]);
    let left: Vec<&String> = changed.config.resources.keys().collect();
    assert_eq!(left.len(), 5, "{left:?}");
    assert!(!left.iter().any(|key| key.starts_with("rg2/")));
    let key = "RG1/microsoft.network/PUBLICIPADDRESSES/pip".to_owned();
    let changed = apply(&changed.config, &[Operation::DeleteResource { key }]);
    assert_eq!(changed.config.resources.len(), 4);
    let nowhere = Operation::PutResource {
        key: "rg1/Microsoft.Network/routeTables/none".to_owned(),
        resource: Box::new(StoredResource::default()),
    };
    // Swept at once: there is no such object to say anything about.
    assert_eq!(apply(&changed.config, &[nowhere]).config.resources.len(), 4);
}

#[test]
fn a_waiting_nic_holds_its_address_and_is_not_in_the_tables() {
    let loaded = lab(LAB);
    assert_eq!(loaded.topology.nics.len(), 1);
    let waiting = &loaded.topology.detached_nics[0];
    assert_eq!(
        (waiting.name.as_str(), waiting.addresses[0].to_string().as_str()),
        ("waits", "10.1.0.5")
    );
    let gone = |name: &str| Operation::DeleteNic {
        name: name.to_owned(),
    };
    let vm = |name: &str, nic: &str| Operation::PutVm {
        name: name.to_owned(),
        vm: Box::new(Vm {
            nics: vec![VmNic {
                name: Some(nic.to_owned()),
                subnet: "v/s".to_owned(),
                private_ip_addresses: waiting
                    .addresses
                    .iter()
                    .copied()
                    .map(model::config::Address)
                    .collect(),
                ..VmNic::default()
            }],
            ..Vm::default()
        }),
    };
    let changed = apply(&loaded.config, &[gone("waits"), vm("vm1", "waits")]);
    assert_eq!(changed.topology.nics[1].addresses, waiting.addresses);
    assert!(changed.topology.detached_nics.is_empty());
    let back = Operation::PutNic {
        name: "waits".to_owned(),
        nic: Box::new(Nic {
            subnet: "v/s".to_owned(),
            detached: Some(true),
            ..Nic::default()
        }),
    };
    let last = Operation::DeleteVm {
        name: "vm1".to_owned(),
    };
    let changed = apply(&changed.config, &[last, back.clone()]);
    assert_eq!(changed.topology.nics.len(), 1);
    // A second one finds the first one's address taken.
    let Operation::PutNic { nic, .. } = back else {
        panic!()
    };
    let other = Operation::PutNic {
        name: "other".to_owned(),
        nic,
    };
    let changed = apply(&changed.config, &[other]);
    assert_eq!(
        changed.topology.detached_nics[1].addresses[0].to_string(),
        "10.1.0.6"
    );
}
