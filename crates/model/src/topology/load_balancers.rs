//! Internal load balancers of the checked model.

use std::net::IpAddr;

use super::{NicIndex, SubnetIndex, Topology, VnetIndex};

/// An internal load balancer (LB-01). Names in it refer by index to its own lists.
#[derive(Clone, Debug)]
pub struct LoadBalancer {
    pub name: String,
    /// Of all its frontends and backends.
    pub vnet: VnetIndex,
    pub sku: LoadBalancerSku,
    /// At least one.
    pub frontends: Vec<Frontend>,
    pub backend_pools: Vec<BackendPool>,
    pub probes: Vec<HealthProbe>,
    pub rules: Vec<BalancingRule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancerSku {
    Basic,
    Standard,
}

#[derive(Clone, Debug)]
pub struct Frontend {
    pub name: String,
    pub subnet: SubnetIndex,
    /// The declared one, or the lowest free.
    pub address: IpAddr,
}

#[derive(Clone, Debug)]
pub struct BackendPool {
    pub name: String,
    /// Each once, in file order.
    pub nics: Vec<NicIndex>,
}

/// LB-05.
#[derive(Clone, Debug)]
pub struct HealthProbe {
    pub name: String,
    pub protocol: HealthProtocol,
    /// Never 0.
    pub port: u16,
    /// Begins with '/'; empty for Tcp.
    pub request_path: String,
    /// At least 5.
    pub interval_s: u16,
    /// Failures in a row until a backend is down; at least 1.
    pub number_of_probes: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthProtocol {
    Tcp,
    Http,
    Https,
}

#[derive(Clone, Debug)]
pub struct BalancingRule {
    pub name: String,
    /// Index into [`LoadBalancer::frontends`].
    pub frontend: usize,
    /// Index into [`LoadBalancer::backend_pools`].
    pub backend_pool: usize,
    /// Index into [`LoadBalancer::probes`]; None: every backend counts as healthy.
    pub probe: Option<usize>,
    /// All: HA ports (LB-03), and both ports are 0.
    pub protocol: BalancedProtocol,
    pub frontend_port: u16,
    pub backend_port: u16,
    pub distribution: LoadDistribution,
    /// LB-04.
    pub floating_ip: bool,
    /// LB-09: from 4 to 30.
    pub idle_timeout_min: u16,
    pub tcp_reset: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancedProtocol {
    Tcp,
    Udp,
    All,
}

/// LB-02.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadDistribution {
    /// The 5-tuple.
    Default,
    /// Source and destination address.
    SourceIp,
    /// Source and destination address, and protocol.
    SourceIpProtocol,
}

impl LoadBalancer {
    /// The backends a probe asks, those of all rules that use it, and whether over IPv6, as their frontends are
    /// reached; each once.
    #[must_use]
    pub fn probed_by(&self, probe: usize) -> Vec<(NicIndex, bool)> {
        let mut asked = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.probe == Some(probe)) {
            let ipv6 = self.frontends[rule.frontend].address.is_ipv6();
            for &nic in &self.backend_pools[rule.backend_pool].nics {
                if !asked.contains(&(nic, ipv6)) {
                    asked.push((nic, ipv6));
                }
            }
        }
        asked
    }
}

impl Topology {
    /// VNets in which 168.63.129.16 probes backends (LB-05), each once, in file order.
    #[must_use]
    pub fn probing_vnets(&self) -> Vec<VnetIndex> {
        let probes = |balancer: &&LoadBalancer| {
            (0..balancer.probes.len()).any(|probe| !balancer.probed_by(probe).is_empty())
        };
        let mut vnets: Vec<VnetIndex> = self
            .load_balancers
            .iter()
            .filter(probes)
            .map(|it| it.vnet)
            .collect();
        vnets.sort_unstable();
        vnets.dedup();
        vnets
    }
}
