//! What a worker's thread is to the kernel: its privileges, and its time on a core.

use std::time::Duration;

use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

/// A thread that reads hostile packets needs no privilege: its descriptors are open.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn drop_capabilities() -> rustix::io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let none = rustix::thread::CapabilitySets {
        effective: rustix::thread::CapabilitySet::empty(),
        permitted: rustix::thread::CapabilitySet::empty(),
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// The machine has no such CPU, or this process may not use it.
pub(crate) fn run_on(cpu: u16) -> rustix::io::Result<()> {
    let mut only = CpuSet::new();
    only.set(usize::from(cpu));
    rustix::thread::sched_setaffinity(None, &only)
}

/// Whether [`run_on`] would do.
///
/// # Errors
/// For people.
pub(crate) fn may_run_on(cpu: u16) -> Result<(), String> {
    let allowed = rustix::thread::sched_getaffinity(None).map_err(|error| format!("CPUs: {error}"))?;
    let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let cpus: Vec<String> = cpus.map(|cpu| cpu.to_string()).collect();
    if cpus.contains(&cpu.to_string()) {
        return Ok(());
    }
    Err(format!("CPU {cpu} cannot forward: there are {}", cpus.join(", ")))
}

/// The time the calling thread has had of a core.
pub(crate) fn busy() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A seed that nobody who sends packets can guess: the standard library's hash keys come from the kernel.
pub(crate) fn unguessable() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
