//! What an event, timed or commanded, does: its operations.

use indexmap::IndexMap;

use super::section::{missing, value};
use super::{Operation, Refusal};
use crate::config::{Config, Event, LinkName, Machine, PowerState, SitePrefix};
use crate::problems::join;
use crate::words::closest;

/// The operations that carry out an event. None where it changes nothing: what is stopped is stopped again.
///
/// # Errors
/// The lab has not what the event names.
pub fn event(config: &Config, event: &Event) -> Result<Vec<Operation>, Refusal> {
    let operation = if let Some(change) = &event.set {
        let before = value(&config.impairments, &change.link)
            .cloned()
            .unwrap_or_default();
        let link = Some(Box::new(before.changed(&change.settings())));
        let name = change.link.clone();
        Some(Operation::Impair { name, link })
    } else if let Some(LinkName { link: name }) = &event.reset {
        let name = name.clone();
        Some(Operation::Impair { name, link: None })
    } else if let Some(created) = &event.create {
        let peering = Box::new(created.peering.clone());
        Some(Operation::PutPeering { peering })
    } else if let Some(deleted) = &event.delete {
        let (vnet, name) = deleted
            .peering
            .rsplit_once('/')
            .ok_or_else(|| missing("peerings", &deleted.peering).help("name it VNET/PEERING"))?;
        let (vnet, name) = (vnet.to_owned(), name.to_owned());
        Some(Operation::DeletePeering { vnet, name })
    } else if let Some(machine) = &event.stop {
        Some(power(config, machine, PowerState::Stopped)?)
    } else if let Some(machine) = &event.start {
        Some(power(config, machine, PowerState::Running)?)
    } else if let Some(prefix) = &event.withdraw {
        Some(known(config, prefix, false)?)
    } else if let Some(prefix) = &event.announce {
        Some(known(config, prefix, true)?)
    } else {
        None
    };
    Ok(operation.into_iter().collect())
}

fn power(config: &Config, machine: &Machine, state: PowerState) -> Result<Operation, Refusal> {
    let name = &machine.vm;
    let vm = value(&config.vms, name).ok_or_else(|| absent(&config.vms, "vms", name))?;
    let mut vm = vm.clone();
    vm.power_state = (state != PowerState::Running).then_some(state);
    Ok(Operation::PutVm {
        name: name.clone(),
        vm: Box::new(vm),
    })
}

fn absent<T>(map: &IndexMap<String, T>, at: &str, name: &str) -> Refusal {
    let refusal = missing(at, name);
    match closest(name, map.keys().map(String::as_str)) {
        Some(near) => refusal.help(format!("did you mean '{near}'?")),
        None => refusal,
    }
}

fn known(config: &Config, prefix: &SitePrefix, known: bool) -> Result<Operation, Refusal> {
    let SitePrefix { site: name, prefix } = prefix;
    let site = value(&config.sites, name).ok_or_else(|| absent(&config.sites, "sites", name))?;
    if !site.address_prefixes.contains(prefix) {
        let has: Vec<String> = site
            .address_prefixes
            .iter()
            .map(|own| own.0.to_string())
            .collect();
        let message = format!("site {name} has no prefix {}", prefix.0);
        let at = join(&join("sites", name), "addressPrefixes");
        return Err(Refusal::new("Sim.Value", at, message).help(format!("it has {}", has.join(", "))));
    }
    let mut site = site.clone();
    site.withdrawn_prefixes.retain(|withdrawn| withdrawn != prefix);
    if !known {
        site.withdrawn_prefixes.push(*prefix);
    }
    Ok(Operation::PutSite {
        name: name.clone(),
        site: Box::new(site),
    })
}
