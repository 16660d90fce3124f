//! The arguments of `capture`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(override_usage = "peerlane capture [OPTIONS] [LAB] [FILTER]...")]
pub(crate) struct CaptureArgs {
    /// The running lab (may be left out when exactly one runs), and which packets.
    #[arg(value_name = "LAB FILTER")]
    pub(crate) operands: Vec<String>,
    /// Only packets from and to this VM, NIC or other port; may be given several times.
    #[arg(long, value_name = "VM")]
    pub(crate) vm: Vec<String>,
    /// Only packets on this link, `vnet/peering`; may be given several times.
    #[arg(long, value_name = "LINK")]
    pub(crate) link: Vec<String>,
    /// Only packets that are lost.
    #[arg(long)]
    pub(crate) drops: bool,
    /// The file to write; `-`, or none, is standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Super-packets and unfinished checksums as they were read.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Only links, each packet in VXLAN (RFC 7348) with the VNI of the VNet that gets it, as on a real backbone.
    #[arg(long, conflicts_with_all = ["raw", "vm"])]
    pub(crate) vxlan: bool,
    /// Stop after so many packets.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Stop after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) duration: Option<u64>,
    /// Keep so many bytes of each packet at most.
    #[arg(short, long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) snapshot_length: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// The running lab; may be left out when exactly one runs.
    pub(crate) lab: Option<String>,
}
