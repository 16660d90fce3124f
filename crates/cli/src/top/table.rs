//! The rows of one view: what is between two samples, sorted and filtered.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::SocketAddr;

use daemon::api::{Flow, Overview, PortCounters};

/// The views, in the order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Vms,
    Peerings,
    Links,
    Drops,
    Flows,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Text(String),
    Number(f64, Unit),
}

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    BitsPerSecond,
    Count,
    Bytes,
    Seconds,
    Microseconds,
}

/// A column: its title, and how wide it is at least; the first columns with text share what is left.
pub(crate) type Column = (&'static str, u16);

impl View {
    pub(crate) const ALL: [Self; 5] = [Self::Vms, Self::Peerings, Self::Links, Self::Drops, Self::Flows];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Vms => "VMs",
            Self::Peerings => "Peerings",
            Self::Links => "Links",
            Self::Drops => "Drops",
            Self::Flows => "Flows",
        }
    }

    pub(crate) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Vms => &[
                ("VM", 12),
                ("NIC", 12),
                ("sent pkt/s", 10),
                ("sent bit/s", 10),
                ("recv pkt/s", 10),
                ("recv bit/s", 10),
                ("drops/s", 8),
            ],
            Self::Peerings => &[
                ("Peering", 20),
                ("out pkt/s", 10),
                ("out bit/s", 10),
                ("in pkt/s", 10),
                ("in bit/s", 10),
                ("out bytes", 10),
                ("in bytes", 10),
            ],
            Self::Links => &[
                ("Link", 18),
                ("out pkt/s", 10),
                ("out bit/s", 10),
                ("lost/s", 7),
                ("full/s", 7),
                ("down/s", 7),
                ("waiting", 8),
                ("late p50", 8),
                ("late p99", 8),
            ],
            Self::Drops => &[
                ("Reason", 20),
                ("NIC", 12),
                ("pkt/s", 10),
                ("bit/s", 10),
                ("packets", 10),
                ("bytes", 10),
            ],
            Self::Flows => &[
                ("NIC", 12),
                ("Flow", 43),
                ("sent pkt/s", 10),
                ("sent bit/s", 10),
                ("packets", 10),
                ("idle", 6),
            ],
        }
    }

    /// What is sorted by at first: what moves most comes first.
    pub(crate) const fn sorted_by(self) -> usize {
        match self {
            Self::Vms => 3,
            Self::Peerings | Self::Links | Self::Drops => 2,
            Self::Flows => 3,
        }
    }
}

impl Cell {
    /// Numbers before text, which is never mixed in one column.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(own), Self::Text(other)) => own.cmp(other),
            (Self::Number(own, _), Self::Number(other, _)) => own.total_cmp(other),
            (Self::Number(..), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(..)) => Ordering::Greater,
        }
    }

    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number, Unit::Seconds) => format!("{number:.0} s"),
            Self::Number(number, Unit::Microseconds) => format!("{number:.0} us"),
            Self::Number(number, Unit::Count) => format!("{number:.0}"),
            Self::Number(number, Unit::PerSecond) => scaled(*number, ""),
            Self::Number(number, Unit::BitsPerSecond) => scaled(*number, "b"),
            Self::Number(number, Unit::Bytes) => scaled(*number, "B"),
        }
    }
}

/// The rows of a view between two samples `seconds` apart; `flows` are those of the same moments.
pub(crate) fn rows(
    view: View,
    (before, now): (&Overview, &Overview),
    (flows_before, flows): (&[Flow], &[Flow]),
    seconds: f64,
) -> Vec<Vec<Cell>> {
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds.max(f64::EPSILON);
    let packets = |before, now| Cell::Number(rate(before, now), Unit::PerSecond);
    let bits = |before, now| Cell::Number(rate(before, now) * 8.0, Unit::BitsPerSecond);
    let text = |text: &str| Cell::Text(text.to_owned());
    match view {
        View::Vms => {
            let earlier: HashMap<&str, PortCounters> = before
                .ports
                .iter()
                .filter_map(|port| Some((port.name.as_str(), port.counters?)))
                .collect();
            let counted = now.ports.iter().filter_map(|port| Some((port, port.counters?)));
            let row = |(port, now_counts): (&daemon::api::PortState, PortCounters)| {
                let then = earlier.get(port.name.as_str()).copied().unwrap_or(now_counts);
                let lost = |overview: &Overview| {
                    let drops = overview.drops.iter();
                    let own = drops.filter(|drop| drop.nic.as_deref() == Some(&port.name));
                    own.map(|drop| drop.packets).sum()
                };
                vec![
                    text(&port.namespace),
                    text(&port.name),
                    packets(then.received_packets, now_counts.received_packets),
                    bits(then.received_bytes, now_counts.received_bytes),
                    packets(then.sent_packets, now_counts.sent_packets),
                    bits(then.sent_bytes, now_counts.sent_bytes),
                    packets(lost(before), lost(now)),
                ]
            };
            counted.map(row).collect()
        }
        View::Peerings => {
            let row = |meter: &daemon::api::Meter| {
                let then = before.meter.iter().find(|then| then.peering == meter.peering);
                let then = then.unwrap_or(meter);
                vec![
                    text(&meter.peering),
                    packets(then.egress_packets, meter.egress_packets),
                    bits(then.egress_bytes, meter.egress_bytes),
                    packets(then.ingress_packets, meter.ingress_packets),
                    bits(then.ingress_bytes, meter.ingress_bytes),
                    Cell::Number(meter.egress_bytes as f64, Unit::Bytes),
                    Cell::Number(meter.ingress_bytes as f64, Unit::Bytes),
                ]
            };
            now.meter.iter().map(row).collect()
        }
        View::Links => {
            let late = |ns: Option<u64>| Cell::Number(ns.unwrap_or(0) as f64 / 1000.0, Unit::Microseconds);
            let row = |link: &daemon::api::LinkCounters| {
                let mut earlier = before.links.iter();
                let then = earlier.find(|then| (&then.link, then.back) == (&link.link, link.back));
                // What has carried nothing before is not among those before.
                let then = then.cloned().unwrap_or_default();
                vec![
                    Cell::Text(match link.back {
                        true => format!("{} (back)", link.link),
                        false => link.link.clone(),
                    }),
                    packets(then.packets, link.packets),
                    bits(then.bytes, link.bytes),
                    packets(then.lost, link.lost),
                    packets(then.queue_full, link.queue_full),
                    packets(then.refused, link.refused),
                    Cell::Number(link.waiting_packets as f64, Unit::Count),
                    late(link.late.as_ref().map(|late| late.p50_ns)),
                    late(link.late.as_ref().map(|late| late.p99_ns)),
                ]
            };
            now.links.iter().map(row).collect()
        }
        View::Drops => {
            let row = |drop: &daemon::api::Drop| {
                let mut earlier = before.drops.iter();
                // What is lost for the first time was zero before.
                let then = earlier
                    .find(|then| (&then.reason, &then.nic) == (&drop.reason, &drop.nic))
                    .map_or((0, 0), |then| (then.packets, then.bytes));
                vec![
                    text(&drop.reason),
                    text(drop.nic.as_deref().unwrap_or("-")),
                    packets(then.0, drop.packets),
                    bits(then.1, drop.bytes),
                    Cell::Number(drop.packets as f64, Unit::Count),
                    Cell::Number(drop.bytes as f64, Unit::Bytes),
                ]
            };
            now.drops.iter().map(row).collect()
        }
        View::Flows => {
            let key = |flow: &Flow| (flow.nic.clone(), named(flow));
            let earlier: HashMap<_, _> = flows_before.iter().map(|flow| (key(flow), flow)).collect();
            let row = |flow: &Flow| {
                let then = earlier.get(&key(flow)).copied().unwrap_or(flow);
                vec![
                    text(&flow.nic),
                    Cell::Text(named(flow)),
                    packets(then.packets, flow.packets),
                    bits(then.bytes, flow.bytes),
                    Cell::Number(flow.packets as f64, Unit::Count),
                    Cell::Number((flow.idle_ms / 1000) as f64, Unit::Seconds),
                ]
            };
            flows.iter().map(row).collect()
        }
    }
}

/// A flow in one word.
fn named(flow: &Flow) -> String {
    let end = |address, port| match port {
        0 => std::net::IpAddr::to_string(&address),
        port => SocketAddr::new(address, port).to_string(),
    };
    format!(
        "{} {} {} {}",
        flow.protocol,
        end(flow.source, flow.source_port),
        if flow.direction == "Inbound" { "<-" } else { "->" },
        end(flow.destination, flow.destination_port)
    )
}

/// Three digits and a prefix.
pub(crate) fn scaled(number: f64, unit: &str) -> String {
    const PREFIXES: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut number, mut prefix) = (number, 0);
    while number >= 999.5 && prefix + 1 < PREFIXES.len() {
        number /= 1000.0;
        prefix += 1;
    }
    let decimals = match number {
        _ if prefix == 0 => 0,
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    let gap = if unit.is_empty() && prefix == 0 { "" } else { " " };
    format!("{number:.decimals$}{gap}{}{unit}", PREFIXES[prefix])
}
