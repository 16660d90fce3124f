//! Peerings: what is declared, and what cannot exist beside what else is (PEER-02, PEER-10, PEER-11, PEER-38).

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use crate::access;
use crate::check::peering_overlaps::Overlaps;
use crate::check::{Scope, names, peering_pairs, peering_states, peering_subnets};
use crate::config::{self, PeeringEntry};
use crate::keys::name_of;
use crate::limits::Limit;
use crate::problems::{Problems, join};
use crate::topology::{OrphanedPeering, PeeredSubnets, Topology, VnetIndex};
use crate::words::shown;

/// Fills `topology.peerings` and `topology.orphaned_peerings`.
pub(crate) fn check(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) {
    let mut declared = directions(scope, topology, problems);
    for one in &mut declared {
        one.subnets = peering_subnets::resolve(scope, one, topology, problems);
    }
    let mut so_far = SoFar::new(topology);
    let mut overlaps = Overlaps::new(topology);
    let mut pair_refused = false;
    for one in &declared {
        let refused = refuse(scope, one, topology, &so_far, problems);
        // What forbids `a <-> b` is said once, not again for its way back.
        if !(one.back && pair_refused) {
            let before = problems.len();
            peering_pairs::pair(scope, one, topology, problems);
            pair_refused = problems.len() > before;
        }
        peering_pairs::flags(scope, one, &declared, topology, &so_far, problems);
        if !refused {
            overlaps.check(one, topology, problems);
            overlaps.add(one, topology);
            so_far.add(one);
        }
    }
    peering_states::check(&declared, topology, problems);
}

/// One direction, with its place in the file.
pub(crate) struct Declared {
    pub(crate) at: String,
    /// Written as `a <-> b`: its parts have no places of their own.
    pub(crate) short: bool,
    /// The second direction of a short form.
    back: bool,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) name: String,
    pub(crate) given: config::Peering,
    /// PEER-40.
    pub(crate) subnets: Option<PeeredSubnets>,
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

    /// What is peered where it is not what the remote VNet has now (PEER-18).
    pub(crate) fn stale_space(&self) -> Vec<IpNet> {
        self.given
            .remote_address_space
            .iter()
            .map(|cidr| cidr.0)
            .collect()
    }

    pub(crate) fn disconnected(&self) -> bool {
        self.given.peering_state == Some(config::PeeringState::Disconnected)
    }
}

/// Both directions of the short form, one of the long one. Those whose VNets do not exist are left out; a Disconnected
/// one may have lost its remote VNet.
fn directions(scope: &Scope<'_>, topology: &mut Topology, problems: &mut Problems) -> Vec<Declared> {
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
        let from = scope.vnets.find(from, &place("from"), problems);
        let principal = given.principal.as_ref();
        let principal = principal.filter(|it| scope.principals.find(it, &place("as"), problems).is_some());
        let stale = given.peering_state == Some(config::PeeringState::Disconnected);
        if stale && scope.vnets.position(to).is_none() {
            if let Some(from) = from {
                topology.orphaned_peerings.push(orphaned(from, &given));
            }
            continue;
        }
        let to = scope.vnets.find(to, &place("to"), problems);
        let (Some(from), Some(to)) = (from, to) else {
            continue;
        };
        if let Err(refusal) = access::authorize_peering(
            scope.config,
            principal.map(String::as_str),
            &given.name,
            &given.from,
            &given.to,
        ) {
            let problem = problems.error(refusal.code, place("as"), refusal.message);
            problem.help(refusal.help.unwrap_or_default());
        }
        let spelled = |vnet: usize| scope.config.vnets.get_index(vnet).map_or("", |(name, _)| name);
        let one = |from: usize, to: usize, back: bool| Declared {
            at: at.clone(),
            short,
            back,
            from,
            to,
            name: if short {
                format!("{}-to-{}", name_of(spelled(from)), name_of(spelled(to)))
            } else {
                given.name.clone()
            },
            given: given.clone(),
            subnets: None,
        };
        declared.push(one(from, to, false));
        if short && from != to {
            declared.push(one(to, from, true));
        }
    }
    declared
}

/// PEER-05: what the deletion of a VNet leaves behind.
fn orphaned(from: usize, given: &config::Peering) -> OrphanedPeering {
    OrphanedPeering {
        name: given.name.clone(),
        from: VnetIndex(from),
        to: given.to.clone(),
        allow_virtual_network_access: given.allow_virtual_network_access.unwrap_or(true),
        allow_forwarded_traffic: given.allow_forwarded_traffic.unwrap_or(false),
        allow_gateway_transit: given.allow_gateway_transit.unwrap_or(false),
        use_remote_gateways: given.use_remote_gateways.unwrap_or(false),
        remote_address_space: given.remote_address_space.iter().map(|cidr| cidr.0).collect(),
    }
}

/// The peerings seen so far.
pub(crate) struct SoFar {
    /// Remote VNets of a VNet's own peerings, with the peering's name.
    remotes: Vec<HashMap<usize, String>>,
    names: HashSet<(usize, String)>,
    pub(crate) uses_gateway: HashSet<usize>,
    /// Own peerings of each VNet, orphaned ones included.
    counts: Vec<usize>,
}

impl SoFar {
    fn new(topology: &Topology) -> Self {
        let mut so_far = Self {
            remotes: vec![HashMap::new(); topology.vnets.len()],
            names: HashSet::new(),
            uses_gateway: HashSet::new(),
            counts: vec![0; topology.vnets.len()],
        };
        for orphan in &topology.orphaned_peerings {
            so_far.names.insert((orphan.from.0, orphan.name.to_lowercase()));
            so_far.counts[orphan.from.0] += 1;
        }
        so_far
    }

    fn add(&mut self, one: &Declared) {
        self.remotes[one.from].insert(one.to, one.name.clone());
        self.names.insert((one.from, one.name.to_lowercase()));
        self.counts[one.from] += 1;
        if one.given.use_remote_gateways == Some(true) {
            self.uses_gateway.insert(one.from);
        }
    }
}

/// PEER-02, PEER-10, PEER-11, PEER-38: true when the peering cannot exist beside those before it.
fn refuse(
    scope: &Scope<'_>,
    one: &Declared,
    topology: &Topology,
    so_far: &SoFar,
    problems: &mut Problems,
) -> bool {
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
    let most = scope.limits.most(Limit::Peerings);
    if so_far.counts[one.from] >= most {
        let message = format!("virtual network {from} cannot have more than {most} peerings");
        problems
            .error(Limit::Peerings.code(), one.place("from"), message)
            .help("remove peerings, or use another hub");
        return true;
    }
    false
}
