//! How the fabric treats IP packets, seen by real programs: MTU, fragments, TTL, appliances that translate addresses.

use std::fs;

use serde_json::Value;

use crate::support::{Peerlane, Ran, User, root, two_vnets, unique};

struct Running {
    peerlane: Peerlane,
    name: String,
}

/// Brings up a lab file in which `LAB` stands for the name.
fn up(prefix: &str, text: &str) -> Running {
    let (peerlane, name) = (Peerlane::new(User::Caller), unique(prefix));
    peerlane.up(&peerlane.file(&name, &text.replace("LAB", &name)));
    Running { peerlane, name }
}

fn case(name: &str) -> String {
    let text = fs::read_to_string(root().join(format!("tests/lab/cases/{name}.vnet.yaml"))).unwrap();
    let own = format!("name: {}", name.to_lowercase());
    assert!(text.contains(&own));
    text.replace(&own, "name: LAB")
}

impl Running {
    fn exec(&self, vm: &str, program: &[&str]) -> Ran {
        self.peerlane.exec(&self.name, vm, program)
    }

    /// It must end well; what it printed.
    fn ok(&self, vm: &str, program: &[&str]) -> String {
        let ran = self.exec(vm, program);
        assert_eq!(ran.code, 0, "{program:?} in {vm}: {ran:?}");
        ran.stdout
    }

    fn python(&self, vm: &str, program: &str) -> String {
        self.ok(vm, &["python3", "-c", program])
    }

    /// Packets dropped for a reason at a NIC.
    fn drops(&self, reason: &str, nic: &str) -> u64 {
        let drops = self.peerlane.run(["drops", &self.name, "-o", "json"]).json();
        let mut all = drops.as_array().unwrap().iter();
        all.find(|drop| drop["reason"] == reason && drop["nic"] == nic)
            .and_then(|drop| drop["packets"].as_u64())
            .unwrap_or(0)
    }

    /// Starts a Python server, which says so in a line, and returns when it has.
    fn serve(&self, vm: &str, program: &str) -> Serving {
        let mut process = self
            .peerlane
            .spawn(&self.name, vm, &["python3", "-u", "-c", program]);
        let mut said = std::io::BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        assert_eq!(line, "ready\n");
        Serving { process, said }
    }
}

struct Serving {
    process: std::process::Child,
    said: std::io::BufReader<std::process::ChildStdout>,
}

impl Serving {
    /// What it says until it ends by itself, which has to be well.
    fn end(mut self) -> String {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.said, &mut said).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Receives one TCP stream on port 5001 and prints its length and hash.
const SINK: &str = "
import socket,hashlib
s=socket.create_server(('::',5001),family=socket.AF_INET6,dualstack_ipv6=True); s.settimeout(30); print('ready')
c,_=s.accept(); c.settimeout(20); h=hashlib.sha256(); n=0
while True:
    d=c.recv(1<<20)
    if not d: break
    h.update(d); n+=len(d)
print(n,h.hexdigest())";

/// Sends 8 MiB there; prints the same, and the segment size the kernel ended with (the first word of TCP_INFO's snd_mss).
fn source(address: &str) -> String {
    format!(
        "
import socket,hashlib,os,struct
c=socket.create_connection(('{address}',5001),timeout=5); c.settimeout(20); h=hashlib.sha256()
for i in range(8):
    d=os.urandom(1<<20); h.update(d); c.sendall(d)
mss=struct.unpack_from('=I',c.getsockopt(socket.IPPROTO_TCP,socket.TCP_INFO,104),16)[0]
c.close(); print(8<<20,h.hexdigest()); print(mss)"
    )
}

/// Guests whose own MTU is 9000: the path tells them better.
///
/// Shows: NET-03, NET-04.
#[test]
fn a_path_of_1500_bytes_tells_guests_that_send_more() {
    let lab = up("ipmtu", &two_vnets("LAB", ""));
    for vm in ["a", "b"] {
        lab.ok(vm, &["ip", "link", "set", "eth0", "mtu", "9000"]);
    }
    let ping = |arguments: &[&str]| lab.exec("a", &[&["ping", "-c", "1", "-W", "2"], arguments].concat());
    assert_eq!(ping(&["-M", "do", "-s", "1472", "10.1.0.4"]).code, 0);
    let told = ping(&["-M", "do", "-s", "1473", "10.1.0.4"]);
    assert!(
        told.stdout.contains("From 10.0.0.1") && told.stdout.contains("mtu = 1500"),
        "{told:?}"
    );
    assert_eq!(lab.drops("TooBig", "a-nic"), 1);
    let told = ping(&["-6", "-M", "do", "-s", "1453", "fd00:b::4"]);
    assert!(
        told.stdout.contains("From fd00:a::1") && told.stdout.contains("mtu=1500"),
        "{told:?}"
    );
    // Now its kernel knows.
    assert_eq!(ping(&["-6", "-M", "do", "-s", "1453", "fd00:b::4"]).code, 1);
    assert_eq!(lab.drops("TooBig", "a-nic"), 2);
    // Without DF it is the fabric that cuts, once the path is forgotten.
    lab.ok("a", &["ip", "route", "flush", "cache"]);
    assert_eq!(ping(&["-M", "dont", "-s", "8000", "10.1.0.4"]).code, 0);
    let tracepath = lab.ok("a", &["tracepath", "-n", "10.1.0.4"]);
    assert!(tracepath.contains("pmtu 1500"), "{tracepath}");
}

/// Shows: NET-04.
#[test]
fn tcp_adapts_to_the_path() {
    let lab = up("iptcp", &two_vnets("LAB", ""));
    for vm in ["a", "b"] {
        lab.ok(vm, &["ip", "link", "set", "eth0", "mtu", "9000"]);
    }
    for (address, mss) in [("10.1.0.4", 1500 - 40 - 12), ("fd00:b::4", 1500 - 60 - 12)] {
        let serving = lab.serve("b", SINK);
        let sent = lab.python("a", &source(address));
        let (sent, last) = sent.trim().rsplit_once('\n').unwrap();
        assert_eq!(last, mss.to_string(), "over {address}");
        assert_eq!(serving.end().trim(), sent, "over {address}");
    }
    assert!(lab.drops("TooBig", "a-nic") > 0);
}

/// What reaches b, as it is on the wire: a UDP socket for the whole, a packet socket for the parts.
const PARTS: &str = "
import socket,sys
p=socket.socket(socket.AF_PACKET,socket.SOCK_DGRAM,socket.htons(0x800)); p.settimeout(.5)
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('0.0.0.0',5002)); s.settimeout(10); print('ready')
d,_=s.recvfrom(65536); print(len(d),sum(d)%65521)
try:
    while True:
        b=p.recv(65536)
        if b[9]==17: print(len(b),(b[6]<<8|b[7])&0x1fff,b[6]>>5,b[4]<<8|b[5])
except TimeoutError: pass";

/// Shows: NET-03.
#[test]
fn the_fabric_fragments_where_the_lab_says_so() {
    let text = two_vnets("LAB", "").replace(
        "profile: azure-2025",
        "profile: azure-2025\nsettings: { fabricMtu: 1400 }",
    );
    let lab = up("ipfrag", &text);
    let send = |size: usize, discover: u8| {
        let serving = lab.serve("b", PARTS);
        let client = format!(
            "
import socket,os
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.setsockopt(0,10,{discover})
d=os.urandom({size}); s.sendto(d,('10.1.0.4',5002)); print(len(d),sum(d)%65521)"
        );
        let sent = lab.python("a", &client);
        let said = serving.end();
        let (received, parts) = said.split_once('\n').unwrap();
        assert_eq!(received, sent.trim());
        let numbers = |line: &str| {
            line.split(' ')
                .map(|word| word.parse().unwrap())
                .collect::<Vec<u64>>()
        };
        parts.lines().map(numbers).collect::<Vec<_>>()
    };
    // IP_PMTUDISC_DONT: no DF. 1472 bytes fill the guest's MTU; 1376 of them and the UDP header fill a fragment.
    let parts = send(1472, 0);
    let identification = parts[0][3];
    assert_eq!(
        parts,
        [[1396, 0, 1, identification], [20 + 104, 172, 0, identification]],
        "1396 = 20 + 172 * 8, the most below 1400"
    );
    // IP_PMTUDISC_DO: with DF it passes whole.
    assert_eq!(send(1472, 2)[0][0], 1500);
    // The guest's own fragments of 1500 are cut again.
    let parts = send(65507, 0);
    assert!(parts.iter().all(|part| part[0] <= 1400), "{parts:?}");
    assert!(parts.len() > 45, "{}", parts.len());
    // TCP passes as super-packets as ever.
    let serving = lab.serve("b", SINK);
    let sent = lab.python("a", &source("10.1.0.4"));
    let (sent, mss) = sent.trim().rsplit_once('\n').unwrap();
    assert_eq!((serving.end().trim(), mss), (sent, "1448"));
}

/// Shows: NET-08, NET-09.
#[test]
fn traceroute_shows_appliances_and_vms_and_nothing_else() {
    let lab = up("iptrace", &case("NET-08"));
    let hops = |from: &str, arguments: &[&str]| {
        let trace = lab.ok(
            from,
            &[&["traceroute", "-n", "-w", "1", "-q", "2"], arguments].concat(),
        );
        trace
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for protocol in ["-I", "-U", "-T"] {
        assert_eq!(
            hops("s1", &[protocol, "10.2.0.4"]),
            ["10.0.1.4", "10.2.0.4"],
            "{protocol}"
        );
        assert_eq!(hops("nva", &[protocol, "10.2.0.4"]), ["10.2.0.4"], "{protocol}");
    }
    let path = lab.ok("s1", &["tracepath", "-n", "10.2.0.4"]);
    assert!(path.contains("pmtu 1500 hops 2"), "{path}");
    assert_eq!(lab.drops("IcmpUnrelated", "nva-nic"), 0);
}

/// A hub whose appliance translates: what leaves it bears its own address, so spoke2 need not allow forwarded traffic.
/// Spoke1 has to, for the answers.
const TRANSLATING: &str = r#"
apiVersion: peerlane/v1
kind: Lab
name: LAB
profile: azure-2025
vnets:
  hub: { addressSpace: [10.0.0.0/16], subnets: { nva: { addressPrefix: 10.0.1.0/24 } } }
  spoke1: { addressSpace: [10.1.0.0/16], subnets: { vms: { addressPrefix: 10.1.0.0/24, routeTable: via-hub } } }
  spoke2: { addressSpace: [10.2.0.0/16], subnets: { vms: { addressPrefix: 10.2.0.0/24 } } }
peerings:
  - { name: hub-to-spoke1, from: hub, to: spoke1 }
  - { name: spoke1-to-hub, from: spoke1, to: hub, allowForwardedTraffic: true }
  - hub <-> spoke2
routeTables:
  via-hub:
    routes:
      to-spoke2: { addressPrefix: 10.2.0.0/16, nextHopType: VirtualAppliance, nextHopIpAddress: 10.0.1.4 }
      out: { addressPrefix: 0.0.0.0/0, nextHopType: VirtualAppliance, nextHopIpAddress: 10.0.1.4 }
vms:
  nva:
    forwarding: true
    nics: [ { name: nva-nic, subnet: hub/nva, privateIPAddress: 10.0.1.4, enableIPForwarding: true, publicIPAddress: 203.0.113.4 } ]
  s1: { nics: [ { name: s1-nic, subnet: spoke1/vms, privateIPAddress: 10.1.0.4 } ] }
  s2: { nics: [ { name: s2-nic, subnet: spoke2/vms, privateIPAddress: 10.2.0.4 } ] }
internet: { addresses: [198.51.100.7] }
"#;

/// Says who asks: a TCP and a UDP server on port 80, for ever.
const WHO: &str = "
import socket,threading
t=socket.create_server(('',80)); u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.bind(('',80)); print('ready')
def udp():
    while True:
        d,p=u.recvfrom(65536); u.sendto(b'%s %d' % (p[0].encode(),len(d)),p)
threading.Thread(target=udp,daemon=True).start()
while True:
    c,p=t.accept(); c.sendall(p[0].encode()); c.close()";

fn ask(address: &str, port: u16) -> String {
    format!(
        "
import socket
c=socket.create_connection(('{address}',{port}),timeout=3); print(c.recv(100).decode())
u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.settimeout(3)
for n in (5,3000,40000):
    u.sendto(b'x'*n,('{address}',{port})); print(u.recv(100).decode())"
    )
}

/// Shows: NVA-03, NVA-02, NET-04.
#[test]
fn an_appliance_may_translate_addresses() {
    let lab = up("ipnat", TRANSLATING);
    let _servers = [lab.serve("s2", WHO), lab.serve("internet", WHO)];
    // As it is, its packets bear another's name.
    let refused = lab.exec("s1", &["curl", "-m", "1", "10.2.0.4"]);
    assert_eq!(refused.code, 28, "{refused:?}");
    assert!(lab.drops("ForwardedTrafficOff", "nva-nic") > 0);
    let refused = lab.exec("s1", &["curl", "-m", "1", "198.51.100.7"]);
    assert_eq!(refused.code, 28, "{refused:?}");
    assert!(lab.drops("NoInternet", "nva-nic") > 0, "NVA-03");

    let rules = "add table ip t; add chain ip t post { type nat hook postrouting priority srcnat; }; \
                 add chain ip t pre { type nat hook prerouting priority dstnat; }; \
                 add rule ip t post oifname eth0 masquerade; \
                 add rule ip t pre ip daddr 10.0.1.4 meta l4proto { tcp, udp } th dport 8080 dnat to 10.2.0.4:80";
    lab.ok("nva", &["nft", rules]);
    let of = |name: &str| format!("{name}\n{name} 5\n{name} 3000\n{name} 40000\n");
    assert_eq!(
        lab.python("s1", &ask("10.2.0.4", 80)),
        of("10.0.1.4"),
        "SNAT, fragments too"
    );
    assert_eq!(lab.python("s1", &ask("10.0.1.4", 8080)), of("10.0.1.4"), "DNAT");
    assert_eq!(
        lab.python("s1", &ask("198.51.100.7", 80)),
        of("203.0.113.4"),
        "twice translated"
    );
    // A closed port of s2: its error comes back through both, about the packet that s1 had sent.
    let error = lab.python(
        "s1",
        "
import socket
u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.settimeout(3); u.connect(('10.2.0.4',81)); u.send(b'x')
try: u.recv(1)
except ConnectionRefusedError: print('refused')",
    );
    assert_eq!(error, "refused\n");
    // One source port, again and again, each connection reset at once. Only after the server's end of data: a FIN that
    // met the closed socket would be answered by a second reset, behind the next SYN, and the appliance's conntrack
    // takes that for the end of the new connection.
    let reused = lab.python(
        "s1",
        "
import socket,struct
for turn in range(50):
    c=socket.socket(); c.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); c.bind(('',44444)); c.settimeout(3)
    c.connect(('10.2.0.4',80))
    while c.recv(100): pass
    c.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack('ii',1,0)); c.close()
print('done')",
    );
    assert_eq!(reused, "done\n");
    for reason in ["IcmpUnrelated", "FragmentOrphan", "FragmentOutOfOrder"] {
        for nic in ["nva-nic", "s1-nic", "s2-nic"] {
            assert_eq!(lab.drops(reason, nic), 0, "{reason} at {nic}");
        }
    }
    let drops: Value = lab.peerlane.run(["drops", &lab.name, "-o", "json"]).json();
    assert!(
        drops
            .as_array()
            .unwrap()
            .iter()
            .all(|drop| drop["nic"] == "nva-nic"),
        "{drops:#}"
    );
}

/// A TCP server on port 7 that gives back what it gets.
const ECHO: &str = "
import socket
t=socket.create_server(('',7)); print('ready')
while True:
    c,_=t.accept(); c.settimeout(5)
    try: c.sendall(c.recv(100))
    except OSError: pass
    c.close()";

const ECHO_CLIENT: &str = "
import socket
c=socket.create_connection(('10.3.0.4',7),timeout=2); c.sendall(b'question'); print(c.recv(100))";

/// What goes one way only breaks connections at an appliance that keeps state, unless it translates addresses.
///
/// Shows: NVA-05.
#[test]
fn a_stateful_appliance_needs_both_directions() {
    let lab = up("ipasym", &case("NVA-05"));
    let _server = lab.serve("s3", ECHO);
    assert_eq!(
        lab.python("s1", ECHO_CLIENT),
        "b'question'\n",
        "an appliance without state does not care"
    );
    let stateful = "add table ip t; add chain ip t f { type filter hook forward priority 0; }; \
                    add rule ip t f ct state invalid drop";
    lab.ok("nva", &["nft", stateful]);
    // The answer to the SYN went past it: what follows belongs to no connection it knows.
    let broken = lab.exec("s1", &["python3", "-c", ECHO_CLIENT]);
    assert_eq!(broken.code, 1, "{broken:?}");
    let translating =
        "add chain ip t post { type nat hook postrouting priority srcnat; }; add rule ip t post masquerade";
    lab.ok("nva", &["nft", translating]);
    assert_eq!(lab.python("s1", ECHO_CLIENT), "b'question'\n");
}

/// Shows: NET-13.
#[test]
fn a_nic_over_its_limit_drops_new_flows() {
    let text = two_vnets("LAB", "").replace(
        "profile: azure-2025",
        "profile: azure-2025\nsettings: { flowsPerNic: 5 }",
    );
    let lab = up("iplimit", &text);
    let client = "
import socket
u=[socket.socket(socket.AF_INET,socket.SOCK_DGRAM) for i in range(8)]
for s in u: s.connect(('10.1.0.4',9)); s.send(b'x')";
    lab.python("a", client);
    assert_eq!(lab.drops("FlowLimit", "a-nic"), 3);
}

/// Two VPN gateways and a tunnel of 1400 bytes.
///
/// Shows: NET-03, NET-04, NET-05, NET-08, NET-09.
#[test]
fn a_tunnel_takes_1400_bytes_and_its_gateways_show_themselves() {
    let lab = up("ipvpn", &case("NET-03-VPN"));
    let trace = lab.ok("one", &["traceroute", "-n", "-w", "1", "-q", "1", "10.2.0.4"]);
    let hops: Vec<_> = trace
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert_eq!(hops, ["10.1.255.4", "10.2.255.4", "10.2.0.4"]);
    let path = lab.ok("one", &["tracepath", "-n", "10.2.0.4"]);
    assert!(path.contains("pmtu 1400 hops 3"), "{path}");

    let ping = |arguments: &[&str]| {
        lab.exec(
            "two",
            &[&["ping", "-c", "1", "-W", "2"], arguments, &["10.1.0.4"]].concat(),
        )
    };
    let most = ping(&["-M", "do", "-s", "1372"]);
    assert!(most.stdout.contains("ttl=62"), "{most:?}");
    let told = ping(&["-M", "do", "-s", "1373"]);
    assert!(
        told.stdout.contains("From 10.2.255.4") && told.stdout.contains("mtu = 1400"),
        "{told:?}"
    );
    assert_eq!(lab.drops("TooBig", "two-nic"), 1);
    lab.ok("two", &["ip", "route", "flush", "cache"]);
    let cut = ping(&["-M", "dont", "-s", "8000"]);
    assert_eq!(cut.code, 0, "{cut:?}");

    let serving = lab.serve("two", SINK);
    let sent = lab.python("one", &source("10.2.0.4"));
    let (sent, mss) = sent.trim().rsplit_once('\n').unwrap();
    assert_eq!(
        (serving.end().trim(), mss),
        (sent, "1338"),
        "1350 less the time stamps"
    );
    lab.serve(
        "two",
        "import subprocess; subprocess.Popen(['iperf3','-s','-1','-D']).wait(); print('ready')",
    )
    .end();
    let ran = lab.exec("one", &["iperf3", "-c", "10.2.0.4", "-t", "2", "-J"]);
    let speed: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(
        speed["end"]["sum_received"]["bytes"].as_u64().unwrap() > 1 << 20,
        "{ran:?}"
    );
    assert_eq!(lab.drops("TooBig", "one-nic"), 1, "tracepath's, none of TCP");
}

/// What a guest with a raw socket can do: each packet is lost for its own reason, and counted at its sender.
///
/// Shows: NET-01, NET-04.
#[test]
fn hostile_packets_are_lost_where_they_should_be() {
    let lab = up("iphostile", &two_vnets("LAB", ""));
    let send = "
import socket,struct
r=socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_RAW)
def ip(protocol,data,to='10.1.0.4',number=7,field=0):
    header=struct.pack('!BBHHHBBH4s4s',0x45,0,20+len(data),number,field,64,protocol,0,socket.inet_aton('10.0.0.4'),socket.inet_aton(to))
    r.sendto(header+data,(to,0))
udp=struct.pack('!HHHH',1,2,48,0)+b'x'*40
more=0x2000
ip(17,udp[24:40],number=1,field=more|3)                                            # an orphan
ip(17,udp[:24],number=2,field=more); ip(17,udp[40:],number=2,field=5)               # a gap
ip(17,udp[:24],number=3,field=more); ip(17,udp[16:],number=3,field=2)               # an overlap
ip(6,struct.pack('!HHLLBBHHH',1,2,3,4,0x50,2,5,0,0)[:16],number=4,field=more)       # RFC 1858: a tiny first fragment
ip(6,b'x'*24,number=5,field=1)                                                     # RFC 3128: flags to be overwritten
ip(47,b'x'*40); ip(4,b'x'*40); ip(2,b'x'*40); ip(132,b'x'*40)                       # GRE, IP in IP, IGMP, SCTP
quoted=struct.pack('!BBHHHBBH4s4s',0x45,0,48,9,0,64,17,0,socket.inet_aton('10.1.0.4'),socket.inet_aton('10.0.0.4'))+udp[:8]
def check(data):
    total=sum(struct.unpack('!%dH'%(len(data)//2),data)); total=(total>>16)+(total&0xffff); return 0xffff&~(total+(total>>16))
error=struct.pack('!BBHL',3,3,0,0)+quoted
ip(1,error[:2]+struct.pack('!H',check(error))+error[4:])                            # an error about nothing
m=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); m.setsockopt(socket.SOL_SOCKET,socket.SO_BROADCAST,1)
m.sendto(b'x',('224.0.0.9',520)); m.sendto(b'x',('255.255.255.255',67)); m.sendto(b'x',('10.0.0.255',9))";
    lab.python("a", send);
    let lost = [
        ("FragmentOrphan", 1),
        ("FragmentOutOfOrder", 2),
        ("MalformedHeader", 2),
        ("UnsupportedProtocol", 4 + 2),
        ("IcmpUnrelated", 1),
        ("NoDestination", 1),
    ];
    for (reason, count) in lost {
        assert_eq!(lab.drops(reason, "a-nic"), count, "{reason}");
    }
}
