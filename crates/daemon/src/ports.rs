//! Opens what a lab's ports need: a namespace and a TUN in it for every interface, or, after a restart, the ones the keeper holds.

use std::os::fd::AsFd;
use std::sync::Arc;

use lab::{Keeper, LabSpec, Namespace, NamespaceSpec, Place, RunDir};
use port::{Device, Offloads, Queue};

use crate::up::{Io, UpError};

/// The ports of a lab, in the order of the namespaces and their interfaces in the spec.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    pub(crate) namespaces: Vec<(String, Arc<Namespace>)>,
    pub(crate) devices: Vec<PortDevice>,
}

/// Where a port's packets enter and leave.
#[derive(Clone, Debug)]
pub(crate) struct PortDevice {
    pub(crate) namespace: String,
    pub(crate) interface: String,
    pub(crate) offloads: Offloads,
}

/// Ports as they were opened: what is known of them, and by worker and port the queues.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) ports: Ports,
    pub(crate) queues: Vec<Vec<Queue>>,
}

/// How to open ports that do not exist yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) io: Io,
    /// Queues of each TUN.
    pub(crate) workers: usize,
    /// Give the namespaces names under /run/netns.
    pub(crate) named: bool,
}

/// Makes every namespace and interface of `spec` and gives them to the keeper to hold. What was made before a failure
/// goes with the keeper, and interfaces in namespaces that are not the lab's with their descriptors.
///
/// # Errors
/// What could not be made, and why.
pub(crate) fn open(
    spec: &LabSpec,
    keeper: &mut Keeper,
    run_dir: &RunDir,
    opening: Opening,
) -> Result<Opened, UpError> {
    let mut opened = Opened::default();
    for wanted in &spec.namespaces {
        if let Err(error) = open_one(wanted, keeper, run_dir, opening, &mut opened) {
            withdraw(spec, &opened.ports);
            return Err(error);
        }
    }
    Ok(opened)
}

/// Takes over what the keeper holds of `spec`. Programs and connections in the namespaces notice nothing.
///
/// # Errors
/// The keeper does not hold what the spec says.
pub(crate) fn adopt(spec: &LabSpec, keeper: &mut Keeper) -> Result<Opened, UpError> {
    let mut opened = Opened::default();
    for held in &spec.namespaces {
        let namespace = keeper.namespaces(&held.name)?.network;
        for interface in &held.interfaces {
            let tun = keeper.tun(&held.name, &interface.name)?;
            let offloads = Offloads::from_name(&tun.metadata).unwrap_or(Offloads::None);
            let device = Device::from_fds(&interface.name, offloads, tun.queues)
                .map_err(|error| UpError::failed(format!("{}: {error}", held.name)))?;
            opened.push(&held.name, device);
        }
        opened
            .ports
            .namespaces
            .push((held.name.clone(), Arc::new(namespace)));
    }
    Ok(opened)
}

/// The namespaces of `spec` that the keeper holds, without their devices.
pub(crate) fn still_there(spec: &LabSpec, keeper: &mut Keeper) -> Ports {
    let found = spec.namespaces.iter().filter_map(|wanted| {
        let namespaces = keeper.namespaces(&wanted.name).ok()?;
        Some((wanted.name.clone(), Arc::new(namespaces.network)))
    });
    Ports {
        namespaces: found.collect(),
        devices: Vec::new(),
    }
}

impl Ports {
    /// A namespace by name, without regard to case.
    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        let mut namespaces = self.namespaces.iter();
        namespaces
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, namespace)| Arc::clone(namespace))
    }
}

impl Opened {
    pub(crate) fn push(&mut self, namespace: &str, device: Device) {
        self.ports.devices.push(device_of(namespace, &device));
        for (worker, queue) in device.into_queues().into_iter().enumerate() {
            if self.queues.len() <= worker {
                self.queues.push(Vec::new());
            }
            self.queues[worker].push(queue);
        }
    }
}

/// What is to be known of a device.
pub(crate) fn device_of(namespace: &str, device: &Device) -> PortDevice {
    PortDevice {
        namespace: namespace.to_owned(),
        interface: device.name.clone(),
        offloads: device.offloads,
    }
}

/// Removes what was set in namespaces that are not the lab's own. Their interfaces go with their descriptors.
pub(crate) fn withdraw(spec: &LabSpec, ports: &Ports) {
    let foreign = spec.namespaces.iter().filter(|wanted| wanted.place != Place::Lab);
    for wanted in foreign {
        let Some(namespace) = ports.namespace(&wanted.name) else {
            continue;
        };
        match namespace.run(|| lab::network::unconfigure(wanted)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => tracing::error!("{}: {error}", wanted.name),
        }
    }
}

/// Makes and configures the interfaces of one namespace.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_namespace(
    wanted: &NamespaceSpec,
    namespace: &Namespace,
    opening: Opening,
) -> Result<Vec<Device>, UpError> {
    namespace.run(|| {
        let devices = wanted.interfaces.iter();
        let devices: Vec<Device> = devices
            .map(|interface| open_device(&interface.name, opening))
            .collect::<Result<_, UpError>>()?;
        lab::network::configure(wanted)?;
        Ok(devices)
    })?
}

fn open_one(
    wanted: &NamespaceSpec,
    keeper: &mut Keeper,
    run_dir: &RunDir,
    opening: Opening,
    opened: &mut Opened,
) -> Result<(), UpError> {
    let namespace = Namespace::of(wanted)?;
    keeper.hold_namespace(&wanted.name, &namespace)?;
    let devices = open_namespace(wanted, &namespace, opening);
    let bound = match opening.named && wanted.place == Place::Lab {
        true => lab::netns_names::bind(run_dir, &wanted.name, &namespace),
        false => Ok(()),
    };
    opened
        .ports
        .namespaces
        .push((wanted.name.clone(), Arc::new(namespace)));
    for device in devices? {
        let queues: Vec<_> = device.fds.iter().map(AsFd::as_fd).collect();
        keeper.hold_tun(&wanted.name, &device.name, device.offloads.name(), &queues)?;
        opened.push(&wanted.name, device);
    }
    Ok(bound?)
}

/// In the calling thread's namespace.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_device(interface: &str, opening: Opening) -> Result<Device, UpError> {
    let opened = match opening.io {
        Io::Vnet => Device::open(interface, opening.workers, Offloads::Uso),
        Io::Plain => port::plain::open(interface),
    };
    opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => UpError::machine(
            error.to_string(),
            "run `peerlane doctor`: it says what /dev/net/tun lacks",
        ),
        _ => UpError::failed(error.to_string()),
    })
}
