//! The TLS listener on a loopback address: a thread of its own at low priority, a bounded number of connections.
//!
//! Anybody on this machine can connect, so a connection costs little and holds nothing: when all places are taken, the one that
//! has been idle for longest gives way.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::secrets::Certificate;

/// Connections at once. Clients keep one each, az one a command.
const CONNECTIONS: usize = 128;
/// For the handshake: on loopback it takes a millisecond.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For a request's head, and for a connection that says nothing.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers of one request.
const HEADERS: usize = 64;
/// What hyper reads ahead: more than the longest head.
const BUFFER_BYTES: usize = 64 << 10;
/// Forwarding comes first: a flood of handshakes gets what it leaves.
const NICENESS: i32 = 10;

/// A listener that was bound and serves nobody yet.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) address: SocketAddr,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    _end: oneshot::Sender<()>,
}

/// What the acceptor knows of a connection.
#[derive(Debug)]
struct Place {
    /// Requests under way.
    busy: AtomicUsize,
    /// The last sign of life.
    since: Mutex<Instant>,
    leave: Notify,
}

/// The address of `--listen`.
///
/// # Errors
/// It leads beyond this machine, or is no address at all.
pub fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("{text} is no address with a port, such as 127.0.0.1:8943"))?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "{address} can be reached from beyond this machine: only loopback addresses are listened on, such as \
             127.0.0.1:{port}",
            port = address.port()
        ));
    }
    Ok(address)
}

impl Listener {
    /// # Errors
    /// The address is in use.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Serves from now on.
    ///
    /// # Errors
    /// The certificate cannot be used, or no thread be started.
    pub(super) fn serve(self, certificate: &Certificate, router: Router) -> io::Result<Serving> {
        let acceptor = TlsAcceptor::from(Arc::new(configuration(certificate).map_err(io::Error::other)?));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let address = self.address;
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name(String::from("tls"))
            .spawn(move || {
                // Of this thread alone, as Linux has it. Without it the API is as important as all else.
                let _ = rustix::process::setpriority_process(None, NICENESS);
                runtime.block_on(async {
                    let socket = match tokio::net::TcpListener::from_std(self.socket) {
                        Ok(socket) => socket,
                        Err(error) => return tracing::error!("the API does not listen: {error}"),
                    };
                    tokio::select! {
                        () = accept(socket, acceptor, router) => {}
                        _ = ended => {}
                    }
                });
            })?;
        Ok(Serving { address, _end: end })
    }
}

fn configuration(
    certificate: &Certificate,
) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let chain =
        CertificateDer::pem_slice_iter(certificate.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn accept(socket: tokio::net::TcpListener, acceptor: TlsAcceptor, router: Router) {
    let mut places: Vec<Arc<Place>> = Vec::with_capacity(CONNECTIONS);
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the API cannot accept: {error}");
                // Out of descriptors, most likely; trying again at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // A connection that has ended has let go of its place.
        places.retain(|place| Arc::strong_count(place) > 1);
        if places.len() >= CONNECTIONS && !make_room(&mut places) {
            tracing::debug!("the API has no place for another connection");
            continue;
        }
        let place = Arc::new(Place::new());
        places.push(Arc::clone(&place));
        tokio::spawn(serve(stream, acceptor.clone(), router.clone(), place));
    }
}

/// Sends away whoever has been idle for longest; false: all are busy.
fn make_room(places: &mut Vec<Arc<Place>>) -> bool {
    let idle = places.iter().enumerate().filter(|(_, place)| place.is_idle());
    let longest = idle
        .min_by_key(|(_, place)| place.since())
        .map(|(position, _)| position);
    match longest {
        Some(position) => {
            places.swap_remove(position).leave.notify_one();
            true
        }
        None => false,
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, router: Router, place: Arc<Place>) {
    let served = async {
        // Answers are small and go out at once.
        let _ = stream.set_nodelay(true);
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!("the API: {error}"),
            Err(_) => return tracing::debug!("the API: a handshake took too long"),
        };
        place.touch();
        let inner = TowerToHyperService::new(router);
        let service = service_fn(|request| {
            let (busy, answer) = (Busy::new(Arc::clone(&place)), inner.call(request));
            async move {
                let answer = answer.await;
                drop(busy);
                answer
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_headers(HEADERS)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!("the API: {error}");
        }
    };
    tokio::select! {
        () = served => {}
        () = place.leave.notified() => {}
    }
}

impl Place {
    fn new() -> Self {
        Self {
            busy: AtomicUsize::new(0),
            since: Mutex::new(Instant::now()),
            leave: Notify::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// A request under way.
struct Busy(Arc<Place>);

impl Busy {
    fn new(place: Arc<Place>) -> Self {
        place.busy.fetch_add(1, Ordering::Relaxed);
        Self(place)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_listened_on() {
        for fine in ["127.0.0.1:8943", "127.1.2.3:0", "[::1]:8943"] {
            assert!(loopback(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "0.0.0.0:8943",
            "[::]:1",
            "192.0.2.1:1",
            "localhost:1",
            "127.0.0.1",
            "8943",
            "",
        ] {
            assert!(loopback(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_longest_idle_gives_way_and_the_busy_never() {
        let mut places: Vec<Arc<Place>> = (0..3).map(|_| Arc::new(Place::new())).collect();
        let (oldest, busy) = (Arc::clone(&places[1]), Arc::clone(&places[0]));
        *oldest.since.lock().unwrap() -= Duration::from_secs(1);
        *busy.since.lock().unwrap() -= Duration::from_secs(2);
        let under_way = Busy::new(Arc::clone(&busy));
        assert!(make_room(&mut places));
        assert!(!places.iter().any(|place| Arc::ptr_eq(place, &oldest)));
        assert!(make_room(&mut places));
        assert!(!make_room(&mut places), "what is left is busy");
        drop(under_way);
        assert!(make_room(&mut places));
    }
}
