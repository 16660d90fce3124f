//! Flow logs (NSG-40..42): what the engine saw of flows under logged NSGs becomes files in Azure's form, once a minute.

mod file;
mod tuple;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::Generation;
use control::present::resource_id;
use engine::flow_log::{FlowChange, FlowEvent};
use jiff::Timestamp;
use model::topology::{FlowLog, FlowLogVersion};
use packet::key::unmapped;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::running::Lab;
use crate::worker::monotonic_ns;
use file::{Batch, Target};
use tuple::{LoggedProtocol, State, Tuple, Version};

/// How often the workers' events are fetched, before they have too many to keep.
const FETCH: Duration = Duration::from_secs(1);
/// NSG-42.
const WRITE: Duration = Duration::from_secs(60);
/// Lines kept for one minute, about 100 bytes each; of the rest only the number.
const LINES: usize = 1 << 20;

/// The flow logs of a lab: lines that wait for their minute to end.
#[derive(Debug)]
pub(crate) struct FlowLogs {
    places: Places,
    /// By flow log and NIC.
    waiting: BTreeMap<(String, String), Waiting>,
    lines: usize,
    lost: u64,
}

/// Where files go.
#[derive(Clone, Debug)]
struct Places {
    /// Of logs without a `storage`.
    own: PathBuf,
    /// What a `storage` is relative to.
    lab: PathBuf,
}

#[derive(Debug)]
struct Waiting {
    log: FlowLog,
    resource_id: String,
    mac: String,
    batch: Batch,
}

/// Lines are written when it is over.
#[derive(Debug)]
struct Minute {
    ends: Instant,
}

impl Minute {
    fn from(now: Instant) -> Self {
        Self { ends: now + WRITE }
    }

    /// The next one begins when it is.
    fn is_over(&mut self, now: Instant) -> bool {
        let over = now >= self.ends;
        if over {
            *self = Self::from(now);
        }
        over
    }
}

impl FlowLogs {
    pub(crate) fn new(run_dir: &Path, lab_file: &str) -> Self {
        Self {
            places: Places {
                own: run_dir.join("flow-logs"),
                lab: beside(lab_file),
            },
            waiting: BTreeMap::new(),
            lines: 0,
            lost: 0,
        }
    }

    /// Writes what happens, for as long as the lab runs. Between writes nothing is on disk of what was fetched.
    pub(crate) async fn follow(mut self, lab: Arc<Lab>, mut stop: tokio::sync::oneshot::Receiver<()>) {
        let mut fetch = interval(FETCH);
        fetch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut minute = Minute::from(Instant::now());
        loop {
            let stopped = tokio::select! {
                _ = fetch.tick() => false,
                _ = &mut stop => true,
            };
            let current = lab.current();
            if !current.generation.topology.flow_logs.is_empty() {
                for (events, lost) in lab.workers.flow_events().await {
                    self.lost += lost;
                    self.add(&current.generation, &events, monotonic_ns(), Timestamp::now());
                }
            }
            if minute.is_over(Instant::now()) || stopped {
                if self.lost > 0 {
                    tracing::warn!("flow log: {} events were too many to keep", self.lost);
                }
                // `apply` may have named another file since.
                self.places.lab = beside(&current.file);
                let (places, waiting) = (self.places.clone(), std::mem::take(&mut self.waiting));
                (self.lines, self.lost) = (0, 0);
                // Nothing else of the control side waits for the disk.
                let written = tokio::task::spawn_blocking(move || places.write(waiting, Timestamp::now()));
                if let Err(error) = written.await {
                    tracing::error!("flow log: {error}");
                }
            }
            if stopped {
                return;
            }
        }
    }

    /// Sorts events into the batches of their logs. `now_ns` and `now` are the same moment.
    fn add(&mut self, generation: &Generation, events: &[FlowEvent], now_ns: u64, now: Timestamp) {
        let topology = &generation.topology;
        for event in events {
            let Some((nsg, rule)) = generation.log_rule(event.rule) else {
                continue;
            };
            // A log that was taken away meanwhile wants no more lines.
            let of_nsg = |log: &&FlowLog| topology.nsgs[log.nsg.0].name.eq_ignore_ascii_case(nsg);
            let (Some(log), Some(nic)) = (
                topology.flow_logs.iter().find(of_nsg),
                generation.nic_name(event.nic),
            ) else {
                continue;
            };
            let seconds = i64::try_from(now_ns.saturating_sub(event.now_ns) / 1_000_000_000).unwrap_or(0);
            let Some(line) = line(event, now.as_second() - seconds, version(log)) else {
                continue;
            };
            if self.lines == LINES {
                self.lost += 1;
                continue;
            }
            self.lines += 1;
            let key = (log.name.clone(), nic.to_owned());
            let waiting = self.waiting.entry(key).or_insert_with(|| {
                let subscription = generation.nic_index(event.nic).map_or("", |nic| {
                    let subnet = topology.nics[nic.0].subnet;
                    &topology.vnets[topology.subnets[subnet.0].vnet.0].subscription
                });
                Waiting {
                    log: log.clone(),
                    resource_id: resource_id(topology, subscription, &format!("networkSecurityGroups/{nsg}")),
                    mac: format!("02{:010X}", event.nic.0),
                    batch: Batch::default(),
                }
            });
            let lines = waiting.batch.lines.entry(rule.to_owned()).or_default();
            lines.push(line);
        }
    }
}

/// The directory of a lab file.
fn beside(lab_file: &str) -> PathBuf {
    Path::new(lab_file)
        .parent()
        .unwrap_or(Path::new(""))
        .to_path_buf()
}

impl Places {
    /// Writes what waits; what cannot be written is lost, and said so.
    fn write(&self, waiting: BTreeMap<(String, String), Waiting>, now: Timestamp) {
        for waiting in waiting.into_values() {
            let storage = match &waiting.log.storage {
                Some(directory) => self.lab.join(directory),
                None => self.own.clone(),
            };
            let target = Target {
                storage: &storage,
                resource_id: &waiting.resource_id,
                mac: &waiting.mac,
                version: version(&waiting.log),
            };
            let name = &waiting.log.name;
            if let Err(error) = file::append(&target, &waiting.batch, now) {
                tracing::error!("flow log {name}: cannot write to {}: {error}", storage.display());
            }
            if let Some(days) = waiting.log.retention_days
                && let Err(error) = file::expire(&target, days, now)
            {
                tracing::warn!("flow log {name}: cannot remove old files: {error}");
            }
        }
    }
}

fn version(log: &FlowLog) -> Version {
    match log.version {
        FlowLogVersion::One => Version::One,
        FlowLogVersion::Two => Version::Two,
    }
}

fn line(event: &FlowEvent, epoch_seconds: i64, version: Version) -> Option<String> {
    let tuple = Tuple {
        epoch_seconds,
        source: unmapped(event.key.source),
        destination: unmapped(event.key.destination),
        source_port: event.key.source_port,
        destination_port: event.key.destination_port,
        protocol: LoggedProtocol::of(event.key.protocol)?,
        inbound: event.inbound,
        allowed: event.change != FlowChange::Denied,
        state: match event.change {
            FlowChange::Denied | FlowChange::Began => State::Begin,
            FlowChange::Continues(since) => State::Continue(since),
            FlowChange::Ended(since) => State::End(since),
        },
    };
    tuple.line(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows: NSG-42.
    #[test]
    fn batches_are_of_a_minute() {
        let start = Instant::now();
        let mut minute = Minute::from(start);
        let over: Vec<u64> = (0..200)
            .filter(|&seconds| minute.is_over(start + Duration::from_secs(seconds)))
            .collect();
        assert_eq!(over, [60, 120, 180]);
    }
}
