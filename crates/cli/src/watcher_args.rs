//! The options of Network Watcher's commands, named as `az network watcher` names them.

use std::net::IpAddr;

use clap::{Args, ValueEnum};

use crate::args::LAB_HELP;

const TARGET_HELP: &str = "A VM, or one of its network interfaces";

#[derive(Debug, Args)]
pub(crate) struct NextHopArgs {
    #[arg(help = LAB_HELP)]
    pub(crate) lab: Option<String>,
    #[arg(value_name = "NIC-or-VM", help = TARGET_HELP)]
    pub(crate) target: String,
    /// An address of the network interface.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) source_ip: IpAddr,
    /// Where the packet goes.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dest_ip: IpAddr,
}

#[derive(Debug, Args)]
pub(crate) struct IpFlowArgs {
    #[arg(help = LAB_HELP)]
    pub(crate) lab: Option<String>,
    #[arg(value_name = "NIC-or-VM", help = TARGET_HELP)]
    pub(crate) target: String,
    /// As the network interface sees it.
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) direction: Direction,
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) protocol: FlowProtocol,
    /// The network interface's own address and port; the port may be `*` where it is the source.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) local: String,
    /// The other's.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) remote: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "peerlane test-connectivity [OPTIONS] [LAB] <SRC> <DST>")]
pub(crate) struct ConnectivityArgs {
    /// The lab (file or name; may be left out when exactly one runs), the sender's VM or network interface, and the
    /// receiver: the same, an address, or `internet`.
    #[arg(num_args = 2..=3, required = true, value_name = "LAB SRC DST")]
    pub(crate) operands: Vec<String>,
    #[arg(long, value_enum, ignore_case = true, default_value_t = CheckProtocol::Tcp)]
    pub(crate) protocol: CheckProtocol,
    /// The destination port; needed for Tcp.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) dest_port: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigurationArgs {
    #[arg(help = LAB_HELP)]
    pub(crate) lab: Option<String>,
    #[arg(value_name = "NIC-or-VM", help = TARGET_HELP)]
    pub(crate) target: String,
    /// As the network interface sees it.
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) direction: Direction,
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) protocol: TrafficProtocol,
    /// An address or a prefix.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) source: String,
    /// An address or a prefix.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) destination: String,
    /// A port, a range `a-b`, or `*`.
    #[arg(long, value_name = "PORTS", default_value = "*")]
    pub(crate) port: String,
    /// How many rules are listed: up to the one that matched, none, or all.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Verbosity::Normal)]
    pub(crate) verbosity_level: Verbosity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum FlowProtocol {
    Tcp,
    Udp,
}

/// What connection checks send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum CheckProtocol {
    Tcp,
    Icmp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum TrafficProtocol {
    Tcp,
    Udp,
    Icmp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum Verbosity {
    Normal,
    Minimum,
    Full,
}
