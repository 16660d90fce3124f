//! What follows from gateways and connections: who uses which gateway, and which prefixes are known where (GW-07, GW-08).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use indexmap::IndexMap;
use ipnet::IpNet;

use crate::topology::{
    Connection, ConnectionIndex, Far, Gateway, GatewayIndex, GatewayKind, LearnedRoute, PeeringIndex,
    PeeringState, Profile, SiteIndex, Topology, VnetIndex,
};

/// The ASN that ExpressRoute's own routers put into every path.
const CIRCUIT_ASN: u32 = 12076;

/// A prefix that lies behind a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    pub prefix: IpNet,
    pub connection: ConnectionIndex,
    /// Ends of the path; empty for what is configured and not learned.
    pub as_path: Vec<u32>,
}

/// A gateway that a VNet uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    pub gateway: GatewayIndex,
    /// The peering it is used over, which for a classic VNet belongs to the other side (PEER-27); None: its own.
    pub over: Option<PeeringIndex>,
}

impl Topology {
    /// The gateways that stand in a VNet: at most one VPN and one ExpressRoute gateway (GW-02).
    pub fn gateways_in(&self, vnet: VnetIndex) -> impl Iterator<Item = GatewayIndex> + '_ {
        let all = self.gateways.iter().enumerate();
        all.filter(move |(_, gateway)| gateway.vnet == vnet)
            .map(|(index, _)| GatewayIndex(index))
    }

    /// The connections of a gateway, from either end.
    pub fn connections_of(
        &self,
        gateway: GatewayIndex,
    ) -> impl Iterator<Item = (ConnectionIndex, &Connection)> {
        let all = self.connections.iter().enumerate();
        all.filter(move |(_, it)| it.gateway == gateway || it.far == Far::Gateway(gateway))
            .map(|(index, it)| (ConnectionIndex(index), it))
    }

    /// The connections that lead to a site, site by site, each in file order: one port each in the site's namespace.
    pub fn site_ports(&self) -> impl Iterator<Item = ConnectionIndex> + '_ {
        (0..self.sites.len()).flat_map(move |site| self.connections_to(SiteIndex(site)))
    }

    /// The connections that lead to a site, in file order.
    pub fn connections_to(&self, site: SiteIndex) -> impl Iterator<Item = ConnectionIndex> + '_ {
        let all = self.connections.iter().enumerate();
        all.filter(move |(_, it)| it.site() == Some(site))
            .map(|(index, _)| ConnectionIndex(index))
    }

    /// The gateways that speak BGP in a namespace of their own: VPN gateways with a connection that does.
    pub fn speakers(&self) -> impl Iterator<Item = GatewayIndex> + '_ {
        let all = (0..self.gateways.len()).map(GatewayIndex);
        all.filter(|&gateway| {
            self.gateways[gateway.0].is_vpn() && self.connections_of(gateway).any(|(_, it)| it.bgp)
        })
    }

    /// The gateways a VNet uses: its own, or a peer's (GW-07, GW-09).
    #[must_use]
    pub fn gateways_in_use(&self, vnet: VnetIndex) -> Vec<InUse> {
        let own: Vec<InUse> = self
            .gateways_in(vnet)
            .map(|gateway| InUse { gateway, over: None })
            .collect();
        if !own.is_empty() {
            return own;
        }
        let peerings = (0..self.peerings.len()).map(PeeringIndex);
        let found = peerings.filter_map(|peering| Some((peering, self.transit(peering)?)));
        match found.into_iter().find(|(_, (user, _))| *user == vnet) {
            Some((peering, (_, remote))) => self.used_over(peering, remote).collect(),
            None => own,
        }
    }

    /// [`Topology::gateways_in_use`] of every VNet, in one look at all peerings.
    #[must_use]
    pub fn all_gateways_in_use(&self) -> Vec<Vec<InUse>> {
        let mut used = vec![Vec::new(); self.vnets.len()];
        for (index, gateway) in self.gateways.iter().enumerate() {
            used[gateway.vnet.0].push(InUse {
                gateway: GatewayIndex(index),
                over: None,
            });
        }
        if self.gateways.is_empty() {
            return used;
        }
        for peering in (0..self.peerings.len()).map(PeeringIndex) {
            if let Some((user, remote)) = self.transit(peering)
                && used[user.0].is_empty()
            {
                used[user.0] = self.used_over(peering, remote).collect();
            }
        }
        used
    }

    /// The VNets that use the gateways of `vnet` over their peering (GW-07).
    pub fn transit_users(&self, vnet: VnetIndex) -> impl Iterator<Item = VnetIndex> + use<> {
        let mut seen = vec![false; self.vnets.len()];
        let mut users = Vec::new();
        let any = self.gateways_in(vnet).next().is_some();
        for peering in (0..self.peerings.len()).map(PeeringIndex).filter(|_| any) {
            if let Some((user, remote)) = self.transit(peering)
                && !std::mem::replace(&mut seen[user.0], true)
                && remote == vnet
            {
                users.push(user);
            }
        }
        users.sort_unstable();
        users.into_iter()
    }

    /// What a gateway tells its neighbours of itself: its VNet's ranges, those of the VNets that use it (GW-08), and
    /// the prefixes configured at its connections. Not what it learned, which its BGP speaker passes on.
    #[must_use]
    pub fn originated(&self, gateway: GatewayIndex) -> Vec<IpNet> {
        let vnet = self.gateways[gateway.0].vnet;
        let mut prefixes = self.vnets[vnet.0].address_space.clone();
        for user in self.transit_users(vnet) {
            prefixes.extend(&self.vnets[user.0].address_space);
        }
        // VPN gateways carry IPv4 only (NET-10).
        prefixes.retain(|prefix| prefix.addr().is_ipv4());
        prefixes
    }

    /// What `gateway`, one of the ends, tells over a connection: what it originates, what is configured at its other
    /// connections, and what it learned from them, default routes excepted.
    #[must_use]
    pub fn advertised(&self, gateway: GatewayIndex, connection: ConnectionIndex) -> Vec<IpNet> {
        let mut prefixes = self.originated(gateway);
        let others = self.behind(gateway);
        let others = others
            .iter()
            .filter(|behind| behind.connection != connection && behind.prefix.prefix_len() > 0);
        prefixes.extend(others.map(|behind| behind.prefix));
        let mut seen = HashSet::new();
        prefixes.retain(|prefix| seen.insert(*prefix));
        prefixes
    }

    /// What the BGP speaker of `gateway`, one of the ends, originates over a connection: as [`Topology::advertised`], less
    /// what it learned, which it passes on by itself.
    #[must_use]
    pub fn announced(&self, gateway: GatewayIndex, connection: ConnectionIndex) -> Vec<IpNet> {
        let mut prefixes = self.originated(gateway);
        let others = self.configured(gateway).into_iter();
        let others =
            others.filter(|behind| behind.connection != connection && behind.prefix.prefix_len() > 0);
        prefixes.extend(others.map(|behind| behind.prefix));
        let mut seen = HashSet::new();
        prefixes.retain(|prefix| seen.insert(*prefix));
        prefixes
    }

    /// What the site at the end of a connection sends over it: with selectors their Azure side, else what the gateway,
    /// or every gateway of the circuit, tells it.
    #[must_use]
    pub fn site_routes(&self, connection: ConnectionIndex) -> Vec<IpNet> {
        let it = &self.connections[connection.0];
        let mut prefixes: Vec<IpNet> = match (&it.selectors, &it.far) {
            (Some(selectors), _) => selectors.iter().map(|(azure, _)| *azure).collect(),
            (None, Far::Circuit { name, .. }) => self
                .circuit(name)
                .flat_map(|(index, it)| self.advertised(it.gateway, index))
                .collect(),
            (None, _) => self.advertised(it.gateway, connection),
        };
        let mut seen = HashSet::new();
        prefixes.retain(|prefix| seen.insert(*prefix));
        prefixes
    }

    /// The connection by which a site sends to an address: the longest prefix of [`Topology::site_routes`], of equal ones
    /// the first; else its first connection, the way of everything else. None: it has none.
    #[must_use]
    pub fn site_egress(&self, site: SiteIndex, destination: IpAddr) -> Option<ConnectionIndex> {
        let lengths = self.connections_to(site).filter_map(|connection| {
            let routes = self.site_routes(connection);
            let holds = routes.iter().filter(|prefix| prefix.contains(&destination));
            Some((holds.map(IpNet::prefix_len).max()?, connection))
        });
        lengths
            .reduce(|best, next| if next.0 > best.0 { next } else { best })
            .map(|(_, connection)| connection)
            .or_else(|| self.connections_to(site).next())
    }

    /// The connections to a circuit.
    pub fn circuit<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (ConnectionIndex, &'a Connection)> + 'a {
        let all = self.connections.iter().enumerate();
        all.filter(move |(_, it)| matches!(&it.far, Far::Circuit { name: other, .. } if other.eq_ignore_ascii_case(name)))
            .map(|(index, it)| (ConnectionIndex(index), it))
    }

    /// The prefixes behind a gateway, each once, by its best connection: configured before learned, then the shorter
    /// AS path, then file order (ROUTE-08).
    #[must_use]
    pub fn behind(&self, gateway: GatewayIndex) -> Vec<Behind> {
        self.best(gateway, self.all_heard())
    }

    /// [`Topology::behind`] of every gateway.
    #[must_use]
    pub fn all_behind(&self) -> Vec<Vec<Behind>> {
        if self.gateways.is_empty() {
            return Vec::new();
        }
        let heard = self.all_heard();
        let gateways = (0..self.gateways.len()).map(GatewayIndex);
        gateways
            .map(|gateway| self.best(gateway, heard.iter().cloned()))
            .collect()
    }

    /// Of what is configured and `heard` at the gateway.
    fn best(&self, gateway: GatewayIndex, heard: impl IntoIterator<Item = LearnedRoute>) -> Vec<Behind> {
        let own = heard.into_iter().filter(|learned| learned.gateway == gateway);
        let learned = own.map(|learned| Behind {
            prefix: learned.prefix,
            connection: learned.connection,
            as_path: learned.as_path,
        });
        let mut best: Vec<Behind> = Vec::new();
        let mut position: HashMap<IpNet, usize> = HashMap::new();
        for behind in self.configured(gateway).into_iter().chain(learned) {
            match position.get(&behind.prefix) {
                Some(&known) if best[known].as_path.len() <= behind.as_path.len() => {}
                Some(&known) => best[known] = behind,
                None => {
                    position.insert(behind.prefix, best.len());
                    best.push(behind);
                }
            }
        }
        best
    }

    /// What a gateway hears over BGP: what its speaker has reported, or else what its neighbours should say.
    #[must_use]
    pub fn heard(&self, gateway: GatewayIndex) -> Vec<LearnedRoute> {
        let mut all = self.all_heard();
        all.retain(|learned| learned.gateway == gateway);
        all
    }

    fn all_heard(&self) -> Vec<LearnedRoute> {
        let mut all = self.converged();
        if let Some(learned) = &self.learned_routes {
            // Circuits have no speaker of their own to ask.
            all.retain(|route| !self.gateways[route.gateway.0].is_vpn());
            all.extend(learned.iter().cloned());
        }
        all
    }

    /// The prefixes of connections without BGP: the site's, the remote VNet's; of connections with BGP the
    /// neighbour's own address (ROUTE-08).
    fn configured(&self, gateway: GatewayIndex) -> Vec<Behind> {
        let mut behind = Vec::new();
        for (connection, it) in self.connections_of(gateway) {
            let prefixes: Vec<IpNet> = match &it.far {
                Far::Site(site) if it.bgp => vec![self.sites[site.0].bgp_address.into()],
                Far::Site(site) => self.sites[site.0].announced().collect(),
                Far::Gateway(_) => {
                    let other = &self.gateways[self.other_end(it, gateway).0];
                    if it.bgp {
                        other.addresses.iter().copied().map(IpNet::from).collect()
                    } else {
                        let space = &self.vnets[other.vnet.0].address_space;
                        space
                            .iter()
                            .copied()
                            .filter(|range| range.addr().is_ipv4())
                            .collect()
                    }
                }
                Far::Circuit { .. } => Vec::new(),
            };
            behind.extend(prefixes.into_iter().map(|prefix| Behind {
                prefix,
                connection,
                as_path: Vec::new(),
            }));
        }
        behind
    }

    /// What all gateways hear when every speaker announces what it should and nothing changes any more.
    fn converged(&self) -> Vec<LearnedRoute> {
        let mut known: Vec<LearnedRoute> = Vec::new();
        // A path visits no ASN twice, so it is at most as long as there are gateways.
        for _ in 0..=self.gateways.len() {
            let next = self.round(&known);
            if next == known {
                break;
            }
            known = next;
        }
        known
    }

    /// What all gateways hear once everyone has told what it knew before.
    fn round(&self, known: &[LearnedRoute]) -> Vec<LearnedRoute> {
        let mut heard = Vec::new();
        for (index, gateway) in (0..).map(GatewayIndex).zip(&self.gateways) {
            for (connection, it) in self.connections_of(index).filter(|(_, it)| it.bgp) {
                let told: Vec<(IpNet, Vec<u32>)> = match &it.far {
                    Far::Site(site) => self.told_by_site(*site),
                    Far::Gateway(_) => self.told_by_gateway(self.other_end(it, index), connection, known),
                    Far::Circuit { name, .. } => self.told_by_circuit(name, index),
                };
                let space = &self.vnets[gateway.vnet.0].address_space;
                let fresh = told.into_iter().filter(|(prefix, path)| {
                    !path.contains(&gateway.asn) && !space.iter().any(|range| range.contains(prefix))
                });
                heard.extend(fresh.map(|(prefix, as_path)| LearnedRoute {
                    gateway: index,
                    connection,
                    prefix,
                    as_path,
                }));
            }
        }
        heard
    }

    fn told_by_site(&self, site: SiteIndex) -> Vec<(IpNet, Vec<u32>)> {
        let site = &self.sites[site.0];
        let path: Vec<u32> = site.asn.into_iter().collect();
        site.announced().map(|prefix| (prefix, path.clone())).collect()
    }

    fn told_by_gateway(
        &self,
        teller: GatewayIndex,
        over: ConnectionIndex,
        known: &[LearnedRoute],
    ) -> Vec<(IpNet, Vec<u32>)> {
        let asn = self.gateways[teller.0].asn;
        let own = self.originated(teller).into_iter();
        let configured = self.configured(teller).into_iter();
        let configured = configured.filter(|behind| behind.connection != over);
        let own = own
            .chain(configured.map(|behind| behind.prefix))
            .map(|prefix| (prefix, vec![asn]));
        // Of several ways to a prefix it tells the best alone: all of them are as many as there are paths in the graph.
        let mut best: IndexMap<IpNet, &LearnedRoute> = IndexMap::new();
        let learned = known.iter().filter(|learned| learned.gateway == teller);
        for learned in learned.filter(|learned| learned.prefix.prefix_len() > 0) {
            let best = best.entry(learned.prefix).or_insert(learned);
            if learned.as_path.len() < best.as_path.len() {
                *best = learned;
            }
        }
        let learned = best.into_values().filter(|best| best.connection != over);
        let learned = learned.map(|learned| {
            let path = std::iter::once(asn)
                .chain(learned.as_path.iter().copied())
                .collect();
            (learned.prefix, path)
        });
        own.chain(learned).collect()
    }

    /// A circuit tells each gateway what its sites and its other gateways have (GW-06).
    fn told_by_circuit(&self, name: &str, hearer: GatewayIndex) -> Vec<(IpNet, Vec<u32>)> {
        let mut told = Vec::new();
        for (_, it) in self.circuit(name) {
            if let Some(site) = it.site() {
                let site = &self.sites[site.0];
                let path: Vec<u32> = std::iter::once(CIRCUIT_ASN).chain(site.asn).collect();
                told.extend(site.announced().map(|prefix| (prefix, path.clone())));
            }
            if it.gateway != hearer {
                let prefixes = self.originated(it.gateway).into_iter();
                told.extend(prefixes.map(|prefix| (prefix, vec![CIRCUIT_ASN])));
            }
        }
        told
    }

    /// The gateway at the other end of a connection between two.
    #[must_use]
    pub fn other_end(&self, connection: &Connection, gateway: GatewayIndex) -> GatewayIndex {
        match connection.far {
            Far::Gateway(far) if connection.gateway == gateway => far,
            _ => connection.gateway,
        }
    }

    /// The VNet that uses the gateways of another over this peering, and that one (GW-07). Of several peerings of a VNet
    /// the first counts.
    fn transit(&self, peering: PeeringIndex) -> Option<(VnetIndex, VnetIndex)> {
        let it = &self.peerings[peering.0];
        if it.state != PeeringState::Connected {
            return None;
        }
        let reverse = it.reverse.map(|reverse| &self.peerings[reverse.0]);
        let own = it.use_remote_gateways && reverse.is_some_and(|it| it.allow_gateway_transit);
        // PEER-27: a classic VNet has no object of its own to configure.
        let classic = reverse.is_none()
            && self.profile == Profile::Azure2025
            && self.vnets[it.to.0].classic
            && it.allow_gateway_transit;
        let (user, remote) = match (own, classic) {
            (true, _) => (it.from, it.to),
            (false, true) => (it.to, it.from),
            (false, false) => return None,
        };
        self.gateways_in(remote).next().map(|_| (user, remote))
    }

    fn used_over(&self, peering: PeeringIndex, remote: VnetIndex) -> impl Iterator<Item = InUse> + '_ {
        self.gateways_in(remote).map(move |gateway| InUse {
            gateway,
            over: Some(peering),
        })
    }
}

impl Gateway {
    /// What `routes` shows as next hops of its rows: both instances, or the public address (ROUTE-08).
    #[must_use]
    pub fn shown_next_hops(&self) -> Vec<IpAddr> {
        match self.public_addresses.first() {
            Some(&public) if !self.active_active() => vec![public],
            _ => self.addresses.clone(),
        }
    }

    #[must_use]
    pub fn is_vpn(&self) -> bool {
        self.kind != GatewayKind::ExpressRoute
    }
}
