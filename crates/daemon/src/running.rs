//! A lab that forwards, and what can be asked about it, in the user's words.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use control::compile::PortOwner;
use engine::snapshot::{NicId, PortId};
use engine::stats::Stats;
use lab::{LabSpec, Namespace};
use model::Topology;
use packet::Protocol;
use packet::key::unmapped;

use crate::api::{Drop, Flow, LabFile, LabState, PortCounters, PortState, State};
use crate::ports::Ports;
use crate::probe::Prober;
use crate::publish::Published;
use crate::up::Io;
use crate::worker::Workers;

/// Everything the daemon has of its lab.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) name: String,
    pub(crate) file: LabFile,
    pub(crate) io: Io,
    pub(crate) topology: Topology,
    pub(crate) spec: LabSpec,
    /// By [`PortId`].
    pub(crate) owners: Vec<PortOwner>,
    pub(crate) published: Arc<Published>,
    pub(crate) workers: Workers,
    pub(crate) ports: Arc<Ports>,
    pub(crate) prober: Prober,
    pub(crate) started: Instant,
}

impl Lab {
    pub(crate) fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.ports.namespace(name)
    }

    pub(crate) fn nic_name(&self, nic: Option<NicId>) -> Option<String> {
        nic.and_then(|nic| self.topology.nics.get(nic.index()))
            .map(|nic| nic.name.clone())
    }

    pub(crate) async fn state(&self) -> State {
        State {
            name: self.name.clone(),
            state: LabState::Running,
            pid: std::process::id(),
            file: self.file.file.clone(),
            generation: self.published.current().generation,
            io: self.io.name().to_owned(),
            workers: self.workers.count(),
            ports: self.ports().await,
        }
    }

    pub(crate) async fn ports(&self) -> Vec<PortState> {
        let stats = self.workers.stats().await;
        let alive = self.workers.alive().await;
        let states = self
            .ports
            .devices
            .iter()
            .enumerate()
            .map(|(port, device)| PortState {
                name: self.port_name(port),
                namespace: device.namespace.clone(),
                interface: device.interface.clone(),
                offload: device.offloads.name().to_owned(),
                forwarding: alive.iter().all(|ports| ports.get(port) == Some(&true)),
                counters: self.port_counters(port, &stats),
            });
        states.collect()
    }

    /// Losses summed over the workers, by reason and NIC.
    pub(crate) async fn drops(&self) -> Vec<Drop> {
        let mut sums = BTreeMap::new();
        for count in self.workers.stats().await.iter().flat_map(|stats| &stats.drops) {
            let sum = sums.entry((count.reason, count.nic)).or_insert((0, 0));
            *sum = (sum.0 + count.packets, sum.1 + count.bytes);
        }
        let drops = sums.into_iter().map(|((reason, nic), (packets, bytes))| Drop {
            reason: reason.name().to_owned(),
            nic: self.nic_name(nic),
            packets,
            bytes,
        });
        drops.collect()
    }

    /// The records of NSG state that belong to a NIC.
    pub(crate) async fn flows(&self) -> Vec<Flow> {
        let records = self.workers.flows().await;
        let mut flows: Vec<Flow> = records
            .iter()
            .flatten()
            .filter_map(|flow| {
                Some(Flow {
                    nic: self.nic_name(flow.nic)?,
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

    /// Whether programs of the lab's file start in this namespace.
    pub(crate) fn has_programs(&self, namespace: &str) -> bool {
        self.spec
            .namespace(namespace)
            .is_some_and(|spec| !spec.run.is_empty())
    }

    fn port_name(&self, port: usize) -> String {
        match self.owners.get(port) {
            Some(PortOwner::Vm { nic, .. }) => self.topology.nics[nic.0].name.clone(),
            Some(PortOwner::Vnet(vnet)) => self.topology.vnets[vnet.0].name.clone(),
            Some(PortOwner::Internet) => String::from("internet"),
            None => String::new(),
        }
    }

    /// The sums of the NICs behind a port; None for the Internet, which is no NIC.
    fn port_counters(&self, port: usize, stats: &[Stats]) -> Option<PortCounters> {
        if matches!(self.owners.get(port), None | Some(PortOwner::Internet)) {
            return None;
        }
        let snapshot = self.published.current();
        let id = PortId(u32::try_from(port).ok()?);
        let mut sum = PortCounters::default();
        for stats in stats {
            let nics = snapshot.nics.iter().zip(&stats.nics);
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
