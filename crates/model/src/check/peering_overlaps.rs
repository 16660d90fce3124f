//! Address spaces that stand in the way of a peering: PEER-13, PEER-14, and PEER-40 for peered subnets.

use std::collections::HashSet;

use ipnet::IpNet;

use crate::check::peerings::Declared;
use crate::check::ranges::Sorted;
use crate::check::vnets::MOST_VNETS_OF_A_LAB;
use crate::problems::Problems;
use crate::topology::{SubnetIndex, Topology, VnetIndex};

/// The address spaces of all VNets, and what is peered with each of them so far.
pub(crate) struct Overlaps {
    /// Of each VNet: disjoint, in order.
    spaces: Vec<Vec<IpNet>>,
    /// Other VNets that share addresses with a VNet, in file order.
    overlapping: Vec<Vec<usize>>,
    peered: Vec<Vec<Peered>>,
    reported: HashSet<(usize, usize)>,
}

/// What a VNet has peered.
struct Peered {
    /// The remote VNet; None: it is gone.
    vnet: Option<usize>,
    name: String,
    /// Disjoint, in order; None: all of the remote VNet's space, and nothing else.
    ranges: Option<Vec<IpNet>>,
}

impl Overlaps {
    pub(crate) fn new(topology: &Topology) -> Self {
        let spaces: Vec<Vec<IpNet>> = topology
            .vnets
            .iter()
            .map(|vnet| IpNet::aggregate(&vnet.address_space))
            .collect();
        // More VNets are refused, and their pairs would cost the square of their number.
        let count = topology.vnets.len().min(MOST_VNETS_OF_A_LAB);
        let mut pairs = vec![vec![false; count]; count];
        let known = spaces.iter().enumerate().take(count);
        let ranges = known.flat_map(|(index, space)| space.iter().map(move |net| (*net, index)));
        Sorted::new(ranges.collect()).overlaps(|(_, one), (_, other)| {
            pairs[one][other] = true;
            pairs[other][one] = true;
        });
        let row = |row: Vec<bool>| (0..count).filter(|index| row[*index]).collect();
        let mut overlapping: Vec<Vec<usize>> = pairs.into_iter().map(row).collect();
        overlapping.resize(topology.vnets.len(), Vec::new());
        let mut peered: Vec<Vec<Peered>> = topology.vnets.iter().map(|_| Vec::new()).collect();
        for orphan in &topology.orphaned_peerings {
            peered[orphan.from.0].push(Peered {
                vnet: None,
                name: orphan.to.clone(),
                ranges: Some(IpNet::aggregate(&orphan.remote_address_space)),
            });
        }
        Self {
            spaces,
            overlapping,
            peered,
            reported: HashSet::new(),
        }
    }

    /// Counts the peering among those that others must not collide with.
    pub(crate) fn add(&mut self, one: &Declared, topology: &Topology) {
        let stale = one.stale_space();
        let ranges = match &one.subnets {
            Some(subnets) => Some([ranges_of(topology, &subnets.remote, subnets.only_ipv6), stale].concat()),
            None if stale.is_empty() => None,
            None => Some([topology.vnets[one.to].address_space.clone(), stale].concat()),
        };
        let remote = &topology.vnets[one.to];
        self.peered[one.from].push(Peered {
            vnet: Some(one.to),
            name: remote.name.clone(),
            ranges: ranges.map(|ranges| IpNet::aggregate(&ranges)),
        });
        // PEER-31: the one object of a classic VNet speaks for both.
        if remote.classic {
            self.peered[one.to].push(Peered {
                vnet: Some(one.from),
                name: topology.vnets[one.from].name.clone(),
                ranges: None,
            });
        }
    }

    /// Once for a pair of VNets.
    pub(crate) fn check(&mut self, one: &Declared, topology: &Topology, problems: &mut Problems) {
        let pair = (one.from.min(one.to), one.from.max(one.to));
        if self.reported.contains(&pair) {
            return;
        }
        let Some((code, message)) = self.conflict(one, topology) else {
            return;
        };
        self.reported.insert(pair);
        let help = if one.subnets.is_some() {
            "peer subnets of ranges that neither the other VNet nor its peers have"
        } else {
            "give the VNets disjoint address spaces; peered VNets, and peers of one VNet, must not overlap"
        };
        problems.error(code, one.place("to"), message).help(help);
    }

    fn conflict(&self, one: &Declared, topology: &Topology) -> Option<(&'static str, String)> {
        let name = |vnet: usize| topology.vnets[vnet].name.as_str();
        let head = format!("Cannot create or update peering {}.", one.shown(topology));
        let (from, to) = (one.from, one.to);
        let list = self.between(one, topology);
        if !list.is_empty() {
            let message = format!(
                "{head} Virtual networks {} and {} cannot be peered because their address spaces overlap. Overlapping \
                 address prefixes: {}",
                name(from),
                name(to),
                shown(&list)
            );
            return Some(("VnetAddressSpacesOverlap", message));
        }
        let ours = self.side(one, topology, true);
        let theirs = self.side(one, topology, false);
        let (third, list, which, peered) = if let Some((third, list)) = self.third(&ours, from, to) {
            (third, list, "first", "second")
        } else if let Some((third, list)) = self.third(&theirs, to, from) {
            (third, list, "second", "first")
        } else {
            return None;
        };
        let message = format!(
            "{head} Virtual networks {} and {} cannot be peered because address space of the {which} virtual network \
             overlaps with address space of virtual network {third} already peered with the {peered} virtual network. \
             Overlapping address prefixes: {}.",
            name(from),
            name(to),
            shown(&list)
        );
        Some(("VnetAddressSpaceOverlapsWithAlreadyPeeredVnet", message))
    }

    /// PEER-13: ranges of the two VNets that overlap. PEER-40: only those that peered subnets lie in count, against all of the other VNet.
    fn between(&self, one: &Declared, topology: &Topology) -> Vec<(IpNet, IpNet)> {
        let (ours, theirs) = (
            &topology.vnets[one.from].address_space,
            &topology.vnets[one.to].address_space,
        );
        let Some(subnets) = &one.subnets else {
            let mut list = Vec::new();
            if self.overlapping[one.from].binary_search(&one.to).is_ok() {
                list = shared(ours, &self.spaces[one.to]);
            }
            list.extend(
                shared(&one.stale_space(), &self.spaces[one.from])
                    .iter()
                    .map(|(a, b)| (*b, *a)),
            );
            return list;
        };
        let around = |space: &[IpNet], names: &[SubnetIndex]| -> Vec<IpNet> {
            let inside = ranges_of(topology, names, subnets.only_ipv6);
            let holds = |range: &&IpNet| inside.iter().any(|prefix| range.contains(prefix));
            space.iter().filter(holds).copied().collect()
        };
        let mut list = shared(&around(ours, &subnets.local), &self.spaces[one.to]);
        list.extend(
            shared(&around(theirs, &subnets.remote), &self.spaces[one.from])
                .iter()
                .map(|(a, b)| (*b, *a)),
        );
        list
    }

    /// What the peering joins, of its owner or of the remote VNet. None: the whole VNet.
    fn side(&self, one: &Declared, topology: &Topology, local: bool) -> Option<Vec<IpNet>> {
        let subnets = one.subnets.as_ref()?;
        let names = if local { &subnets.local } else { &subnets.remote };
        Some(ranges_of(topology, names, subnets.only_ipv6))
    }

    /// PEER-14: a VNet peered with `far` that collides with what `near` brings, and where.
    fn third(
        &self,
        brings: &Option<Vec<IpNet>>,
        near: usize,
        far: usize,
    ) -> Option<(String, Vec<(IpNet, IpNet)>)> {
        let others = self.peered[far].iter().filter(|peered| peered.vnet != Some(near));
        for peered in others {
            let list = match (brings, &peered.ranges, peered.vnet) {
                (None, None, Some(vnet)) if self.overlapping[near].binary_search(&vnet).is_err() => continue,
                (None, Some(ranges), _) => shared(ranges, &self.spaces[near])
                    .iter()
                    .map(|(a, b)| (*b, *a))
                    .collect(),
                (None, None, Some(vnet)) => shared(&self.spaces[near], &self.spaces[vnet]),
                (Some(brings), Some(ranges), _) => shared(brings, ranges),
                (Some(brings), None, Some(vnet)) => shared(brings, &self.spaces[vnet]),
                (_, None, None) => continue,
            };
            if !list.is_empty() {
                return Some((peered.name.clone(), list));
            }
        }
        None
    }
}

/// The ranges of subnets that a subnet peering joins (PEER-40).
pub(crate) fn ranges_of(topology: &Topology, subnets: &[SubnetIndex], only_ipv6: bool) -> Vec<IpNet> {
    let prefixes = subnets
        .iter()
        .flat_map(|subnet| &topology.subnets[subnet.0].prefixes);
    prefixes
        .filter(|prefix| !only_ipv6 || prefix.addr().is_ipv6())
        .copied()
        .collect()
}

/// What a peering peers now, seen from its owner (PEER-18).
pub(crate) fn current_space(one: &Declared, topology: &Topology) -> Vec<IpNet> {
    match &one.subnets {
        Some(subnets) => ranges_of(topology, &subnets.remote, subnets.only_ipv6),
        None => topology.vnets[VnetIndex(one.to).0].address_space.clone(),
    }
}

/// Pairs of overlapping ranges, the first few: enough to see the mistake. `disjoint` is in order.
fn shared(ranges: &[IpNet], disjoint: &[IpNet]) -> Vec<(IpNet, IpNet)> {
    const MOST: usize = 4;
    let mut pairs = Vec::new();
    for net in ranges {
        let after = disjoint.partition_point(|other| other.addr() < net.addr());
        let around = disjoint
            .iter()
            .skip(after.saturating_sub(1))
            .take_while(|other| other.addr() <= net.broadcast() || other.contains(net));
        let overlapping = around.filter(|other| other.contains(net) || net.contains(*other));
        pairs.extend(overlapping.take(MOST).map(|other| (*net, *other)));
        if pairs.len() >= MOST {
            break;
        }
    }
    pairs.truncate(MOST);
    pairs
}

fn shown(pairs: &[(IpNet, IpNet)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(one, other)| format!("{one}, {other}"))
        .collect();
    pairs.join("; ")
}
