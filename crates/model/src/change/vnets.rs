//! What a VNet and its subnets may become while something leans on them: VNET-01, VNET-09, PEER-05, PEER-15, PEER-16.

use indexmap::IndexMap;
use ipnet::IpNet;

use super::peerings::{complete, object, write_out};
use super::section::{missing, position, same, spelled};
use super::{Refusal, in_use, section};
use crate::config::{Cidr, Config, Peering, PeeringEntry, PeeringState, Profile, Subnet, Vnet};

/// Creates or replaces a VNet with its subnets.
pub(super) fn put(config: &mut Config, name: &str, wanted: &Vnet) -> Result<(), Refusal> {
    let Some(index) = position(&config.vnets, name) else {
        config.vnets.insert(name.to_owned(), wanted.clone());
        return Ok(());
    };
    let name = spelled(&config.vnets, name).unwrap_or_default();
    fixed(config, &name, &config.vnets[index], wanted)?;
    let old = config.vnets[index].clone();
    for subnet in old.subnets.keys() {
        match position(&wanted.subnets, subnet) {
            None => in_use::subnet(config, &name, subnet)?,
            Some(at) => resize(config, &name, subnet, &wanted.subnets[at])?,
        }
    }
    ranges(config, &name, &old, wanted)?;
    change(config, &name, |vnet| {
        vnet.clone_from(wanted);
        Ok(())
    })
}

/// PEER-05: peerings of others to it stay, Disconnected, and remember what was peered (PEER-14).
pub(super) fn delete(config: &mut Config, name: &str) -> Result<(), Refusal> {
    let name = spelled(&config.vnets, name).ok_or_else(|| missing("vnets", name))?;
    let index = position(&config.vnets, &name).unwrap_or_default();
    for subnet in config.vnets[index].subnets.keys() {
        in_use::subnet(config, &name, subnet)?;
    }
    write_out(config, &name);
    let spaces = peered_spaces(config, &name);
    for (at, space) in spaces {
        if let PeeringEntry::One(peering) = &mut config.peerings[at] {
            peering.peering_state = Some(PeeringState::Disconnected);
            if peering.remote_address_space.is_empty() {
                peering.remote_address_space = space.into_iter().map(Cidr).collect();
            }
        }
    }
    config
        .peerings
        .retain(|entry| !object(entry).is_some_and(|it| same(&it.from, &name)));
    config.vnets.shift_remove_index(index);
    Ok(())
}

pub(super) fn put_subnet(
    config: &mut Config,
    vnet: &str,
    name: &str,
    subnet: &Subnet,
) -> Result<(), Refusal> {
    section::find(&mut config.vnets, "vnets", vnet)?;
    let vnet = spelled(&config.vnets, vnet).unwrap_or_default();
    resize(config, &vnet, name, subnet)?;
    change(config, &vnet, |it| section::put(&mut it.subnets, name, subnet))
}

pub(super) fn delete_subnet(config: &mut Config, vnet: &str, name: &str) -> Result<(), Refusal> {
    section::find(&mut config.vnets, "vnets", vnet)?;
    let vnet = spelled(&config.vnets, vnet).unwrap_or_default();
    let at = format!("vnets.{vnet}.subnets");
    let index = position(&config.vnets, &vnet).unwrap_or_default();
    let name = spelled(&config.vnets[index].subnets, name).ok_or_else(|| missing(&at, name))?;
    in_use::subnet(config, &vnet, &name)?;
    change(config, &vnet, |it| section::delete(&mut it.subnets, &at, &name))
}

/// VNET-01: a VNet stays in its region, subscription and deployment model.
fn fixed(config: &Config, name: &str, old: &Vnet, new: &Vnet) -> Result<(), Refusal> {
    let place = |vnet: &Vnet| {
        let given = vnet.location.as_deref().or(config.location.as_deref());
        given.unwrap_or("westus2").to_lowercase().replace(' ', "")
    };
    let lower = |text: &Option<String>| text.as_ref().map(|text| text.to_lowercase());
    let property = if place(old) != place(new) {
        "location"
    } else if lower(&old.subscription) != lower(&new.subscription) {
        "subscription"
    } else if old.deployment_model.unwrap_or_default() != new.deployment_model.unwrap_or_default() {
        "deploymentModel"
    } else {
        return Ok(());
    };
    Err(Refusal::new(
        "Sim.VNET-01",
        format!("vnets.{name}.{property}"),
        format!("the {property} of virtual network {name} cannot change"),
    )
    .help("delete the VNet and create it again"))
}

/// VNET-09: only an empty subnet changes its ranges.
fn resize(config: &Config, vnet: &str, name: &str, wanted: &Subnet) -> Result<(), Refusal> {
    let old = position(&config.vnets, vnet).map(|index| &config.vnets[index].subnets);
    let Some(old) = old.and_then(|subnets| Some(&subnets[position(subnets, name)?])) else {
        return Ok(());
    };
    let lost = prefixes(old).find(|prefix| !prefixes(wanted).any(|new| new == *prefix));
    match (lost, in_use::in_subnet(config, vnet, name)) {
        (Some(prefix), Some(user)) => Err(Refusal::new(
            "Sim.VNET-09",
            format!("vnets.{vnet}.subnets.{name}"),
            format!("Subnet {name} is in use by {user}: its range {prefix} cannot be changed."),
        )
        .help("delete or move what is in the subnet first")),
        _ => Ok(()),
    }
}

/// PEER-15, and VNET-09 for a range that subnets stand in.
fn ranges(config: &Config, name: &str, old: &Vnet, new: &Vnet) -> Result<(), Refusal> {
    let at = format!("vnets.{name}.addressSpace");
    if sorted(&old.address_space) == sorted(&new.address_space) {
        return Ok(());
    }
    if config.profile != Some(Profile::Azure2025)
        && let Some(peering) = holding(config, name)
    {
        let message = format!(
            "Address space of virtual network {name} cannot change because it has peering {peering}."
        );
        return Err(
            Refusal::new("VnetAddressSpaceCannotChangeDueToPeerings", at, message)
                .help("delete its peerings, change the address space, and create them again"),
        );
    }
    let lost = old
        .address_space
        .iter()
        .filter(|range| !new.address_space.contains(range));
    for range in lost {
        let stands = |subnet: &Subnet| {
            prefixes(subnet).any(|prefix| {
                range.0.contains(&prefix) && !new.address_space.iter().any(|it| it.0.contains(&prefix))
            })
        };
        if let Some((subnet, _)) = new.subnets.iter().find(|(_, subnet)| stands(subnet)) {
            let message = format!(
                "range {} of virtual network {name} holds subnet {subnet} and cannot be removed",
                range.0
            );
            return Err(Refusal::new("Sim.VNET-09", at, message).help("delete the subnet first"));
        }
    }
    Ok(())
}

/// A peering that keeps the VNet's ranges as they are: its own, in any state, or one of another that is Connected with it.
fn holding(config: &Config, name: &str) -> Option<String> {
    config.peerings.iter().find_map(|entry| match entry {
        PeeringEntry::Both(text) => {
            let (one, other) = text.split_once("<->")?;
            (same(one.trim(), name) || same(other.trim(), name)).then(|| text.clone())
        }
        PeeringEntry::One(it) => {
            let stale = it.peering_state == Some(PeeringState::Disconnected);
            let owned = same(&it.from, name);
            let classic = same(&it.to, name) && !stale && back(config, it).is_none();
            (owned || (classic && is_classic(config, name))).then(|| format!("{}/{}", it.from, it.name))
        }
    })
}

fn is_classic(config: &Config, name: &str) -> bool {
    let vnet = position(&config.vnets, name).map(|index| &config.vnets[index]);
    vnet.is_some_and(|it| it.deployment_model == Some(crate::config::DeploymentModel::Classic))
}

/// The peering of the other direction.
fn back<'a>(config: &'a Config, peering: &Peering) -> Option<&'a Peering> {
    let mut objects = config.peerings.iter().filter_map(object);
    objects.find(|it| same(&it.from, &peering.to) && same(&it.to, &peering.from))
}

/// Changes a VNet; peerings to it keep what is peered until they are synchronised (PEER-16, PEER-18).
fn change(
    config: &mut Config,
    name: &str,
    edit: impl FnOnce(&mut Vnet) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    write_out(config, name);
    let before = peered_spaces(config, name);
    if let Some(index) = position(&config.vnets, name) {
        edit(&mut config.vnets[index])?;
    }
    let after: IndexMap<usize, Vec<IpNet>> = peered_spaces(config, name).into_iter().collect();
    for (at, space) in before {
        let peered = object(&config.peerings[at]).is_some_and(|it| {
            it.peering_state == Some(PeeringState::Disconnected)
                || back(config, it).is_some_and(|back| back.peering_state.is_none())
                || is_classic(config, name)
        });
        let now = after.get(&at).cloned().unwrap_or_default();
        if let PeeringEntry::One(peering) = &mut config.peerings[at] {
            if peered && peering.remote_address_space.is_empty() && sorted_nets(&space) != sorted_nets(&now) {
                peering.remote_address_space = space.into_iter().map(Cidr).collect();
            }
            let kept: Vec<IpNet> = peering.remote_address_space.iter().map(|cidr| cidr.0).collect();
            if sorted_nets(&kept) == sorted_nets(&now) {
                peering.remote_address_space.clear();
            }
        }
    }
    Ok(())
}

/// What each peering to the VNet would peer now, by its place in the list.
fn peered_spaces(config: &Config, name: &str) -> Vec<(usize, Vec<IpNet>)> {
    let Some(vnet) = position(&config.vnets, name).map(|index| &config.vnets[index]) else {
        return Vec::new();
    };
    let space = |peering: &Peering| -> Vec<IpNet> {
        if complete(peering) {
            return vnet.address_space.iter().map(|cidr| cidr.0).collect();
        }
        let only_ipv6 = peering.enable_only_ipv6_peering.unwrap_or(false);
        let names = peering.remote_subnet_names.iter();
        let subnets = names.filter_map(|name| section::value(&vnet.subnets, name));
        let ranges = subnets.flat_map(prefixes);
        ranges
            .filter(|prefix| !only_ipv6 || prefix.addr().is_ipv6())
            .collect()
    };
    let objects = config.peerings.iter().enumerate();
    let to_it = objects.filter_map(|(at, entry)| Some((at, object(entry).filter(|it| same(&it.to, name))?)));
    to_it.map(|(at, peering)| (at, space(peering))).collect()
}

fn prefixes(subnet: &Subnet) -> impl Iterator<Item = IpNet> + '_ {
    let all = subnet.address_prefix.iter().chain(&subnet.address_prefixes);
    all.map(|cidr| cidr.0)
}

fn sorted(space: &[Cidr]) -> Vec<IpNet> {
    sorted_nets(&space.iter().map(|cidr| cidr.0).collect::<Vec<_>>())
}

fn sorted_nets(space: &[IpNet]) -> Vec<IpNet> {
    let mut space = space.to_vec();
    space.sort();
    space
}
