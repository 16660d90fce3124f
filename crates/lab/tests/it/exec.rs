//! Running programs in a lab.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};

use lab::{Keeper, RunDir, exec};

use crate::bring_up::{name, wait_for};

/// What `peerlane exec` does.
pub(crate) fn main(lab: &OsStr, namespace: &OsStr, command: &[OsString]) -> ExitCode {
    let run_dir = RunDir::open(lab.to_str().unwrap()).unwrap();
    let namespaces = Keeper::connect(&run_dir)
        .unwrap()
        .namespaces(namespace.to_str().unwrap())
        .unwrap();
    match exec::run(&namespaces, command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(125)
        }
    }
}

/// A lab brought up by a daemon, as the caller must not be inside its user namespace.
fn with_lab(work: impl FnOnce(&str)) {
    let name = name();
    let (mut daemon, _output) = crate::bring_up::start_daemon(&name);
    work(&name);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    lab::down::stop(&name).unwrap();
}

fn exec(lab: &str, command: &[&str]) -> Command {
    let mut exec = Command::new("/proc/self/exe");
    exec.args(["exec", lab, "web"]).args(command).stdin(Stdio::null());
    exec
}

pub(crate) fn passes_exit_codes() {
    with_lab(|lab| {
        let code = |command: &[&str]| exec(lab, command).status().unwrap().code().unwrap();
        assert_eq!(code(&["true"]), 0);
        assert_eq!(code(&["sh", "-c", "exit 77"]), 77);
        assert_eq!(code(&["sh", "-c", "kill -KILL $$"]), 137);
        assert_eq!(code(&["sh", "-c", "kill -SEGV $$"]), 139);
        assert_eq!(code(&["/no/such/program"]), 127);
        assert_eq!(code(&["no-such-program"]), 127);
        assert_eq!(code(&["/etc/passwd"]), 126);
        assert_eq!(code(&["/etc"]), 126);
        assert_eq!(code(&[]), 125);
    });
}

pub(crate) fn is_inside() {
    with_lab(|lab| {
        let output = |command: &str| {
            let output = exec(lab, &["sh", "-c", command])
                .current_dir("/usr")
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(output("ip -o addr").contains("10.1.0.4/24"));
        // /proc and the process ids are the lab's.
        assert_eq!(output("cat /proc/1/comm"), "pl-keeper\n");
        assert_eq!(output("pwd; id -u"), "/usr\n0\n");
        // No descriptors but those of the caller.
        let descriptors = "echo $(ls /proc/self/fd)";
        let own = Command::new("sh")
            .args(["-c", descriptors])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output(descriptors), String::from_utf8(own.stdout).unwrap());
        // The mounts that it makes for itself stay out of the way of the machine's.
        assert!(
            !fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .contains("labit")
        );
    });
}

pub(crate) fn passes_signals() {
    use rustix::process::{Pid, Signal, kill_process};
    with_lab(|lab| {
        let run_dir = RunDir::open(lab).unwrap();
        let ready = run_dir.file("ready");
        let wait = format!(
            "trap 'exit 42' TERM; touch {}; while :; do sleep 0.05; done",
            ready.display()
        );
        let mut child = exec(lab, &["sh", "-c", &wait]).spawn().unwrap();
        wait_for("the program", || ready.exists());
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(42));
        fs::remove_file(&ready).unwrap();

        // The program does not outlive a caller that is killed.
        let mut child = exec(lab, &["sh", "-c", &wait]).spawn().unwrap();
        wait_for("the program", || ready.exists());
        let running = || {
            let all = fs::read_dir("/proc").unwrap().flatten();
            let lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
            lines.filter(|line| line.starts_with("sh\0-c\0trap")).count()
        };
        assert!(running() > 0);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        wait_for("its end", || running() == 0);
    });
}

pub(crate) fn keeps_job_control() {
    with_lab(|lab| {
        // A terminal by script(1), an interactive shell on it, and a job that is stopped and continued.
        let shell = format!("/proc/{}/exe exec {lab} web bash --norc -i", std::process::id());
        let mut terminal = Command::new("script");
        terminal
            .args(["-qec", &shell, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut terminal = terminal.spawn().expect("this test needs script(1)");
        let keys = "sleep 1000 & kill -STOP %1; sleep 0.2; jobs; kill -KILL %1; echo tty $(tty); exit 5\n";
        std::io::Write::write_all(&mut terminal.stdin.take().unwrap(), keys.as_bytes()).unwrap();
        let output = terminal.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(5), "{text}");
        assert!(
            text.contains("Stopped") && text.contains("tty /dev/pts/"),
            "{text}"
        );
        assert!(!text.contains("no job control"), "{text}");
    });
}
