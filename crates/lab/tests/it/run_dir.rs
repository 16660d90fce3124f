//! Run directories, locks and names.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Error, LabState, Namespace, RunDir, netns_names, rootless};

use crate::bring_up::name;

pub(crate) fn is_safe() {
    let state = PathBuf::from(std::env::var_os("PEERLANE_STATE_DIR").unwrap());
    for lab in [
        "",
        ".",
        "..",
        "../x",
        "/etc",
        "a/b",
        "a b",
        "a\n",
        "é",
        &"x".repeat(33),
    ] {
        assert!(matches!(RunDir::create(lab), Err(Error::Spec(_))), "{lab:?}");
        assert!(matches!(RunDir::open(lab), Err(Error::Spec(_))), "{lab:?}");
        assert!(lab::down::stop(lab).is_err(), "{lab:?}");
    }
    let elsewhere = state.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "").unwrap();
    symlink(&elsewhere, state.join("link")).unwrap();
    fs::create_dir(state.join("open")).unwrap();
    fs::set_permissions(state.join("open"), fs::Permissions::from_mode(0o770)).unwrap();
    fs::write(state.join("file"), "").unwrap();
    for lab in ["link", "open", "file"] {
        assert!(
            matches!(RunDir::create(lab), Err(Error::UnsafeDirectory { .. })),
            "{lab}"
        );
        assert!(lab::down::stop(lab).is_err(), "{lab}");
    }
    if rootless::privileged() {
        std::os::unix::fs::chown(state.join("open"), Some(65534), None).unwrap();
        fs::set_permissions(state.join("open"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(
            RunDir::create("open"),
            Err(Error::UnsafeDirectory { .. })
        ));
    }
    assert!(elsewhere.join("precious").exists());
    // A lock that is a link is not followed either.
    fs::create_dir(state.join("lock")).unwrap();
    fs::set_permissions(state.join("lock"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink(elsewhere.join("precious"), state.join("lock/daemon.lock")).unwrap();
    assert!(RunDir::create("lock").is_err());
    assert_eq!(fs::read_to_string(elsewhere.join("precious")).unwrap(), "");
    let (run_dir, lock) = RunDir::create(&name()).unwrap();
    assert_eq!(
        fs::metadata(run_dir.path()).unwrap().permissions().mode() & 0o7777,
        0o700
    );
    run_dir.remove(lock).unwrap();
    for left in ["elsewhere", "open", "lock"] {
        fs::remove_dir_all(state.join(left)).unwrap();
    }
    fs::remove_file(state.join("link")).unwrap();
    fs::remove_file(state.join("file")).unwrap();
}

pub(crate) fn tells_who_lives() {
    assert!(RunDir::list().unwrap().is_empty());
    let name = name();
    assert!(matches!(RunDir::open(&name), Err(Error::NotFound(_))));
    let (run_dir, lock) = RunDir::create(&name).unwrap();
    fs::write(run_dir.file("lab.json"), "{}").unwrap();
    let list = RunDir::list().unwrap();
    assert_eq!(
        (list[0].state, list[0].run_dir.lab()),
        (LabState::Starting, name.as_str())
    );
    let own = std::process::id().cast_signed();
    assert_eq!(list[0].daemon_pid, Some(own));
    assert!(matches!(RunDir::create(&name), Err(Error::Running { pid, .. }) if pid == own));
    // The daemon died: the next command removes what it left.
    drop(lock);
    assert!(RunDir::list().unwrap().is_empty());
    assert!(!run_dir.path().exists());
    // Or the next daemon does.
    let (run_dir, lock) = RunDir::create(&name).unwrap();
    fs::create_dir(run_dir.file("log")).unwrap();
    drop(lock);
    let (run_dir, lock) = RunDir::create(&name).unwrap();
    assert!(!run_dir.file("log").exists());
    run_dir.remove(lock).unwrap();
}

/// Daemons that come and go while others look: one at a time holds the lab, and nobody fails otherwise.
pub(crate) fn bears_races() {
    let name = name();
    let holders = std::sync::atomic::AtomicUsize::new(0);
    let made = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 0..60 {
                    match RunDir::create(&name) {
                        Err(Error::Running { .. }) => continue,
                        Err(error) => panic!("{error}"),
                        Ok((run_dir, lock)) => {
                            use std::sync::atomic::Ordering::SeqCst;
                            assert_eq!(holders.fetch_add(1, SeqCst), 0);
                            made.fetch_add(1, SeqCst);
                            fs::write(run_dir.file("lab.json"), "{}").unwrap();
                            assert!(run_dir.file("lab.json").exists());
                            holders.fetch_sub(1, SeqCst);
                            if round % 2 == 0 {
                                run_dir.remove(lock).unwrap();
                            }
                        }
                    }
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..300 {
                    RunDir::list().unwrap();
                }
            });
        }
    });
    assert!(made.into_inner() > 60);
    RunDir::list().unwrap();
}

pub(crate) fn names_are_ours_alone() {
    let name = name();
    let (run_dir, lock) = RunDir::create(&name).unwrap();
    let path = |vm: &str| Path::new("/run/netns").join(format!("{name}-{vm}"));
    let web = Namespace::create().unwrap();
    netns_names::bind(&run_dir, "web", &web).unwrap();
    netns_names::bind(&run_dir, "group/db", &Namespace::create().unwrap()).unwrap();
    let ip = |arguments: &[&str]| Command::new("ip").args(arguments).output().unwrap();
    assert!(
        ip(&["netns", "exec", &format!("{name}-web"), "true"])
            .status
            .success()
    );
    assert!(path("group:db").exists());
    let same =
        |path: &Path| rustix::fs::stat(path).unwrap().st_ino == rustix::fs::fstat(web.fd()).unwrap().st_ino;
    assert!(same(&path("web")));
    assert!(matches!(
        netns_names::bind(&run_dir, "web", &web),
        Err(Error::NameTaken(_))
    ));
    // Foreign: made by another, even after one of ours was removed by hand.
    assert!(ip(&["netns", "add", &format!("{name}-foreign")]).status.success());
    assert!(matches!(
        netns_names::bind(&run_dir, "foreign", &web),
        Err(Error::NameTaken(_))
    ));
    assert!(ip(&["netns", "delete", &format!("{name}-web")]).status.success());
    assert!(ip(&["netns", "add", &format!("{name}-web")]).status.success());
    assert!(!same(&path("web")));
    // A daemon that died leaves names, and the next command removes ours alone.
    drop(lock);
    assert!(RunDir::list().unwrap().is_empty());
    assert!(!path("group:db").exists());
    for left in ["foreign", "web"] {
        assert!(
            ip(&["netns", "exec", &format!("{name}-{left}"), "true"])
                .status
                .success()
        );
        assert!(
            ip(&["netns", "delete", &format!("{name}-{left}")])
                .status
                .success()
        );
    }
}

pub(crate) fn privileges_are_tried() {
    let checks = rootless::privileges();
    assert_eq!(checks.len(), if rootless::privileged() { 2 } else { 3 });
    for check in checks {
        assert_eq!(check.problem, None, "{}", check.name);
    }
    if rootless::privileged() {
        return;
    }
    // A user namespace of ours in which no more are allowed.
    rootless::enter_user_namespace().unwrap();
    fs::write("/proc/sys/user/max_net_namespaces", "0").unwrap();
    let refused = Namespace::create().unwrap_err();
    assert_eq!(refused.exit_code(), 5);
    assert!(
        refused.to_string().contains("user.max_net_namespaces"),
        "{refused}"
    );
    let checks = rootless::privileges();
    assert!(checks.iter().any(|check| check.problem.is_some()), "{checks:?}");
}
