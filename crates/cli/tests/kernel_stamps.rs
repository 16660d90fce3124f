//! What the kernel says about when packets passed an interface, and a sender that keeps a rate.

use std::collections::HashMap;
use std::fs::File;
use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use rustix::net::{AddressFamily, SocketFlags, SocketType, eth, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the packets that are measured go.
const PORT: u16 = 9009;
/// Of a datagram; its first four bytes are its number.
const PAYLOAD: usize = 100;
/// Packets wait in the socket until all have passed, so that nobody runs meanwhile who would disturb them: about
/// 1 KiB each for the kernel.
const TAP_BYTES: usize = 256 << 20;

/// Runs `inside` with the network namespace of a VM, on a thread of its own.
pub(crate) fn in_namespace<T: Send>(name: &str, inside: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(Path::new("/run/netns").join(name)).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            inside()
        });
        thread.join().unwrap()
    })
}

/// Sees every packet of a namespace's interfaces, both ways.
pub(crate) struct Tap(OwnedFd);

impl Tap {
    pub(crate) fn open(namespace: &str) -> Self {
        let socket = in_namespace(namespace, || {
            socket_with(
                AddressFamily::PACKET,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                Some(eth::ALL),
            )
        });
        let socket = socket.unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &TAP_BYTES).unwrap();
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).unwrap();
        Self(socket)
    }

    /// When each of the numbered datagrams passed, in nanoseconds of the kernel's clock. Takes what it saw so far.
    pub(crate) fn stamps(&self) -> HashMap<u32, i64> {
        let mut stamps = HashMap::new();
        let mut control = nix::cmsg_space!(TimeSpec);
        loop {
            let mut packet = [0; 64];
            let mut parts = [IoSliceMut::new(&mut packet)];
            let received = recvmsg::<()>(
                self.0.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::empty(),
            );
            let Ok(received) = received else { return stamps };
            let stamp = received.cmsgs().unwrap().find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(time) => {
                    Some(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
                }
                _ => None,
            });
            // IPv4 without options, UDP, our port.
            let ours = packet[0] == 0x45 && packet[9] == 17 && packet[22..24] == PORT.to_be_bytes();
            if ours {
                let number = u32::from_be_bytes(packet[28..32].try_into().unwrap());
                stamps.insert(number, stamp.unwrap());
            }
        }
    }
}

/// Two ends of a flow with a tap at each.
pub(crate) struct Flow {
    sender: UdpSocket,
    /// Keeps the port open, so that nobody answers that it is closed; never read.
    _receiver: UdpSocket,
    taps: [Tap; 2],
}

impl Flow {
    pub(crate) fn new(from: &str, to: &str, destination: &str) -> Self {
        let any: SocketAddr = ([0, 0, 0, 0], PORT).into();
        let sender = in_namespace(from, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        sender.connect((destination, PORT)).unwrap();
        Self {
            sender,
            _receiver: in_namespace(to, || UdpSocket::bind(any)).unwrap(),
            taps: [Tap::open(from), Tap::open(to)],
        }
    }

    /// Sends `count` datagrams, one every `interval`, and waits for the last as long as it may take. Returns the time
    /// from one interface to the other in nanoseconds of those that arrived, sorted.
    pub(crate) fn delays(&self, count: u32, interval: Duration, longest: Duration) -> Vec<i64> {
        self.taps.iter().for_each(|tap| drop(tap.stamps()));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut payload = [0; PAYLOAD];
                at_a_rate(count, interval, |number, _| {
                    payload[..4].copy_from_slice(&number.to_be_bytes());
                    // What the port does not take is missed at the other end.
                    let _ = self.sender.send(&payload);
                });
            });
        });
        thread::sleep(longest + Duration::from_millis(50));
        let [sent, arrived] = [0, 1].map(|tap: usize| self.taps[tap].stamps());
        let mut delays: Vec<i64> = arrived
            .iter()
            .filter_map(|(number, stamp)| Some(stamp - sent.get(number)?))
            .collect();
        delays.sort_unstable();
        delays
    }
}

/// How late a thread wakes that does nothing but sleep until the next moment, in nanoseconds, sorted: what the machine
/// can do at this time.
pub(crate) fn bare_timer(count: u32, interval: Duration) -> Vec<i64> {
    let late = thread::spawn(move || {
        let mut late = Vec::with_capacity(count as usize);
        at_a_rate(count, interval, |_, lateness| {
            late.push(i64::try_from(lateness.as_nanos()).unwrap());
        });
        late
    });
    let mut late = late.join().unwrap();
    late.sort_unstable();
    late
}

/// By the time left: of a sorted list, what `fraction` of it do not exceed.
pub(crate) fn quantile(sorted: &[i64], fraction: f64) -> i64 {
    assert!(!sorted.is_empty(), "nothing arrived");
    sorted[((sorted.len() - 1) as f64 * fraction).round() as usize]
}

/// Calls `act` at every `interval` with a number and how late it is. Who lost its turn for longer than that goes on from
/// there: made up for, what was missed would come as a burst and wait for itself.
fn at_a_rate(count: u32, interval: Duration, mut act: impl FnMut(u32, Duration)) {
    rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN)).unwrap();
    let mut due = Instant::now();
    for number in 0..count {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let late = due.elapsed();
        act(number, late);
        if late > interval {
            due += late;
        }
        due += interval;
    }
}
