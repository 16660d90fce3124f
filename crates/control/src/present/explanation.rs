//! The body of `explain -o json`.

use schemars::JsonSchema;
use serde::Serialize;

/// What happens to a packet and its reply.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Explanation {
    /// `Allow` only when the first packet arrives and the reply returns.
    pub verdict: &'static str,
    pub forward: Vec<Hop>,
    #[serde(rename = "return")]
    pub reply: Vec<Hop>,
    pub drop: Option<Drop>,
    pub findings: Vec<Finding>,
}

/// One NIC and direction, or the Internet, a site, or a gateway and direction, in packet order.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Hop {
    pub nic: Option<String>,
    /// Where no NIC is: `internet`, or the name of a load balancer, a gateway or a site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What the load balancer did.
    #[serde(rename = "loadBalancer", skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<BalancerHop>,
    pub direction: &'static str,
    /// The NSG that denied, or the last one evaluated.
    pub nsg: Option<String>,
    /// Its rule; `state` for a packet passed by state.
    pub rule: Option<String>,
    pub evaluated: Vec<Evaluated>,
    /// Of outbound hops that got as far as their route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<HopRoute>,
    /// The peering crossed, `vnet/peering`, that direction; or the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// The choice of a load balancer (LB-02).
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct BalancerHop {
    pub frontend: String,
    /// Its load balancing rule.
    pub rule: Option<String>,
    /// The NIC it chose.
    pub backend: Option<String>,
}

/// What one NSG said.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Evaluated {
    pub nsg: String,
    /// `NetworkManager` (security admin rules, whose `nsg` is `<configuration>/<collection>`), `NetworkInterface` or `Subnet`.
    pub association: &'static str,
    pub rule: String,
    pub access: &'static str,
}

/// The route that decided.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HopRoute {
    pub address_prefix: String,
    pub source: &'static str,
    pub next_hop_type: &'static str,
    pub next_hop_ip_address: Vec<String>,
}

/// Where and why the packet or its reply was lost.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Drop {
    /// The NIC, the gateway, the site, or `internet`.
    pub at: String,
    /// `forward` or `return`.
    pub path: &'static str,
    /// A drop reason of the contract. None: lost in a guest, which the engine cannot see; a finding says why.
    pub reason: Option<&'static str>,
    pub nsg: Option<String>,
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<HopRoute>,
}

/// Something worth knowing about the path.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Finding {
    pub code: &'static str,
    pub message: String,
}
