//! What peerings become by being created, updated, synchronised and deleted: PEER-02..09, 17, 40.

use super::section::{missing, position, same};
use super::{Operation, Refusal, section};
use crate::config::{Config, DeploymentModel, Peering, PeeringEntry, PeeringState, Profile};
use crate::keys::name_of;
use crate::problems::join;

/// Rewrites what is declared as `a <-> b` with this VNet as the objects it stands for, so that each can change by itself.
pub(super) fn write_out(config: &mut Config, vnet: &str) {
    let mut entries = Vec::with_capacity(config.peerings.len() + 1);
    for entry in std::mem::take(&mut config.peerings) {
        let ends = match &entry {
            PeeringEntry::Both(text) => text.split_once("<->"),
            PeeringEntry::One(_) => None,
        };
        let ends = ends.and_then(|(one, other)| {
            let one = section::spelled(&config.vnets, one.trim())?;
            let other = section::spelled(&config.vnets, other.trim())?;
            (same(&one, vnet) || same(&other, vnet)).then_some((one, other))
        });
        let Some((one, other)) = ends else {
            entries.push(entry);
            continue;
        };
        for (from, to) in [(&one, &other), (&other, &one)] {
            // The classic end owns no object (PEER-31).
            if !is_classic(config, from) {
                entries.push(PeeringEntry::One(Box::new(Peering {
                    name: format!("{}-to-{}", name_of(from), name_of(to)),
                    from: from.clone(),
                    to: to.clone(),
                    ..Peering::default()
                })));
            }
        }
    }
    config.peerings = entries;
}

/// Creates or replaces a peering; it is `actor`'s, or where nobody in particular asks, whose it says.
pub(super) fn put(config: &mut Config, wanted: &Peering, actor: Option<&str>) -> Result<(), Refusal> {
    write_out(config, &wanted.from);
    write_out(config, &wanted.to);
    let modern = config.profile == Some(Profile::Azure2025);
    let mut peering = Peering {
        peering_state: None,
        remote_address_space: Vec::new(),
        principal: actor.map(str::to_owned).or_else(|| wanted.principal.clone()),
        ..wanted.clone()
    };
    let Some(index) = find(config, &wanted.from, &wanted.name) else {
        config.peerings.push(PeeringEntry::One(Box::new(peering)));
        return Ok(());
    };
    let Some(old) = object(&config.peerings[index]) else {
        return Ok(());
    };
    if !same(&old.to, &wanted.to) {
        let message = format!(
            "the remote virtual network of peering {}/{} is {} and cannot be changed",
            old.from, old.name, old.to
        );
        return Err(Refusal::new(
            "ChangingRemoteVirtualNetworkNotAllowed",
            format!("peerings.{index}.to"),
            message,
        )
        .help("delete the peering and create another (PEER-02)"));
    }
    if modern && complete(old) != complete(wanted) {
        let message = format!(
            "peering {}/{} cannot change between peering of whole VNets and of subnets",
            old.from, old.name
        );
        return Err(Refusal::new(
            "Sim.PEER-40",
            format!("peerings.{index}.peerCompleteVnets"),
            message,
        )
        .help("delete both peerings and create them again"));
    }
    let disconnected = old.peering_state == Some(PeeringState::Disconnected);
    // PEER-06: any PUT brings a Disconnected peering back to Initiated; azure-2018 knows only delete and re-create.
    if !(modern && disconnected) {
        peering.peering_state = old.peering_state;
        peering.remote_address_space.clone_from(&old.remote_address_space);
    }
    config.peerings[index] = PeeringEntry::One(Box::new(peering));
    Ok(())
}

/// The operation creates a peering with a classic VNet (PEER-31).
pub(super) fn joins_classic(config: &Config, operation: &Operation) -> bool {
    let Operation::PutPeering { peering } = operation else {
        return false;
    };
    is_classic(config, &peering.to) && find(config, &peering.from, &peering.name).is_none()
}

/// PEER-17: what is peered becomes what the remote VNet has now.
pub(super) fn sync(config: &mut Config, vnet: &str, name: &str) -> Result<(), Refusal> {
    write_out(config, vnet);
    let index = find(config, vnet, name).ok_or_else(|| absent(vnet, name))?;
    if config.profile != Some(Profile::Azure2025) {
        return Err(Refusal::new(
            "Sim.PEER-17",
            format!("peerings.{index}"),
            "azure-2018 does not synchronise peerings",
        )
        .help("delete both peerings, change the address space, and create them again"));
    }
    if let PeeringEntry::One(peering) = &mut config.peerings[index]
        && peering.peering_state != Some(PeeringState::Disconnected)
    {
        peering.remote_address_space.clear();
    }
    Ok(())
}

/// PEER-05, PEER-08: the other side stays, Disconnected if it was Connected.
pub(super) fn delete(config: &mut Config, vnet: &str, name: &str) -> Result<(), Refusal> {
    write_out(config, vnet);
    let index = find(config, vnet, name).ok_or_else(|| absent(vnet, name))?;
    let Some(gone) = object(&config.peerings[index]).cloned() else {
        return Ok(());
    };
    config.peerings.remove(index);
    if gone.peering_state == Some(PeeringState::Disconnected) {
        return Ok(());
    }
    for entry in &mut config.peerings {
        if let PeeringEntry::One(back) = entry
            && same(&back.from, &gone.to)
            && same(&back.to, &gone.from)
        {
            back.peering_state = Some(PeeringState::Disconnected);
        }
    }
    Ok(())
}

/// A peering of whole VNets, which it is when absent.
pub(super) fn complete(peering: &Peering) -> bool {
    peering.peer_complete_vnets.unwrap_or(true)
}

pub(super) fn object(entry: &PeeringEntry) -> Option<&Peering> {
    match entry {
        PeeringEntry::One(peering) => Some(peering),
        PeeringEntry::Both(_) => None,
    }
}

pub(super) fn find(config: &Config, vnet: &str, name: &str) -> Option<usize> {
    let mut objects = config.peerings.iter().map(object);
    objects.position(|it| it.is_some_and(|it| same(&it.from, vnet) && same(&it.name, name)))
}

fn absent(vnet: &str, name: &str) -> Refusal {
    missing(&join("peerings", vnet), name)
}

fn is_classic(config: &Config, vnet: &str) -> bool {
    let found = position(&config.vnets, vnet).map(|index| &config.vnets[index]);
    found.is_some_and(|it| it.deployment_model == Some(DeploymentModel::Classic))
}
