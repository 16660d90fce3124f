//! `peerlane replay`: a lab's engine and links on a clock of its own, fed with recorded or made packets. Nothing of it
//! runs anywhere: no namespace, no TUN, no privilege. The same lab, seed and packets give the same output, byte for byte.
//!
//! What was recorded is sent again at its times, replies too: nobody in the lab answers. The file's `events:` happen on the
//! same clock, which begins with the first packet. Backends of load balancers are up, and BGP has said what it should.

pub mod input;
mod recorder;
mod result;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;

use control::Generation;
use control::compile::PortOwner;
use engine::snapshot::{NicId, PortId};
use engine::{Verdict, Worker, WorkerOptions};
use lab::LabSpec;
use model::config::Event;
use model::topology::{NicIndex, Topology};
use model::{Config, Loaded};
use packet::{Burst, VnetHeader};

use crate::api::{Drop, EventResult, EventState};
use crate::ports::Ports;
use crate::running::Current;
pub use input::{InputError, Sent, Stream};
use recorder::Recorder;
pub use result::{LinkCount, NicCount, Replayed, Skipped};
use result::{link_counts, pending};

/// Packets that arrive together, at most; any number would do.
const BURST: usize = 64;

/// Why a replay has no result.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("input: {0}")]
    Input(#[from] InputError),
    #[error("the lab has no VM {0}")]
    NoVm(String),
    #[error("the lab cannot be replayed: {0}")]
    Lab(String),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// How to replay.
#[derive(Clone, Debug, Default)]
pub struct ReplayOptions {
    /// Instead of the file's.
    pub seed: Option<u64>,
    /// The VM that sends what has a source address of nobody, or of several.
    pub vm: Option<String>,
}

/// Sends `packets` into a lab, one after the other at their times, and writes a pcapng of all that happens.
///
/// # Errors
/// The input cannot be read to its end, the output cannot be written, or the VM of the options is none of the lab's.
pub fn replay(
    loaded: Loaded,
    options: &ReplayOptions,
    packets: impl Iterator<Item = Result<Sent, InputError>>,
    output: Option<&mut dyn Write>,
) -> Result<Replayed, ReplayError> {
    let mut packets = packets.peekable();
    let start_ns = match packets.peek() {
        Some(Ok(first)) => first.at_ns,
        _ => 0,
    };
    let mut replay = Replay::new(loaded, options, start_ns, output)?;
    for sent in packets {
        let Sent { at_ns, bytes } = sent?;
        // A file may not be quite in order; time is.
        replay.run_until(at_ns.saturating_sub(start_ns))?;
        replay.send(&bytes)?;
    }
    replay.run_to_the_end()?;
    replay.finish()
}

/// The names of a lab's links, as a capture calls them.
pub fn links(topology: &Topology) -> Vec<String> {
    let name = |it: &model::topology::Peering| format!("{}/{}", topology.vnets[it.from.0].name, it.name);
    topology.peerings.iter().map(name).collect()
}

struct Replay<'a> {
    current: Current,
    worker: Worker,
    now_ns: u64,
    burst: Burst,
    verdicts: Vec<Verdict>,
    /// Who sends from where.
    fallback: Option<NicIndex>,
    skipped: BTreeMap<&'static str, u64>,
    events: Vec<EventState>,
    sent: u64,
    seed: u64,
    recorder: Option<Recorder<'a>>,
}

impl<'a> Replay<'a> {
    fn new(
        loaded: Loaded,
        options: &ReplayOptions,
        start_ns: u64,
        output: Option<&'a mut dyn Write>,
    ) -> Result<Self, ReplayError> {
        let Loaded {
            mut topology,
            mut config,
            file,
            ..
        } = loaded;
        let seed = options.seed.or(config.seed).unwrap_or_default();
        config.seed = Some(seed);
        topology.seed = seed;
        let fallback = match &options.vm {
            None => None,
            Some(name) => {
                let vm = topology.vms.iter().find(|vm| vm.name.eq_ignore_ascii_case(name));
                let vm = vm.ok_or_else(|| ReplayError::NoVm(name.clone()))?;
                vm.nics.first().copied()
            }
        };
        let failed = |error: &dyn std::fmt::Display| ReplayError::Lab(error.to_string());
        let spec = LabSpec::of(&topology).map_err(|error| failed(&error))?;
        let compiled = control::compile(&topology, 1);
        let current = Current {
            file,
            text: None,
            config: Arc::new(config),
            spec,
            generation: Generation::first(Arc::new(topology), compiled),
            ports: Ports::default(),
        };
        let mut worker = Worker::new(WorkerOptions::default(), seed);
        worker.tell(output.is_some());
        let recorder = output
            .map(|output| Recorder::new(&current, start_ns, output))
            .transpose()?;
        Ok(Self {
            current,
            worker,
            now_ns: 0,
            burst: Burst::new(BURST),
            verdicts: Vec::new(),
            fallback,
            skipped: BTreeMap::new(),
            events: Vec::new(),
            sent: 0,
            seed,
            recorder,
        })
    }

    /// Lets happen what happens by a moment: events, then arrivals, in order of time.
    fn run_until(&mut self, moment_ns: u64) -> Result<(), ReplayError> {
        loop {
            let event = self.next_event().filter(|event| event.at.0 <= moment_ns);
            let arrival = self.worker.next_arrival_ns().filter(|at_ns| *at_ns <= moment_ns);
            match (event, arrival) {
                (Some(event), arrival) if arrival.is_none_or(|at_ns| event.at.0 <= at_ns) => {
                    self.now_ns = self.now_ns.max(event.at.0);
                    self.happen(&event);
                }
                (_, Some(at_ns)) => {
                    self.now_ns = self.now_ns.max(at_ns);
                    self.arrive()?;
                }
                _ => break,
            }
        }
        self.now_ns = self.now_ns.max(moment_ns);
        Ok(())
    }

    /// Until nothing is under way. Events of a later time do not happen.
    fn run_to_the_end(&mut self) -> Result<(), ReplayError> {
        while let Some(at_ns) = self.worker.next_arrival_ns() {
            self.run_until(at_ns)?;
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), ReplayError> {
        let port = match self.sender(bytes) {
            Ok(port) => port,
            Err(why) => {
                *self.skipped.entry(why).or_default() += 1;
                return Ok(());
            }
        };
        self.burst.clear();
        if !self.burst.push(bytes, VnetHeader::default()) {
            *self.skipped.entry("longer than a packet can be").or_default() += 1;
            return Ok(());
        }
        self.sent += 1;
        let Self { recorder, burst, .. } = self;
        if let Some(recorder) = recorder {
            recorder.taps.read(port, burst);
        }
        let snapshot = &self.current.generation.snapshot;
        self.worker
            .process(snapshot, self.now_ns, port, &mut self.burst, &mut self.verdicts);
        if let Some(recorder) = &mut self.recorder {
            let (packets, told) = (self.burst.filled(), self.worker.told());
            recorder
                .taps
                .decided(self.now_ns, port, packets, &self.verdicts, told);
            recorder.taps.written(self.now_ns, packets, &self.verdicts, &[]);
            recorder
                .taps
                .replied(self.now_ns, port, self.worker.replies_mut().filled());
            recorder.drain()?;
        }
        Ok(())
    }

    fn arrive(&mut self) -> Result<(), ReplayError> {
        let snapshot = &self.current.generation.snapshot;
        self.worker
            .arrive(snapshot, self.now_ns, &mut self.burst, &mut self.verdicts);
        if let Some(recorder) = &mut self.recorder {
            let (packets, told) = (self.burst.filled(), self.worker.told());
            recorder.taps.passed(self.now_ns, told);
            recorder.taps.written(self.now_ns, packets, &self.verdicts, &[]);
            recorder.drain()?;
        }
        self.worker.delivered(self.now_ns);
        Ok(())
    }

    /// The port of whoever has the source address.
    fn sender(&self, bytes: &[u8]) -> Result<PortId, &'static str> {
        let (source, destination) = ends(bytes).ok_or("no IP packet")?;
        let topology = &*self.current.generation.topology;
        let has = |nic: &&model::topology::Nic| nic.addresses.contains(&source);
        let owner = match topology.nic_at(source) {
            Some(nic) => Ok(self.owner_of(nic)),
            None if topology.nics.iter().any(|nic| has(&nic)) => {
                Err("its source is an address of several NICs")
            }
            None if topology.internet.iter().flatten().any(|own| *own == source) => Ok(PortOwner::Internet),
            None => {
                let connection = topology
                    .site_at(source)
                    .and_then(|site| topology.site_egress(site, destination));
                connection
                    .map(PortOwner::Connection)
                    .ok_or("its source is nobody's address")
            }
        };
        let owner = match (owner, self.fallback) {
            (Ok(owner), _) => owner,
            (Err(_), Some(nic)) => self.owner_of(nic),
            (Err(why), None) => return Err(why),
        };
        if let PortOwner::Vm { vm, .. } = owner
            && !topology.vms[vm.0].running
        {
            return Err("its VM is stopped");
        }
        let ports = &self.current.generation.provenance.ports;
        let position = ports.iter().position(|it| *it == owner);
        let position = position.ok_or("its sender has no port")?;
        Ok(self.current.generation.port_id(position))
    }

    fn owner_of(&self, nic: NicIndex) -> PortOwner {
        let topology = &self.current.generation.topology;
        match topology.nics[nic.0].vm {
            Some(vm) => PortOwner::Vm {
                vm,
                interface: topology.vms[vm.0]
                    .nics
                    .iter()
                    .position(|it| *it == nic)
                    .unwrap_or_default(),
                nic,
            },
            None => PortOwner::Vnet(topology.subnets[topology.nics[nic.0].subnet.0].vnet),
        }
    }

    fn next_event(&self) -> Option<Event> {
        let events = self.current.config.events.iter();
        events.min_by_key(|event| event.at.0).cloned()
    }

    /// As in a running lab: one change, made as a whole or not at all.
    fn happen(&mut self, event: &Event) {
        let present = &self.current.config;
        let done = model::change::event(present, event)
            .and_then(|operations| model::change::apply(present, &operations, None));
        let mut state = pending(event);
        let mut config: Config = (**present).clone();
        match done {
            Ok(changed) => {
                self.current.generation = crate::change::next(&self.current.generation, changed.topology);
                config = changed.config;
                state.state = EventResult::Done;
                state.generation = Some(self.current.generation.snapshot.generation);
            }
            Err(refusal) => {
                state.state = EventResult::Failed;
                state.message = Some(refusal.to_string());
            }
        }
        let past = config.events.iter().position(|it| it == event);
        past.map(|past| config.events.remove(past));
        self.current.config = Arc::new(config);
        self.events.push(state);
        if let Some(recorder) = &mut self.recorder {
            recorder.follow(&self.current);
        }
    }

    fn finish(mut self) -> Result<Replayed, ReplayError> {
        if let Some(recorder) = &mut self.recorder {
            recorder.finish(self.now_ns)?;
        }
        let generation = &self.current.generation;
        let stats = self.worker.stats();
        let nics = (0..).zip(&stats.nics).filter_map(|(id, count)| {
            let nic = generation.nic_name(NicId(id))?.to_owned();
            Some(NicCount {
                nic,
                sent_packets: count.tx_packets,
                sent_bytes: count.tx_bytes,
                received_packets: count.rx_packets,
                received_bytes: count.rx_bytes,
            })
        });
        let mut drops: Vec<Drop> = stats
            .drops
            .iter()
            .map(|count| Drop {
                reason: count.reason.name().to_owned(),
                nic: count
                    .nic
                    .and_then(|nic| generation.nic_name(nic).map(str::to_owned)),
                packets: count.packets,
                bytes: count.bytes,
            })
            .collect();
        drops.sort_by(|a, b| (&a.reason, &a.nic).cmp(&(&b.reason, &b.nic)));
        let mut events = self.events;
        let mut rest: Vec<&Event> = self.current.config.events.iter().collect();
        rest.sort_by_key(|event| event.at.0);
        events.extend(rest.into_iter().map(pending));
        let skipped = self.skipped.into_iter();
        Ok(Replayed {
            seed: self.seed,
            packets: self.sent,
            duration_ns: self.now_ns,
            skipped: skipped
                .map(|(why, packets)| Skipped {
                    why: why.to_owned(),
                    packets,
                })
                .collect(),
            nics: nics.collect(),
            links: link_counts(generation, &stats),
            drops,
            events,
        })
    }
}

/// Source and destination of an IP packet.
fn ends(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match bytes.first()? >> 4 {
        4 => {
            let [source, destination] = [12, 16].map(|at| bytes.get(at..at + 4)?.first_chunk::<4>().copied());
            Some((source?.into(), destination?.into()))
        }
        6 => {
            let [source, destination] =
                [8, 24].map(|at| bytes.get(at..at + 16)?.first_chunk::<16>().copied());
            Some((source?.into(), destination?.into()))
        }
        _ => None,
    }
}
