//! Every refusal of the specification, asked for by an operation on a lab: its code, status and message, and nothing changed.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic, its functions too"
)]

use std::fmt::Write;

use model::Source;
use model::change::{self, Gate, Operation, Refusal};
use model::config::Config;
use serde_json::Value;

const REFUSALS: &str = include_str!("../../../tests/vectors/peering_refusals.json");
const OTHERS: &str = include_str!("../../../tests/vectors/other_refusals.json");

fn lab(profile: &str, body: &str) -> Config {
    let text = format!("apiVersion: peerlane/v1\nkind: Lab\nname: case\nprofile: {profile}\n{body}");
    let name = "case.vnet.yaml".to_owned();
    model::load(Source::Text { name, text })
        .unwrap_or_else(|errors| panic!("{errors}"))
        .config
}

/// A lab, and what is asked of it.
struct Case {
    before: String,
    operation: Operation,
    actor: Option<&'static str>,
}

fn two(a: &str, b: &str) -> String {
    format!("vnets: {{ A: {{ addressSpace: [{a}] }}, B: {{ addressSpace: [{b}] }} }}\n")
}

fn put(name: &str, from: &str, to: &str, more: &str) -> Operation {
    let body = format!(
        "vnets: {{ {from}: {{ addressSpace: [10.8.0.0/16] }}, {to}1: {{ addressSpace: [10.9.0.0/16] }} }}\n\
         peerings: [{{ name: x, from: {from}, to: {to}1 }}]\n"
    );
    let model::config::PeeringEntry::One(mut peering) = lab("azure-2025", &body).peerings.remove(0) else {
        panic!("not an object");
    };
    name.clone_into(&mut peering.name);
    to.clone_into(&mut peering.to);
    for flag in more.split_whitespace() {
        match flag {
            "use" => peering.use_remote_gateways = Some(true),
            "transit" => peering.allow_gateway_transit = Some(true),
            "subnets" => {
                peering.peer_complete_vnets = Some(false);
                peering.local_subnet_names = vec!["s".to_owned()];
                peering.remote_subnet_names = vec!["s".to_owned()];
            }
            other => panic!("{other}"),
        }
    }
    Operation::PutPeering { peering }
}

fn between(from: &str, to: &str) -> Operation {
    put(&format!("{from}-to-{to}"), from, to, "")
}

fn subnet(prefix: &str) -> Operation {
    Operation::PutSubnet {
        vnet: "A".to_owned(),
        name: "new".to_owned(),
        subnet: Box::new(model::config::Subnet {
            address_prefix: Some(model::config::Cidr(prefix.parse().unwrap())),
            ..model::config::Subnet::default()
        }),
    }
}

fn nic(address: Option<&str>) -> Operation {
    Operation::PutVm {
        name: "new".to_owned(),
        vm: Box::new(model::config::Vm {
            subnet: Some("A/s".to_owned()),
            private_ip_address: address.map(|it| model::config::Address(it.parse().unwrap())),
            ..model::config::Vm::default()
        }),
    }
}

fn space(range: &str) -> Operation {
    Operation::PutVnet {
        name: "A".to_owned(),
        vnet: Box::new(model::config::Vnet {
            address_space: vec![model::config::Cidr(range.parse().unwrap())],
            ..model::config::Vnet::default()
        }),
    }
}

fn many(count: usize, vnet: impl Fn(usize) -> String) -> String {
    let mut body = "vnets:\n".to_owned();
    for index in 0..count {
        writeln!(body, "  {}", vnet(index)).unwrap();
    }
    body
}

/// A hub with that many peerings, and one more VNet to peer.
fn full_hub(count: usize) -> String {
    let space = |index: usize| format!("10.{}.{}.0/24", index / 256, index % 256);
    let mut body = many(count + 1, |index| {
        format!("s{index}: {{ addressSpace: [{}] }}", space(index))
    });
    body.push_str("  A: { addressSpace: [172.16.0.0/16] }\npeerings:\n");
    for index in 0..count {
        writeln!(body, "  - {{ name: p{index}, from: A, to: s{index} }}").unwrap();
    }
    body
}

/// A and B peered, one of them with a gateway.
fn with_gateway(vnet: &str) -> String {
    let subnet =
        |index: usize| format!("subnets: {{ GatewaySubnet: {{ addressPrefix: 10.{index}.255.0/27 }} }}");
    format!(
        "vnets: {{ A: {{ addressSpace: [10.1.0.0/16], {} }}, B: {{ addressSpace: [10.2.0.0/16], {} }} }}\n\
         peerings: [A <-> B]\ngateways: {{ g: {{ vnet: {vnet}, publicIPAddresses: [203.0.113.10] }} }}\n",
        subnet(1),
        subnet(2)
    )
}

const A_AND_B: (&str, &str) = ("10.1.0.0/16", "10.2.0.0/16");

fn peering_case(id: &str, given: &Value) -> Case {
    let (a, b) = A_AND_B;
    let regions = |old: &str, features: &str| {
        format!(
            "subscriptions: {{ s: {{ registeredFeatures: [{features}] }} }}\n\
             vnets: {{ A: {{ addressSpace: [{a}], subscription: s, location: {} }}, \
             B: {{ addressSpace: [{b}], subscription: s, location: {} }} }}\n",
            given["regionA"].as_str().unwrap_or(old),
            given["regionB"].as_str().unwrap_or(old)
        )
    };
    let text = |name: &str| given[name][0].as_str().unwrap_or("").to_owned();
    let mut actor = None;
    let (before, operation) = match id {
        "RF-OVERLAP" => (two(&text("A"), &text("B")), between("A", "B")),
        "RF-OVERLAP-THIRD" => (
            format!(
                "vnets: {{ A: {{ addressSpace: [{}] }}, B: {{ addressSpace: [{}] }}, C: {{ addressSpace: [{}] }} }}\n\
                 peerings: [B <-> C]\n",
                text("A"),
                text("B"),
                text("C")
            ),
            between("A", "B"),
        ),
        "RF-DUPLICATE" => (
            two(a, b) + "peerings: [{ name: p1, from: A, to: B }]\n",
            put("p2", "A", "B", ""),
        ),
        "RF-REMOTE-DISCONNECTED" => (
            two(a, b) + "peerings: [{ name: A-to-B, from: A, to: B, peeringState: Disconnected }]\n",
            between("B", "A"),
        ),
        "RF-URG-NO-GATEWAY" => (
            two(a, b) + "peerings: [A <-> B]\n",
            put("A-to-B", "A", "B", "use"),
        ),
        "RF-URG-NO-TRANSIT" => (with_gateway("B"), put("A-to-B", "A", "B", "use")),
        "RF-URG-OWN-GATEWAY" => (with_gateway("A"), put("A-to-B", "A", "B", "use")),
        "RF-SEED-TRANSIT-GLOBAL" => (
            regions("westus2", "AllowGlobalVnetPeering"),
            put("A-to-B", "A", "B", "transit"),
        ),
        "RF-CLASSIC-CLASSIC" => (
            format!(
                "vnets: {{ A: {{ addressSpace: [{a}], deploymentModel: {} }}, B: {{ addressSpace: [{b}], \
                 deploymentModel: {} }} }}\n",
                given["modelA"].as_str().unwrap(),
                given["modelB"].as_str().unwrap()
            ),
            between("A", "B"),
        ),
        "RF-SEED-GLOBAL-REGION" => (regions("", "AllowGlobalVnetPeering"), between("A", "B")),
        "RF-SEED-GLOBAL-UNREGISTERED" => (regions("", ""), between("A", "B")),
        "RF-SEED-CROSS-TENANT" => (
            format!(
                "subscriptions: {{ s1: {{ tenant: {} }}, s2: {{ tenant: {} }} }}\n\
                 vnets: {{ A: {{ addressSpace: [{a}], subscription: s1 }}, B: {{ addressSpace: [{b}], subscription: s2 }} }}\n",
                given["tenantA"].as_str().unwrap(),
                given["tenantB"].as_str().unwrap()
            ),
            between("A", "B"),
        ),
        "RF-NO-WRITE" => {
            actor = Some("eve");
            (
                two(a, b)
                    + "principals: { eve: { roles: [ { role: Network Contributor, scope: B }, { role: Reader, scope: A } ] } }\n",
                between("A", "B"),
            )
        }
        "RF-SELF" => (two(a, b), between("A", "A")),
        "RF-LIMIT-SEED" | "RF-LIMIT-MODERN" => {
            let count = usize::try_from(given["peeringsOfA"].as_u64().unwrap()).unwrap();
            (full_hub(count), put("one-more", "A", &format!("s{count}"), ""))
        }
        "RF-NAME" => (two(a, b), put(given["name"].as_str().unwrap(), "A", "B", "")),
        "RF-CONCURRENT" => (two(a, b), between("A", "B")),
        "RF-SUBNET-PEER-TYPE" => (
            format!(
                "vnets: {{ A: {{ addressSpace: [{a}], subnets: {{ s: {{ addressPrefix: 10.1.0.0/24 }} }} }}, \
                 B: {{ addressSpace: [{b}], subnets: {{ s: {{ addressPrefix: 10.2.0.0/24 }} }} }} }}\n\
                 peerings: [{{ name: A-to-B, from: A, to: B, peerCompleteVnets: true }}]\n"
            ),
            put("A-to-B", "A", "B", "subnets"),
        ),
        other => panic!("{other} is not carried out"),
    };
    Case {
        before,
        operation,
        actor,
    }
}

fn other_case(id: &str) -> Case {
    const A: &str =
        "vnets: { A: { addressSpace: [10.103.0.0/16], subnets: { s: { addressPrefix: 10.103.0.0/26 } } } }\n";
    const VM: &str = "vms: { m: { subnet: A/s, privateIPAddress: 10.103.0.4 } }\n";
    let name = |name: &str| name.to_owned();
    let (before, operation) = match id {
        "OR-SUBNET-OVERLAP" => (name(A), subnet("10.103.0.32/27")),
        "OR-SUBNET-OUTSIDE" => (name(A), subnet("10.104.0.0/24")),
        "OR-SUBNET-INVALID" => (name(A), subnet("10.103.1.0/30")),
        "OR-CIDR" => (name(A), subnet("10.103.1.1/24")),
        "OR-SUBNET-INUSE" => (
            format!("{A}{VM}"),
            Operation::DeleteSubnet {
                vnet: name("A"),
                name: name("s"),
            },
        ),
        "OR-IP-TAKEN" => (format!("{A}{VM}"), nic(Some("10.103.0.4"))),
        "OR-IP-OUTSIDE" => (name(A), nic(Some("10.103.9.4"))),
        "OR-SUBNET-FULL" => {
            let tiny = A.replace("/26", "/29");
            let body = "vms: { m1: { subnet: A/s }, m2: { subnet: A/s }, m3: { subnet: A/s } }\n";
            (format!("{tiny}{body}"), nic(None))
        }
        "OR-NSG-PRIORITY" => {
            let rule = "priority: 100, direction: Inbound, access: Deny, protocol: Tcp";
            let before =
                format!("{A}networkSecurityGroups: {{ g: {{ securityRules: {{ old: {{ {rule} }} }} }} }}\n");
            let rule = lab("azure-2018", &before).network_security_groups["g"].security_rules["old"].clone();
            let rule = Box::new(rule);
            (
                before,
                Operation::PutRule {
                    nsg: name("g"),
                    name: name("new"),
                    rule,
                },
            )
        }
        "OR-NSG-INUSE" => {
            let with = A.replace("/26 }", "/26, networkSecurityGroup: g }");
            let before = format!("{with}networkSecurityGroups: {{ g: {{}} }}\n");
            (before, Operation::DeleteNsg { name: name("g") })
        }
        "OR-ROUTE-NOHOP" => (
            format!("{A}routeTables: {{ t: {{}} }}\n"),
            Operation::PutRoute {
                table: name("t"),
                name: name("r"),
                route: Box::new(model::config::Route {
                    address_prefix: name("10.0.0.0/8"),
                    next_hop_type: model::config::NextHopType::VirtualAppliance,
                    ..model::config::Route::default()
                }),
            },
        ),
        "OR-VNET-LIMIT" => (
            many(1000, |index| {
                format!("v{index}: {{ addressSpace: [10.0.0.0/16] }}")
            }),
            space("10.0.0.0/16"),
        ),
        "OR-ADDRSPACE-SEED" => (
            two("10.1.0.0/16", "10.2.0.0/16") + "peerings: [A <-> B]\n",
            space("10.3.0.0/16"),
        ),
        other => panic!("{other} is not carried out"),
    };
    Case {
        before,
        operation,
        actor: None,
    }
}

fn refused(config: &Config, case: &Case, id: &str) -> Refusal {
    if id == "RF-CONCURRENT" {
        let mut gate = Gate::default();
        let running = space("10.3.0.0/16");
        let ticket = gate.enter(config, &running).unwrap();
        let refusal = gate.enter(config, &case.operation).unwrap_err();
        gate.leave(ticket);
        let ticket = gate.enter(config, &case.operation).unwrap();
        gate.leave(ticket);
        return refusal;
    }
    change::apply(config, std::slice::from_ref(&case.operation), case.actor).map_or_else(
        |refusal| refusal,
        |_| panic!("{id} was carried out: {:?}", case.operation),
    )
}

/// Shows: PEER-02, PEER-06, PEER-10, PEER-11, PEER-13, PEER-14, PEER-15, PEER-25, PEER-26, PEER-30, PEER-34, PEER-35, PEER-38, PEER-40, VNET-03, VNET-05, VNET-09, VNET-10, NSG-03, ROUTE-13, ERR-01, ERR-02, ERR-03, ERR-04, GW-09, GW-10.
#[test]
fn every_refusal_of_the_vectors_is_given() {
    for (vectors, of_peerings) in [(REFUSALS, true), (OTHERS, false)] {
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        for case in vectors["cases"].as_array().unwrap() {
            let id = case["id"].as_str().unwrap();
            // The file of other refusals says it in words.
            let profile = match case["profile"].as_str() {
                None if id == "OR-ADDRSPACE-SEED" => "azure-2018",
                profile => profile.unwrap_or("both"),
            };
            let both = ["azure-2018", "azure-2025"].into_iter();
            for profile in both.filter(|it| ["both", it].contains(&profile)) {
                let made = if of_peerings {
                    peering_case(id, &case["given"])
                } else {
                    other_case(id)
                };
                let config = lab(profile, &made.before);
                let refusal = refused(&config, &made, id);
                let error = case.get("error").unwrap_or(case);
                assert_eq!(refusal.code, expected(case, error), "{id} {profile}: {refusal}");
                let status = error["httpStatus"].as_u64().or(error["http"].as_u64());
                assert_eq!(Some(u64::from(refusal.status())), status, "{id}");
                let template = error["messageTemplate"].as_str().or(error["message"].as_str());
                if let Some(template) = template.filter(|_| refusal.code == error["code"]) {
                    follows(template, &refusal.message, id);
                }
                assert!(!refusal.target.is_empty() && !refusal.message.is_empty(), "{id}");
            }
        }
    }
}

/// The vector's code, or `Sim.` and its rule where none is confirmed (ERR-04).
fn expected(case: &Value, error: &Value) -> String {
    let third_party = case["status"]
        .as_str()
        .unwrap()
        .contains("UNCONFIRMED (third-party");
    match error["code"].as_str().unwrap() {
        code if code != "UNCONFIRMED" && !third_party => code.to_owned(),
        _ => format!("Sim.{}", case["rules"][0].as_str().unwrap()),
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
