//! Internal load balancers: frontends, backend pools and probes (LB-01, LB-05); their rules are in `balancing_rules.rs`.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::check::vnets::GATEWAY_SUBNET;
use crate::check::{Scope, balancing_rules, names, nics, ranges};
use crate::config::{self, LoadBalancer as Declared};
use crate::problems::{Problems, join};
use crate::topology::{
    BackendPool, Endpoint, Frontend, HealthProbe, HealthProtocol, LoadBalancer, LoadBalancerSku, NicIndex,
    SubnetIndex, Topology, VnetIndex,
};
use crate::words::shown;

/// LB-05.
const SHORTEST_INTERVAL_S: u16 = 5;
/// LB-05, section 11: the SDK's default.
const DEFAULT_INTERVAL_S: u16 = 15;
/// Azure's default threshold.
const DEFAULT_NUMBER_OF_PROBES: u16 = 2;
/// Far beyond any path a health page has; it is sent in every probe.
const LONGEST_PATH: usize = 2048;

/// Fills `topology.load_balancers`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let mut taken: HashSet<(VnetIndex, IpAddr)> = (topology.nics.iter())
        .flat_map(|nic| {
            let vnet = topology.subnets[nic.subnet.0].vnet;
            nic.addresses.iter().map(move |&address| (vnet, address))
        })
        .collect();
    let declared = declared_addresses(scope, topology);
    for (name, given) in &scope.config.load_balancers {
        let at = join("loadBalancers", name);
        names::resource_key(name, &at, problems);
        if problems.unreadable(&at) {
            continue;
        }
        if let Some(balancer) = one(scope, name, given, &at, topology, &mut taken, &declared, problems) {
            balancing_rules::check(&balancer, &at, topology, problems);
            one_balancer_each(&balancer, &at, topology, problems);
            topology.load_balancers.push(balancer);
        }
    }
}

/// The addresses that frontends of the file claim: no NIC gets one of them by itself.
pub(crate) fn declared_addresses(scope: &Scope<'_>, topology: &Topology) -> HashSet<(VnetIndex, IpAddr)> {
    let frontends = scope
        .config
        .load_balancers
        .values()
        .flat_map(|it| it.frontends.values());
    let claimed = frontends.filter_map(|frontend| {
        let address = frontend.private_ip_address?.0;
        let (vnet, _) = frontend.subnet.rsplit_once('/')?;
        let vnet = topology
            .vnets
            .iter()
            .position(|it| it.name.eq_ignore_ascii_case(vnet))?;
        Some((VnetIndex(vnet), address))
    });
    claimed.collect()
}

#[expect(
    clippy::too_many_arguments,
    reason = "one balancer of the file, and what it must not collide with"
)]
fn one(
    scope: &Scope<'_>,
    name: &str,
    given: &Declared,
    at: &str,
    topology: &Topology,
    taken: &mut HashSet<(VnetIndex, IpAddr)>,
    declared: &HashSet<(VnetIndex, IpAddr)>,
    problems: &mut Problems,
) -> Option<LoadBalancer> {
    if given.frontends.is_empty() {
        problems
            .error("Sim.LB-01", at, format!("load balancer '{name}' has no frontend"))
            .on_key()
            .help("add 'frontends: { fe: { subnet: VNET/SUBNET } }'");
        return None;
    }
    let mut frontends = Vec::new();
    for (frontend, it) in &given.frontends {
        let at = join(&join(at, "frontends"), frontend);
        names::resource_name(frontend, &at, true, problems);
        frontends.extend(self::frontend(
            scope, frontend, it, &at, topology, taken, declared, problems,
        ));
    }
    let vnet = topology.subnets[frontends.first()?.subnet.0].vnet;
    let elsewhere = frontends
        .iter()
        .find(|it| topology.subnets[it.subnet.0].vnet != vnet);
    if let Some(other) = elsewhere {
        let at = join(&join(&join(at, "frontends"), &other.name), "subnet");
        problems
            .error(
                "Sim.LB-01",
                at,
                "all frontends of an internal load balancer are in one VNet",
            )
            .help(format!("use a subnet of {}", topology.vnets[vnet.0].name));
    }
    let sku = match given.sku.unwrap_or_default() {
        config::LoadBalancerSku::Basic => LoadBalancerSku::Basic,
        config::LoadBalancerSku::Standard => LoadBalancerSku::Standard,
    };
    let pools = given.backend_pools.iter().map(|(pool, members)| {
        let at = join(&join(at, "backendPools"), pool);
        names::resource_name(pool, &at, true, problems);
        BackendPool {
            name: pool.clone(),
            nics: backends(members, vnet, &at, topology, problems),
        }
    });
    let backend_pools: Vec<BackendPool> = pools.collect();
    let probes = given.probes.iter().map(|(probe, it)| {
        let at = join(&join(at, "probes"), probe);
        names::resource_name(probe, &at, true, problems);
        self::probe(probe, it, sku, &at, problems)
    });
    let probes: Vec<HealthProbe> = probes.collect();
    let whole = frontends.len() == given.frontends.len() && elsewhere.is_none();
    let mut balancer = LoadBalancer {
        name: name.to_owned(),
        vnet,
        sku,
        frontends,
        backend_pools,
        probes,
        rules: Vec::new(),
    };
    if whole {
        balancer.rules = balancing_rules::resolve(&balancer, &given.rules, at, problems);
    }
    Some(balancer)
}

#[expect(
    clippy::too_many_arguments,
    reason = "one frontend of the file, and what it must not collide with"
)]
fn frontend(
    scope: &Scope<'_>,
    name: &str,
    given: &config::Frontend,
    at: &str,
    topology: &Topology,
    taken: &mut HashSet<(VnetIndex, IpAddr)>,
    declared: &HashSet<(VnetIndex, IpAddr)>,
    problems: &mut Problems,
) -> Option<Frontend> {
    let subnet_at = join(at, "subnet");
    let index = nics::subnet(scope, &given.subnet, &subnet_at, topology, problems)?;
    let subnet = &topology.subnets[index.0];
    if subnet.name.eq_ignore_ascii_case(GATEWAY_SUBNET) {
        problems
            .error("Sim.GW-01", subnet_at, "GatewaySubnet holds gateways only")
            .help("put the frontend into another subnet");
        return None;
    }
    let address = match given.private_ip_address {
        Some(address) => declared_address(
            address.0,
            index,
            &join(at, "privateIPAddress"),
            topology,
            taken,
            problems,
        )?,
        None => {
            let free = lowest_free(index, topology, taken, declared);
            if free.is_none() {
                let message = format!(
                    "Subnet {} does not have enough capacity for 1 IP addresses.",
                    subnet.name
                );
                problems
                    .error("SubnetIsFull", subnet_at, message)
                    .help("use a larger subnet with an IPv4 prefix, or another one");
            }
            free?
        }
    };
    taken.insert((subnet.vnet, address));
    Some(Frontend {
        name: name.to_owned(),
        subnet: index,
        address,
    })
}

/// A declared address: in the subnet, not reserved, nobody else's.
fn declared_address(
    address: IpAddr,
    subnet: SubnetIndex,
    at: &str,
    topology: &Topology,
    taken: &HashSet<(VnetIndex, IpAddr)>,
    problems: &mut Problems,
) -> Option<IpAddr> {
    let subnet = &topology.subnets[subnet.0];
    let number = ranges::number(address);
    let Some(prefix) = subnet.prefixes.iter().find(|prefix| prefix.contains(&address)) else {
        let message = format!(
            "Private static IP address {address} does not belong to the range of subnet {}/{}.",
            topology.vnets[subnet.vnet.0].name, subnet.name
        );
        let prefixes: Vec<String> = subnet.prefixes.iter().map(ToString::to_string).collect();
        problems
            .error("PrivateIPAddressNotInSubnet", at, message)
            .help(format!("the subnet is {}", prefixes.join(", ")));
        return None;
    };
    if !ranges::usable(*prefix).is_some_and(|(first, last)| (first..=last).contains(&number)) {
        let message = format!(
            "Private static IP address {address} falls within reserved IP range of subnet prefix {prefix}."
        );
        problems
            .error("PrivateIPAddressInReservedRange", at, message)
            .help("the first four addresses and the last of a subnet are Azure's own");
        return None;
    }
    if taken.contains(&(subnet.vnet, address)) {
        let message = format!("the private IP address {address} is already allocated in the VNet");
        problems
            .error("PrivateIPAddressIsAllocated", at, message)
            .help("give the frontend another address");
        return None;
    }
    Some(address)
}

fn lowest_free(
    subnet: SubnetIndex,
    topology: &Topology,
    taken: &HashSet<(VnetIndex, IpAddr)>,
    declared: &HashSet<(VnetIndex, IpAddr)>,
) -> Option<IpAddr> {
    let subnet = &topology.subnets[subnet.0];
    let ipv4 = subnet.prefixes.iter().filter(|prefix| prefix.addr().is_ipv4());
    ipv4.filter_map(|prefix| ranges::usable(*prefix).map(|usable| (prefix, usable)))
        .flat_map(|(prefix, (first, last))| (first..=last).map(|number| ranges::address(number, *prefix)))
        .find(|&address| {
            let place = (subnet.vnet, address);
            !taken.contains(&place) && !declared.contains(&place)
        })
}

/// The NICs of a pool, all of the VNet (LB-01).
fn backends(
    members: &[String],
    vnet: VnetIndex,
    at: &str,
    topology: &Topology,
    problems: &mut Problems,
) -> Vec<NicIndex> {
    let mut nics = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let at = join(at, &index.to_string());
        let nic = match topology.endpoint(member) {
            Ok(Endpoint::Nic(nic)) => nic,
            _ => {
                let message = format!("there is no NIC or VM '{}'", shown(member));
                problems
                    .error("InvalidResourceReference", at, message)
                    .help("name a NIC, or a VM for its first NIC");
                continue;
            }
        };
        let theirs = topology.subnets[topology.nics[nic.0].subnet.0].vnet;
        if theirs != vnet {
            let message = format!(
                "'{}' is in VNet {}, and the load balancer in {}",
                shown(member),
                topology.vnets[theirs.0].name,
                topology.vnets[vnet.0].name
            );
            problems
                .error("Sim.LB-01", at, message)
                .help("the backends of an internal load balancer are in its own VNet");
        } else if nics.contains(&nic) {
            problems
                .error(
                    "Sim.DuplicateName",
                    at,
                    format!("'{}' is in the pool twice", shown(member)),
                )
                .help("remove one of the two");
        } else {
            nics.push(nic);
        }
    }
    nics
}

/// A NIC is behind one internal load balancer at most.
fn one_balancer_each(balancer: &LoadBalancer, at: &str, topology: &Topology, problems: &mut Problems) {
    let others = |nic: &NicIndex| {
        let mut others = topology.load_balancers.iter();
        others.find(|other| other.backend_pools.iter().any(|pool| pool.nics.contains(nic)))
    };
    for pool in &balancer.backend_pools {
        for (index, nic) in pool.nics.iter().enumerate() {
            let Some(other) = others(nic) else { continue };
            let at = join(&join(&join(at, "backendPools"), &pool.name), &index.to_string());
            let message = format!(
                "'{}' is a backend of load balancer '{}' too",
                topology.nics[nic.0].name, other.name
            );
            problems
                .error("Sim.LB-01", at, message)
                .help("a NIC is behind one internal load balancer: give it a second NIC, or one balancer more rules");
        }
    }
}

fn probe(
    name: &str,
    given: &config::HealthProbe,
    sku: LoadBalancerSku,
    at: &str,
    problems: &mut Problems,
) -> HealthProbe {
    let protocol = match given.protocol {
        config::HealthProtocol::Tcp => HealthProtocol::Tcp,
        config::HealthProtocol::Http => HealthProtocol::Http,
        config::HealthProtocol::Https => HealthProtocol::Https,
    };
    let mut refuse = |property: &str, message: String, help: &str| {
        problems
            .error("Sim.LB-05", join(at, property), message)
            .help(help);
    };
    if given.port == 0 {
        refuse(
            "port",
            "0 is no port to probe".to_owned(),
            "use a port from 1 to 65535",
        );
    }
    let interval_s = given.interval_in_seconds.unwrap_or(DEFAULT_INTERVAL_S);
    if interval_s < SHORTEST_INTERVAL_S {
        let message = format!("{interval_s} is below {SHORTEST_INTERVAL_S}");
        refuse(
            "intervalInSeconds",
            message,
            "a probe is sent every 5 seconds or more",
        );
    }
    let number_of_probes = given.number_of_probes.unwrap_or(DEFAULT_NUMBER_OF_PROBES);
    if number_of_probes == 0 {
        let message = "0 failures would mark every backend down".to_owned();
        refuse("numberOfProbes", message, "use 1 or more");
    }
    let path = given.request_path.clone();
    match (protocol, &path) {
        (HealthProtocol::Tcp, Some(_)) => {
            let message = "a Tcp probe makes no request".to_owned();
            refuse("requestPath", message, "remove it, or make the probe an Http one");
        }
        (HealthProtocol::Http | HealthProtocol::Https, None) => {
            let message = "'requestPath' is missing".to_owned();
            refuse(
                "protocol",
                message,
                "add 'requestPath: /', or what the service answers with 200",
            );
        }
        (_, Some(path)) if !is_path(path) => {
            let message = format!("'{}' is no path of a request", shown(path));
            refuse(
                "requestPath",
                message,
                "begin with '/', without blanks or control characters",
            );
        }
        _ => {}
    }
    if protocol == HealthProtocol::Https {
        let message = if sku == LoadBalancerSku::Basic {
            "a Basic load balancer has no Https probes"
        } else {
            "this version sends no Https probes"
        };
        refuse("protocol", message.to_owned(), "use an Http or Tcp probe");
    }
    HealthProbe {
        name: name.to_owned(),
        protocol,
        port: given.port,
        request_path: path.unwrap_or_default(),
        interval_s,
        number_of_probes,
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= LONGEST_PATH && path.bytes().all(|byte| byte.is_ascii_graphic())
}
