//! A plain TUN, opened in the namespace of the calling thread.
#![expect(unsafe_code, reason = "TUNSETIFF has no safe binding")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl::{Opcode, Setter, ioctl};

const TUNSETIFF: Opcode = 0x4004_54ca;
const IFF_TUN: u16 = 1;
const IFF_NO_PI: u16 = 0x1000;

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes the interface; it lives as long as the file or a duplicate.
pub(crate) fn open(name: &str) -> File {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let file = file.expect("these tests need /dev/net/tun, readable and writable for everybody");
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads a struct ifreq, which InterfaceRequest has the layout and size of.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }.unwrap();
    file
}

/// The next packet; None when none comes in time.
pub(crate) fn read(tun: &File, patience: Duration) -> Option<Vec<u8>> {
    let timeout = Timespec::try_from(patience).unwrap();
    let mut polled = [PollFd::new(tun, PollFlags::IN)];
    (poll(&mut polled, Some(&timeout)).unwrap() > 0).then(|| {
        let mut packet = vec![0; 65536];
        let length = (&*tun).read(&mut packet).unwrap();
        packet.truncate(length);
        packet
    })
}

/// Gives back what comes for `time`, as an engine does between NICs of one TUN; returns the packets.
pub(crate) fn reflect(tun: &File, time: Duration) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some(packet) = read(tun, time) {
        (&*tun).write_all(&packet).unwrap();
        packets.push(packet);
    }
    packets
}
