//! Messages between the keeper and its clients: one JSON document and some descriptors per packet of a
//! SOCK_SEQPACKET socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Attempt, Error, Result};

/// Raised when old and new do not understand each other; a lab of another version is taken down, not adopted.
pub(crate) const VERSION: u32 = 3;

/// Bytes of a packet. Far below what a socket takes (net.core.wmem_default is 208 KiB); the one large thing, what the lab is,
/// travels as a file.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024;

/// Descriptors of a packet: the queues of one TUN. The kernel allows 253.
pub(crate) const MAX_DESCRIPTORS: usize = 64;

/// Bytes of the control buffer: `cmsg_space!` wants a literal, which is [`MAX_DESCRIPTORS`].
const CONTROL: usize = rustix::cmsg_space!(ScmRights(64));

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Answered by [`Reply::Hello`] with the descriptors of the user, PID and mount namespaces.
    Hello,
    /// With one descriptor: the file that says what the lab is.
    HoldLab,
    /// Answered with the descriptor of [`Request::HoldLab`].
    Lab,
    /// Answered with one descriptor: a file that names all that is held.
    Held,
    /// With one descriptor.
    HoldNamespace {
        name: String,
    },
    /// With one descriptor per queue.
    HoldTun {
        namespace: String,
        interface: String,
        metadata: String,
    },
    /// Answered with the descriptor of [`Request::HoldNamespace`].
    Namespace {
        name: String,
    },
    /// Answered by [`Reply::Tun`] with one descriptor per queue.
    Tun {
        namespace: String,
        interface: String,
    },
    ReleaseNamespace {
        name: String,
    },
    ReleaseTun {
        namespace: String,
        interface: String,
    },
    Spawn {
        namespace: String,
        command: String,
    },
    /// Ends one program that [`Request::Spawn`] started with this command.
    End {
        namespace: String,
        command: String,
    },
    /// Ends whatever runs in a namespace, which stays.
    Kill {
        name: String,
    },
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Hello { version: u32 },
    Tun { metadata: String },
    NotFound(String),
    Refused(String),
}

/// What a starting keeper says on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Startup {
    Ready,
    Machine { cause: String, remedy: String },
    Failed(String),
}

/// Sends one packet.
///
/// # Errors
/// A message or a number of descriptors above the limits; a peer that is gone or does not read.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> Result<()> {
    let body = serde_json::to_vec(message).map_err(|error| Error::Keeper(error.to_string()))?;
    if body.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
        return Err(Error::Keeper(format!(
            "a message of {} bytes and {} descriptors is too large (at most {MAX_MESSAGE} and {MAX_DESCRIPTORS})",
            body.len(),
            descriptors.len()
        )));
    }
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Error::Keeper("the descriptors do not fit a message".to_owned()));
    }
    sendmsg(socket, &[IoSlice::new(&body)], &mut control, SendFlags::NOSIGNAL)
        .attempt(|| "write to the keeper's socket".to_owned())?;
    Ok(())
}

/// Receives one packet; None: the peer has closed.
///
/// # Errors
/// A packet above the limits or not of type `T`; its descriptors are closed.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut body = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(&mut body)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .attempt(|| "read from the keeper's socket".to_owned())?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(Error::Keeper("a message above the limits".to_owned()));
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&body[..received.bytes])
        .map_err(|error| Error::Keeper(format!("a message that cannot be read: {error}")))?;
    Ok(Some((message, descriptors)))
}
