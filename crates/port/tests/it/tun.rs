//! TUN devices at every offload level: the kernel forwards what we write into one to another, and we read it there.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use packet::{Burst, Packet};
use port::queue::is_gone;
use port::{Device, Offloads, Queue, WriteError, plain};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::gso::{segments, super_packet};
use crate::netns;
use crate::support::{Kind, Sample, assert_checksums, make_partial};

/// Longest wait for packets that the kernel forwards within microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Payload of the super-packets: several segments and a shorter last one.
const PAYLOAD: usize = 20_000;
const SEGMENT: u16 = 1_300;

/// A packet from 10.66.1.2 to 10.66.2.2 or the same in IPv6; its payload is its position and kind, repeated.
pub(crate) fn sample(kind: Kind, ipv6: bool, length: usize) -> Sample {
    let payload: Vec<u8> = (0..length)
        .map(|at| (at / 7) as u8 ^ kind as u8 ^ u8::from(ipv6))
        .collect();
    let host = |net: u8| [0xfd, 0x66, 0, 0, 0, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, 2];
    let builder = if ipv6 {
        PacketBuilder::ipv6(host(1), host(2), 64)
    } else {
        PacketBuilder::ipv4([10, 66, 1, 2], [10, 66, 2, 2], 64)
    };
    let mut bytes = Vec::new();
    match kind {
        Kind::Tcp => builder
            .tcp(1000, 80, 77, 512)
            .ack(1)
            .psh()
            .write(&mut bytes, &payload),
        _ => builder.udp(1000, 53).write(&mut bytes, &payload),
    }
    .unwrap();
    Sample {
        bytes,
        ipv6,
        kind,
        payload,
    }
}

/// Reads what was sent by [`sample`] until `length` bytes of payload are there, and checks each packet.
fn receive(queue: &mut Queue, level: Offloads, like: &Sample, length: usize) -> (Vec<u8>, usize) {
    let mut burst = Burst::new(8);
    let (mut payload, mut super_packets) = (Vec::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    let headers = like.bytes.len() - like.payload.len();
    while payload.len() < length {
        assert!(
            Instant::now() < deadline,
            "{} of {length} bytes arrived at level {level}",
            payload.len()
        );
        wait(queue);
        queue.read_burst(&mut burst).unwrap();
        for packet in burst.filled_mut() {
            let ours = packet.parse().is_ok_and(|found| {
                let mut original = Packet::from_bytes(&like.bytes);
                found.key == original.parse().unwrap().key
            });
            if !ours {
                continue; // neighbour discovery of the kernel
            }
            assert!(
                Offloads::needed_by(&packet.vnet) <= level,
                "{:?} at level {level}",
                packet.vnet
            );
            super_packets += usize::from(packet.vnet.is_gso());
            for segment in segments(packet) {
                assert_checksums(&segment);
                payload.extend(&segment[headers..]);
            }
        }
        burst.clear();
    }
    (payload, super_packets)
}

fn wait(queue: &Queue) {
    let fd = queue.fd().unwrap();
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)).unwrap();
}

/// A device on its feet: 10.66.`net`.0/24 lies behind it.
fn open(name: &str, net: u8, level: Option<Offloads>) -> (Queue, Offloads) {
    let device = match level {
        Some(level) => Device::open(name, 1, level).unwrap(),
        None => plain::open(name).unwrap(),
    };
    let level = device.offloads;
    netns::set_up(name, net);
    (device.into_queues().remove(0), level)
}

fn forward_packets() {
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
    }
}

#[test]
fn every_level_talks_to_every_other() {
    netns::run(|| {
        forward_packets();
        let levels = [
            Some(Offloads::Uso),
            Some(Offloads::Tso),
            Some(Offloads::Checksum),
            Some(Offloads::None),
            None,
        ];
        for from in levels {
            for to in levels {
                let (mut left, level) = open("packet-left", 1, from);
                let (mut right, right_level) = open("packet-right", 2, to);
                assert_eq!(
                    level,
                    from.unwrap_or(Offloads::None),
                    "this kernel lacks the level"
                );
                for ipv6 in [false, true] {
                    for kind in [Kind::Tcp, Kind::Udp] {
                        let small = sample(kind, ipv6, 100);
                        left.write(&mut Packet::from_bytes(&small.bytes)).unwrap();
                        assert_eq!(receive(&mut right, right_level, &small, 100).0, small.payload);

                        let large = sample(kind, ipv6, PAYLOAD);
                        left.write(&mut super_packet(&large, SEGMENT)).unwrap();
                        let (payload, whole) = receive(&mut right, right_level, &large, PAYLOAD);
                        assert_eq!(
                            payload, large.payload,
                            "{from:?} to {to:?}, {kind:?}, IPv6 {ipv6}"
                        );
                        let needed = if kind == Kind::Tcp {
                            Offloads::Tso
                        } else {
                            Offloads::Uso
                        };
                        if level >= needed && right_level >= needed {
                            assert_eq!(whole, 1, "{from:?} to {to:?}, {kind:?}: passes whole");
                        }
                    }
                }
                assert_eq!(left.refusals(), 0);
            }
        }
    });
}

/// At a socket, and at every level: merging is between us and the kernel.
#[test]
fn datagrams_written_as_one_are_received_one_by_one_and_in_order() {
    const COUNT: usize = 64;
    netns::run(|| {
        for level in Offloads::DESCENDING {
            let (mut queue, _) = open("packet-merge", 2, Some(level));
            let socket = UdpSocket::bind("10.66.2.1:53").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            for size in [22, 900] {
                let mut train: Vec<Packet> = (0..COUNT)
                    .map(|number| {
                        let mut bytes = Vec::new();
                        let mut payload = vec![number as u8; size];
                        payload.truncate(if number + 1 == COUNT { 9 } else { size });
                        PacketBuilder::ipv4([10, 66, 2, 2], [10, 66, 2, 1], 64)
                            .udp(1000, 53)
                            .write(&mut bytes, &payload)
                            .unwrap();
                        let mut packet = Packet::from_bytes(&bytes);
                        let headers = packet.parse().unwrap();
                        make_partial(&mut packet, &headers);
                        packet
                    })
                    .collect();
                let (mut rest, mut writes) = (&mut train[..], 0);
                while !rest.is_empty() {
                    let (count, written) = queue.write_run(rest, &mut Packet::new());
                    assert_eq!(written, Ok(()), "{level}");
                    rest = &mut rest[count..];
                    writes += 1;
                }
                assert_eq!(writes, if level == Offloads::Uso { 1 } else { COUNT });
                for number in 0..COUNT {
                    let mut payload = [0; 2000];
                    let length = socket.recv(&mut payload).unwrap();
                    let expected = if number + 1 == COUNT { 9 } else { size };
                    assert_eq!(length, expected, "number {number} at level {level}");
                    assert!(payload[..length].iter().all(|byte| *byte == number as u8));
                }
            }
            assert_eq!(queue.refusals(), 0);
        }
    });
}

#[test]
fn a_device_is_adopted_with_its_settings() {
    netns::run(|| {
        for level in [Some(Offloads::Uso), Some(Offloads::None), None] {
            let queues = if level.is_some() { 2 } else { 1 };
            let device = match level {
                Some(level) => Device::open("packet-old", queues, level).unwrap(),
                None => plain::open("packet-old").unwrap(),
            };
            let kept: Vec<_> = device.fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
            let offloads = device.offloads;
            drop(device);
            let fd = kept[0].try_clone().unwrap();
            let wrong = Device::from_fds("packet-new", offloads, vec![fd]).unwrap_err();
            assert_eq!(wrong.kind(), ErrorKind::InvalidData, "{wrong}");

            let adopted = Device::from_fds("packet-old", offloads, kept).unwrap();
            assert_eq!((adopted.fds.len(), adopted.offloads), (queues, offloads));
            netns::set_up("packet-old", 1);
            let mut queue = adopted.into_queues().remove(0);
            // Packets that the kernel accepts are framed as the device wants them.
            let mut small = Packet::from_bytes(&sample(Kind::Udp, false, 10).bytes);
            queue.write(&mut small).unwrap();
        }
    });
}

#[test]
fn a_taken_name_is_refused_with_the_reason() {
    netns::run(|| {
        let _first = Device::open("packet-taken", 2, Offloads::Uso).unwrap();
        for queues in [1, 2] {
            let error = Device::open("packet-taken", queues, Offloads::Uso).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}");
            assert!(error.to_string().contains("packet-taken"), "{error}");
        }
    });
}

#[test]
fn a_device_that_is_down_or_deleted_is_gone() {
    netns::run(|| {
        for framed in [true, false] {
            let device = if framed {
                Device::open("packet-gone", 1, Offloads::Uso).unwrap()
            } else {
                plain::open("packet-gone").unwrap()
            };
            let mut queue = device.into_queues().remove(0);
            let mut packet = Packet::from_bytes(&sample(Kind::Udp, false, 10).bytes);
            assert_eq!(queue.write(&mut packet), Err(WriteError::Gone), "not up yet");
            netns::set_up("packet-gone", 1);
            assert_eq!(queue.write(&mut packet), Ok(()));
            netns::delete("packet-gone");
            assert_eq!(queue.write(&mut packet), Err(WriteError::Gone), "deleted");
            let error = queue.read_burst(&mut Burst::new(4)).unwrap_err();
            assert!(is_gone(&error), "{error}");
        }
    });
}

#[test]
fn descriptors_do_not_block_and_close_on_exec() {
    netns::run(|| {
        for device in [
            Device::open("packet-tun", 2, Offloads::Uso).unwrap(),
            plain::open("packet-plain").unwrap(),
        ] {
            for fd in &device.fds {
                assert!(
                    rustix::fs::fcntl_getfl(fd)
                        .unwrap()
                        .contains(rustix::fs::OFlags::NONBLOCK)
                );
                let flags = rustix::io::fcntl_getfd(fd.as_fd()).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            }
            for mut queue in device.into_queues() {
                assert_eq!(
                    queue.read_burst(&mut Burst::new(4)).unwrap(),
                    0,
                    "nothing to read yet"
                );
            }
        }
    });
}
