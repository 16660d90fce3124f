//! What `plan` says of flows under way against what packets of real programs do after `apply`, over seeded edits of the examples.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use model::change::{Operation, apply};
use model::config::{
    Access, Address, Cidr, Config, Direction, NextHopType, Nsg, Peering, PeeringEntry, Route, RouteTable,
    RuleProtocol, SecurityRule, Subnet, Vnet,
};
use model::{Loaded, Source, Topology};
use serde_json::{Value, json};

use crate::support::{Peerlane, User, root, unique, wait_for};

/// Of the first flow; each has its own, by which the plan's rows are known.
const FIRST_PORT: u16 = 20_000;
/// Where every program answers.
const PORT: u16 = 7000;
/// Packets of a flow after a change before it counts as lost: they leave 50 ms apart, and the ways here take no 50 ms.
const TRIES: u64 = 6;
/// Longer than an answer takes on a busy machine, once the last packet has left.
const SETTLED: Duration = Duration::from_millis(300);
/// Longer than programs take to start.
const SOON: Duration = Duration::from_secs(20);

/// Answers datagrams with the time to live they came with, sends its own, and says what came back, 20 times a second.
const PROGRAM: &str = r#"
import json, os, select, socket, sys, time  # 12 is IP_RECVTTL
own, listens, flows = json.loads(sys.argv[1])
def bound(address, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, 12, 1); s.setblocking(False); s.bind((address, port)); return s
servers = [bound(a, 7000) for a in listens]
clients = {bound(f['source'], f['port']): f for f in flows}
state = {str(f['port']): [0, 0, []] for f in flows}
def received(s):
    try: data, control, _, peer = s.recvmsg(100, 100)
    except OSError: return None
    return data.decode(), int.from_bytes(control[0][2][:4], sys.byteorder), peer
due = time.monotonic()
while True:
    for s in select.select([*servers, *clients], [], [], max(0, due - time.monotonic()))[0]:
        got = received(s)
        if not got: continue
        data, ttl, peer = got
        if s in clients:
            number, there = map(int, data.split())
            row = state[str(clients[s]['port'])]
            if number > row[1]: row[1:] = [number, [there, ttl]]
        else:
            try: s.sendto(f'{data} {ttl}'.encode(), peer)
            except OSError: pass
    if time.monotonic() < due: continue
    due = time.monotonic() + .05
    for s, f in clients.items():
        row = state[str(f['port'])]; row[0] += 1
        try: s.sendto(str(row[0]).encode(), (f['destination'], 7000))
        except OSError: pass
    with open(own + '.new', 'w') as f: json.dump(state, f)
    os.rename(own + '.new', own)
"#;

/// A place with programs: what `exec` calls it, its addresses, and those under which others know them.
struct Place {
    name: String,
    own: Vec<IpAddr>,
    known: Vec<IpAddr>,
}

/// What packets of a flow show: whether answers come, and the time to live with which packets arrived, there and back.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    passes: bool,
    hops: Value,
}

struct Lab {
    peerlane: Peerlane,
    name: String,
    config: Config,
    files: Vec<String>,
    flows: usize,
    programs: Vec<Child>,
}

impl Lab {
    /// The example, under a name of its own, with a flow from each place to each other.
    fn up(example: &str) -> Self {
        let peerlane = Peerlane::new(User::Caller);
        let path = root().join("examples").join(format!("{example}.vnet.yaml"));
        let text = fs::read_to_string(&path).unwrap();
        let name = unique("planned");
        let text = text.replace(&format!("\nname: {example}\n"), &format!("\nname: {name}\n"));
        let file = peerlane.file(&name, &text);
        peerlane.up(&file);
        let source = Source::Text {
            name: file.display().to_string(),
            text,
        };
        let Loaded { config, topology, .. } = model::load(source).unwrap_or_else(|errors| panic!("{errors}"));
        let mut lab = Self {
            peerlane,
            name,
            config,
            files: Vec::new(),
            flows: 0,
            programs: Vec::new(),
        };
        lab.start(&places(&topology));
        lab
    }

    fn start(&mut self, places: &[Place]) {
        let mut port = FIRST_PORT;
        for (at, place) in places.iter().enumerate() {
            let others = places.iter().enumerate().filter(|(other, _)| *other != at);
            let flows = others.flat_map(|(_, other)| {
                // From the Internet, and to it, a place is known otherwise than it knows itself.
                let outside = place.name == "internet";
                let known = if outside { &other.known } else { &other.own };
                known.first().map(|destination| {
                    port += 1;
                    json!({ "source": place.own[0], "destination": destination, "port": port })
                })
            });
            let file = format!("{}.json", place.name);
            let orders = json!([
                self.peerlane.dir.join(&file),
                place.own,
                flows.collect::<Vec<_>>()
            ]);
            let program = ["python3", "-u", "-c", PROGRAM, &orders.to_string()];
            self.programs
                .push(self.peerlane.spawn(&self.name, &place.name, &program));
            self.files.push(file);
        }
        self.flows = usize::from(port - FIRST_PORT);
    }

    /// By source port: packets sent, the latest answered, and its times to live.
    fn counts(&self) -> BTreeMap<String, (u64, u64, Value)> {
        let mut counts = BTreeMap::new();
        for file in &self.files {
            let text = fs::read_to_string(self.peerlane.dir.join(file)).unwrap_or_default();
            let rows: BTreeMap<String, (u64, u64, Value)> = serde_json::from_str(&text).unwrap_or_default();
            counts.extend(rows);
        }
        counts
    }

    /// What packets that leave from now on show.
    fn observe(&self) -> BTreeMap<String, Seen> {
        // A packet more may have left since the numbers were written.
        let before: BTreeMap<String, u64> = self
            .counts()
            .into_iter()
            .map(|(port, (sent, ..))| (port, sent + 1))
            .collect();
        let tried = || {
            let now = self.counts();
            let tried = |(port, sent): (&String, &u64)| now.get(port).is_some_and(|it| it.0 >= sent + TRIES);
            before.iter().all(tried)
        };
        assert!(wait_for(SOON, tried), "the programs have stopped");
        sleep(SETTLED);
        let now = self.counts().into_iter();
        now.map(|(port, (_, answered, hops))| {
            let passes = answered > before[&port];
            let hops = if passes { hops } else { Value::Null };
            (port, Seen { passes, hops })
        })
        .collect()
    }

    /// `plan`, then `apply` of the same file, then what packets show.
    fn change(&mut self, config: Config) -> (BTreeMap<String, Value>, BTreeMap<String, Seen>) {
        let text = model::export(&config).unwrap();
        let file = self.peerlane.file(&format!("{}-next", self.name), &text);
        let file = file.to_str().unwrap();
        let plan = self.peerlane.run(["plan", &self.name, file, "-o", "json"]);
        assert_eq!(plan.code, 0, "{plan:?}");
        let ran = self.peerlane.run(["apply", &self.name, file, "-o", "none"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        self.config = config;
        let flows = plan.json()["flows"].as_array().unwrap().clone();
        let under_way = flows
            .into_iter()
            .filter(|flow| flow["origin"] == "Flow" && flow["protocol"] == "Udp" && flow["port"] == PORT);
        let predicted = under_way.map(|flow| (flow["sourcePort"].to_string(), flow));
        (predicted.collect(), self.observe())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// Everything of a lab in which programs can send and answer.
fn places(topology: &Topology) -> Vec<Place> {
    let v4 = |all: &[IpAddr]| -> Vec<IpAddr> { all.iter().copied().filter(IpAddr::is_ipv4).collect() };
    let mut places: Vec<Place> = Vec::new();
    for nic in &topology.nics {
        let subnet = &topology.subnets[nic.subnet.0];
        let name = match nic.vm {
            Some(vm) => topology.vms[vm.0].name.clone(),
            None => topology.vnets[subnet.vnet.0].port_namespace(),
        };
        let known = v4(&nic.public_addresses);
        match places.iter_mut().find(|place| place.name == name) {
            Some(place) => place.own.extend(v4(&nic.addresses)),
            None => places.push(Place {
                name,
                own: v4(&nic.addresses),
                known,
            }),
        }
    }
    places.extend(topology.sites.iter().map(|site| Place {
        name: site.name.clone(),
        own: v4(&site.addresses),
        known: Vec::new(),
    }));
    places.extend(topology.internet.iter().map(|addresses| Place {
        name: "internet".to_owned(),
        own: v4(addresses),
        known: Vec::new(),
    }));
    places
}

/// Knuth's generator: the same edits on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count.max(1)
    }

    fn one<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len())].clone())
    }
}

/// One edit that the lab takes, and what it is called.
fn edit(config: &Config, random: &mut Random, number: usize) -> (String, Config) {
    for _ in 0..200 {
        let Some(operations) = operations(config, random, number) else {
            continue;
        };
        if let Ok(changed) = apply(config, &operations, None)
            && changed.config != *config
        {
            return (format!("{operations:?}"), changed.config);
        }
    }
    panic!("no edit is possible")
}

fn operations(config: &Config, random: &mut Random, number: usize) -> Option<Vec<Operation>> {
    let tables: Vec<String> = config.route_tables.keys().cloned().collect();
    let nsgs: Vec<String> = config.network_security_groups.keys().cloned().collect();
    let peerings: Vec<Peering> = config
        .peerings
        .iter()
        .filter_map(|entry| match entry {
            PeeringEntry::One(peering) => Some((**peering).clone()),
            PeeringEntry::Both(_) => None,
        })
        .collect();
    let one = match random.below(11) {
        0 => rule(random, &nsgs, config, number)?,
        1 => {
            let nsg = random.one(&nsgs)?;
            let rules: Vec<String> = config.network_security_groups[&nsg]
                .security_rules
                .keys()
                .cloned()
                .collect();
            let name = random.one(&rules)?;
            Operation::DeleteRule { nsg, name }
        }
        2 | 3 => Operation::PutRoute {
            table: random.one(&tables)?,
            name: format!("edit{number}"),
            route: Box::new(route(config, random)?),
        },
        4 => {
            let table = random.one(&tables)?;
            let routes: Vec<String> = config.route_tables[&table].routes.keys().cloned().collect();
            let name = random.one(&routes)?;
            Operation::DeleteRoute { table, name }
        }
        5 => {
            let mut peering = random.one(&peerings)?;
            let flag = match random.below(2) {
                0 => &mut peering.allow_virtual_network_access,
                _ => &mut peering.allow_forwarded_traffic,
            };
            *flag = Some(random.below(2) == 0);
            Operation::PutPeering {
                peering: Box::new(peering),
            }
        }
        6 => {
            let peering = random.one(&peerings)?;
            Operation::DeletePeering {
                vnet: peering.from,
                name: peering.name,
            }
        }
        7 => {
            let vnets: Vec<String> = config.vnets.keys().cloned().collect();
            let [from, to] = [random.one(&vnets)?, random.one(&vnets)?];
            Operation::PutPeering {
                peering: Box::new(Peering {
                    name: format!("{from}-to-{to}"),
                    from,
                    to,
                    ..Peering::default()
                }),
            }
        }
        8 => {
            let vms: Vec<String> = config.vms.keys().cloned().collect();
            let name = random.one(&vms)?;
            let mut vm = config.vms[&name].clone();
            let nsg = random.one(&nsgs).filter(|_| random.below(3) > 0);
            match vm.nics.first_mut() {
                Some(nic) => nic.network_security_group = nsg,
                None => vm.network_security_group = nsg,
            }
            Operation::PutVm {
                name,
                vm: Box::new(vm),
            }
        }
        9 => return subnet_table(config, random, number, &tables),
        _ => Operation::PutVnet {
            name: format!("extra{number}"),
            vnet: Box::new(Vnet {
                address_space: vec![Cidr(format!("10.{}.0.0/16", 200 + number).parse().unwrap())],
                ..Vnet::default()
            }),
        },
    };
    Some(vec![one])
}

/// A subnet gets another route table, a new one or none.
fn subnet_table(
    config: &Config,
    random: &mut Random,
    number: usize,
    tables: &[String],
) -> Option<Vec<Operation>> {
    let subnets: Vec<(String, String, Subnet)> = config
        .vnets
        .iter()
        .flat_map(|(vnet, it)| {
            let subnets = it.subnets.iter();
            subnets.map(move |(name, subnet)| (vnet.clone(), name.clone(), subnet.clone()))
        })
        .collect();
    let (vnet, name, mut subnet) = random.one(&subnets)?;
    let mut operations = Vec::new();
    subnet.route_table = match random.below(4) {
        0 => None,
        1 => random.one(tables),
        _ => {
            let routes = [(format!("edit{number}"), route(config, random)?)];
            operations.push(Operation::PutRouteTable {
                name: format!("table{number}"),
                table: Box::new(RouteTable {
                    routes: routes.into_iter().collect(),
                    ..RouteTable::default()
                }),
            });
            Some(format!("table{number}"))
        }
    };
    operations.push(Operation::PutSubnet {
        vnet,
        name,
        subnet: Box::new(subnet),
    });
    Some(operations)
}

/// To a VM, its VNet or everything; by a VM, to nowhere or as the system has it.
fn route(config: &Config, random: &mut Random) -> Option<Route> {
    let addresses: Vec<IpAddr> = config.vms.values().filter_map(address).collect();
    let ranges: Vec<Cidr> = config
        .vnets
        .values()
        .flat_map(|vnet| vnet.address_space.clone())
        .filter(|range| range.0.addr().is_ipv4())
        .collect();
    let address_prefix = match random.below(4) {
        0 => "0.0.0.0/0".to_owned(),
        1 => format!("{}/32", random.one(&addresses)?),
        _ => random.one(&ranges)?.0.to_string(),
    };
    let (next_hop_type, next_hop_ip_address) = match random.below(4) {
        0 => (NextHopType::None, None),
        1 => (NextHopType::VnetLocal, None),
        _ => (
            NextHopType::VirtualAppliance,
            Some(Address(random.one(&addresses)?)),
        ),
    };
    Some(Route {
        address_prefix,
        next_hop_type,
        next_hop_ip_address,
        ..Route::default()
    })
}

fn address(vm: &model::config::Vm) -> Option<IpAddr> {
    let nic = vm.nics.first();
    let single = nic.map_or(vm.private_ip_address, |nic| nic.private_ip_address);
    let list = nic.map_or(&vm.private_ip_addresses, |nic| &nic.private_ip_addresses);
    single.or(list.first().copied()).map(|address| address.0)
}

fn rule(random: &mut Random, nsgs: &[String], config: &Config, number: usize) -> Option<Operation> {
    let any = || Some("*".to_owned());
    let rule = SecurityRule {
        priority: 100 + u16::try_from(random.below(3990)).unwrap(),
        direction: [Direction::Inbound, Direction::Outbound][random.below(2)],
        access: [Access::Allow, Access::Deny][random.below(2)],
        protocol: [RuleProtocol::Any, RuleProtocol::Udp][random.below(2)],
        source_address_prefix: any(),
        source_port_range: any(),
        destination_address_prefix: any(),
        destination_port_range: [any(), Some(PORT.to_string())][random.below(2)].clone(),
        ..SecurityRule::default()
    };
    let name = format!("edit{number}");
    match random.one(nsgs) {
        Some(nsg) => Some(Operation::PutRule {
            nsg,
            name,
            rule: Box::new(rule),
        }),
        None if config.network_security_groups.is_empty() => Some(Operation::PutNsg {
            name: "edits".to_owned(),
            nsg: Box::new(Nsg {
                security_rules: [(name, rule)].into_iter().collect(),
            }),
        }),
        None => None,
    }
}

/// Nodes on a path: what takes from the time to live changes their number.
fn nodes(fate: &Value) -> usize {
    let path = fate["path"].as_array().unwrap().iter();
    path.filter(|node| !node.as_str().unwrap().contains('/')).count()
}

/// Ten edits of an example, or as many as are asked for; returns how many flows they changed.
fn edits(example: &str, seed: u64, count: usize) -> usize {
    let mut lab = Lab::up(example);
    let begun = || lab.counts().values().filter(|flow| flow.0 > TRIES).count();
    let all = wait_for(SOON, || begun() == lab.flows);
    assert!(all, "{example}: {} of {} flows begin", begun(), lab.flows);
    let first = lab.observe();
    // A flow that never passed has no state, and a plan speaks of flows under way.
    let mut seen: BTreeMap<String, Seen> = first.into_iter().filter(|(_, seen)| seen.passes).collect();
    assert!(!seen.is_empty(), "{example}: no flow passes");
    let mut random = Random(seed);
    let mut changed = 0;
    for number in 0..count {
        let (what, config) = edit(&lab.config, &mut random, number);
        let (predicted, mut now) = lab.change(config);
        now.retain(|port, _| seen.contains_key(port));
        for (port, before) in &seen {
            let after = &now[port];
            let told = format!("{example}, seed {seed}, edit {number}, flow {port}: {what}");
            let Some(flow) = predicted.get(port) else {
                assert_eq!(
                    before, after,
                    "not in the plan, and packets fare otherwise; {told}"
                );
                continue;
            };
            changed += 1;
            let [was, becomes] = ["before", "after"].map(|when| &flow[when]);
            let passes = [was, becomes].map(|fate| fate["verdict"] == "Allow");
            assert_eq!(passes, [before.passes, after.passes], "{flow:#}; {told}");
            if passes == [true, true] && nodes(was) != nodes(becomes) {
                assert_ne!(before.hops, after.hops, "{flow:#}; {told}");
            }
        }
        seen = now;
    }
    println!(
        "{example}: {} flows, {changed} changes by {count} edits",
        seen.len()
    );
    changed
}

/// `plan` names exactly the flows under way that `apply` then changes.
#[test]
fn a_plan_is_what_packets_do() {
    let full = std::env::var_os("PEERLANE_FULL").is_some();
    let changed: usize = if full {
        let examples = fs::read_dir(root().join("examples")).unwrap().flatten();
        let mut names: Vec<String> = examples
            .filter_map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                name.strip_suffix(".vnet.yaml").map(str::to_owned)
            })
            .collect();
        names.sort();
        assert!(names.len() >= 11, "{names:?}");
        (1..).zip(&names).map(|(seed, name)| edits(name, seed, 10)).sum()
    } else {
        edits("hub-spoke", 3, 3) + edits("internet", 5, 2)
    };
    assert!(changed > 0, "no edit has changed a flow");
}
