//! The sending end: one test against a sink, and what came of it.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use hdrhistogram::Histogram;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::{BATCH, CHUNK_BYTES, Congestion, Counted, kind};

/// Connections made at once by the test of connections.
const CONNECTORS: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes asked and answered, as netperf has it.
const REQUEST_BYTES: usize = 1;
/// Longest latency that is told apart: a minute, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// What is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Test {
    /// One TCP stream.
    #[value(name = "tcp-1")]
    #[serde(rename = "tcp-1")]
    Tcp1,
    /// One TCP stream, from the receiver to the sender.
    #[value(name = "tcp-1-reverse")]
    #[serde(rename = "tcp-1-reverse")]
    Tcp1Reverse,
    /// Eight TCP streams at once.
    #[value(name = "tcp-8")]
    #[serde(rename = "tcp-8")]
    Tcp8,
    /// Eight TCP streams, from the receiver to the sender.
    #[value(name = "tcp-8-reverse")]
    #[serde(rename = "tcp-8-reverse")]
    Tcp8Reverse,
    /// Datagrams of 22 bytes, as many as arrive.
    #[value(name = "udp-22")]
    #[serde(rename = "udp-22")]
    Udp22,
    /// Datagrams of 512 bytes.
    #[value(name = "udp-512")]
    #[serde(rename = "udp-512")]
    Udp512,
    /// Datagrams of 1400 bytes.
    #[value(name = "udp-1400")]
    #[serde(rename = "udp-1400")]
    Udp1400,
    /// One byte there and back over one TCP connection.
    Latency,
    /// TCP connections opened, used for one byte each way, and closed.
    Connections,
}

/// What a test measured. What it does not measure is null.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    /// Of data, without headers, as it arrived.
    pub(crate) bits_per_second: Option<f64>,
    /// Datagrams that arrived.
    pub(crate) packets_per_second: Option<f64>,
    /// Datagrams that were sent.
    pub(crate) sent_packets_per_second: Option<f64>,
    pub(crate) connections_per_second: Option<f64>,
    #[serde(rename = "p50_us")]
    pub(crate) p50_us: Option<f64>,
    #[serde(rename = "p99_us")]
    pub(crate) p99_us: Option<f64>,
    /// Time that all CPUs of the machine were busy, per 10^9 bytes.
    pub(crate) cpu_seconds_per_gigabyte: Option<f64>,
    /// The same, per datagram, request or connection.
    #[serde(rename = "cpuPerOperation_us")]
    pub(crate) cpu_per_operation_us: Option<f64>,
}

/// A test and its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drive {
    /// None: as the routes of the namespace have it.
    pub(crate) source: Option<IpAddr>,
    pub(crate) sink: SocketAddr,
    /// None: the machine's.
    pub(crate) congestion: Option<Congestion>,
    /// Traffic before the time that counts.
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
}

/// Runs one test.
///
/// # Errors
/// The sink does not answer, or a connection breaks.
pub(crate) fn run(test: Test, drive: Drive) -> io::Result<Measured> {
    match test {
        Test::Tcp1 => drive.streams(1, false),
        Test::Tcp1Reverse => drive.streams(1, true),
        Test::Tcp8 => drive.streams(8, false),
        Test::Tcp8Reverse => drive.streams(8, true),
        Test::Udp22 => drive.datagrams(22),
        Test::Udp512 => drive.datagrams(512),
        Test::Udp1400 => drive.datagrams(1400),
        Test::Latency => drive.latency(),
        Test::Connections => drive.connections(),
    }
}

impl Test {
    pub(crate) const ALL: [Self; 9] = [
        Self::Tcp1,
        Self::Tcp1Reverse,
        Self::Tcp8,
        Self::Tcp8Reverse,
        Self::Udp22,
        Self::Udp512,
        Self::Udp1400,
        Self::Latency,
        Self::Connections,
    ];

    /// As it is spelt on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

impl Measured {
    /// The figure that the test is about, and its unit.
    pub(crate) fn figure(&self) -> Option<(f64, &'static str)> {
        let Self {
            bits_per_second,
            packets_per_second,
            connections_per_second,
            p50_us,
            ..
        } = self;
        packets_per_second
            .map(|rate| (rate, "packets/s"))
            .or(connections_per_second.map(|rate| (rate, "connections/s")))
            .or(p50_us.map(|time| (time, "µs")))
            .or(bits_per_second.map(|rate| (rate, "bit/s")))
    }
}

/// Between two counts of the sink.
#[derive(Clone, Copy)]
struct Window {
    from: Counted,
    to: Counted,
}

impl Drive {
    fn streams(self, count: usize, reverse: bool) -> io::Result<Measured> {
        let over = AtomicBool::new(false);
        let received = AtomicU64::new(0);
        let streams = (0..count)
            .map(|_| self.connect(if reverse { kind::SOURCE } else { kind::SINK }))
            .collect::<io::Result<Vec<_>>>()?;
        let own = || received.load(Ordering::Relaxed);
        let count = self.counter()?;
        let (window, own) = thread::scope(|scope| {
            for stream in &streams {
                let (over, received) = (&over, &received);
                scope.spawn(move || {
                    let moved = if reverse {
                        receive(stream, over, received)
                    } else {
                        send(stream, over)
                    };
                    // A stream that breaks is seen as a rate that is too low.
                    drop(moved);
                });
            }
            let measured = self.window(count, own);
            over.store(true, Ordering::Relaxed);
            for stream in &streams {
                // Wakes a thread that waits in the kernel.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            measured
        })?;
        let bytes = if reverse {
            own
        } else {
            window.to.tcp_bytes - window.from.tcp_bytes
        };
        Ok(Measured {
            bits_per_second: Some(bytes as f64 * 8.0 / window.seconds()),
            cpu_seconds_per_gigabyte: window.busy_per(bytes as f64 / 1e9),
            ..Measured::default()
        })
    }

    fn datagrams(self, bytes: usize) -> io::Result<Measured> {
        let socket = UdpSocket::from(self.socket(Type::DGRAM, Protocol::UDP)?);
        socket.connect(self.sink)?;
        let over = AtomicBool::new(false);
        let sent = AtomicU64::new(0);
        let count = self.counter()?;
        let (window, sent) = thread::scope(|scope| {
            scope.spawn(|| blast(&socket, bytes, &over, &sent));
            let measured = self.window(count, || sent.load(Ordering::Relaxed));
            over.store(true, Ordering::Relaxed);
            measured
        })?;
        let packets = (window.to.udp_packets - window.from.udp_packets) as f64;
        let arrived_bytes = (window.to.udp_bytes - window.from.udp_bytes) as f64;
        Ok(Measured {
            bits_per_second: Some(arrived_bytes * 8.0 / window.seconds()),
            packets_per_second: Some(packets / window.seconds()),
            sent_packets_per_second: Some(sent as f64 / window.seconds()),
            cpu_seconds_per_gigabyte: window.busy_per(arrived_bytes / 1e9),
            cpu_per_operation_us: window.busy_per(packets / 1e6),
            ..Measured::default()
        })
    }

    fn latency(self) -> io::Result<Measured> {
        let mut stream = self.connect(kind::ECHO)?;
        let mut count = self.counter()?;
        let mut times = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3).map_err(io::Error::other)?;
        let mut bytes = [0; REQUEST_BYTES];
        let begun = Instant::now();
        let mut from = None;
        while begun.elapsed() < self.warm_up + self.time {
            if from.is_none() && begun.elapsed() >= self.warm_up {
                from = Some(count.now()?);
            }
            let asked = Instant::now();
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
            if from.is_some() {
                times.saturating_record(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
        }
        let to = count.now()?;
        let window = Window {
            from: from.unwrap_or(to),
            to,
        };
        Ok(Measured {
            p50_us: Some(times.value_at_quantile(0.5) as f64 / 1e3),
            p99_us: Some(times.value_at_quantile(0.99) as f64 / 1e3),
            cpu_per_operation_us: window.busy_per(times.len() as f64 / 1e6),
            ..Measured::default()
        })
    }

    fn connections(self) -> io::Result<Measured> {
        let over = AtomicBool::new(false);
        let made = AtomicU64::new(0);
        let count = self.counter()?;
        let (window, made) = thread::scope(|scope| {
            for _ in 0..CONNECTORS {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        if self.use_once().is_ok() {
                            made.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let measured = self.window(count, || made.load(Ordering::Relaxed));
            over.store(true, Ordering::Relaxed);
            measured
        })?;
        Ok(Measured {
            connections_per_second: Some(made as f64 / window.seconds()),
            cpu_per_operation_us: window.busy_per(made as f64 / 1e6),
            ..Measured::default()
        })
    }

    /// A connection whose end is a reset: no port waits for a minute, neither here nor there.
    fn use_once(self) -> io::Result<()> {
        let mut stream = self.connect(kind::CONNECT)?;
        stream.read_exact(&mut [0])?;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    }

    /// Waits for the warm-up and the time of the test; the counts of the sink, and what `own` counted, between. `count`
    /// was connected before the traffic began, which may leave little room for others.
    fn window(self, mut count: Counter, own: impl Fn() -> u64) -> io::Result<(Window, u64)> {
        thread::sleep(self.warm_up);
        let from = count.now()?;
        let own_from = own();
        thread::sleep(self.time);
        let to = count.now()?;
        Ok((Window { from, to }, own() - own_from))
    }

    fn connect(self, kind: u8) -> io::Result<TcpStream> {
        let socket = self.socket(Type::STREAM, Protocol::TCP)?;
        self.congestion
            .map_or(Ok(()), |congestion| congestion.set(&socket))?;
        socket.connect_timeout(&self.sink.into(), CONNECT_TIMEOUT)?;
        let mut stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.write_all(&[kind])?;
        Ok(stream)
    }

    fn socket(self, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.sink), kind, Some(protocol))?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        Ok(socket)
    }

    fn counter(self) -> io::Result<Counter> {
        Ok(Counter(BufReader::new(self.connect(kind::COUNT)?)))
    }
}

struct Counter(BufReader<TcpStream>);

impl Counter {
    fn now(&mut self) -> io::Result<Counted> {
        self.0.get_mut().write_all(b"?")?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Window {
    fn seconds(self) -> f64 {
        (self.to.clock_ns - self.from.clock_ns).max(1) as f64 / 1e9
    }

    /// None: there was nothing of it.
    fn busy_per(self, units: f64) -> Option<f64> {
        let busy = self.to.busy.saturating_sub(self.from.busy).as_secs_f64();
        (units > 0.0).then_some(busy / units)
    }
}

fn send(mut stream: &TcpStream, over: &AtomicBool) -> io::Result<()> {
    let chunk = vec![0; CHUNK_BYTES];
    while !over.load(Ordering::Relaxed) {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn receive(mut stream: &TcpStream, over: &AtomicBool, received: &AtomicU64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut chunk)? {
            0 => break,
            length => received.fetch_add(length as u64, Ordering::Relaxed),
        };
    }
    Ok(())
}

/// Datagrams as fast as the kernel takes them, one flow, no segmentation offload.
fn blast(socket: &UdpSocket, bytes: usize, over: &AtomicBool, sent: &AtomicU64) {
    let payload = vec![0; bytes];
    let slices = vec![[IoSlice::new(&payload)]; BATCH];
    let nowhere: [Option<SockaddrStorage>; BATCH] = [None; BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    while !over.load(Ordering::Relaxed) {
        let results = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &slices,
            nowhere,
            [],
            MsgFlags::empty(),
        );
        // An ICMP error or a full queue: the next ones may do better.
        if let Ok(results) = results {
            sent.fetch_add(results.count() as u64, Ordering::Relaxed);
        }
    }
}
