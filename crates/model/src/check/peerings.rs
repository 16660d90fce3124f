//! Peerings: who may be peered with whom, and the state that follows (PEER-*, GW-10, GW-11).

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use crate::check::Scope;
use crate::check::ranges::Sorted;
use crate::check::vnets::MOST_VNETS;
use crate::check::{names, peering_states};
use crate::config::{self, PeeringEntry};
use crate::problems::{Problems, join};
use crate::topology::{Profile, Topology, Vnet};
use crate::words::shown;

/// PEER-25, as normalised names.
const PREVIEW_REGIONS: &[&str] = &[
    "westcentralus",
    "canadacentral",
    "westus2",
    "koreasouth",
    "uksouth",
    "ukwest",
    "canadaeast",
    "southindia",
    "centralindia",
    "westindia",
];

/// PEER-25.
const GLOBAL_FEATURE: &str = "AllowGlobalVnetPeering";

/// Fills `topology.peerings`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let declared = directions(scope, problems);
    let mut so_far = SoFar::new(topology);
    let mut pair_refused = false;
    for one in &declared {
        let refused = refuse(one, topology, &so_far, problems);
        // What forbids `a <-> b` is said once, not again for its way back.
        if !(one.back && pair_refused) {
            let before = problems.len();
            pair(scope, one, topology, problems);
            pair_refused = problems.len() > before;
        }
        flags(one, topology, &so_far, problems);
        if !refused {
            overlaps(one, topology, &mut so_far, problems);
            so_far.add(one);
        }
    }
    peering_states::check(&declared, topology, problems);
}

/// One direction, with its place in the file.
pub(crate) struct Declared {
    pub(crate) at: String,
    /// Written as `a <-> b`: its parts have no places of their own.
    short: bool,
    /// The second direction of a short form.
    back: bool,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) name: String,
    pub(crate) given: config::Peering,
}

impl Declared {
    pub(crate) fn place(&self, property: &str) -> String {
        if self.short {
            self.at.clone()
        } else {
            join(&self.at, property)
        }
    }

    /// `hub/hub-to-spoke1`.
    pub(crate) fn shown(&self, topology: &Topology) -> String {
        format!("{}/{}", topology.vnets[self.from].name, shown(&self.name))
    }
}

/// Both directions of the short form, one of the long one; those whose VNets do not exist are left out.
fn directions(scope: &Scope<'_>, problems: &mut Problems) -> Vec<Declared> {
    let mut declared = Vec::new();
    for (index, entry) in scope.config.peerings.iter().enumerate() {
        let at = format!("peerings.{index}");
        let (from, to, given, short) = match entry {
            PeeringEntry::One(given) => (given.from.as_str(), given.to.as_str(), (**given).clone(), false),
            PeeringEntry::Both(text) => {
                let (from, to) = text.split_once("<->").unwrap_or((text, ""));
                (from.trim(), to.trim(), config::Peering::default(), true)
            }
        };
        if problems.unreadable(&at) {
            continue;
        }
        let place = |property: &str| if short { at.clone() } else { join(&at, property) };
        let ends = (
            scope.vnets.find(from, &place("from"), problems),
            scope.vnets.find(to, &place("to"), problems),
        );
        if let Some(principal) = &given.principal {
            scope.principals.find(principal, &place("as"), problems);
        }
        let (Some(from), Some(to)) = ends else { continue };
        let spelled = |vnet: usize| scope.config.vnets.get_index(vnet).map_or("", |(name, _)| name);
        let automatic = |from: usize, to: usize| format!("{}-to-{}", spelled(from), spelled(to));
        if short {
            let back = Declared {
                at: at.clone(),
                short,
                back: true,
                from: to,
                to: from,
                name: automatic(to, from),
                given: given.clone(),
            };
            declared.push(Declared {
                at,
                short,
                back: false,
                from,
                to,
                name: automatic(from, to),
                given,
            });
            if from != to {
                declared.push(back);
            }
        } else {
            let name = given.name.clone();
            declared.push(Declared {
                at,
                short,
                back: false,
                from,
                to,
                name,
                given,
            });
        }
    }
    declared
}

/// The peerings seen so far, and which VNets overlap at all.
struct SoFar {
    /// Remote VNets of a VNet's own peerings, with the peering's name.
    remotes: Vec<HashMap<usize, String>>,
    names: HashSet<(usize, String)>,
    uses_gateway: HashSet<usize>,
    /// Other VNets that share addresses with a VNet, in file order.
    overlapping: Vec<Vec<usize>>,
    reported: HashSet<(usize, usize)>,
}

impl SoFar {
    fn new(topology: &Topology) -> Self {
        // More VNets are refused, and their pairs would cost the square of their number.
        let count = topology.vnets.len().min(MOST_VNETS);
        let mut pairs = vec![vec![false; count]; count];
        let mut ranges = Vec::new();
        for (index, vnet) in topology.vnets.iter().enumerate().take(count) {
            ranges.extend(
                IpNet::aggregate(&vnet.address_space)
                    .into_iter()
                    .map(|net| (net, index)),
            );
        }
        Sorted::new(ranges).overlaps(|(_, one), (_, other)| {
            pairs[one][other] = true;
            pairs[other][one] = true;
        });
        let row = |row: Vec<bool>| (0..count).filter(|index| row[*index]).collect();
        let mut overlapping: Vec<Vec<usize>> = pairs.into_iter().map(row).collect();
        overlapping.resize(topology.vnets.len(), Vec::new());
        Self {
            remotes: vec![HashMap::new(); topology.vnets.len()],
            names: HashSet::new(),
            uses_gateway: HashSet::new(),
            overlapping,
            reported: HashSet::new(),
        }
    }

    fn add(&mut self, one: &Declared) {
        self.remotes[one.from].insert(one.to, one.name.clone());
        self.names.insert((one.from, one.name.to_lowercase()));
        if one.given.use_remote_gateways == Some(true) {
            self.uses_gateway.insert(one.from);
        }
    }
}

/// PEER-02, PEER-10, PEER-11, PEER-38: true when the peering cannot exist beside those before it.
fn refuse(one: &Declared, topology: &Topology, so_far: &SoFar, problems: &mut Problems) -> bool {
    let (from, to) = (&topology.vnets[one.from].name, &topology.vnets[one.to].name);
    if !one.short {
        names::resource_name(&one.name, &one.place("name"), false, problems);
    } else if one.name.len() > 80 {
        problems
            .error(
                "InvalidResourceName",
                &one.at,
                format!("Resource name {} is invalid.", shown(&one.name)),
            )
            .help("the name made of both VNets is longer than 80 characters: use the long form with a name");
    }
    if one.from == one.to {
        problems
            .error(
                "Sim.PEER-10",
                one.place("to"),
                format!("virtual network {from} cannot be peered with itself"),
            )
            .help("name another VNet");
        return true;
    }
    if so_far.names.contains(&(one.from, one.name.to_lowercase())) {
        problems
            .error(
                "Sim.DuplicateName",
                one.place("name"),
                format!("{from} has a peering '{}' already", one.name),
            )
            .help("rename one of the two");
        return true;
    }
    if let Some(first) = so_far.remotes[one.from].get(&one.to) {
        let message = format!(
            "Peering {from}/{first} already references remote virtual network {to}. Cannot add another peering {} \
             referencing the same remote virtual network.",
            one.shown(topology)
        );
        problems
            .error(
                "AnotherPeeringAlreadyReferencesRemoteVnet",
                one.place("to"),
                message,
            )
            .help("remove one of the two");
        return true;
    }
    let most = match topology.profile {
        Profile::Azure2018 => 50,
        Profile::Azure2025 => 500,
    };
    if so_far.remotes[one.from].len() >= most {
        let message = format!("virtual network {from} cannot have more than {most} peerings");
        problems
            .error("Sim.PEER-38", one.place("from"), message)
            .help("remove peerings, or use another hub");
        return true;
    }
    false
}

/// PEER-25, PEER-29, PEER-30, PEER-34: which two VNets may be peered.
fn pair(scope: &Scope<'_>, one: &Declared, topology: &Topology, problems: &mut Problems) {
    let (from, to) = (&topology.vnets[one.from], &topology.vnets[one.to]);
    let old = topology.profile == Profile::Azure2018;
    let at = one.place("to");
    // `rm <-> classic` is the one object of PEER-31, whichever end comes first.
    if from.classic && (!one.short || to.classic) {
        let message = if to.classic {
            format!(
                "virtual networks {} and {} are both classic and cannot be peered",
                from.name, to.name
            )
        } else {
            format!("classic virtual network {} cannot own a peering", from.name)
        };
        problems
            .error("Sim.PEER-30", &at, message)
            .help("create the peering from a ResourceManager VNet; that one object joins both");
    }
    if cloud(from) != cloud(to) {
        let message = format!(
            "{} ({}) and {} ({}) are in different clouds",
            from.name, from.location, to.name, to.location
        );
        problems
            .error("Sim.PEER-29", &at, message)
            .help("peer VNets of one cloud");
        return;
    }
    if old && from.tenant != to.tenant {
        let message = format!(
            "The client has permission to perform action 'Microsoft.Network/virtualNetworks/peer/action' on scope \
             '{}', however the current tenant '{}' is not authorized to access linked subscription '{}'.",
            one.shown(topology),
            from.tenant,
            to.subscription
        );
        problems
            .error("LinkedAuthorizationFailed", &at, message)
            .help("use a VPN gateway between tenants, or profile azure-2025");
    }
    if !old || from.location == to.location {
        return;
    }
    if let Some(outside) = [from, to]
        .into_iter()
        .find(|vnet| !PREVIEW_REGIONS.contains(&vnet.location.as_str()))
    {
        let message = format!(
            "virtual networks {} ({}) and {} ({}) are in different regions, and {} is not in the preview of global peering",
            from.name, from.location, to.name, to.location, outside.location
        );
        problems.error("Sim.PEER-25", &at, message).help(format!(
            "use one region, one of {}, or profile azure-2025",
            PREVIEW_REGIONS.join(", ")
        ));
    } else if !registered(scope, one.from) {
        let message = format!(
            "virtual networks {} ({}) and {} ({}) are in different regions, and the subscription of {} is not \
             registered for global peering",
            from.name, from.location, to.name, to.location, from.name
        );
        problems.error("Sim.PEER-25", &at, message).help(format!(
            "add {GLOBAL_FEATURE} to 'registeredFeatures' of the VNet's subscription"
        ));
    }
}

/// The cloud a region belongs to (PEER-29).
fn cloud(vnet: &Vnet) -> &'static str {
    let location = &vnet.location;
    if location.starts_with("china") {
        "China"
    } else if location.starts_with("usgov") || location.starts_with("usdod") {
        "Government"
    } else {
        "public"
    }
}

fn registered(scope: &Scope<'_>, vnet: usize) -> bool {
    let declared = scope
        .config
        .vnets
        .get_index(vnet)
        .and_then(|(_, vnet)| vnet.subscription.as_ref());
    declared
        .and_then(|name| scope.subscriptions.position(name))
        .and_then(|index| scope.config.subscriptions.get_index(index))
        .is_some_and(|(_, it)| {
            it.registered_features
                .iter()
                .any(|f| f.eq_ignore_ascii_case(GLOBAL_FEATURE))
        })
}

/// PEER-26, PEER-27, GW-10, GW-11: the gateway flags.
fn flags(one: &Declared, topology: &Topology, so_far: &SoFar, problems: &mut Problems) {
    let (from, to) = (&topology.vnets[one.from], &topology.vnets[one.to]);
    let uses = one.given.use_remote_gateways == Some(true);
    let transit = one.given.allow_gateway_transit == Some(true);
    let flag = if uses {
        "useRemoteGateways"
    } else {
        "allowGatewayTransit"
    };
    if one.from == one.to || !(uses || transit) {
        return;
    }
    if topology.profile == Profile::Azure2018 && from.location != to.location {
        let message = format!(
            "peering {} joins two regions and cannot have {flag}",
            one.shown(topology)
        );
        problems
            .error("Sim.PEER-26", one.place(flag), message)
            .help(format!("remove '{flag}'"));
    } else if topology.profile == Profile::Azure2018 && from.classic != to.classic {
        let message = format!(
            "peering {} joins two deployment models and cannot have {flag}",
            one.shown(topology)
        );
        problems
            .error("Sim.PEER-27", one.place(flag), message)
            .help(format!("remove '{flag}'"));
    } else if uses && so_far.uses_gateway.contains(&one.from) {
        let message = format!("{} uses the gateway of another peer already", from.name);
        problems
            .error("Sim.GW-11", one.place(flag), message)
            .help("keep useRemoteGateways on one peering");
    } else if uses {
        let message = format!(
            "Peering {} cannot have UseRemoteGateway flag set to true because remote virtual network {} referenced \
             by the peering does not have any gateways.",
            one.shown(topology),
            to.name
        );
        problems
            .error("RemoteVnetHasNoGateways", one.place(flag), message)
            .help("remove 'useRemoteGateways'");
    }
}

/// PEER-13, PEER-14: once for a pair of VNets.
fn overlaps(one: &Declared, topology: &Topology, so_far: &mut SoFar, problems: &mut Problems) {
    if so_far
        .reported
        .contains(&(one.from.min(one.to), one.from.max(one.to)))
    {
        return;
    }
    let name = |vnet: usize| topology.vnets[vnet].name.as_str();
    let head = format!("Cannot create or update peering {}.", one.shown(topology));
    let (from, to) = (one.from, one.to);
    let message = if so_far.overlapping[from].binary_search(&to).is_ok() {
        let list = shared(topology, from, to);
        let message = format!(
            "{head} Virtual networks {} and {} cannot be peered because their address spaces overlap. Overlapping \
             address prefixes: {list}",
            name(from),
            name(to)
        );
        ("VnetAddressSpacesOverlap", message)
    } else {
        let third = |near: usize, far: usize| {
            so_far.overlapping[near]
                .iter()
                .copied()
                .find(|it| *it != far && so_far.remotes[far].contains_key(it))
        };
        let (ours, third, which, peered) = if let Some(third) = third(from, to) {
            (from, third, "first", "second")
        } else if let Some(third) = third(to, from) {
            (to, third, "second", "first")
        } else {
            return;
        };
        let message = format!(
            "{head} Virtual networks {} and {} cannot be peered because address space of the {which} virtual network \
             overlaps with address space of virtual network {} already peered with the {peered} virtual network. \
             Overlapping address prefixes: {}.",
            name(from),
            name(to),
            name(third),
            shared(topology, ours, third)
        );
        ("VnetAddressSpaceOverlapsWithAlreadyPeeredVnet", message)
    };
    so_far.reported.insert((from.min(to), from.max(to)));
    problems.error(message.0, one.place("to"), message.1).help(
        "give the VNets disjoint address spaces; peered VNets, and peers of one VNet, must not overlap",
    );
}

/// The first few pairs of overlapping ranges.
fn shared(topology: &Topology, one: usize, other: usize) -> String {
    const MOST: usize = 4; // enough to see the mistake
    let of = |vnet: usize| {
        topology.vnets[vnet]
            .address_space
            .iter()
            .map(move |net| (*net, vnet))
    };
    let mut pairs = Vec::new();
    Sorted::new(of(one).chain(of(other)).collect()).nearest_overlaps(|(outer, owner), (inner, _)| {
        if pairs.len() < MOST {
            pairs.push(if owner == one {
                format!("{outer}, {inner}")
            } else {
                format!("{inner}, {outer}")
            });
        }
    });
    pairs.join("; ")
}
