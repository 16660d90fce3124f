//! What the kernel makes of a link: two namespaces joined by a veth, its rate by TBF, its loss by nftables.

use std::io::Write;
use std::process::{Child, Command, Stdio};

/// Of the receiver.
pub(crate) const ADDRESS: &str = "192.0.2.2";
/// TBF counts what Ethernet carries, a link what IP is.
const ETHERNET_BYTES: u64 = 14;
/// Of a full packet, as TCP sends them.
const FULL_BYTES: u64 = 1500;
/// Bytes that TBF may send at once: ten packets, about a millisecond. With one, as every timer of the kernel's is late by
/// some microseconds of which TBF makes up for no more than its burst, it keeps to nine tenths of the rate it was given.
const BURST_BYTES: u64 = 10 * (FULL_BYTES + ETHERNET_BYTES);

/// Goes when it is dropped.
pub(crate) struct Twin {
    pub(crate) sender: String,
    pub(crate) receiver: String,
}

impl Twin {
    /// From the sender to the receiver `rate_bps` of IP, with a queue of `queue_bytes` of IP, of which one packet in a
    /// hundred is lost behind it. Nothing hinders the other way.
    pub(crate) fn new(name: &str, rate_bps: u64, queue_bytes: u64) -> Self {
        let twin = Self {
            sender: format!("{name}-s"),
            receiver: format!("{name}-r"),
        };
        let (s, r) = (&twin.sender, &twin.receiver);
        for name in [s, r] {
            run(&format!("ip netns add {name}"));
        }
        run(&format!(
            "ip -n {s} link add eth0 type veth peer name eth0 netns {r}"
        ));
        for (name, address) in [(s, "192.0.2.1"), (r, ADDRESS)] {
            run(&format!("ip -n {name} address add {address}/24 dev eth0"));
            // Wire packets only, so that TBF and nftables count, queue and drop those, as a link does.
            run(&format!("ip -n {name} link set eth0 gso_max_segs 1 up"));
        }
        let framed = |ip: u64| ip * (FULL_BYTES + ETHERNET_BYTES) / FULL_BYTES;
        run(&format!(
            "ip netns exec {s} tc qdisc add dev eth0 root tbf rate {}bit burst {BURST_BYTES} limit {}",
            framed(rate_bps),
            framed(queue_bytes)
        ));
        let rules = "table inet twin { chain loss { type filter hook prerouting priority raw; \
                     iifname eth0 meta l4proto tcp numgen random mod 100 < 1 drop; }; }";
        let mut nft = command(&format!("ip netns exec {r} nft -f -"));
        let mut nft = nft.stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
        twin
    }

    pub(crate) fn spawn(&self, program: &[&str]) -> Child {
        let mut inside = command(&format!("ip netns exec {}", self.receiver));
        inside.args(program).stdout(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn send(&self, program: &[&str]) -> String {
        let mut inside = command(&format!("ip netns exec {}", self.sender));
        let output = inside.args(program).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        for name in [&self.sender, &self.receiver] {
            let _ = command(&format!("ip netns delete {name}")).status();
        }
    }
}

fn command(words: &str) -> Command {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

fn run(words: &str) {
    let output = command(words).output().unwrap();
    assert!(output.status.success(), "{words}: {output:?}");
}
