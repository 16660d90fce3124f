//! The one way to change a lab: operations as ARM has them, applied to the declared state, or refused with nothing changed.
//!
//! [`apply`] is a pure function: a `Config` and operations give a new `Config` and its `Topology`, or a [`Refusal`]. The
//! state of peerings lives in the `Config` (`peeringState: Disconnected`, `remoteAddressSpace`), all else follows from it, so
//! the declared state is the whole state and `export` has only to write it down.
//!
//! - One operation of a command or a request is a slice of one. `actor` is who asks (a name of `principals:`); None is the
//!   owner of the lab, who may do everything.
//! - A new lab file for a running lab is [`converge`], which is [`between`] (what a plan lists) and then [`apply`]: peerings go
//!   through the transitions of Azure one by one (PEER-03..09, 15..17), while everything else is checked once, at the end,
//!   so that operations of one slice may lean on each other. Compile and publish [`Changed::topology`], and keep
//!   [`Changed::config`] for the next change: it holds the states of peerings and the addresses NICs have, which a file may leave out.

mod between;
mod edit;
mod event;
mod gate;
mod in_use;
mod peerings;
mod pin;
mod refusal;
mod resources;
mod rights;
mod section;
mod vnets;

pub use between::between;
pub use edit::{Edit, Kind, Verb, edit};
pub use event::event;
pub use gate::{Gate, Ticket};
pub use refusal::Refusal;

use crate::check;
use crate::config::{self, Config};
use crate::problems::Problems;
use crate::topology::Topology;

const NSGS: &str = "networkSecurityGroups";
const ASGS: &str = "applicationSecurityGroups";

/// One change, as ARM's PUT and DELETE: a PUT replaces the object or creates it. Names match without regard to case.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// With its subnets: one that is left out is deleted (VNET-09, PEER-15, PEER-16).
    PutVnet {
        name: String,
        vnet: Box<config::Vnet>,
    },
    /// Its own peerings go with it; those of others to it become Disconnected (PEER-05).
    DeleteVnet {
        name: String,
    },
    PutSubnet {
        vnet: String,
        name: String,
        subnet: Box<config::Subnet>,
    },
    DeleteSubnet {
        vnet: String,
        name: String,
    },
    /// State and remote address space of the body count for nothing: they follow (PEER-03..06, 09).
    PutPeering {
        peering: Box<config::Peering>,
    },
    /// A PUT with `syncRemoteAddressSpace=true` (PEER-17).
    SyncPeering {
        vnet: String,
        name: String,
    },
    /// One side only (PEER-08).
    DeletePeering {
        vnet: String,
        name: String,
    },
    PutRouteTable {
        name: String,
        table: Box<config::RouteTable>,
    },
    DeleteRouteTable {
        name: String,
    },
    PutRoute {
        table: String,
        name: String,
        route: Box<config::Route>,
    },
    DeleteRoute {
        table: String,
        name: String,
    },
    PutNsg {
        name: String,
        nsg: Box<config::Nsg>,
    },
    DeleteNsg {
        name: String,
    },
    PutRule {
        nsg: String,
        name: String,
        rule: Box<config::SecurityRule>,
    },
    DeleteRule {
        nsg: String,
        name: String,
    },
    PutAsg {
        name: String,
    },
    DeleteAsg {
        name: String,
    },
    /// A NIC that says no address keeps those it has, while it stays in its subnet.
    PutVm {
        name: String,
        vm: Box<config::Vm>,
    },
    DeleteVm {
        name: String,
    },
    /// A NIC without a VM.
    PutNic {
        name: String,
        nic: Box<config::Nic>,
    },
    DeleteNic {
        name: String,
    },
    /// A frontend that says no address keeps the one it has, while it stays in its subnet.
    PutLoadBalancer {
        name: String,
        balancer: Box<config::LoadBalancer>,
    },
    DeleteLoadBalancer {
        name: String,
    },
    PutGateway {
        name: String,
        gateway: Box<config::Gateway>,
    },
    /// Refused while a peering uses it from afar (GW-10) or a connection leads from it.
    DeleteGateway {
        name: String,
    },
    PutSite {
        name: String,
        site: Box<config::Site>,
    },
    DeleteSite {
        name: String,
    },
    PutConnection {
        name: String,
        connection: Box<config::Connection>,
    },
    DeleteConnection {
        name: String,
    },
    /// What a management client says of a resource beside what the lab does with it.
    PutResource {
        key: String,
        resource: Box<config::StoredResource>,
    },
    DeleteResource {
        key: String,
    },
    /// What a peering, `vnet/peering`, or a connection does to packets. It outlives the peering, for one of its name.
    PutLink {
        name: String,
        link: Box<config::Link>,
    },
    DeleteLink {
        name: String,
    },
    /// What is said of a link while the lab runs, beside what the file says; None: nothing any more.
    Impair {
        name: String,
        link: Option<Box<config::Link>>,
    },
    /// A timed event has happened, or cannot happen: it is no more to come.
    ForgetEvent {
        event: Box<config::Event>,
    },
    PutFlowLog {
        name: String,
        log: Box<config::FlowLog>,
    },
    DeleteFlowLog {
        name: String,
    },
}

impl Operation {
    /// What it does to this lab, in ARM's words, for people.
    #[must_use]
    pub fn summary(&self, config: &Config) -> String {
        rights::summary(config, self)
    }
}

/// What operations lead to.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The declared state from now on.
    pub config: Config,
    pub topology: Topology,
    /// A provisioning state that the objects pass through before they have succeeded: Updating for a peering with a classic
    /// VNet (PEER-31).
    pub transient: Option<&'static str>,
}

/// Carries out the operations in order, all or none.
///
/// # Errors
/// The first rule that forbids it, with the others in its details; the lab is as it was.
pub fn apply(config: &Config, operations: &[Operation], actor: Option<&str>) -> Result<Changed, Refusal> {
    let mut next = config.clone();
    pin::addresses(&mut next)?;
    let mut transient = None;
    for operation in operations {
        if peerings::joins_classic(&next, operation) {
            transient = Some("Updating");
        }
        rights::check(&next, operation, actor)?;
        step(&mut next, operation, actor)?;
    }
    resources::sweep(&mut next);
    let topology = checked(&next)?;
    for operation in operations {
        if let Operation::PutLink { name, .. } | Operation::Impair { name, .. } = operation {
            check::links::exists(&topology, name)?;
        }
    }
    Ok(Changed {
        config: next,
        topology,
        transient,
    })
}

/// Makes a lab declare what a new file declares, by operations, all or none. What is no object (settings, principals,
/// tests, ...) is taken from the file.
///
/// # Errors
/// As [`apply`]; also when name, profile, location or resource group differ: they are fixed while a lab runs.
pub fn converge(config: &Config, new: &Config) -> Result<Changed, Refusal> {
    let fixed = [
        ("name", config.name != new.name),
        (
            "profile",
            config.profile.unwrap_or_default() != new.profile.unwrap_or_default(),
        ),
        ("location", config.location != new.location),
        ("resourceGroup", config.resource_group != new.resource_group),
    ];
    if let Some((property, _)) = fixed.iter().find(|(_, differs)| *differs) {
        let message = format!("the {property} of a running lab cannot change");
        return Err(Refusal::new("Sim.Value", *property, message).help("take the lab down and up again"));
    }
    let operations = between(config, new);
    let mut old = config.clone();
    pin::addresses(&mut old)?;
    let base = Config {
        vnets: old.vnets,
        peerings: old.peerings,
        route_tables: old.route_tables,
        network_security_groups: old.network_security_groups,
        application_security_groups: old.application_security_groups,
        vms: old.vms,
        network_interfaces: old.network_interfaces,
        load_balancers: old.load_balancers,
        gateways: old.gateways,
        sites: old.sites,
        connections: old.connections,
        resources: old.resources,
        links: old.links,
        tests: Vec::new(),
        ..new.clone()
    };
    let changed = apply(&base, &operations, None)?;
    let config = Config {
        tests: new.tests.clone(),
        ..changed.config
    };
    let topology = checked(&config)?;
    Ok(Changed {
        config,
        topology,
        transient: changed.transient,
    })
}

/// The declared state after operations that only change an object by itself, so that the lab needs no check.
///
/// # Errors
/// As [`apply`], as far as one operation can tell.
pub(crate) fn stepped(config: &Config, operations: &[Operation]) -> Result<Config, Refusal> {
    let mut next = config.clone();
    for operation in operations {
        step(&mut next, operation, None)?;
    }
    Ok(next)
}

/// The lab that the declared state gives.
fn checked(config: &Config) -> Result<Topology, Refusal> {
    let mut problems = Problems::default();
    let topology = check::check(config, &mut problems);
    match problems.into_refusal() {
        Some(refusal) => Err(refusal),
        None => Ok(topology),
    }
}

/// One operation: only the rules about the way from one state to the next.
fn step(config: &mut Config, operation: &Operation, actor: Option<&str>) -> Result<(), Refusal> {
    use Operation as Op;
    resources::forget(config, operation);
    match operation {
        Op::PutVnet { name, vnet } => vnets::put(config, name, vnet),
        Op::DeleteVnet { name } => vnets::delete(config, name),
        Op::PutSubnet { vnet, name, subnet } => vnets::put_subnet(config, vnet, name, subnet),
        Op::DeleteSubnet { vnet, name } => vnets::delete_subnet(config, vnet, name),
        Op::PutPeering { peering } => peerings::put(config, peering, actor),
        Op::SyncPeering { vnet, name } => peerings::sync(config, vnet, name),
        Op::DeletePeering { vnet, name } => peerings::delete(config, vnet, name),
        Op::PutRouteTable { name, table } => section::put(&mut config.route_tables, name, table),
        Op::DeleteRouteTable { name } => {
            in_use::route_table(config, name)?;
            section::delete(&mut config.route_tables, "routeTables", name)
        }
        Op::PutRoute { table, name, route } => {
            let table = section::find(&mut config.route_tables, "routeTables", table)?;
            section::put(&mut table.routes, name, route)
        }
        Op::DeleteRoute { table, name } => {
            let at = format!("routeTables.{table}.routes");
            let table = section::find(&mut config.route_tables, "routeTables", table)?;
            section::delete(&mut table.routes, &at, name)
        }
        Op::PutNsg { name, nsg } => section::put(&mut config.network_security_groups, name, nsg),
        Op::DeleteNsg { name } => {
            in_use::nsg(config, name)?;
            section::delete(&mut config.network_security_groups, NSGS, name)
        }
        Op::PutRule { nsg, name, rule } => {
            let nsg = section::find(&mut config.network_security_groups, NSGS, nsg)?;
            section::put(&mut nsg.security_rules, name, rule)
        }
        Op::DeleteRule { nsg, name } => {
            let at = format!("{NSGS}.{nsg}.securityRules");
            let nsg = section::find(&mut config.network_security_groups, NSGS, nsg)?;
            section::delete(&mut nsg.security_rules, &at, name)
        }
        Op::PutAsg { name } => section::put(&mut config.application_security_groups, name, &config::Asg {}),
        Op::DeleteAsg { name } => section::delete(&mut config.application_security_groups, ASGS, name),
        Op::PutVm { name, vm } => {
            let vm = pin::kept(section::value(&config.vms, name), vm);
            section::put(&mut config.vms, name, &vm)
        }
        Op::DeleteVm { name } => {
            in_use::forget_tests(config, name);
            section::delete(&mut config.vms, "vms", name)
        }
        Op::PutNic { name, nic } => {
            let nic = pin::kept_nic(section::value(&config.network_interfaces, name), nic);
            section::put(&mut config.network_interfaces, name, &nic)
        }
        Op::DeleteNic { name } => {
            in_use::forget_tests(config, name);
            section::delete(&mut config.network_interfaces, "networkInterfaces", name)
        }
        Op::PutLoadBalancer { name, balancer } => {
            let balancer = pin::kept_balancer(section::value(&config.load_balancers, name), balancer);
            section::put(&mut config.load_balancers, name, &balancer)
        }
        Op::DeleteLoadBalancer { name } => section::delete(&mut config.load_balancers, "loadBalancers", name),
        Op::PutGateway { name, gateway } => section::put(&mut config.gateways, name, gateway),
        Op::DeleteGateway { name } => section::delete(&mut config.gateways, "gateways", name),
        Op::PutSite { name, site } => section::put(&mut config.sites, name, site),
        Op::DeleteSite { name } => section::delete(&mut config.sites, "sites", name),
        Op::PutConnection { name, connection } => section::put(&mut config.connections, name, connection),
        Op::DeleteConnection { name } => section::delete(&mut config.connections, "connections", name),
        Op::PutResource { key, resource } => section::put(&mut config.resources, key, resource),
        Op::PutFlowLog { name, log } => section::put(&mut config.flow_logs, name, log),
        Op::DeleteFlowLog { name } => section::delete(&mut config.flow_logs, "flowLogs", name),
        Op::DeleteResource { key } => section::delete(&mut config.resources, "resources", key),
        Op::PutLink { name, link } => section::put(&mut config.links, name, link),
        Op::DeleteLink { name } => section::delete(&mut config.links, "links", name),
        Op::Impair {
            name,
            link: Some(link),
        } => section::put(&mut config.impairments, name, link),
        Op::Impair { name, link: None } => {
            let index = section::position(&config.impairments, name);
            index.map(|index| config.impairments.shift_remove_index(index));
            Ok(())
        }
        Op::ForgetEvent { event } => {
            let found = config.events.iter().position(|it| it == &**event);
            found.map(|at| config.events.remove(at));
            Ok(())
        }
    }
}
