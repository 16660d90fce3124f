//! What the user declares, as declared: the lab file's sections, property by property.

mod events;
mod flow_logs;
mod gateways;
mod links;
mod load_balancers;
mod resources;
mod routes;
mod security_admin;
mod tag_file;

use indexmap::IndexMap;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::decode::{Decode, Object, choice, object, wrong};
use crate::problems::Problems;
pub use crate::values::{Address, Cidr};
use crate::yaml::{Node, Value};
pub use events::{Created, Deleted, Event, LinkChange, LinkName, Machine, SitePrefix};
pub use flow_logs::{FlowLog, FlowLogFormat, FlowLogType, RetentionPolicy};
pub use gateways::{Connection, ConnectionType, Gateway, GatewayType, Site, TrafficSelector, VpnType};
pub use links::{
    Aqm, GilbertElliott, Jitter, JitterDistribution, Link, Loss, Number, Queue, Rate, Share, Size, Time,
};
pub use load_balancers::{
    BalancedProtocol, BalancingRule, Frontend, HealthProbe, HealthProtocol, LoadBalancer, LoadBalancerSku,
    LoadDistribution,
};
pub use resources::StoredResource;
pub use routes::{DisablePeeringRoute, NextHopType, NextHops, Route, RouteTable};
pub use security_admin::{
    AddressPrefixItem, AddressPrefixType, AdminAccess, AdminProtocol, AdminRule, AdminRuleCollection,
    NetworkGroup, SecurityAdminConfiguration,
};
pub use tag_file::TagFile;
pub(crate) use tag_file::read_service_tags;

object! {
    /// A lab: peered virtual networks, what lives in them, and what must hold.
    Config {
        /// Always peerlane/v1.
        api_version: ApiVersion = "apiVersion",
        /// Always Lab.
        kind: Kind = "kind",
        /// Letters, digits and '-', at most 32.
        name: String = "name",
        /// Whose behaviour: azure-2018 when absent.
        profile: Option<Profile> = "profile",
        /// Region of VNets that do not say theirs; westus2 when absent.
        location: Option<String> = "location",
        /// Resource group of the objects; the lab's name when absent.
        resource_group: Option<String> = "resourceGroup",
        /// Switches of the specification.
        settings: Option<Settings> = "settings",
        /// Subscriptions by name; everything lives in one default subscription when absent.
        subscriptions: IndexMap<String, Subscription> = "subscriptions",
        /// Who may do what.
        principals: IndexMap<String, Principal> = "principals",
        /// Custom roles by name, beside Azure's own.
        roles: IndexMap<String, RoleDefinition> = "roles",
        /// Virtual networks by name.
        vnets: IndexMap<String, Vnet> = "vnets",
        /// Peerings; each entry is one direction, or both as 'hub <-> spoke1'.
        peerings: Vec<PeeringEntry> = "peerings",
        /// Route tables by name.
        route_tables: IndexMap<String, RouteTable> = "routeTables",
        /// Network security groups by name.
        network_security_groups: IndexMap<String, Nsg> = "networkSecurityGroups",
        /// Application security groups by name.
        application_security_groups: IndexMap<String, Asg> = "applicationSecurityGroups",
        /// Sets of VNets that security admin rules apply to, by name (azure-2025).
        network_groups: IndexMap<String, NetworkGroup> = "networkGroups",
        /// Security admin rules, which are asked before any NSG (azure-2025).
        security_admin_configurations: IndexMap<String, SecurityAdminConfiguration> = "securityAdminConfigurations",
        /// Flow logs of NSGs, by name.
        flow_logs: IndexMap<String, FlowLog> = "flowLogs",
        /// A file of service tags in the format of Microsoft's ServiceTags_Public JSON, beside the lab file; the program's own
        /// examples when absent.
        service_tags: Option<TagFile> = "serviceTags",
        /// VMs by name; each is a network namespace with one TUN per NIC.
        vms: IndexMap<String, Vm> = "vms",
        /// NICs without a VM, by name; each needs its VNet's 'tun'.
        network_interfaces: IndexMap<String, Nic> = "networkInterfaces",
        /// A namespace with public test addresses.
        internet: Option<Internet> = "internet",
        /// What management clients said of resources beside what the lab does with them: by GROUP, or by
        /// GROUP/PROVIDER/TYPE/NAME, which also says the resource group of an object.
        resources: IndexMap<String, StoredResource> = "resources",
        /// Seed of everything random on links; 0 when absent.
        seed: Option<u64> = "seed",
        /// What must hold.
        tests: Vec<Test> = "tests",
        /// Virtual network gateways by name.
        gateways: IndexMap<String, Gateway> = "gateways",
        /// On-premises sites by name; each is a network namespace.
        sites: IndexMap<String, Site> = "sites",
        /// Gateway connections by name. Nothing is encrypted: a connection is a way for packets.
        connections: IndexMap<String, Connection> = "connections",
        /// Internal load balancers by name.
        load_balancers: IndexMap<String, LoadBalancer> = "loadBalancers",
        /// What links do to packets, by `vnet/peering` (that direction) or connection (both).
        links: IndexMap<String, Link> = "links",
        /// What is said of links beside 'links' while the lab runs, by the same names; it ends with the next file.
        impairments: IndexMap<String, Link> = "impairments",
        /// Timed changes of the running lab.
        events: Vec<Event> = "events",
    }
}

choice! { ApiVersion { V1 = "peerlane/v1", } }
choice! { Kind { Lab = "Lab", } }
choice! { Profile { Azure2018 = "azure-2018", Azure2025 = "azure-2025", } }
choice! {
    /// What a packet does that a peering does not allow as forwarded (PEER-21).
    ForwardedSemantics {
        /// It is dropped.
        Drop = "drop",
        /// It only leaves the VirtualNetwork tag.
        Tag = "tag",
    }
}
choice! { DeploymentModel { ResourceManager = "ResourceManager", Classic = "Classic", } }
choice! { PeeringState { Initiated = "Initiated", Connected = "Connected", Disconnected = "Disconnected", } }
choice! { Direction { Inbound = "Inbound", Outbound = "Outbound", } }
choice! { Access { Allow = "Allow", Deny = "Deny", } }
choice! { RuleProtocol { Any = "*", Tcp = "Tcp", Udp = "Udp", Icmp = "Icmp", Esp = "Esp", Ah = "Ah", } }
choice! {
    /// Of a VM.
    PowerState {
        Running = "Running",
        /// It has no processes, and its NICs are off the network.
        Stopped = "Stopped",
    }
}
choice! { TestProtocol { Tcp = "Tcp", Udp = "Udp", Icmp = "Icmp", } }

object! {
    /// Switches of the specification.
    Settings {
        /// What happens to forwarded packets a peering does not allow: drop (default) or tag.
        forwarded_semantics: Option<ForwardedSemantics> = "forwardedSemantics",
        /// A 0.0.0.0/0 user route belongs to the VirtualNetwork tag; true when absent.
        tag_includes_default_route: Option<bool> = "tagIncludesDefaultRoute",
        /// The None routes every subnet has; the profile's own set when absent.
        none_routes: Option<Vec<Cidr>> = "noneRoutes",
        /// Fragment packets without DF at this size; off when absent.
        fabric_mtu: Option<u16> = "fabricMtu",
        /// Connections one NIC may have at once; 500000 when absent.
        flows_per_nic: Option<u64> = "flowsPerNic",
        /// Limits other than the profile's, by name, such as `peeringsPerVirtualNetwork: 10`.
        limits: IndexMap<String, u64> = "limits",
    }
}

object! {
    /// A subscription.
    Subscription {
        /// A UUID; made from the name when absent.
        id: Option<String> = "id",
        /// The directory it belongs to.
        tenant: Option<String> = "tenant",
        /// Preview features, such as AllowGlobalVnetPeering.
        registered_features: Vec<String> = "registeredFeatures",
    }
}

object! {
    /// Someone who acts.
    Principal {
        /// The directory the principal belongs to.
        tenant: Option<String> = "tenant",
        /// What it may do where.
        roles: Vec<RoleAssignment> = "roles",
    }
}

object! {
    /// A role at a scope.
    RoleAssignment {
        /// Owner, Contributor, Reader, Network Contributor, Classic Network Contributor, or one of 'roles'.
        role: String = "role",
        /// A subscription, a resource group, a VNet or another object, by its name or ARM id; what it holds is included.
        scope: String = "scope",
    }
}

object! {
    /// A custom role.
    RoleDefinition {
        /// Such as Microsoft.Network/virtualNetworks/peer/action; '*' stands for anything.
        actions: Vec<String> = "actions",
        /// Taken away from 'actions'.
        not_actions: Vec<String> = "notActions",
    }
}

object! {
    /// A virtual network.
    Vnet {
        /// Its region.
        location: Option<String> = "location",
        /// Name of one of 'subscriptions'.
        subscription: Option<String> = "subscription",
        /// ResourceManager when absent.
        deployment_model: Option<DeploymentModel> = "deploymentModel",
        /// IPv4 and IPv6 ranges.
        address_space: Vec<Cidr> = "addressSpace",
        /// Subnets by name.
        subnets: IndexMap<String, Subnet> = "subnets",
        /// Minutes a quiet TCP flow is remembered, from 4 to 30; 4 when absent.
        flow_timeout_in_minutes: Option<u16> = "flowTimeoutInMinutes",
        /// One TUN for all NICs without a VM.
        tun: Option<Tun> = "tun",
    }
}

object! {
    /// Where the TUN of a VNet stands.
    Tun {
        /// At most 15 bytes.
        interface: Option<String> = "interface",
        /// A namespace's name or path, or 'host'; one of the lab when absent.
        namespace: Option<String> = "namespace",
    }
}

object! {
    /// A subnet.
    Subnet {
        /// Its range.
        address_prefix: Option<Cidr> = "addressPrefix",
        /// Its ranges, where it has more than one.
        address_prefixes: Vec<Cidr> = "addressPrefixes",
        /// Name of one of 'networkSecurityGroups'.
        network_security_group: Option<String> = "networkSecurityGroup",
        /// Name of one of 'routeTables'.
        route_table: Option<String> = "routeTable",
        /// Such as Microsoft.Storage.
        service_endpoints: Vec<String> = "serviceEndpoints",
    }
}

object! {
    /// One direction of a peering, owned by 'from'.
    Peering {
        /// Unique in its VNet.
        name: String = "name",
        /// The VNet that owns it.
        from: String = "from",
        /// The remote VNet.
        to: String = "to",
        /// True when absent.
        allow_virtual_network_access: Option<bool> = "allowVirtualNetworkAccess",
        /// False when absent.
        allow_forwarded_traffic: Option<bool> = "allowForwardedTraffic",
        /// False when absent.
        allow_gateway_transit: Option<bool> = "allowGatewayTransit",
        /// False when absent.
        use_remote_gateways: Option<bool> = "useRemoteGateways",
        /// Name of one of 'principals', who creates it.
        principal: Option<String> = "as",
        /// Follows from the other direction unless Disconnected is given.
        peering_state: Option<PeeringState> = "peeringState",
        /// What is peered, where it differs from the remote VNet's space (azure-2025), or what was, if that VNet is gone.
        remote_address_space: Vec<Cidr> = "remoteAddressSpace",
        /// False peers the named subnets only (azure-2025); true when absent.
        peer_complete_vnets: Option<bool> = "peerCompleteVnets",
        /// Of subnet peering: only the IPv6 ranges are peered; false when absent.
        enable_only_ipv6_peering: Option<bool> = "enableOnlyIPv6Peering",
        /// Of subnet peering: subnets of 'from'.
        local_subnet_names: Vec<String> = "localSubnetNames",
        /// Of subnet peering: subnets of 'to'.
        remote_subnet_names: Vec<String> = "remoteSubnetNames",
        /// A remote gateway that is not provisioned does not stand in the way of 'useRemoteGateways' (azure-2025).
        do_not_verify_remote_gateways: Option<bool> = "doNotVerifyRemoteGateways",
    }
}

object! {
    /// A network security group.
    Nsg {
        /// Rules by name; the default rules are added.
        security_rules: IndexMap<String, SecurityRule> = "securityRules",
    }
}

object! {
    /// A rule.
    SecurityRule {
        /// At most 140 characters.
        description: Option<String> = "description",
        /// From 100 to 4096, unique per direction; the lowest number decides first.
        priority: u16 = "priority",
        /// Inbound or Outbound, seen from the NIC.
        direction: Direction = "direction",
        /// Allow or Deny.
        access: Access = "access",
        /// The protocol.
        protocol: RuleProtocol = "protocol",
        /// '*', an address, a prefix or a service tag.
        source_address_prefix: Option<String> = "sourceAddressPrefix",
        /// Addresses and prefixes.
        source_address_prefixes: Vec<String> = "sourceAddressPrefixes",
        /// Names of 'applicationSecurityGroups'.
        source_application_security_groups: Vec<String> = "sourceApplicationSecurityGroups",
        /// '*', a port, or a range such as 8000-8099.
        source_port_range: Option<String> = "sourcePortRange",
        /// Ports and ranges.
        source_port_ranges: Vec<String> = "sourcePortRanges",
        /// '*', an address, a prefix or a service tag.
        destination_address_prefix: Option<String> = "destinationAddressPrefix",
        /// Addresses and prefixes.
        destination_address_prefixes: Vec<String> = "destinationAddressPrefixes",
        /// Names of 'applicationSecurityGroups'.
        destination_application_security_groups: Vec<String> = "destinationApplicationSecurityGroups",
        /// '*', a port, or a range such as 8000-8099.
        destination_port_range: Option<String> = "destinationPortRange",
        /// Ports and ranges.
        destination_port_ranges: Vec<String> = "destinationPortRanges",
    }
}

object! {
    /// A VM. With one NIC its properties may stand here; the NIC is then named `<vm>-nic`.
    Vm {
        /// Such as Standard_D2_v5.
        size: Option<String> = "size",
        /// Forwarding in the guest.
        forwarding: Option<bool> = "forwarding",
        /// eth0, eth1, ... in this order.
        nics: Vec<VmNic> = "nics",
        /// Programs started in the namespace, stopped with the lab.
        run: Vec<String> = "run",
        /// Running when absent.
        power_state: Option<PowerState> = "powerState",
        /// Short form: VNET/SUBNET of the one NIC.
        subnet: Option<String> = "subnet",
        /// Short form: the NIC's address.
        private_ip_address: Option<Address> = "privateIPAddress",
        /// Short form: the NIC's addresses.
        private_ip_addresses: Vec<Address> = "privateIPAddresses",
        /// Short form: the NIC may send and receive for others.
        enable_ip_forwarding: Option<bool> = "enableIPForwarding",
        /// Short form: name of one of 'networkSecurityGroups'.
        network_security_group: Option<String> = "networkSecurityGroup",
        /// Short form: names of 'applicationSecurityGroups'.
        application_security_groups: Vec<String> = "applicationSecurityGroups",
        /// Short form: the NIC's public address.
        public_ip_address: Option<PublicAddresses> = "publicIPAddress",
    }
}

object! {
    /// A NIC of a VM.
    VmNic {
        /// Unique in the lab; `<vm>-nic`, `<vm>-nic1`, ... when absent.
        name: Option<String> = "name",
        /// VNET/SUBNET.
        subnet: String = "subnet",
        /// Its address.
        private_ip_address: Option<Address> = "privateIPAddress",
        /// Its addresses; the lowest free, one of each family, when absent.
        private_ip_addresses: Vec<Address> = "privateIPAddresses",
        /// It may send and receive for others.
        enable_ip_forwarding: Option<bool> = "enableIPForwarding",
        /// Name of one of 'networkSecurityGroups'.
        network_security_group: Option<String> = "networkSecurityGroup",
        /// Names of 'applicationSecurityGroups'.
        application_security_groups: Vec<String> = "applicationSecurityGroups",
        /// Its public address, at most one of each family.
        public_ip_address: Option<PublicAddresses> = "publicIPAddress",
    }
}

object! {
    /// A NIC without a VM.
    Nic {
        /// VNET/SUBNET.
        subnet: String = "subnet",
        /// It waits for a VM: it holds its addresses and carries nothing, and its VNet needs no 'tun'.
        detached: Option<bool> = "detached",
        /// Its address.
        private_ip_address: Option<Address> = "privateIPAddress",
        /// Its addresses; the lowest free, one of each family, when absent.
        private_ip_addresses: Vec<Address> = "privateIPAddresses",
        /// Refused here: such a NIC needs a VM.
        enable_ip_forwarding: Option<bool> = "enableIPForwarding",
        /// Name of one of 'networkSecurityGroups'.
        network_security_group: Option<String> = "networkSecurityGroup",
        /// Names of 'applicationSecurityGroups'.
        application_security_groups: Vec<String> = "applicationSecurityGroups",
        /// Its public address, at most one of each family.
        public_ip_address: Option<PublicAddresses> = "publicIPAddress",
    }
}

impl Nic {
    /// The same NIC, as one of a VM would be written.
    #[must_use]
    pub fn to_vm_nic(&self) -> VmNic {
        VmNic {
            name: None,
            subnet: self.subnet.clone(),
            private_ip_address: self.private_ip_address,
            private_ip_addresses: self.private_ip_addresses.clone(),
            enable_ip_forwarding: self.enable_ip_forwarding,
            network_security_group: self.network_security_group.clone(),
            application_security_groups: self.application_security_groups.clone(),
            public_ip_address: self.public_ip_address.clone(),
        }
    }
}

impl Vm {
    /// Its NICs, the one of the short form too.
    #[must_use]
    pub fn listed_nics(&self) -> Vec<VmNic> {
        if self.nics.is_empty() {
            vec![self.short_form().0]
        } else {
            self.nics.clone()
        }
    }

    /// The same VM with these NICs, in the long form.
    #[must_use]
    pub fn with_nics(&self, nics: Vec<VmNic>) -> Self {
        Self {
            nics,
            subnet: None,
            private_ip_address: None,
            private_ip_addresses: Vec::new(),
            enable_ip_forwarding: None,
            network_security_group: None,
            application_security_groups: Vec::new(),
            public_ip_address: None,
            ..self.clone()
        }
    }

    /// The NIC of the short form, and which of its properties are given.
    pub(crate) fn short_form(&self) -> (VmNic, Vec<&'static str>) {
        let given = [
            ("subnet", self.subnet.is_some()),
            ("privateIPAddress", self.private_ip_address.is_some()),
            ("privateIPAddresses", !self.private_ip_addresses.is_empty()),
            ("enableIPForwarding", self.enable_ip_forwarding.is_some()),
            ("networkSecurityGroup", self.network_security_group.is_some()),
            (
                "applicationSecurityGroups",
                !self.application_security_groups.is_empty(),
            ),
            ("publicIPAddress", self.public_ip_address.is_some()),
        ];
        let nic = VmNic {
            name: None,
            subnet: self.subnet.clone().unwrap_or_default(),
            private_ip_address: self.private_ip_address,
            private_ip_addresses: self.private_ip_addresses.clone(),
            enable_ip_forwarding: self.enable_ip_forwarding,
            network_security_group: self.network_security_group.clone(),
            application_security_groups: self.application_security_groups.clone(),
            public_ip_address: self.public_ip_address.clone(),
        };
        (
            nic,
            given
                .into_iter()
                .filter(|(_, given)| *given)
                .map(|(property, _)| property)
                .collect(),
        )
    }
}

object! {
    /// Public test addresses.
    Internet {
        /// Of the lab's internet namespace.
        addresses: Vec<Address> = "addresses",
    }
}

object! {
    /// A thing that must hold.
    Test {
        /// A VM, a NIC, an address, or internet.
        from: String = "from",
        /// A VM, a NIC, an address, or internet.
        to: String = "to",
        /// Tcp when absent.
        protocol: Option<TestProtocol> = "protocol",
        /// Of the destination; needed for Tcp and Udp.
        port: Option<u16> = "port",
        /// Of the source.
        source_port: Option<u16> = "sourcePort",
        /// Allow or Deny.
        expect: Access = "expect",
        /// For Deny: the drop reason.
        reason: Option<String> = "reason",
    }
}

/// An application security group: a set of NICs. It has no properties of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Asg {}

impl Decode for Asg {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        Object::open(node, at, &[], problems).map(|_| Self {})
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["object", "null"], "additionalProperties": false })
    }
}

/// An entry of `peerings:`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PeeringEntry {
    /// `hub <-> spoke1`.
    Both(String),
    One(Box<Peering>),
}

impl Decode for PeeringEntry {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Value::Scalar(text) if text.split("<->").filter(|name| !name.trim().is_empty()).count() == 2 => {
                Some(Self::Both(text.clone()))
            }
            Value::Map(_) => Peering::decode(node, at, problems).map(|peering| Self::One(Box::new(peering))),
            _ => {
                wrong(
                    node,
                    at,
                    "a peering, as an object or as 'hub <-> spoke1'",
                    problems,
                );
                None
            }
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let one = Peering::schema(generator).to_value();
        json_schema!({ "anyOf": [{ "type": "string", "pattern": "^[^<>]+<->[^<>]+$" }, one] })
    }
}

/// One address, or a list with at most one of each family.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct PublicAddresses(pub Vec<Address>);

impl Decode for PublicAddresses {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Value::List(_) => Vec::decode(node, at, problems).map(Self),
            _ => Address::decode(node, at, problems).map(|address| Self(vec![address])),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let one = Address::schema(generator).to_value();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}
