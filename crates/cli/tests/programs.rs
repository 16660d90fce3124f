//! Real programs through a lab: ping, large transfers, datagrams of many sizes, a web server, long connections.

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::support::{Peerlane, User, root, two_vnets, unique};

/// What every Python program here begins with: connecting to a server that may still be starting.
const CONNECT: &str = "
import hashlib,os,socket,sys,time
def connect(address):
    for attempt in range(100):
        try: return socket.create_connection(address,timeout=5)
        except ConnectionRefusedError: time.sleep(.1)
    sys.exit('nobody listens at %s' % (address,))
";

struct Fixture {
    peerlane: Peerlane,
    name: String,
}

fn lab(prefix: &str) -> Fixture {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique(prefix);
    peerlane.up(&peerlane.file(&name, &two_vnets(&name, "")));
    Fixture { peerlane, name }
}

impl Fixture {
    /// Runs a server in `b` and a client in `a`, both Python; both must end well. Returns what each printed.
    fn exchange(&self, server: &str, client: &str) -> (String, String) {
        let server = format!("{CONNECT}{server}");
        let mut serving = self.peerlane.spawn(&self.name, "b", &["python3", "-c", &server]);
        let client = self
            .peerlane
            .exec(&self.name, "a", &["python3", "-c", &format!("{CONNECT}{client}")]);
        if client.code != 0 {
            let _ = serving.kill();
        }
        let status = serving.wait().unwrap();
        assert_eq!(client.code, 0, "client: {client:?}");
        assert!(status.success(), "server: {status}");
        let mut said = String::new();
        serving.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        (said, client.stdout)
    }
}

#[test]
fn ping_over_both_families() {
    let Fixture { peerlane, name } = lab("ping");
    for (family, address) in [("-4", "10.1.0.4"), ("-6", "fd00:b::4")] {
        let ran = peerlane.exec(
            &name,
            "a",
            &["ping", family, "-c", "20", "-i", "0.01", "-W", "2", address],
        );
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains(" 0% packet loss"), "{ran:?}");
    }
    let denied = peerlane.exec(&name, "a", &["ping", "-c", "1", "-W", "1", "10.1.0.5"]);
    assert_eq!(denied.code, 1, "{denied:?}");
    let drops = peerlane.run(["drops", &name, "-o", "json"]).json();
    let drop = drops
        .as_array()
        .unwrap()
        .iter()
        .find(|drop| drop["reason"] == "NsgInbound")
        .unwrap();
    assert_eq!(
        (drop["nic"].as_str(), drop["packets"].as_u64()),
        (Some("c-nic"), Some(1)),
        "{drops:#}"
    );
    // An echo request of 56 bytes: 84 bytes of IP.
    assert_eq!(drop["bytes"], 84);
}

/// NET-08: the fabric takes nothing from the TTL, the guest of an appliance takes one.
/// Shows: NET-08.
#[test]
fn only_guests_take_from_the_ttl() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("ttl");
    let case = fs::read_to_string(root().join("tests/lab/cases/NET-08.vnet.yaml")).unwrap();
    peerlane.up(&peerlane.file(&name, &case.replace("name: net-08", &format!("name: {name}"))));
    for (address, ttl) in [("10.0.1.4", "ttl=64"), ("10.2.0.4", "ttl=63")] {
        let ran = peerlane.exec(&name, "s1", &["ping", "-c", "1", "-W", "2", "-t", "64", address]);
        assert!(ran.stdout.contains(ttl), "{address}: {ran:?}");
    }
}

#[test]
fn a_tcp_transfer_of_256_mib_arrives_unchanged() {
    let fixture = lab("tcp");
    for address in ["10.1.0.4", "fd00:b::4"] {
        let family = if address.contains(':') {
            "socket.AF_INET6"
        } else {
            "socket.AF_INET"
        };
        let server = format!(
            "
s=socket.create_server(('{address}',5001),family={family})
c,_=s.accept(); c.settimeout(20); h=hashlib.sha256(); n=0
while True:
    d=c.recv(1<<20)
    if not d: break
    h.update(d); n+=len(d)
print(n,h.hexdigest())"
        );
        let client = format!(
            "
c=connect(('{address}',5001)); c.settimeout(20); h=hashlib.sha256()
for i in range(256):
    d=os.urandom(1<<20); h.update(d); c.sendall(d)
c.close(); print(256<<20,h.hexdigest())"
        );
        let (received, sent) = fixture.exchange(&server, &client);
        assert_eq!(received, sent, "over {address}");
    }
}

#[test]
fn datagrams_of_many_sizes_arrive_unchanged() {
    let fixture = lab("udp");
    // Empty, around the MTU of 1500 (IPv4 payload 1472, IPv6 1452), fragmented, and the largest there is.
    let sizes = "[0,1,2,3,7,8,100,511,512,1023,1400,1451,1452,1453,1471,1472,1473,1500,2000,2944,4000,9000,20000,40000,65507]";
    for address in ["10.1.0.4", "fd00:b::4"] {
        let family = if address.contains(':') {
            "socket.AF_INET6"
        } else {
            "socket.AF_INET"
        };
        let server = format!(
            "
s=socket.socket({family},socket.SOCK_DGRAM); s.bind(('{address}',5002)); s.settimeout(20)
h=hashlib.sha256(); n=0
while n<4*len({sizes}):
    d,peer=s.recvfrom(65536); s.sendto(hashlib.sha256(d).digest(),peer)
    if d==b'hello': continue
    h.update(d); n+=1
print(h.hexdigest())"
        );
        let client = format!(
            "
s=socket.socket({family},socket.SOCK_DGRAM); s.connect(('{address}',5002)); h=hashlib.sha256()
def say(d):
    s.send(d)
    return s.recv(100)==hashlib.sha256(d).digest()
s.settimeout(.1)
for attempt in range(100):
    try:
        if say(b'hello'): break
    except OSError: time.sleep(.1)
s.settimeout(3)
for turn in range(4):
    for size in {sizes}:
        d=os.urandom(size); h.update(d)
        if not say(d): sys.exit('changed on the way: %d bytes' % size)
print(h.hexdigest())"
        );
        let (received, sent) = fixture.exchange(&server, &client);
        assert_eq!(received, sent, "over {address}");
    }
}

#[test]
fn curl_fetches_from_a_web_server() {
    let Fixture { peerlane, name } = lab("curl");
    let content: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let directory = peerlane.dir.join("www");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("file"), &content).unwrap();
    let serve = [
        "python3",
        "-m",
        "http.server",
        "80",
        "--directory",
        directory.to_str().unwrap(),
    ];
    let mut server = peerlane.spawn(&name, "b", &serve);
    let fetch = [
        "curl",
        "-sSf",
        "--retry-connrefused",
        "--retry",
        "20",
        "--retry-delay",
        "1",
        "--max-time",
        "30",
        "http://10.1.0.4/file",
    ];
    let ran = peerlane.exec(&name, "a", &fetch);
    let _ = server.kill();
    let _ = server.wait();
    assert_eq!(ran.code, 0, "{:?}", ran.stderr);
    assert!(
        ran.stdout == content,
        "{} bytes instead of {}",
        ran.stdout.len(),
        content.len()
    );
}

#[test]
fn a_long_connection_survives_an_unrelated_lab() {
    let fixture = lab("long");
    let server = "
s=socket.create_server(('',5003)); c,_=s.accept(); c.settimeout(30)
while True:
    d=c.recv(100)
    if not d: break
    c.sendall(d)";
    let client = "
c=connect(('10.1.0.4',5003))
for turn in range(12):
    c.sendall(b'turn %d' % turn)
    if c.recv(100)!=b'turn %d' % turn: sys.exit('a wrong answer')
    time.sleep(1)
print('done')";
    std::thread::scope(|scope| {
        let talk = scope.spawn(|| fixture.exchange(server, client));
        // Of the same state directory: the other lab shares everything that labs of one user share.
        for turn in 0..3 {
            let other = unique("other");
            let text = two_vnets(&other, "");
            fixture.peerlane.up(&fixture.peerlane.file(&other, &text));
            let ran = fixture
                .peerlane
                .exec(&other, "a", &["ping", "-c", "1", "-W", "2", "10.1.0.4"]);
            assert_eq!(ran.code, 0, "turn {turn}: {ran:?}");
            assert_eq!(fixture.peerlane.run(["down", &other]).code, 0);
        }
        assert_eq!(talk.join().unwrap().1, "done\n");
    });
}

#[test]
fn labs_with_the_same_addresses_do_not_see_each_other() {
    let peerlane = Peerlane::new(User::Caller);
    let names: Vec<String> = (0..3).map(|_| unique("same")).collect();
    let serve = |name: &str| {
        format!(
            "python3 -c 'import socket\ns=socket.create_server((\"\",7001))\nwhile 1:\n c,_=s.accept(); c.sendall(b\"{name}\"); c.close()'"
        )
    };
    for name in &names {
        peerlane.up(&peerlane.file(name, &two_vnets(name, &serve(name))));
    }
    assert_eq!(peerlane.list().len(), 3);
    // No lab is left out of several.
    assert_eq!(peerlane.run(["drops"]).code, 2);
    for name in &names {
        let client = format!("{CONNECT}\nprint(connect(('10.1.0.4',7001)).recv(100).decode())");
        let ran = peerlane.exec(name, "a", &["python3", "-c", &client]);
        assert_eq!(ran.stdout.trim(), name, "{ran:?}");
    }
    assert_eq!(peerlane.run(["down", &names[1]]).code, 0);
    for name in [&names[0], &names[2]] {
        assert_eq!(
            peerlane
                .exec(name, "a", &["ping", "-c", "1", "-W", "2", "10.1.0.4"])
                .code,
            0
        );
        assert_eq!(peerlane.run(["down", name]).code, 0);
    }
    assert!(!Path::new(&peerlane.state_dir()).join(&names[0]).exists());
    names.iter().for_each(|name| peerlane.assert_nothing_left(name));
}
