//! Load balancing rules: what each may say alone, and which go together (LB-02, LB-03, LB-04, LB-09).

use std::collections::HashMap;
use std::ops::RangeInclusive;

use indexmap::IndexMap;

use crate::check::names::{self, Names};
use crate::config;
use crate::problems::{Problems, join};
use crate::topology::{
    BalancedProtocol, BalancingRule, LoadBalancer, LoadBalancerSku, LoadDistribution, Topology,
};

/// LB-09, in minutes.
const IDLE_TIMEOUT: RangeInclusive<u16> = 4..=30;

/// The rules of a balancer whose other parts are known; what refers to nothing is left out.
pub(crate) fn resolve(
    balancer: &LoadBalancer,
    given: &IndexMap<String, config::BalancingRule>,
    at: &str,
    problems: &mut Problems,
) -> Vec<BalancingRule> {
    let names = [
        Names::new("frontend", balancer.frontends.iter().map(|it| &it.name)),
        Names::new("backend pool", balancer.backend_pools.iter().map(|it| &it.name)),
        Names::new("probe", balancer.probes.iter().map(|it| &it.name)),
    ];
    let mut rules = Vec::new();
    for (name, rule) in given {
        let at = join(&join(at, "rules"), name);
        names::resource_name(name, &at, true, problems);
        rules.extend(resolved(name, rule, &names, &at, problems));
    }
    rules
}

/// What rules may not say alone or together.
pub(crate) fn check(balancer: &LoadBalancer, at: &str, topology: &Topology, problems: &mut Problems) {
    for rule in &balancer.rules {
        let at = join(&join(at, "rules"), &rule.name);
        ports(rule, balancer, &at, problems);
        floating(rule, balancer, &at, topology, problems);
        families(rule, balancer, &at, topology, problems);
        times(rule, balancer, &at, problems);
    }
    frontends_once(balancer, at, problems);
    backends_once(balancer, at, topology, problems);
    ha_alone(balancer, at, problems);
}

fn resolved(
    name: &str,
    rule: &config::BalancingRule,
    [frontends, pools, probes]: &[Names; 3],
    at: &str,
    problems: &mut Problems,
) -> Option<BalancingRule> {
    let frontend = frontends.find(&rule.frontend, &join(at, "frontend"), problems);
    let pool = pools.find(&rule.backend_pool, &join(at, "backendPool"), problems);
    let probe = rule
        .probe
        .as_ref()
        .map(|probe| probes.find(probe, &join(at, "probe"), problems));
    let probe = match probe {
        Some(found) => Some(found?),
        None => None,
    };
    Some(BalancingRule {
        name: name.to_owned(),
        frontend: frontend?,
        backend_pool: pool?,
        probe,
        protocol: match rule.protocol {
            config::BalancedProtocol::Tcp => BalancedProtocol::Tcp,
            config::BalancedProtocol::Udp => BalancedProtocol::Udp,
            config::BalancedProtocol::All => BalancedProtocol::All,
        },
        frontend_port: rule.frontend_port,
        backend_port: rule.backend_port,
        distribution: match rule.load_distribution.unwrap_or_default() {
            config::LoadDistribution::Default => LoadDistribution::Default,
            config::LoadDistribution::SourceIp => LoadDistribution::SourceIp,
            config::LoadDistribution::SourceIpProtocol => LoadDistribution::SourceIpProtocol,
        },
        floating_ip: rule.enable_floating_ip.unwrap_or(false),
        idle_timeout_min: rule.idle_timeout_in_minutes.unwrap_or(*IDLE_TIMEOUT.start()),
        tcp_reset: rule.enable_tcp_reset.unwrap_or(false),
    })
}

/// LB-03: All and the ports 0 come together, on a Standard one, for IPv4.
fn ports(rule: &BalancingRule, balancer: &LoadBalancer, at: &str, problems: &mut Problems) {
    let all = rule.protocol == BalancedProtocol::All;
    for (property, port) in [
        ("frontendPort", rule.frontend_port),
        ("backendPort", rule.backend_port),
    ] {
        if all && port != 0 {
            problems
                .error(
                    "Sim.LB-03",
                    join(at, property),
                    "protocol All balances every port",
                )
                .help(format!("write '{property}: 0', or protocol Tcp or Udp"));
        } else if !all && port == 0 {
            problems
                .error(
                    "Sim.LB-03",
                    join(at, property),
                    "port 0 means every port, with protocol All alone",
                )
                .help("use a port from 1 to 65535, or protocol All (HA ports)");
        }
    }
    if !all {
        return;
    }
    if balancer.sku == LoadBalancerSku::Basic {
        problems
            .error(
                "Sim.LB-03",
                join(at, "protocol"),
                "HA ports need a Standard load balancer",
            )
            .help("use 'sku: Standard', or a rule for one port");
    }
    if balancer.frontends[rule.frontend].address.is_ipv6() {
        problems
            .error("Sim.LB-03", join(at, "frontend"), "HA ports balance IPv4 only")
            .help("use an IPv4 frontend");
    }
}

/// LB-04.
fn floating(
    rule: &BalancingRule,
    balancer: &LoadBalancer,
    at: &str,
    topology: &Topology,
    problems: &mut Problems,
) {
    if !rule.floating_ip {
        return;
    }
    let mut refuse = |property: &str, message: &str, help: &str| {
        problems
            .error("Sim.LB-04", join(at, property), message)
            .help(help);
    };
    if balancer.frontends[rule.frontend].address.is_ipv6() {
        refuse(
            "enableFloatingIP",
            "an internal IPv6 frontend cannot float",
            "turn it off, or use an IPv4 frontend",
        );
    }
    if rule.frontend_port != rule.backend_port {
        refuse(
            "backendPort",
            "a floating IP keeps the frontend's port",
            "write the frontend's port",
        );
    }
    let pool = &balancer.backend_pools[rule.backend_pool].nics;
    if pool.iter().any(|nic| topology.nics[nic.0].vm.is_none()) {
        refuse(
            "enableFloatingIP",
            "a backend behind a VNet port has no guest that could hold the frontend's address",
            "turn it off, or use NICs of VMs",
        );
    }
}

/// Every backend needs an address of the frontend's family.
fn families(
    rule: &BalancingRule,
    balancer: &LoadBalancer,
    at: &str,
    topology: &Topology,
    problems: &mut Problems,
) {
    let address = balancer.frontends[rule.frontend].address;
    let lacks = |nic: &&crate::topology::NicIndex| {
        let nic = &topology.nics[nic.0];
        !nic.addresses.is_empty() && !nic.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4())
    };
    if let Some(nic) = balancer.backend_pools[rule.backend_pool].nics.iter().find(lacks) {
        let message = format!(
            "backend '{}' has no address of the frontend's family",
            topology.nics[nic.0].name
        );
        problems
            .error("Sim.LB-01", join(at, "backendPool"), message)
            .help(format!("give it one, or leave it out: the frontend is {address}"));
    }
}

/// LB-09.
fn times(rule: &BalancingRule, balancer: &LoadBalancer, at: &str, problems: &mut Problems) {
    if !IDLE_TIMEOUT.contains(&rule.idle_timeout_min) {
        let message = format!("{} is not from 4 to 30", rule.idle_timeout_min);
        problems
            .error("Sim.LB-09", join(at, "idleTimeoutInMinutes"), message)
            .help("use 4 to 30 minutes");
    }
    if rule.tcp_reset && balancer.sku == LoadBalancerSku::Standard {
        problems.note(
            join(at, "enableTcpReset"),
            "connections are not reset at the idle timeout yet: they are forgotten",
        );
    }
    if rule.tcp_reset && balancer.sku == LoadBalancerSku::Basic {
        problems
            .error(
                "Sim.LB-09",
                join(at, "enableTcpReset"),
                "a Basic load balancer does not reset connections",
            )
            .help("use 'sku: Standard', or leave it out");
    }
}

/// A packet to a frontend matches one rule at most.
fn frontends_once(balancer: &LoadBalancer, at: &str, problems: &mut Problems) {
    for (index, rule) in balancer.rules.iter().enumerate() {
        let earlier = balancer.rules[..index].iter().find(|other| {
            let ports = other.frontend_port == rule.frontend_port || is_ha(other) || is_ha(rule);
            other.frontend == rule.frontend && overlap(other.protocol, rule.protocol) && ports
        });
        if let Some(other) = earlier {
            let message = format!("rule '{}' takes the same packets of this frontend", other.name);
            problems
                .error(
                    "Sim.LB-01",
                    join(&join(&join(at, "rules"), &rule.name), "frontendPort"),
                    message,
                )
                .help("use another port, protocol or frontend");
        }
    }
}

/// Unless its IP floats, a rule's flows are known at the backend by address, port and protocol alone.
fn backends_once(balancer: &LoadBalancer, at: &str, topology: &Topology, problems: &mut Problems) {
    let mut seen: HashMap<(usize, u16, bool, bool), &str> = HashMap::new();
    for rule in balancer.rules.iter().filter(|rule| !rule.floating_ip) {
        let pool = &balancer.backend_pools[rule.backend_pool];
        let protocols: &[bool] = match rule.protocol {
            BalancedProtocol::Tcp => &[true],
            BalancedProtocol::Udp => &[false],
            BalancedProtocol::All => &[true, false],
        };
        // Families never meet.
        let ipv4 = balancer.frontends[rule.frontend].address.is_ipv4();
        let places = pool.nics.iter().flat_map(|nic| {
            let of = |tcp: &bool| (nic.0, rule.backend_port, *tcp, ipv4);
            protocols.iter().map(of)
        });
        let mut clash = None;
        for place in places {
            match seen.insert(place, &rule.name) {
                Some(other) if other != rule.name => clash = Some((other, place.0)),
                _ => {}
            }
        }
        if let Some((other, nic)) = clash {
            let message = format!(
                "rule '{other}' uses the same port and protocol of backend '{}'",
                topology.nics[nic].name
            );
            problems
                .error(
                    "Sim.LB-01",
                    join(&join(&join(at, "rules"), &rule.name), "backendPort"),
                    message,
                )
                .help("use another backend port, or enableFloatingIP");
        }
    }
}

/// LB-03: HA ports are not with other rules on one pool.
fn ha_alone(balancer: &LoadBalancer, at: &str, problems: &mut Problems) {
    for rule in balancer.rules.iter().filter(|rule| !is_ha(rule)) {
        let ha = balancer
            .rules
            .iter()
            .find(|other| is_ha(other) && other.backend_pool == rule.backend_pool);
        if let Some(ha) = ha {
            let message = format!("rule '{}' balances all ports of this backend pool", ha.name);
            problems
                .error(
                    "Sim.LB-03",
                    join(&join(&join(at, "rules"), &rule.name), "backendPool"),
                    message,
                )
                .help("use a pool of its own, or remove one of the two rules");
        }
    }
}

fn is_ha(rule: &BalancingRule) -> bool {
    rule.protocol == BalancedProtocol::All
}

fn overlap(one: BalancedProtocol, other: BalancedProtocol) -> bool {
    one == other || one == BalancedProtocol::All || other == BalancedProtocol::All
}
