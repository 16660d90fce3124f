//! The receiving end: takes connections and datagrams on one port, and counts.

use std::io::{self, BufRead, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt};

use super::{BATCH, CHUNK_BYTES, Congestion, Counted, busy_time, kind};

/// Threads that take connections, so that one slow connection does not stop the others.
const ACCEPTORS: usize = 4;
/// Streams served at once; more are closed.
const STREAMS: usize = 256;
/// Of the UDP socket, so that a busy moment of the counting thread loses nothing. The kernel doubles it.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
const DATAGRAM_BYTES: usize = 2048;

#[derive(Debug)]
struct Counters {
    begun: Instant,
    tcp_bytes: AtomicU64,
    udp_packets: AtomicU64,
    udp_bytes: AtomicU64,
    streams: AtomicUsize,
}

/// Serves until standard input ends. Writes one line when it is ready: its port.
///
/// # Errors
/// The port is taken, or the kernel refuses this congestion control.
pub(crate) fn serve(address: SocketAddr, congestion: Option<Congestion>) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    // Connections have it from here.
    congestion.map_or(Ok(()), |congestion| congestion.set(&listener))?;
    let at = listener.local_addr()?;
    let socket = UdpSocket::bind(at)?;
    // What the kernel grants without privileges may be less.
    let forced = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
    forced.or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES))?;
    let counters = Arc::new(Counters {
        begun: Instant::now(),
        tcp_bytes: AtomicU64::new(0),
        udp_packets: AtomicU64::new(0),
        udp_bytes: AtomicU64::new(0),
        streams: AtomicUsize::new(0),
    });
    let datagrams = Arc::clone(&counters);
    thread::spawn(move || count_datagrams(&socket, &datagrams));
    for _ in 0..ACCEPTORS {
        let listener = listener.try_clone()?;
        let counters = Arc::clone(&counters);
        thread::spawn(move || accept(&listener, &counters));
    }
    println!("{}", at.port());
    io::stdout().flush()?;
    for line in io::stdin().lock().lines() {
        line?;
    }
    Ok(())
}

fn accept(listener: &TcpListener, counters: &Arc<Counters>) {
    loop {
        let Ok((mut stream, _)) = listener.accept() else {
            // Out of descriptors: some will be closed.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let mut first = [0];
        let timely = stream.set_read_timeout(Some(Duration::from_secs(2)));
        if timely.is_err() || stream.read_exact(&mut first).is_err() {
            continue;
        }
        if first[0] == kind::CONNECT {
            // The other side closes first, so that its port and not ours stays behind.
            let _ = stream.write_all(&first).and_then(|()| stream.read(&mut first));
            continue;
        }
        if counters.streams.fetch_add(1, Ordering::Relaxed) >= STREAMS {
            counters.streams.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let counters = Arc::clone(counters);
        thread::spawn(move || {
            // A stream ends when its other side does, which is no error.
            let _ = stream
                .set_read_timeout(None)
                .and_then(|()| serve_stream(stream, first[0], &counters));
            counters.streams.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn serve_stream(mut stream: TcpStream, what: u8, counters: &Counters) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    match what {
        kind::SINK => loop {
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                length => counters.tcp_bytes.fetch_add(length as u64, Ordering::Relaxed),
            };
        },
        kind::SOURCE => loop {
            stream.write_all(&chunk)?;
        },
        kind::ECHO => loop {
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                length => stream.write_all(&chunk[..length])?,
            }
        },
        kind::COUNT => loop {
            stream.read_exact(&mut chunk[..1])?;
            let mut line = serde_json::to_vec(&counters.now()?)?;
            line.push(b'\n');
            stream.write_all(&line)?;
        },
        _ => Ok(()),
    }
}

fn count_datagrams(socket: &UdpSocket, counters: &Counters) {
    let mut memory = vec![[0_u8; DATAGRAM_BYTES]; BATCH];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    loop {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            memory.iter_mut().map(|bytes| [IoSliceMut::new(bytes)]).collect();
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            MsgFlags::MSG_WAITFORONE,
            None,
        );
        // An ICMP error about an answer that nobody sent.
        let Ok(received) = received else { continue };
        let (mut packets, mut bytes) = (0, 0);
        for message in received {
            packets += 1;
            bytes += message.bytes as u64;
        }
        counters.udp_packets.fetch_add(packets, Ordering::Relaxed);
        counters.udp_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Counters {
    fn now(&self) -> io::Result<Counted> {
        Ok(Counted {
            clock_ns: u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
            tcp_bytes: self.tcp_bytes.load(Ordering::Relaxed),
            udp_packets: self.udp_packets.load(Ordering::Relaxed),
            udp_bytes: self.udp_bytes.load(Ordering::Relaxed),
            busy: busy_time()?,
        })
    }
}
