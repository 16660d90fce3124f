//! Running the real binary from tests: as root and as an ordinary user, with labs that are gone when a test ends.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// `nobody`: an ordinary user without any privilege.
const NOBODY: u32 = 65534;

/// In the environment of every process that a test starts, directly or not.
const MARK: &str = "PEERLANE_TEST";

/// Who runs the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// Whoever runs the tests.
    Caller,
    Nobody,
}

/// Everybody a test can play: root and an ordinary user where the tests run as root, else the caller alone.
pub(crate) fn users() -> Vec<User> {
    if rustix::process::geteuid().is_root() {
        vec![User::Caller, User::Nobody]
    } else {
        vec![User::Caller]
    }
}

/// The binary with a state directory of its own, so that tests see their own labs only. When it is dropped its labs
/// are taken down, its processes ended and its directory removed, also when the test panics.
#[derive(Debug)]
pub(crate) struct Peerlane {
    pub(crate) user: User,
    pub(crate) dir: PathBuf,
    binary: PathBuf,
    /// Whether there is a /dev/net/tun.
    tun: bool,
    /// Whether there is a program bird.
    bird: bool,
}

/// What a run of the binary came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Peerlane {
    pub(crate) fn new(user: User) -> Self {
        let dir = std::env::temp_dir().join(unique("peerlane-test"));
        for (directory, mode) in [("", 0o755), ("state", 0o700), ("tmp", 0o700)] {
            let directory = dir.join(directory);
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        }
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_peerlane"));
        if user == User::Nobody {
            // The target directory may lie where only its owner looks.
            let copy = dir.join("peerlane");
            fs::copy(&binary, &copy).unwrap();
            fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
            binary = copy;
            for own in ["state", "tmp"] {
                chown(dir.join(own), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        Self {
            user,
            dir,
            binary,
            tun: true,
            bird: true,
        }
    }

    /// On a machine without /dev/net/tun; for tests that run as root.
    pub(crate) fn without_tun(user: User) -> Self {
        let mut peerlane = Self::new(user);
        peerlane.tun = false;
        peerlane
    }

    /// On a machine without BIRD; for tests that run as root.
    pub(crate) fn without_bird(user: User) -> Self {
        let mut peerlane = Self::new(user);
        peerlane.bird = false;
        peerlane
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// What the control socket of a lab answers.
    pub(crate) fn get(&self, lab: &str, path: &str) -> String {
        let socket = self.state_dir().join(lab).join("api.sock");
        let output = Command::new("curl")
            .args(["-sS", "--fail", "--unix-socket"])
            .arg(socket)
            .arg(format!("http://localhost{path}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{path}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A command of the binary as the user, with the state directory of the test.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = match (self.user, self.tun && self.bird) {
            (User::Caller, true) => Command::new(&self.binary),
            (user, _) => {
                // A /dev/net of its own: the machine's may be closed to ordinary users, and must not be changed.
                let node = if self.tun {
                    "&& mknod -m 666 /dev/net/tun c 10 200"
                } else {
                    ""
                };
                let identity = match user {
                    User::Caller => "",
                    User::Nobody => "setpriv --reuid 65534 --regid 65534 --clear-groups",
                };
                let bird = if self.bird {
                    ""
                } else {
                    "&& mount --bind /dev/null /usr/sbin/bird"
                };
                let script = format!("mount -t tmpfs none /dev/net {node} {bird} && exec {identity} \"$@\"");
                let mut command = Command::new("unshare");
                command
                    .args(["--mount", "sh", "-c", &script, "sh"])
                    .arg(&self.binary);
                command
            }
        };
        command
            .args(arguments)
            .env("PEERLANE_STATE_DIR", self.state_dir())
            .env("TMPDIR", self.dir.join("tmp"))
            .env(MARK, &self.dir)
            .env_remove("NO_COLOR")
            .current_dir(&self.dir);
        if self.user == User::Nobody {
            command
                .env("HOME", &self.dir)
                // Root's may lead to places where this user must not look.
                .env("PATH", "/usr/local/bin:/usr/bin:/bin")
                .env_remove("XDG_RUNTIME_DIR");
        }
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command(arguments).stdin(Stdio::null()).output().unwrap())
    }

    pub(crate) fn run_with_stdin<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        stdin: &str,
    ) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    /// Starts a program in a VM and leaves it running.
    pub(crate) fn spawn(&self, lab: &str, vm: &str, program: &[&str]) -> Child {
        let arguments = ["exec", "--lab", lab, vm, "--"]
            .into_iter()
            .chain(program.iter().copied());
        self.command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap()
    }

    /// Runs a program in a VM to its end.
    pub(crate) fn exec(&self, lab: &str, vm: &str, program: &[&str]) -> Ran {
        self.run(
            ["exec", "--lab", lab, vm, "--"]
                .into_iter()
                .chain(program.iter().copied()),
        )
    }

    /// Writes a lab file that this user can read.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(format!("{name}.vnet.yaml"));
        fs::write(&path, text).unwrap();
        path
    }

    /// Brings a lab up and returns when it forwards.
    pub(crate) fn up(&self, file: &Path) {
        let ran = self.run(["up", file.to_str().unwrap(), "--detach"]);
        assert_eq!(ran.code, 0, "up failed: {ran:?}");
    }

    /// `list -o json`.
    pub(crate) fn list(&self) -> Vec<Value> {
        let ran = self.run(["list", "-o", "json"]);
        assert_eq!(ran.code, 0, "list failed: {ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// The process id of the only lab's daemon.
    pub(crate) fn daemon_pid(&self) -> i32 {
        let labs = self.list();
        assert_eq!(labs.len(), 1, "{labs:?}");
        i32::try_from(labs[0]["pid"].as_i64().unwrap()).unwrap()
    }

    /// The process id of the only keeper.
    pub(crate) fn keeper_pid(&self) -> i32 {
        let keepers: Vec<i32> = self
            .processes()
            .into_iter()
            .filter(|(_, line)| line.contains("keeper"))
            .map(|(pid, _)| pid)
            .collect();
        assert!(!keepers.is_empty(), "no keeper among {:?}", self.processes());
        // Where the keeper forked its PID 1 the older one is the parent; both end together.
        keepers[0]
    }

    /// Every process that was started by the binary of this test, with its command line. A process that has ended and
    /// waits for its parent does not count.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let wanted = format!("{MARK}={}", self.dir.display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted.as_bytes())
            {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// What is left of the test's labs: processes, files of the state directory, names and mounts under /run/netns.
    pub(crate) fn leftovers(&self, lab: &str) -> Vec<String> {
        let mut left: Vec<String> = self
            .processes()
            .into_iter()
            .map(|(pid, line)| format!("process {pid} {line}"))
            .collect();
        for directory in ["state", "tmp"] {
            let entries = fs::read_dir(self.dir.join(directory))
                .into_iter()
                .flatten()
                .flatten();
            left.extend(entries.map(|entry| format!("file {}", entry.path().display())));
        }
        if let Ok(names) = fs::read_dir("/run/netns") {
            let names = names
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned());
            left.extend(
                names
                    .filter(|name| name.starts_with(&format!("{lab}-")))
                    .map(|name| format!("netns {name}")),
            );
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mark = self.dir.display().to_string();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&mark))
                .map(|line| format!("mount {line}")),
        );
        left
    }

    /// Fails unless nothing is left within a few seconds: the kernel ends namespaces and processes by and by.
    pub(crate) fn assert_nothing_left(&self, lab: &str) {
        let settled = wait_for(Duration::from_secs(5), || self.leftovers(lab).is_empty());
        assert!(settled, "left behind: {:#?}", self.leftovers(lab));
    }
}

impl Drop for Peerlane {
    fn drop(&mut self) {
        if self.state_dir().exists() {
            let listed = self.run(["list", "-o", "json"]);
            let labs: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap_or_default();
            for name in labs.iter().filter_map(|lab| lab["name"].as_str()) {
                self.run(["down", name]);
            }
        }
        for (pid, _) in self.processes() {
            kill(pid);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            // 128 + the signal, as shells say it.
            code: output.status.code().unwrap_or_else(|| {
                128 + std::os::unix::process::ExitStatusExt::signal(&output.status).unwrap()
            }),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// SIGKILL.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// A name no other test or run has: 20 characters at most, for lab names are at most 32.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{prefix}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Whether the condition comes true in time.
pub(crate) fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        sleep(Duration::from_millis(50));
    }
}

/// Fails a test that only root can run, instead of passing without having looked.
pub(crate) fn need_root(what: &str) {
    assert!(rustix::process::geteuid().is_root(), "only root can test {what}");
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Two peered VNets, dual stack: `a` in one, `b` and `c` in the other; `c` denies everything inbound.
pub(crate) fn two_vnets(name: &str, run_in_b: &str) -> String {
    let run = if run_in_b.is_empty() {
        String::new()
    } else {
        format!("run: [{}]", Value::from(run_in_b))
    };
    format!(
        r#"
apiVersion: peerlane/v1
kind: Lab
name: {name}
profile: azure-2025
vnets:
  one: {{ addressSpace: [10.0.0.0/16, "fd00:a::/48"], subnets: {{ default: {{ addressPrefixes: [10.0.0.0/24, "fd00:a::/64"] }} }} }}
  two: {{ addressSpace: [10.1.0.0/16, "fd00:b::/48"], subnets: {{ default: {{ addressPrefixes: [10.1.0.0/24, "fd00:b::/64"] }} }} }}
peerings: [ one <-> two ]
networkSecurityGroups:
  closed:
    securityRules:
      deny-all: {{ priority: 100, direction: Inbound, access: Deny, protocol: "*", sourceAddressPrefix: "*",
                  sourcePortRange: "*", destinationAddressPrefix: "*", destinationPortRange: "*" }}
vms:
  a: {{ nics: [ {{ name: a-nic, subnet: one/default, privateIPAddresses: [10.0.0.4, "fd00:a::4"] }} ] }}
  b: {{ nics: [ {{ name: b-nic, subnet: two/default, privateIPAddresses: [10.1.0.4, "fd00:b::4"] }} ], {run} }}
  c: {{ nics: [ {{ name: c-nic, subnet: two/default, privateIPAddresses: [10.1.0.5, "fd00:b::5"], networkSecurityGroup: closed }} ] }}
tests:
  - {{ from: a, to: b, protocol: Tcp, port: 80, expect: Allow }}
  - {{ from: a, to: b, protocol: Icmp, expect: Allow }}
  - {{ from: a, to: c, protocol: Udp, port: 53, expect: Deny, reason: NsgInbound }}
"#
    )
}
