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
