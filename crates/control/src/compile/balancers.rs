//! Load balancers compiled: frontends with their rules and backends, what is probed, and which probes NSGs stop.

use std::net::IpAddr;

use engine::balance::{Backend, Distribution, Frontend, Health, HealthId, Rule};
use engine::filter::{Access, inbound};
use engine::snapshot::{FrontendId, NicId, PeeringId, Snapshot, VnetId};
use model::Topology;
use model::topology::{
    BalancedProtocol, BalancingRule, LoadBalancer, LoadBalancerIndex, LoadBalancerSku, LoadDistribution,
    NicIndex, PLATFORM_V4, PLATFORM_V6, PeeringIndex, Profile, VnetIndex,
};
use packet::key::mapped;
use packet::{FlowKey, Protocol};

use super::{Probed, dense, peering_id};

/// A compiled frontend: the balancer and position it comes from.
pub(super) type Compiled = (Frontend, (LoadBalancerIndex, usize));

/// Whom which probe asks, in the order of health ids; all are up until somebody knows better.
pub(super) fn probed(topology: &Topology) -> (Vec<Probed>, Health) {
    let mut probed = Vec::new();
    for (index, balancer) in topology.load_balancers.iter().enumerate() {
        for probe in 0..balancer.probes.len() {
            let asked = balancer.probed_by(probe).into_iter();
            probed.extend(asked.filter_map(|(nic, ipv6)| {
                Some(Probed {
                    balancer: LoadBalancerIndex(index),
                    probe,
                    nic,
                    address: address_of(topology, nic, ipv6)?,
                })
            }));
        }
    }
    let health = Health::new(probed.iter().map(|_| true));
    (probed, health)
}

/// All frontends. `peerings` by id: the local VNet and the object.
pub(super) fn frontends(
    topology: &Topology,
    probed: &[Probed],
    peerings: &[(VnetIndex, PeeringIndex)],
) -> Vec<Compiled> {
    let mut all = Vec::new();
    for (index, balancer) in topology.load_balancers.iter().enumerate() {
        let index = LoadBalancerIndex(index);
        for (position, frontend) in balancer.frontends.iter().enumerate() {
            let rules = balancer.rules.iter().filter(|rule| rule.frontend == position);
            let compiled = Frontend {
                vnet: VnetId(dense(balancer.vnet.0)),
                address: mapped(frontend.address),
                out_of_reach: out_of_reach(topology, balancer, peerings),
                rules: rules
                    .map(|it| rule(topology, index, balancer, it, probed))
                    .collect(),
            };
            all.push((compiled, (index, position)));
        }
    }
    all
}

/// Frontends by VNet and address.
pub(super) fn index(frontends: &[Compiled]) -> Vec<(VnetId, u128, FrontendId)> {
    let all = (0..).zip(frontends);
    let mut index: Vec<_> = all
        .map(|(id, (frontend, _))| (frontend.vnet, frontend.address, FrontendId(id)))
        .collect();
    index.sort_unstable();
    index
}

/// PEER-28: over a global peering no frontend is reached in 2018, and only Standard ones in 2025.
fn out_of_reach(
    topology: &Topology,
    balancer: &LoadBalancer,
    peerings: &[(VnetIndex, PeeringIndex)],
) -> Vec<PeeringId> {
    if topology.profile == Profile::Azure2025 && balancer.sku == LoadBalancerSku::Standard {
        return Vec::new();
    }
    let global = peerings.iter().enumerate().filter(|(_, (local, object))| {
        let peering = &topology.peerings[object.0];
        let remote = if peering.from == *local {
            peering.to
        } else {
            peering.from
        };
        peering.global && remote == balancer.vnet
    });
    global.map(|(id, _)| peering_id(id)).collect()
}

fn rule(
    topology: &Topology,
    index: LoadBalancerIndex,
    balancer: &LoadBalancer,
    rule: &BalancingRule,
    probed: &[Probed],
) -> Rule {
    let frontend = balancer.frontends[rule.frontend].address;
    let backend = |&nic: &NicIndex| {
        let address = address_of(topology, nic, frontend.is_ipv6())?;
        let health = rule.probe.and_then(|probe| {
            let wanted = Probed {
                balancer: index,
                probe,
                nic,
                address,
            };
            probed.iter().position(|other| *other == wanted)
        });
        Some(Backend {
            nic: NicId(dense(nic.0)),
            address: mapped(address),
            health: health.map(|at| HealthId(dense(at))),
        })
    };
    let pool = &balancer.backend_pools[rule.backend_pool];
    Rule {
        protocol: match rule.protocol {
            BalancedProtocol::Tcp => Some(Protocol::TCP),
            BalancedProtocol::Udp => Some(Protocol::UDP),
            BalancedProtocol::All => None,
        },
        port: rule.frontend_port,
        backend_port: rule.backend_port,
        distribution: match rule.distribution {
            LoadDistribution::Default => Distribution::FiveTuple,
            LoadDistribution::SourceIp => Distribution::SourceIp,
            LoadDistribution::SourceIpProtocol => Distribution::SourceIpProtocol,
        },
        floating: rule.floating_ip,
        keeps_tcp: balancer.sku == LoadBalancerSku::Standard,
        // 4 to 30.
        idle_minutes: u8::try_from(rule.idle_timeout_min).unwrap_or(u8::MAX),
        backends: pool.nics.iter().filter_map(backend).collect(),
    }
}

/// LB-04: addresses of frontends that packets to and from a NIC keep.
pub(crate) fn floating(topology: &Topology, nic: NicIndex) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for balancer in &topology.load_balancers {
        let rules = balancer
            .rules
            .iter()
            .filter(|rule| rule.floating_ip && balancer.backend_pools[rule.backend_pool].nics.contains(&nic));
        addresses.extend(rules.map(|rule| balancer.frontends[rule.frontend].address));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Marks down who cannot be probed because an NSG denies it (NSG-14): the tables know that without a packet.
pub(super) fn deny_probes(topology: &Topology, snapshot: &Snapshot, probed: &[Probed]) {
    for (id, asked) in (0..).zip(probed) {
        let probe = &topology.load_balancers[asked.balancer.0].probes[asked.probe];
        let source = if asked.address.is_ipv4() {
            IpAddr::V4(PLATFORM_V4)
        } else {
            IpAddr::V6(PLATFORM_V6)
        };
        let key = FlowKey {
            source: mapped(source),
            destination: mapped(asked.address),
            // Any port above those of services: no rule on probes can name the one it will have.
            source_port: u16::MAX,
            destination_port: probe.port,
            protocol: Protocol::TCP,
        };
        if inbound(snapshot, NicId(dense(asked.nic.0)), &key).access == Access::Deny {
            snapshot.health.set(HealthId(id), false);
        }
    }
}

/// The NIC's first address of a family.
fn address_of(topology: &Topology, nic: NicIndex, ipv6: bool) -> Option<IpAddr> {
    let mut addresses = topology.nics[nic.0].addresses.iter().copied();
    addresses.find(|address| address.is_ipv6() == ipv6)
}
