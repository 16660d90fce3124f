//! Labs built by hand: the model's file reader is not under test here.

use std::net::IpAddr;

use ipnet::IpNet;
use model::Topology;
use model::topology::{
    ForwardedSemantics, Nic, NicIndex, Peering, PeeringIndex, PeeringState, Profile, RouteTable,
    RouteTableIndex, ServiceTags, Settings, Subnet, SubnetIndex, SyncLevel, Udr, UdrNextHop, Vm, VmIndex,
    Vnet, VnetIndex,
};

/// A lab without anything.
pub(crate) fn lab(profile: Profile) -> Topology {
    Topology {
        name: "t".to_owned(),
        resource_group: "t".to_owned(),
        profile,
        settings: Settings {
            forwarded_semantics: ForwardedSemantics::Drop,
            tag_includes_default_route: true,
            none_routes: None,
            fabric_mtu: None,
            flows_per_nic: 500_000,
        },
        vnets: Vec::new(),
        subnets: Vec::new(),
        peerings: Vec::new(),
        orphaned_peerings: Vec::new(),
        route_tables: Vec::new(),
        nsgs: Vec::new(),
        asgs: Vec::new(),
        flow_logs: Vec::new(),
        security_admin_configurations: Vec::new(),
        service_tags: ServiceTags::default(),
        groups: model::topology::Groups::all_in("t"),
        nics: Vec::new(),
        detached_nics: Vec::new(),
        vms: Vec::new(),
        load_balancers: Vec::new(),
        gateways: Vec::new(),
        sites: Vec::new(),
        connections: Vec::new(),
        links: Vec::new(),
        seed: 0,
        learned_routes: None,
        internet: None,
        tests: Vec::new(),
    }
}

pub(crate) fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A VNet with one subnet `s`.
pub(crate) fn subnet(
    topology: &mut Topology,
    vnet: &str,
    ranges: &[IpNet],
    prefixes: &[IpNet],
) -> SubnetIndex {
    let subnet = SubnetIndex(topology.subnets.len());
    topology.subnets.push(Subnet {
        name: "s".to_owned(),
        vnet: VnetIndex(topology.vnets.len()),
        prefixes: prefixes.to_vec(),
        nsg: None,
        route_table: None,
        service_endpoints: Vec::new(),
    });
    topology.vnets.push(Vnet {
        name: vnet.to_owned(),
        location: "westus2".to_owned(),
        subscription: "00000000-0000-0000-0000-000000000000".to_owned(),
        tenant: "t".to_owned(),
        classic: false,
        address_space: ranges.to_vec(),
        subnets: vec![subnet],
        flow_timeout_minutes: None,
        tun: None,
    });
    subnet
}

/// A VM with one NIC.
pub(crate) fn vm(topology: &mut Topology, name: &str, subnet: SubnetIndex, addresses: &[IpAddr]) -> NicIndex {
    let nic = NicIndex(topology.nics.len());
    let vm = VmIndex(topology.vms.len());
    topology.nics.push(Nic {
        name: format!("{name}-nic"),
        subnet,
        vm: Some(vm),
        addresses: addresses.to_vec(),
        ip_forwarding: false,
        nsg: None,
        asgs: Vec::new(),
        public_addresses: Vec::new(),
    });
    topology.vms.push(Vm {
        name: name.to_owned(),
        size: None,
        egress_bps: None,
        forwarding: false,
        nics: vec![nic],
        run: Vec::new(),
        running: true,
    });
    nic
}

/// Both directions, Connected, access on.
pub(crate) fn peer(topology: &mut Topology, a: VnetIndex, b: VnetIndex) -> [PeeringIndex; 2] {
    let first = topology.peerings.len();
    for (from, to, reverse) in [(a, b, first + 1), (b, a, first)] {
        topology.peerings.push(Peering {
            name: format!("{}-to-{}", topology.vnets[from.0].name, topology.vnets[to.0].name),
            from,
            to,
            state: PeeringState::Connected,
            sync_level: SyncLevel::FullyInSync,
            allow_virtual_network_access: true,
            allow_forwarded_traffic: false,
            allow_gateway_transit: false,
            use_remote_gateways: false,
            remote_address_space: topology.vnets[to.0].address_space.clone(),
            remote_current_space: topology.vnets[to.0].address_space.clone(),
            subnets: None,
            do_not_verify_remote_gateways: false,
            global: false,
            latency_us: 0,
            latency_source: model::topology::LatencySource::Region,
            reverse: Some(PeeringIndex(reverse)),
        });
    }
    [PeeringIndex(first), PeeringIndex(first + 1)]
}

/// Gives a subnet a route table of its own.
pub(crate) fn routes(topology: &mut Topology, subnet: SubnetIndex, routes: &[(&str, UdrNextHop)]) {
    let table = RouteTableIndex(topology.route_tables.len());
    let udr = |(index, (prefix, next_hop)): (usize, &(&str, UdrNextHop))| Udr {
        name: format!("r{index}"),
        prefix: prefix.parse().unwrap(),
        tag: None,
        next_hop: next_hop.clone(),
    };
    topology.route_tables.push(RouteTable {
        name: format!("rt{}", table.0),
        disable_bgp_route_propagation: false,
        disable_peering_route: false,
        routes: routes.iter().enumerate().map(udr).collect(),
    });
    topology.subnets[subnet.0].route_table = Some(table);
}
