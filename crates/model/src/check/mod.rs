//! Checks what was declared against the rules of Azure, and resolves it into a `Topology`.

mod addresses;
mod balancing_rules;
mod connections;
pub(crate) mod events;
pub(crate) mod expectations;
mod flow_logs;
mod gateways;
pub(crate) mod links;
mod load_balancers;
mod members;
mod names;
mod nics;
mod nsgs;
mod peering_overlaps;
mod peering_pairs;
mod peering_states;
mod peering_subnets;
mod peerings;
mod principals;
mod ranges;
mod resources;
mod routes;
mod rule_fields;
mod security_admin;
mod service_endpoints;
mod tags;
mod vnets;

use indexmap::IndexMap;
use names::Names;

pub(crate) use vnets::GATEWAY_SUBNET;

use crate::config::{self, Config};
use crate::limits::{Limit, Limits};
use crate::problems::{Problems, join};
use crate::service_tags::ServiceTags;
use crate::topology::{ForwardedSemantics, Groups, Profile, Settings, Topology};

/// NET-13, VNET-10.
const FLOWS_PER_NIC: u32 = 500_000;
/// A forwarding thread's table holds a million records.
const MOST_FLOWS: u64 = 1_000_000;
/// From what every IPv4 host takes to the MTU of a VM (NET-03).
const FABRIC_MTU: std::ops::RangeInclusive<u16> = 576..=1500;

/// What the file declares, and where its names lead.
pub(crate) struct Scope<'a> {
    config: &'a Config,
    limits: Limits<'a>,
    subscriptions: Names,
    principals: Names,
    vnets: Names,
    /// Of each VNet.
    subnets: Vec<Names>,
    route_tables: Names,
    nsgs: Names,
    asgs: Names,
    gateways: Names,
    sites: Names,
    network_groups: Names,
    service_tags: ServiceTags,
}

/// The result is of use only when no problem was recorded.
pub(crate) fn check(config: &Config, problems: &mut Problems) -> Topology {
    let mut topology = empty(config);
    let none = IndexMap::new();
    let scope = Scope {
        config,
        limits: Limits {
            profile: topology.profile,
            given: config
                .settings
                .as_ref()
                .map_or(&none, |settings| &settings.limits),
        },
        subscriptions: Names::new("subscription", config.subscriptions.keys()),
        principals: Names::new("principal", config.principals.keys()),
        vnets: Names::new("VNet", config.vnets.keys()),
        subnets: vnets::subnet_names(&config.vnets),
        route_tables: Names::new("route table", config.route_tables.keys()),
        nsgs: Names::new("network security group", config.network_security_groups.keys()),
        asgs: Names::new(
            "application security group",
            config.application_security_groups.keys(),
        ),
        gateways: Names::new("gateway", config.gateways.keys()),
        sites: Names::new("site", config.sites.keys()),
        network_groups: Names::new("network group", config.network_groups.keys()),
        service_tags: config
            .service_tags
            .as_ref()
            .map_or_else(ServiceTags::default, |file| file.tags.clone()),
    };
    topology.service_tags = scope.service_tags.clone();
    lab(config, problems);
    principals::check(config, problems);
    let groups = topology.groups.clone();
    names::one_key_each(
        ("vnets", "virtualNetworks"),
        config.vnets.keys(),
        &groups,
        problems,
    );
    names::one_key_each(
        ("routeTables", "routeTables"),
        config.route_tables.keys(),
        &groups,
        problems,
    );
    let nsgs = config.network_security_groups.keys();
    names::one_key_each(
        ("networkSecurityGroups", "networkSecurityGroups"),
        nsgs,
        &groups,
        problems,
    );
    routes::check(&scope, &mut topology, problems);
    nsgs::check(&scope, &mut topology, problems);
    vnets::check(&scope, &mut topology, problems);
    flow_logs::check(&scope, &mut topology, problems);
    security_admin::check(&scope, &mut topology, problems);
    peerings::check(&scope, &mut topology, problems);
    nics::check(&scope, &mut topology, problems);
    load_balancers::check(&scope, &mut topology, problems);
    gateways::check(&scope, &mut topology, problems);
    links::check(&scope, &mut topology, problems);
    gateways::user_routes(&topology, problems);
    service_endpoints::distinct_clients(&topology, problems);
    nsgs::plain_where_classic(&topology, problems);
    nics::detach(config, &mut topology);
    expectations::check(&scope, &mut topology, problems);
    resources::check(config, problems);
    events::check(config, problems);
    topology
}

/// Everything but the objects.
fn empty(config: &Config) -> Topology {
    let settings = config.settings.clone().unwrap_or_default();
    Topology {
        name: config.name.clone(),
        resource_group: config
            .resource_group
            .clone()
            .unwrap_or_else(|| config.name.clone()),
        profile: profile(config),
        settings: Settings {
            forwarded_semantics: match settings.forwarded_semantics.unwrap_or_default() {
                config::ForwardedSemantics::Drop => ForwardedSemantics::Drop,
                config::ForwardedSemantics::Tag => ForwardedSemantics::Tag,
            },
            tag_includes_default_route: settings.tag_includes_default_route.unwrap_or(true),
            none_routes: settings
                .none_routes
                .map(|list| list.into_iter().map(|cidr| cidr.0).collect()),
            fabric_mtu: settings.fabric_mtu,
            flows_per_nic: (settings.flows_per_nic)
                .and_then(|flows| u32::try_from(flows).ok())
                .unwrap_or(FLOWS_PER_NIC),
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
        groups: Groups::of(config),
        nics: Vec::new(),
        detached_nics: Vec::new(),
        vms: Vec::new(),
        load_balancers: Vec::new(),
        gateways: Vec::new(),
        sites: Vec::new(),
        connections: Vec::new(),
        links: Vec::new(),
        seed: config.seed.unwrap_or_default(),
        learned_routes: None,
        internet: None,
        tests: Vec::new(),
    }
}

fn profile(config: &Config) -> Profile {
    match config.profile.unwrap_or_default() {
        config::Profile::Azure2018 => Profile::Azure2018,
        config::Profile::Azure2025 => Profile::Azure2025,
    }
}

/// The lab's own properties.
fn lab(config: &Config, problems: &mut Problems) {
    if !problems.unreadable("name") {
        names::lab_name(&config.name, problems);
    }
    if let Some(group) = &config.resource_group {
        names::resource_name(group, "resourceGroup", false, problems);
    }
    let ids = config
        .subscriptions
        .iter()
        .filter_map(|(name, it)| Some((name, it.id.as_ref()?)));
    for (name, id) in ids {
        if uuid::Uuid::try_parse(id).is_err() {
            let target = format!("subscriptions.{name}.id");
            let message = format!("'{}' is no UUID", crate::words::shown(id));
            problems
                .error("Sim.Value", target, message)
                .help("such as 11111111-1111-1111-1111-111111111111");
        }
    }
    let Some(settings) = &config.settings else {
        return;
    };
    if let Some(mtu) = settings.fabric_mtu.filter(|mtu| !FABRIC_MTU.contains(mtu)) {
        let message = format!("{mtu} is not from 576 to 1500");
        problems
            .error("Sim.Value", join("settings", "fabricMtu"), message)
            .help("Azure's fabric fragments at 1400");
    }
    if let Some(flows) = settings
        .flows_per_nic
        .filter(|flows| !(1..=MOST_FLOWS).contains(flows))
    {
        let message = format!("{flows} is not from 1 to {MOST_FLOWS}");
        problems
            .error("Sim.Value", join("settings", "flowsPerNic"), message)
            .help("Azure's limit is 500000");
    }
    for (name, given) in &settings.limits {
        limit(config, name, *given, problems);
    }
}

/// A limit may be set to what support would set it to, and not higher.
fn limit(config: &Config, name: &str, given: u64, problems: &mut Problems) {
    let target = format!("settings.limits.{name}");
    let Some(limit) = Limit::ALL.iter().find(|limit| limit.name() == name) else {
        let problem = problems
            .error(
                "Sim.UnknownField",
                target,
                format!("there is no limit '{}'", crate::words::shown(name)),
            )
            .on_key();
        let known = Limit::ALL.iter().map(|limit| limit.name());
        match crate::words::closest(name, known.clone()) {
            Some(near) => problem.help(format!("did you mean '{near}'?")),
            None => problem.help(format!("known here: {}", known.collect::<Vec<_>>().join(", "))),
        };
        return;
    };
    let [_, most] = limit.numbers(profile(config));
    if given > most {
        problems
            .error(limit.code(), target, format!("{name} cannot be more than {most}"))
            .help("lower it");
    }
}
