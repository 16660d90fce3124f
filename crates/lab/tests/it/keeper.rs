//! The keeper: what it holds, what it survives, what ends it.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use lab::{Error, Keeper, LabState, Namespace, RunDir, down};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::bring_up::{beats, name, namespace, spec, start_daemon, up, wait_for};
use crate::{bring_up, tun};

pub(crate) fn holds_everything() {
    let spec = spec(&name());
    let mut up = up(&spec);
    assert_eq!(up.keeper.lab().unwrap(), Some(vec![spec.clone()]));
    let held = up.keeper.tun("web", "eth0").unwrap();
    assert_eq!((held.metadata.as_str(), held.queues.len()), ("plain", 1));
    assert_eq!(up.keeper.tun("WEB", "eth0").unwrap().queues.len(), 1);
    assert!(matches!(up.keeper.tun("web", "eth1"), Err(Error::NotFound(_))));
    assert!(matches!(up.keeper.namespaces("db"), Err(Error::NotFound(_))));
    let twice = up.keeper.hold_namespace("web", &Namespace::create().unwrap());
    assert!(matches!(twice, Err(Error::Keeper(_))), "{twice:?}");
    let listed = up.keeper.held().unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|held| (held.name.as_str(), held.tuns.len()))
        .collect();
    assert_eq!(listed, [("web", 1)]);
    // A spec far larger than any message.
    let mut large = spec.clone();
    large.namespaces = vec![spec.namespaces[0].clone(); 3000];
    up.keeper.hold_lab(&[&large]).unwrap();
    assert_eq!(up.keeper.lab().unwrap(), Some(vec![large]));
    // The interface lives by the keeper's descriptor alone.
    up.tuns.clear();
    drop(held);
    let network = up.keeper.namespaces("web").unwrap().network;
    let devices = network
        .run(|| fs::read_to_string("/proc/thread-self/net/dev"))
        .unwrap()
        .unwrap();
    assert!(devices.contains("eth0:"), "{devices}");
    wait_for("the program's output", || beats(&up.run_dir) > 2);
    up.keeper.spawn("web", "exit 7").unwrap();
    let log = lab::keeper::log_path(up.run_dir.path(), "web");
    wait_for("the note of its end", || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("`exit 7` ended: exit code 7")
    });
    bring_up::down(up);
}

/// Far more descriptors than the usual soft limit, which the keeper raises for itself and not for programs.
pub(crate) fn holds_hundreds() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let low = Rlimit {
        current: Some(128),
        ..limit
    };
    setrlimit(Resource::Nofile, low).unwrap();
    let mut up = up(&lab::LabSpec {
        name: name(),
        namespaces: vec![],
    });
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .unwrap();
    for number in 0..300 {
        let address = format!("10.1.{}.{}/16", number / 200, number % 200 + 4);
        let vm = namespace(
            &format!("vm{number}"),
            vec![bring_up::interface("eth0", &[&address])],
        );
        let (network, tuns) = bring_up::make(&vm);
        up.keeper.hold_namespace(&vm.name, &network).unwrap();
        up.keeper
            .hold_tun(&vm.name, "eth0", "", &[tuns[0].as_fd()])
            .unwrap();
    }
    let report = up.run_dir.file("report");
    let show = format!(
        "ulimit -n > {0}.part; ip -o addr >> {0}.part; mv {0}.part {0}",
        report.display()
    );
    up.keeper.spawn("vm299", &show).unwrap();
    wait_for("the program's report", || report.exists());
    let text = fs::read_to_string(report).unwrap();
    assert!(
        text.starts_with("128\n") && text.contains("10.1.1.103/16"),
        "{text}"
    );
    bring_up::down(up);
}

pub(crate) fn outlives_the_daemon() {
    let name = name();
    let (mut daemon, _output) = start_daemon(&name);
    let list = RunDir::list().unwrap();
    assert_eq!((list.len(), list[0].state), (1, LabState::Running));
    assert_eq!(list[0].daemon_pid, Some(daemon.id().cast_signed()));
    assert!(matches!(RunDir::create(&name), Err(Error::Running { .. })));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!(RunDir::list().unwrap()[0].state, LabState::Orphaned);

    let (run_dir, lock) = RunDir::create(&name).unwrap();
    let mut keeper = Keeper::connect(&run_dir).unwrap();
    keeper.join_user_namespace().unwrap();
    assert_eq!(keeper.lab().unwrap(), Some(vec![spec(&name)]));
    let before = beats(&run_dir);
    wait_for("more output of the program that started before", || {
        beats(&run_dir) > before + 2
    });
    let held = keeper.tun("web", "eth0").unwrap();
    let tun = fs::File::from(held.queues.into_iter().next().unwrap());
    let packet = tun::read(&tun, Duration::from_secs(5)).expect("the program's packets on the adopted TUN");
    assert_eq!(
        (packet[0] >> 4, &packet[12..20]),
        (4, &[10, 1, 0, 4, 10, 1, 0, 9][..])
    );
    keeper.stop().unwrap();
    run_dir.remove(lock).unwrap();
    assert!(RunDir::list().unwrap().is_empty());
}

pub(crate) fn death_ends_programs() {
    let name = name();
    let (mut daemon, _output) = start_daemon(&name);
    let run_dir = RunDir::open(&name).unwrap();
    wait_for("the program", || beats(&run_dir) > 0);
    let keeper = Keeper::connect(&run_dir).unwrap();
    kill_process(Pid::from_raw(keeper.pid()).unwrap(), Signal::KILL).unwrap();
    wait_for("the keeper's end", || {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(
            &mut [PollFd::new(&keeper.liveness(), PollFlags::IN)],
            Some(&at_once),
        )
        .unwrap()
            == 1
    });
    // The keeper's end is reported after that of its last program.
    let after = beats(&run_dir);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(beats(&run_dir), after);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(RunDir::list().unwrap().is_empty());
    assert!(!run_dir.path().exists());
    assert!(matches!(down::stop(&name), Err(Error::NotFound(_))));
}

pub(crate) fn ignores_signals() {
    let up = up(&spec(&name()));
    let pid = Pid::from_raw(up.keeper.pid()).unwrap();
    for signal in [
        Signal::HUP,
        Signal::INT,
        Signal::TERM,
        Signal::QUIT,
        Signal::USR1,
        Signal::PIPE,
    ] {
        kill_process(pid, signal).unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    test_kill_process(pid).unwrap();
    assert!(Keeper::connect(&up.run_dir).unwrap().lab().unwrap().is_some());
    bring_up::down(up);
}

pub(crate) fn bears_hostile_clients() {
    let mut up = up(&spec(&name()));
    let open = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = open(up.keeper.pid());
    let address = SocketAddrUnix::new(up.run_dir.file("keeper.sock")).unwrap();
    let dial = || {
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::connect(&socket, &address).map(|()| socket)
    };
    for body in [
        &b"{"[..],
        b"\"Nothing\"",
        b"null",
        &[0xff; 64],
        &[b'['; 60_000],
        &vec![b'x'; 100_000],
    ] {
        let socket = dial().unwrap();
        let _ = rustix::net::send(&socket, body, SendFlags::NOSIGNAL).unwrap();
    }
    // Descriptors nobody asked for, and too many of them.
    for count in [1, 200] {
        let socket = dial().unwrap();
        let fds = vec![socket.as_fd(); count];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let body = [std::io::IoSlice::new(b"\"Hello\"")];
        rustix::net::sendmsg(&socket, &body, &mut control, SendFlags::NOSIGNAL).unwrap();
    }
    // Clients that never speak; the last ones are turned away.
    let silent: Vec<_> = (0..100).map_while(|_| dial().ok()).collect();
    assert!(up.keeper.lab().unwrap().is_some());
    drop(silent);
    // One that asks and never reads.
    let deaf = dial().unwrap();
    rustix::io::ioctl_fionbio(&deaf, true).unwrap();
    while rustix::net::send(&deaf, b"\"Hello\"", SendFlags::NOSIGNAL).is_ok() {}
    assert!(up.keeper.lab().unwrap().is_some());
    drop(deaf);
    let long = "x".repeat(70_000);
    assert!(
        up.keeper
            .hold_tun("web", "eth1", &long, &[up.tuns[0].as_fd()])
            .is_err()
    );
    assert!(up.keeper.namespaces("../web").is_err());
    assert!(up.keeper.lab().unwrap().is_some());
    let pid = up.keeper.pid();
    wait_for("descriptors closed again", || open(pid) <= before);
    bring_up::down(up);
}

pub(crate) fn leaks_nothing_into_programs() {
    let mut up = up(&spec(&name()));
    let report = up.run_dir.file("report");
    let show = "ls /proc/self/fd; grep -E 'SigIgn|SigCgt|SigBlk' /proc/self/status; ulimit -n";
    up.keeper
        .spawn(
            "web",
            &format!("({show}) > {0}.part; mv {0}.part {0}", report.display()),
        )
        .unwrap();
    wait_for("the program's report", || report.exists());
    let text = fs::read_to_string(&report).unwrap();
    // 3 is the directory that ls itself reads.
    assert!(text.starts_with("0\n1\n2\n3\nSig"), "{text}");
    // Signals as any child of this process has them: those that the keeper sets for itself are not inherited.
    let signals = "grep -E 'SigIgn|SigCgt|SigBlk' /proc/self/status";
    let own = Command::new("sh").args(["-c", signals]).output().unwrap();
    assert!(text.contains(&String::from_utf8(own.stdout).unwrap()), "{text}");
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap();
    assert!(text.ends_with(&format!("\n{limit}\n")), "{text}");
    bring_up::down(up);
}

pub(crate) fn releases_a_namespace() {
    let name = name();
    let mut spec = spec(&name);
    spec.namespaces.push(namespace("db", vec![]));
    let mut up = up(&spec);
    // A program that left its session, and its orphan.
    up.keeper
        .spawn("db", "setsid sh -c 'sleep 1000 & sleep 1000'")
        .unwrap();
    let network = up.keeper.namespaces("db").unwrap().network;
    let inode = rustix::fs::fstat(network.fd()).unwrap().st_ino;
    drop(network);
    let inside = || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let links = entries.filter_map(|entry| fs::read_link(entry.path().join("ns/net")).ok());
        links
            .filter(|link| link.to_string_lossy() == format!("net:[{inode}]"))
            .count()
    };
    wait_for("the programs", || inside() >= 3);
    up.keeper.release_namespace("db").unwrap();
    wait_for("their end", || inside() == 0);
    assert!(matches!(
        up.keeper.release_namespace("db"),
        Err(Error::NotFound(_))
    ));
    assert!(matches!(up.keeper.spawn("db", ":"), Err(Error::NotFound(_))));
    up.keeper.release_tun("web", "eth0").unwrap();
    assert!(matches!(up.keeper.tun("web", "eth0"), Err(Error::NotFound(_))));
    bring_up::down(up);
}

pub(crate) fn shuts_others_out() {
    let up = up(&spec(&name()));
    let socket = up.run_dir.file("keeper.sock");
    // Even where directory and socket are opened by mistake, another user is not served.
    for path in [up.run_dir.path().parent().unwrap(), up.run_dir.path(), &socket] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let ask = "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); \
               s.connect(sys.argv[1]); s.send(b'\"Hello\"'); print(s.recv(100))";
    let mut python = Command::new("python3");
    python.args(["-c", ask]).arg(&socket);
    let own = python.output().unwrap();
    assert!(String::from_utf8_lossy(&own.stdout).contains("Hello"), "{own:?}");
    let other = python.uid(65534).gid(65534).output().unwrap();
    assert!(
        !String::from_utf8_lossy(&other.stdout).contains("Hello"),
        "{other:?}"
    );
    assert!(!other.status.success() || other.stdout == b"b''\n", "{other:?}");
    fs::set_permissions(
        up.run_dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    bring_up::down(up);
}

pub(crate) fn down_ends_a_daemon_that_will_not() {
    let name = name();
    // Ends by SIGTERM, but takes nothing down.
    let (mut daemon, _output) = start_daemon(&name);
    let reaper = std::thread::spawn(move || daemon.wait().unwrap());
    down::stop(&name).unwrap();
    std::io::stderr()
        .write_all(format!("{:?}\n", reaper.join().unwrap()).as_bytes())
        .unwrap();
    assert!(RunDir::list().unwrap().is_empty());
    assert!(matches!(down::stop(&name), Err(Error::NotFound(_))));
    // Stopped, so that only SIGKILL ends it; its keeper too.
    let (mut daemon, _output) = start_daemon(&name);
    let keeper = Keeper::connect(&RunDir::open(&name).unwrap()).unwrap();
    for pid in [daemon.id().cast_signed(), keeper.pid()] {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    }
    drop(keeper);
    let reaper = std::thread::spawn(move || daemon.wait().unwrap());
    let stopped = down::stop(&name);
    assert!(reaper.join().unwrap().code().is_none());
    stopped.unwrap();
    assert!(RunDir::list().unwrap().is_empty());
}
