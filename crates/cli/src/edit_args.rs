//! The command line of changes to single objects, in az's spelling.

use clap::{ArgAction, Args, Subcommand};

/// On a running lab.
#[derive(Debug, Args)]
pub(crate) struct On {
    /// The running lab; may be left out when exactly one runs.
    #[arg(long)]
    pub(crate) lab: Option<String>,
    /// Only say what would change.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The object's name.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Its name.
    #[arg(short, long)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) on: On,
}

/// Properties as the lab file spells them.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// A property as the lab file spells it, such as priority=200; VALUE is JSON, or text. `null` takes it away.
    #[arg(long, value_name = "PROPERTY=VALUE", num_args = 1..)]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeeringVerb {
    /// Create a peering, one direction, or replace it.
    Create {
        #[command(flatten)]
        of: PeeringName,
        /// The remote VNet.
        #[arg(long)]
        remote_vnet: String,
        #[command(flatten)]
        flags: PeeringFlags,
    },
    /// Change some properties of a peering.
    Update {
        #[command(flatten)]
        of: PeeringName,
        #[command(flatten)]
        flags: PeeringFlags,
        #[command(flatten)]
        set: Set,
    },
    /// Take over the address space that the remote VNet has by now.
    Sync {
        #[command(flatten)]
        of: PeeringName,
    },
    /// Delete a peering; the other direction becomes Disconnected.
    Delete {
        #[command(flatten)]
        of: PeeringName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PeeringName {
    #[command(flatten)]
    pub(crate) name: Name,
    /// The VNet that owns it.
    #[arg(long)]
    pub(crate) vnet_name: String,
}

#[derive(Debug, Args)]
pub(crate) struct PeeringFlags {
    /// Let the two VNets reach each other [default of create: true].
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) allow_vnet_access: Option<bool>,
    /// Let in what the remote VNet forwards.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) allow_forwarded_traffic: Option<bool>,
    /// Let the remote VNet use this one's gateways.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) allow_gateway_transit: Option<bool>,
    /// Use the remote VNet's gateways.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) use_remote_gateways: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NsgVerb {
    /// Create a network security group without rules of its own.
    Create(Name),
    /// Delete a network security group that nothing uses.
    Delete(Name),
    /// Create, change and delete its rules.
    #[command(subcommand)]
    Rule(RuleVerb),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RuleVerb {
    /// Create a rule, or replace it.
    Create {
        #[command(flatten)]
        of: RuleName,
        #[command(flatten)]
        fields: Box<RuleFields>,
    },
    /// Change some properties of a rule. Connections under way keep their decision.
    Update {
        #[command(flatten)]
        of: RuleName,
        #[command(flatten)]
        fields: Box<RuleFields>,
        #[command(flatten)]
        set: Set,
    },
    /// Delete a rule.
    Delete {
        #[command(flatten)]
        of: RuleName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RuleName {
    #[command(flatten)]
    pub(crate) name: Name,
    /// The network security group.
    #[arg(long)]
    pub(crate) nsg_name: String,
}

#[derive(Debug, Args)]
pub(crate) struct RuleFields {
    /// From 100 to 4096; the lowest decides first. Create needs it.
    #[arg(long)]
    pub(crate) priority: Option<u16>,
    /// Inbound or Outbound [default of create: Inbound].
    #[arg(long)]
    pub(crate) direction: Option<String>,
    /// Allow or Deny [default of create: Allow].
    #[arg(long)]
    pub(crate) access: Option<String>,
    /// Tcp, Udp, Icmp, Esp, Ah or '*' [default of create: '*'].
    #[arg(long)]
    pub(crate) protocol: Option<String>,
    /// Addresses, prefixes or one service tag [default of create: '*'].
    #[arg(long, num_args = 1..)]
    pub(crate) source_address_prefixes: Vec<String>,
    /// Ports and ranges [default of create: '*'].
    #[arg(long, num_args = 1..)]
    pub(crate) source_port_ranges: Vec<String>,
    /// Application security groups.
    #[arg(long, num_args = 1..)]
    pub(crate) source_asgs: Vec<String>,
    /// Addresses, prefixes or one service tag [default of create: '*'].
    #[arg(long, num_args = 1..)]
    pub(crate) destination_address_prefixes: Vec<String>,
    /// Ports and ranges [default of create: 80].
    #[arg(long, num_args = 1..)]
    pub(crate) destination_port_ranges: Vec<String>,
    /// Application security groups.
    #[arg(long, num_args = 1..)]
    pub(crate) destination_asgs: Vec<String>,
    /// At most 140 characters.
    #[arg(long)]
    pub(crate) description: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteTableVerb {
    /// Create a route table without routes.
    Create(Name),
    /// Delete a route table that no subnet uses.
    Delete(Name),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteVerb {
    /// Create a route of a route table, or replace it.
    Create {
        #[command(flatten)]
        of: RouteName,
        /// Where the packets go.
        #[arg(long)]
        address_prefix: String,
        /// VirtualAppliance, VnetLocal, VirtualNetworkGateway, Internet or None.
        #[arg(long)]
        next_hop_type: String,
        /// Of a VirtualAppliance.
        #[arg(long)]
        next_hop_ip_address: Option<String>,
    },
    /// Delete a route.
    Delete {
        #[command(flatten)]
        of: RouteName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RouteName {
    #[command(flatten)]
    pub(crate) name: Name,
    /// The route table.
    #[arg(long)]
    pub(crate) route_table_name: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VnetVerb {
    /// Create a VNet without subnets, or replace it.
    Create {
        #[command(flatten)]
        name: Name,
        /// IPv4 and IPv6 ranges.
        #[arg(long, num_args = 1.., required = true)]
        address_prefixes: Vec<String>,
        /// Its region; the lab's when absent.
        #[arg(short, long)]
        location: Option<String>,
    },
    /// Change some properties of a VNet, its address space say.
    Update {
        #[command(flatten)]
        name: Name,
        /// IPv4 and IPv6 ranges.
        #[arg(long, num_args = 1..)]
        address_prefixes: Vec<String>,
        #[command(flatten)]
        set: Set,
    },
    /// Delete a VNet without machines; its peerings go with it.
    Delete(Name),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SubnetVerb {
    /// Create a subnet, or replace it.
    Create {
        #[command(flatten)]
        of: SubnetName,
        #[command(flatten)]
        fields: SubnetFields,
    },
    /// Change some properties of a subnet; '' takes an NSG or a route table away.
    Update {
        #[command(flatten)]
        of: SubnetName,
        #[command(flatten)]
        fields: SubnetFields,
        #[command(flatten)]
        set: Set,
    },
    /// Delete an empty subnet.
    Delete {
        #[command(flatten)]
        of: SubnetName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SubnetName {
    #[command(flatten)]
    pub(crate) name: Name,
    /// The VNet.
    #[arg(long)]
    pub(crate) vnet_name: String,
}

#[derive(Debug, Args)]
pub(crate) struct SubnetFields {
    /// Its ranges. Create needs one.
    #[arg(long, num_args = 1..)]
    pub(crate) address_prefixes: Vec<String>,
    /// The network security group in front of it.
    #[arg(long, visible_alias = "nsg")]
    pub(crate) network_security_group: Option<String>,
    /// The route table its machines follow.
    #[arg(long)]
    pub(crate) route_table: Option<String>,
    /// Such as Microsoft.Storage.
    #[arg(long, num_args = 1..)]
    pub(crate) service_endpoints: Vec<String>,
}
