//! The command line of `event`.

use clap::{Args, Subcommand};
use ipnet::IpNet;

/// What happens, and where.
#[derive(Debug, Args)]
#[command(subcommand_precedence_over_arg = true)]
pub(crate) struct EventArgs {
    /// The running lab; may be left out when exactly one runs.
    pub(crate) lab: Option<String>,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Change what a link does to packets, as `peerlane impair` does.
    Set(ImpairmentArgs),
    /// Have a link do again what the file says.
    Reset {
        /// The link.
        #[arg(value_name = "LINK")]
        link: String,
    },
    /// Stop a VM: its programs end, and its network interfaces are off the network.
    Stop(VmArg),
    /// Start a stopped VM, with the programs of the file.
    Start(VmArg),
    /// Create a peering, one direction, or replace it.
    Create(PeeringArgs),
    /// Delete a peering; the other direction becomes Disconnected.
    Delete {
        /// The peering.
        #[arg(value_name = "VNET/PEERING")]
        peering: String,
    },
    /// Withdraw a prefix of a site from the gateways.
    Withdraw(PrefixArgs),
    /// Announce a withdrawn prefix again.
    Announce(PrefixArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ImpairArgs {
    /// The running lab; may be left out when exactly one runs.
    pub(crate) lab: Option<String>,
    #[command(flatten)]
    pub(crate) impairment: ImpairmentArgs,
    /// First have the link do again what the file says of it.
    #[arg(long)]
    pub(crate) reset: bool,
}

/// A link and what changes of it; all else stays.
#[derive(Debug, Args)]
pub(crate) struct ImpairmentArgs {
    /// VNET/PEERING (that direction), or a connection (both).
    pub(crate) link: String,
    /// One way, such as 80ms.
    #[arg(long, value_name = "TIME")]
    pub(crate) latency: Option<String>,
    /// The standard deviation of the delay, such as 2ms.
    #[arg(long, value_name = "TIME")]
    pub(crate) jitter: Option<String>,
    /// Of the jitter: normal, uniform or pareto.
    #[arg(long, value_name = "SHAPE", requires = "jitter")]
    pub(crate) distribution: Option<String>,
    /// How many packets get lost, such as 1%.
    #[arg(long, value_name = "SHARE")]
    pub(crate) loss: Option<String>,
    /// Bits per second, such as 100Mbit.
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<String>,
    /// What waits for the rate at most, such as 250ms or 64KiB.
    #[arg(long, value_name = "TIME-or-SIZE")]
    pub(crate) queue: Option<String>,
    /// How many packets arrive twice.
    #[arg(long, value_name = "SHARE")]
    pub(crate) duplicate: Option<String>,
    /// How many packets may overtake.
    #[arg(long, value_name = "SHARE")]
    pub(crate) reorder: Option<String>,
    /// How many packets arrive with one bit changed.
    #[arg(long, value_name = "SHARE")]
    pub(crate) corrupt: Option<String>,
    /// The largest packet, in bytes.
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u16>,
    /// Nothing passes.
    #[arg(long)]
    pub(crate) down: bool,
    /// Undoes --down.
    #[arg(long, conflicts_with = "down")]
    pub(crate) up: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VmArg {
    /// The VM.
    pub(crate) vm: String,
}

#[derive(Debug, Args)]
pub(crate) struct PrefixArgs {
    /// The site.
    pub(crate) site: String,
    /// One of its address prefixes.
    pub(crate) prefix: IpNet,
}

#[derive(Debug, Args)]
pub(crate) struct PeeringArgs {
    /// The VNet that owns it.
    pub(crate) from: String,
    /// The remote VNet.
    pub(crate) to: String,
    /// Its name [default: FROM-to-TO].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Block the remote VNet.
    #[arg(long)]
    pub(crate) no_access: bool,
    /// Let in what the remote VNet forwards.
    #[arg(long)]
    pub(crate) allow_forwarded_traffic: bool,
    /// Let the remote VNet use this one's gateways.
    #[arg(long)]
    pub(crate) allow_gateway_transit: bool,
    /// Use the remote VNet's gateways.
    #[arg(long)]
    pub(crate) use_remote_gateways: bool,
}
