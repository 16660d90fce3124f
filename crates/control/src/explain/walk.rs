//! One packet's way: fabric, guest, fabric, … until it arrives or is lost. Every decision of the fabric is a call of
//! the engine's step; only the guests are modelled here.

use std::collections::{HashMap, HashSet};

use engine::admit::admit;
use engine::balance::Balanced;
use engine::classify::{Sender, classify, is_probed};
use engine::fib::RouteId;
use engine::filter::{Access, Filtered, inbound, outbound};
use engine::gateway::{Passed, from_gateway, from_site};
use engine::route::{Hop as FabricHop, PATH_MTU, from_internet, route_and_tell};
use engine::snapshot::{ConnectionId, FibId, GatewayId, NicId, PeeringId, PortId};
use engine::{DropReason, Rewrite};
use model::Topology;
use model::topology::{GatewayIndex, NicIndex, SiteIndex};
use packet::key::unmapped;
use packet::parse::check_addresses;
use packet::{FlowKey, Protocol};

use super::guest::{self, Fate};
use super::links;
use crate::compile::{Compiled, PortOwner, dense};
use crate::present::{BalancerHop, Drop, Evaluated, Finding, Hop, HopRoute, hop_route};

/// What Linux puts into the packets it sends; every guest that forwards takes one off.
const TIME_TO_LIVE: u32 = 64;

/// What the Internet is called where no NIC is.
const INTERNET: &str = "internet";

/// Who sends or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Nic(NicIndex),
    Internet,
    Site(SiteIndex),
    /// As sender or receiver: its BGP speaker.
    Gateway(GatewayIndex),
}

/// How a packet's way ends. The key is the packet's as its receiver sees it.
#[derive(Debug)]
pub(super) enum End {
    Delivered(Node, FlowKey),
    Lost(Box<Drop>),
}

/// The way of one packet, and the state it leaves behind.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    topology: &'a Topology,
    compiled: &'a Compiled,
    /// `forward` or `return`.
    path: &'static str,
    /// Of a reply: where what it answers came in.
    arrived: Option<NicIndex>,
    pub(super) hops: Vec<Hop>,
    /// Who was passed, each once per visit, in order.
    pub(super) nodes: Vec<Node>,
    /// NICs by which packets left guests that forwarded them.
    pub(super) appliances: Vec<NicIndex>,
    pub(super) findings: Vec<Finding>,
    /// NSG-08: NIC, and the key of packets it sends in a flow it has let pass.
    records: HashSet<(NicId, FlowKey)>,
    /// LB-01: what replies of balanced flows get, by backend and their key.
    answers: HashMap<(NicId, FlowKey), Rewrite>,
    /// The same, of before this packet.
    state: &'a State,
}

/// Which NICs have let which flows pass: the NIC, and the key of packets it sends.
pub(crate) type State = HashSet<(NicIndex, FlowKey)>;

impl<'a> Walk<'a> {
    pub(super) fn new(
        topology: &'a Topology,
        compiled: &'a Compiled,
        state: &'a State,
        path: &'static str,
    ) -> Self {
        Self {
            topology,
            compiled,
            path,
            arrived: None,
            hops: Vec::new(),
            nodes: Vec::new(),
            appliances: Vec::new(),
            findings: Vec::new(),
            records: HashSet::new(),
            answers: HashMap::new(),
            state,
        }
    }

    /// The way of the reply, after this one: it meets the state that this one left.
    pub(super) fn reply(&self, path: &'static str) -> Self {
        let arrived = self.nodes.last().and_then(|node| match *node {
            Node::Nic(nic) => Some(nic),
            _ => None,
        });
        Self {
            arrived,
            records: self.records.clone(),
            answers: self.answers.clone(),
            ..Self::new(self.topology, self.compiled, self.state, path)
        }
    }

    /// Follows a packet from the guest that makes it.
    pub(super) fn send(&mut self, from: Node, key: FlowKey) -> End {
        let mut step = match from {
            Node::Internet => self.internet_sends(key),
            Node::Site(site) => self.site_sends(site, key),
            Node::Gateway(gateway) => self.gateway_sends(gateway, key),
            Node::Nic(nic) => match self.first_interface(nic, &key) {
                Some(nic) => self.nic_sends(nic, key),
                None => Err(self.no_guest_route(nic)),
            },
        };
        for _ in 1..TIME_TO_LIVE {
            let (at, key) = match step {
                Err(drop) => return End::Lost(drop),
                Ok((Node::Nic(nic), key)) => (nic, key),
                Ok((node, key)) => return End::Delivered(node, key),
            };
            step = match guest::receive(self.topology, at, &key) {
                Fate::Delivered(node) => return End::Delivered(node, key),
                Fate::Forwarded(by) => {
                    self.appliances.push(by);
                    self.nic_sends(by, key)
                }
                Fate::Martian => {
                    let (nic, vm) = self.names(at);
                    self.finding(
                        "MartianSource",
                        format!(
                            "the packet comes back to {nic}, and {vm} drops what claims to come from itself"
                        ),
                    );
                    return End::Lost(lost_silently(self.topology, Node::Nic(at), self.path));
                }
                Fate::NotForwarding => {
                    let (nic, vm) = self.names(at);
                    self.finding(
                        "GuestNotForwarding",
                        format!(
                            "{nic} has enableIPForwarding, but its guest does not forward; set `forwarding: true` on {vm}"
                        ),
                    );
                    return End::Lost(lost_silently(self.topology, Node::Nic(at), self.path));
                }
                Fate::NoRoute => return End::Lost(self.no_guest_route(at)),
            };
        }
        let at = self.nodes.last().copied().unwrap_or(from);
        self.finding(
            "RoutingLoop",
            format!(
                "guests pass the packet on until its time to live runs out at {}",
                name(self.topology, at)
            ),
        );
        End::Lost(lost_silently(self.topology, at, self.path))
    }

    /// A VM sends by its own routes, whatever the address it sends from; behind a VNet port the address decides.
    fn first_interface(&self, nic: NicIndex, key: &FlowKey) -> Option<NicIndex> {
        // Linux answers a ping over IPv6 by the way it came, where its routes leave a choice; nothing else.
        let preferred = self.arrived.filter(|_| key.protocol == Protocol::ICMPV6);
        match self.topology.nics[nic.0].vm {
            Some(vm) => guest::egress(self.topology, vm, unmapped(key.destination), preferred),
            None => Some(nic),
        }
    }

    /// Steps 2 to 8 for a packet that a NIC sends.
    fn nic_sends(&mut self, nic: NicIndex, key: FlowKey) -> Result<(Node, FlowKey), Box<Drop>> {
        let compiled = self.compiled;
        let snapshot = &*compiled.snapshot;
        let port = snapshot.nics[nic.0].port;
        self.visit(Node::Nic(nic));
        self.hops.push(plain_hop(
            Some(self.topology.nics[nic.0].name.clone()),
            "Outbound",
        ));
        if let Err(fault) = check_addresses(&key) {
            return Err(self.lost(Node::Nic(nic), fault.into()));
        }
        let from = match classify(snapshot, port, &key) {
            Ok(Sender::Nic(id)) => id,
            Ok(_) => return Err(self.lost(Node::Nic(nic), DropReason::UnknownNic)),
            Err(reason) => return Err(self.lost(Node::Nic(nic), reason)),
        };
        let at = Node::Nic(NicIndex(from.index()));
        if is_probed(&key) {
            return Err(self.lost(at, DropReason::PlatformReserved));
        }
        if !self.passes(from, key, || outbound(snapshot, from, &key)) {
            return Err(self.lost(at, DropReason::NsgOutbound));
        }
        let mut passed = Vec::new();
        let routed = route_and_tell(snapshot, from, &key, &key, None, |each| passed.push(each));
        let told = routed.route.and_then(|route| self.told(route));
        if let Some(hop) = self.hops.last_mut() {
            hop.route = told;
        }
        let outcome = routed.outcome.map(|mut hop| {
            if let Some(answer) = self.answers.get(&(from, key))
                && hop.rewrite.is_none()
            {
                hop.rewrite = *answer;
            }
            hop
        });
        self.arrive(at, outcome, &passed, key)
    }

    /// Steps 2 to 8 for a packet that a site sends, by the connection that its routes choose.
    fn site_sends(&mut self, site: SiteIndex, key: FlowKey) -> Result<(Node, FlowKey), Box<Drop>> {
        let snapshot = &*self.compiled.snapshot;
        let at = Node::Site(site);
        self.visit(at);
        self.hops.push(node_hop(name(self.topology, at), "Outbound"));
        let Some(connection) = self.topology.site_egress(site, unmapped(key.destination)) else {
            let site = &self.topology.sites[site.0].name;
            self.finding(
                "SiteNotConnected",
                format!("no connection of the lab leads to {site}"),
            );
            return Err(lost_silently(self.topology, at, self.path));
        };
        if let Some(last) = self.hops.last_mut() {
            last.link = Some(self.topology.connections[connection.0].name.clone());
        }
        let id = ConnectionId(dense(connection.0));
        let port = snapshot.connections[connection.0].port;
        let mut passed = Vec::new();
        let outcome = port.ok_or(DropReason::UnknownNic).and_then(|port| {
            check_addresses(&key)?;
            classify(snapshot, port, &key)?;
            from_site(snapshot, id, &key, |each| passed.push(each))
        });
        self.arrive(at, outcome, &passed, key)
    }

    /// The same for a gateway's BGP speaker.
    fn gateway_sends(&mut self, gateway: GatewayIndex, key: FlowKey) -> Result<(Node, FlowKey), Box<Drop>> {
        let at = Node::Gateway(gateway);
        self.visit(at);
        self.hops.push(node_hop(name(self.topology, at), "Outbound"));
        let outcome = from_gateway(&self.compiled.snapshot, GatewayId(dense(gateway.0)), &key);
        self.arrive(at, outcome, &[], key)
    }

    /// Tells the gateways passed, and lets the packet in where it arrives.
    fn arrive(
        &mut self,
        from: Node,
        outcome: Result<FabricHop, DropReason>,
        passed: &[Passed],
        key: FlowKey,
    ) -> Result<(Node, FlowKey), Box<Drop>> {
        if let (Ok(hop), Some(last)) = (&outcome, self.hops.last_mut())
            && let Some(over) = hop.gateways.over
        {
            last.link = Some(link(self.topology, self.compiled, over));
        }
        let mut at = from;
        for each in passed {
            at = Node::Gateway(GatewayIndex(each.gateway.index()));
            self.visit(at);
            let node = name(self.topology, at);
            self.hops.push(node_hop(node.clone(), "Inbound"));
            let connection = each
                .connection
                .map(|it| self.topology.connections[it.index()].name.clone());
            let route = each.route.and_then(|route| self.told(route));
            self.hops.push(Hop {
                route,
                link: connection,
                ..node_hop(node, "Outbound")
            });
        }
        match outcome {
            Ok(hop) => {
                if let (Some(to), Some(answer)) = (hop.to, hop.answer(&key)) {
                    self.answers
                        .insert((to, hop.rewrite.apply(&key).reversed()), answer);
                }
                self.cross(at, &hop, hop.rewrite.apply(&key))
            }
            Err(reason) => Err(self.lost(at, reason)),
        }
    }

    /// The same for a packet that the Internet sends.
    fn internet_sends(&mut self, key: FlowKey) -> Result<(Node, FlowKey), Box<Drop>> {
        let snapshot = &*self.compiled.snapshot;
        self.visit(Node::Internet);
        self.hops.push(node_hop(INTERNET.to_owned(), "Outbound"));
        let arrived = snapshot
            .internet
            .as_ref()
            .ok_or(DropReason::NoInternet)
            .and_then(|internet| {
                classify(snapshot, internet.port, &key)?;
                from_internet(snapshot, &key)
            });
        // A service answers a private address and never speaks first (ROUTE-09).
        let asked = |hop: &FabricHop| {
            hop.rewrite.destination.is_some()
                || (hop.to).is_some_and(|to| self.records.contains(&(to, key.reversed())))
        };
        match arrived {
            Ok(hop) if !asked(&hop) => Err(self.lost(Node::Internet, DropReason::NoDestination)),
            Ok(hop) => self.cross(Node::Internet, &hop, hop.rewrite.apply(&key)),
            Err(reason) => Err(self.lost(Node::Internet, reason)),
        }
    }

    /// Steps 7 and 8, at the receiving side.
    fn cross(&mut self, from: Node, hop: &FabricHop, key: FlowKey) -> Result<(Node, FlowKey), Box<Drop>> {
        let compiled = self.compiled;
        let snapshot = &*compiled.snapshot;
        if let (Some(peering), Some(last)) = (hop.peering, self.hops.last_mut()) {
            last.link = Some(link(self.topology, compiled, peering));
        }
        if let Some(balanced) = hop.balanced {
            self.hops.push(self.balancer_hop(balanced, hop.to));
        }
        if let Some(gateway) = hop.narrowed_by {
            self.finding(
                "PathMtu",
                format!(
                    "the path takes {} bytes, not {PATH_MTU}: of larger packets those with DF are dropped as TooBig, which {} \
                     tells their sender, others travel in fragments",
                    hop.mtu,
                    unmapped(gateway)
                ),
            );
        }
        self.findings
            .extend(links::findings(self.topology, compiled, hop));
        let admitted = admit(snapshot, hop, &key);
        let Some(to) = hop.to else {
            admitted
                .and_then(|()| hop.is_passable(snapshot))
                .map_err(|reason| self.lost(from, reason))?;
            let at = self.beyond(hop.port);
            self.visit(at);
            self.hops.push(node_hop(name(self.topology, at), "Inbound"));
            return self.answers(at, key);
        };
        let at = Node::Nic(NicIndex(to.index()));
        match admitted {
            Ok(()) | Err(DropReason::NotForNic) => {}
            Err(reason) => return Err(self.lost(from, reason)),
        }
        let passed = self.nodes.len();
        self.visit(at);
        self.hops.push(plain_hop(
            Some(self.topology.nics[to.index()].name.clone()),
            "Inbound",
        ));
        if let Err(reason) = admitted {
            return Err(self.lost(at, reason));
        }
        if !self.passes(to, key.reversed(), || inbound(snapshot, to, &key)) {
            return Err(self.lost(at, DropReason::NsgInbound));
        }
        // The fabric decides before it sends, so the rules at the far end came first; but the packet does not get there.
        if let Err(reason) = hop.is_passable(snapshot) {
            self.nodes.truncate(passed);
            self.hops.pop();
            return Err(self.lost(from, reason));
        }
        Ok((at, key))
    }

    /// Who is behind a port that is no NIC's.
    fn beyond(&self, port: PortId) -> Node {
        match self.compiled.provenance.ports.get(port.index()) {
            Some(PortOwner::Connection(connection)) => self.topology.connections[connection.0]
                .site()
                .map_or(Node::Internet, Node::Site),
            Some(PortOwner::Gateway(gateway)) => Node::Gateway(*gateway),
            _ => Node::Internet,
        }
    }

    /// A site answers at what it has, and forwards nothing else that a lab knows.
    fn answers(&mut self, at: Node, key: FlowKey) -> Result<(Node, FlowKey), Box<Drop>> {
        let destination = unmapped(key.destination);
        if let Node::Site(site) = at {
            let site = &self.topology.sites[site.0];
            if site.has(destination).is_none() {
                self.finding(
                    "SiteHasNotAddress",
                    format!(
                        "the packet reaches {}, in none of whose prefixes {destination} lies",
                        site.name
                    ),
                );
                return Err(lost_silently(self.topology, at, self.path));
            }
        }
        Ok((at, key))
    }

    /// Whether state or the rules let the packet pass the NIC; it leaves state then. `form` is the key of packets that
    /// the NIC sends in this flow. Writes what was evaluated into the last hop.
    fn passes(&mut self, nic: NicId, form: FlowKey, ask: impl FnOnce() -> Filtered) -> bool {
        if self.records.contains(&(nic, form)) || self.state.contains(&(NicIndex(nic.index()), form)) {
            if let Some(hop) = self.hops.last_mut() {
                hop.rule = Some("state".to_owned());
            }
            return true;
        }
        let filtered = ask();
        let evaluated = self.evaluated(&filtered);
        if let Some(hop) = self.hops.last_mut() {
            if let Some(last) = evaluated.last() {
                hop.nsg = Some(last.nsg.clone());
                hop.rule = Some(last.rule.clone());
            }
            hop.evaluated = evaluated;
        }
        let allowed = filtered.access == Access::Allow;
        if allowed {
            self.records.insert((nic, form));
        }
        allowed
    }

    fn evaluated(&self, filtered: &Filtered) -> Vec<Evaluated> {
        let inbound = self.hops.last().is_some_and(|hop| hop.direction == "Inbound");
        let levels = if inbound {
            ["NetworkManager", "Subnet", "NetworkInterface"]
        } else {
            ["NetworkManager", "NetworkInterface", "Subnet"]
        };
        let decisions = levels.into_iter().zip(filtered.decisions);
        let told = decisions.filter_map(|(association, decision)| {
            let (filter, decision) = decision?;
            let origin = &self.compiled.provenance.filters[filter.index()];
            let rule = origin.rules.get(usize::from(decision.rule?))?;
            Some(Evaluated {
                nsg: rule.owner.clone(),
                association,
                rule: rule.name.clone(),
                access: match decision.access {
                    Access::Allow => "Allow",
                    Access::AlwaysAllow => "AlwaysAllow",
                    Access::Deny => "Deny",
                },
            })
        });
        told.collect()
    }

    /// The load balancer on the way, and whom it chose.
    fn balancer_hop(&self, balanced: Balanced, to: Option<NicId>) -> Hop {
        let (balancer, frontend) = self.compiled.provenance.frontends[balanced.frontend.index()];
        let balancer = &self.topology.load_balancers[balancer.0];
        let mut rules = balancer.rules.iter().filter(|rule| rule.frontend == frontend);
        Hop {
            node: Some(balancer.name.clone()),
            load_balancer: Some(BalancerHop {
                frontend: balancer.frontends[frontend].name.clone(),
                rule: rules
                    .nth(usize::from(balanced.rule))
                    .map(|rule| rule.name.clone()),
                backend: to.map(|nic| self.topology.nics[nic.index()].name.clone()),
            }),
            ..plain_hop(None, "Inbound")
        }
    }

    fn told(&self, (fib, route): (FibId, RouteId)) -> Option<HopRoute> {
        self.compiled
            .provenance
            .routes
            .get(fib.index())?
            .get(route.index())
            .map(hop_route)
    }

    /// Lost in the fabric: by the rule or the route of the last hop, if the reason is one of theirs.
    fn lost(&self, at: Node, reason: DropReason) -> Box<Drop> {
        let last = self.hops.last();
        let filtered = matches!(reason, DropReason::NsgOutbound | DropReason::NsgInbound);
        let of_filter = last.filter(|_| filtered);
        let of_route = last.filter(|hop| !filtered && hop.direction == "Outbound");
        Box::new(Drop {
            reason: Some(reason.name()),
            nsg: of_filter.and_then(|hop| hop.nsg.clone()),
            rule: of_filter.and_then(|hop| hop.rule.clone()),
            route: of_route.and_then(|hop| hop.route.clone()),
            ..*lost_silently(self.topology, at, self.path)
        })
    }

    fn no_guest_route(&mut self, nic: NicIndex) -> Box<Drop> {
        let (nic_name, vm) = self.names(nic);
        self.finding(
            "GuestNoRoute",
            format!("the guest {vm} behind {nic_name} has no route to the destination; only eth0 has a default route"),
        );
        lost_silently(self.topology, Node::Nic(nic), self.path)
    }

    fn names(&self, nic: NicIndex) -> (&'a str, &'a str) {
        let nic = &self.topology.nics[nic.0];
        (
            &nic.name,
            nic.vm.map_or("the VNet port", |vm| &self.topology.vms[vm.0].name),
        )
    }

    fn finding(&mut self, code: &'static str, message: String) {
        self.findings.push(Finding { code, message });
    }

    fn visit(&mut self, node: Node) {
        if self.nodes.last() != Some(&node) {
            self.nodes.push(node);
        }
    }
}

/// Lost where the engine cannot see it, in a guest; a finding says why.
pub(super) fn lost_silently(topology: &Topology, at: Node, path: &'static str) -> Box<Drop> {
    Box::new(Drop {
        at: name(topology, at),
        path,
        reason: None,
        nsg: None,
        rule: None,
        route: None,
    })
}

pub(super) fn name(topology: &Topology, node: Node) -> String {
    match node {
        Node::Nic(nic) => topology.nics[nic.0].name.clone(),
        Node::Internet => INTERNET.to_owned(),
        Node::Site(site) => topology.sites[site.0].name.clone(),
        Node::Gateway(gateway) => topology.gateways[gateway.0].name.clone(),
    }
}

fn plain_hop(nic: Option<String>, direction: &'static str) -> Hop {
    Hop {
        nic,
        node: None,
        load_balancer: None,
        direction,
        nsg: None,
        rule: None,
        evaluated: Vec::new(),
        route: None,
        link: None,
    }
}

fn node_hop(node: String, direction: &'static str) -> Hop {
    Hop {
        node: Some(node),
        ..plain_hop(None, direction)
    }
}

/// `vnet/peering`.
fn link(topology: &Topology, compiled: &Compiled, peering: PeeringId) -> String {
    let peering = &topology.peerings[compiled.provenance.peerings[peering.index()].0];
    format!("{}/{}", topology.vnets[peering.from.0].name, peering.name)
}
