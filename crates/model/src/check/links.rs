//! Links: whom they concern, and values that no link can have.

use std::borrow::Cow;
use std::collections::HashMap;

use indexmap::IndexMap;

use crate::change::Refusal;
use crate::check::Scope;
use crate::config::{self, Config, JitterDistribution as Shape, Share, Time};
use crate::keys::{position, same};
use crate::problems::{Problems, join};
use crate::topology::{
    Aqm, ConnectionIndex, Jitter, JitterDistribution, LatencySource, Link, LinkOn, LinkQueue, LinkSettings,
    Loss, PeeringIndex, Topology,
};
use crate::words::{closest, shown};

/// From what every IPv4 host takes to the MTU of a VM (NET-03).
const MTU: std::ops::RangeInclusive<u16> = 576..=1500;
/// RFC 8289 4.3 and 4.4.
const CODEL_TARGET_NS: u64 = 5_000_000;
const CODEL_INTERVAL_NS: u64 = 100_000_000;
/// Samples of a table: more say nothing that jitter could show.
const MOST_SAMPLES: usize = 16_384;
/// With less latency than this many deviations a good part of the jitter would be before the packet is sent.
const DEVIATIONS_BELOW: u64 = 3;

/// Fills `topology.links`, and puts their latency into the peerings. One for a peering or connection that is not there is
/// left out: [`refer`] refuses it in a file; in a running lab it waits for one of its name.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let links = effective(scope.config);
    let targets = targets(&links, topology);
    for (key, given) in &*links {
        let at = join("links", key);
        if problems.unreadable(&at) {
            continue;
        }
        let settings = settings(given, &at, problems);
        let Some(&on) = targets.get(&key.to_lowercase()) else {
            continue;
        };
        if let (LinkOn::Peering(index), Some(latency_ns)) = (on, settings.latency_ns) {
            let peering = &mut topology.peerings[index.0];
            peering.latency_us = latency_ns / 1000;
            peering.latency_source = LatencySource::File;
        }
        topology.links.push(Link {
            name: spelled(topology, on),
            on,
            settings,
        });
        shallow(topology, on, given, &at, problems);
    }
    for (index, peering) in topology.peerings.iter().enumerate() {
        let regions = [peering.from, peering.to].map(|vnet| &topology.vnets[vnet.0].location);
        let said = match peering.latency_source {
            LatencySource::Estimate => format!("is estimated from their distance: {}us", peering.latency_us),
            LatencySource::Unknown => "is unknown and taken for none".to_owned(),
            _ => continue,
        };
        let [from, to] = regions;
        let name = spelled(topology, LinkOn::Peering(PeeringIndex(index)));
        let message = format!(
            "no latency is published between {from} and {to}; that of {name} {said}; say what it is in links"
        );
        problems.note("peerings", message);
    }
}

/// What is said of each link, by the file and since.
fn effective(config: &Config) -> Cow<'_, IndexMap<String, config::Link>> {
    if config.impairments.is_empty() {
        return Cow::Borrowed(&config.links);
    }
    let mut links = config.links.clone();
    for (name, said) in &config.impairments {
        let index = position(&links, name);
        match index.and_then(|index| links.get_index_mut(index)) {
            Some((_, link)) => *link = link.changed(said),
            None => drop(links.insert(name.clone(), said.clone())),
        }
    }
    Cow::Owned(links)
}

/// An error for each link of a file that concerns nothing.
pub(crate) fn refer(config: &Config, topology: &Topology, problems: &mut Problems) {
    let links = effective(config);
    let targets = targets(&links, topology);
    let known = |key: &&String| targets.contains_key(&key.to_lowercase());
    for key in links.keys().filter(|key| !known(key)) {
        unknown(topology, key, problems);
    }
}

/// # Errors
/// `InvalidResourceReference`: there is nothing the link could concern.
pub(crate) fn exists(topology: &Topology, key: &str) -> Result<(), Refusal> {
    if target(topology, key).is_some() {
        return Ok(());
    }
    let mut problems = Problems::default();
    unknown(topology, key, &mut problems);
    problems.into_refusal().map_or(Ok(()), Err)
}

/// What a key means: `vnet/peering`, or a connection's name.
fn target(topology: &Topology, key: &str) -> Option<LinkOn> {
    let Some((vnet, name)) = key.rsplit_once('/') else {
        let named = |it: &crate::topology::Connection| same(&it.name, key);
        let index = topology.connections.iter().position(named)?;
        return Some(LinkOn::Connection(ConnectionIndex(index)));
    };
    let named =
        |it: &crate::topology::Peering| same(&it.name, name) && same(&topology.vnets[it.from.0].name, vnet);
    let index = topology.peerings.iter().position(named)?;
    Some(LinkOn::Peering(PeeringIndex(index)))
}

/// What each key can mean, in lower case; empty where no link asks.
fn targets(links: &IndexMap<String, config::Link>, topology: &Topology) -> HashMap<String, LinkOn> {
    if links.is_empty() {
        return HashMap::new();
    }
    let all = all(topology).map(|on| (spelled(topology, on).to_lowercase(), on));
    all.collect()
}

fn all(topology: &Topology) -> impl Iterator<Item = LinkOn> {
    let peerings = (0..topology.peerings.len()).map(|it| LinkOn::Peering(PeeringIndex(it)));
    let connections = (0..topology.connections.len()).map(|it| LinkOn::Connection(ConnectionIndex(it)));
    peerings.chain(connections)
}

fn spelled(topology: &Topology, on: LinkOn) -> String {
    match on {
        LinkOn::Peering(index) => {
            let peering = &topology.peerings[index.0];
            format!("{}/{}", topology.vnets[peering.from.0].name, peering.name)
        }
        LinkOn::Connection(index) => topology.connections[index.0].name.clone(),
    }
}

fn unknown(topology: &Topology, key: &str, problems: &mut Problems) {
    let known: Vec<String> = all(topology).map(|on| spelled(topology, on)).collect();
    let what = if key.contains('/') {
        "peering"
    } else {
        "connection"
    };
    let message = format!("there is no {what} '{}'", shown(key));
    let problem = problems
        .error("InvalidResourceReference", join("links", key), message)
        .on_key();
    match closest(key, known.iter().map(String::as_str)) {
        Some(near) => problem.help(format!("did you mean '{near}'?")),
        None => problem.help("name a peering as VNET/PEERING (one direction), or a connection (both)"),
    };
}

fn settings(given: &config::Link, at: &str, problems: &mut Problems) -> LinkSettings {
    let share = |share: Option<Share>| share.unwrap_or_default().as_f64();
    if let Some(mtu) = given.mtu.filter(|mtu| !MTU.contains(mtu)) {
        let message = format!("{mtu} is not from 576 to 1500");
        problems
            .error("Sim.Value", join(at, "mtu"), message)
            .help("a VM sends packets of at most 1500 bytes");
    }
    let queue = given.queue.map(|queue| match queue {
        config::Queue::Time(time) => LinkQueue::TimeNs(time.0),
        config::Queue::Size(size) => LinkQueue::Bytes(size.0),
    });
    if given.rate.is_none() {
        if let Some(LinkQueue::TimeNs(_)) = queue {
            problems
                .error(
                    "Sim.Value",
                    join(at, "queue"),
                    "without a rate nothing waits for a time",
                )
                .help("add 'rate', or bound what is under way in bytes");
        }
        if given.aqm.is_some() {
            problems
                .error(
                    "Sim.Value",
                    join(at, "aqm"),
                    "without a rate there is no queue to manage",
                )
                .help("add 'rate', or remove 'aqm'");
        }
    }
    LinkSettings {
        latency_ns: given.latency.map(|time| time.0),
        jitter: given
            .jitter
            .as_ref()
            .and_then(|given| jitter(given, &join(at, "jitter"), problems)),
        loss: loss(given.loss.as_ref()),
        rate_bps: given.rate.map(|rate| rate.0),
        queue,
        aqm: given
            .aqm
            .as_ref()
            .and_then(|given| aqm(given, &join(at, "aqm"), problems)),
        duplicate: share(given.duplicate),
        reorder: share(given.reorder),
        corrupt: share(given.corrupt),
        mtu: given.mtu,
        down: given.down == Some(true),
    }
}

fn jitter(given: &config::Jitter, at: &str, problems: &mut Problems) -> Option<Jitter> {
    let mut wrong = |property: &str, message: &str, help: &str| {
        problems
            .error("Sim.Value", join(at, property), message)
            .help(help);
    };
    let correlation = given.correlation.unwrap_or_default();
    if correlation == Share::WHOLE {
        let message = "with a correlation of 100% every packet would have the delay of the first";
        wrong("correlation", message, "give less than 100%");
    }
    let shape = given.distribution.unwrap_or_default();
    if shape != Shape::Table && !given.table.is_empty() {
        let help = "add 'distribution: table', or remove 'table'";
        wrong("table", "only the distribution 'table' has samples", help);
    }
    let distribution = match shape {
        Shape::Normal => JitterDistribution::Normal,
        Shape::Uniform => JitterDistribution::Uniform,
        Shape::Pareto => JitterDistribution::Pareto,
        Shape::Table => {
            let mut samples: Vec<f64> = given.table.iter().map(|number| number.0).collect();
            samples.sort_by(f64::total_cmp);
            let spread = samples.last().zip(samples.first());
            if samples.len() > MOST_SAMPLES || spread.is_none_or(|(last, first)| !(last - first).is_normal())
            {
                let message = format!("a table has 2 to {MOST_SAMPLES} samples that are not all the same");
                wrong("table", &message, "give samples of the delay, in any unit");
                return None;
            }
            JitterDistribution::Table(samples)
        }
    };
    (given.deviation.0 > 0).then_some(Jitter {
        deviation_ns: given.deviation.0,
        distribution,
        correlation: correlation.as_f64(),
    })
}

fn loss(given: Option<&config::Loss>) -> Loss {
    match given {
        None => Loss::None,
        Some(config::Loss::Each(share)) if share.0 == 0 => Loss::None,
        Some(config::Loss::Each(share)) => Loss::Each(share.as_f64()),
        Some(config::Loss::Bursts(bursts)) => Loss::Bursts {
            enter_bad: bursts.enter_bad.as_f64(),
            leave_bad: bursts.leave_bad.as_f64(),
            loss_bad: bursts.loss_bad.unwrap_or(Share::WHOLE).as_f64(),
            loss_good: bursts.loss_good.unwrap_or_default().as_f64(),
        },
    }
}

fn aqm(given: &config::Aqm, at: &str, problems: &mut Problems) -> Option<Aqm> {
    let or = |time: Option<Time>, otherwise| time.map_or(otherwise, |time| time.0);
    let target_ns = or(given.target, CODEL_TARGET_NS);
    let interval_ns = or(given.interval, CODEL_INTERVAL_NS);
    if interval_ns == 0 || target_ns > interval_ns {
        let message = "the interval is no time, or shorter than the target";
        problems
            .error("Sim.Value", join(at, "interval"), message)
            .help("RFC 8289 has a target of 5ms and an interval of 100ms");
        return None;
    }
    Some(Aqm {
        target_ns,
        interval_ns,
        ecn: given.ecn == Some(true),
    })
}

/// Nothing arrives before it is sent, so a small latency cuts the jitter's lower end off.
fn shallow(topology: &Topology, on: LinkOn, given: &config::Link, at: &str, problems: &mut Problems) {
    let own = given.latency.map(|time| time.0);
    let latency_ns = match on {
        LinkOn::Peering(index) => own.unwrap_or(topology.peerings[index.0].latency_us * 1000),
        LinkOn::Connection(_) => own.unwrap_or_default(),
    };
    if let Some(jitter) = &given.jitter
        && latency_ns < DEVIATIONS_BELOW.saturating_mul(jitter.deviation.0)
    {
        let message = format!(
            "the latency {} is less than three deviations of {}: delays below zero become zero",
            Time(latency_ns),
            jitter.deviation
        );
        problems.note(join(at, "jitter"), message);
    }
}
