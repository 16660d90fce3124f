//! How exactly links keep time, and what TCP makes of them. A test binary of its own, and one test at a time: nothing of
//! ours runs meanwhile. Here: delays by the kernel's time stamps at both interfaces, never by our own clock.
//!
//! With PEERLANE_FULL set, on a quiet machine and with a release build, the stated bounds hold and every figure is
//! printed (`scripts/measure-links`). Else a short form compares with what a bare thread makes of its timer meanwhile.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "these are tests; clippy knows only functions marked so"
)]

mod idle_links;
mod kernel_stamps;
mod rate;
#[expect(dead_code, reason = "the tests of the other binary use more of it")]
mod support;
mod tbf_twin;
mod tcp;

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use kernel_stamps::{Flow, bare_timer, quantile};
use support::{Peerlane, User, need_root, unique};

/// 10,000 packets a second.
const INTERVAL: Duration = Duration::from_micros(100);
const BATCHES: u32 = 5;

/// Bounds of the error in microseconds: median, and 99 in 100.
const SLEEPING_US: [f64; 2] = [30.0, 200.0];
const SPINNING_US: [f64; 2] = [5.0, 50.0];

/// One VNet for each latency, and one in the same region without any.
struct Distances<'a> {
    name: String,
    latencies: &'a [(&'static str, Duration)],
}

/// Of one latency, sorted.
#[derive(Default)]
struct Errors {
    /// Without their signs.
    ns: Vec<i64>,
    /// Packets that did not arrive.
    lost: usize,
    /// Medians of each batch.
    medians_ns: Vec<i64>,
    /// Medians of the same flow without a link.
    without_ns: Vec<i64>,
}

pub(crate) fn full() -> bool {
    std::env::var_os("PEERLANE_FULL").is_some()
}

/// One test at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows: PEER-39.
#[test]
fn links_keep_time() {
    need_root("with the kernel's time stamps in two namespaces");
    let _alone = alone();
    let latencies: &[_] = if full() {
        &[
            ("100us", Duration::from_micros(100)),
            ("1ms", Duration::from_millis(1)),
            ("10ms", Duration::from_millis(10)),
            ("50ms", Duration::from_millis(50)),
            ("200ms", Duration::from_millis(200)),
        ]
    } else {
        &[
            ("200us", Duration::from_micros(200)),
            ("20ms", Duration::from_millis(20)),
        ]
    };
    let packets = if full() { 20_000 } else { 4000 };
    let mut missed = String::new();
    for (way, [median_us, most_us]) in [("sleep", SLEEPING_US), ("spin", SPINNING_US)] {
        let peerlane = Peerlane::new(User::Caller);
        let lab = Distances::up(&peerlane, latencies, way == "spin");
        for (index, (latency, _)) in latencies.iter().enumerate() {
            let timer = bare_timer(packets / 2, INTERVAL);
            let errors = lab.measure(index, packets);
            let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|part| us(quantile(&errors.ns, part)));
            let [timer50, timer99] = [0.5, 0.99].map(|part| us(quantile(&timer, part)));
            println!(
                "{way:5} {latency:>5}: error p50 {p50:.1} p90 {p90:.1} p99 {p99:.1} us, {} lost; without link {:.1} us; \
                 a bare timer p50 {timer50:.1} p99 {timer99:.1} us",
                errors.lost,
                us(quantile(&errors.without_ns, 0.5)),
            );
            // What else the machine does makes some batches worse; what is wrong with us would make all.
            let best = us(errors.medians_ns[0]);
            let kept = match (full(), way) {
                (true, _) => p50 <= median_us && p99 <= most_us && errors.lost == 0,
                (false, "sleep") => best <= median_us + timer50,
                // Who sleeps is as late as the bare timer; who spins is not.
                (false, _) => best <= timer50,
            };
            if !kept {
                writeln!(missed, "{way} at {latency}: p50 {p50:.1}, p99 {p99:.1} us").unwrap();
            }
        }
    }
    assert!(missed.is_empty(), "not within the bounds:\n{missed}");
}

/// A lab that has nothing to do takes no processor, not even with `--spin`.
#[test]
fn who_has_nothing_under_way_sleeps() {
    let _alone = alone();
    let latencies = [("1ms", Duration::from_millis(1))];
    for spin in [false, true] {
        let peerlane = Peerlane::new(User::Caller);
        let lab = Distances::up(&peerlane, &latencies, spin);
        let ping = ["ping", "-q", "-c", "5", "-i", "0.01", "10.1.0.4"];
        assert_eq!(peerlane.exec(&lab.name, "a", &ping).code, 0);
        sleep(Duration::from_millis(500));
        let pid = peerlane.daemon_pid();
        let before = processor_time(pid);
        sleep(Duration::from_secs(2));
        let used = processor_time(pid) - before;
        println!("spin {spin}: {used:?} of 2 s");
        assert!(used <= Duration::from_millis(20), "spin {spin}: {used:?} of 2 s");
    }
}

/// With `--cpu` the thread that forwards stays where it is told to be, and one that is not there is refused.
#[test]
fn who_forwards_stays_on_the_cpu_it_was_given() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("timing-cpu");
    let file = peerlane.file(&name, &lab(&name, &[("1ms", Duration::from_millis(1))]));
    let file = file.to_str().unwrap();
    let refused = peerlane.run(["up", file, "--detach", "--cpu", "1023"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("CPU 1023 cannot forward"), "{refused:?}");
    let ran = peerlane.run(["up", file, "--detach", "--cpu", "0"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", peerlane.daemon_pid())).unwrap();
    let tasks = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let worker = tasks
        .into_iter()
        .find(|status| status.starts_with("Name:\tworker-0\n"));
    assert!(worker.unwrap().contains("Cpus_allowed_list:\t0\n"));
}

/// What is under way on the link of a VNet is bounded by `--link-memory`.
#[test]
fn what_may_be_under_way_is_an_option_of_up() {
    let _alone = alone();
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("timing-memory");
    let file = peerlane.file(&name, &lab(&name, &[("20s", Duration::from_secs(20))]));
    let file = file.to_str().unwrap();
    let refused = peerlane.run(["up", file, "--detach", "--link-memory", "10MB"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("write 64MiB"), "{refused:?}");
    let ran = peerlane.run(["up", file, "--detach", "--link-memory", "16KiB"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // Echo requests of 1028 bytes while the first is under way: there is room for 13 to 15.
    let ping = [
        "ping", "-c", "100", "-i", "0.005", "-w", "5", "-s", "1000", "10.1.0.4",
    ];
    let said = peerlane.exec(&name, "a", &ping).stdout;
    let sent = said.split(" packets transmitted").next().unwrap();
    let sent: u64 = sent.rsplit('\n').next().unwrap().parse().unwrap();
    let drops = peerlane.run(["drops", &name, "-o", "json"]).json();
    let rows = drops.as_array().unwrap();
    let full = rows.iter().find(|row| row["reason"] == "LinkQueueFull");
    let lost = full.unwrap()["packets"].as_u64().unwrap();
    assert!((13..=15).contains(&(sent - lost)), "{lost} of {sent}: {drops:#}");
}

impl<'a> Distances<'a> {
    fn up(peerlane: &Peerlane, latencies: &'a [(&'static str, Duration)], spin: bool) -> Self {
        let name = unique("timing");
        let file = peerlane.file(&name, &lab(&name, latencies));
        let mut arguments = vec!["up", file.to_str().unwrap(), "--detach"];
        arguments.extend(spin.then_some("--spin"));
        let mut up = peerlane.command(arguments);
        if !full() && rustix::process::geteuid().is_root() {
            // Other programs' turns on the processor are not what is measured.
            up = before_others(&up);
        }
        let output = up.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self { name, latencies }
    }

    /// In batches, each beside one of the same flow without a link: what else the machine does changes all the time.
    fn measure(&self, index: usize, packets: u32) -> Errors {
        let flow = |to: &str, address: &str| {
            Flow::new(
                &format!("{}-a", self.name),
                &format!("{}-{to}", self.name),
                address,
            )
        };
        let (number, latency) = (index + 1, self.latencies[index].1);
        let near = flow("near", "10.250.0.4");
        let far = flow(&format!("b{number}"), &format!("10.{number}.0.4"));
        let mut errors = Errors::default();
        for _ in 0..BATCHES {
            let count = packets / BATCHES;
            let without = quantile(&near.delays(count, INTERVAL, Duration::ZERO), 0.5);
            let wanted = without + i64::try_from(latency.as_nanos()).unwrap();
            let delays = far.delays(count, INTERVAL, latency);
            errors.lost += count as usize - delays.len();
            let mut batch: Vec<i64> = delays.iter().map(|delay| (delay - wanted).abs()).collect();
            batch.sort_unstable();
            errors.medians_ns.push(quantile(&batch, 0.5));
            errors.ns.extend(batch);
            errors.without_ns.push(without);
        }
        errors.ns.sort_unstable();
        errors.medians_ns.sort_unstable();
        errors.without_ns.sort_unstable();
        errors
    }
}

fn lab(name: &str, latencies: &[(&str, Duration)]) -> String {
    let mut text = format!(
        "apiVersion: peerlane/v1\nkind: Lab\nname: {name}\nprofile: azure-2025\nvnets:\n{}",
        vnet("here", 0)
    );
    text += &vnet("near", 250);
    (1..=latencies.len()).for_each(|number| text += &vnet(&format!("v{number}"), number));
    text += "peerings:\n  - here <-> near\n";
    (1..=latencies.len()).for_each(|number| writeln!(text, "  - here <-> v{number}").unwrap());
    text += "links:\n";
    for (number, (latency, _)) in (1..).zip(latencies) {
        writeln!(text, "  here/here-to-v{number}: {{ latency: {latency} }}").unwrap();
    }
    text += "vms:\n  a: { subnet: here/default, privateIPAddress: 10.0.0.4 }\n";
    text += "  near: { subnet: near/default, privateIPAddress: 10.250.0.4 }\n";
    for number in 1..=latencies.len() {
        let vm = format!("  b{number}: {{ subnet: v{number}/default, privateIPAddress: 10.{number}.0.4 }}");
        writeln!(text, "{vm}").unwrap();
    }
    text
}

fn vnet(name: &str, number: usize) -> String {
    format!(
        "  {name}: {{ location: eastus, addressSpace: [10.{number}.0.0/16], \
         subnets: {{ default: {{ addressPrefix: 10.{number}.0.0/24 }} }} }}\n"
    )
}

/// The command with a real-time priority.
fn before_others(command: &Command) -> Command {
    let mut first = Command::new("chrt");
    first
        .args(["--fifo", "1"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => first.env(name, value),
            None => first.env_remove(name),
        };
    }
    first.current_dir(command.get_current_dir().unwrap());
    first
}

/// What a process has used so far, to the hundredth of a second.
fn processor_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name in brackets, which may hold anything; utime and stime are the 14th and 15th of all.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|field| fields[*field].parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn us(ns: i64) -> f64 {
    ns as f64 / 1000.0
}
