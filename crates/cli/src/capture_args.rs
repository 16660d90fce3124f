//! The arguments of `capture`.

use std::path::PathBuf;

use clap::Args;

/// Capture packets of a running lab as pcapng, for Wireshark, tshark or tcpdump.
///
/// One interface for every NIC or other port and for every link (`vnet/peering`), times in nanoseconds, the direction as
/// the NIC or the link's own VNet sees it, and as the comment of each packet what became of it: `Forward ...`, or
/// `Drop REASON ...`, once for every packet that is lost. Super-packets are written as the segments they are on the wire.
/// What comes faster than it is taken is left out, counted, and told at the end. Ctrl-C ends a capture in order.
///
/// FILTER is of tcpdump's language: host, net, port, portrange, proto, src, dst, ip, ip6, tcp, udp, icmp, icmp6, sctp, esp,
/// ah, `tcp[tcpflags] & tcp-syn != 0`, and, or, not and parentheses. A host may be a VM or a NIC of the lab.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  peerlane capture hub-spoke -w all.pcapng\n  \
                        peerlane capture hub-spoke --vm web tcp port 80 | wireshark -k -i -\n  \
                        peerlane capture hub-spoke --drops -w - host web | tshark -r - -T fields -e frame.comment\n  \
                        peerlane capture hub-spoke --link hub/hub-to-spoke1 --vxlan -w backbone.pcapng")]
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
