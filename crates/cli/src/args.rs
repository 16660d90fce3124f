//! The command line as clap reads it; the help texts are the documentation of the commands.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench_args::{BenchArgs, BenchEndArgs};
use crate::capture_args::CaptureArgs;
use crate::change_args::{ApplyArgs, ExportArgs, PlanArgs};
use crate::docs_args::{CompletionsArgs, ManArgs, SchemaArgs};
use crate::edit_args::{NsgVerb, PeeringVerb, RouteTableVerb, RouteVerb, SubnetVerb, VnetVerb};
use crate::event_args::{EventArgs, ImpairArgs};
use crate::replay_args::ReplayArgs;
use crate::watcher_args::{ConfigurationArgs, ConnectivityArgs, IpFlowArgs, NextHopArgs};

pub(crate) const LAB_HELP: &str = "A lab: a file, a directory with one *.vnet.yaml, `-` for standard input, or the name of a \
                        running lab. May be left out when exactly one lab runs";
pub(crate) const FILE_HELP: &str = "A lab file, a directory with one *.vnet.yaml, or `-` for standard input";

/// Peered virtual networks with real packets, on one Linux machine.
///
/// A lab file declares VNets, subnets, network interfaces, security groups, route tables and peerings as Azure has
/// them. `peerlane up` makes every VM a network namespace with a TUN as its network interface and forwards between
/// them as Azure would. What `peerlane explain` says is what the packets do.
#[derive(Debug, Parser)]
#[command(
    name = "peerlane",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 success, 1 failure, 2 usage, 3 not found, 4 an expectation failed, 5 this machine \
                  cannot run labs (see `peerlane doctor`), 6 a plan has changes.\n\n\
                  A first lab:\n  peerlane up examples/hub-spoke.vnet.yaml --detach\n  \
                  peerlane exec client -- ping -c 3 10.2.0.4\n  peerlane explain client web --port 8080\n  peerlane down"
)]
pub(crate) struct Cli {
    /// How data is written: a table on a terminal, json otherwise.
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How data is written on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON document.
    Json,
    /// JSON with colours.
    Jsonc,
    /// YAML.
    Yaml,
    /// Tab-separated values without a header.
    Tsv,
    /// Nothing; the exit code tells.
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a lab file: all errors at once, each with its place.
    #[command(after_help = "Example:\n  peerlane validate examples/hub-spoke.vnet.yaml")]
    Validate(FileArg),
    /// Bring a lab up.
    ///
    /// Stays in front until Ctrl-C, which takes the lab down; with --detach it returns as soon as every port forwards.
    /// A lab that cannot come up wholly leaves nothing behind. Of a lab whose daemon ended, programs still run: `up` goes
    /// on with it as it was, and its name is enough.
    #[command(after_help = "Examples:\n  peerlane up examples/hub-spoke.vnet.yaml\n  \
                            peerlane up examples/hub-spoke.vnet.yaml --detach\n  \
                            peerlane up hub-spoke --detach")]
    Up(UpArgs),
    /// Put this program in place of a running lab's daemon, for an upgrade.
    ///
    /// The lab's keeper holds its namespaces, programs and TUNs meanwhile, and the new daemon goes on with the lab as it
    /// was, peerings and rules as the last change left them. Connections notice a pause; every packet after it is judged anew.
    #[command(after_help = "Example:\n  peerlane restart hub-spoke")]
    Restart(RestartArgs),
    /// Bring up an empty lab and manage it by the ARM API.
    ///
    /// The same as `up` of a lab that declares nothing, with a listener on 127.0.0.1:8943: resource groups, VNets, VMs and the
    /// rest are then made by az, an SDK or curl. The run directory has what they need: api.sock, token, cert.pem and
    /// identity-header.
    #[command(
        after_help = "Examples:\n  peerlane serve --detach\n  peerlane serve --listen 127.0.0.1:9443 --polling"
    )]
    Serve(ServeArgs),
    /// Take a running lab down.
    #[command(after_help = "Example:\n  peerlane down hub-spoke")]
    Down(LabArg),
    /// List the running labs, and remove what dead ones left behind.
    #[command(after_help = "Example:\n  peerlane list -o json")]
    List,
    /// Run a program in the namespace of a VM (or of a site, VNet port or `internet`); its exit code is passed on.
    ///
    /// Failures of peerlane itself are 125, a program that cannot be run 126, one that is not found 127, and one ended
    /// by signal n gives 128+n.
    #[command(after_help = "Examples:\n  peerlane exec client -- ping -c 3 10.2.0.4\n  \
                            peerlane exec --lab hub-spoke web -- ip route")]
    Exec(ExecArgs),
    /// Open a shell in the namespace of a VM (or of a site, VNet port or `internet`).
    #[command(after_help = "Example:\n  peerlane shell web")]
    Shell(ShellArgs),
    /// Show the effective routes of a network interface.
    ///
    /// JSON output is the body of `az network nic show-effective-route-table`.
    #[command(
        after_help = "Examples:\n  peerlane routes examples/hub-spoke.vnet.yaml web\n  \
                            peerlane routes web -o json",
        allow_missing_positional = true
    )]
    Routes(NicArgs),
    /// Show the effective security rules of a network interface.
    ///
    /// JSON output is the body of `az network nic list-effective-nsg`.
    #[command(
        after_help = "Example:\n  peerlane rules examples/hub-spoke.vnet.yaml web",
        allow_missing_positional = true
    )]
    Rules(NicArgs),
    /// Explain what happens to a connection: hop by hop, forward and return.
    ///
    /// Shows the route, rule and flag that decided at every hop. SRC and DST are a VM (its first network interface), a
    /// network interface, an address, or `internet`.
    #[command(
        after_help = "Examples:\n  peerlane explain examples/hub-spoke.vnet.yaml client web --port 80\n  \
                            peerlane explain client 10.2.0.4 --protocol Icmp --expect Allow\n  \
                            peerlane explain examples/hub-spoke.vnet.yaml client web --port 8080 --verify"
    )]
    Explain(ExplainArgs),
    /// List every peering with its state, flags and addresses.
    #[command(after_help = "Example:\n  peerlane peerings examples/hub-spoke.vnet.yaml")]
    Peerings(LabArg),
    /// Print the load balancers: frontends, rules, backends and, of a running lab, their health.
    #[command(
        name = "loadbalancers",
        after_help = "Example:\n  peerlane loadbalancers examples/load-balancer.vnet.yaml"
    )]
    LoadBalancers(LabArg),
    /// Run a lab's `tests:` with real packets, or by explain alone.
    ///
    /// A file is brought up as a private copy and taken down again; a name uses the running lab. A test passes when
    /// the packets do what it expects, and when a denied packet was dropped for the reason that explain gives.
    #[command(after_help = "Examples:\n  peerlane test examples/hub-spoke.vnet.yaml\n  \
                            peerlane test examples/hub-spoke.vnet.yaml --static\n  \
                            peerlane test examples/hub-spoke.vnet.yaml --all-pairs")]
    Test(TestArgs),
    /// Say what a lab file would change in a lab: its objects, and the flows whose verdict or path would be another.
    ///
    /// Of a running lab the flows under way count too: rules have no say in them, since state lets them pass.
    #[command(
        after_help = "Examples:\n  peerlane plan hub-spoke new.vnet.yaml\n  \
                            peerlane plan old.vnet.yaml new.vnet.yaml --detailed-exitcode",
        allow_missing_positional = true
    )]
    Plan(PlanArgs),
    /// Make a running lab what a lab file says, without taking it down.
    ///
    /// All of it or nothing. Flows that the change does not concern lose no packet.
    #[command(
        after_help = "Examples:\n  peerlane apply hub-spoke new.vnet.yaml\n  \
                            peerlane apply hub-spoke new.vnet.yaml --dry-run",
        allow_missing_positional = true
    )]
    Apply(ApplyArgs),
    /// Have something happen to a running lab now, or list what happened and what is to come.
    ///
    /// The same as the file's `events:` do at their times: a link changes, a peering is created or deleted, a VM stopped or started, a
    /// site's prefix withdrawn or announced. Each is one change, made as a whole or not at all. Without a verb the
    /// events are listed, those of the file that are to come last.
    #[command(
        after_help = "Examples:\n  peerlane event hub-spoke\n  peerlane event hub-spoke stop web\n  \
                            peerlane event hub-spoke delete hub/hub-to-spoke1"
    )]
    Event(EventArgs),
    /// Create, update, sync and delete single peerings of a running lab.
    ///
    /// In az's spelling, as are the commands for other objects. Each prints what changed, in objects and in flows.
    #[command(
        subcommand,
        after_help = "Examples:\n  peerlane peering create -n hub-to-spoke1 --vnet-name hub --remote-vnet spoke1\n  \
                            peerlane peering update -n hub-to-spoke1 --vnet-name hub --allow-forwarded-traffic true --dry-run"
    )]
    Peering(PeeringVerb),
    /// Create and delete network security groups of a running lab, and their rules.
    #[command(
        subcommand,
        after_help = "Example:\n  peerlane nsg rule create -n web --nsg-name web-nsg --priority 200 --protocol Tcp \
                      --destination-port-ranges 80 443"
    )]
    Nsg(NsgVerb),
    /// Create and delete route tables of a running lab.
    #[command(
        subcommand,
        after_help = "Example:\n  peerlane route-table create -n spoke-rt"
    )]
    RouteTable(RouteTableVerb),
    /// Create and delete single routes of a running lab.
    #[command(
        subcommand,
        after_help = "Example:\n  peerlane route create -n out --route-table-name spoke-rt --address-prefix 0.0.0.0/0 \
                      --next-hop-type VirtualAppliance --next-hop-ip-address 10.0.1.4"
    )]
    Route(RouteVerb),
    /// Create, update and delete VNets of a running lab.
    #[command(
        subcommand,
        after_help = "Example:\n  peerlane vnet create -n spoke9 --address-prefixes 10.9.0.0/16"
    )]
    Vnet(VnetVerb),
    /// Create, update and delete subnets of a running lab.
    #[command(
        subcommand,
        after_help = "Example:\n  peerlane subnet update -n app --vnet-name spoke1 --network-security-group web-nsg"
    )]
    Subnet(SubnetVerb),
    /// Show changes of a running lab as they are made, and every second what was lost and carried.
    #[command(after_help = "Example:\n  peerlane watch hub-spoke")]
    Watch(LabArg),
    /// Change what a link of a running lab does to packets, in what is said; --reset: to what the file says.
    ///
    /// Packets under way keep the times they have. What was said ends with the next `apply`; `export` writes it.
    #[command(
        after_help = "Examples:\n  peerlane impair hub-spoke hub/hub-to-spoke1 --latency 80ms --loss 1%\n  \
                      peerlane impair hub/hub-to-spoke1 --down\n  peerlane impair hub/hub-to-spoke1 --reset",
        allow_missing_positional = true
    )]
    Impair(ImpairArgs),
    /// Write a lab back as a lab file.
    ///
    /// Of a running lab: what it is now, with the states of its peerings.
    #[command(after_help = "Example:\n  peerlane export hub-spoke > now.vnet.yaml")]
    Export(ExportArgs),
    /// Try what labs need on this machine; say what is missing and what to do.
    #[command(after_help = "Example:\n  peerlane doctor")]
    Doctor,
    /// Count the dropped packets of a running lab, by reason and network interface.
    #[command(after_help = "Example:\n  peerlane drops hub-spoke")]
    Drops(LabArg),
    /// List the flows of a running lab.
    #[command(after_help = "Example:\n  peerlane flows hub-spoke")]
    Flows(LabArg),
    /// Watch a running lab on the terminal: rates per NIC, peering and link, drops by reason, flows, and how late links are.
    ///
    /// Asks once a second. Keys: 1 to 5 or Tab choose the view, s and r sort, / filters, p pauses, ? lists all of them, q quits.
    #[command(after_help = "Example:\n  peerlane top hub-spoke")]
    Top(LabArg),
    Capture(CaptureArgs),
    /// Count what crossed each peering of a running lab, and what Azure would charge for it.
    ///
    /// Wire packets and IP bytes since the daemon started, as the peering's own VNet sees them. Prices are Azure's
    /// published list prices in USD per 10^9 bytes, unless --prices names a list of your own.
    #[command(after_help = "Example:\n  peerlane meter hub-spoke")]
    Meter(MeterArgs),
    /// List what links do to packets, and of a running lab what they have done.
    ///
    /// One line for each direction of a peering between two regions, and of whatever `links` in the lab file names. A
    /// latency with '~' is an estimate from the distance of two regions for which none is published.
    #[command(after_help = "Example:\n  peerlane links hub-spoke")]
    Links(LabArg),
    /// Measure a lab: throughput, datagrams, latency and connections between two of its VMs.
    ///
    /// The traffic is peerlane's own; nothing else is needed. A file is brought up as a private copy and taken down
    /// again; a name uses the running lab. Figures of one run say little on a machine that does other things: compare
    /// medians, and their spread.
    #[command(
        after_help = "Examples:\n  peerlane bench examples/hub-spoke.vnet.yaml --from client --to web --port 80\n  \
                            peerlane bench --from client --to web --test tcp-1 --test udp-22 --runs 10"
    )]
    Bench(BenchArgs),
    /// One end of the traffic of `bench`.
    #[command(hide = true)]
    BenchEnd(BenchEndArgs),
    /// Send recorded packets through a lab's engine and links on a clock of its own, and say what becomes of them.
    ///
    /// Nothing is brought up: no namespace, no TUN, no privilege, and no waiting. The same lab, seed and packets give the
    /// same output, byte for byte. Who sends a packet is found by its source address; it is sent at the time it was
    /// recorded, replies too, for nobody in the lab answers. The lab's `events:` happen on the same clock, which begins with
    /// the first packet. Load balanced backends are up, and BGP has said what it should.
    #[command(
        after_help = "Examples:\n  peerlane replay traffic.pcap examples/hub-spoke.vnet.yaml --seed 7 -w out.pcapng\n  \
                      peerlane replay --generate 10k --from client --to web --for 5s examples/hub-spoke.vnet.yaml"
    )]
    Replay(ReplayArgs),
    /// Show the next hop of a packet of a VM.
    ///
    /// JSON output of this and the next four is that of `az network watcher`. Diagnostics are of running VMs,
    /// as every VM is that no event has stopped.
    #[command(
        after_help = "Example:\n  peerlane show-next-hop examples/hub-spoke.vnet.yaml client --source-ip 10.1.0.4 \
                      --dest-ip 10.2.0.4",
        allow_missing_positional = true
    )]
    ShowNextHop(NextHopArgs),
    /// Ask the NSGs, and no route, whether a packet of a VM passes.
    #[command(
        after_help = "Example:\n  peerlane test-ip-flow examples/hub-spoke.vnet.yaml web --direction Inbound --protocol TCP \
                      --local 10.2.0.4:8080 --remote '10.1.0.4:*'",
        allow_missing_positional = true
    )]
    TestIpFlow(IpFlowArgs),
    /// Send packets from a VM and show every hop, and where and why they are lost.
    ///
    /// A file is brought up as a private copy and taken down again; a name uses the running lab.
    #[command(
        after_help = "Example:\n  peerlane test-connectivity examples/hub-spoke.vnet.yaml client web --dest-port 8080"
    )]
    TestConnectivity(ConnectivityArgs),
    /// Judge traffic by every NSG of a VM, and show which fields of which rules match it.
    #[command(
        after_help = "Example:\n  peerlane run-configuration-diagnostic examples/hub-spoke.vnet.yaml web --direction Inbound \
                      --protocol Tcp --source 10.1.0.0/16 --destination 10.2.0.4 --port 8080",
        allow_missing_positional = true
    )]
    RunConfigurationDiagnostic(ConfigurationArgs),
    /// List the objects of a lab and what they contain or are associated with.
    #[command(after_help = "Example:\n  peerlane show-topology examples/hub-spoke.vnet.yaml")]
    ShowTopology(LabArg),
    /// Print the JSON Schema of the lab file, or of a command's JSON output.
    #[command(after_help = "Examples:\n  peerlane schema > lab.schema.json\n  peerlane schema explain")]
    Schema(SchemaArgs),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example:\n  peerlane completions bash > ~/.local/share/bash-completion/completions/peerlane"
    )]
    Completions(CompletionsArgs),
    /// Print a manual page, or write all of them to a directory.
    #[command(
        after_help = "Examples:\n  peerlane man | man -l -\n  peerlane man --dir ~/.local/share/man/man1"
    )]
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct FileArg {
    #[arg(help = FILE_HELP)]
    pub(crate) file: String,
}

#[derive(Debug, Args)]
pub(crate) struct LabArg {
    #[arg(help = LAB_HELP)]
    pub(crate) lab: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// The running lab; may be left out when exactly one runs.
    pub(crate) lab: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MeterArgs {
    #[arg(help = LAB_HELP)]
    pub(crate) lab: Option<String>,
    /// A price list: JSON, in the shape of crates/cli/data/peering-prices.json.
    #[arg(long, value_name = "FILE")]
    pub(crate) prices: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// A lab file, a directory with one *.vnet.yaml, or `-` for standard input; or the name of a lab whose daemon ended.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// Return as soon as every port forwards.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Allow VNet ports with `namespace: host` (root only).
    #[arg(long)]
    pub(crate) allow_host: bool,
    /// Spin instead of sleeping while packets come or are under way: links keep time to a few microseconds, round trips
    /// are shorter, and a core is busy with it. A lab without traffic costs nothing either way.
    #[arg(long)]
    pub(crate) spin: bool,
    /// Forward on this CPU only, such as 0, and leave the others to the VMs.
    #[arg(long, value_name = "CPU", value_parser = clap::value_parser!(u16).range(..1024))]
    pub(crate) cpu: Option<u16>,
    /// What packets under way on links and waiting at VM sizes may take; more is lost as LinkQueueFull. 256MiB holds
    /// 10 Gbit/s for 200 ms.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = bytes)]
    pub(crate) link_memory: u64,
    #[command(flatten)]
    pub(crate) io: IoArgs,
    /// Offer the ARM API at this loopback address, by TLS and with a token, such as 127.0.0.1:8943; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", value_parser = daemon::loopback)]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) style: StyleArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The lab's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Whose behaviour: azure-2018 or azure-2025, the present one.
    #[arg(long, default_value = "azure-2025")]
    pub(crate) profile: String,
    /// Return as soon as it serves.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// The loopback address of the ARM API; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8943", value_parser = daemon::loopback)]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) style: StyleArgs,
    #[command(flatten)]
    pub(crate) io: IoArgs,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct StyleArgs {
    /// Answer changes as the real service does: accepted at once, their outcome to be asked for at a URL.
    #[arg(long)]
    pub(crate) polling: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct IoArgs {
    /// How packets are read and written.
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    pub(crate) io: Io,
}

/// The packet backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Io {
    /// TUN with every offload this kernel grants.
    Auto,
    /// Plain TUN, one packet per system call.
    Plain,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The running lab; may be left out when exactly one runs.
    #[arg(long)]
    pub(crate) lab: Option<String>,
    /// A VM, a site on premises, a VNet with a port of its own, a gateway with BGP, or `internet`.
    pub(crate) vm: String,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// The running lab; may be left out when exactly one runs.
    #[arg(long)]
    pub(crate) lab: Option<String>,
    /// A VM, a site on premises, a VNet with a port of its own, a gateway with BGP, or `internet`.
    pub(crate) vm: String,
}

#[derive(Debug, Args)]
pub(crate) struct NicArgs {
    #[arg(help = LAB_HELP)]
    pub(crate) lab: Option<String>,
    /// A network interface, or a VM (its first one).
    #[arg(value_name = "NIC-or-VM")]
    pub(crate) nic: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "peerlane explain [OPTIONS] [LAB] <SRC> <DST>")]
pub(crate) struct ExplainArgs {
    /// The lab (file or name; may be left out when exactly one runs), the sender and the receiver.
    #[arg(num_args = 2..=3, required = true, value_name = "LAB SRC DST")]
    pub(crate) operands: Vec<String>,
    #[arg(long, value_enum, ignore_case = true, default_value_t = Protocol::Tcp)]
    pub(crate) protocol: Protocol,
    /// The destination port; needed for Tcp and Udp.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// The source port [default: 50000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) source_port: Option<u16>,
    /// Exit with 4 unless this is the verdict.
    #[arg(long, value_enum, ignore_case = true, value_name = "VERDICT")]
    pub(crate) expect: Option<Verdict>,
    /// Send real packets too, and exit with 4 unless they do what is explained.
    #[arg(long)]
    pub(crate) verify: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum Verdict {
    Allow,
    Deny,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    #[arg(help = LAB_HELP)]
    pub(crate) lab: Option<String>,
    /// Without packets: by explain alone, without a running lab or privileges.
    #[arg(long = "static")]
    pub(crate) statically: bool,
    /// Instead of `tests:`, every ordered pair of VMs, for Tcp, Udp and Icmp and every family both have: the packets
    /// must do what explain says.
    #[arg(long, conflicts_with = "statically")]
    pub(crate) all_pairs: bool,
    #[command(flatten)]
    pub(crate) io: IoArgs,
}

/// Bytes: a number, with KiB, MiB or GiB where it is no number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("{other:?} is no unit: write 64MiB, with KiB, MiB or GiB")),
    };
    let number: u64 = digits
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is no size: write 64MiB, with KiB, MiB or GiB"))?;
    number
        .checked_mul(unit)
        .ok_or_else(|| format!("{text} is more than any machine has"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("256MiB"), Ok(256 << 20));
        assert_eq!(bytes("1 GiB"), Ok(1 << 30));
        assert_eq!((bytes("1500"), bytes("3KiB")), (Ok(1500), Ok(3072)));
        for wrong in ["", "MiB", "-1", "1.5GiB", "1MB", "99999999999GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
