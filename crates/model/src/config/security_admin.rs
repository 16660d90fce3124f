//! Security admin rules and the network groups they apply to, as declared (NSG-43).

use indexmap::IndexMap;

use crate::config::Direction;
use crate::decode::{choice, object};

choice! {
    /// What a security admin rule does (NSG-43).
    AdminAccess {
        /// The NSGs decide.
        Allow = "Allow",
        /// It passes, whatever the NSGs say.
        AlwaysAllow = "AlwaysAllow",
        /// It is dropped, whatever the NSGs say.
        Deny = "Deny",
    }
}
choice! {
    AdminProtocol { Any = "Any", Tcp = "Tcp", Udp = "Udp", Icmp = "Icmp", Esp = "Esp", Ah = "Ah", }
}
choice! { AddressPrefixType { IpPrefix = "IPPrefix", ServiceTag = "ServiceTag", } }
object! {
    /// A set of VNets.
    NetworkGroup {
        /// Names of 'vnets'.
        members: Vec<String> = "members",
    }
}

object! {
    /// A set of security admin rules.
    SecurityAdminConfiguration {
        /// By name.
        rule_collections: IndexMap<String, AdminRuleCollection> = "ruleCollections",
    }
}

object! {
    /// Security admin rules that apply to the same VNets.
    AdminRuleCollection {
        /// Names of 'networkGroups'.
        applies_to_groups: Vec<String> = "appliesToGroups",
        /// By name.
        rules: IndexMap<String, AdminRule> = "rules",
    }
}

object! {
    /// A security admin rule.
    AdminRule {
        /// At most 140 characters.
        description: Option<String> = "description",
        /// From 1 to 4096; the lowest number decides first.
        priority: u16 = "priority",
        /// Inbound or Outbound, seen from the NIC.
        direction: Direction = "direction",
        /// Allow, AlwaysAllow or Deny.
        access: AdminAccess = "access",
        /// The protocol.
        protocol: AdminProtocol = "protocol",
        /// Any source when absent.
        sources: Vec<AddressPrefixItem> = "sources",
        /// Ports and ranges; any when absent.
        source_port_ranges: Vec<String> = "sourcePortRanges",
        /// Any destination when absent.
        destinations: Vec<AddressPrefixItem> = "destinations",
        /// Ports and ranges; any when absent.
        destination_port_ranges: Vec<String> = "destinationPortRanges",
    }
}

object! {
    /// An address of a security admin rule.
    AddressPrefixItem {
        /// IPPrefix or ServiceTag.
        address_prefix_type: AddressPrefixType = "addressPrefixType",
        /// '*', an address or a prefix; or a service tag.
        address_prefix: String = "addressPrefix",
    }
}
