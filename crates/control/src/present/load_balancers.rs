//! The body of `loadbalancers -o json`.

use model::Topology;
use model::topology::{
    BalancedProtocol, BalancingRule, LoadBalancer, LoadBalancerSku, LoadDistribution, NicIndex,
};
use schemars::JsonSchema;
use serde::Serialize;

/// One backend of a load balancing rule; a rule with an empty pool has one row without a backend.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerRow {
    pub load_balancer: String,
    /// `Basic` or `Standard`.
    pub sku: &'static str,
    pub frontend: String,
    pub private_ip_address: String,
    pub rule: String,
    /// `Tcp`, `Udp` or `All`.
    pub protocol: &'static str,
    /// 0: every port (HA ports).
    pub frontend_port: u16,
    pub backend_port: u16,
    /// `Default`, `SourceIP` or `SourceIPProtocol`.
    pub load_distribution: &'static str,
    #[serde(rename = "enableFloatingIP")]
    pub enable_floating_ip: bool,
    pub probe: Option<String>,
    /// The NIC.
    pub backend: Option<String>,
    /// `Up`, `Down`, or `Pending` while a lab comes up; null where nothing is probed, or no lab runs.
    pub health: Option<String>,
}

/// Every rule and backend, in file order. `health` knows what probe, by name, says of whom.
#[must_use]
pub fn load_balancers(
    topology: &Topology,
    health: impl Fn(&LoadBalancer, &str, NicIndex, bool) -> Option<String>,
) -> Vec<LoadBalancerRow> {
    let mut rows = Vec::new();
    for balancer in &topology.load_balancers {
        for rule in &balancer.rules {
            let nics = &balancer.backend_pools[rule.backend_pool].nics;
            let row = row(balancer, rule);
            if nics.is_empty() {
                rows.push(row.clone());
            }
            let ipv6 = balancer.frontends[rule.frontend].address.is_ipv6();
            rows.extend(nics.iter().map(|&nic| LoadBalancerRow {
                backend: Some(topology.nics[nic.0].name.clone()),
                health: (row.probe.as_deref()).and_then(|probe| health(balancer, probe, nic, ipv6)),
                ..row.clone()
            }));
        }
    }
    rows
}

fn row(balancer: &LoadBalancer, rule: &BalancingRule) -> LoadBalancerRow {
    let frontend = &balancer.frontends[rule.frontend];
    LoadBalancerRow {
        load_balancer: balancer.name.clone(),
        sku: match balancer.sku {
            LoadBalancerSku::Basic => "Basic",
            LoadBalancerSku::Standard => "Standard",
        },
        frontend: frontend.name.clone(),
        private_ip_address: frontend.address.to_string(),
        rule: rule.name.clone(),
        protocol: match rule.protocol {
            BalancedProtocol::Tcp => "Tcp",
            BalancedProtocol::Udp => "Udp",
            BalancedProtocol::All => "All",
        },
        frontend_port: rule.frontend_port,
        backend_port: rule.backend_port,
        load_distribution: match rule.distribution {
            LoadDistribution::Default => "Default",
            LoadDistribution::SourceIp => "SourceIP",
            LoadDistribution::SourceIpProtocol => "SourceIPProtocol",
        },
        enable_floating_ip: rule.floating_ip,
        probe: rule.probe.map(|probe| balancer.probes[probe].name.clone()),
        backend: None,
        health: None,
    }
}
