//! A lab that forwards, and what can be asked about it, in the user's words.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use control::Generation;
use control::compile::PortOwner;
use engine::DelayError;
use engine::snapshot::{LinkId, NicId};
use engine::stats::{LinkStats, Stats};
use lab::{LabSpec, Namespace};
use model::Config;
use model::topology::NicIndex;
use packet::Protocol;
use packet::key::unmapped;
use tokio::sync::watch;

use crate::api::{
    Drop, Flow, LabFile, LabState, Lateness, LinkCounters, Meter, Overview, PortCounters, PortState, State,
};
use crate::capture::Captures;
use crate::change::Hands;
use crate::changes::Outcomes;
use crate::events::Events;
use crate::health::Health;
use crate::ports::Ports;
use crate::probe::Prober;
use crate::publish::Published;
use crate::store::Wanted;
use crate::up::{Forwarding, Io};
use crate::worker::{Workers, monotonic_ns};

/// Everything the daemon has of its lab.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) name: String,
    pub(crate) io: Io,
    pub(crate) forwarding: Forwarding,
    current: ArcSwap<Current>,
    pub(crate) published: Arc<Published>,
    pub(crate) workers: Workers,
    pub(crate) hands: Hands,
    pub(crate) prober: Prober,
    pub(crate) health: Health,
    pub(crate) outcomes: Outcomes,
    pub(crate) captures: Captures,
    pub(crate) started: Instant,
    pub(crate) events: Events,
    /// The generation that forwards, for those that follow it.
    generation: watch::Sender<u64>,
}

/// What the lab is at present. A change replaces it as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    /// How the lab's file was named to `up` or `apply`; `-` for standard input.
    pub(crate) file: String,
    /// The user's own file, where a fresh start of it would give this very lab.
    pub(crate) text: Option<Arc<str>>,
    /// What is declared; all of `generation` follows from it.
    pub(crate) config: Arc<Config>,
    pub(crate) spec: LabSpec,
    pub(crate) generation: Generation,
    /// As the spec and [`control::compile::Provenance::ports`] count them.
    pub(crate) ports: Ports,
}

impl Lab {
    pub(crate) fn new(
        current: Current,
        forwarding: Forwarding,
        published: Arc<Published>,
        workers: Workers,
        hands: Hands,
    ) -> Self {
        Self {
            name: current.spec.name.clone(),
            io: forwarding.io,
            forwarding,
            current: ArcSwap::from_pointee(current),
            published,
            workers,
            hands,
            prober: Prober::new(),
            health: Health::default(),
            outcomes: Outcomes::new(),
            captures: Captures::default(),
            started: Instant::now(),
            events: Events::default(),
            generation: watch::Sender::new(0),
        }
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Only [`crate::change`] does this, one change at a time.
    pub(crate) fn replace(&self, current: Current) {
        self.current.store(Arc::new(current));
    }

    /// Tells of every generation from now on.
    pub(crate) fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Only [`crate::change`] does this.
    pub(crate) fn announce(&self, generation: u64) {
        self.generation.send_replace(generation);
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.current().ports.namespace(name)
    }

    /// Of a NIC that is gone too.
    pub(crate) fn nic_name(&self, nic: Option<NicId>) -> Option<String> {
        nic.and_then(|nic| self.current().generation.nic_name(nic).map(str::to_owned))
    }

    pub(crate) async fn state(&self) -> State {
        State {
            name: self.name.clone(),
            state: LabState::Running,
            pid: std::process::id(),
            file: self.current().file.clone(),
            generation: self.published.current().generation,
            io: self.io.name().to_owned(),
            workers: self.workers.count(),
            ports: self.ports().await,
        }
    }

    pub(crate) async fn ports(&self) -> Vec<PortState> {
        let (stats, alive) = (self.workers.stats().await, self.workers.alive().await);
        self.current().port_states(&stats, &alive)
    }

    /// Everything that `top` shows.
    pub(crate) async fn overview(&self) -> Overview {
        let (stats, alive) = (self.workers.stats().await, self.workers.alive().await);
        let current = self.current();
        let mut late = DelayError::default();
        stats.iter().for_each(|stats| late.add(&stats.delay_error()));
        Overview {
            name: self.name.clone(),
            at_ns: monotonic_ns(),
            generation: current.generation.snapshot.generation,
            ports: current.port_states(&stats, &alive),
            meter: current.meter(&stats),
            links: current.links(&stats),
            drops: current.drops(&stats),
            flows: stats.iter().map(|stats| u64::from(stats.flows)).sum(),
            flow_capacity: stats.iter().map(|stats| u64::from(stats.flow_capacity)).sum(),
            late: Lateness::of(&late),
        }
    }

    pub(crate) async fn drops(&self) -> Vec<Drop> {
        let stats = self.workers.stats().await;
        self.current().drops(&stats)
    }

    /// The records of NSG state that belong to a NIC.
    pub(crate) async fn flows(&self) -> Vec<Flow> {
        let records = self.workers.flows().await;
        let current = self.current();
        let mut flows: Vec<Flow> = records
            .iter()
            .flatten()
            .filter_map(|flow| {
                Some(Flow {
                    nic: current.living_nic(flow.nic?)?,
                    direction: String::from(if flow.inbound { "Inbound" } else { "Outbound" }),
                    protocol: protocol_name(flow.key.protocol),
                    source: unmapped(flow.key.source),
                    source_port: flow.key.source_port,
                    destination: unmapped(flow.key.destination),
                    destination_port: flow.key.destination_port,
                    packets: flow.packets,
                    bytes: flow.bytes,
                    idle_ms: flow.idle_ms,
                })
            })
            .collect();
        flows.sort_by(|a, b| order(a).cmp(&order(b)));
        flows
    }

    pub(crate) async fn meter(&self) -> Vec<Meter> {
        let stats = self.workers.stats().await;
        self.current().meter(&stats)
    }

    pub(crate) async fn links(&self) -> Vec<LinkCounters> {
        let stats = self.workers.stats().await;
        self.current().links(&stats)
    }

    /// Whether programs of the lab's file start in this namespace.
    pub(crate) fn has_programs(&self, namespace: &str) -> bool {
        self.current()
            .spec
            .namespace(namespace)
            .is_some_and(|spec| !spec.run.is_empty())
    }
}

impl Current {
    /// A lab file that declares what runs: the user's own, or what the lab has become, written out.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn lab_file(&self) -> Result<LabFile, String> {
        let text = match &self.text {
            Some(text) => text.to_string(),
            None => model::export(&self.config)?,
        };
        Ok(LabFile {
            file: self.file.clone(),
            text,
            service_tags: self
                .config
                .service_tags
                .as_ref()
                .map(|file| file.text.to_string()),
        })
    }

    /// Every NIC by name, with the place of its counters.
    pub(crate) fn nics(&self) -> impl Iterator<Item = (String, usize)> {
        let nics = self.generation.topology.nics.iter().enumerate();
        nics.map(|(position, nic)| {
            let id = self.generation.nic_id(NicIndex(position));
            (nic.name.clone(), id.index())
        })
    }

    /// For the store.
    pub(crate) fn wanted(&self, forwarding: Forwarding) -> Wanted<'_> {
        Wanted {
            generation: self.generation.snapshot.generation,
            file: &self.file,
            forwarding,
            config: &self.config,
            text: self.text.as_deref(),
        }
    }

    /// Records of a NIC that is gone wait for their end and pass nothing.
    pub(crate) fn living_nic(&self, nic: NicId) -> Option<String> {
        let index = self.generation.nic_index(nic)?;
        Some(self.generation.topology.nics[index.0].name.clone())
    }

    fn port_states(&self, stats: &[Stats], alive: &[Vec<bool>]) -> Vec<PortState> {
        let states = self.ports.devices.iter().enumerate().map(|(port, device)| {
            let id = self.generation.port_id(port).index();
            PortState {
                name: self.port_name(port),
                namespace: device.namespace.clone(),
                interface: device.interface.clone(),
                offload: device.offloads.name().to_owned(),
                forwarding: alive.iter().all(|ports| ports.get(id) == Some(&true)),
                counters: self.port_counters(port, stats),
            }
        });
        states.collect()
    }

    /// Losses summed over the workers, by reason and NIC.
    fn drops(&self, stats: &[Stats]) -> Vec<Drop> {
        let mut sums = BTreeMap::new();
        for count in stats.iter().flat_map(|stats| &stats.drops) {
            // By name: a NIC that was deleted and made again has two ids.
            let nic = count.nic.and_then(|nic| self.generation.nic_name(nic));
            let sum = sums.entry((count.reason, nic)).or_insert((0, 0));
            *sum = (sum.0 + count.packets, sum.1 + count.bytes);
        }
        let drops = sums.into_iter().map(|((reason, nic), (packets, bytes))| Drop {
            reason: reason.name().to_owned(),
            nic: nic.map(str::to_owned),
            packets,
            bytes,
        });
        drops.collect()
    }

    /// What each link has done, summed over the workers; those that no packet has entered are left out.
    fn links(&self, stats: &[Stats]) -> Vec<LinkCounters> {
        let Generation {
            topology, provenance, ..
        } = &self.generation;
        let row = |(position, origin): (usize, &control::compile::LinkOrigin)| {
            let id = self.generation.link_id(position);
            let mut row = LinkCounters {
                link: origin.name(topology),
                back: origin.back,
                ..LinkCounters::default()
            };
            let mut entered = false;
            for it in stats.iter().filter_map(|stats| stats.links.get(id.index())) {
                entered |= *it != LinkStats::default();
                row.packets += it.packets;
                row.bytes += it.bytes;
                row.lost += it.lost;
                row.duplicated += it.duplicated;
                row.reordered += it.reordered;
                row.corrupted += it.corrupted;
                row.marked += it.marked;
                row.queue_full += it.queue_full;
                row.refused += it.down;
                row.waiting_packets += it.waiting_packets;
                row.waiting_bytes += it.waiting_bytes;
            }
            row.late = Lateness::of(&delay_error(stats, id));
            entered.then_some(row)
        };
        provenance.links.iter().enumerate().filter_map(row).collect()
    }

    /// How late packets came out of each link that one has come out of, by its name and direction.
    pub(crate) fn delay_errors(&self, stats: &[Stats]) -> Vec<(String, bool, DelayError)> {
        let links = self.generation.provenance.links.iter().enumerate();
        let error = |(position, origin): (usize, &control::compile::LinkOrigin)| {
            let error = delay_error(stats, self.generation.link_id(position));
            (error.count() > 0).then(|| (origin.name(&self.generation.topology), origin.back, error))
        };
        links.filter_map(error).collect()
    }

    /// What crossed each peering, summed over the workers. A peering with a classic VNet is one object for both
    /// directions, so directions are told by their VNets.
    fn meter(&self, stats: &[Stats]) -> Vec<Meter> {
        let Generation {
            topology, snapshot, ..
        } = &self.generation;
        let mut crossed = BTreeMap::new();
        for stats in stats {
            for (peering, count) in snapshot.peerings.iter().zip(&stats.peerings) {
                let sum = crossed.entry((peering.local, peering.remote)).or_insert((0, 0));
                *sum = (sum.0 + count.packets, sum.1 + count.bytes);
            }
        }
        let row = |peering: &model::topology::Peering| {
            let [own, other] = [peering.from, peering.to].map(|vnet| self.generation.vnet_id(vnet));
            let (from, to) = (&topology.vnets[peering.from.0], &topology.vnets[peering.to.0]);
            let (egress_packets, egress_bytes) = crossed.get(&(own, other)).copied().unwrap_or_default();
            let (ingress_packets, ingress_bytes) = crossed.get(&(other, own)).copied().unwrap_or_default();
            Meter {
                peering: format!("{}/{}", from.name, peering.name),
                location: from.location.clone(),
                remote_location: to.location.clone(),
                egress_bytes,
                egress_packets,
                ingress_bytes,
                ingress_packets,
            }
        };
        topology.peerings.iter().map(row).collect()
    }

    pub(crate) fn port_name(&self, port: usize) -> String {
        let topology = &self.generation.topology;
        match self.generation.provenance.ports.get(port) {
            Some(PortOwner::Vm { nic, .. }) => topology.nics[nic.0].name.clone(),
            Some(PortOwner::Vnet(vnet)) => topology.vnets[vnet.0].port_namespace(),
            Some(PortOwner::Platform(vnet)) => lab::spec::platform_name(&topology.vnets[vnet.0].name),
            Some(PortOwner::Internet) => String::from("internet"),
            Some(PortOwner::Connection(connection)) => topology.connections[connection.0].name.clone(),
            Some(PortOwner::Gateway(gateway)) => topology.gateways[gateway.0].name.clone(),
            None => String::new(),
        }
    }

    /// The sums of the NICs behind a port; None where no NIC is.
    fn port_counters(&self, port: usize, stats: &[Stats]) -> Option<PortCounters> {
        let owner = self.generation.provenance.ports.get(port);
        if !matches!(owner, Some(PortOwner::Vm { .. } | PortOwner::Vnet(_))) {
            return None;
        }
        let id = self.generation.port_id(port);
        let mut sum = PortCounters::default();
        for stats in stats {
            let nics = self.generation.snapshot.nics.iter().zip(&stats.nics);
            for (_, nic) in nics.filter(|(nic, _)| nic.port == id) {
                sum.received_packets += nic.tx_packets;
                sum.received_bytes += nic.tx_bytes;
                sum.sent_packets += nic.rx_packets;
                sum.sent_bytes += nic.rx_bytes;
            }
        }
        Some(sum)
    }
}

/// How late packets came out of a link, at all workers.
pub(crate) fn delay_error(stats: &[Stats], link: LinkId) -> DelayError {
    let mut all = DelayError::default();
    let of_each = stats
        .iter()
        .filter_map(|stats| stats.delay_errors.get(link.index())?.as_ref());
    of_each.for_each(|error| all.add(error));
    all
}

/// Whether this process has a user namespace of its own.
pub(crate) fn in_user_namespace() -> bool {
    // The initial one maps all ids to themselves.
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        let fields: Vec<&str> = map.split_whitespace().collect();
        fields != ["0", "0", "4294967295"]
    })
}

fn protocol_name(protocol: Protocol) -> String {
    match protocol {
        Protocol::TCP => String::from("Tcp"),
        Protocol::UDP => String::from("Udp"),
        Protocol::ICMP | Protocol::ICMPV6 => String::from("Icmp"),
        Protocol::ESP => String::from("Esp"),
        Protocol::AH => String::from("Ah"),
        Protocol(number) => number.to_string(),
    }
}

fn order(flow: &Flow) -> (&str, &str, IpAddr, u16, IpAddr, u16) {
    (
        &flow.nic,
        &flow.protocol,
        flow.source,
        flow.source_port,
        flow.destination,
        flow.destination_port,
    )
}
