//! The plain backend (`--io plain`): a TUN of the `tun-tap` crate, one queue, no vnet header, every packet as on the wire.
#![expect(unsafe_code, reason = "the crate hands its descriptor out as a number only")]

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use tun_tap::{Iface, Mode};

use crate::offloads::Offloads;
use crate::tun::{Device, check_name, explain};

/// Creates the interface `name` in the network namespace of the calling thread, non-blocking, close on exec.
///
/// # Errors
/// As [`Device::open`].
pub fn open(name: &str) -> io::Result<Device> {
    check_name(name)?;
    let interface = Iface::without_packet_info(name, Mode::Tun).map_err(|error| explain(name, error))?;
    // SAFETY: into_raw_fd gives up the only owner of an open descriptor; from here on OwnedFd is it.
    let fd = unsafe { OwnedFd::from_raw_fd(interface.into_raw_fd()) };
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(Device {
        name: name.to_owned(),
        offloads: Offloads::None,
        framed: false,
        fds: vec![fd],
    })
}
