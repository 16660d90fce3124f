//! The ARM API as a stranger meets it: who gets in, and what is refused by name, over TLS and over the unix socket.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{Peerlane, User, unique, users};

/// Longer than any answer takes on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// `/subscriptions/` and the default one.
const SUBSCRIPTION: &str = "/subscriptions/00000000-0000-0000-0000-000000000000";

/// An empty lab that listens.
struct Server {
    peerlane: Peerlane,
    name: String,
    address: SocketAddr,
    token: String,
    tls: Arc<ClientConfig>,
}

/// What came back.
#[derive(Debug)]
struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Server {
    fn start(user: User, more: &[&str]) -> Self {
        let peerlane = Peerlane::new(user);
        let name = unique("api");
        let arguments = ["serve", "--name", &name, "--listen", "127.0.0.1:0", "--detach"];
        let ran = peerlane.run(arguments.iter().chain(more));
        assert_eq!(ran.code, 0, "{ran:?}");
        let listen = ran.json()["listen"].as_str().unwrap().to_owned();
        let run_dir = peerlane.state_dir().join(&name);
        Self {
            name,
            address: listen.strip_prefix("https://").unwrap().parse().unwrap(),
            token: fs::read_to_string(run_dir.join("token")).unwrap(),
            tls: trusting(&run_dir.join("cert.pem")),
            peerlane,
        }
    }

    fn run_dir(&self) -> PathBuf {
        self.peerlane.state_dir().join(&self.name)
    }

    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let socket = TcpStream::connect_timeout(&self.address, SOON).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.set_write_timeout(Some(SOON)).unwrap();
        let name = ServerName::IpAddress(self.address.ip().into());
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).unwrap();
        StreamOwned::new(connection, socket)
    }

    /// Sends bytes as they are, and reads one answer.
    fn send(&self, head: &str, body: &[u8]) -> Answered {
        let mut stream = self.connect();
        // Whoever refuses a long body need not read it to its end.
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body));
        answered(&mut stream)
    }

    /// A request as a client sends it; `headers` come beside Host and length, each with its line end.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answered {
        let (host, length) = (self.address, body.len());
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{headers}\r\n");
        self.send(&head, body)
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }

    /// As the owner, with a body in JSON.
    fn owner(&self, method: &str, path: &str, body: &str) -> Answered {
        let headers = format!("{}Content-Type: application/json\r\n", self.bearer());
        self.ask(method, path, &headers, body.as_bytes())
    }
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and code, and that the body is ARM's.
    fn refusal(&self) -> (u16, String) {
        let body = self.json();
        let error = &body["error"];
        assert!(
            error["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{self:?}"
        );
        assert!(
            error["details"].is_array() && error.get("target").is_some(),
            "{self:?}"
        );
        (self.status, error["code"].as_str().unwrap().to_owned())
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

#[test]
fn abuse_is_refused_by_name() {
    let server = Server::start(User::Caller, &[]);
    let owner = server.bearer();
    let json = "Content-Type: application/json\r\n";
    let get = |headers: &str| server.ask("GET", "/subscriptions", headers, b"");
    let group = format!("{SUBSCRIPTION}/resourcegroups/g");
    let put = |headers: &str, body: &[u8]| server.ask("PUT", &group, &format!("{owner}{headers}"), body);
    let path = |path: &str| server.ask("GET", path, &owner, b"");
    let head = |head: &str| server.send(&format!("{head}\r\n{owner}\r\n"), b"");
    let hundred_megabytes = "Content-Length: 104857600\r\n";
    let cases: Vec<(&str, Answered, u16, &str)> = vec![
        ("no token", get(""), 401, "AuthenticationFailed"),
        ("wrong token", get("Authorization: Bearer x\r\n"), 401, "InvalidAuthenticationToken"),
        ("no bearer", get("Authorization: Basic eDp5\r\n"), 401, "InvalidAuthenticationToken"),
        ("a token cut short", get(&format!("{}\r\n", &owner[..60])), 401, "InvalidAuthenticationToken"),
        ("a forged JWT", get("Authorization: Bearer eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9.\r\n"), 401, "InvalidAuthenticationToken"),
        ("foreign host", head("GET /subscriptions HTTP/1.1\r\nHost: evil.example"), 400, "InvalidHostHeader"),
        ("a host that begins like ours", head("GET /subscriptions HTTP/1.1\r\nHost: 127.0.0.1.evil.example"), 400, "InvalidHostHeader"),
        ("no host", head("GET /subscriptions HTTP/1.0"), 400, "InvalidHostHeader"),
        ("two hosts", head("GET /subscriptions HTTP/1.1\r\nHost: localhost\r\nHost: localhost"), 400, "InvalidHeader"),
        ("a URL of another machine", head("GET http://evil.example/subscriptions HTTP/1.1\r\nHost: localhost"), 400, "InvalidRequestUri"),
        ("foreign origin", get(&format!("{owner}Origin: https://evil.example\r\n")), 403, "OriginNotAllowed"),
        ("no origin", get(&format!("{owner}Origin: null\r\n")), 403, "OriginNotAllowed"),
        ("preflight", server.ask("OPTIONS", "/subscriptions", "Origin: https://evil.example\r\n", b""), 403, "OriginNotAllowed"),
        ("OPTIONS", server.ask("OPTIONS", "/subscriptions", &owner, b""), 405, "MethodNotAllowed"),
        ("TRACE", server.ask("TRACE", "/subscriptions", &owner, b""), 405, "MethodNotAllowed"),
        ("a form, as a web page sends it", put("Content-Type: text/plain\r\n", b"{\"location\":\"eastus\"}"), 415, "UnsupportedMediaType"),
        ("no content type", put("", b"{\"location\":\"eastus\"}"), 415, "UnsupportedMediaType"),
        ("100 MB", server.send(&format!("PUT {group} HTTP/1.1\r\nHost: {}\r\n{owner}{json}{hundred_megabytes}\r\n", server.address), b""), 413, "RequestEntityTooLarge"),
        ("more than 4 MB in chunks", server.send(&format!("PUT {group} HTTP/1.1\r\nHost: {}\r\n{owner}{json}Transfer-Encoding: chunked\r\n\r\n400001\r\n", server.address), &vec![b' '; 0x40_0001]), 413, "RequestEntityTooLarge"),
        ("deep JSON", put(json, "[".repeat(100_000).as_bytes()), 400, "InvalidRequestContent"),
        ("wide JSON", put(json, format!("[{}0]", "0,".repeat(1_000_000)).as_bytes()), 400, "InvalidRequestContent"),
        ("no JSON", put(json, b"{\"location\": }"), 400, "InvalidRequestContent"),
        ("no UTF-8", put(json, b"{\"location\": \"\xff\"}"), 400, "InvalidRequestContent"),
        ("dots", path("/subscriptions/../metadata/endpoints"), 400, "InvalidRequestUri"),
        ("hidden dots", path("/subscriptions/%2e%2e/x"), 400, "InvalidRequestUri"),
        ("a hidden slash", path("/subscriptions/a%2f..%2fb"), 400, "InvalidRequestUri"),
        ("a backslash", path("/subscriptions/a%5c..%5cb"), 400, "InvalidRequestUri"),
        ("a zero byte", path("/subscriptions/a%00"), 400, "InvalidRequestUri"),
        ("twice encoded", path("/subscriptions/%252e%252e"), 400, "InvalidRequestUri"),
        ("a path without end", path(&"/a".repeat(3000)), 400, "InvalidRequestUri"),
        ("a URL without end", path(&format!("/subscriptions?x={}", "a".repeat(9000))), 414, "RequestUriTooLong"),
        ("nothing there", path("/no/such/thing"), 404, "NotFound"),
        ("another subscription", path("/subscriptions/x/resourcegroups"), 404, "SubscriptionNotFound"),
        ("a strange name", server.owner("PUT", &format!("{SUBSCRIPTION}/resourcegroups/a$b"), "{\"location\":\"x\"}"), 400, "InvalidResourceGroup"),
        ("a filter that is not understood", path(&format!("{SUBSCRIPTION}/resources?$filter=name%20ne%20'x'")), 400, "InvalidFilterInQueryString"),
        ("the token endpoint without its secret", server.ask("GET", "/msi/token?resource=x", "", b""), 401, "AuthenticationFailed"),
        ("the control socket's own routes", path("/v1/state"), 404, "NotFound"),
    ];
    for (what, answer, status, code) in &cases {
        assert_eq!(
            answer.refusal(),
            (*status, String::from(*code)),
            "{what}: {answer:?}"
        );
        assert!(
            answer.header("access-control-allow-origin").is_none(),
            "{what}: {answer:?}"
        );
        if *status == 401 {
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
        }
    }
    // Heads that hyper refuses before there is a request.
    for (what, text) in [
        (
            "endless headers",
            format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}", "X: y\r\n".repeat(500)),
        ),
        (
            "one endless header",
            format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n",
                "y".repeat(200_000)
            ),
        ),
        ("no HTTP", String::from("\0\0\0\0\r\n")),
        (
            "two lengths",
            String::from("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n"),
        ),
    ] {
        let answer = server.send(&format!("{text}\r\n"), b"");
        assert!(
            (400..=431).contains(&answer.status) || answer.status == 0,
            "{what}: {answer:?}"
        );
    }
    // And none of it has changed anything, or ended the daemon.
    let groups = server
        .owner("GET", &format!("{SUBSCRIPTION}/resourcegroups"), "")
        .json();
    assert_eq!(groups["value"].as_array().unwrap().len(), 1, "{groups}");
}

#[test]
fn idle_and_slow_clients_keep_nobody_out() {
    let server = Server::start(User::Caller, &[]);
    let idle: Vec<TcpStream> = (0..1000)
        .map(|_| TcpStream::connect_timeout(&server.address, SOON).unwrap())
        .collect();
    let begun = Instant::now();
    // A head that never ends, and a body that never comes.
    let mut endless = server.connect();
    endless
        .write_all(b"GET /subscriptions HTTP/1.1\r\nHost: localhost\r\nX: ")
        .unwrap();
    let mut lame = server.connect();
    let head = format!(
        "PUT {SUBSCRIPTION}/resourcegroups/g HTTP/1.1\r\nHost: {}\r\n{}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{",
        server.address,
        server.bearer()
    );
    lame.write_all(head.as_bytes()).unwrap();
    for _ in 0..3 {
        let asked = Instant::now();
        assert_eq!(server.owner("GET", "/subscriptions", "").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    // Most of the idle ones gave way, and the others follow by and by.
    let gone = idle.iter().filter(|socket| is_closed(socket)).count();
    assert!(gone >= 800, "{gone} of 1000 idle connections were closed");
    for (what, stream, least, most) in [("head", &mut endless, 5, 40), ("body", &mut lame, 10, 45)] {
        stream
            .sock
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let answer = answered(stream);
        let took = begun.elapsed().as_secs();
        assert!(
            (least..=most).contains(&took),
            "the slow {what} ended after {took} s: {answer:?}"
        );
        assert!([0, 408].contains(&answer.status), "{answer:?}");
    }
}

#[test]
fn the_owner_gets_in_and_others_do_not() {
    for user in users() {
        let server = Server::start(user, &[]);
        for file in ["token", "identity-header", "cert.pem", "key.pem", "api.sock"] {
            let mode = fs::metadata(server.run_dir().join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert_eq!(
            server.owner("GET", "/subscriptions", "").json()["value"][0]["state"],
            "Enabled"
        );
        // Identity clients exchange the secrets for a token that decodes, and that works.
        let secret = fs::read_to_string(server.run_dir().join("identity-header")).unwrap();
        let managed = server
            .ask(
                "GET",
                "/msi/token?resource=r",
                &format!("X-IDENTITY-HEADER: {secret}\r\n"),
                b"",
            )
            .json();
        let form = format!(
            "grant_type=client_credentials&client_id=x&client_secret={}&scope=r%2F.default",
            server.token
        );
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        let credentials = server
            .ask("POST", "/common/oauth2/v2.0/token", kind, form.as_bytes())
            .json();
        for given in [managed, credentials] {
            let token = given["access_token"].as_str().unwrap();
            assert_eq!(token.split('.').count(), 3);
            let bearer = format!("Authorization: Bearer {token}\r\n");
            assert_eq!(server.ask("GET", "/subscriptions", &bearer, b"").status, 200);
        }
        // The unix socket asks for no token: the kernel says who is there.
        let answer = over_unix(
            &server.run_dir().join("api.sock"),
            "GET /subscriptions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        );
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        if rustix::process::geteuid().is_root() && user == User::Caller {
            let socket = server.run_dir().join("api.sock");
            // Even with the directory opened, the socket is the owner's alone.
            for directory in [server.run_dir(), server.peerlane.state_dir()] {
                fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
            }
            let curl = [
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "curl",
                "-sS",
                "--unix-socket",
            ];
            let mut stranger = Command::new("setpriv");
            stranger
                .args(curl)
                .arg(&socket)
                .arg("http://localhost/subscriptions");
            let ran = stranger.stdin(Stdio::null()).output().unwrap();
            assert!(!ran.status.success() && ran.stdout.is_empty(), "{ran:?}");
        }
    }
}

#[test]
fn the_listener_outlives_a_restart_and_stays_on_this_machine() {
    let server = Server::start(User::Caller, &[]);
    let group = format!("{SUBSCRIPTION}/resourceGroups/kept");
    let made = server.owner(
        "PUT",
        &group,
        "{\"location\":\"West US 2\",\"tags\":{\"a\":\"b\"}}",
    );
    assert_eq!(
        (made.status, &made.json()["location"]),
        (201, &Value::from("westus2")),
        "{made:?}"
    );
    let ran = server.peerlane.run(["restart", &server.name]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // The same port, the same token, the same certificate, the same group.
    let kept = server.owner("GET", &group.to_uppercase(), "");
    assert_eq!(
        (kept.status, &kept.json()["tags"]["a"]),
        (200, &Value::from("b")),
        "{kept:?}"
    );
    assert_eq!(server.owner("HEAD", &group, "").status, 204);
    assert_eq!(server.owner("DELETE", &group, "").status, 200);
    assert_eq!(
        server.owner("GET", &group, "").refusal(),
        (404, String::from("ResourceGroupNotFound"))
    );
    assert_eq!(server.owner("HEAD", &group, "").status, 404);
    let peerlane = &server.peerlane;
    for beyond in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "localhost:0"] {
        let ran = peerlane.run(["serve", "--name", "x", "--listen", beyond, "--detach"]);
        assert_eq!(ran.code, 2, "{beyond}: {ran:?}");
    }
    let taken = server.address.to_string();
    let ran = peerlane.run(["serve", "--name", &unique("api"), "--listen", &taken, "--detach"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("--listen"), "{ran:?}");
    assert_eq!(
        peerlane.list().len(),
        1,
        "nothing is left of a lab that could not listen"
    );
}

#[test]
fn a_change_can_be_polled_as_at_the_real_service() {
    let server = Server::start(User::Caller, &["--polling"]);
    let group = format!("{SUBSCRIPTION}/resourceGroups/polled");
    assert_eq!(
        server.owner("PUT", &group, "{\"location\":\"eastus\"}").status,
        201
    );
    let accepted = server.owner("DELETE", &group, "");
    assert_eq!(
        (accepted.status, accepted.header("retry-after")),
        (202, Some("1")),
        "{accepted:?}"
    );
    let location = accepted.header("location").unwrap().to_owned();
    let path = location
        .strip_prefix(&format!("https://{}", server.address))
        .unwrap();
    assert_eq!(server.owner("GET", path, "").status, 202);
    assert_eq!(server.owner("GET", path, "").status, 204);
}

fn trusting(certificate: &Path) -> Arc<ClientConfig> {
    let pem = fs::read(certificate).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// One answer; status 0 where the connection ended without.
fn answered(stream: &mut impl Read) -> Answered {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    let head_end = |bytes: &[u8]| bytes.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4);
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some(end) = head_end(&bytes) {
            let head = text[..end].to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if bytes.len() >= end + length.unwrap_or(0_usize) {
                break;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            // A server that refuses in the midst of a body closes, and the rest of the body meets a reset.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
                ) =>
            {
                break;
            }
            Err(error) => panic!("no answer: {error}, after {text}"),
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Answered {
        status: head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn is_closed(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    match (&mut &*socket).read(&mut [0; 64]) {
        Ok(0) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
        Ok(_) => false,
    }
}

fn over_unix(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
