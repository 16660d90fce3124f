//! The section `loadBalancers` of the lab file.

use indexmap::IndexMap;

use super::Address;
use crate::decode::{choice, object};

choice! { LoadBalancerSku { Basic = "Basic", Standard = "Standard", } }
choice! { HealthProtocol { Tcp = "Tcp", Http = "Http", Https = "Https", } }
choice! { BalancedProtocol { Tcp = "Tcp", Udp = "Udp", All = "All", } }
choice! {
    /// What of a flow chooses its backend (LB-02).
    LoadDistribution { Default = "Default", SourceIp = "SourceIP", SourceIpProtocol = "SourceIPProtocol", }
}

object! {
    /// An internal load balancer.
    LoadBalancer {
        /// Basic when absent.
        sku: Option<LoadBalancerSku> = "sku",
        /// The private addresses it answers at, by name, all in one VNet.
        frontends: IndexMap<String, Frontend> = "frontends",
        /// Names of NICs, or of VMs for their first NIC, by pool.
        backend_pools: IndexMap<String, Vec<String>> = "backendPools",
        /// How backends are asked whether they live, by name.
        probes: IndexMap<String, HealthProbe> = "probes",
        /// Which flows go to which pool, by name.
        rules: IndexMap<String, BalancingRule> = "rules",
    }
}

object! {
    /// An address of a load balancer.
    Frontend {
        /// VNET/SUBNET.
        subnet: String = "subnet",
        /// The lowest free IPv4 address when absent.
        private_ip_address: Option<Address> = "privateIPAddress",
    }
}

object! {
    /// A health probe, sent from 168.63.129.16.
    HealthProbe {
        /// Tcp: a handshake; Http and Https: a GET that is answered by 200.
        protocol: HealthProtocol = "protocol",
        /// From 1 to 65535.
        port: u16 = "port",
        /// Of Http and Https, such as /health.
        request_path: Option<String> = "requestPath",
        /// At least 5; 15 when absent.
        interval_in_seconds: Option<u16> = "intervalInSeconds",
        /// Failures in a row until the backend is down; 2 when absent.
        number_of_probes: Option<u16> = "numberOfProbes",
    }
}

object! {
    /// A load balancing rule.
    BalancingRule {
        /// Name of one of the 'frontends'.
        frontend: String = "frontend",
        /// Name of one of the 'backendPools'.
        backend_pool: String = "backendPool",
        /// Name of one of the 'probes'; without one every backend counts as healthy.
        probe: Option<String> = "probe",
        /// All: HA ports, every TCP and UDP flow.
        protocol: BalancedProtocol = "protocol",
        /// 0 with All.
        frontend_port: u16 = "frontendPort",
        /// 0 with All.
        backend_port: u16 = "backendPort",
        /// Default (5-tuple) when absent.
        load_distribution: Option<LoadDistribution> = "loadDistribution",
        /// The packet keeps the frontend's address and port; false when absent.
        enable_floating_ip: Option<bool> = "enableFloatingIP",
        /// Of TCP, from 4 to 30; 4 when absent.
        idle_timeout_in_minutes: Option<u16> = "idleTimeoutInMinutes",
        /// Reset TCP connections at the idle timeout; false when absent.
        enable_tcp_reset: Option<bool> = "enableTcpReset",
    }
}
