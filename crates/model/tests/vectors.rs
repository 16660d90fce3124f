//! The machine-readable cases of the specification, as far as a lab file can express them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic, its functions too"
)]

use std::fmt::Write;

use model::{Errors, Loaded, Source};
use serde_json::Value;

const ADDRESSING: &str = include_str!("../../../tests/vectors/addressing.json");
const STATES: &str = include_str!("../../../tests/vectors/peering_state_machine.json");
const REFUSALS: &str = include_str!("../../../tests/vectors/peering_refusals.json");
const OTHERS: &str = include_str!("../../../tests/vectors/other_refusals.json");

const PROFILES: [&str; 2] = ["azure-2018", "azure-2025"];

fn load(profile: &str, body: &str) -> Result<Loaded, Errors> {
    let text = format!("apiVersion: peerlane/v1\nkind: Lab\nname: case\nprofile: {profile}\n{body}");
    model::load(Source::Text {
        name: "case.vnet.yaml".to_owned(),
        text,
    })
}

/// One VNet with one subnet of that prefix; an IPv6 subnet stands beside an IPv4 one (NET-10).
fn one_subnet(prefix: &str) -> String {
    let other = if prefix.contains(':') { ", 10.0.0.0/24" } else { "" };
    let space = match prefix.rsplit_once('/').unwrap() {
        _ if prefix.contains(':') => "10.0.0.0/16, \"fd00::/48\"".to_owned(),
        (address, length) if length.parse::<u8>().unwrap() < 8 => format!("{address}/{length}"),
        (address, _) => format!("{}.0.0.0/8", address.split('.').next().unwrap()),
    };
    format!(
        "vnets: {{ v: {{ addressSpace: [{space}], subnets: {{ s: {{ addressPrefixes: [\"{prefix}\"{other}] }} }} }} }}\n"
    )
}

/// Shows: VNET-03.
#[test]
fn reserves_the_first_four_addresses_and_the_last() {
    let vectors: Value = serde_json::from_str(ADDRESSING).unwrap();
    for case in vectors["reserved"].as_array().unwrap() {
        let vnet = one_subnet(case["subnet"].as_str().unwrap());
        let with = |address: &str| {
            load(
                "azure-2018",
                &format!("{vnet}vms: {{ m: {{ subnet: v/s, privateIPAddress: {address} }} }}\n"),
            )
        };
        for address in case["reserved"].as_array().unwrap() {
            let errors = with(address.as_str().unwrap()).unwrap_err().errors;
            assert_eq!(errors[0].code, "PrivateIPAddressInReservedRange", "{address}");
        }
        for address in ["firstUsable", "lastUsable"] {
            with(case[address].as_str().unwrap()).unwrap_or_else(|errors| panic!("{errors}"));
        }
        let usable = usize::try_from(case["usable"].as_u64().unwrap()).unwrap();
        let full = |count: usize| {
            let mut body = format!("{vnet}vms:\n");
            for vm in 0..count {
                writeln!(body, "  m{vm}: {{ subnet: v/s }}").unwrap();
            }
            load("azure-2018", &body)
        };
        let topology = full(usable).unwrap_or_else(|errors| panic!("{errors}")).topology;
        assert_eq!(
            topology.nics[0].addresses[0].to_string(),
            case["firstUsable"].as_str().unwrap()
        );
        assert_eq!(
            topology.nics[usable - 1].addresses[0].to_string(),
            case["lastUsable"].as_str().unwrap()
        );
        let errors = full(usable + 1).unwrap_err().errors;
        assert_eq!(
            errors.iter().map(|error| error.code).collect::<Vec<_>>(),
            ["SubnetIsFull"]
        );
    }
}

/// Shows: VNET-04.
#[test]
fn takes_subnets_of_the_sizes_azure_takes() {
    let vectors: Value = serde_json::from_str(ADDRESSING).unwrap();
    for case in vectors["sizes"].as_array().unwrap() {
        let length = &case["prefixLength"];
        let prefix = match (case["family"].as_u64().unwrap(), length.as_u64().unwrap()) {
            (6, _) => format!("fd00::/{length}"),
            (_, 2) => "0.0.0.0/2".to_owned(),
            _ => format!("10.0.0.0/{length}"),
        };
        for profile in PROFILES {
            let ok = case["ok"]
                .as_bool()
                .unwrap_or_else(|| case["ok"][profile].as_bool().unwrap());
            match load(profile, &one_subnet(&prefix)) {
                Ok(_) => assert!(ok, "{profile} took {prefix}"),
                Err(errors) => {
                    assert!(!ok, "{profile} refused {prefix}: {errors}");
                    assert_eq!(errors.errors[0].code, "NetcfgInvalidSubnet");
                }
            }
        }
    }
}

/// Shows: VNET-02.
#[test]
fn refuses_forbidden_ranges_and_takes_the_intended_ones() {
    let vectors: Value = serde_json::from_str(ADDRESSING).unwrap();
    let space = |prefix: &Value| {
        load(
            "azure-2025",
            &format!("vnets: {{ v: {{ addressSpace: [{prefix}] }} }}\n"),
        )
    };
    for prefix in vectors["forbidden"].as_array().unwrap() {
        assert_eq!(
            space(prefix).unwrap_err().errors[0].code,
            "Sim.VNET-02",
            "{prefix}"
        );
    }
    for prefix in vectors["recommended"].as_array().unwrap() {
        space(prefix).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

/// VNets A, B and C with the peerings that exist, each `A->B`.
fn peered(existing: &[String], models: [&str; 3]) -> String {
    let mut body = "vnets:\n".to_owned();
    for (index, name) in ["A", "B", "C"].iter().enumerate() {
        let model = models[index];
        writeln!(
            body,
            "  {name}: {{ addressSpace: [10.{index}.0.0/16], deploymentModel: {model} }}"
        )
        .unwrap();
    }
    body.push_str("peerings:\n");
    for peering in existing {
        let (peering, state) = peering.split_once(' ').unwrap_or((peering, ""));
        let (from, to) = peering.split_once("->").unwrap();
        let state = if state.is_empty() {
            String::new()
        } else {
            format!(", peeringState: {state}")
        };
        writeln!(
            body,
            "  - {{ name: {from}-to-{to}, from: {from}, to: {to}{state} }}"
        )
        .unwrap();
    }
    body
}

fn state_of(loaded: &Loaded, peering: &str) -> String {
    let (from, to) = peering.split_once("->").unwrap();
    let name = format!("{from}-to-{to}");
    let peering = loaded.topology.peerings.iter().find(|it| it.name == name);
    peering.map_or("absent".to_owned(), |it| format!("{:?}", it.state))
}

/// Each step of a sequence gives a file: the peerings that exist after it. A peering whose other side was
/// deleted is written as Disconnected, which is what `export` writes.
/// Shows: PEER-03, PEER-04, PEER-06, PEER-31.
#[test]
fn peerings_of_a_file_have_the_states_of_the_state_machine() {
    let vectors: Value = serde_json::from_str(STATES).unwrap();
    for sequence in vectors["sequences"].as_array().unwrap() {
        let id = sequence["id"].as_str().unwrap();
        for profile in PROFILES
            .into_iter()
            .filter(|it| sequence["profile"] == "both" || sequence["profile"] == *it)
        {
            let mut existing: Vec<String> = Vec::new();
            for step in sequence["steps"].as_array().unwrap() {
                let peering = step["peering"].as_str().unwrap_or("").to_owned();
                let before = existing.clone();
                match step["op"].as_str().unwrap() {
                    "create" => existing.push(peering),
                    "delete" => {
                        existing.retain(|it| !it.starts_with(&peering));
                        let (from, to) = peering.split_once("->").unwrap();
                        let reverse = format!("{to}->{from}");
                        for it in existing.iter_mut().filter(|it| **it == reverse) {
                            it.push_str(" Disconnected");
                        }
                    }
                    "update" | "check" => {}
                    other => panic!("{id}: unknown step {other}"),
                }
                let model = |side: &str| step[side].as_str().unwrap_or("ResourceManager").to_owned();
                let body = peered(&existing, [&model("modelA"), &model("modelB"), "ResourceManager"]);
                let mut result = load(profile, &body);
                if let Some(code) = step["error"].as_str() {
                    assert_eq!(result.unwrap_err().errors[0].code, code, "{id}");
                    existing = before;
                    result = load(profile, &peered(&existing, ["ResourceManager"; 3]));
                }
                let loaded = result.unwrap_or_else(|errors| panic!("{id}: {errors}"));
                for (peering, state) in step["expect"].as_object().into_iter().flatten() {
                    assert_eq!(
                        state_of(&loaded, peering),
                        state.as_str().unwrap(),
                        "{id} {peering}"
                    );
                }
                for peering in step["absent"].as_array().into_iter().flatten() {
                    assert_eq!(state_of(&loaded, peering.as_str().unwrap()), "absent", "{id}");
                }
            }
        }
    }
}

/// Cases that a file cannot express, each with the reason: `refusal_vectors.rs` asks for them by an operation.
const NOT_IN_A_FILE: &[(&str, &str)] = &[
    ("RF-CONCURRENT", "a file has no operations that run"),
    ("RF-SUBNET-PEER-TYPE", "a file changes nothing"),
    ("OR-SUBNET-INUSE", "a file deletes nothing"),
    ("OR-NSG-INUSE", "a file deletes nothing"),
    ("OR-ADDRSPACE-SEED", "a file changes nothing"),
];

/// Every refusal has a broken file named after it, whose header names the vector's code, or `Sim.` and its rule
/// where the code is unconfirmed (ERR-04), and whose message follows the vector's template.
/// Shows: ERR-03, ERR-04.
#[test]
fn every_refusal_has_its_broken_file() {
    for vectors in [REFUSALS, OTHERS] {
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        for case in vectors["cases"].as_array().unwrap() {
            let id = case["id"].as_str().unwrap();
            if NOT_IN_A_FILE.iter().any(|(name, _)| *name == id) {
                continue;
            }
            let error = case.get("error").unwrap_or(case);
            let confirmed = !case["status"]
                .as_str()
                .unwrap()
                .contains("UNCONFIRMED (third-party");
            let code = match error["code"].as_str().unwrap() {
                "UNCONFIRMED" => format!("Sim.{}", case["rules"][0].as_str().unwrap()),
                _ if !confirmed => format!("Sim.{}", case["rules"][0].as_str().unwrap()),
                code => code.to_owned(),
            };
            let path = format!("{}/tests/broken/{id}.vnet.yaml", env!("CARGO_MANIFEST_DIR"));
            let errors = model::load(Source::Path(path.into())).unwrap_err().errors;
            assert_eq!(errors[0].code, code, "{id}");
            let template = error["messageTemplate"].as_str().or(error["message"].as_str());
            if let Some(template) = template.filter(|_| code == error["code"]) {
                follows(template, &errors[0].message, id);
            }
        }
    }
}

/// The words of the template stand in the message in their order, whatever fills the gaps.
fn follows(template: &str, message: &str, id: &str) {
    let mut rest = message;
    for part in template.split(['{', '}']).step_by(2) {
        let at = rest
            .find(part.trim())
            .unwrap_or_else(|| panic!("{id}: no {part:?} in {message:?}"));
        rest = &rest[at + part.trim().len()..];
    }
}
