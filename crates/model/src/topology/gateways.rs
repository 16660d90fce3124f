//! Gateways, sites, connections, and what is heard over them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{ConnectionIndex, GatewayIndex, SiteIndex, VnetIndex};

/// A virtual network gateway: packets leave and enter its VNet, and those that use it from afar, through it.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub name: String,
    pub vnet: VnetIndex,
    pub kind: GatewayKind,
    pub asn: u32,
    /// Private addresses of its instances in GatewaySubnet: one, or two when active-active. The first speaks BGP.
    pub addresses: Vec<IpAddr>,
    /// As many as `addresses`, or none.
    pub public_addresses: Vec<IpAddr>,
}

impl Gateway {
    /// Two instances that both forward: each is shown as a next hop (ROUTE-08).
    #[must_use]
    pub fn active_active(&self) -> bool {
        self.addresses.len() > 1
    }
}

/// GW-02.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayKind {
    RouteBasedVpn,
    PolicyBasedVpn,
    ExpressRoute,
}

/// An on-premises site, a namespace of the lab with one port for each connection that leads to it.
#[derive(Clone, Debug)]
pub struct Site {
    pub name: String,
    pub prefixes: Vec<IpNet>,
    /// Of its own interfaces, at least one; every other address of its prefixes answers too ([`Site::has`]).
    pub addresses: Vec<IpAddr>,
    pub asn: Option<u32>,
    /// Where its BGP speaker listens.
    pub bgp_address: IpAddr,
    /// Shell commands started in the namespace.
    pub run: Vec<String>,
    /// Those of `prefixes` that the gateways do not know at present: they answer, and nobody finds the way.
    pub withdrawn: Vec<IpNet>,
}

impl Site {
    /// What the gateways are told of, by configuration or by BGP.
    pub fn announced(&self) -> impl Iterator<Item = IpNet> + '_ {
        let all = self.prefixes.iter().copied();
        all.filter(|prefix| !self.withdrawn.contains(prefix))
    }

    /// How closely it has an address: the length of the prefix; None: it does not answer there. A default route is the
    /// way to the Internet through the site, and nothing it has.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> Option<u8> {
        let own = self.addresses.iter().chain([&self.bgp_address]);
        let own = own.filter(|own| **own == address).map(|own| IpNet::from(*own));
        let within = self.prefixes.iter().copied();
        let within = within.filter(|prefix| prefix.prefix_len() > 0 && prefix.contains(&address));
        own.chain(within).map(|prefix| prefix.prefix_len()).max()
    }
}

/// What joins a gateway to something else.
#[derive(Clone, Debug)]
pub struct Connection {
    pub name: String,
    pub gateway: GatewayIndex,
    pub far: Far,
    /// Routes come over BGP. Always for ExpressRoute.
    pub bgp: bool,
    /// Pairs of an Azure range and a site range between which packets pass; None: all pass (GW-12).
    pub selectors: Option<Vec<(IpNet, IpNet)>>,
    /// Bytes of the largest packet (NET-03).
    pub mtu: u16,
}

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Far {
    /// IPsec.
    Site(SiteIndex),
    /// Vnet2Vnet; one connection carries both directions.
    Gateway(GatewayIndex),
    /// ExpressRoute, with the site behind the circuit if this connection names it. All gateways and sites of one
    /// circuit reach each other.
    Circuit { name: String, site: Option<SiteIndex> },
}

impl Connection {
    /// The site this connection's port stands in.
    #[must_use]
    pub fn site(&self) -> Option<SiteIndex> {
        match self.far {
            Far::Site(site) => Some(site),
            Far::Circuit { site, .. } => site,
            Far::Gateway(_) => None,
        }
    }
}

/// A route a gateway heard from its neighbour over BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedRoute {
    /// The gateway that heard it: one of the connection's two for Vnet2Vnet.
    pub gateway: GatewayIndex,
    pub connection: ConnectionIndex,
    pub prefix: IpNet,
    /// The neighbour's ASN first; fewer win.
    pub as_path: Vec<u32>,
}
