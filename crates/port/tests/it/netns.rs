//! A network namespace of the calling thread, and the few ioctls that make an interface in it usable.
#![expect(unsafe_code, reason = "unshare and the interface ioctls have no safe wrapper")]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::ioctl::{Opcode, Setter, ioctl};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use rustix::thread::UnshareFlags;

const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFADDR: Opcode = 0x8916;
const SIOCSIFNETMASK: Opcode = 0x891c;
const IFF_UP: u16 = 1;

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    value: [u8; 24],
}

#[repr(C)]
struct Ipv6Request {
    address: [u8; 16],
    prefix_length: u32,
    index: u32,
}

/// Runs `test` in a thread with a network namespace of its own, which ends with it.
pub(crate) fn run(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: only the network namespace changes, of this thread alone; no descriptor or memory is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect(
                "this test makes network namespaces and TUNs: run it as root (CAP_SYS_ADMIN, CAP_NET_ADMIN)",
            );
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Gives the interface 10.66.`net`.1/24 and fd66:0:0:`net`::1/64, sets it up.
pub(crate) fn set_up(name: &str, net: u8) {
    let v4 = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    request(
        &v4,
        SIOCSIFADDR,
        name,
        &socket_address(Ipv4Addr::new(10, 66, net, 1)),
    );
    request(
        &v4,
        SIOCSIFNETMASK,
        name,
        &socket_address(Ipv4Addr::new(255, 255, 255, 0)),
    );
    request(&v4, SIOCSIFFLAGS, name, &IFF_UP.to_ne_bytes());
    let v6 = socket(AddressFamily::INET6, SocketType::DGRAM, None).unwrap();
    let ipv6 = Ipv6Request {
        address: Ipv6Addr::new(0xfd66, 0, 0, net.into(), 0, 0, 0, 1).octets(),
        prefix_length: 64,
        index: index(name),
    };
    // SAFETY: on an AF_INET6 socket SIOCSIFADDR reads one `struct in6_ifreq`, which Ipv6Request is.
    unsafe { ioctl(&v6, Setter::<SIOCSIFADDR, _>::new(ipv6)) }.unwrap();
}

/// Deletes the interface (RTM_DELLINK).
pub(crate) fn delete(name: &str) {
    let route = socket(AddressFamily::NETLINK, SocketType::RAW, None).unwrap();
    let mut message = Vec::new();
    message.extend(32u32.to_ne_bytes()); // nlmsghdr: length, type, flags (request, acknowledge), sequence, port
    message.extend(17u16.to_ne_bytes());
    message.extend(5u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]); // ifinfomsg: family, type, index, flags, change
    message.extend(index(name).to_ne_bytes());
    message.extend([0; 8]);
    rustix::io::write(&route, &message).unwrap();
    let mut answer = [0; 128];
    let length = rustix::io::read(&route, &mut answer).unwrap();
    assert!(
        length >= 20 && answer[16..20] == [0; 4],
        "RTM_DELLINK {name}: {:?}",
        &answer[..length]
    );
}

fn index(name: &str) -> u32 {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    netdevice::name_to_index(&any, name).unwrap()
}

/// `struct sockaddr_in`, port 0.
fn socket_address(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&AddressFamily::INET.as_raw().to_ne_bytes());
    bytes[4..8].copy_from_slice(&address.octets());
    bytes
}

fn request<const N: usize>(socket: &OwnedFd, opcode: Opcode, name: &str, value: &[u8; N]) {
    let mut request = InterfaceRequest {
        name: [0; 16],
        value: [0; 24],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    request.value[..N].copy_from_slice(value);
    // SAFETY: all three read one `struct ifreq`, 40 bytes, which InterfaceRequest is.
    let result = unsafe {
        match opcode {
            SIOCSIFADDR => ioctl(socket, Setter::<SIOCSIFADDR, _>::new(request)),
            SIOCSIFNETMASK => ioctl(socket, Setter::<SIOCSIFNETMASK, _>::new(request)),
            _ => ioctl(socket, Setter::<SIOCSIFFLAGS, _>::new(request)),
        }
    };
    result.unwrap_or_else(|error| unreachable!("ioctl {opcode:#x} on {name}: {error}"));
}
