//! What of one compilation the next may use again: each piece stands beside everything it was made of, and serves where that
//! is equal. So the tables are the same with pieces and without, only sooner.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use engine::fib::{self, Fib, NextHop};
use engine::filter::Filter;
use ipnet::IpNet;
use model::Topology;
use model::service_tags::ServiceTags;
use model::topology::{AsgIndex, Direction, Nsg, NsgIndex, PeeringIndex, Udr};

use super::tables::origin;
use super::{RuleOrigin, prefix};
use crate::platform::exemptions;
use crate::rib::{Rib, Route, Scope};
use crate::rules::{self, asg_members, engine_rule, ordered};
use crate::tags::Tags;

/// Of one compilation, and not more than it used.
#[derive(Clone, Default)]
pub struct Pieces(Arc<Kept>);

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) inputs: Inputs,
    /// By VNet.
    pub(super) places: HashMap<String, Vec<Arc<Meaning>>>,
    pub(super) filters: HashMap<FilterKey, FilterPiece>,
}

/// What many pieces are made of, each held once: where it is equal to what it was before, it is the same in memory.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    services: ServiceTags,
    /// The routes of route tables, with the tables' names.
    tables: Vec<(String, Arc<[Udr]>)>,
    nsgs: Vec<(String, Arc<Nsg>)>,
    members: Arc<Vec<Vec<IpAddr>>>,
}

/// What a place means for packets and rules.
#[derive(Debug)]
pub(super) struct Meaning {
    /// What it follows from, with the peerings as [`Scope::relative`] names them; and the service tags.
    scope: Scope,
    services: ServiceTags,
    winners: Vec<Route>,
    /// Its routes lead nowhere yet.
    pub(super) fib: Fib,
    pub(super) internet_by_default: bool,
    tags: OnceLock<Tags>,
}

/// All that a filter is made of, as the addresses of what [`Inputs`] and `places` hold, which live as long as the filter does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FilterKey {
    pub(super) nsg: usize,
    pub(super) direction: Direction,
    pub(super) place: usize,
    /// Of the ASGs that the rules' near sides name, those the NIC is in.
    pub(super) member_of: Vec<AsgIndex>,
    /// 0 where the rules name no ASG.
    pub(super) members: usize,
}

#[derive(Clone, Debug)]
pub(super) struct FilterPiece {
    pub(super) filter: Filter,
    pub(super) rules: Arc<[RuleOrigin]>,
    /// Of the rules.
    pub(super) hash: u64,
}

impl Pieces {
    pub(super) fn new(kept: Kept) -> Self {
        Self(Arc::new(kept))
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.0
    }
}

impl Pieces {
    /// The VNets all of whose routes, tags and filters these have from `other`, by name: for who wants to know what a
    /// change costs.
    #[must_use]
    pub fn shared_with(&self, other: &Self) -> Vec<&str> {
        let known = |meaning: &Arc<Meaning>| {
            let before = other.0.places.values().flatten();
            before.into_iter().any(|it| Arc::ptr_eq(it, meaning))
        };
        let places = self.0.places.iter();
        let shared = places.filter(|(_, meanings)| meanings.iter().all(known));
        let mut names: Vec<&str> = shared.map(|(vnet, _)| vnet.as_str()).collect();
        names.sort_unstable();
        names
    }
}

/// What they hold stands in the tables too.
impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").finish_non_exhaustive()
    }
}

impl Inputs {
    /// Those of a topology, the same in memory where they were in `before`.
    pub(super) fn of(topology: &Topology, before: &Self) -> Self {
        let tables = topology.route_tables.iter();
        let tables = tables.map(|table| (&table.name, &table.routes[..]));
        let nsgs = topology.nsgs.iter().map(|nsg| (&nsg.name, nsg));
        let members = asg_members(topology);
        Self {
            services: topology.service_tags.clone(),
            tables: same(&before.tables, tables, |routes| routes.into()),
            nsgs: same(&before.nsgs, nsgs, |nsg| Arc::new(nsg.clone())),
            members: if members == *before.members {
                Arc::clone(&before.members)
            } else {
                Arc::new(members)
            },
        }
    }

    pub(super) fn user_routes(&self) -> Vec<Arc<[Udr]>> {
        self.tables.iter().map(|(_, routes)| Arc::clone(routes)).collect()
    }

    pub(super) fn nsg(&self, NsgIndex(nsg): NsgIndex) -> usize {
        Arc::as_ptr(&self.nsgs[nsg].1) as usize
    }

    pub(super) fn members(&self) -> &[Vec<IpAddr>] {
        &self.members
    }

    pub(super) fn members_address(&self) -> usize {
        Arc::as_ptr(&self.members) as usize
    }

    pub(super) fn services(&self) -> &ServiceTags {
        &self.services
    }
}

impl Meaning {
    /// The piece of `before` that was made of the same, else a new one.
    pub(super) fn of(scope: Scope, services: &ServiceTags, before: &[Arc<Self>]) -> Arc<Self> {
        let known = before
            .iter()
            .find(|known| known.scope == scope && known.services == *services);
        known.map_or_else(|| Arc::new(Self::new(scope, services)), Arc::clone)
    }

    fn new(scope: Scope, services: &ServiceTags) -> Self {
        let rib = Rib::new(&scope);
        // An IPv6 prefix inside IPv4's own part of the 128-bit space matches no IPv6 packet.
        let winners = rib.winners().into_iter().filter(|route| !is_mapped(route.prefix));
        let winners: Vec<Route> = winners.cloned().collect();
        let nowhere = |route: &Route| fib::Route {
            prefix: prefix(route.prefix),
            next_hop: NextHop::None,
        };
        Self {
            fib: Fib::compile(winners.iter().map(nowhere).collect()),
            internet_by_default: rib.internet_by_default(),
            winners,
            services: services.clone(),
            tags: OnceLock::new(),
            scope,
        }
    }

    /// The routes that win, with the VNet's own peerings in place of their positions.
    pub(super) fn routes(&self, own: &[PeeringIndex]) -> Vec<Route> {
        let absolute = |PeeringIndex(at): PeeringIndex| own.get(at).copied();
        let route = |route: &Route| Route {
            peering: route.peering.and_then(absolute),
            gateway: route.gateway.map(|mut used| {
                used.over = used.over.and_then(absolute);
                used
            }),
            ..route.clone()
        };
        self.winners.iter().map(route).collect()
    }

    /// Where a NIC is in these ASGs.
    pub(super) fn place<'a>(
        &'a self,
        members: &'a [Vec<IpAddr>],
        member_of: &'a [AsgIndex],
    ) -> rules::Place<'a> {
        let tags = || Tags::in_scope(&self.scope, self.services.clone());
        rules::Place {
            tags: self.tags.get_or_init(tags),
            members,
            member_of,
            internet_by_default: self.internet_by_default,
        }
    }
}

impl FilterPiece {
    pub(super) fn of(nsg: &Nsg, direction: Direction, place: &rules::Place<'_>) -> Self {
        let rules = ordered(nsg, direction);
        let own = rules
            .iter()
            .map(|named| (named.name.clone(), engine_rule(&named.rule, place)));
        let all = exemptions(direction, &rules, place).into_iter().chain(own);
        let (names, compiled): (Vec<_>, Vec<_>) = all
            .map(|(name, rule)| (origin(nsg.name.clone(), name), rule))
            .unzip();
        let mut hasher = DefaultHasher::new();
        compiled.hash(&mut hasher);
        Self {
            hash: hasher.finish(),
            filter: Filter::compile(compiled),
            rules: names.into(),
        }
    }
}

/// In file order: the one of `before` with this name where it is equal, else a new one.
fn same<'a, T: ?Sized + PartialEq + 'a>(
    before: &[(String, Arc<T>)],
    now: impl Iterator<Item = (&'a String, &'a T)>,
    new: impl Fn(&T) -> Arc<T>,
) -> Vec<(String, Arc<T>)> {
    let before: HashMap<&str, &Arc<T>> = before.iter().map(|(name, it)| (name.as_str(), it)).collect();
    now.map(|(name, it)| match before.get(name.as_str()) {
        Some(&known) if **known == *it => (name.clone(), Arc::clone(known)),
        _ => (name.clone(), new(it)),
    })
    .collect()
}

fn is_mapped(net: IpNet) -> bool {
    net.prefix_len() >= 96 && matches!(net, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some())
}
