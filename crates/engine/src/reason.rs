//! The closed list of drop reasons (contract, section 2): why a packet was lost.

use packet::Fault;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident: $text:literal,)+) => {
        /// Why a packet was lost. Every lost packet counts exactly one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $name,)+ }

        impl DropReason {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The contract's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

drop_reasons! {
    /// parse
    MalformedHeader: "a length or checksum of the IP or transport header is wrong",
    /// parse
    MalformedVnetHeader: "the offload header contradicts the packet",
    /// parse, NET-01
    UnsupportedProtocol: "multicast, broadcast or a protocol the fabric does not carry",
    /// classify
    UnknownNic: "no NIC behind this port has the source address",
    /// classify, NVA-01
    SpoofedSource: "the source is not an address of the NIC, and the NIC does not forward",
    /// filter, NSG-21
    NsgOutbound: "an NSG rule at the sending NIC or its subnet denies it",
    /// route, ROUTE-25
    NoRoute: "no route matches the destination",
    /// route, ROUTE-14
    RouteNone: "the matching route's next hop type is None",
    /// route, ROUTE-18
    NextHopUnreachable: "the route's next hop address is not a reachable NIC",
    /// route
    NoDestination: "no NIC has the destination address",
    /// route
    NoInternet: "the route leads to the Internet, which this lab or this sender does not have",
    /// route
    NoGateway: "the route leads to a gateway that does not exist",
    /// route, LB-07
    NoBackend: "the load balancer has no rule for this port, or no healthy backend for it",
    /// admit, PEER-20
    PeeringAccessOff: "allowVirtualNetworkAccess is off on one side of the peering, or it does not join the subnet",
    /// admit, PEER-21
    ForwardedTrafficOff: "the receiving VNet's peering does not allow forwarded traffic",
    /// admit, NVA-01
    NotForNic: "the destination is not an address of the receiving NIC, and the NIC does not forward",
    /// filter, NSG-20
    NsgInbound: "an NSG rule at the receiving NIC or its subnet denies it",
    /// classify, VNET-08, NET-02
    PlatformReserved: "the address or port is reserved to the platform",
    /// NET-04
    FragmentOutOfOrder: "a fragment does not begin where the one before it ended",
    /// NET-04
    FragmentOrphan: "a later fragment of a datagram whose first fragment was never seen",
    /// filter
    IcmpUnrelated: "an ICMP error about a packet that was never sent",
    /// flow, NET-13
    FlowLimit: "the flow table is full of established flows",
    /// rewrite
    TtlExpired: "the time to live ran out",
    /// rewrite, NET-04
    TooBig: "larger than the path MTU",
    /// transmit, NET-12
    VmEgressCap: "over the VM size's egress bandwidth",
    /// transmit
    LinkDown: "the link is down",
    /// transmit
    LinkLoss: "lost by the link's loss model",
    /// transmit
    LinkQueueFull: "the link's queue is full",
    /// transmit
    PortFull: "the receiving port's queue is full",
    /// transmit
    PortGone: "the receiving port is gone",
}

impl From<Fault> for DropReason {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::MalformedHeader => Self::MalformedHeader,
            Fault::MalformedVnetHeader => Self::MalformedVnetHeader,
            Fault::UnsupportedProtocol => Self::UnsupportedProtocol,
        }
    }
}
