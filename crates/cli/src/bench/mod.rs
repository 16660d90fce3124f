//! Traffic of our own making: a sink that counts, and a generator that measures against it.
//!
//! Both are one hidden command, run in the namespaces of two VMs by `bench`, and by `scripts/bench` on either side of
//! whatever is compared, so that every figure comes from the same program.

pub(crate) mod drive;
pub(crate) mod sink;

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use clap::ValueEnum;
use rustix::net::sockopt::set_tcp_congestion;
use serde::{Deserialize, Serialize};

/// What a connection to the sink is for: its first byte.
mod kind {
    /// Bytes are counted and thrown away.
    pub(super) const SINK: u8 = b'S';
    /// The sink sends for as long as it is read from.
    pub(super) const SOURCE: u8 = b'R';
    /// Every byte comes back.
    pub(super) const ECHO: u8 = b'E';
    /// One byte comes back.
    pub(super) const CONNECT: u8 = b'C';
    /// One line of [`super::Counted`] comes back for every byte.
    pub(super) const COUNT: u8 = b'Q';
}

/// What the sink has counted, and when: rates come from two of these, whenever the answers arrived.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Counted {
    clock_ns: u64,
    tcp_bytes: u64,
    udp_packets: u64,
    udp_bytes: u64,
    /// Time that all CPUs of the machine were busy.
    busy: Duration,
}

/// Of TCP, by the names the kernel has for it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Congestion {
    /// Linux's own default.
    Cubic,
    Reno,
    Bbr,
}

impl Congestion {
    /// # Errors
    /// The kernel does not have it, or reserves it for privileged programs.
    fn set(self, socket: &impl AsFd) -> io::Result<()> {
        let name = self.to_possible_value();
        let name = name.as_ref().map_or("", |value| value.get_name());
        set_tcp_congestion(socket, name)
            .map_err(|error| io::Error::other(format!("TCP's congestion control {name}: {error}")))
    }
}

/// Bytes per system call of a stream.
const CHUNK_BYTES: usize = 256 << 10;
/// Datagrams per system call.
const BATCH: usize = 64;

/// Busy time of all CPUs, from /proc/stat: all but idle and waiting for disks.
fn busy_time() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest time is part of user time, and stolen time is not ours.
    let busy: u64 = [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|index| fields.get(*index))
        .sum();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_secs_f64(busy as f64 / ticks as f64))
}
