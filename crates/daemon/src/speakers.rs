//! From a topology to what each BGP speaker is told, and from what a gateway's speaker heard to learned routes.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use lab::TableRoute;
use model::Topology;
use model::topology::{self, Connection, ConnectionIndex, GatewayIndex, LearnedRoute, SiteIndex};

use crate::bird::{Neighbour, PREFIX_LIMIT, Router};

/// The kernel table of a gateway's namespace that holds what it learned, and nothing else: BGP's port number.
pub(crate) const LEARNED_TABLE: u32 = 179;
/// The kernel's own: what a site learns is where it sends.
const MAIN_TABLE: u32 = 254;

/// What no neighbour can have (VNET-02), nor any part of it: loopback, link-local, multicast and reserved addresses, and
/// the platform.
const IMPOSSIBLE: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];

/// A namespace of the lab in which this program keeps a BIRD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Speaker {
    pub(crate) namespace: String,
    pub(crate) router: Router,
    /// What it learns is the lab's; a site's routes are its own affair.
    pub(crate) gateway: bool,
}

/// What a gateway's speaker heard, as far as it can be true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) routes: Vec<LearnedRoute>,
    /// What was not taken, and why.
    pub(crate) refused: Vec<String>,
}

/// The gateways with BGP connections, and the sites with an ASN and no program that could speak for them.
pub(crate) fn speakers(topology: &Topology) -> Vec<Speaker> {
    let gateways = topology.speakers().filter_map(|index| gateway(topology, index));
    let sites = (0..topology.sites.len()).filter_map(|index| site(topology, SiteIndex(index)));
    gateways.chain(sites).collect()
}

/// The prefixes a site's interfaces lead to: over a connection with BGP its neighbour, which tells the rest.
pub(crate) fn site_routes(topology: &Topology, site: SiteIndex) -> Vec<(String, Vec<Ipv4Net>)> {
    let connections = topology.connections_to(site).enumerate();
    let routes = connections.map(|(position, index)| {
        let connection = &topology.connections[index.0];
        let prefixes = if speaks(topology, connection) {
            let addresses = &topology.gateways[connection.gateway.0].addresses;
            addresses.iter().copied().map(IpNet::from).collect()
        } else {
            topology.site_routes(index)
        };
        (interface(position), ipv4(prefixes))
    });
    routes.collect()
}

/// The routes of a gateway's table as its own, each from the connection that its next hop belongs to.
pub(crate) fn heard(topology: &Topology, gateway: GatewayIndex, table: &[TableRoute]) -> Heard {
    let mut heard = Heard::default();
    let name = &topology.gateways[gateway.0].name;
    let neighbours = neighbours(topology, gateway);
    for TableRoute { prefix, next_hops } in table {
        let impossible = IMPOSSIBLE.iter().any(|&(address, length)| {
            Ipv4Net::new(address, length).is_ok_and(|impossible| impossible.contains(prefix))
        });
        if impossible {
            heard
                .refused
                .push(format!("{name} refuses {prefix}: nobody can have it"));
            continue;
        }
        if heard.routes.len() >= PREFIX_LIMIT {
            heard.refused.push(format!(
                "{name} refuses {prefix} and later ones: it takes {PREFIX_LIMIT} routes"
            ));
            break;
        }
        for next_hop in next_hops {
            let Some(neighbour) = neighbours.iter().find(|it| it.address == *next_hop) else {
                heard.refused.push(format!(
                    "{name} refuses {prefix}: {next_hop} is none of its neighbours"
                ));
                continue;
            };
            heard.routes.push(LearnedRoute {
                gateway,
                connection: neighbour.connection,
                prefix: IpNet::V4(*prefix),
                as_path: vec![neighbour.asn],
            });
        }
    }
    heard
}

/// Whether BGP is spoken over a connection, and not only assumed as over circuits.
pub(crate) fn speaks(topology: &Topology, connection: &Connection) -> bool {
    connection.bgp && topology.gateways[connection.gateway.0].is_vpn()
}

fn gateway(topology: &Topology, index: GatewayIndex) -> Option<Speaker> {
    let gateway = &topology.gateways[index.0];
    let neighbours = neighbours(topology, index).into_iter();
    let neighbours = neighbours.map(|far| Neighbour {
        name: topology.connections[far.connection.0].name.clone(),
        address: far.address,
        asn: far.asn,
        interface: interface(0),
        hops: far.hops,
        refused: far.refused,
        announced: ipv4(topology.announced(index, far.connection)),
    });
    Some(Speaker {
        namespace: gateway.name.clone(),
        gateway: true,
        router: Router {
            address: own(*gateway.addresses.first()?)?,
            asn: gateway.asn,
            neighbours: neighbours.collect(),
            table: LEARNED_TABLE,
        },
    })
}

fn site(topology: &Topology, index: SiteIndex) -> Option<Speaker> {
    let site = &topology.sites[index.0];
    let asn = site.asn.filter(|_| site.run.is_empty())?;
    let connections = topology.connections_to(index).enumerate();
    let neighbours = connections.filter_map(|(position, index)| {
        let connection = &topology.connections[index.0];
        let gateway = &topology.gateways[connection.gateway.0];
        speaks(topology, connection).then_some(Neighbour {
            name: connection.name.clone(),
            address: own(*gateway.addresses.first()?)?,
            asn: gateway.asn,
            interface: interface(position),
            hops: Vec::new(),
            refused: Vec::new(),
            announced: ipv4(site.announced().collect()),
        })
    });
    let neighbours: Vec<Neighbour> = neighbours.collect();
    (!neighbours.is_empty()).then_some(Speaker {
        namespace: site.name.clone(),
        gateway: false,
        router: Router {
            address: own(site.bgp_address)?,
            asn,
            neighbours,
            table: MAIN_TABLE,
        },
    })
}

/// The other end of a gateway's BGP connection.
struct Far {
    connection: ConnectionIndex,
    address: Ipv4Addr,
    asn: u32,
    /// The site's prefixes: a next hop there lies behind the site's speaker.
    hops: Vec<Ipv4Net>,
    /// What is withdrawn of a site whose own programs speak, and do not know of it.
    refused: Vec<Ipv4Net>,
}

/// Of several connections to one neighbour the first speaks.
fn neighbours(topology: &Topology, gateway: GatewayIndex) -> Vec<Far> {
    let mut neighbours: Vec<Far> = Vec::new();
    for (connection, it) in topology.connections_of(gateway).filter(|(_, it)| it.bgp) {
        let mut refused = Vec::new();
        let (address, asn, hops) = match it.far {
            topology::Far::Site(site) => {
                let site = &topology.sites[site.0];
                if !site.run.is_empty() {
                    refused = ipv4(site.withdrawn.clone());
                }
                (Some(site.bgp_address), site.asn, ipv4(site.prefixes.clone()))
            }
            topology::Far::Gateway(_) => {
                let other = &topology.gateways[topology.other_end(it, gateway).0];
                (other.addresses.first().copied(), Some(other.asn), Vec::new())
            }
            topology::Far::Circuit { .. } => continue,
        };
        if let Some((address, asn)) = address.and_then(own).zip(asn)
            && neighbours.iter().all(|other| other.address != address)
        {
            neighbours.push(Far {
                connection,
                address,
                asn,
                hops,
                refused,
            });
        }
    }
    neighbours
}

/// As [`lab::LabSpec`] names the interfaces of a site and of a gateway.
fn interface(position: usize) -> String {
    format!("eth{position}")
}

/// Gateways carry IPv4 only (NET-10).
fn own(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn ipv4(prefixes: Vec<IpNet>) -> Vec<Ipv4Net> {
    let ipv4 = prefixes.into_iter().filter_map(|prefix| match prefix {
        IpNet::V4(prefix) => Some(prefix.trunc()),
        IpNet::V6(_) => None,
    });
    ipv4.collect()
}
