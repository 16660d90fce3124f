//! TUN devices with `IFF_VNET_HDR`: opening, queues, offload negotiation, adoption after a restart.
#![expect(unsafe_code, reason = "the ioctls of /dev/net/tun have no safe wrapper")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use packet::vnet_header;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Getter, IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};

use crate::offloads::Offloads;
use crate::queue::{Queue, TunQueue};

/// A network interface of ours and the descriptors its packets pass through.
#[derive(Debug)]
pub struct Device {
    pub name: String,
    /// What was negotiated: the most the kernel hands us, and the most we hand the kernel.
    pub offloads: Offloads,
    /// Every packet is preceded by a vnet header.
    pub(crate) framed: bool,
    /// One descriptor per queue.
    pub fds: Vec<OwnedFd>,
}

/// `struct ifreq` (linux/if.h) as the TUN ioctls use it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_SIZE],
    flags: u16,
    rest: [u8; 22],
}

/// `IFNAMSIZ`, the terminating zero included.
const NAME_SIZE: usize = 16;

/// Queues of one device: `MAX_TAP_QUEUES` of the kernel.
const MAX_QUEUES: usize = 256;

// linux/if_tun.h
const IFF_TUN: u16 = 0x0001;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
/// Fail instead of attaching to a device that exists.
const IFF_TUN_EXCL: u16 = 0x8000;

const TUN_F_CSUM: usize = 0x01;
const TUN_F_TSO4: usize = 0x02;
const TUN_F_TSO6: usize = 0x04;
const TUN_F_TSO_ECN: usize = 0x08;
const TUN_F_USO4: usize = 0x20;
const TUN_F_USO6: usize = 0x40;

const TUNSETIFF: Opcode = opcode::write::<c_int>(b'T', 202);
const TUNGETIFF: Opcode = opcode::read::<u32>(b'T', 210);
const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const TUNGETVNETHDRSZ: Opcode = opcode::read::<c_int>(b'T', 215);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<c_int>(b'T', 216);
const TUNSETVNETLE: Opcode = opcode::write::<c_int>(b'T', 220);

impl Device {
    /// Creates the interface `name` in the network namespace of the calling thread, with `queues` queues and the highest
    /// level of offloads, at most `want`, that this kernel knows. Descriptors are non-blocking and close on exec.
    ///
    /// # Errors
    /// `InvalidInput`: the name or the number of queues. `NotFound` or `PermissionDenied`: /dev/net/tun, or the
    /// namespace is not ours. `ResourceBusy`: the name is taken. Anything else as the kernel reports it.
    pub fn open(name: &str, queues: usize, want: Offloads) -> io::Result<Self> {
        check_name(name)?;
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a TUN has 1 to {MAX_QUEUES} queues, not {queues}"),
            ));
        }
        let mut flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
        if queues > 1 {
            flags |= IFF_MULTI_QUEUE;
        }
        let mut fds = Vec::with_capacity(queues);
        for queue in 0..queues {
            // The first queue creates the device; only the others may find it there.
            let exclusive = if queue == 0 { IFF_TUN_EXCL } else { 0 };
            fds.push(attach(name, flags | exclusive).map_err(|error| explain(name, error))?);
        }
        let offloads = configure(&fds[0], want)
            .map_err(|error| context(&format!("set up the vnet header of TUN {name:?}"), error))?;
        Ok(Self {
            name: name.to_owned(),
            offloads,
            framed: true,
            fds,
        })
    }

    /// Takes over descriptors of an open device, such as a keeper held across a restart. All settings live in the kernel
    /// and are read back, except the offload level, which it does not tell.
    ///
    /// # Errors
    /// When there is no descriptor, one is not a queue of a TUN with this name, or its vnet header has another length.
    pub fn from_fds(name: &str, offloads: Offloads, fds: Vec<OwnedFd>) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let mut framed = None;
        for fd in &fds {
            let (found, flags) = identity(fd.as_fd())
                .map_err(|error| context(&format!("adopt TUN {name:?}: not a TUN queue"), error))?;
            if found != name || flags & IFF_TUN == 0 || flags & IFF_NO_PI == 0 {
                return Err(invalid(format!(
                    "adopt TUN {name:?}: the descriptor is of {found:?}"
                )));
            }
            let this = flags & IFF_VNET_HDR != 0;
            if this && vnet_header_size(fd.as_fd())? != vnet_header::LENGTH as c_int {
                return Err(invalid(format!(
                    "adopt TUN {name:?}: its vnet header is not ours"
                )));
            }
            if *framed.get_or_insert(this) != this {
                return Err(invalid(format!("adopt TUN {name:?}: its queues differ")));
            }
        }
        let framed = framed.ok_or_else(|| invalid(format!("adopt TUN {name:?}: no descriptor")))?;
        Ok(Self {
            name: name.to_owned(),
            offloads: if framed { offloads } else { Offloads::None },
            framed,
            fds,
        })
    }

    /// The queues, one for each worker.
    #[must_use]
    pub fn into_queues(self) -> Vec<Queue> {
        let (offloads, framed) = (self.offloads, self.framed);
        self.fds
            .into_iter()
            .map(|fd| Queue::Tun(TunQueue::new(fd, offloads, framed)))
            .collect()
    }
}

/// The kernel takes any name without `/` or space; `%` would make it choose a number.
pub(crate) fn check_name(name: &str) -> io::Result<()> {
    let fits = (1..NAME_SIZE).contains(&name.len()) && name != "." && name != "..";
    if fits
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"/%:".contains(&byte))
    {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{name:?} is no interface name: 1 to 15 printable ASCII characters without / % :"),
    ))
}

/// Says what to do about the usual reasons.
pub(crate) fn explain(name: &str, error: io::Error) -> io::Error {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; load the module: modprobe tun",
        io::ErrorKind::PermissionDenied => {
            "; needs CAP_NET_ADMIN in this network namespace and mode 0666 of /dev/net/tun"
        }
        io::ErrorKind::ResourceBusy => "; an interface of this name exists in the namespace",
        _ => "",
    };
    io::Error::new(error.kind(), format!("open TUN {name:?}: {error}{remedy}"))
}

fn context(doing: &str, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}

/// A new queue of the device `name`, which TUNSETIFF creates if need be.
fn attach(name: &str, flags: u16) -> io::Result<OwnedFd> {
    let open_flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open("/dev/net/tun", open_flags, Mode::empty())?;
    let mut request = InterfaceRequest {
        name: [0; NAME_SIZE],
        flags,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, 40 bytes on 64-bit Linux, which InterfaceRequest is.
    unsafe { ioctl(&fd, Updater::<TUNSETIFF, _>::new(&mut request)) }?;
    Ok(fd)
}

/// Length and byte order of the vnet header, and the offloads, all of which belong to the device.
fn configure(fd: &OwnedFd, want: Offloads) -> io::Result<Offloads> {
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe {
        ioctl(
            fd,
            Setter::<TUNSETVNETHDRSZ, c_int>::new(vnet_header::LENGTH as c_int),
        )
    }?;
    // SAFETY: TUNSETVNETLE reads one int.
    unsafe { ioctl(fd, Setter::<TUNSETVNETLE, c_int>::new(1)) }?;
    let offer = |bits| {
        // SAFETY: TUNSETOFFLOAD takes its bits as the argument itself.
        unsafe { ioctl(fd, IntegerSetter::<TUNSETOFFLOAD>::new_usize(bits)) }
    };
    Ok(negotiate(want, offer)?)
}

/// The highest level, at most `want`, that the kernel takes: of bits it does not know it says EINVAL.
fn negotiate(
    want: Offloads,
    mut offer: impl FnMut(usize) -> rustix::io::Result<()>,
) -> rustix::io::Result<Offloads> {
    for level in Offloads::DESCENDING.into_iter().filter(|level| *level <= want) {
        match offer(feature_bits(level)) {
            Err(Errno::INVAL) => {}
            answer => return answer.map(|()| level),
        }
    }
    Err(Errno::INVAL)
}

const fn feature_bits(level: Offloads) -> usize {
    match level {
        Offloads::None => 0,
        Offloads::Checksum => TUN_F_CSUM,
        Offloads::Tso => TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
        Offloads::Uso => feature_bits(Offloads::Tso) | TUN_F_USO4 | TUN_F_USO6,
    }
}

/// Name and flags of the device behind a descriptor.
fn identity(fd: BorrowedFd<'_>) -> io::Result<(String, u16)> {
    let mut request = InterfaceRequest {
        name: [0; NAME_SIZE],
        flags: 0,
        rest: [0; 22],
    };
    // SAFETY: TUNGETIFF writes one `struct ifreq`, which InterfaceRequest is; its opcode names another size.
    unsafe { ioctl(fd, Updater::<TUNGETIFF, _>::new(&mut request)) }?;
    let name = request.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok((String::from_utf8_lossy(name).into_owned(), request.flags))
}

fn vnet_header_size(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: TUNGETVNETHDRSZ writes one int.
    Ok(unsafe { ioctl(fd, Getter::<TUNGETVNETHDRSZ, c_int>::new()) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_size_of_struct_ifreq() {
        assert_eq!(size_of::<InterfaceRequest>(), 40);
    }

    #[test]
    fn names_the_kernel_would_change_or_refuse_are_refused() {
        for name in [
            "",
            "sixteen-letters!",
            "a b",
            "a/b",
            "tun%d",
            "tun:1",
            ".",
            "..",
            "zażółć",
        ] {
            let error = Device::open(name, 1, Offloads::Uso).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        assert!(check_name("pl-hub").is_ok() && check_name("fifteen-letters").is_ok());
    }

    /// Linux before 6.2 has no USO, and others might lack more.
    #[test]
    fn a_kernel_that_knows_fewer_offloads_is_offered_fewer() {
        for known in Offloads::DESCENDING {
            let kernel = |bits: usize| match bits & !feature_bits(known) {
                0 => Ok(()),
                _ => Err(Errno::INVAL),
            };
            for want in Offloads::DESCENDING {
                assert_eq!(negotiate(want, kernel), Ok(want.min(known)));
            }
        }
        assert_eq!(negotiate(Offloads::Uso, |_| Err(Errno::BADFD)), Err(Errno::BADFD));
    }

    #[test]
    fn a_device_has_at_least_one_queue() {
        for queues in [0, 257] {
            let error = Device::open("pl-q", queues, Offloads::Uso).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn what_is_no_tun_is_not_adopted() {
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let error = Device::from_fds("pl-q", Offloads::Uso, vec![null]).unwrap_err();
        assert!(error.to_string().contains("not a TUN queue"), "{error}");
        let error = Device::from_fds("pl-q", Offloads::Uso, vec![]).unwrap_err();
        assert!(error.to_string().contains("no descriptor"), "{error}");
    }
}
