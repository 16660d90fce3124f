//! Runs the cases, each in a process of its own, and looks for what they leave behind.
#![expect(
    unsafe_code,
    reason = "unshare(2) has no safe binding; it is called without CLONE_FILES"
)]

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{As, CASES};

const USER: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the cases whose names contain one of the words given.
pub(crate) fn run(words: &[OsString]) -> ExitCode {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests make namespaces and change users: run as root"
    );
    let wanted = |name: &str| {
        let mut words = words
            .iter()
            .filter_map(|word| word.to_str())
            .filter(|word| !word.starts_with('-'));
        words.clone().next().is_none() || words.any(|word| name.contains(word))
    };
    own_tun_device();
    let program = Program::copy();
    let mut failed = Vec::new();
    for (name, users, _) in CASES.iter().filter(|(name, ..)| wanted(name)) {
        for user in *users {
            let shown = format!("{name} as {}", if *user == As::Root { "root" } else { "user" });
            let start = Instant::now();
            match run_case(&program, name, *user) {
                Ok(()) => println!("test {shown} ... ok ({} ms)", start.elapsed().as_millis()),
                Err(why) => {
                    println!("test {shown} ... FAILED\n{why}\n");
                    failed.push(shown);
                }
            }
        }
    }
    println!("\n{} failed: {failed:?}", failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Puts a /dev/net/tun that is open to everybody in place, for this process and its children alone.
fn own_tun_device() {
    use rustix::fs::{FileType, Mode, makedev, mknodat};
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    // SAFETY: NEWNS does not touch the table of file descriptors, the one hazard of this call.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .unwrap();
    fs::create_dir_all("/dev/net").unwrap();
    mount("tmpfs", "/dev/net", "tmpfs", MountFlags::NOSUID, None).unwrap();
    let mode = Mode::from_raw_mode(0o666);
    mknodat(
        rustix::fs::CWD,
        "/dev/net/tun",
        FileType::CharacterDevice,
        mode,
        makedev(10, 200),
    )
    .unwrap();
    fs::set_permissions("/dev/net/tun", fs::Permissions::from_mode(0o666)).unwrap();
}

/// Runs one case here.
pub(crate) fn case(name: &OsStr) -> ExitCode {
    let case = CASES
        .iter()
        .find(|(known, ..)| *known == name)
        .expect("a known case");
    (case.2)();
    ExitCode::SUCCESS
}

/// A copy of this program where every user can run it, removed at the end.
struct Program {
    directory: PathBuf,
}

impl Program {
    fn copy() -> Self {
        let directory = std::env::temp_dir().join(format!("lab-it-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy("/proc/self/exe", directory.join("it")).unwrap();
        fs::set_permissions(directory.join("it"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("it")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn run_case(program: &Program, name: &str, user: As) -> Result<(), String> {
    let state = program.directory.join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let before = Leftovers::now(&program.path());
    let output = fs::File::create(program.directory.join("output")).unwrap();
    let mut command = Command::new(program.path());
    command
        .args(["case", name])
        .env("PEERLANE_STATE_DIR", &state)
        .env_remove("XDG_RUNTIME_DIR");
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    if user == As::User {
        chown(&state, Some(USER), Some(USER)).unwrap();
        command.uid(USER).gid(USER);
    }
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => sleep(Duration::from_millis(5)),
        }
    };
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = fs::read_to_string(program.directory.join("output")).unwrap();
    let mut problems = Vec::new();
    match status {
        None => problems.push(format!("no end after {PATIENCE:?}")),
        Some(status) if !status.success() => problems.push(status.to_string()),
        Some(_) => problems.extend(before.leaks(&program.path(), &state)),
    }
    // Whatever a broken case left.
    for pid in processes_of(&program.path()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    while !processes_of(&program.path()).is_empty() {
        sleep(Duration::from_millis(5));
    }
    fs::remove_dir_all(&state).unwrap();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("{}\n{output}", problems.join("\n")))
    }
}

/// What there is of processes, names and mounts outside the labs.
#[derive(PartialEq, Eq)]
struct Leftovers {
    processes: usize,
    names: BTreeSet<OsString>,
    mounts: String,
}

impl Leftovers {
    fn now(program: &Path) -> Self {
        let names = fs::read_dir("/run/netns").map(|names| names.flatten().map(|name| name.file_name()));
        // Others test at the same time.
        let ours = |name: &OsString| name.to_string_lossy().starts_with("labit");
        Self {
            processes: processes_of(program).len(),
            names: names
                .map(|names| names.filter(ours).collect())
                .unwrap_or_default(),
            mounts: fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .lines()
                .filter(|line| line.contains("labit"))
                .collect(),
        }
    }

    fn leaks(&self, program: &Path, state: &Path) -> Vec<String> {
        let mut leaks = Vec::new();
        let after = Self::now(program);
        if after.processes != self.processes {
            leaks.push(format!("{} processes are left", after.processes));
        }
        if after.names != self.names {
            leaks.push(format!("names are left: {:?}", after.names));
        }
        if after.mounts != self.mounts {
            leaks.push(format!("mounts are left: {}", after.mounts));
        }
        leaks.extend(
            fs::read_dir(state)
                .unwrap()
                .flatten()
                .map(|left| format!("{:?} is left", left.path())),
        );
        leaks
    }
}

/// Processes that run the copied program, daemons and keepers of a case too.
fn processes_of(program: &Path) -> Vec<rustix::process::Pid> {
    let runs = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    let all = fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(runs)
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
}
