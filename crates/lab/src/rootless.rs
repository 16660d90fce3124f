//! The user namespace of a lab that does not run as root.
#![expect(
    unsafe_code,
    reason = "unshare(2) has no safe binding; checks unshare between fork and exec"
)]

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::error::{Error, Result};

/// Whether this process may make namespaces as it is: root, or already inside a user namespace of its own.
#[must_use]
pub fn privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// Enters a user namespace where the caller's uid and gid are root. Call it before any thread starts, and after the
/// run directory is opened.
///
/// # Errors
/// [`Error::Machine`] with the limit or policy that refused, and how to change it.
pub fn enter_user_namespace() -> Result<()> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    // SAFETY: NEWUSER does not touch the table of file descriptors, the one hazard of this call.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }
        .map_err(|errno| refused("a user namespace", errno.into()))?;
    // Who may change groups could shed one that forbids: the kernel wants it given up before the map.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| refused(&format!("to map user {uid} in a user namespace ({file})"), error))?;
    }
    Ok(())
}

/// One thing the machine must allow, tried for real.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was tried.
    pub name: &'static str,
    /// None: it works. Otherwise cause and remedy.
    pub problem: Option<(String, String)>,
}

/// Tries what a lab needs (a user namespace unless root; network, PID and mount namespaces in it) in child processes.
#[must_use]
pub fn privileges() -> Vec<Check> {
    let mut checks = Vec::new();
    if !privileged() {
        checks.push(check("user namespace", UnshareFlags::empty()));
    }
    checks.push(check("network namespace", UnshareFlags::NEWNET));
    checks.push(check(
        "PID and mount namespaces",
        UnshareFlags::NEWPID | UnshareFlags::NEWNS,
    ));
    checks
}

fn check(name: &'static str, flags: UnshareFlags) -> Check {
    let mut child = Command::new("/bin/sh");
    child
        .args(["-c", ":"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: the child is forked from a process of one thread (the documentation of `enter_user_namespace` asks for
    // it), so allocating in it cannot meet a lock that is held; NEWUSER and `flags` leave descriptors alone.
    unsafe {
        child.pre_exec(move || {
            if !privileged() {
                enter_user_namespace().map_err(|error| match error {
                    Error::Machine { .. } => io::Error::from(Errno::PERM),
                    other => io::Error::other(other.to_string()),
                })?;
            }
            Ok(unshare_unsafe(flags)?)
        });
    }
    let problem = match child.status() {
        Ok(status) if status.success() => None,
        Ok(status) => Some((format!("/bin/sh fails: {status}"), "repair /bin/sh".to_owned())),
        Err(error) => match refused(&format!("a {name}"), error) {
            Error::Machine { cause, remedy } => Some((cause, remedy)),
            other => Some((other.to_string(), String::new())),
        },
    };
    Check { name, problem }
}

/// Finds the switch that explains a refusal.
fn refused(what: &str, error: io::Error) -> Error {
    let setting = |path: &str| {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let cause = format!("the kernel refuses {what}: {error}");
    let limit = setting("/proc/sys/user/max_user_namespaces");
    let remedy = if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) || limit == "0" {
        format!("raise the limit (now {limit}) as root: sysctl user.max_user_namespaces=10000")
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        "allow it as root: sysctl kernel.unprivileged_userns_clone=1".to_owned()
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "allow it as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with `userns`".to_owned()
    } else if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
        "the kernel needs CONFIG_USER_NS".to_owned()
    } else {
        "run as root, or outside the container or sandbox whose policy forbids user namespaces".to_owned()
    };
    Error::machine(cause, remedy)
}
