//! The checked model: every reference resolved to an index, every address given, nothing left to refuse.

mod gateways;
mod groups;
mod links;
mod load_balancers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

pub use gateways::{Connection, Far, Gateway, GatewayKind, LearnedRoute, Site};
pub use groups::Groups;
pub use links::{
    Aqm, Jitter, JitterDistribution, LatencySource, Link, LinkOn, LinkQueue, LinkSettings, Loss,
};
pub use load_balancers::{
    BackendPool, BalancedProtocol, BalancingRule, Frontend, HealthProbe, HealthProtocol, LoadBalancer,
    LoadBalancerSku, LoadDistribution,
};

pub use crate::service_tags::ServiceTags;

macro_rules! indices {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        $($(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub usize);)+
    };
}

indices! {
    /// Index into [`Topology::vnets`].
    VnetIndex,
    /// Index into [`Topology::subnets`].
    SubnetIndex,
    /// Index into [`Topology::peerings`].
    PeeringIndex,
    /// Index into [`Topology::route_tables`].
    RouteTableIndex,
    /// Index into [`Topology::nsgs`].
    NsgIndex,
    /// Index into [`Topology::asgs`].
    AsgIndex,
    /// Index into [`Topology::nics`].
    NicIndex,
    /// Index into [`Topology::vms`].
    VmIndex,
    /// Index into [`Topology::load_balancers`].
    LoadBalancerIndex,
    /// Index into [`Topology::gateways`].
    GatewayIndex,
    /// Index into [`Topology::sites`].
    SiteIndex,
    /// Index into [`Topology::connections`].
    ConnectionIndex,
}

/// VNET-08: what the platform answers and probes from.
pub const PLATFORM_V4: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// LB-05: the same over IPv6, link-local.
pub const PLATFORM_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x1234, 0x5678, 0x9abc);

/// A whole lab. Vectors are in file order.
#[derive(Clone, Debug)]
pub struct Topology {
    pub name: String,
    /// Resource group of the objects; the lab's name unless given.
    pub resource_group: String,
    /// Which objects are in another group.
    pub groups: Groups,
    pub profile: Profile,
    pub settings: Settings,
    pub vnets: Vec<Vnet>,
    pub subnets: Vec<Subnet>,
    pub peerings: Vec<Peering>,
    /// Beside `peerings`: those to VNets that are gone.
    pub orphaned_peerings: Vec<OrphanedPeering>,
    pub route_tables: Vec<RouteTable>,
    pub nsgs: Vec<Nsg>,
    pub asgs: Vec<Asg>,
    /// NSG-43: in order of evaluation.
    pub security_admin_configurations: Vec<SecurityAdminConfiguration>,
    /// The enabled ones; at most one per NSG.
    pub flow_logs: Vec<FlowLog>,
    pub service_tags: ServiceTags,
    /// NICs of VMs first, in VM order, then `networkInterfaces`.
    pub nics: Vec<Nic>,
    /// Those that wait for a VM: they hold their addresses, and no packet can reach them.
    pub detached_nics: Vec<Nic>,
    pub vms: Vec<Vm>,
    pub load_balancers: Vec<LoadBalancer>,
    pub gateways: Vec<Gateway>,
    pub sites: Vec<Site>,
    pub connections: Vec<Connection>,
    /// At most one for each peering and connection.
    pub links: Vec<Link>,
    /// Of everything random on links; 0 unless given.
    pub seed: u64,
    /// What gateways hear over BGP. None: nobody has asked a running BGP speaker, and every speaker is taken to
    /// announce what it should (a site its prefixes, a gateway what [`Topology::advertised`] says).
    pub learned_routes: Option<Vec<LearnedRoute>>,
    /// Test addresses of the lab's `internet` namespace; None: the lab has no Internet.
    pub internet: Option<Vec<IpAddr>>,
    pub tests: Vec<Test>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Azure2018,
    Azure2025,
}

/// Switches of the specification (`settings:`).
#[derive(Clone, Debug)]
pub struct Settings {
    /// PEER-21.
    pub forwarded_semantics: ForwardedSemantics,
    /// NSG-11: a 0.0.0.0/0 user route belongs to the VirtualNetwork tag.
    pub tag_includes_default_route: bool,
    /// ROUTE-03: the None defaults; None: the profile's own set.
    pub none_routes: Option<Vec<IpNet>>,
    /// NET-03; None: off.
    pub fabric_mtu: Option<u16>,
    /// NET-13: connections of one NIC.
    pub flows_per_nic: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedSemantics {
    Drop,
    Tag,
}

#[derive(Clone, Debug)]
pub struct Vnet {
    pub name: String,
    pub location: String,
    /// ARM id of the subscription (a UUID).
    pub subscription: String,
    pub tenant: String,
    pub classic: bool,
    pub address_space: Vec<IpNet>,
    pub subnets: Vec<SubnetIndex>,
    /// NSG-19, `flowTimeoutInMinutes`: 4 to 30; None: not set, which is 4.
    pub flow_timeout_minutes: Option<u8>,
    /// The VNet port, if the VNet has one.
    pub tun: Option<VnetPort>,
}

impl Vnet {
    /// The lab's namespace of its port: its name, and as a namespace has a file of its name, that of a key `group/name` is `group.name`.
    #[must_use]
    pub fn port_namespace(&self) -> String {
        self.name.replace('/', ".")
    }
}

#[derive(Clone, Debug)]
pub struct VnetPort {
    /// At most 15 bytes; `pl-<vnet>` cut to fit unless given.
    pub interface: String,
    pub namespace: PortNamespace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortNamespace {
    /// A namespace of the lab named after the VNet.
    Lab,
    /// An existing one: a name under /run/netns or a path.
    Existing(String),
    /// The caller's (`up --allow-host`).
    Host,
}

#[derive(Clone, Debug)]
pub struct Subnet {
    pub name: String,
    pub vnet: VnetIndex,
    pub prefixes: Vec<IpNet>,
    pub nsg: Option<NsgIndex>,
    pub route_table: Option<RouteTableIndex>,
    /// In Azure's spelling, such as Microsoft.Storage; each once, sorted.
    pub service_endpoints: Vec<String>,
}

/// One direction, owned by `from`.
#[derive(Clone, Debug)]
pub struct Peering {
    pub name: String,
    pub from: VnetIndex,
    pub to: VnetIndex,
    pub state: PeeringState,
    pub sync_level: SyncLevel,
    pub allow_virtual_network_access: bool,
    pub allow_forwarded_traffic: bool,
    pub allow_gateway_transit: bool,
    pub use_remote_gateways: bool,
    /// What is peered; drives the peering routes (PEER-18). Of subnet peering: the ranges of the remote subnets.
    pub remote_address_space: Vec<IpNet>,
    /// What would be peered now: the remote VNet's space, or its subnets' ranges (`remoteVirtualNetworkAddressSpace`).
    pub remote_current_space: Vec<IpNet>,
    /// Subnet peering (PEER-40); None: the whole VNets are peered.
    pub subnets: Option<PeeredSubnets>,
    pub do_not_verify_remote_gateways: bool,
    /// The two VNets lie in different regions.
    pub global: bool,
    /// One way: of its link, else between the two regions (PEER-39); 0 in one region.
    pub latency_us: u64,
    pub latency_source: LatencySource,
    /// The peering of the other direction, where it exists.
    pub reverse: Option<PeeringIndex>,
}

impl Topology {
    /// `resourceGuid` of a peering: the same for both directions (PEER-01).
    #[must_use]
    pub fn peering_guid(&self, peering: PeeringIndex) -> String {
        let peering = &self.peerings[peering.0];
        let mut ends = [peering.from, peering.to].map(|vnet| self.vnets[vnet.0].name.to_lowercase());
        ends.sort();
        let name = format!("{}/{}", self.name, ends.join("/"));
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
    }
}

/// Which subnets a peering joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeeredSubnets {
    /// Of the owner.
    pub local: Vec<SubnetIndex>,
    /// Of the remote VNet.
    pub remote: Vec<SubnetIndex>,
    /// `enableOnlyIPv6Peering`.
    pub only_ipv6: bool,
}

/// A peering whose remote VNet was deleted: Disconnected, carrying nothing, and still in the way of others (PEER-05, PEER-14).
#[derive(Clone, Debug)]
pub struct OrphanedPeering {
    pub name: String,
    pub from: VnetIndex,
    /// The VNet there was.
    pub to: String,
    pub allow_virtual_network_access: bool,
    pub allow_forwarded_traffic: bool,
    pub allow_gateway_transit: bool,
    pub use_remote_gateways: bool,
    /// What was peered.
    pub remote_address_space: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeeringState {
    Initiated,
    Connected,
    Disconnected,
}

/// `peeringSyncLevel` (PEER-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncLevel {
    FullyInSync,
    RemoteNotInSync,
    LocalNotInSync,
    LocalAndRemoteNotInSync,
}

#[derive(Clone, Debug)]
pub struct RouteTable {
    pub name: String,
    pub disable_bgp_route_propagation: bool,
    /// ROUTE-35: `disablePeeringRoute: All`.
    pub disable_peering_route: bool,
    pub routes: Vec<Udr>,
}

/// A user route. One for a service tag stands here once per prefix of the tag (ROUTE-33).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udr {
    pub name: String,
    pub prefix: IpNet,
    /// The service tag the prefix comes from.
    pub tag: Option<String>,
    pub next_hop: UdrNextHop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdrNextHop {
    VirtualNetworkGateway,
    VnetLocal,
    Internet,
    VirtualAppliance(IpAddr),
    /// ROUTE-36: 2 to 64 of them, each once.
    VirtualApplianceEcmp(Vec<IpAddr>),
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nsg {
    pub name: String,
    /// As declared, without the default rules (NSG-10), which `control` appends; any order.
    pub rules: Vec<SecurityRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityRule {
    pub name: String,
    pub priority: u16,
    pub direction: Direction,
    pub access: Access,
    pub protocol: RuleProtocol,
    pub source: RuleAddress,
    pub source_ports: Vec<PortRange>,
    pub destination: RuleAddress,
    pub destination_ports: Vec<PortRange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Inbound,
    Outbound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleProtocol {
    Any,
    Tcp,
    Udp,
    Icmp,
    Esp,
    Ah,
}

/// A flow log of an NSG (NSG-40).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLog {
    pub name: String,
    pub nsg: NsgIndex,
    pub version: FlowLogVersion,
    /// A directory, relative to the lab file; None: in the run directory.
    pub storage: Option<String>,
    /// None: files are kept for ever.
    pub retention_days: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowLogVersion {
    /// Beginnings of flows.
    One,
    /// Also what they carried.
    Two,
}

/// Security admin rules, and the VNets they apply to (NSG-43).
#[derive(Clone, Debug)]
pub struct SecurityAdminConfiguration {
    pub name: String,
    pub rule_collections: Vec<AdminRuleCollection>,
}

/// Rules of one security admin configuration that share their VNets.
#[derive(Clone, Debug)]
pub struct AdminRuleCollection {
    pub name: String,
    /// The members of its network groups, each once, sorted.
    pub applies_to: Vec<VnetIndex>,
    pub rules: Vec<AdminRule>,
}

/// A security admin rule.
#[derive(Clone, Debug)]
pub struct AdminRule {
    pub name: String,
    /// From 1 to 4096.
    pub priority: u16,
    pub direction: Direction,
    pub access: AdminAccess,
    pub protocol: RuleProtocol,
    /// Any of these.
    pub sources: Vec<RuleAddress>,
    pub source_ports: Vec<PortRange>,
    pub destinations: Vec<RuleAddress>,
    pub destination_ports: Vec<PortRange>,
}

/// What a security admin rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAccess {
    /// The NSGs decide.
    Allow,
    /// It passes; no NSG is asked.
    AlwaysAllow,
    /// It is dropped; no NSG is asked.
    Deny,
}

/// NSG-05.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAddress {
    Any,
    Prefixes(Vec<IpNet>),
    /// In Azure's spelling: VirtualNetwork, Internet, AzureLoadBalancer, ...
    Tag(String),
    Asgs(Vec<AsgIndex>),
}

/// Inclusive at both ends. `*` is 0-65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

#[derive(Clone, Debug)]
pub struct Asg {
    pub name: String,
}

#[derive(Clone, Debug)]
pub struct Nic {
    pub name: String,
    pub subnet: SubnetIndex,
    /// None: behind its VNet's port.
    pub vm: Option<VmIndex>,
    /// All given by now: the declared ones, or the lowest free.
    pub addresses: Vec<IpAddr>,
    pub ip_forwarding: bool,
    pub nsg: Option<NsgIndex>,
    pub asgs: Vec<AsgIndex>,
    /// At most one per family.
    pub public_addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug)]
pub struct Vm {
    pub name: String,
    pub size: Option<String>,
    /// NET-12: over all NICs; None: no cap.
    pub egress_bps: Option<u64>,
    /// ip_forward in the guest.
    pub forwarding: bool,
    /// eth0, eth1, ... in this order; at least one.
    pub nics: Vec<NicIndex>,
    /// Shell commands started in the namespace.
    pub run: Vec<String>,
    /// A stopped one has no processes, and its NICs are off the network.
    pub running: bool,
}

/// What must hold (`tests:`).
#[derive(Clone, Debug)]
pub struct Test {
    pub from: Endpoint,
    pub to: Endpoint,
    pub protocol: TestProtocol,
    /// Always given for Tcp and Udp.
    pub port: Option<u16>,
    pub source_port: Option<u16>,
    pub expect: Access,
    /// A drop reason of the contract.
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestProtocol {
    Tcp,
    Udp,
    Icmp,
}

/// Who sends or receives in a test or an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A VM by name means its first NIC.
    Nic(NicIndex),
    /// An address; of a NIC, or any other.
    Address(IpAddr),
    /// The lab's `internet` namespace.
    Internet,
    /// An on-premises site.
    Site(SiteIndex),
}
