//! `apply` and single changes: a running lab becomes what a lab file or operations say, wholly or not at all, and loses
//! no packet of what stays.
//!
//! What is new is made first and nobody notices. Then one publish, and what is gone goes. Every step that can fail comes
//! before the publish and can be taken back.

use std::collections::HashMap;
use std::sync::Arc;

use control::plan;
use control::plan::{Declared, ObjectChange, Plan, Record};
use engine::snapshot::PortId;
use engine::stats::Flow;
use lab::LabSpec;
use model::change::{Changed, Edit, Operation, Refusal};
use model::config::Time;
use model::topology::PortNamespace;
use model::{Config, Topology};
use port::Queue;

use crate::api::LabFile;
use crate::attach::Attached;
use crate::change::ChangeError;
use crate::machines::{Difference, Made};
use crate::running::{Current, Lab, in_user_namespace};
use crate::up::UpError;
use crate::worker::PortChanges;
use crate::{declared, labs};

/// Where an interface is: its namespace in lower case, and its name.
type Whereabouts = (String, String);

/// A change that was checked and can begin.
#[derive(Debug)]
struct Wanted {
    next: Current,
    difference: Difference,
}

impl Lab {
    /// What `apply` of this file would do. `flows` are the records of the workers. Not for asynchronous code.
    ///
    /// # Errors
    /// The file is refused, or needs what a running lab cannot do.
    pub(crate) fn plan(&self, file: &LabFile, flows: &[Flow]) -> Result<Plan, ChangeError> {
        let present = self.current();
        let wanted = want(&present, file, self.events.age())?;
        Ok(self.compare(&present, &wanted.next, flows))
    }

    /// Makes the lab what the file says. Returns what that changed. Not for asynchronous code.
    ///
    /// # Errors
    /// As [`Lab::plan`]; or something new could not be made. The lab is as it was.
    pub(crate) fn apply(&self, file: &LabFile, flows: &[Flow]) -> Result<Plan, ChangeError> {
        let done = self.become_file(file, flows);
        self.tell_of_plan(&done);
        done
    }

    /// What [`Lab::edit`] would do. Not for asynchronous code.
    ///
    /// # Errors
    /// As [`Lab::edit`].
    pub(crate) fn plan_edit(&self, edits: &[Edit], flows: &[Flow]) -> Result<Plan, ChangeError> {
        let present = self.current();
        let wanted = edited(&present, edits)?;
        Ok(self.compare(&present, &wanted.next, flows))
    }

    /// Creates, updates and deletes objects, all or none. Returns what that changed. Not for asynchronous code.
    ///
    /// # Errors
    /// A rule forbids it, or something new could not be made. The lab is as it was.
    pub(crate) fn edit(&self, edits: &[Edit], flows: &[Flow]) -> Result<Plan, ChangeError> {
        let done = (|| {
            let mut hands = self.hands.lock();
            let attached = hands.as_mut().ok_or_else(|| self.hands.absent())?;
            let present = self.current();
            let wanted = edited(&present, edits)?;
            let plan = self.compare(&present, &wanted.next, flows);
            self.carry_out(attached, &present, wanted)?;
            Ok(plan)
        })();
        self.tell_of_plan(&done);
        done
    }

    fn become_file(&self, file: &LabFile, flows: &[Flow]) -> Result<Plan, ChangeError> {
        let mut hands = self.hands.lock();
        let attached = hands.as_mut().ok_or_else(|| self.hands.absent())?;
        let present = self.current();
        let wanted = want(&present, file, self.events.age())?;
        let plan = self.compare(&present, &wanted.next, flows);
        self.carry_out(attached, &present, wanted)?;
        Ok(plan)
    }

    /// Carries out the operations that `decide` makes of the lab's present state, all or none, in the name of `actor`
    /// (None: the lab's owner). Returns the generation that forwards from now on. Not for asynchronous code.
    ///
    /// # Errors
    /// A rule forbids it, or something new could not be made. The lab is as it was.
    pub(crate) fn change(
        &self,
        actor: Option<&str>,
        decide: impl FnOnce(&Config) -> Result<Vec<Operation>, Refusal>,
    ) -> Result<u64, ChangeError> {
        let mut carried = None;
        let done = (|| {
            let mut hands = self.hands.lock();
            let attached = hands.as_mut().ok_or_else(|| self.hands.absent())?;
            let present = self.current();
            let operations = decide(&present.config)?;
            let (_, operations) = carried.insert((Arc::clone(&present), operations));
            let changed = model::change::apply(&present.config, operations, actor)?;
            let wanted = become_changed(&present, changed)?;
            self.carry_out(attached, &present, wanted)
        })();
        // Where nothing was to be done, nothing failed.
        if let Some((present, operations)) = carried {
            let what = |it: &Operation| it.summary(&present.config);
            let all = |_: &u64| operations.iter().map(what).collect();
            self.outcomes.note(&done, |generation| *generation, all);
        }
        done
    }

    fn tell_of_plan(&self, done: &Result<Plan, ChangeError>) {
        let generation = |_: &Plan| self.published.current().generation;
        let object = |it: &ObjectChange| {
            let kind = it.kind.rsplit('/').next().unwrap_or_default();
            format!("{:?} {kind} {}", it.action, it.name)
        };
        self.outcomes
            .note(done, generation, |plan| plan.objects.iter().map(object).collect());
    }

    fn compare(&self, present: &Current, next: &Current, flows: &[Flow]) -> Plan {
        let name = |flow: &Flow| present.living_nic(flow.nic?);
        let records = flows.iter().filter_map(|flow| {
            Some(Record {
                nic: name(flow)?,
                inbound: flow.inbound,
                key: flow.key,
            })
        });
        let records: Vec<Record> = records.collect();
        plan(declared_by(present), declared_by(next), &records)
    }

    fn carry_out(
        &self,
        attached: &mut Attached,
        present: &Current,
        wanted: Wanted,
    ) -> Result<u64, ChangeError> {
        let Wanted { mut next, difference } = wanted;
        let mut made = Made::default();
        let [before, after] = difference.specs();
        // Should this process die on the way, the next daemon finds what belongs to either.
        let announced = match difference.is_empty() {
            true => Ok(()),
            false => attached.keeper.hold_lab(&[before, after]),
        };
        let ready = announced
            .map_err(UpError::from)
            .and_then(|()| difference.make(attached, &present.ports, &mut made))
            .and_then(|()| {
                next.ports = difference.ports(&present.ports, &made)?;
                let queues = made.queues(self.workers.count());
                let changes = port_changes(present, &next, &difference);
                self.workers
                    .ready_ports(of_ports(&next, queues))
                    .map_err(|error| UpError::failed(format!("a port cannot be served: {error}")))?;
                // From here on the next daemon begins with it.
                attached
                    .store
                    .commit(next.wanted(self.forwarding))
                    .inspect_err(|_| self.workers.close_ports(changes.opened.clone()))?;
                Ok(changes)
            });
        let changes = ready.inspect_err(|_| {
            difference.undo(attached, &present.ports, made);
            if let Err(error) = attached.keeper.hold_lab(&[before]) {
                tracing::error!("undo: {error}");
            }
        })?;
        if let Err(error) = labs::remember(&attached.run_dir, &next.file, next.generation.snapshot.generation)
        {
            // `list` shows the old name of the file.
            tracing::warn!("cannot write to the run directory: {error}");
        }
        let generation = self.publish(next);
        tracing::info!("generation {generation} forwards");
        match changes.is_idle() {
            true => {}
            false => match self.workers.change_ports(&changes) {
                // Closed here and not in a worker, which would wait for the kernel.
                Ok(closed) => drop(closed),
                Err(error) => tracing::error!("a port cannot be served: {error}"),
            },
        }
        difference.sweep(attached, &present.ports);
        if !difference.is_empty()
            && let Err(error) = attached.keeper.hold_lab(&[after])
        {
            tracing::error!("the keeper: {error}");
        }
        Ok(generation)
    }
}

fn declared_by(lab: &Current) -> Declared<'_> {
    Declared {
        config: &lab.config,
        topology: &lab.generation.topology,
    }
}

/// Everything that can be refused is refused here.
fn want(present: &Current, file: &LabFile, age: Time) -> Result<Wanted, ChangeError> {
    let loaded = declared::load(file)?;
    check_host(&present.generation.topology, &loaded.topology)?;
    let changed = model::change::converge(&present.config, &loaded.config)?;
    let (config, topology, text) = settle(loaded, changed, age);
    wanted(present, config, topology, (file.file.clone(), text))
}

fn edited(present: &Current, edits: &[Edit]) -> Result<Wanted, ChangeError> {
    let operations = edits
        .iter()
        .map(|edit| model::change::edit(&present.config, edit));
    let operations = operations.collect::<Result<Vec<_>, Refusal>>()?;
    become_changed(present, model::change::apply(&present.config, &operations, None)?)
}

/// What operations make of the lab; the file stays the one it was brought up or changed with, as a name.
fn become_changed(present: &Current, changed: Changed) -> Result<Wanted, ChangeError> {
    check_host(&present.generation.topology, &changed.topology)?;
    wanted(
        present,
        changed.config,
        changed.topology,
        (present.file.clone(), None),
    )
}

/// `file` is its name, and its text where it declares all.
fn wanted(
    present: &Current,
    config: Config,
    topology: Topology,
    (file, text): (String, Option<String>),
) -> Result<Wanted, ChangeError> {
    crate::bgp::check(&topology)?;
    let spec = LabSpec::of(&topology).map_err(UpError::from)?;
    let difference = Difference::between(&present.spec, &spec)?;
    if let Some(foreign) = difference.foreign().next().filter(|_| in_user_namespace()) {
        let name = &foreign.name;
        return Err(UpError::failed(format!(
            "vnets.{name}.tun.namespace is a namespace outside the lab"
        ))
        .with_remedy("bring the lab up as root, or leave `namespace` out")
        .into());
    }
    let generation = crate::change::next(&present.generation, topology);
    Ok(Wanted {
        next: Current {
            file,
            text: text.map(Arc::from),
            config: Arc::new(config),
            spec,
            generation,
            ports: present.ports.clone(),
        },
        difference,
    })
}

/// With the user's own file where a fresh start of it would give this very lab. Events of a time that is over at this `age`
/// of the lab will not happen.
fn settle(loaded: model::Loaded, mut changed: Changed, age: Time) -> (Config, Topology, Option<String>) {
    let over = loaded.config.events.iter().any(|event| event.at.0 <= age.0);
    if !over && circumstances(&loaded.topology) == circumstances(&changed.topology) {
        return (loaded.config, loaded.topology, Some(loaded.text));
    }
    changed.config.events.retain(|event| event.at.0 > age.0);
    (changed.config, changed.topology, None)
}

/// What a lab's past decides and a file need not say: states of peerings and addresses of NICs, by name.
fn circumstances(topology: &Topology) -> HashMap<String, String> {
    let peerings = topology.peerings.iter().map(|it| {
        let name = format!("peering {}/{}", topology.vnets[it.from.0].name, it.name);
        let mut space = it.remote_address_space.clone();
        space.sort();
        (name.to_lowercase(), format!("{:?} {space:?}", it.state))
    });
    let nics = topology.nics.iter().map(|nic| {
        (
            format!("nic {}", nic.name).to_lowercase(),
            format!("{:?}", nic.addresses),
        )
    });
    peerings.chain(nics).collect()
}

/// What the workers have to do to their ports.
fn port_changes(present: &Current, next: &Current, difference: &Difference) -> PortChanges {
    if difference.is_empty() && present.generation.same_ports(&next.generation) {
        return PortChanges::default();
    }
    let (before, after) = (port_ids(present), port_ids(next));
    let closed: Vec<PortId> = difference
        .closed()
        .into_iter()
        .filter_map(|(namespace, interface)| before.get(&(namespace.to_lowercase(), interface)).copied())
        .collect();
    // The same TUN, and another NIC behind it.
    let renamed: Vec<(PortId, PortId)> = before
        .iter()
        .filter_map(|(place, &from)| Some((from, *after.get(place)?)))
        .filter(|(from, to)| from != to && !closed.contains(from))
        .collect();
    let there = |place: &Whereabouts| before.get(place).is_some_and(|port| !closed.contains(port));
    PortChanges {
        opened: after
            .iter()
            .filter(|(place, _)| !there(place))
            .map(|(_, &port)| port)
            .collect(),
        renamed,
        closed,
    }
}

/// Queues by worker and port.
fn of_ports(next: &Current, queues: Vec<Vec<(Whereabouts, Queue)>>) -> Vec<Vec<(PortId, Queue)>> {
    if queues.iter().all(Vec::is_empty) {
        return queues.iter().map(|_| Vec::new()).collect();
    }
    let ids = port_ids(next);
    let of_worker = |queues: Vec<(Whereabouts, Queue)>| {
        let known = queues.into_iter().filter_map(|((namespace, interface), queue)| {
            Some((*ids.get(&(namespace.to_lowercase(), interface))?, queue))
        });
        known.collect()
    };
    queues.into_iter().map(of_worker).collect()
}

fn port_ids(lab: &Current) -> HashMap<Whereabouts, PortId> {
    let devices = lab.ports.devices.iter().enumerate();
    devices
        .map(|(position, device)| {
            let place = (device.namespace.to_lowercase(), device.interface.clone());
            (place, lab.generation.port_id(position))
        })
        .collect()
}

/// As `up` without `--allow-host`.
fn check_host(present: &Topology, wanted: &Topology) -> Result<(), ChangeError> {
    let host = |topology: &Topology| {
        let ports = topology.vnets.iter().filter_map(|vnet| vnet.tun.as_ref());
        ports.filter(|port| port.namespace == PortNamespace::Host).count()
    };
    if host(wanted) > host(present) {
        return Err(UpError::failed(
            "a VNet port with namespace: host would change this machine's own network",
        )
        .with_remedy("bring the lab up with `up --allow-host` if that is meant")
        .into());
    }
    Ok(())
}
