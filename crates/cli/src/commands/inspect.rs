//! `routes`, `rules`, `peerings`: what is in effect, from the compiled tables.

use control::present::{self, EffectiveNsg, EffectiveRule, PeeringRow};
use model::Topology;
use model::topology::{Endpoint, NicIndex};

use crate::args::{LabArg, NicArgs};
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::Lab;
use crate::output::{Cell, Output, Tone, View};

/// Effective routes of a NIC (ROUTE-40).
pub(crate) fn routes(args: &NicArgs, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let routes = present::effective_routes(&lab.topology, running(&lab.topology, &args.nic, "Sim.ROUTE-39")?);
    output.show(&routes, |_| {
        let (header, rows) = present::route_columns(&routes);
        let tone = |text: &str| match text {
            "Active" => Tone::Good,
            "Invalid" | "None" => Tone::Faint,
            _ => Tone::Plain,
        };
        let cell = |text: String| Cell::new(tone(&text), text);
        View {
            header: header.to_vec(),
            rows: rows
                .into_iter()
                .map(|row| row.into_iter().map(cell).collect())
                .collect(),
            ..View::default()
        }
    })?;
    Ok(exit::SUCCESS)
}

/// Effective security rules of a NIC (NSG-35).
pub(crate) fn rules(args: &NicArgs, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let nsgs = present::effective_nsgs(&lab.topology, running(&lab.topology, &args.nic, "Sim.NSG-35")?);
    output.show(&nsgs, |_| View {
        below: None,
        header: vec![
            "NSG",
            "Direction",
            "Priority",
            "Name",
            "Access",
            "Protocol",
            "Source",
            "Destination",
            "Port",
        ],
        rows: nsgs.value.iter().flat_map(rule_rows).collect(),
        text: nsgs
            .value
            .is_empty()
            .then(|| "no NSG at this NIC or its subnet: everything is allowed".to_owned()),
    })?;
    Ok(exit::SUCCESS)
}

/// Every peering.
pub(crate) fn peerings(args: &LabArg, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let peerings = present::peerings(&lab.topology);
    output.show(&peerings, |_| View {
        header: vec![
            "From",
            "To",
            "Name",
            "State",
            "Sync",
            "Access",
            "Forwarded",
            "Transit",
            "Remote gw",
            "Remote addresses",
        ],
        rows: peerings.iter().map(peering_row).collect(),
        ..View::default()
    })?;
    Ok(exit::SUCCESS)
}

/// A NIC by its name, or the first NIC of a VM.
///
/// # Errors
/// Nothing has this name.
pub(crate) fn nic(topology: &Topology, name: &str) -> Result<NicIndex, Failure> {
    if let Ok(Endpoint::Nic(nic)) = topology.endpoint(name) {
        return Ok(nic);
    }
    let names = topology
        .vms
        .iter()
        .map(|vm| &vm.name)
        .chain(topology.nics.iter().map(|nic| &nic.name));
    let names: Vec<&str> = names.map(String::as_str).collect();
    Err(Failure::not_found(format_args!(
        "lab {} has no VM or network interface {name}",
        topology.name
    ))
    .help(format_args!("it has {}", names.join(", "))))
}

/// The same, as what is in effect is that of a running VM (ROUTE-39, NSG-35).
fn running(topology: &Topology, name: &str, rule: &str) -> Result<NicIndex, Failure> {
    let nic = nic(topology, name)?;
    let vm = topology.nics[nic.0].vm.map(|vm| &topology.vms[vm.0]);
    match vm.filter(|vm| !vm.running) {
        Some(vm) => Err(Failure::failed(format_args!(
            "{rule}: VM {} is stopped: nothing is in effect at its network interfaces",
            vm.name
        ))
        .help(format_args!(
            "start it: `peerlane event {} start {}`",
            topology.name, vm.name
        ))),
        None => Ok(nic),
    }
}

fn rule_rows(nsg: &EffectiveNsg) -> impl Iterator<Item = Vec<Cell>> {
    let name = nsg
        .network_security_group
        .id
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let mut rules: Vec<&EffectiveRule> = nsg.effective_security_rules.iter().collect();
    rules.sort_by_key(|rule| (rule.direction, rule.priority));
    rules.into_iter().map(move |rule| {
        let either = |one: &Option<String>, many: &[String]| one.clone().unwrap_or_else(|| many.join(" "));
        vec![
            name.into(),
            rule.direction.into(),
            u64::from(rule.priority).into(),
            rule.name.as_str().into(),
            Cell::new(
                if rule.access == "Allow" {
                    Tone::Good
                } else {
                    Tone::Bad
                },
                rule.access,
            ),
            rule.protocol.into(),
            either(&rule.source_address_prefix, &rule.source_address_prefixes).into(),
            either(
                &rule.destination_address_prefix,
                &rule.destination_address_prefixes,
            )
            .into(),
            either(&rule.destination_port_range, &rule.destination_port_ranges).into(),
        ]
    })
}

fn peering_row(peering: &PeeringRow) -> Vec<Cell> {
    let flag = |on: bool| {
        if on {
            Cell::new(Tone::Good, "yes")
        } else {
            Cell::new(Tone::Faint, "no")
        }
    };
    let state = match peering.peering_state {
        "Connected" => Tone::Good,
        "Initiated" => Tone::Notice,
        _ => Tone::Bad,
    };
    vec![
        peering.from.as_str().into(),
        peering.to.as_str().into(),
        peering.name.as_str().into(),
        Cell::new(state, peering.peering_state),
        peering.peering_sync_level.into(),
        flag(peering.allow_virtual_network_access),
        flag(peering.allow_forwarded_traffic),
        flag(peering.allow_gateway_transit),
        flag(peering.use_remote_gateways),
        peering.remote_address_space.join(" ").into(),
    ]
}
