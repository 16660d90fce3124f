//! What links let pass in a second of the kernel's: marks among full datagrams, and the receiver's time stamps of them.

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::kernel_stamps::in_namespace;
use crate::support::{Peerlane, User, need_root, unique};
use crate::{alone, full};

/// Where what fills the link goes, which nobody reads, and where the marks go.
const PORTS: [u16; 2] = [9010, 9011];
/// Of a datagram of 1500 bytes of IP.
const PAYLOAD: usize = 1472;
const PACKET_BYTES: u64 = 1500;
/// Datagrams of one write, which the kernel hands to the TUN as one where it can. A mark follows each.
const SEGMENTS: usize = 40;
/// Sent in a second, of what the link carries: it is never idle, and its queue of three seconds never full.
const OFFERED: f64 = 1.1;
/// And so many seconds' worth at first, so that the link has work while the sender waits for its turn.
const AHEAD: f64 = 0.1;

/// Bits of IP per second that came out, between the first mark and the last.
fn measured(name: &str, rate_bps: u64) -> f64 {
    let packets_time = Duration::from_secs_f64(1000.0 * PACKET_BYTES as f64 * 8.0 / rate_bps as f64);
    let time = Duration::from_secs(1).max(packets_time).mul_f64(1.05);
    let bind = |port| {
        in_namespace(&format!("{name}-b"), || {
            UdpSocket::bind(("0.0.0.0", port)).unwrap()
        })
    };
    let [sink, marks] = PORTS.map(bind);
    setsockopt(&sink, sockopt::RcvBuf, &4096).unwrap();
    setsockopt(&marks, sockopt::RcvBufForce, &(256 << 20)).unwrap();
    setsockopt(&marks, sockopt::ReceiveTimestampns, &true).unwrap();
    let sender = in_namespace(&format!("{name}-a"), || UdpSocket::bind("0.0.0.0:0").unwrap());
    setsockopt(&sender, sockopt::UdpGsoSegment, &i32::try_from(PAYLOAD).unwrap()).unwrap();
    let to = PORTS.map(|port| SocketAddr::from(([10, 1, 0, 4], port)));
    let sent = scope(|scope| {
        let send = || {
            let (filling, mut mark) = (vec![0; PAYLOAD * SEGMENTS], [0; PAYLOAD]);
            let (begin, mut sent) = (Instant::now(), 0_u64);
            while begin.elapsed() < time {
                let seconds = AHEAD + begin.elapsed().as_secs_f64() * OFFERED;
                let offered = seconds * rate_bps as f64 / 8.0;
                if sent as f64 > offered {
                    sleep(Duration::from_micros(50));
                    continue;
                }
                sender.send_to(&filling, to[0]).unwrap();
                sent += (SEGMENTS as u64 + 1) * PACKET_BYTES;
                mark[..8].copy_from_slice(&sent.to_be_bytes());
                sender.send_to(&mark, to[1]).unwrap();
            }
            sent
        };
        scope.spawn(send).join().unwrap()
    });
    // What waits has left by then.
    sleep(time.mul_f64(OFFERED - 1.0 + AHEAD) + Duration::from_millis(1500));
    let stamps = stamps(&marks);
    let ((first, begin_ns), (last, end_ns)) = (stamps[0], stamps[stamps.len() - 1]);
    assert_eq!(last, sent, "not all marks arrived");
    (last - first) as f64 * 8e9 / (end_ns - begin_ns) as f64
}

/// What the marks say, and when each came in by the kernel's clock.
fn stamps(marks: &UdpSocket) -> Vec<(u64, i64)> {
    marks.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    let mut control = nix::cmsg_space!(TimeSpec);
    loop {
        let mut said = [0; 8];
        let mut parts = [IoSliceMut::new(&mut said)];
        let flags = MsgFlags::empty();
        let Ok(received) = recvmsg::<()>(marks.as_raw_fd(), &mut parts, Some(&mut control), flags) else {
            return all;
        };
        let stamp = received.cmsgs().unwrap().find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => Some(time.tv_sec() * 1_000_000_000 + time.tv_nsec()),
            _ => None,
        });
        all.push((u64::from_be_bytes(said), stamp.unwrap()));
    }
}

#[test]
fn links_keep_their_rate() {
    need_root("with the kernel's time stamps in two namespaces");
    let _alone = alone();
    let (rates, tolerance): (&[u64], f64) = if full() {
        let rates = &[
            1_000_000,
            10_000_000,
            100_000_000,
            1_000_000_000,
            2_500_000_000,
            5_000_000_000,
        ];
        (rates, 0.01)
    } else {
        // A stall of other programs at the first or the last mark is seen in so short a time.
        (&[20_000_000, 200_000_000], 0.03)
    };
    let mut missed = Vec::new();
    for &rate_bps in rates {
        let peerlane = Peerlane::new(User::Caller);
        let name = unique("timing-rate");
        let text = crate::tcp::lab(&name, &format!("{{ rate: {}kbit, queue: 3s }}", rate_bps / 1000));
        peerlane.up(&peerlane.file(&name, &text));
        let error = measured(&name, rate_bps) / rate_bps as f64 - 1.0;
        println!("{} Mbit/s: off by {:+.3} %", rate_bps / 1_000_000, error * 100.0);
        if error.abs() > tolerance {
            missed.push((rate_bps, error));
        }
        let links = peerlane.run(["links", &name, "-o", "json"]).json();
        let full = &links[0]["counters"]["queueFull"];
        assert_eq!(full, 0, "the link was offered more than it can hold: {links:#}");
    }
    assert!(missed.is_empty(), "bit/s and error: {missed:?}");
}
