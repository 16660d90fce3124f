//! A network namespace around a test: the test binary runs itself again inside one, and the namespace ends with it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use port::Queue;

/// Set in the process inside.
const INSIDE: &str = "PEERLANE_ORACLE_NAMESPACE";

/// The namespace's only device, a TUN.
pub(crate) const DEVICE: &str = "pl0";

/// True inside the namespace. Outside it runs the test of that name inside, fails when that fails, and returns false.
pub(crate) fn entered(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("this test binary");
    let status = Command::new("unshare")
        .args(["--net", "--"])
        .arg(program)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare of util-linux");
    assert!(
        status.success(),
        "{test} failed in its network namespace ({status}); making one needs root"
    );
    false
}

/// Makes the device and sets it up, without addresses: the kernel would add routes of its own.
pub(crate) fn device() -> Queue {
    let device = port::plain::open(DEVICE).expect("a TUN device: /dev/net/tun and CAP_NET_ADMIN");
    must(&["ip", "link", "set", DEVICE, "addrgenmode", "none"], "");
    must(&["ip", "link", "set", DEVICE, "up"], "");
    device.into_queues().pop().expect("one queue")
}

/// Runs a program on `input` and returns what it printed to both outputs. Its exit status is for the caller's reading of them.
pub(crate) fn run(program: &[&str], input: &str) -> (bool, String, String) {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program[0]));
    let mut stdin = child.stdin.take().expect("a pipe");
    // Both pipes can fill: one side in a thread.
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            stdin
                .write_all(input.as_bytes())
                .expect("the program reads its input")
        });
        child.wait_with_output().expect("the program ends")
    });
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Runs a program that must succeed without a word of complaint.
pub(crate) fn must(program: &[&str], input: &str) -> String {
    let (success, stdout, stderr) = run(program, input);
    assert!(success && stderr.is_empty(), "{program:?}: {stderr}");
    stdout
}
