//! Route tables and user routes, as declared.

use indexmap::IndexMap;

use crate::decode::{choice, object};
use crate::values::Address;

choice! {
    /// ROUTE-11, and the two kinds that users may not write (ROUTE-12).
    NextHopType {
        VirtualNetworkGateway = "VirtualNetworkGateway",
        VnetLocal = "VnetLocal",
        Internet = "Internet",
        VirtualAppliance = "VirtualAppliance",
        None = "None",
        VirtualApplianceEcmp = "VirtualApplianceEcmp",
        VnetPeering = "VNetPeering",
        VnetGlobalPeering = "VNetGlobalPeering",
        ServiceEndpoint = "VirtualNetworkServiceEndpoint",
    }
}

choice! {
    /// Which peering routes a route table takes off its subnets (ROUTE-35).
    DisablePeeringRoute { None = "None", All = "All", }
}

object! {
    /// A route table.
    RouteTable {
        /// Takes gateway routes off its subnets.
        disable_bgp_route_propagation: Option<bool> = "disableBgpRoutePropagation",
        /// All takes peering routes off its subnets; None when absent (azure-2025).
        disable_peering_route: Option<DisablePeeringRoute> = "disablePeeringRoute",
        /// Routes by name.
        routes: IndexMap<String, Route> = "routes",
    }
}

object! {
    /// A user route.
    Route {
        /// The destinations: a prefix or a service tag.
        address_prefix: String = "addressPrefix",
        /// Where they go.
        next_hop_type: NextHopType = "nextHopType",
        /// Of the appliance.
        next_hop_ip_address: Option<Address> = "nextHopIpAddress",
        /// Of VirtualApplianceEcmp: 2 to 64 appliances.
        next_hop: Option<NextHops> = "nextHop",
    }
}

object! {
    /// The appliances of a VirtualApplianceEcmp route.
    NextHops {
        /// From 2 to 64.
        next_hop_ip_addresses: Vec<Address> = "nextHopIpAddresses",
    }
}
