//! One generation of compiled tables: what `control` makes, `daemon` publishes and the packet path reads. Ids, no names.

use packet::Prefix;

use crate::balance::{Frontend, Health};
use crate::fib::Fib;
use crate::filter::Filter;
pub use crate::link::settings::{Aqm, Chance, Distribution, Jitter, Link, Loss, Queue};

macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        $($(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// The id as an index into the snapshot's vector.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        })+
    };
}

ids! {
    /// Index into [`Snapshot::vnets`].
    VnetId,
    /// Index into [`Snapshot::nics`].
    NicId,
    /// Index into [`Snapshot::ports`].
    PortId,
    /// Index into [`Snapshot::fibs`].
    FibId,
    /// Index into [`Snapshot::filters`].
    FilterId,
    /// What flow logs call a rule of an NSG.
    LogRuleId,
    /// Index into [`Snapshot::peerings`]: one direction, owned by the local VNet.
    PeeringId,
    /// Index into [`Snapshot::frontends`].
    FrontendId,
    /// Index into [`Snapshot::gateways`].
    GatewayId,
    /// Index into [`Snapshot::connections`].
    ConnectionId,
    /// Index into [`Snapshot::links`]: one direction of a peering or of a connection.
    LinkId,
}

/// All tables of one generation. Immutable once published.
///
/// Flows outlive generations and keep ids of NICs, ports and peerings, packets under way those of links: such an id belongs to one object as long as the
/// lab runs, and rows of objects that are gone stay empty. Ids of FIBs and filters hold within one generation.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub generation: u64,
    pub vnets: Vec<Vnet>,
    pub nics: Vec<Nic>,
    pub ports: Vec<Port>,
    pub peerings: Vec<Peering>,
    pub gateways: Vec<Gateway>,
    pub connections: Vec<Connection>,
    /// What they do is asked of each packet, and is in no cached decision; what waits on one keeps its id.
    pub links: Vec<Link>,
    pub fibs: Vec<Fib>,
    pub filters: Vec<Filter>,
    /// By filter and rule: what flow logs call it, if one follows its NSG. Empty: the lab has no flow log.
    pub log_rules: Vec<Vec<Option<LogRuleId>>>,
    /// Public addresses of NICs (128-bit form), sorted by address, for packets from the Internet port.
    pub public_addresses: Vec<(u128, NicId)>,
    pub internet: Option<Internet>,
    /// `settings.fabricMtu` (NET-03): packets without DF, but not TCP super-packets, travel in fragments of this size.
    pub fabric_mtu: Option<u16>,
    /// NET-13: connections a NIC may have in its records at once; each is one flow in and one out.
    pub flows_per_nic: u32,
    /// NET-01: ESP and AH are carried, since azure-2025.
    pub carries_ipsec: bool,
    /// Of internal load balancers.
    pub frontends: Vec<Frontend>,
    /// They by VNet and address (128-bit form), sorted.
    pub frontend_index: Vec<(VnetId, u128, FrontendId)>,
    /// Which backends are up: measured while this forwards, as the time is, and so the one thing in it that changes.
    pub health: Health,
    /// The ports behind which 168.63.129.16 is, sorted: one for each VNet that needs it (VNET-08).
    pub platform: Vec<(VnetId, PortId)>,
}

/// A virtual network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vnet {
    /// Changes when anything that a cached decision of this VNet depends on changes: routes, addresses, peerings, ports.
    /// Not when rules change: they are asked about new flows only (NSG-09).
    pub generation: u64,
    pub ranges: Vec<Prefix>,
    /// After so many minutes without a packet the record of a TCP flow at its NICs ends (NSG-19). For new flows.
    pub tcp_idle_minutes: u8,
    /// NIC addresses (128-bit form), sorted by address.
    pub addresses: Vec<(u128, NicId)>,
    /// Those that stand in it: at most two (GW-02).
    pub gateways: Vec<GatewayId>,
}

/// A NIC. Where its VNet is none of the snapshot's, the NIC is gone and nobody else has its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    pub vnet: VnetId,
    pub port: PortId,
    pub fib: FibId,
    pub addresses: Vec<u128>,
    /// Base + 1 of its subnet's prefixes: the router its guest knows. It answers nothing (NET-06), but the fabric reports
    /// ICMP errors in its name: of all addresses the only one that is neither another's nor outside the subnet.
    pub routers: Vec<u128>,
    /// `enableIPForwarding`: neither source nor destination is checked (NVA-02).
    pub ip_forwarding: bool,
    /// Security admin rules, asked before the NSGs (NSG-43): of packets it sends, and of those it receives.
    pub admin_outbound: Option<FilterId>,
    pub admin_inbound: Option<FilterId>,
    /// NIC, then subnet (NSG-21).
    pub outbound: [Option<FilterId>; 2],
    /// Subnet, then NIC (NSG-20).
    pub inbound: [Option<FilterId>; 2],
    /// `publicIPAddress`, one per family at most, in 128-bit form.
    pub public: Vec<u128>,
    /// What its VM may send, over all its NICs (NET-12).
    pub egress_cap: Option<EgressCap>,
}

/// The egress of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressCap {
    pub bits_per_second: u64,
    /// The VM's first NIC, for which all of them count.
    pub meter: NicId,
}

/// Where packets enter or leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// A NIC of a VM: one TUN of its own.
    Nic(NicId),
    /// All NICs of a VNet that have no VM, behind one TUN; the source address tells the NIC.
    Vnet(VnetId),
    /// The lab's `internet` namespace.
    Internet,
    /// The site's end of a connection: one TUN of the site's namespace.
    Connection(ConnectionId),
    /// A gateway's own namespace, where it speaks BGP.
    Gateway(GatewayId),
    /// It was closed; nobody else has its id.
    Gone,
    /// 168.63.129.16 as this VNet sees it (VNET-08).
    Platform(VnetId),
}

/// A Connected peering seen from its local VNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peering {
    pub local: VnetId,
    pub remote: VnetId,
    /// The direction owned by the remote VNet: what it says about packets that come from here.
    /// None for a peering with a classic VNet, which has one object only (PEER-31).
    pub reverse: Option<PeeringId>,
    /// PEER-20: packets may pass. False when either direction's flag blocks them in this profile.
    pub access: bool,
    /// PEER-21: the remote VNet takes, from here, packets whose source does not belong to the local VNet.
    pub forwarded_accepted: bool,
    /// GW-07: the remote VNet uses the gateways of the local one, so it takes what they forward (PEER-21).
    pub transit: bool,
    /// From the local VNet to the remote one (PEER-39).
    pub link: LinkId,
}

/// A virtual network gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    pub vnet: VnetId,
    /// Private addresses of its instances (128-bit form), at least one.
    pub addresses: Vec<u128>,
    /// Where its BGP speaker listens; None: it has none.
    pub port: Option<PortId>,
    /// What it knows itself: a route to [`crate::fib::NextHop::Connection`] leaves the VNet, any other stays inside.
    pub outside: FibId,
    /// The table of GatewaySubnet, for what stays inside (ROUTE-31).
    pub inside: FibId,
}

/// What joins a gateway to a site, another gateway or a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub gateway: GatewayId,
    pub far: Far,
    /// The end in the site's namespace; None: no site behind it.
    pub port: Option<PortId>,
    /// Pairs of Azure's and the site's ranges between which packets pass; None: all (GW-12).
    pub selectors: Option<Vec<(Prefix, Prefix)>>,
    /// NET-03, in bytes.
    pub mtu: u16,
    /// Out of the gateway it belongs to.
    pub out: LinkId,
    /// To that gateway.
    pub back: LinkId,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    Site,
    /// Carries both directions.
    Gateway(GatewayId),
    /// What is where on the circuit: its sites' connections, and the gateways.
    Circuit(FibId),
}

/// The lab's Internet: the port behind which its test addresses live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Internet {
    pub port: PortId,
    /// Sorted.
    pub addresses: Vec<u128>,
    /// Addresses of NICs with service endpoints, to whose private addresses services answer (ROUTE-09); sorted by address.
    pub endpoint_clients: Vec<(u128, NicId)>,
}
