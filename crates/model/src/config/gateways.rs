//! The sections `gateways`, `sites` and `connections`.

use crate::decode::{choice, object};
use crate::values::{Address, Cidr};

choice! { GatewayType { Vpn = "Vpn", ExpressRoute = "ExpressRoute", } }
choice! { VpnType { RouteBased = "RouteBased", PolicyBased = "PolicyBased", } }
choice! {
    /// GW-02.
    ConnectionType { Ipsec = "IPsec", Vnet2Vnet = "Vnet2Vnet", ExpressRoute = "ExpressRoute", VpnClient = "VPNClient", }
}

object! {
    /// A virtual network gateway. It needs a subnet named GatewaySubnet in its VNet.
    Gateway {
        /// The VNet it stands in.
        vnet: String = "vnet",
        /// Vpn when absent.
        gateway_type: Option<GatewayType> = "gatewayType",
        /// RouteBased when absent.
        vpn_type: Option<VpnType> = "vpnType",
        /// Such as VpnGw1; only Basic makes a difference.
        sku: Option<String> = "sku",
        /// 65515 when absent.
        asn: Option<u32> = "asn",
        /// Two instances that both forward; true when absent and there are two public addresses.
        active_active: Option<bool> = "activeActive",
        /// One, or two for an active-active gateway.
        public_ip_addresses: Vec<Address> = "publicIPAddresses",
    }
}

object! {
    /// An on-premises site: Azure's local network gateway, and a network namespace behind it.
    Site {
        /// What lies there. Any address in it answers.
        address_prefixes: Vec<Cidr> = "addressPrefixes",
        /// Its addresses; the first of each prefix when absent.
        addresses: Vec<Address> = "addresses",
        /// Needed for BGP.
        asn: Option<u32> = "asn",
        /// Where its BGP speaker listens; its first address when absent.
        bgp_peering_address: Option<Address> = "bgpPeeringAddress",
        /// Programs started in its namespace.
        run: Vec<String> = "run",
        /// Those of its prefixes that the gateways do not know at present.
        withdrawn_prefixes: Vec<Cidr> = "withdrawnPrefixes",
    }
}

object! {
    /// What joins a gateway to a site, to another gateway, or to an ExpressRoute circuit. Nothing is encrypted.
    Connection {
        /// Name of one of 'gateways'.
        gateway: String = "gateway",
        /// Name of one of 'sites': IPsec, and ExpressRoute for the site behind the circuit.
        site: Option<String> = "site",
        /// Name of one of 'gateways': Vnet2Vnet. One entry is both directions.
        remote_gateway: Option<String> = "remoteGateway",
        /// ExpressRoute: connections that name the same circuit share it.
        circuit: Option<String> = "circuit",
        /// IPsec when absent.
        connection_type: Option<ConnectionType> = "connectionType",
        /// Routes are learned by BGP instead of configured; false when absent. ExpressRoute always learns.
        enable_bgp: Option<bool> = "enableBgp",
        /// IPsec: only what the selectors name passes; always so at a PolicyBased gateway.
        use_policy_based_traffic_selectors: Option<bool> = "usePolicyBasedTrafficSelectors",
        /// The selectors; the VNet's and the site's own ranges when absent.
        traffic_selector_policies: Vec<TrafficSelector> = "trafficSelectorPolicies",
    }
}

object! {
    /// Interesting traffic: between any of the local and any of the remote ranges.
    TrafficSelector {
        /// On Azure's side.
        local_address_ranges: Vec<Cidr> = "localAddressRanges",
        /// On the site's side.
        remote_address_ranges: Vec<Cidr> = "remoteAddressRanges",
    }
}
