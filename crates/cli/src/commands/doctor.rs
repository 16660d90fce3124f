//! `doctor`: does what labs do, in namespaces that are gone afterwards, and says what is missing.

use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ipnet::IpNet;
use lab::spec::{InterfaceSpec, NamespaceKind, NamespaceSpec, Place};
use lab::{Namespace, network, rootless};
use port::Offloads;
use port::tun::Device;
use rustix::event::epoll;
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::{Outcome, exit};
use crate::output::{Cell, Output, Palette, Tone, View};

const TUN_PATH: &str = "/dev/net/tun";
/// In namespaces of its own, so that any name is free.
const INTERFACE: &str = "pl-doctor";

/// The body of `doctor -o json`.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Report {
    /// Labs can run here.
    ready: bool,
    /// The best level this kernel grants: `uso`, `tso`, `checksum` or `none`; null when no TUN opens.
    offloads: Option<&'static str>,
    checks: Vec<Check>,
}

/// One operation that was tried.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Check {
    name: String,
    ok: bool,
    /// False: labs run without it, only slower.
    required: bool,
    /// What the outcome means.
    meaning: String,
    /// What to do; null when it worked.
    remedy: Option<String>,
}

/// Tries everything; exit code 5 when labs cannot run. Must be called before any thread starts.
pub(crate) fn doctor(output: Output) -> Outcome {
    let mut checks: Vec<Check> = rootless::privileges().into_iter().map(privilege).collect();
    checks.push(device_node());
    checks.push(short_waits());
    let mut offloads = None;
    if checks.iter().all(|check| check.ok) {
        offloads = in_namespace(&mut checks);
    }
    checks.push(bird());
    let ready = checks.iter().all(|check| check.ok || !check.required);
    let report = Report {
        ready,
        offloads,
        checks,
    };
    output.show(&report, |palette| view(&report, palette))?;
    Ok(if ready { exit::SUCCESS } else { exit::MACHINE })
}

fn privilege(tried: rootless::Check) -> Check {
    match tried.problem {
        None => Check::worked(tried.name, "allowed"),
        Some((cause, remedy)) => Check::failed(tried.name, cause, remedy),
    }
}

/// The device file: it must exist and be open to the user (mode 0666 by default).
fn device_node() -> Check {
    let name = "open /dev/net/tun";
    let mode = || match Path::new(TUN_PATH).metadata() {
        Err(_) => "unknown mode".to_owned(),
        Ok(node) => {
            let mode = node.permissions().mode() & 0o7777;
            let closed = mode & 0o006 != 0o006;
            format!(
                "mode {mode:04o}{}",
                if closed { "; ordinary users need 0666" } else { "" }
            )
        }
    };
    match std::fs::OpenOptions::new().read(true).write(true).open(TUN_PATH) {
        Ok(_) => Check::worked(name, format!("open to you ({})", mode())),
        Err(error) => {
            let remedy = match error.kind() {
                ErrorKind::NotFound => {
                    "load the driver and make the node: modprobe tun; mkdir -p /dev/net; mknod -m 666 /dev/net/tun c 10 \
                     200 (in a container: --device /dev/net/tun)"
                }
                ErrorKind::PermissionDenied => "as root: chmod 0666 /dev/net/tun",
                _ => "load the driver: modprobe tun",
            };
            Check::failed(name, format!("{error} ({})", mode()), remedy)
        }
    }
}

/// Workers wait by epoll for less than a millisecond.
fn short_waits() -> Check {
    let name = "waits of microseconds (epoll_pwait2)";
    let at_once = rustix::time::Timespec::default();
    let waited = epoll::create(epoll::CreateFlags::CLOEXEC).and_then(|epoll| {
        let mut events = Vec::with_capacity(1);
        epoll::wait(
            &epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&at_once),
        )
    });
    match waited {
        Ok(_) => Check::worked(name, "the kernel has them"),
        Err(error) => Check::failed(
            name,
            error.to_string(),
            "use a kernel of 5.11 or newer that allows the call",
        ),
    }
}

/// The routing daemon of gateways and sites that speak BGP.
fn bird() -> Check {
    let name = "BIRD, for labs with enableBgp";
    match daemon::bird_program() {
        Some(path) => Check::worked(name, path.display().to_string()),
        None => Check {
            required: false,
            ..Check::failed(name, "there is no program bird", daemon::BIRD_REMEDY)
        },
    }
}

/// A TUN at each offload level and an address by netlink, in a namespace as a VM's. Returns the best level.
fn in_namespace(checks: &mut Vec<Check>) -> Option<&'static str> {
    let entered = if rootless::privileged() {
        Ok(())
    } else {
        rootless::enter_user_namespace()
    };
    let namespace = match entered.and_then(|()| Namespace::create()) {
        Ok(namespace) => namespace,
        Err(error) => {
            checks.push(Check::failed(
                "network namespace",
                error.to_string(),
                "see the checks above",
            ));
            return None;
        }
    };
    let mut best = None;
    for level in Offloads::DESCENDING {
        let opened = namespace.run(|| Device::open(INTERFACE, 1, level).map(|device| device.offloads));
        let granted = opened.unwrap_or_else(|error| Err(io::Error::other(error)));
        let check = offload_check(level, granted);
        if check.ok && best.is_none() {
            best = Some(level.name());
        }
        checks.push(check);
    }
    checks.push(address(&namespace));
    best
}

fn offload_check(level: Offloads, granted: io::Result<Offloads>) -> Check {
    let name = format!("TUN with offload level {}", level.name());
    // Without the upper levels the guest segments and finishes checksums: slower, and still right.
    let required = level == Offloads::None;
    match granted {
        Ok(offloads) if offloads == level => Check::worked(&name, meaning(level)),
        Ok(lower) => Check {
            required,
            ..Check::failed(
                &name,
                format!("this kernel grants {} at most", lower.name()),
                "nothing must be done: labs use the best level there is; a newer kernel has more",
            )
        },
        Err(error) => Check {
            required,
            ..Check::failed(
                &name,
                error.to_string(),
                "load the driver: modprobe tun; see also user namespaces above",
            )
        },
    }
}

const fn meaning(level: Offloads) -> &'static str {
    match level {
        Offloads::Uso => "UDP and TCP super-packets pass whole",
        Offloads::Tso => "TCP super-packets pass whole",
        Offloads::Checksum => "single packets pass with unfinished checksums",
        Offloads::None => "single packets with finished checksums",
    }
}

/// The address, the sysctls and the routes of a VM's interface.
fn address(namespace: &Namespace) -> Check {
    let name = "address, routes and sysctls by netlink";
    // TEST-NET-1 and the documentation prefix (RFC 5737, RFC 3849).
    let addresses: Vec<IpNet> = ["192.0.2.4/24", "2001:db8::4/64"]
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let spec = NamespaceSpec {
        name: "doctor".to_owned(),
        kind: NamespaceKind::Vm,
        place: Place::Lab,
        forwarding: true,
        stopped: false,
        run: Vec::new(),
        interfaces: vec![InterfaceSpec::new(INTERFACE.to_owned(), addresses, true)],
        own_prefixes: Vec::new(),
    };
    let tried = namespace.run(|| {
        let device = Device::open(INTERFACE, 1, Offloads::None);
        let _held = device.map_err(|error| error.to_string())?;
        network::configure(&spec).map_err(|error| error.to_string())
    });
    match tried.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(()) => Check::worked(name, "IPv4 and IPv6"),
        Err(cause) => Check::failed(
            name,
            cause,
            "the kernel needs IPv6 (no ipv6.disable=1 at boot), policy routing, and a writable /proc/sys in new network namespaces",
        ),
    }
}

impl Check {
    fn worked(name: &str, meaning: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            ok: true,
            required: true,
            meaning: meaning.into(),
            remedy: None,
        }
    }

    fn failed(name: &str, meaning: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            ok: false,
            required: true,
            meaning: meaning.into(),
            remedy: Some(remedy.into()),
        }
    }
}

fn view(report: &Report, palette: Palette) -> View {
    let mut text = String::new();
    let mut rows = Vec::new();
    for check in &report.checks {
        let (tone, mark) = match (check.ok, check.required) {
            (true, _) => (Tone::Good, "✔"),
            (false, true) => (Tone::Bad, "✘"),
            (false, false) => (Tone::Notice, "!"),
        };
        text.push_str(&format!(
            "{} {}: {}\n",
            palette.paint(tone, mark),
            check.name,
            check.meaning
        ));
        if let Some(remedy) = &check.remedy {
            text.push_str(&format!("    {remedy}\n"));
        }
        let remedy = check.remedy.as_deref().unwrap_or_default();
        rows.push(
            [
                if check.ok { "ok" } else { "failed" },
                &check.name,
                &check.meaning,
                remedy,
            ]
            .map(Cell::from)
            .into(),
        );
    }
    text.push_str(&match (report.ready, report.offloads) {
        (true, Some(level)) => {
            format!(
                "\n{} (offload level {level})",
                palette.paint(Tone::Good, "labs can run here")
            )
        }
        _ => format!("\n{}", palette.paint(Tone::Bad, "labs cannot run here")),
    });
    View {
        below: None,
        header: Vec::new(),
        rows,
        text: Some(text),
    }
}
