//! `/metrics`: what is counted, in the text format of Prometheus. Names of the lab are labels, addresses never.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{DelayError, DropReason};
use model::topology::PeeringState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::api::{Drop, Meter};
use crate::running::Lab;

/// As [`page`] writes it.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Upper ends of the buckets of delay errors, in nanoseconds: what a sleeping thread, a busy machine and a stuck one are late by.
const DELAY_ERROR_NS: [u64; 9] = [
    5_000,
    20_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    10_000_000,
    100_000_000,
];
const PEERING_STATES: [&str; 3] = ["Initiated", "Connected", "Disconnected"];

/// One look at everything.
#[derive(Debug)]
struct Page {
    lab: String,
    nics: Vec<(String, [u64; 4])>,
    drops: Vec<Drop>,
    meters: Vec<Meter>,
    states: Vec<(String, &'static str)>,
    busy: Vec<Duration>,
    flows: u64,
    flow_capacity: u64,
    /// By link, and of what crossed none (an empty name).
    delay_errors: Vec<(String, bool, DelayError)>,
    generation: u64,
    changes: [u64; 2],
    last_ok: bool,
    up_seconds: f64,
}

type Written = Result<(), fmt::Error>;

/// The page as it is at present, over HTTP.
pub(crate) async fn answer(lab: &Arc<Lab>) -> Response {
    match page(lab).await {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The page as it is at present.
///
/// # Errors
/// None that is known.
async fn page(lab: &Arc<Lab>) -> Result<String, fmt::Error> {
    let stats = lab.workers.stats().await;
    let busy = lab.workers.busy().await;
    let current = lab.current();
    let nics = current.nics().map(|(name, id)| {
        let mut sum = [0; 4];
        for one in stats.iter().filter_map(|stats| stats.nics.get(id)) {
            let counts = [one.tx_packets, one.tx_bytes, one.rx_packets, one.rx_bytes];
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        (name, sum)
    });
    let topology = &current.generation.topology;
    let states = topology.peerings.iter().map(|peering| {
        let state = match peering.state {
            PeeringState::Initiated => PEERING_STATES[0],
            PeeringState::Connected => PEERING_STATES[1],
            PeeringState::Disconnected => PEERING_STATES[2],
        };
        (
            format!("{}/{}", topology.vnets[peering.from.0].name, peering.name),
            state,
        )
    });
    let mut at_caps = DelayError::default();
    stats.iter().for_each(|stats| at_caps.add(&stats.cap_delay_error));
    let mut delay_errors = vec![(String::new(), false, at_caps)];
    delay_errors.extend(current.delay_errors(&stats));
    let (changes, last_ok) = lab.outcomes.counts();
    let page = Page {
        lab: lab.name.clone(),
        nics: nics.collect(),
        drops: lab.drops().await,
        meters: lab.meter().await,
        states: states.collect(),
        busy,
        flows: stats.iter().map(|stats| u64::from(stats.flows)).sum(),
        flow_capacity: stats.iter().map(|stats| u64::from(stats.flow_capacity)).sum(),
        delay_errors,
        generation: lab.published.current().generation,
        changes,
        last_ok,
        up_seconds: lab.started.elapsed().as_secs_f64(),
    };
    let mut registry = Registry::with_prefix("peerlane");
    registry.register_collector(Box::new(page));
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    Ok(of_prometheus(&text))
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Written {
        self.lab(&mut encoder)?;
        self.traffic(&mut encoder)?;
        self.peerings(&mut encoder)?;
        self.workers(&mut encoder)?;
        self.lateness(&mut encoder)
    }
}

impl Page {
    fn lab(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        let mut build = gauge(
            encoder,
            "build_info",
            "The program that forwards, and the lab's name",
        )?;
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("lab", self.lab.as_str())];
        build.encode_family(&labels)?.encode_gauge(&1_u64)?;
        gauge(
            encoder,
            "uptime_seconds",
            "Time since the daemon began to forward",
        )?
        .encode_gauge(&self.up_seconds)?;
        gauge(
            encoder,
            "generation",
            "The tables that forward; each change makes the next",
        )?
        .encode_gauge(&self.generation)?;
        let mut changes = counter(
            encoder,
            "changes",
            "Changes of the lab that were asked for, by outcome",
        )?;
        for (outcome, count) in ["success", "failure"].into_iter().zip(self.changes) {
            count_of(&mut changes, &[("outcome", outcome)], count)?;
        }
        gauge(
            encoder,
            "last_change_successful",
            "Whether the latest change was made",
        )?
        .encode_gauge(&u64::from(self.last_ok))
    }

    fn traffic(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        let about = [
            (
                "nic_transmitted_packets",
                "Wire packets from a NIC that the fabric forwarded",
            ),
            (
                "nic_transmitted_bytes",
                "IP bytes from a NIC that the fabric forwarded",
            ),
            (
                "nic_received_packets",
                "Wire packets that the fabric handed to a NIC",
            ),
            ("nic_received_bytes", "IP bytes that the fabric handed to a NIC"),
        ];
        for (which, (name, help)) in about.into_iter().enumerate() {
            let mut metric = counter(encoder, name, help)?;
            for (nic, counts) in &self.nics {
                count_of(&mut metric, &[("nic", nic)], counts[which])?;
            }
        }
        let lost = |drop: &Drop| [drop.packets, drop.bytes];
        let about = [
            (
                "dropped_packets",
                "Wire packets lost, by reason and NIC; without a NIC where none is known",
            ),
            (
                "dropped_bytes",
                "IP bytes lost, by reason and NIC; without a NIC where none is known",
            ),
        ];
        for (which, (name, help)) in about.into_iter().enumerate() {
            let mut metric = counter(encoder, name, help)?;
            for reason in DropReason::ALL {
                let reason = reason.name();
                let known = self
                    .drops
                    .iter()
                    .any(|it| it.reason == reason && it.nic.is_none());
                if !known {
                    count_of(&mut metric, &[("reason", reason), ("nic", "")], 0)?;
                }
            }
            for drop in &self.drops {
                let nic = drop.nic.as_deref().unwrap_or_default();
                count_of(
                    &mut metric,
                    &[("reason", &drop.reason), ("nic", nic)],
                    lost(drop)[which],
                )?;
            }
        }
        Ok(())
    }

    fn peerings(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        let mut states = gauge(encoder, "peering_state", "1 for the state that a peering is in")?;
        for (peering, state) in &self.states {
            for each in PEERING_STATES {
                let labels = [("peering", peering.as_str()), ("state", each)];
                states
                    .encode_family(&labels)?
                    .encode_gauge(&u64::from(each == *state))?;
            }
        }
        let of = |meter: &Meter| {
            [
                meter.egress_packets,
                meter.egress_bytes,
                meter.ingress_packets,
                meter.ingress_bytes,
            ]
        };
        let about = [
            (
                "peering_egress_packets",
                "Wire packets that the peering's own VNet sent over it",
            ),
            (
                "peering_egress_bytes",
                "IP bytes that the peering's own VNet sent over it",
            ),
            (
                "peering_ingress_packets",
                "Wire packets that the peering's own VNet received over it",
            ),
            (
                "peering_ingress_bytes",
                "IP bytes that the peering's own VNet received over it",
            ),
        ];
        for (which, (name, help)) in about.into_iter().enumerate() {
            let mut metric = counter(encoder, name, help)?;
            for meter in &self.meters {
                count_of(
                    &mut metric,
                    &[("peering", meter.peering.as_str())],
                    of(meter)[which],
                )?;
            }
        }
        Ok(())
    }

    fn workers(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        gauge(encoder, "flows", "Entries of the flow tables in use")?.encode_gauge(&self.flows)?;
        gauge(encoder, "flow_capacity", "Entries that the flow tables can have")?
            .encode_gauge(&self.flow_capacity)?;
        let mut busy = counter(
            encoder,
            "worker_busy_seconds",
            "Time that a worker has had of a core",
        )?;
        for (worker, time) in self.busy.iter().enumerate() {
            let labels = [("worker", worker.to_string())];
            let mut metric = busy.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&time.as_secs_f64(), None)?;
        }
        Ok(())
    }

    fn lateness(&self, encoder: &mut DescriptorEncoder<'_>) -> Written {
        let about = "How late packets that were under way were handed over, by the link that they came out of last; \
                     without a link those that waited at the cap of their VM alone";
        let mut late =
            encoder.encode_descriptor("link_delay_error_seconds", about, None, MetricType::Histogram)?;
        for (link, back, error) in &self.delay_errors {
            let mut before = 0;
            let mut buckets: Vec<(f64, u64)> = Vec::new();
            for end_ns in DELAY_ERROR_NS {
                let until = error.at_most(end_ns);
                buckets.push((end_ns as f64 / 1e9, until - before));
                before = until;
            }
            buckets.push((f64::MAX, error.count() - before));
            let labels = [
                ("link", link.as_str()),
                ("back", if *back { "true" } else { "false" }),
            ];
            let sum = error.sum_ns() as f64 / 1e9;
            late.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                sum,
                error.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

fn gauge<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

/// Its samples get `_total`.
fn counter<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

fn count_of<const N: usize>(
    metric: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    count: u64,
) -> Written {
    metric
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, _, u64>(&count, None)
}

/// OpenMetrics as Prometheus wrote text before it: there a counter is described by the name of its samples.
fn of_prometheus(text: &str) -> String {
    let described = |line: &str| -> Option<String> {
        let mut words = line.strip_prefix("# TYPE ")?.split(' ');
        let name = words.next()?;
        (words.next()? == "counter").then(|| name.to_owned())
    };
    let counters: HashSet<String> = text.lines().filter_map(described).collect();
    let mut page = String::with_capacity(text.len());
    for line in text.lines() {
        let mut parts = line.splitn(4, ' ');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("#"), Some(word @ ("HELP" | "TYPE")), Some(name), Some(rest))
                if counters.contains(name) =>
            {
                page += &format!("# {word} {name}_total {rest}");
            }
            _ => page += line,
        }
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::of_prometheus;

    #[test]
    fn counters_are_described_as_they_are_sampled() {
        let text = "# HELP a_bytes Some.\n# TYPE a_bytes counter\na_bytes_total 1\n# HELP b Others.\n# TYPE b gauge\nb 2\n";
        let page = of_prometheus(text);
        let wanted = "# HELP a_bytes_total Some.\n# TYPE a_bytes_total counter\na_bytes_total 1\n# HELP b Others.\n# TYPE b gauge\nb 2\n";
        assert_eq!(page, wanted);
    }
}
