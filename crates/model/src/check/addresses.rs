//! Private addresses of NICs: the declared ones checked, the others the lowest free (VNET-03, VNET-10, NET-10).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::check::ranges;
use crate::limits::{Limit, Limits};
use crate::problems::{Problems, join};
use crate::topology::{NicIndex, PeeringState, Topology, VnetIndex};

/// What the file says of one NIC's addresses, and where.
pub(crate) struct Wish {
    pub(crate) nic: NicIndex,
    pub(crate) at: String,
    pub(crate) name_at: String,
    pub(crate) name_on_key: bool,
    pub(crate) addresses_at: String,
    /// Given as `privateIPAddress`, not as a list.
    pub(crate) single: bool,
    /// Empty: the lowest free ones.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Gives every NIC its addresses: all static ones first, then the others in file order, none of them one of `frontends`.
pub(crate) fn allocate(
    limits: Limits<'_>,
    wishes: &[Wish],
    frontends: HashSet<(VnetIndex, IpAddr)>,
    topology: &mut Topology,
    problems: &mut Problems,
) {
    let mut pool = Pool {
        frontends,
        ..Pool::default()
    };
    for wish in wishes.iter().filter(|wish| !wish.addresses.is_empty()) {
        declared(wish, topology, &mut pool, problems);
    }
    for wish in wishes.iter().filter(|wish| wish.addresses.is_empty()) {
        lowest_free(wish, topology, &mut pool, problems);
    }
    let most = limits.most(Limit::NicAddresses);
    for wish in wishes.iter().filter(|wish| wish.addresses.len() > most) {
        let message = format!("a NIC has at most {most} addresses");
        problems.error(Limit::NicAddresses.code(), &wish.addresses_at, message);
    }
    counts(limits, &pool, topology, problems);
}

/// VNET-10: addresses of a VNet, and of a VNet with its peers; NICs.
fn counts(limits: Limits<'_>, pool: &Pool, topology: &Topology, problems: &mut Problems) {
    let (most, together) = (
        limits.most(Limit::PrivateAddresses),
        limits.most(Limit::PeeredAddresses),
    );
    let held = |vnet: VnetIndex| pool.counts.get(&vnet).copied().unwrap_or(0);
    let mut grouped: Vec<usize> = (0..topology.vnets.len())
        .map(|vnet| held(VnetIndex(vnet)))
        .collect();
    for peering in topology
        .peerings
        .iter()
        .filter(|it| it.state == PeeringState::Connected)
    {
        grouped[peering.from.0] += held(peering.to);
    }
    for (index, vnet) in topology.vnets.iter().enumerate() {
        let at = join("vnets", &vnet.name);
        if held(VnetIndex(index)) > most {
            let message = format!("VNet '{}' holds more than {most} private addresses", vnet.name);
            problems
                .error(Limit::PrivateAddresses.code(), at, message)
                .on_key();
        } else if grouped[index] > together {
            let message = format!(
                "VNet '{}' and its peers hold more than {together} private addresses",
                vnet.name
            );
            problems
                .error(Limit::PeeredAddresses.code(), at, message)
                .on_key();
        }
    }
    let most = limits.most(Limit::Nics);
    if topology.nics.len() > most {
        let message = format!("a subscription holds at most {most} NICs");
        problems.error(Limit::Nics.code(), "vms", message).on_key();
    }
}

/// The addresses given so far.
#[derive(Default)]
struct Pool {
    owners: HashMap<(VnetIndex, IpAddr), NicIndex>,
    /// Declared addresses of load balancers.
    frontends: HashSet<(VnetIndex, IpAddr)>,
    counts: HashMap<VnetIndex, usize>,
    /// Where the search for a free address in a subnet's prefix goes on: all below are taken.
    next: HashMap<(VnetIndex, IpNet), u128>,
}

impl Pool {
    /// The NIC that has it already.
    fn take(&mut self, vnet: VnetIndex, address: IpAddr, nic: NicIndex) -> Option<NicIndex> {
        if let Some(owner) = self.owners.get(&(vnet, address)) {
            return Some(*owner);
        }
        self.owners.insert((vnet, address), nic);
        *self.counts.entry(vnet).or_default() += 1;
        None
    }

    fn lowest(&mut self, vnet: VnetIndex, prefix: IpNet) -> Option<IpAddr> {
        let (first, last) = ranges::usable(prefix)?;
        let next = self.next.entry((vnet, prefix)).or_insert(first);
        while *next <= last {
            let address = ranges::address(*next, prefix);
            *next += 1;
            let taken =
                self.owners.contains_key(&(vnet, address)) || self.frontends.contains(&(vnet, address));
            if !taken {
                return Some(address);
            }
        }
        None
    }
}

fn declared(wish: &Wish, topology: &mut Topology, pool: &mut Pool, problems: &mut Problems) {
    let nic = &topology.nics[wish.nic.0];
    let subnet = &topology.subnets[nic.subnet.0];
    let vnet = &topology.vnets[subnet.vnet.0];
    let readable = !problems.unreadable(&join("vnets", &vnet.name));
    let mut seen = HashSet::new();
    for (index, address) in wish.addresses.iter().enumerate() {
        let at = if wish.single {
            wish.addresses_at.clone()
        } else {
            join(&wish.addresses_at, &index.to_string())
        };
        let Some(prefix) = subnet.prefixes.iter().find(|prefix| prefix.contains(address)) else {
            if readable {
                let message = format!(
                    "Private static IP address {address} does not belong to the range of subnet {}/{}.",
                    vnet.name, subnet.name
                );
                let ranges = subnet
                    .prefixes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                problems
                    .error("PrivateIPAddressNotInSubnet", at, message)
                    .help(format!("the subnet is {ranges}"));
            }
            continue;
        };
        let number = ranges::number(*address);
        if !ranges::usable(*prefix).is_some_and(|(first, last)| (first..=last).contains(&number)) {
            let message = format!(
                "Private static IP address {address} falls within reserved IP range of subnet prefix {prefix}."
            );
            problems
                .error("PrivateIPAddressInReservedRange", at, message)
                .help("the first four addresses and the last of a subnet are Azure's own");
        } else if !seen.insert(address) {
            let message = format!("the address {address} is given twice");
            problems
                .error("PrivateIPAddressIsAllocated", at, message)
                .help("remove one of the two");
        } else if let Some(owner) = pool.take(subnet.vnet, *address, wish.nic) {
            let owner = &topology.nics[owner.0].name;
            let message = format!(
                "IP configuration of NIC '{}' is using the private IP address {address} which is already allocated to NIC '{owner}'.",
                nic.name
            );
            problems
                .error("PrivateIPAddressIsAllocated", at, message)
                .help("give one of the two another address");
        }
    }
    if !wish.addresses.iter().any(IpAddr::is_ipv4) {
        problems
            .error(
                "Sim.NET-10",
                &wish.addresses_at,
                "a NIC needs an IPv4 address beside its IPv6 one",
            )
            .help("add an IPv4 address of the subnet");
    }
    topology.nics[wish.nic.0].addresses.clone_from(&wish.addresses);
}

/// One address of each family the subnet has.
fn lowest_free(wish: &Wish, topology: &mut Topology, pool: &mut Pool, problems: &mut Problems) {
    let nic = &topology.nics[wish.nic.0];
    let subnet = &topology.subnets[nic.subnet.0];
    let vnet = &topology.vnets[subnet.vnet.0];
    if problems.unreadable(&join("vnets", &vnet.name)) {
        return;
    }
    let mut addresses = Vec::new();
    for ipv4 in [true, false] {
        let mut prefixes = subnet
            .prefixes
            .iter()
            .filter(|prefix| prefix.addr().is_ipv4() == ipv4)
            .peekable();
        if prefixes.peek().is_none() {
            continue;
        }
        if let Some(address) = prefixes.find_map(|prefix| pool.lowest(subnet.vnet, *prefix)) {
            pool.take(subnet.vnet, address, wish.nic);
            addresses.push(address);
        } else {
            let message = format!(
                "Subnet {} with address prefix {} does not have enough capacity for 1 IP addresses.",
                subnet.name,
                subnet
                    .prefixes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            problems
                .error("SubnetIsFull", join(&wish.at, "subnet"), message)
                .help("use a larger subnet, or another one");
        }
    }
    topology.nics[wish.nic.0].addresses = addresses;
}
