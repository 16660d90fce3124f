//! The daemon replaced and killed, over and over, under connections that must not notice more than a pause; and what its
//! threads may do.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Peerlane, kill, two_vnets, unique, users, wait_for};

const SOON: Duration = Duration::from_secs(20);

/// Cycles of CI, and of `scripts/test full`.
fn cycles() -> usize {
    match std::env::var_os("PEERLANE_FULL") {
        Some(_) => 100,
        None => 3,
    }
}

/// Answers each line of every connection with the same line.
const ECHO: &str = "python3 -c 'import socketserver\nclass E(socketserver.StreamRequestHandler):\n def handle(self):\n  for line in self.rfile: self.wfile.write(line)\nsocketserver.ThreadingTCPServer.daemon_threads=True\nsocketserver.ThreadingTCPServer((\"\",7000),E).serve_forever()'";

/// One connection for its whole life: a line for each that it reads, or an error and its end.
const TYPIST: &str = "
import socket,sys,time
for attempt in range(100):
    try:
        c=socket.create_connection(('10.1.0.4',7000),timeout=2); break
    except OSError: time.sleep(.1)
else: sys.exit('nobody answers')
c.settimeout(20)
f=c.makefile('rwb')
for line in sys.stdin.buffer:
    f.write(line); f.flush()
    if f.readline()!=line: sys.exit('another line came back')
    print('ok',flush=True)
";

/// `a` lets nobody in: replies reach it only by the state that its own packets make anew.
fn lab(name: &str) -> String {
    let text = two_vnets(name, ECHO);
    text.replace(
        "{ name: a-nic, subnet: one/default,",
        "{ name: a-nic, networkSecurityGroup: closed, subnet: one/default,",
    )
}

#[test]
fn connections_outlive_daemons_that_are_replaced_and_killed() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let name = unique("upgrade");
        let file = peerlane.file(&name, &lab(&name));
        peerlane.up(&file);
        let said = peerlane.run([
            "nsg",
            "rule",
            "create",
            "-n",
            "more",
            "--nsg-name",
            "closed",
            "--priority",
            "200",
        ]);
        assert_eq!(said.code, 0, "{said:?}");
        let state = || {
            let export = peerlane.run(["export", &name]).stdout;
            let generation = peerlane.run(["peerings", &name, "-o", "json"]).stdout;
            (export, generation)
        };
        let before = state();

        let mut typist = peerlane
            .command(["exec", "--lab", &name, "a", "--", "python3", "-u", "-c", TYPIST])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut typed = typist.stdin.take().unwrap();
        let mut answers = BufReader::new(typist.stdout.take().unwrap()).lines();
        let mut types = |what: &str| {
            writeln!(typed, "{what}").unwrap();
            let answer = answers.next().and_then(Result::ok);
            assert_eq!(answer.as_deref(), Some("ok"), "{user:?}: {what}");
        };
        types("hello");
        let server = peerlane.spawn(&name, "b", &["iperf3", "-s", "-1"]);
        std::thread::sleep(Duration::from_millis(500));
        // Until it is interrupted; slow, so that the machine has something left.
        let mut iperf = peerlane.spawn(
            &name,
            "a",
            &[
                "iperf3",
                "-c",
                "10.1.0.4",
                "-t",
                "86400",
                "-b",
                "20M",
                "-i",
                "1",
                "--forceflush",
            ],
        );
        let mut flow = BufReader::new(iperf.stdout.take().unwrap()).lines();
        let mut flows = |when: &str| {
            // Two reports in a row that something arrived: the second began after the pause.
            let mut good = 0;
            while good < 2 {
                let line = flow.next().and_then(Result::ok);
                let line = line.unwrap_or_else(|| panic!("{user:?}: iperf3 ended {when}"));
                good = match line.contains("sec") && !line.contains(" 0.00 bits/sec") {
                    true => good + 1,
                    false => 0,
                };
            }
        };
        flows("at the start");

        for cycle in 0..cycles() {
            let daemon = peerlane.daemon_pid();
            if cycle % 2 == 0 {
                let ran = peerlane.run(["restart", &name]);
                assert_eq!(ran.code, 0, "cycle {cycle}: {ran:?}");
            } else {
                kill(daemon);
                assert!(wait_for(SOON, || peerlane.list()[0]["state"] == "Orphaned"));
                let ran = peerlane.run(["up", file.to_str().unwrap(), "--detach"]);
                assert_eq!(ran.code, 0, "cycle {cycle}: {ran:?}");
            }
            assert_ne!(peerlane.daemon_pid(), daemon);
            types(&format!("cycle {cycle}"));
            flows(&format!("in cycle {cycle}"));
            assert_eq!(state(), before, "cycle {cycle}");
        }
        drop(typed);
        assert!(typist.wait().unwrap().success());
        assert!(iperf.try_wait().unwrap().is_none());
        assert_eq!(peerlane.run(["down", &name]).code, 0);
        let _ = (iperf.wait(), server.wait_with_output());
        peerlane.assert_nothing_left(&name);
    }
}

/// One field of every thread's status, by the thread's name.
fn threads(pid: i32, field: &str) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    statuses
        .map(|status| {
            let value = |name: &str| {
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                line.unwrap().trim().to_owned()
            };
            (value("Name"), value(field))
        })
        .collect()
}

#[test]
fn workers_have_no_capability_and_gain_none() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let name = unique("caps");
        peerlane.up(&peerlane.file(&name, &two_vnets(&name, "")));
        let pid = peerlane.daemon_pid();
        let workers = |field: &str| {
            let all = threads(pid, field);
            let workers: Vec<_> = all
                .iter()
                .filter(|(name, _)| name.starts_with("worker-"))
                .collect();
            assert!(!workers.is_empty(), "{all:?}");
            workers
                .into_iter()
                .map(|(_, value)| value.clone())
                .collect::<Vec<_>>()
        };
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert!(
                workers(set).iter().all(|caps| caps == "0000000000000000"),
                "{user:?} {set}"
            );
        }
        assert!(workers("NoNewPrivs").iter().all(|value| value == "1"), "{user:?}");
        // Whoever makes VMs needs more, and can still do it.
        let control = threads(pid, "CapEff");
        assert!(
            control.iter().any(|(_, caps)| caps != "0000000000000000"),
            "{control:?}"
        );
        assert_eq!(peerlane.run(["down", &name]).code, 0);
        peerlane.assert_nothing_left(&name);
    }
}
