//! A small lab, brought up as a daemon does it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::run_dir::DaemonLock;
use lab::spec::{INTERNET, MTU};
use lab::{InterfaceSpec, Keeper, LabSpec, Namespace, NamespaceKind, NamespaceSpec, Place, RunDir};
use lab::{keeper, network, rootless};

use crate::tun;

/// What a daemon holds.
pub(crate) struct Up {
    pub(crate) run_dir: RunDir,
    pub(crate) lock: DaemonLock,
    pub(crate) keeper: Keeper,
    pub(crate) tuns: Vec<File>,
}

/// A unique name for the lab of a case.
pub(crate) fn name() -> String {
    format!("labit-{}", std::process::id())
}

pub(crate) fn interface(name: &str, addresses: &[&str]) -> InterfaceSpec {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    InterfaceSpec::new(name.to_owned(), addresses, name == "eth0")
}

pub(crate) fn namespace(name: &str, interfaces: Vec<InterfaceSpec>) -> NamespaceSpec {
    let kind = if name == INTERNET {
        NamespaceKind::Internet
    } else {
        NamespaceKind::Vm
    };
    let run = Vec::new();
    NamespaceSpec {
        name: name.to_owned(),
        kind,
        place: Place::Lab,
        forwarding: false,
        stopped: false,
        run,
        interfaces,
        own_prefixes: Vec::new(),
    }
}

/// One VM `web` whose program writes a line each 50 ms and sends a packet each time.
pub(crate) fn spec(name: &str) -> LabSpec {
    let mut web = namespace("web", vec![interface("eth0", &["10.1.0.4/24", "fd00:b::4/64"])]);
    assert_eq!(web.interfaces[0].mtu, MTU);
    web.run = vec!["while :; do echo beat; ping -c1 -W1 10.1.0.9 >/dev/null & sleep 0.05; done".to_owned()];
    LabSpec {
        name: name.to_owned(),
        namespaces: vec![web],
    }
}

/// All a daemon does until it forwards.
pub(crate) fn up(spec: &LabSpec) -> Up {
    let (run_dir, lock) = RunDir::create(&spec.name).unwrap();
    if !rootless::privileged() {
        rootless::enter_user_namespace().unwrap();
    }
    let mut keeper = keeper::start(&run_dir, &keeper::Launch::default()).unwrap();
    let mut tuns = Vec::new();
    for namespace_spec in &spec.namespaces {
        let (namespace, own) = make(namespace_spec);
        keeper.hold_namespace(&namespace_spec.name, &namespace).unwrap();
        for (interface, tun) in namespace_spec.interfaces.iter().zip(&own) {
            keeper
                .hold_tun(&namespace_spec.name, &interface.name, "plain", &[tun.as_fd()])
                .unwrap();
        }
        tuns.extend(own);
    }
    for namespace in &spec.namespaces {
        for command in &namespace.run {
            keeper.spawn(&namespace.name, command).unwrap();
        }
    }
    keeper.hold_lab(&[spec]).unwrap();
    Up {
        run_dir,
        lock,
        keeper,
        tuns,
    }
}

/// A configured namespace and its TUNs.
pub(crate) fn make(spec: &NamespaceSpec) -> (Namespace, Vec<File>) {
    let namespace = Namespace::of(spec).unwrap();
    let open = || {
        spec.interfaces
            .iter()
            .map(|interface| tun::open(&interface.name))
            .collect()
    };
    let tuns = namespace.run(open).unwrap();
    namespace.run(|| network::configure(spec)).unwrap().unwrap();
    (namespace, tuns)
}

/// Ends a lab as its daemon does.
pub(crate) fn down(up: Up) {
    up.keeper.stop().unwrap();
    up.run_dir.remove(up.lock).unwrap();
}

/// A daemon in a process of its own, which says when it is up and then waits.
pub(crate) fn start_daemon(name: &str) -> (Child, BufReader<ChildStdout>) {
    let mut daemon = Command::new("/proc/self/exe");
    let mut daemon = daemon
        .args(["daemon", name])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(daemon.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    (daemon, output)
}

/// Body of [`start_daemon`].
pub(crate) fn daemon(name: &OsStr) -> ExitCode {
    let up = up(&spec(name.to_str().unwrap()));
    println!("up");
    loop {
        assert_eq!(up.tuns.len(), 1);
        sleep(Duration::from_secs(1));
    }
}

/// Waits until `done`, or fails saying `what`.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Lines in the log of `web`.
pub(crate) fn beats(run_dir: &RunDir) -> usize {
    let log = keeper::log_path(run_dir.path(), "web");
    fs::read_to_string(log)
        .unwrap_or_default()
        .lines()
        .filter(|line| *line == "beat")
        .count()
}
