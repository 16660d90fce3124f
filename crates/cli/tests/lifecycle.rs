//! Labs that come up, are killed, come back and go: as root and as an ordinary user, and what is left of them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Peerlane, Ran, User, kill, need_root, two_vnets, unique, users, wait_for};

/// Longer than any answer takes on a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_lab_comes_up_works_and_goes_as_every_user() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let name = unique("updown");
        let file = peerlane.file(&name, &two_vnets(&name, ""));
        let file = file.to_str().unwrap();
        let up = peerlane.run(["up", file, "--detach"]);
        assert_eq!(up.code, 0, "{user:?}: {up:?}");
        assert_eq!(
            up.stdout,
            format!("{{\"name\":\"{name}\",\"state\":\"Running\"}}\n")
        );
        let labs = peerlane.list();
        assert_eq!(labs.len(), 1, "{labs:?}");
        assert_eq!(labs[0]["name"], name.as_str());
        assert_eq!(labs[0]["state"], "Running");
        assert_eq!(labs[0]["file"], file);

        let ping = peerlane.run(["exec", "a", "--", "ping", "-c", "1", "-W", "2", "10.1.0.4"]);
        assert_eq!(ping.code, 0, "{user:?}: {ping:?}");
        assert!(
            ping.stdout.contains("ttl=64"),
            "the fabric takes no TTL (NET-08): {ping:?}"
        );
        let test = peerlane.run(["test", &name, "-o", "json"]);
        assert_eq!(test.code, 0, "{user:?}: {test:?}");
        let verified = peerlane.run([
            "explain", &name, "a", "c", "--port", "7", "--verify", "-o", "json",
        ]);
        assert_eq!(verified.code, 0, "{verified:?}");
        assert_eq!(verified.json()["verified"]["reason"], "NsgInbound");
        // The name may be left out, for one lab runs.
        for command in ["drops", "flows", "peerings"] {
            let ran = peerlane.run([command, "-o", "json"]);
            assert_eq!(ran.code, 0, "{ran:?}");
            assert!(!ran.json().as_array().unwrap().is_empty(), "{command}: {ran:?}");
            let schema = peerlane.run(["schema", command]).json();
            jsonschema::validate(&schema, &ran.json()).unwrap_or_else(|error| panic!("{command}: {error}"));
        }
        let again = peerlane.run(["up", file, "--detach"]);
        assert_eq!(again.code, 1, "{again:?}");
        assert!(
            again.stderr.contains(&name) && again.stderr.contains("down"),
            "says what to do: {again:?}"
        );

        let down = peerlane.run(["down"]);
        assert_eq!(down.code, 0, "{user:?}: {down:?}");
        peerlane.assert_nothing_left(&name);
        assert_eq!(peerlane.run(["down", &name]).code, 3);
    }
}

#[test]
fn exec_passes_the_exit_code_on() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let name = unique("exec");
        peerlane.up(&peerlane.file(&name, &two_vnets(&name, "")));
        let cases: [(i32, &[&str]); 5] = [
            (0, &["true"]),
            (7, &["sh", "-c", "exit 7"]),
            (137, &["sh", "-c", "kill -KILL $$"]),
            (127, &["no-such-program-anywhere"]),
            (126, &["/etc/passwd"]),
        ];
        for (code, program) in cases {
            let ran = peerlane.exec(&name, "a", program);
            assert_eq!(ran.code, code, "{user:?} {program:?}: {ran:?}");
        }
        assert_eq!(peerlane.exec(&name, "no-such-vm", &["true"]).code, 125);
        let mut shell = peerlane.command(["shell", "a"]);
        shell
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        std::io::Write::write_all(
            &mut shell.stdin.take().unwrap(),
            b"cat /proc/net/fib_trie; exit 3\n",
        )
        .unwrap();
        let ran = Ran::of(shell.wait_with_output().unwrap());
        assert_eq!(ran.code, 3, "{ran:?}");
        assert!(ran.stdout.contains("10.0.0.4"), "{ran:?}");
        peerlane.run(["down", &name]);
        peerlane.assert_nothing_left(&name);
    }
}

#[test]
fn in_front_ctrl_c_takes_the_lab_down() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let name = unique("front");
        let file = peerlane.file(&name, &two_vnets(&name, ""));
        let mut up = peerlane
            .command(["up", file.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("Running"), "{line}");
        assert_eq!(
            peerlane
                .exec(&name, "a", &["ping", "-c", "1", "-W", "2", "10.1.0.4"])
                .code,
            0
        );
        let pid = rustix::process::Pid::from_child(&up);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(
            wait_for(SOON, || up.try_wait().unwrap().is_some()),
            "Ctrl-C does not end it"
        );
        peerlane.assert_nothing_left(&name);
    }
}

#[test]
fn a_private_copy_goes_with_the_command_that_made_it() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let name = unique("private");
        let file = peerlane.file(&name, &two_vnets(&name, ""));
        let file = file.to_str().unwrap();
        let ran = peerlane.run(["test", file, "-o", "json"]);
        assert_eq!(ran.code, 0, "{user:?}: {ran:?}");
        let rows = ran.json();
        assert_eq!(rows[2]["mode"], "packets");
        assert_eq!(rows[2]["reason"], "NsgInbound");
        let schema = peerlane.run(["schema", "test"]).json();
        jsonschema::validate(&schema, &rows).unwrap_or_else(|error| panic!("{error}"));
        peerlane.assert_nothing_left(&name);

        let verified = peerlane.run([
            "explain", file, "a", "b", "--port", "80", "--verify", "-o", "json",
        ]);
        assert_eq!(verified.code, 0, "{user:?}: {verified:?}");
        assert_eq!(verified.json()["verified"]["result"], "Allow");
        let schema = peerlane.run(["schema", "explain"]).json();
        jsonschema::validate(&schema, &verified.json()).unwrap_or_else(|error| panic!("{error}"));
        peerlane.assert_nothing_left(&name);

        // Denied probes wait for a second, so that the signals meet it at work.
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
            let mut test = peerlane
                .command(["test", file, "--all-pairs"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            assert!(
                wait_for(SOON, || peerlane.processes().len() > 2),
                "no private copy came up"
            );
            rustix::process::kill_process(rustix::process::Pid::from_child(&test), signal).unwrap();
            test.wait().unwrap();
            peerlane.assert_nothing_left(&name);
        }
    }
}

/// Answers every connection with one line that is the same as long as the process lives.
const TOKEN_SERVER: &str = "python3 -c 'import socket,os\ns=socket.create_server((\"\",7000))\nt=os.urandom(8).hex().encode()\nwhile 1:\n c,_=s.accept(); c.sendall(t); c.close()'";

const TOKEN_CLIENT: &str = "
import socket,sys,time
for attempt in range(50):
    try:
        c=socket.create_connection(('10.1.0.4',7000),timeout=2); break
    except OSError: time.sleep(.1)
else: sys.exit('nobody answers')
print(c.recv(100).decode())";

fn token(peerlane: &Peerlane, lab: &str) -> String {
    let ran = peerlane.exec(lab, "a", &["python3", "-c", TOKEN_CLIENT]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stdout.trim().len(), 16, "{ran:?}");
    ran.stdout
}

#[test]
fn after_the_daemon_is_killed_up_goes_on_with_the_same_programs() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let name = unique("adopt");
        let file = peerlane.file(&name, &two_vnets(&name, TOKEN_SERVER));
        peerlane.up(&file);
        let before = token(&peerlane, &name);
        kill(peerlane.daemon_pid());
        assert!(
            wait_for(SOON, || peerlane.list()[0]["state"] == "Orphaned"),
            "{:?}",
            peerlane.list()
        );
        let asked = peerlane.run(["drops", &name]);
        assert_eq!(asked.code, 1);
        assert!(asked.stderr.contains("peerlane up"), "says what to do: {asked:?}");
        peerlane.up(&file);
        assert_eq!(peerlane.list()[0]["state"], "Running");
        assert_eq!(
            token(&peerlane, &name),
            before,
            "the VM's program was started anew"
        );
        assert_eq!(peerlane.run(["test", &name]).code, 0);
        assert_eq!(peerlane.run(["down", &name]).code, 0);
        peerlane.assert_nothing_left(&name);
    }
}

#[test]
fn a_daemon_killed_under_traffic_leaves_nothing_after_down() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let name = unique("killed");
        peerlane.up(&peerlane.file(&name, &two_vnets(&name, "")));
        let mut traffic = peerlane.spawn(&name, "a", &["ping", "-i", "0.01", "10.1.0.4"]);
        let mut first = String::new();
        let mut replies = BufReader::new(traffic.stdout.take().unwrap());
        while !first.contains("ttl=") {
            first.clear();
            assert_ne!(replies.read_line(&mut first).unwrap(), 0, "ping ended");
        }
        kill(peerlane.daemon_pid());
        let down = peerlane.run(["down", &name]);
        assert_eq!(down.code, 0, "{user:?}: {down:?}");
        // The program in the lab's PID namespace ends with it, and with it the command that waits for it.
        assert!(
            wait_for(SOON, || traffic.try_wait().unwrap().is_some()),
            "the program outlived its lab"
        );
        peerlane.assert_nothing_left(&name);
    }
}

#[test]
fn daemon_and_keeper_killed_leave_nothing_after_list() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let name = unique("both");
        peerlane.up(&peerlane.file(&name, &two_vnets(&name, "sleep 1000")));
        let keeper = peerlane.keeper_pid();
        kill(peerlane.daemon_pid());
        kill(keeper);
        assert!(
            wait_for(SOON, || peerlane.list().is_empty()),
            "{:?}",
            peerlane.list()
        );
        peerlane.assert_nothing_left(&name);
    }
}

#[test]
fn without_a_tun_device_up_and_doctor_say_so_and_leave_nothing() {
    need_root("hiding /dev/net/tun in a mount namespace");
    for user in users() {
        let peerlane = Peerlane::without_tun(user);
        let name = unique("notun");
        let file = peerlane.file(&name, &two_vnets(&name, ""));
        let file = file.to_str().unwrap();
        for arguments in [
            vec!["up", file, "--detach"],
            vec!["up", file],
            vec!["test", file],
            vec!["doctor"],
        ] {
            let ran = peerlane.run(&arguments);
            assert_eq!(ran.code, 5, "{user:?} {arguments:?}: {ran:?}");
            assert!(
                format!("{}{}", ran.stdout, ran.stderr).contains("modprobe tun"),
                "{arguments:?} says no remedy: {ran:?}"
            );
            peerlane.assert_nothing_left(&name);
        }
    }
}

#[test]
fn doctor_finds_this_machine_able() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let ran = peerlane.run(["doctor", "-o", "json"]);
        assert_eq!(ran.code, 0, "{user:?}: {ran:?}");
        let report = ran.json();
        assert_eq!(report["ready"], true);
        assert!(report["offloads"].is_string(), "{report:#}");
        let schema = peerlane.run(["schema", "doctor"]).json();
        jsonschema::validate(&schema, &report).unwrap_or_else(|error| panic!("{error}"));
        peerlane.assert_nothing_left("pl-doctor");
    }
}

#[test]
fn an_interface_in_use_is_refused_and_nothing_is_left() {
    need_root("a VNet port in an existing namespace");
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("inuse");
    let netns = Netns::new(&name);
    netns.ip(&["tuntap", "add", "dev", "pl-taken", "mode", "tun"]);
    let text = two_vnets(&name, "").replace(
        "  two: {",
        &format!("  three: {{ addressSpace: [10.3.0.0/16], tun: {{ interface: pl-taken, namespace: {} }}, subnets: {{ default: {{ addressPrefix: 10.3.0.0/24 }} }} }}\n  two: {{", netns.name),
    );
    let text =
        format!("{text}networkInterfaces:\n  n1: {{ subnet: three/default, privateIPAddress: 10.3.0.4 }}\n");
    let file = peerlane.file(&name, &text);
    let ran = peerlane.run(["up", file.to_str().unwrap(), "--detach"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("pl-taken"), "{ran:?}");
    assert_eq!(
        netns
            .ip(&["-br", "link", "show", "pl-taken"])
            .split_whitespace()
            .next(),
        Some("pl-taken"),
        "not ours"
    );
    peerlane.assert_nothing_left(&name);

    // Free again, the same file comes up; and its interface goes with the lab.
    netns.ip(&["link", "del", "pl-taken"]);
    peerlane.up(&file);
    assert!(netns.ip(&["-br", "addr"]).contains("10.3.0.4"));
    assert_eq!(peerlane.run(["down", &name]).code, 0);
    assert!(!netns.ip(&["-br", "link"]).contains("pl-taken"));
    peerlane.assert_nothing_left(&name);
}

#[test]
fn a_name_under_run_netns_that_is_not_ours_is_refused_and_stays() {
    need_root("names under /run/netns");
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("taken");
    let netns = Netns::named(&format!("{name}-b"));
    let file = peerlane.file(&name, &two_vnets(&name, ""));
    let ran = peerlane.run(["up", file.to_str().unwrap(), "--detach"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains(&netns.name), "{ran:?}");
    assert!(
        fs::exists(format!("/run/netns/{}", netns.name)).unwrap(),
        "not ours to remove"
    );
    drop(netns);
    peerlane.assert_nothing_left(&name);
}

/// A namespace of `ip netns` that goes when this is dropped.
struct Netns {
    name: String,
}

impl Netns {
    fn new(prefix: &str) -> Self {
        // Not `<lab>-<vm>`, which would count as left behind by the lab.
        Self::named(&format!("x{prefix}"))
    }

    fn named(name: &str) -> Self {
        let made = Command::new("ip").args(["netns", "add", name]).status().unwrap();
        assert!(made.success());
        Self {
            name: name.to_owned(),
        }
    }

    fn ip(&self, arguments: &[&str]) -> String {
        let output = Command::new("ip")
            .args(["-n", &self.name])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// `a` and `b` of [`two_vnets`] with a change on top: what runs is not what the file says.
fn changed_lab(peerlane: &Peerlane, name: &str) -> std::path::PathBuf {
    let text = two_vnets(name, TOKEN_SERVER);
    let file = peerlane.file(name, &text);
    peerlane.up(&file);
    let changed = text.replace("priority: 100", "priority: 200")
        + "  - { from: b, to: a, protocol: Icmp, expect: Allow }\n";
    let changed = changed.replace(
        "  c: {",
        "  d: { subnet: two/default, privateIPAddress: 10.1.0.77 }\n  c: {",
    );
    let changed = peerlane.file(&format!("{name}-changed"), &changed);
    let ran = peerlane.run(["apply", name, changed.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    file
}

fn state_of(peerlane: &Peerlane, name: &str) -> [String; 3] {
    [
        vec!["export", name],
        vec!["peerings", name, "-o", "json"],
        vec!["rules", name, "c", "-o", "json"],
    ]
    .map(|command| {
        let ran = peerlane.run(&command);
        assert_eq!(ran.code, 0, "{command:?}: {ran:?}");
        ran.stdout
    })
}

/// The daemon ends in every way there is, and the next one forwards by the last change, not by the file of `up`.
#[test]
fn the_stored_lab_wins_over_the_file_and_programs_live_on() {
    for user in users() {
        let peerlane = Peerlane::new(user);
        let name = unique("stored");
        let file = changed_lab(&peerlane, &name);
        let (before, programs) = (state_of(&peerlane, &name), token(&peerlane, &name));
        let same = |how: &str| {
            assert_eq!(state_of(&peerlane, &name), before, "{user:?} {how}");
            assert_eq!(token(&peerlane, &name), programs, "{user:?} {how}: started anew");
        };
        let orphaned = || {
            let orphaned = wait_for(SOON, || peerlane.list()[0]["state"] == "Orphaned");
            assert!(orphaned, "{:?}", peerlane.list());
        };

        kill(peerlane.daemon_pid());
        orphaned();
        let up = peerlane.run(["up", file.to_str().unwrap(), "--detach"]);
        assert_eq!(up.code, 0, "{up:?}");
        assert!(
            up.stderr.contains(&format!("peerlane apply {name}")),
            "says what to do: {up:?}"
        );
        same("after SIGKILL and up FILE");

        // SIGTERM drains, SIGHUP is no reason to end.
        let daemon = rustix::process::Pid::from_raw(peerlane.daemon_pid()).unwrap();
        rustix::process::kill_process(daemon, rustix::process::Signal::HUP).unwrap();
        same("after SIGHUP");
        assert_eq!(peerlane.daemon_pid(), daemon.as_raw_pid());
        rustix::process::kill_process(daemon, rustix::process::Signal::TERM).unwrap();
        orphaned();
        let up = peerlane.run(["up", &name, "--detach"]);
        assert_eq!(up.code, 0, "{up:?}");
        assert_eq!(up.stderr, "", "nothing differs");
        same("after SIGTERM and up NAME");

        let daemon = peerlane.daemon_pid();
        let again = peerlane.run(["restart", &name]);
        assert_eq!(again.code, 0, "{again:?}");
        assert_ne!(peerlane.daemon_pid(), daemon);
        same("after restart");
        assert_eq!(peerlane.run(["test", &name]).code, 0);
        assert_eq!(peerlane.run(["down", &name]).code, 0);
        peerlane.assert_nothing_left(&name);
        let gone = peerlane.run(["up", &name, "--detach"]);
        assert_eq!(gone.code, 3, "{gone:?}");
    }
}

/// The lab is what it was, whatever becomes of the file of service tags beside it.
#[test]
fn service_tags_stay_what_they_were_when_their_file_is_gone() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("tags");
    let tags = peerlane.dir.join("tags.json");
    let text =
        r#"{ "values": [ { "name": "Own", "properties": { "addressPrefixes": ["203.0.113.0/24"] } } ] }"#;
    fs::write(&tags, text).unwrap();
    let lab = two_vnets(&name, "").replace("\nvnets:", "\nserviceTags: tags.json\nvnets:");
    let lab = lab.replacen("sourceAddressPrefix: \"*\"", "sourceAddressPrefix: Own", 1);
    peerlane.up(&peerlane.file(&name, &lab));
    let before = state_of(&peerlane, &name);
    assert!(before[2].contains("203.0.113.0/24"), "{}", before[2]);
    fs::remove_file(&tags).unwrap();
    let restart = peerlane.run(["restart", &name]);
    assert_eq!(restart.code, 0, "{restart:?}");
    assert_eq!(state_of(&peerlane, &name), before);
    let rule = peerlane.run(["nsg", "rule", "delete", "-n", "deny-all", "--nsg-name", "closed"]);
    assert_eq!(rule.code, 0, "{rule:?}");
    assert_eq!(peerlane.run(["restart", &name]).code, 0);
    assert_eq!(peerlane.run(["down", &name]).code, 0);
    peerlane.assert_nothing_left(&name);
}

#[test]
fn a_damaged_store_is_reported_and_the_lab_left_alone() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("damaged");
    let file = changed_lab(&peerlane, &name);
    let before = state_of(&peerlane, &name);
    kill(peerlane.daemon_pid());
    assert!(wait_for(SOON, || peerlane.list()[0]["state"] == "Orphaned"));
    let store = peerlane.state_dir().join(&name).join("state.redb");
    let good = fs::read(&store).unwrap();
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let mut refused = 0;
    for part in 0..8 {
        let mut bad = good.clone();
        for at in &used[part * used.len() / 8..][..used.len() / 8] {
            bad[*at] ^= 0x55;
        }
        fs::write(&store, bad).unwrap();
        let up = peerlane.run(["up", file.to_str().unwrap(), "--detach"]);
        if up.code == 0 {
            // Only what earlier transactions left was hit.
            assert_eq!(state_of(&peerlane, &name), before, "part {part}");
            kill(peerlane.daemon_pid());
            assert!(wait_for(SOON, || peerlane.list()[0]["state"] == "Orphaned"));
            continue;
        }
        refused += 1;
        assert_eq!(up.code, 1, "part {part}: {up:?}");
        assert!(up.stderr.contains("state.redb"), "says where: {up:?}");
        assert!(
            up.stderr.contains(&format!("peerlane down {name}")),
            "says what to do: {up:?}"
        );
        assert_eq!(peerlane.list()[0]["state"], "Orphaned", "its programs still run");
    }
    assert!(refused > 2, "{refused} of 8");
    fs::write(&store, good).unwrap();
    peerlane.up(&file);
    assert_eq!(peerlane.run(["exec", "d", "--", "true"]).code, 0);
    assert_eq!(peerlane.run(["down", &name]).code, 0);
    peerlane.assert_nothing_left(&name);
}
