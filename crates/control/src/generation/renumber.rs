//! Puts the ids of the running lab in place of positions, everywhere in a snapshot.
//!
//! Every structure is taken apart field by field, without `..`: whoever adds an id somewhere is led here.

use engine::Snapshot;
use engine::balance::{Backend, Frontend, Rule};
use engine::fib::NextHop;
use engine::snapshot::{
    Connection, EgressCap, FibId, Gateway, Internet, Link, LinkId, LogRuleId, Nic, NicId, Peering, PeeringId,
    Port, PortId, Vnet, VnetId,
};

use super::ids::{Ids, Names};

/// Nobody's id.
const GONE: u32 = u32::MAX;

pub(super) fn renumber(snapshot: Snapshot, ids: &Ids) -> Snapshot {
    let Snapshot {
        generation,
        vnets,
        nics,
        ports,
        peerings,
        gateways,
        connections,
        links,
        mut fibs,
        filters,
        mut log_rules,
        public_addresses,
        internet,
        fabric_mtu,
        flows_per_nic,
        carries_ipsec,
        frontends,
        frontend_index,
        health,
        platform,
    } = snapshot;
    for fib in &mut fibs {
        fib.map_next_hops(|next_hop| ids.next_hop(next_hop));
    }
    for id in log_rules.iter_mut().flatten().flatten() {
        *id = LogRuleId(ids.log_rules.id(id.index()));
    }
    Snapshot {
        generation,
        vnets: rows(vnets, &ids.vnets, |vnet| ids.in_vnet(vnet), Vnet::default),
        nics: rows(nics, &ids.nics, |nic| ids.in_nic(nic), gone_nic),
        ports: rows(ports, &ids.ports, |port| ids.in_port(port), || Port::Gone),
        peerings: rows(
            peerings,
            &ids.peerings,
            |peering| ids.in_peering(peering),
            gone_peering,
        ),
        // No flow keeps their ids: they are positions in every generation.
        gateways: gateways
            .into_iter()
            .map(|gateway| ids.in_gateway(gateway))
            .collect(),
        connections: connections.into_iter().map(|it| ids.in_connection(it)).collect(),
        links: rows(links, &ids.links, |link| link, Link::default),
        fibs,
        filters,
        log_rules,
        public_addresses: ids.addresses(public_addresses),
        internet: internet.map(|internet| ids.in_internet(internet)),
        fabric_mtu,
        flows_per_nic,
        carries_ipsec,
        frontends: frontends
            .into_iter()
            .map(|frontend| ids.in_frontend(frontend))
            .collect(),
        frontend_index: sorted(frontend_index, |(vnet, address, frontend)| {
            (ids.vnet(vnet), address, frontend)
        }),
        health,
        platform: sorted(platform, |(vnet, port)| (ids.vnet(vnet), ids.port(port))),
    }
}

/// A list that is looked up by its ids.
fn sorted<T: Ord>(list: Vec<T>, renumbered: impl Fn(T) -> T) -> Vec<T> {
    let mut list: Vec<T> = list.into_iter().map(renumbered).collect();
    list.sort_unstable();
    list
}

/// Each row at its id, and an empty one for every id that is gone.
fn rows<T>(old: Vec<T>, names: &Names, inside: impl Fn(T) -> T, gone: impl Fn() -> T) -> Vec<T> {
    let mut rows: Vec<T> = std::iter::repeat_with(gone).take(names.rows()).collect();
    for (position, row) in old.into_iter().enumerate() {
        if let Some(place) = rows.get_mut(names.id(position) as usize) {
            *place = inside(row);
        }
    }
    rows
}

impl Ids {
    fn nic(&self, nic: NicId) -> NicId {
        NicId(self.nics.id(nic.index()))
    }

    fn vnet(&self, vnet: VnetId) -> VnetId {
        VnetId(self.vnets.id(vnet.index()))
    }

    fn port(&self, port: PortId) -> PortId {
        PortId(self.ports.id(port.index()))
    }

    fn peering(&self, peering: PeeringId) -> PeeringId {
        PeeringId(self.peerings.id(peering.index()))
    }

    fn link(&self, link: LinkId) -> LinkId {
        LinkId(self.links.id(link.index()))
    }

    fn addresses(&self, mut addresses: Vec<(u128, NicId)>) -> Vec<(u128, NicId)> {
        for (_, nic) in &mut addresses {
            *nic = self.nic(*nic);
        }
        addresses
    }

    fn next_hop(&self, next_hop: NextHop) -> NextHop {
        match next_hop {
            NextHop::Peering(peering) => NextHop::Peering(self.peering(peering)),
            NextHop::Appliance(at) => NextHop::Appliance(
                at.map(|(nic, peering)| (self.nic(nic), peering.map(|peering| self.peering(peering)))),
            ),
            NextHop::Balancer(frontend, peering) => {
                NextHop::Balancer(frontend, peering.map(|peering| self.peering(peering)))
            }
            NextHop::Gateway(gateway, over) => {
                NextHop::Gateway(gateway, over.map(|peering| self.peering(peering)))
            }
            NextHop::VnetLocal
            | NextHop::Internet
            | NextHop::ServiceEndpoint
            | NextHop::NoGateway
            | NextHop::None
            // What it stands for is renumbered by itself.
            | NextHop::Shared(_)
            | NextHop::Connection(_) => next_hop,
        }
    }

    fn in_internet(&self, internet: Internet) -> Internet {
        let Internet {
            port,
            addresses,
            endpoint_clients,
        } = internet;
        Internet {
            port: self.port(port),
            addresses,
            endpoint_clients: self.addresses(endpoint_clients),
        }
    }

    fn in_vnet(&self, vnet: Vnet) -> Vnet {
        let Vnet {
            generation,
            ranges,
            tcp_idle_minutes,
            addresses,
            gateways,
        } = vnet;
        Vnet {
            generation,
            ranges,
            tcp_idle_minutes,
            addresses: self.addresses(addresses),
            gateways,
        }
    }

    fn in_nic(&self, nic: Nic) -> Nic {
        let Nic {
            vnet,
            port,
            fib,
            addresses,
            routers,
            ip_forwarding,
            admin_outbound,
            admin_inbound,
            outbound,
            inbound,
            public,
            egress_cap,
        } = nic;
        Nic {
            vnet: self.vnet(vnet),
            port: self.port(port),
            fib,
            addresses,
            routers,
            ip_forwarding,
            admin_outbound,
            admin_inbound,
            outbound,
            inbound,
            public,
            egress_cap: egress_cap.map(|cap| EgressCap {
                meter: self.nic(cap.meter),
                ..cap
            }),
        }
    }

    fn in_port(&self, port: Port) -> Port {
        match port {
            Port::Nic(nic) => Port::Nic(self.nic(nic)),
            Port::Vnet(vnet) => Port::Vnet(self.vnet(vnet)),
            Port::Platform(vnet) => Port::Platform(self.vnet(vnet)),
            Port::Internet | Port::Connection(_) | Port::Gateway(_) | Port::Gone => port,
        }
    }

    fn in_frontend(&self, frontend: Frontend) -> Frontend {
        let Frontend {
            vnet,
            address,
            out_of_reach,
            rules,
        } = frontend;
        Frontend {
            vnet: self.vnet(vnet),
            address,
            out_of_reach: sorted(out_of_reach, |peering| self.peering(peering)),
            rules: rules.into_iter().map(|rule| self.in_rule(rule)).collect(),
        }
    }

    fn in_rule(&self, rule: Rule) -> Rule {
        let in_backend = |backend: Backend| {
            let Backend {
                nic,
                address,
                // A position in the snapshot's own table.
                health,
            } = backend;
            Backend {
                nic: self.nic(nic),
                address,
                health,
            }
        };
        Rule {
            backends: rule.backends.into_iter().map(in_backend).collect(),
            ..rule
        }
    }

    fn in_peering(&self, peering: Peering) -> Peering {
        let Peering {
            local,
            remote,
            reverse,
            access,
            forwarded_accepted,
            transit,
            link,
        } = peering;
        Peering {
            local: self.vnet(local),
            remote: self.vnet(remote),
            reverse: reverse.map(|reverse| self.peering(reverse)),
            access,
            forwarded_accepted,
            transit,
            link: self.link(link),
        }
    }

    fn in_gateway(&self, gateway: Gateway) -> Gateway {
        let Gateway {
            vnet,
            addresses,
            port,
            outside,
            inside,
        } = gateway;
        Gateway {
            vnet: self.vnet(vnet),
            addresses,
            port: port.map(|port| self.port(port)),
            outside,
            inside,
        }
    }

    fn in_connection(&self, connection: Connection) -> Connection {
        let Connection {
            gateway,
            far,
            port,
            selectors,
            mtu,
            out,
            back,
        } = connection;
        Connection {
            gateway,
            far,
            port: port.map(|port| self.port(port)),
            selectors,
            mtu,
            out: self.link(out),
            back: self.link(back),
        }
    }
}

fn gone_nic() -> Nic {
    Nic {
        vnet: VnetId(GONE),
        port: PortId(GONE),
        fib: FibId(GONE),
        addresses: Vec::new(),
        routers: Vec::new(),
        ip_forwarding: false,
        admin_outbound: None,
        admin_inbound: None,
        outbound: [None; 2],
        inbound: [None; 2],
        public: Vec::new(),
        egress_cap: None,
    }
}

fn gone_peering() -> Peering {
    Peering {
        local: VnetId(GONE),
        remote: VnetId(GONE),
        reverse: None,
        access: false,
        forwarded_accepted: false,
        transit: false,
        link: LinkId(GONE),
    }
}
