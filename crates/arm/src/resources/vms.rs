//! Virtual machines: a namespace with the NICs of `networkProfile`. Image, disks and login are kept and do nothing.

use model::change::Operation;
use model::config::{Vm, VmNic};
use serde_json::{Map, Value, json};

use super::body::guid;
use super::kinds::{By, COMPUTE, Kind, NICS, VMS};
use super::lab::{Lab, Target};
use super::nics;
use super::read::Reader;
use crate::id::same;
use crate::{Error, Reply, Request};

/// What a VM is shown to have where nobody said a size: the smallest of the present series.
const DEFAULT_SIZE: &str = "Standard_B1s";

pub(super) const KIND: Kind = Kind {
    provider: COMPUTE,
    name: VMS,
    // `deleteOption` of the NICs is kept in networkProfile.
    owned: &["hardwareProfile", "instanceView"],
    children: &[],
    carried_out: By::Model {
        keys: |lab| lab.config.vms.keys().cloned().collect(),
        show,
        put,
        delete: |lab, key| Ok(delete(lab, key, None)),
    },
};

/// The state of power, where the client asks for it.
pub(super) fn expand(lab: &Lab<'_>, key: &str, request: &Request, body: &mut Value) {
    let asked = request
        .parameter("$expand")
        .is_some_and(|it| same(it, "instanceView"));
    if let (true, Some(Value::Object(properties))) = (asked, body.get_mut("properties")) {
        properties.insert("instanceView".to_owned(), instance_view(lab, key));
    }
}

pub(super) fn instance_view(lab: &Lab<'_>, key: &str) -> Value {
    let (code, shown) = if running(lab, key) {
        ("PowerState/running", "VM running")
    } else {
        ("PowerState/deallocated", "VM deallocated")
    };
    json!({
        "computerName": key,
        "statuses": [
            { "code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded", "time": lab.view.now },
            { "code": code, "level": "Info", "displayStatus": shown },
        ],
    })
}

/// start, powerOff, deallocate, restart.
pub(super) fn act(lab: &Lab<'_>, key: &str, action: &str) -> Result<Reply, Error> {
    let known = [
        "start",
        "restart",
        "powerOff",
        "deallocate",
        "redeploy",
        "reapply",
        "generalize",
    ];
    let Some(action) = known.iter().find(|known| same(known, action)) else {
        return Err(Error::new(
            404,
            "NotFound",
            format!("virtual machines have no action '{action}'"),
        ));
    };
    match (*action, running(lab, key)) {
        ("start" | "reapply", true) => Ok(Reply::empty(200)),
        _ => Err(Error::new(
            409,
            "OperationNotAllowed",
            format!("'{action}' is not carried out here: delete the VM, or start it again"),
        )),
    }
}

/// The VM goes, and leaves its NICs behind, but those that go with it; `group`: everything in it is deleted.
pub(super) fn delete(lab: &Lab<'_>, key: &str, group: Option<&str>) -> Vec<Operation> {
    let mut operations = vec![Operation::DeleteVm { name: key.to_owned() }];
    let kept = lab.kept_properties(&lab.entry_key(&KIND, key));
    for (index, (name, nic)) in nics_of(lab, key).into_iter().enumerate() {
        let option = kept
            .get("networkProfile")
            .map(|it| &it["networkInterfaces"][index]["properties"]["deleteOption"]);
        let with_it = option
            .and_then(Value::as_str)
            .is_some_and(|it| same(it, "Delete"));
        let gone = group.is_some_and(|group| same(&lab.group_of(&nics::KIND, &name), group));
        if !with_it && !gone {
            operations.push(nics::waiting(lab, &name, &nic));
        }
    }
    operations
}

fn show(lab: &Lab<'_>, key: &str) -> Map<String, Value> {
    let Some(vm) = lab.config.vms.get(key) else {
        return Map::new();
    };
    let mut properties = Map::new();
    properties.insert("vmId".to_owned(), json!(guid(&lab.id(&KIND, key))));
    let size = vm.size.as_deref().unwrap_or(DEFAULT_SIZE);
    properties.insert("hardwareProfile".to_owned(), json!({ "vmSize": size }));
    let kept = lab.kept_properties(&lab.entry_key(&KIND, key));
    let nics = nics_of(lab, key)
        .into_iter()
        .enumerate()
        .map(|(index, (name, _))| {
            let mut reference = lab.reference(NICS, &name);
            let own = kept
                .get("networkProfile")
                .map(|it| it["networkInterfaces"][index]["properties"].clone());
            let mut own = own.filter(Value::is_object).unwrap_or_else(|| json!({}));
            own["primary"] = json!(index == 0);
            reference["properties"] = own;
            reference
        });
    let nics: Vec<Value> = nics.collect();
    properties.insert("networkProfile".to_owned(), json!({ "networkInterfaces": nics }));
    properties
}

fn put(lab: &Lab<'_>, target: &Target<'_>, body: &Value) -> Result<Vec<Operation>, Error> {
    let given = Reader::new(body, "")?.object("properties")?;
    let profile = given.object("networkProfile")?;
    let old = lab.config.vms.get(&target.key);
    let size = given.object("hardwareProfile")?.text("vmSize")?;
    let mut vm = old.cloned().unwrap_or_else(Vm::default);
    if size != Some(DEFAULT_SIZE) || vm.size.is_some() {
        vm.size = size.map(str::to_owned).or(vm.size);
    }
    let Some(references) = profile.list("networkInterfaces")? else {
        if old.is_some() {
            return Ok(vec![Operation::PutVm {
                name: target.key.clone(),
                vm: Box::new(vm),
            }]);
        }
        let at = profile.at("networkInterfaces");
        return Err(Error::body(
            &at,
            "a virtual machine needs a network interface: create it first and give its id",
        ));
    };
    let present = nics_of(lab, &target.key);
    let (mut operations, mut wanted) = (Vec::new(), Vec::new());
    for reference in primary_first(references) {
        let name = lab.resolve(reference, NICS, &profile.at("networkInterfaces"))?;
        let Some(declared) = nics::declared(lab, &name) else {
            continue;
        };
        match &declared.vm {
            Some((vm, _)) if !same(vm, &target.key) => return Err(nics::in_use(lab, &name, vm)),
            Some(_) => {}
            None => operations.push(Operation::DeleteNic { name: name.clone() }),
        }
        let addresses = nics::resolved(lab, &name)
            .map(|nic| nic.addresses.clone())
            .unwrap_or_default();
        wanted.push((
            name.clone(),
            VmNic {
                name: Some(name),
                private_ip_address: None,
                private_ip_addresses: addresses.into_iter().map(model::config::Address).collect(),
                ..declared.nic
            },
        ));
    }
    for (name, nic) in present {
        if !wanted.iter().any(|(it, _)| same(it, &name)) {
            operations.push(nics::waiting(lab, &name, &nic));
        }
    }
    let vm = vm.with_nics(wanted.into_iter().map(|(_, nic)| nic).collect());
    operations.push(Operation::PutVm {
        name: target.key.clone(),
        vm: Box::new(vm),
    });
    Ok(operations)
}

/// eth0 is the primary NIC.
fn primary_first(references: &[Value]) -> Vec<&Value> {
    let primary = |it: &&Value| it["properties"]["primary"].as_bool() == Some(true);
    let others = references.iter().filter(|it| !primary(it));
    references.iter().filter(primary).chain(others).collect()
}

/// Its NICs by name, in order.
fn nics_of(lab: &Lab<'_>, key: &str) -> Vec<(String, VmNic)> {
    let Some(vm) = lab.topology.vms.iter().find(|vm| same(&vm.name, key)) else {
        return Vec::new();
    };
    let listed = lab
        .config
        .vms
        .get(&vm.name)
        .map(Vm::listed_nics)
        .unwrap_or_default();
    let names = vm.nics.iter().map(|nic| lab.topology.nics[nic.0].name.clone());
    names.zip(listed).collect()
}

fn running(_lab: &Lab<'_>, _key: &str) -> bool {
    true
}
