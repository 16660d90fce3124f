//! One packet exchange between real sockets: whether anything came back, and when. The tables are never asked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use lab::Namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, connect, getsockname,
    ipproto, listen, recv, recvfrom, send, sendto, socket_with, sockopt,
};

use crate::api::ProbeProtocol;

/// The contract: nothing within one second is Deny.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// The sender's port unless one is asked for; the same as `explain` assumes.
pub(crate) const SOURCE_PORT: u16 = 50000;
/// Connections that may wait for `accept`: far more than probes can be under way.
const BACKLOG: i32 = 128;
/// What is sent: long enough to tell one probe from another, short enough for every MTU.
const PAYLOAD_BYTES: usize = 32;
/// Type, code, checksum, identifier and sequence number of an echo.
const ECHO_HEADER_BYTES: usize = 8;

/// Who sends what to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) from: &'a Namespace,
    pub(crate) source: IpAddr,
    /// Where it may arrive; a listener is started at each. Empty: nobody has the destination.
    pub(crate) to: &'a [Receiver],
    pub(crate) destination: IpAddr,
    pub(crate) protocol: ProbeProtocol,
    pub(crate) port: u16,
    /// None: [`SOURCE_PORT`], or any free one.
    pub(crate) source_port: Option<u16>,
    /// Different for every exchange under way: the echo identifier.
    pub(crate) identifier: u16,
}

/// Where a packet may arrive.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    /// Of the namespace.
    pub(crate) name: String,
    pub(crate) namespace: Arc<Namespace>,
    /// What the listener binds.
    pub(crate) address: SocketAddr,
}

/// The listeners of one exchange.
#[derive(Debug)]
struct Open {
    sockets: Vec<Arc<OwnedFd>>,
    /// Every receiver has one: whatever answers is ours, and says what we expect.
    all_ours: bool,
}

/// What the sender's socket saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// From sending to the answer.
    pub(crate) answered: Option<Duration>,
    /// The sender's port, or the echo identifier.
    pub(crate) source_port: u16,
}

/// Listeners of exchanges under way, shared by those to the same namespace, address and port: whoever looks first
/// serves. The namespace counts, for two VNets may use the same addresses (VNET-07).
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    open: Mutex<HashMap<(String, SocketAddr, ProbeProtocol), Weak<OwnedFd>>>,
}

impl Exchange<'_> {
    /// Sends, and waits at most [`PATIENCE`] for an answer.
    ///
    /// # Errors
    /// The sender could not send: its namespace lacks the address, or the port is in use. For people.
    pub(crate) fn run(&self, listeners: &Listeners) -> Result<Seen, String> {
        match self.protocol {
            ProbeProtocol::Tcp => self.tcp(listeners),
            ProbeProtocol::Udp => self.udp(listeners),
            ProbeProtocol::Icmp => self.icmp(),
        }
    }

    fn tcp(&self, listeners: &Listeners) -> Result<Seen, String> {
        let open = self.open(listeners)?;
        let (sender, source_port) = self.sender(SocketType::STREAM)?;
        // Closing resets the connection, so that the same ports can be used again at once.
        sockopt::set_socket_linger(&sender, Some(Duration::ZERO)).map_err(cannot("set SO_LINGER"))?;
        let seen = |answered| {
            Ok(Seen {
                answered,
                source_port,
            })
        };
        let start = Instant::now();
        let mut connecting = true;
        match connect(&sender, &SocketAddr::new(self.destination, self.port)) {
            Ok(()) => connecting = false,
            Err(Errno::INPROGRESS) => {}
            Err(Errno::CONNREFUSED) => return seen(Some(start.elapsed())),
            Err(error) if is_unreachable(error) => return seen(None),
            Err(error) => return Err(format!("cannot connect from {}: {error}", self.source)),
        }
        let mut accepted = Vec::new();
        loop {
            let wanted = if connecting { PollFlags::OUT } else { PollFlags::IN };
            let Some((sender_ready, listener_ready)) = wait(&sender, wanted, &open.sockets, start)? else {
                return seen(None);
            };
            if listener_ready {
                for listener in &open.sockets {
                    answer_connections(listener, &mut accepted);
                }
            }
            if !sender_ready {
                continue;
            }
            if connecting {
                match sockopt::socket_error(&sender).map_err(cannot("read SO_ERROR"))? {
                    // A program that is not ours need not speak first; its SYN-ACK is an answer.
                    Ok(()) if !open.all_ours => return seen(Some(start.elapsed())),
                    Ok(()) => connecting = false,
                    Err(Errno::CONNREFUSED | Errno::CONNRESET) => return seen(Some(start.elapsed())),
                    Err(_) => return seen(None),
                }
            } else {
                match recv(&sender, &mut [0; PAYLOAD_BYTES][..], RecvFlags::DONTWAIT) {
                    Ok(_) | Err(Errno::CONNRESET) => return seen(Some(start.elapsed())),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(_) => return seen(None),
                }
            }
        }
    }

    fn udp(&self, listeners: &Listeners) -> Result<Seen, String> {
        let open = self.open(listeners)?;
        let (sender, source_port) = self.sender(SocketType::DGRAM)?;
        let seen = |answered| {
            Ok(Seen {
                answered,
                source_port,
            })
        };
        let payload = payload();
        let start = Instant::now();
        let peer = SocketAddr::new(self.destination, self.port);
        match connect(&sender, &peer).and_then(|()| send(&sender, &payload, SendFlags::NOSIGNAL)) {
            Ok(_) => {}
            Err(error) if is_unreachable(error) => return seen(None),
            Err(error) => return Err(format!("cannot send from {}: {error}", self.source)),
        }
        loop {
            let Some((_, listener_ready)) = wait(&sender, PollFlags::IN, &open.sockets, start)? else {
                return seen(None);
            };
            if listener_ready {
                open.sockets.iter().for_each(|listener| echo_datagrams(listener));
            }
            let mut buffer = [0; PAYLOAD_BYTES];
            match recv(&sender, &mut buffer[..], RecvFlags::DONTWAIT) {
                // Our own listener sends back what it got; another program says what it likes.
                Ok(_) if !open.all_ours || buffer == payload => {
                    return seen(Some(start.elapsed()));
                }
                // The receiver's kernel says that nobody listens: the packet arrived and its answer returned.
                Err(Errno::CONNREFUSED) => return seen(Some(start.elapsed())),
                _ => {}
            }
        }
    }

    fn icmp(&self) -> Result<Seen, String> {
        let v6 = self.destination.is_ipv6();
        let protocol = if v6 { ipproto::ICMPV6 } else { ipproto::ICMP };
        let sender = self.from.run(|| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let sender = socket_with(family(self.source), SocketType::RAW, flags, Some(protocol))?;
            bind(&sender, &SocketAddr::new(self.source, 0)).map(|()| sender)
        });
        let sender = sender
            .map_err(|error| error.to_string())?
            .map_err(|error| self.cannot_bind(error))?;
        let seen = |answered| {
            Ok(Seen {
                answered,
                source_port: self.identifier,
            })
        };
        let request = echo_request(v6, self.identifier);
        let start = Instant::now();
        let peer = SocketAddr::new(self.destination, 0);
        match connect(&sender, &peer).and_then(|()| send(&sender, &request, SendFlags::NOSIGNAL)) {
            Ok(_) => {}
            Err(error) if is_unreachable(error) => return seen(None),
            Err(error) => return Err(format!("cannot send from {}: {error}", self.source)),
        }
        while wait(&sender, PollFlags::IN, &[], start)?.is_some() {
            let mut buffer = [0; 256];
            if let Ok((length, _)) = recv(&sender, &mut buffer[..], RecvFlags::DONTWAIT)
                && is_reply(v6, &buffer[..length.min(256)], &request)
            {
                return seen(Some(start.elapsed()));
            }
        }
        seen(None)
    }

    fn open(&self, listeners: &Listeners) -> Result<Open, String> {
        let mut sockets = Vec::new();
        for receiver in self.to {
            sockets.extend(self.listener(receiver, listeners)?);
        }
        Ok(Open {
            all_ours: !sockets.is_empty() && sockets.len() == self.to.len(),
            sockets,
        })
    }

    /// The listening socket at a receiver; None when a program of the VM's own has the port, or nobody has the address.
    fn listener(&self, to: &Receiver, listeners: &Listeners) -> Result<Option<Arc<OwnedFd>>, String> {
        let address = to.address;
        let mut open = listeners.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, listener| listener.strong_count() > 0);
        let key = (to.name.to_lowercase(), address, self.protocol);
        if let Some(shared) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(Some(shared));
        }
        let kind = if self.protocol == ProbeProtocol::Tcp {
            SocketType::STREAM
        } else {
            SocketType::DGRAM
        };
        let bound = to.namespace.run(|| {
            let socket = socket_of(address.ip(), kind)?;
            bind(&socket, &address)?;
            if kind == SocketType::STREAM {
                listen(&socket, BACKLOG)?;
            }
            Ok::<_, Errno>(socket)
        });
        match bound.map_err(|error| error.to_string())? {
            Ok(socket) => {
                let socket = Arc::new(socket);
                open.insert(key, Arc::downgrade(&socket));
                Ok(Some(socket))
            }
            Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) => Ok(None),
            Err(error) => Err(format!("cannot listen on {address}: {error}")),
        }
    }

    /// The sender's socket and its port.
    fn sender(&self, kind: SocketType) -> Result<(OwnedFd, u16), String> {
        let bound = self.from.run(|| {
            let wanted = SocketAddr::new(self.source, self.source_port.unwrap_or(SOURCE_PORT));
            let socket = socket_of(self.source, kind)?;
            match bind(&socket, &wanted) {
                Err(Errno::ADDRINUSE) if self.source_port.is_none() => {
                    bind(&socket, &SocketAddr::new(self.source, 0))?;
                }
                other => other?,
            }
            let own = SocketAddr::try_from(getsockname(&socket)?)?;
            Ok((socket, own.port()))
        });
        let bound = bound.map_err(|error| error.to_string())?;
        bound.map_err(|error| self.cannot_bind(error))
    }

    fn cannot_bind(&self, error: Errno) -> String {
        match error {
            Errno::ADDRNOTAVAIL => format!("the sender has no address {}", self.source),
            Errno::ADDRINUSE => format!(
                "port {} of {} is in use by a program of the sender",
                self.source_port.unwrap_or(SOURCE_PORT),
                self.source
            ),
            error => format!("cannot bind {} at the sender: {error}", self.source),
        }
    }
}

/// Waits until one of the sockets has something to say: which has. None: the time is up.
fn wait(
    sender: &OwnedFd,
    wanted: PollFlags,
    listeners: &[Arc<OwnedFd>],
    start: Instant,
) -> Result<Option<(bool, bool)>, String> {
    let left = PATIENCE.saturating_sub(start.elapsed());
    if left.is_zero() {
        return Ok(None);
    }
    let timeout = Timespec::try_from(left).map_err(|error| error.to_string())?;
    let mut sockets = vec![PollFd::new(sender, wanted)];
    sockets.extend(
        listeners
            .iter()
            .map(|listener| PollFd::new(&**listener, PollFlags::IN)),
    );
    match poll(&mut sockets, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(format!("cannot wait for an answer: {error}")),
    }
    let ready = |socket: &PollFd<'_>| !socket.revents().is_empty();
    Ok(Some((
        sockets.first().is_some_and(ready),
        sockets.iter().skip(1).any(ready),
    )))
}

/// Takes waiting connections and says something to each. They stay open until the exchange ends.
fn answer_connections(listener: &OwnedFd, accepted: &mut Vec<OwnedFd>) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    while let Ok(connection) = accept_with(listener, flags) {
        // A sender that has gone again needs no answer.
        let _ = send(&connection, b"peerlane", SendFlags::NOSIGNAL);
        accepted.push(connection);
    }
}

fn echo_datagrams(listener: &OwnedFd) {
    let mut buffer = [0; 2048];
    while let Ok((length, _, Some(peer))) = recvfrom(listener, &mut buffer[..], RecvFlags::DONTWAIT) {
        let _ = sendto(listener, &buffer[..length.min(2048)], SendFlags::NOSIGNAL, &peer);
    }
}

fn socket_of(address: IpAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family(address), kind, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(socket)
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    }
}

/// Errors that mean "it does not get there", as opposed to "it could not be sent".
fn is_unreachable(error: Errno) -> bool {
    matches!(
        error,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::TIMEDOUT | Errno::ACCESS | Errno::PERM
    )
}

fn cannot(what: &str) -> impl Fn(Errno) -> String {
    move |error| format!("cannot {what}: {error}")
}

/// Bytes that no other exchange sends: the hash keys of the standard library are random.
fn payload() -> [u8; PAYLOAD_BYTES] {
    use std::hash::{BuildHasher, Hasher};
    let mut payload = [0; PAYLOAD_BYTES];
    for chunk in payload.chunks_mut(8) {
        chunk.copy_from_slice(
            &std::hash::RandomState::new()
                .build_hasher()
                .finish()
                .to_ne_bytes(),
        );
    }
    payload
}

/// An ICMP or ICMPv6 echo request. The kernel fills in the checksum of ICMPv6.
fn echo_request(v6: bool, identifier: u16) -> [u8; ECHO_HEADER_BYTES + PAYLOAD_BYTES] {
    let mut request = [0; ECHO_HEADER_BYTES + PAYLOAD_BYTES];
    request[0] = if v6 { 128 } else { 8 };
    request[4..6].copy_from_slice(&identifier.to_be_bytes());
    request[7] = 1;
    request[ECHO_HEADER_BYTES..].copy_from_slice(&payload());
    if !v6 {
        let checksum = internet_checksum(&request);
        request[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    request
}

/// Whether `received`, with its IPv4 header or without an IPv6 one, is the reply to `request`.
fn is_reply(v6: bool, received: &[u8], request: &[u8]) -> bool {
    let header = match (v6, received.first()) {
        (true, _) => 0,
        (false, Some(first)) => usize::from(first & 0x0f) * 4,
        (false, None) => return false,
    };
    let Some(echo) = received.get(header..) else {
        return false;
    };
    let reply_type = if v6 { 129 } else { 0 };
    // All but type, code and checksum are the request's.
    echo.first() == Some(&reply_type) && echo.get(4..) == request.get(4..)
}

/// RFC 1071, over an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn here(port: u16) -> Receiver {
        Receiver {
            name: String::from("here"),
            namespace: Arc::new(Namespace::current().unwrap()),
            address: SocketAddr::new(LOOPBACK, port),
        }
    }

    fn local(to: &Receiver, protocol: ProbeProtocol) -> Exchange<'_> {
        Exchange {
            from: &to.namespace,
            source: LOOPBACK,
            to: std::slice::from_ref(to),
            destination: LOOPBACK,
            protocol,
            port: to.address.port(),
            source_port: None,
            identifier: 77,
        }
    }

    #[test]
    fn every_protocol_is_answered_over_loopback() {
        let listeners = Listeners::default();
        for (protocol, port) in [
            (ProbeProtocol::Tcp, 50711),
            (ProbeProtocol::Udp, 50711),
            (ProbeProtocol::Icmp, 0),
        ] {
            // Twice: the ports are free again at once.
            for _ in 0..2 {
                let seen = local(&here(port), protocol).run(&listeners).unwrap();
                assert!(seen.answered.is_some(), "{protocol:?}");
            }
        }
    }

    #[test]
    fn a_reset_is_an_answer_and_silence_is_none() {
        let (closed, open) = (here(50712), here(50713));
        let nobody_listens = Exchange {
            to: &[],
            ..local(&closed, ProbeProtocol::Tcp)
        };
        assert!(
            nobody_listens
                .run(&Listeners::default())
                .unwrap()
                .answered
                .is_some()
        );
        // An echo reply that never comes: nothing answers for an unspecified identifier of a socket that is not there.
        let (quiet, _hold) = (socket_of(LOOPBACK, SocketType::DGRAM).unwrap(), ());
        bind(&quiet, &SocketAddr::new(LOOPBACK, 50713)).unwrap();
        let silence = Exchange {
            to: &[],
            ..local(&open, ProbeProtocol::Udp)
        };
        assert_eq!(silence.run(&Listeners::default()).unwrap().answered, None);
    }

    #[test]
    fn exchanges_to_one_port_share_its_listener() {
        let here = here(50714);
        let listeners = Listeners::default();
        std::thread::scope(|scope| {
            for source_port in 50720..50730 {
                let (here, listeners) = (&here, &listeners);
                scope.spawn(move || {
                    for protocol in [ProbeProtocol::Tcp, ProbeProtocol::Udp] {
                        let exchange = Exchange {
                            source_port: Some(source_port),
                            ..local(here, protocol)
                        };
                        assert!(exchange.run(listeners).unwrap().answered.is_some());
                    }
                });
            }
        });
    }

    #[test]
    fn a_source_address_the_sender_does_not_have_is_refused() {
        let here = here(50715);
        let strange = Exchange {
            source: "192.0.2.1".parse().unwrap(),
            ..local(&here, ProbeProtocol::Tcp)
        };
        let error = strange.run(&Listeners::default()).unwrap_err();
        assert!(error.contains("no address 192.0.2.1"), "{error}");
    }

    #[test]
    fn an_echo_request_has_a_right_checksum() {
        assert_eq!(internet_checksum(&echo_request(false, 0xbeef)), 0);
    }
}
