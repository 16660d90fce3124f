//! Namespaces, TUNs and programs of a running lab from one spec to the next: what is new is made before the tables
//! know it, what is gone goes when they know it no more.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use lab::{InterfaceSpec, LabSpec, Namespace, NamespaceSpec, Place};
use port::Device;

use crate::attach::Attached;
use crate::ports::{self, PortDevice, Ports};
use crate::up::UpError;

/// What differs between two specs of one lab.
#[derive(Debug)]
pub(crate) struct Difference {
    old: LabSpec,
    new: LabSpec,
    added: Vec<NamespaceSpec>,
    removed: Vec<NamespaceSpec>,
    /// Before and after.
    changed: Vec<(NamespaceSpec, NamespaceSpec)>,
}

/// What was made for a change, so that it can be taken back.
#[derive(Debug, Default)]
pub(crate) struct Made {
    namespaces: Vec<(NamespaceSpec, Arc<Namespace>)>,
    /// New devices; the workers take their queues.
    devices: Vec<(String, Device)>,
    /// In namespaces that were there before.
    interfaces: Vec<(String, String)>,
    configured: Vec<(NamespaceSpec, NamespaceSpec)>,
    programs: Vec<(String, String)>,
}

impl Difference {
    /// # Errors
    /// A namespace would have to move, which no running program survives: the change is refused.
    pub(crate) fn between(old: &LabSpec, new: &LabSpec) -> Result<Self, UpError> {
        let (mut added, mut changed) = (Vec::new(), Vec::new());
        // Most changes are none of namespaces.
        let same = old == new;
        let all = if same { &[][..] } else { &new.namespaces };
        for after in all {
            match old.namespace(&after.name) {
                None => added.push(after.clone()),
                Some(before) if before == after => {}
                Some(before) if before.kind == after.kind && before.place == after.place => {
                    changed.push((before.clone(), after.clone()));
                }
                Some(_) => {
                    let name = &after.name;
                    return Err(UpError::failed(format!(
                        "{name} would have to move to another namespace, which a running lab cannot do"
                    ))
                    .with_remedy(format!(
                        "take {name} out of the file, `peerlane apply` that, then apply it with the new one"
                    )));
                }
            }
        }
        let gone = |before: &&NamespaceSpec| !same && new.namespace(&before.name).is_none();
        Ok(Self {
            removed: old.namespaces.iter().filter(gone).cloned().collect(),
            old: old.clone(),
            new: new.clone(),
            added,
            changed,
        })
    }

    /// Namespaces that are not the lab's own and would be touched for the first time.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = &NamespaceSpec> {
        self.added.iter().filter(|wanted| wanted.place != Place::Lab)
    }

    /// Makes what is new and starts its programs. On failure `made` holds what was made until then.
    ///
    /// # Errors
    /// What could not be made; call [`Difference::undo`].
    pub(crate) fn make(
        &self,
        attached: &mut Attached,
        present: &Ports,
        made: &mut Made,
    ) -> Result<(), UpError> {
        for wanted in &self.added {
            self.add(wanted, attached, made)?;
        }
        for (before, after) in &self.changed {
            let namespace = present
                .namespace(&after.name)
                .ok_or_else(|| UpError::failed(format!("namespace {} is gone", after.name)))?;
            made.configured.push((before.clone(), after.clone()));
            change(before, after, &namespace, attached, made)?;
        }
        let started = self
            .added
            .iter()
            .flat_map(|wanted| wanted.run.iter().map(move |it| (wanted, it)));
        let more = self.changed.iter().flat_map(|(before, after)| {
            missing(&after.run, &before.run)
                .into_iter()
                .map(move |it| (after, it))
        });
        for (wanted, command) in started.chain(more) {
            attached.keeper.spawn(&wanted.name, command)?;
            made.programs.push((wanted.name.clone(), command.clone()));
        }
        Ok(())
    }

    /// The ports of the new spec: devices of `made` where they are new, else those of `present`.
    ///
    /// # Errors
    /// One is missing, which is a defect.
    pub(crate) fn ports(&self, present: &Ports, made: &Made) -> Result<Ports, UpError> {
        if self.is_empty() {
            return Ok(present.clone());
        }
        let known: HashMap<(String, &str), &PortDevice> = present
            .devices
            .iter()
            .map(|device| {
                (
                    (device.namespace.to_lowercase(), device.interface.as_str()),
                    device,
                )
            })
            .collect();
        let mut ports = Ports::default();
        for wanted in &self.new.namespaces {
            let fresh = made.namespaces.iter().find(|(spec, _)| spec.name == wanted.name);
            let namespace = fresh
                .map(|(_, namespace)| Arc::clone(namespace))
                .or_else(|| present.namespace(&wanted.name));
            let namespace = namespace.ok_or_else(|| defect(&wanted.name))?;
            for interface in &wanted.interfaces {
                let fresh = made
                    .devices
                    .iter()
                    .find(|(namespace, device)| *namespace == wanted.name && device.name == interface.name);
                let device = match fresh {
                    Some((namespace, device)) => ports::device_of(namespace, device),
                    None => known
                        .get(&(wanted.name.to_lowercase(), interface.name.as_str()))
                        .map(|device| PortDevice {
                            namespace: wanted.name.clone(),
                            ..(*device).clone()
                        })
                        .ok_or_else(|| defect(&interface.name))?,
                };
                ports.devices.push(device);
            }
            ports.namespaces.push((wanted.name.clone(), namespace));
        }
        Ok(ports)
    }

    /// Takes back what [`Difference::make`] did. What cannot be taken back is logged.
    pub(crate) fn undo(&self, attached: &mut Attached, present: &Ports, made: Made) {
        let new = |name: &str| made.namespaces.iter().any(|(spec, _)| spec.name == name);
        for (namespace, command) in made.programs.iter().filter(|(namespace, _)| !new(namespace)) {
            log("end a program", attached.keeper.end(namespace, command));
        }
        drop(made.devices);
        for (namespace, interface) in &made.interfaces {
            log("close a TUN", attached.keeper.release_tun(namespace, interface));
        }
        for (before, after) in &made.configured {
            if let Some(namespace) = present.namespace(&before.name) {
                log("configure", configure(&namespace, before));
                log("withdraw", withdraw(&namespace, after, before));
            }
        }
        for (spec, namespace) in &made.namespaces {
            remove(spec, Some(namespace), attached);
        }
    }

    /// Leaves what the new spec has, where nobody knows how far a daemon that died had come with a change either way.
    pub(crate) fn settle(&self, attached: &mut Attached, there: &Ports) {
        for (_, after) in &self.changed {
            if let Some(namespace) = there.namespace(&after.name) {
                log("configure", configure(&namespace, after));
            }
        }
        self.sweep(attached, there);
    }

    /// Removes what the new spec has no more, once no worker uses it. What cannot be removed is logged: it is out of use.
    pub(crate) fn sweep(&self, attached: &mut Attached, present: &Ports) {
        for (before, after) in &self.changed {
            let Some(namespace) = present.namespace(&before.name) else {
                continue;
            };
            for command in missing(&before.run, &after.run)
                .into_iter()
                .filter(|_| !after.stopped)
            {
                log("end a program", attached.keeper.end(&before.name, command));
            }
            if after.stopped && !before.stopped {
                // As a power switch: whatever runs there, and at once.
                log("end what runs", attached.keeper.kill(&before.name));
                log("stop", namespace.run(|| lab::network::stop(after)).flatten());
            }
            log("withdraw addresses", withdraw(&namespace, before, after));
            for gone in interfaces_gone(before, after) {
                if before.place != Place::Lab {
                    let only = NamespaceSpec {
                        interfaces: vec![gone.clone()],
                        ..before.clone()
                    };
                    log("withdraw rules", unconfigure(&namespace, &only));
                }
                log(
                    "close a TUN",
                    attached.keeper.release_tun(&before.name, &gone.name),
                );
            }
        }
        for spec in &self.removed {
            remove(spec, present.namespace(&spec.name).as_deref(), attached);
        }
    }

    /// Whether namespaces, interfaces or programs differ at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.old == self.new
    }

    /// Namespaces and interfaces that the old spec has and the new one has not.
    pub(crate) fn closed(&self) -> Vec<(String, String)> {
        let removed = self.removed.iter();
        let whole = removed.flat_map(|spec| {
            spec.interfaces
                .iter()
                .map(|it| (spec.name.clone(), it.name.clone()))
        });
        let parts = self.changed.iter().flat_map(|(before, after)| {
            interfaces_gone(before, after).map(|it| (before.name.clone(), it.name.clone()))
        });
        whole.chain(parts).collect()
    }

    pub(crate) fn specs(&self) -> [&LabSpec; 2] {
        [&self.old, &self.new]
    }

    fn add(&self, wanted: &NamespaceSpec, attached: &mut Attached, made: &mut Made) -> Result<(), UpError> {
        let namespace = Arc::new(Namespace::of(wanted)?);
        attached.keeper.hold_namespace(&wanted.name, &namespace)?;
        made.namespaces.push((wanted.clone(), Arc::clone(&namespace)));
        let devices = ports::open_namespace(wanted, &namespace, attached.opening)?;
        if attached.opening.named && wanted.place == Place::Lab {
            lab::netns_names::bind(&attached.run_dir, &wanted.name, &namespace)?;
        }
        for device in devices {
            hold(&wanted.name, &device, attached)?;
            made.devices.push((wanted.name.clone(), device));
        }
        Ok(())
    }
}

impl Made {
    /// The queues of the new devices, by worker, each with its namespace and interface.
    pub(crate) fn queues(&mut self, workers: usize) -> Vec<Vec<((String, String), port::Queue)>> {
        let mut queues: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        for (namespace, device) in std::mem::take(&mut self.devices) {
            let interface = device.name.clone();
            for (of_worker, queue) in queues.iter_mut().zip(device.into_queues()) {
                of_worker.push(((namespace.clone(), interface.clone()), queue));
            }
        }
        queues
    }
}

/// New interfaces and addresses in a namespace that is in use.
fn change(
    before: &NamespaceSpec,
    after: &NamespaceSpec,
    namespace: &Namespace,
    attached: &mut Attached,
    made: &mut Made,
) -> Result<(), UpError> {
    for wanted in interfaces_gone(after, before) {
        let opening = attached.opening;
        let device = namespace.run(|| ports::open_device(&wanted.name, opening))??;
        hold(&after.name, &device, attached)?;
        made.interfaces.push((after.name.clone(), wanted.name.clone()));
        made.devices.push((after.name.clone(), device));
    }
    // What is stopped is configured when it starts.
    let set = |spec: &NamespaceSpec| (spec.interfaces.clone(), spec.forwarding, spec.stopped);
    if set(before) != set(after) && !after.stopped {
        configure(namespace, after)?;
    }
    Ok(())
}

fn hold(namespace: &str, device: &Device, attached: &mut Attached) -> Result<(), UpError> {
    let queues: Vec<_> = device.fds.iter().map(AsFd::as_fd).collect();
    let keeper = &mut attached.keeper;
    Ok(keeper.hold_tun(namespace, &device.name, device.offloads.name(), &queues)?)
}

fn remove(spec: &NamespaceSpec, namespace: Option<&Namespace>, attached: &mut Attached) {
    if let (true, Some(namespace)) = (spec.place != Place::Lab, namespace) {
        log("withdraw rules", unconfigure(namespace, spec));
    }
    log(
        "remove a name",
        lab::netns_names::unbind(&attached.run_dir, &spec.name),
    );
    log(
        "let go of a namespace",
        attached.keeper.release_namespace(&spec.name),
    );
}

fn configure(namespace: &Namespace, spec: &NamespaceSpec) -> lab::Result<()> {
    namespace.run(|| lab::network::configure(spec))?
}

fn withdraw(namespace: &Namespace, old: &NamespaceSpec, new: &NamespaceSpec) -> lab::Result<()> {
    namespace.run(|| lab::network::withdraw(old, new))?
}

fn unconfigure(namespace: &Namespace, spec: &NamespaceSpec) -> lab::Result<()> {
    namespace.run(|| lab::network::unconfigure(spec))?
}

/// Interfaces that `one` has and `other` has not.
fn interfaces_gone<'a>(
    one: &'a NamespaceSpec,
    other: &'a NamespaceSpec,
) -> impl Iterator<Item = &'a InterfaceSpec> {
    let there = |name: &str| other.interfaces.iter().any(|it| it.name == name);
    one.interfaces.iter().filter(move |it| !there(&it.name))
}

/// What of `one` is not in `other`, each as often as it is missing.
fn missing<'a>(one: &'a [String], other: &[String]) -> Vec<&'a String> {
    let mut left: Vec<&String> = other.iter().collect();
    let missing = one.iter().filter(|command| {
        let found = left.iter().position(|it| it == command);
        found.map(|at| left.remove(at)).is_none()
    });
    missing.collect()
}

fn log(what: &str, done: lab::Result<()>) {
    if let Err(error) = done {
        tracing::warn!("cannot {what}: {error}");
    }
}

fn defect(what: &str) -> UpError {
    UpError::failed(format!("{what} has no port: this is a defect of peerlane"))
}
