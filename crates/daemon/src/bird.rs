//! BIRD, the routing daemon that speaks BGP: where it is, what it is told to do, and its control socket.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// What to do on a machine without it.
pub const REMEDY: &str = "install it: apt-get install bird2 (BIRD 2 or newer)";
/// Where Debian and others keep it; an ordinary user's PATH lacks these.
const DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// A prefix more, and the session ends: what an Azure VPN gateway takes from one neighbour.
pub(crate) const PREFIX_LIMIT: usize = 4000;
/// Ways of equal cost to one prefix; Azure has at most 8 paths over the instances of two gateways.
const EQUAL_PATHS: usize = 8;
/// The longest symbol that BIRD reads has 64 bytes; a resource's name may have 80.
const SYMBOL_LIMIT_BYTES: usize = 63;
/// The longest answer line of a control socket.
const LINE_LIMIT_BYTES: usize = 64 << 10;

/// One BIRD: a router with neighbours it reaches through interfaces without link-layer addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Router {
    /// Also its router id.
    pub(crate) address: Ipv4Addr,
    pub(crate) asn: u32,
    pub(crate) neighbours: Vec<Neighbour>,
    /// The kernel's table that gets the learned routes.
    pub(crate) table: u32,
}

/// The other end of a BGP session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// The connection's; `birdc` shows it behind `to:`.
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) asn: u32,
    pub(crate) interface: String,
    /// Where else next hops lie that are its own affair.
    pub(crate) hops: Vec<Ipv4Net>,
    /// What it may not tell.
    pub(crate) refused: Vec<Ipv4Net>,
    /// What it is told, beside what other neighbours say (default routes excepted).
    pub(crate) announced: Vec<Ipv4Net>,
}

/// A connection to a running BIRD. It ends with it.
#[derive(Debug)]
pub(crate) struct Control {
    stream: BufReader<UnixStream>,
}

/// The program, where this machine has it.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
    let mut candidates = directories.map(|directory| directory.join("bird"));
    candidates.find(|candidate| {
        let found = candidate.metadata();
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// The configuration file. The times are short where only waiting depends on them, and Azure's where a neighbour sees
/// them (keepalive 60 s, hold 180 s; a neighbour may ask for less).
pub(crate) fn config(router: &Router) -> String {
    let Router {
        address,
        neighbours,
        table,
        ..
    } = router;
    let mut text = format!(
        "# Written by peerlane, and anew whenever the lab changes.
log stderr all;
router id {address};
protocol device {{ scan time 60; }}
protocol kernel {{
  kernel table {table};
  scan time 10;
  merge paths on limit {EQUAL_PATHS};
  ipv4 {{ import none; export filter {{ if source != RTS_BGP then reject; krt_prefsrc = {address}; accept; }}; }};
}}
# Where next hops lie; no routing protocol tells.
ipv4 table ways;
protocol static neighbours {{
  ipv4 {{ table ways; }};
"
    );
    for Neighbour {
        address,
        interface,
        hops,
        ..
    } in neighbours
    {
        for hop in std::iter::once(&Ipv4Net::from(*address)).chain(hops) {
            // On a link without neighbours BIRD leaves the next hop out unless it is told one.
            let _ = writeln!(text, "  route {hop} via {address}%{interface} onlink;");
        }
    }
    text.push_str("}\nprotocol static own {\n  ipv4;\n");
    let mut announced: Vec<Ipv4Net> = neighbours
        .iter()
        .flat_map(|neighbour| neighbour.announced.iter().copied())
        .collect();
    announced.sort_unstable();
    announced.dedup();
    for prefix in announced {
        let _ = writeln!(text, "  route {prefix} blackhole;");
    }
    text.push_str("}\n");
    let sessions = neighbours.iter().map(|neighbour| session(router, neighbour));
    text.extend(sessions);
    text
}

fn session(router: &Router, neighbour: &Neighbour) -> String {
    let Router {
        address: own, asn, ..
    } = router;
    let Neighbour {
        name,
        address,
        asn: remote,
        refused,
        announced,
        ..
    } = neighbour;
    let list = |prefixes: &[Ipv4Net]| {
        let prefixes: Vec<String> = prefixes.iter().map(Ipv4Net::to_string).collect();
        prefixes.join(", ")
    };
    let announced = match announced.is_empty() {
        true => String::new(),
        false => format!(" || (proto = \"own\" && net ~ [ {} ])", list(announced)),
    };
    let import = match refused.is_empty() {
        true => String::from("all"),
        false => format!("where !(net ~ [ {} ])", list(refused)),
    };
    format!(
        "protocol bgp '{}' {{
  local {own} as {asn};
  neighbor {address} as {remote};
  multihop;
  hold time 180;
  keepalive time 60;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 5;
  graceful restart off;
  ipv4 {{
    import {import};
    import limit {PREFIX_LIMIT} action restart;
    export where (source = RTS_BGP && net.len > 0){announced};
    next hop self;
    gateway recursive;
    igp table ways;
  }};
}}
",
        symbol(name)
    )
}

/// A connection's name as a quoted symbol of BIRD's: none of its own words, nor of this configuration's, and no longer than
/// it takes.
fn symbol(name: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    let mut symbol = String::from("to:");
    symbol.extend(
        name.chars()
            .map(|character| if allowed(character) { character } else { ':' }),
    );
    if symbol.len() > SYMBOL_LIMIT_BYTES {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let rest = format!(":{:016x}", hasher.finish());
        symbol.truncate(SYMBOL_LIMIT_BYTES - rest.len());
        symbol.push_str(&rest);
    }
    symbol
}

impl Control {
    /// Connects to the socket of a running BIRD.
    ///
    /// # Errors
    /// None listens there.
    pub(crate) async fn connect(socket: &Path) -> io::Result<Self> {
        let stream = BufReader::new(UnixStream::connect(socket).await?);
        let mut control = Self { stream };
        control.answer().await?;
        Ok(control)
    }

    /// Makes BIRD read its configuration again; sessions that did not change go on.
    ///
    /// # Errors
    /// It refuses the configuration, or has ended.
    pub(crate) async fn configure(&mut self) -> io::Result<()> {
        self.stream.write_all(b"configure\n").await?;
        let answer = self.answer().await?;
        // 0003 reconfigured, 0004 in progress, 0018 to be done next; 8002 and 9001 are errors.
        match answer.as_bytes().first() {
            Some(b'0') => Ok(()),
            _ => Err(io::Error::other(answer)),
        }
    }

    /// Makes BIRD end and take its routes back.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) async fn shut_down(&mut self) -> io::Result<()> {
        self.stream.write_all(b"down\n").await?;
        self.answer().await.map(drop)
    }

    /// Returns when BIRD has ended.
    pub(crate) async fn ended(&mut self) {
        while self.line().await.is_ok() {}
    }

    /// The last line of an answer: `CODE text`; the ones before have `CODE-text`, or begin with a blank.
    async fn answer(&mut self) -> io::Result<String> {
        loop {
            let line = self.line().await?;
            if line.as_bytes().get(4) == Some(&b' ') && !line.starts_with(' ') {
                return Ok(line);
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            let read = self.stream.fill_buf().await?;
            if read.is_empty() || line.len() > LINE_LIMIT_BYTES {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(read.len(), |end| end + 1);
            line.extend_from_slice(&read[..length]);
            self.stream.consume(length);
            if end.is_some() {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(names: &[String]) -> Router {
        let neighbours = (2..).zip(names).map(|(last, name)| Neighbour {
            name: name.clone(),
            address: Ipv4Addr::new(10, 0, 0, last),
            asn: 65000 + u32::from(last),
            interface: String::from("eth0"),
            hops: Vec::new(),
            refused: vec!["10.2.0.0/16".parse().unwrap(), "10.3.0.0/16".parse().unwrap()],
            announced: vec!["10.1.0.0/16".parse().unwrap()],
        });
        Router {
            address: Ipv4Addr::new(10, 0, 0, 1),
            asn: 65515,
            neighbours: neighbours.collect(),
            table: 179,
        }
    }

    #[test]
    fn bird_reads_every_name_a_connection_may_have() {
        let words = ["own", "neighbours", "ways", "master4", "protocol", "kernel1", "_"].map(String::from);
        let long = ["a", "b"].map(|end| format!("{}{end}", "a".repeat(79)));
        let names: Vec<String> = words.into_iter().chain(long).collect();
        let file = std::env::temp_dir().join(format!("peerlane-bird-{}.conf", std::process::id()));
        std::fs::write(&file, config(&router(&names))).unwrap();
        let mut bird = std::process::Command::new(program().expect(REMEDY));
        let read = bird.arg("-p").arg("-c").arg(&file).output().unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }
}
