//! Part of step 6: which backend of an internal load balancer a flow goes to (LB-01, LB-02, LB-07).
//! Reads: frontends and their rules, the health of backends, the flow key. Writes: nothing.
//! Ends with: `NoBackend`.
//!
//! The choice is a hash without a secret: whoever knows the tables knows the backend, `explain` among others. It is the
//! same for a flow and its reverse, so that an appliance with one NIC, between two subnets whose routes both lead to the
//! frontend, sees both directions (LB-03).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use packet::{FlowKey, Protocol};

use crate::hash::spread;
use crate::reason::DropReason;
use crate::rewrite::Rewrite;
use crate::route::{Hop, deliver};
use crate::snapshot::{FrontendId, NicId, PeeringId, Snapshot, VnetId};

/// An address of an internal load balancer.
#[derive(Clone, Debug)]
pub struct Frontend {
    pub vnet: VnetId,
    /// In 128-bit form.
    pub address: u128,
    /// PEER-28: peerings over which it cannot be reached, sorted.
    pub out_of_reach: Vec<PeeringId>,
    /// At most one takes a given packet.
    pub rules: Vec<Rule>,
}

/// A load balancing rule and the pool behind it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// None: TCP and UDP (HA ports, LB-03).
    pub protocol: Option<Protocol>,
    /// Of the frontend; 0: every port.
    pub port: u16,
    /// 0: the same as the packet's.
    pub backend_port: u16,
    pub distribution: Distribution,
    /// LB-04: neither address nor port is rewritten.
    pub floating: bool,
    /// LB-07: established TCP flows outlive the last healthy backend (Standard).
    pub keeps_tcp: bool,
    /// LB-09: how long a quiet TCP flow keeps its backend.
    pub idle_minutes: u8,
    pub backends: Vec<Backend>,
}

#[derive(Clone, Copy, Debug)]
pub struct Backend {
    pub nic: NicId,
    /// What the destination becomes.
    pub address: u128,
    /// Where its health stands; None: it is not probed and counts as healthy.
    pub health: Option<HealthId>,
}

/// What of a flow chooses the backend (LB-02).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    FiveTuple,
    SourceIp,
    SourceIpProtocol,
}

/// Position in [`Health`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthId(pub u32);

/// Which probed backends are up.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<[AtomicBool]>);

/// Which rule of which frontend sent a packet where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balanced {
    pub frontend: FrontendId,
    /// Position in [`Frontend::rules`].
    pub rule: u16,
}

impl Health {
    #[must_use]
    pub fn new(up: impl IntoIterator<Item = bool>) -> Self {
        Self(up.into_iter().map(AtomicBool::new).collect())
    }

    #[must_use]
    pub fn is_up(&self, id: HealthId) -> bool {
        self.0
            .get(id.0 as usize)
            .is_some_and(|up| up.load(Ordering::Relaxed))
    }

    /// Every snapshot that shares this table sees it from its next decision on; cached ones end within a tick.
    pub fn set(&self, id: HealthId, up: bool) {
        if let Some(place) = self.0.get(id.0 as usize) {
            place.store(up, Ordering::Relaxed);
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Snapshot {
    /// The frontend with this address in a VNet.
    #[must_use]
    pub fn frontend_of(&self, vnet: VnetId, address: u128) -> Option<FrontendId> {
        let index = &self.frontend_index;
        let at = index.binary_search_by_key(&(vnet, address), |&(vnet, address, _)| (vnet, address));
        at.ok().map(|at| index[at].2)
    }
}

/// Where an address of a VNet that is no NIC's leads: to a backend, if it is a frontend. `keep` is the NIC the flow
/// went to so far.
///
/// # Errors
/// `NoDestination`: nobody has the address, or it is out of reach over this peering (PEER-28); `NoBackend`.
pub fn to_frontend(
    snapshot: &Snapshot,
    vnet: VnetId,
    peering: Option<PeeringId>,
    key: &FlowKey,
    keep: Option<NicId>,
) -> Result<Hop, DropReason> {
    let id = snapshot
        .frontend_of(vnet, key.destination)
        .ok_or(DropReason::NoDestination)?;
    let frontend = &snapshot.frontends[id.index()];
    if peering.is_some_and(|peering| frontend.out_of_reach.binary_search(&peering).is_ok()) {
        return Err(DropReason::NoDestination);
    }
    let (rule, at, backend) = choose(snapshot, frontend, key, keep)?;
    let rewrite = if rule.floating {
        Rewrite::default()
    } else {
        Rewrite {
            destination: Some(backend.address),
            destination_port: (rule.backend_port != 0).then_some(rule.backend_port),
            ..Rewrite::default()
        }
    };
    Ok(hop(snapshot, id, at, backend, peering, rewrite))
}

/// A frontend as next hop of a route: the packet goes to an appliance behind it as it is (ROUTE-19).
///
/// # Errors
/// `NoBackend`.
pub fn through_frontend(
    snapshot: &Snapshot,
    id: FrontendId,
    peering: Option<PeeringId>,
    key: &FlowKey,
    keep: Option<NicId>,
) -> Result<Hop, DropReason> {
    let frontend = &snapshot.frontends[id.index()];
    let (_, at, backend) = choose(snapshot, frontend, key, keep)?;
    Ok(hop(snapshot, id, at, backend, peering, Rewrite::default()))
}

impl Snapshot {
    /// LB-09: of the rule that balanced a packet.
    pub(crate) fn idle_minutes(&self, balanced: Balanced) -> u8 {
        let rules = &self.frontends[balanced.frontend.index()].rules;
        rules[usize::from(balanced.rule)].idle_minutes
    }
}

impl Hop {
    /// The same packet at every backend where its flow may have been so far, if it is a balanced one.
    pub(crate) fn at_backends<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        key: &'a FlowKey,
    ) -> impl Iterator<Item = Self> + 'a {
        let rule = self
            .balanced
            .map(|it| &snapshot.frontends[it.frontend.index()].rules[usize::from(it.rule)]);
        let backends = rule.into_iter().flat_map(move |rule| {
            let all = rule.backends.iter();
            all.filter(move |backend| rule.keeps(&snapshot.health, key, backend))
        });
        backends.map(move |backend| Self {
            to: Some(backend.nic),
            port: deliver(snapshot, backend.nic, self.peering).port,
            rewrite: Rewrite {
                destination: self.rewrite.destination.map(|_| backend.address),
                ..self.rewrite
            },
            ..*self
        })
    }

    /// What the replies to a balanced packet get: the source they are expected from. None where nothing is rewritten.
    #[must_use]
    pub fn answer(&self, key: &FlowKey) -> Option<Rewrite> {
        self.balanced?;
        self.rewrite.destination?;
        Some(Rewrite {
            source: Some(key.destination),
            source_port: self.rewrite.destination_port.map(|_| key.destination_port),
            ..Rewrite::default()
        })
    }
}

fn hop(
    snapshot: &Snapshot,
    frontend: FrontendId,
    rule: u16,
    backend: Backend,
    peering: Option<PeeringId>,
    rewrite: Rewrite,
) -> Hop {
    Hop {
        rewrite,
        balanced: Some(Balanced { frontend, rule }),
        ..deliver(snapshot, backend.nic, peering)
    }
}

fn choose<'a>(
    snapshot: &Snapshot,
    frontend: &'a Frontend,
    key: &FlowKey,
    keep: Option<NicId>,
) -> Result<(&'a Rule, u16, Backend), DropReason> {
    let mut rules = (0..).zip(&frontend.rules);
    let (at, rule) = rules
        .find(|(_, rule)| rule.takes(key))
        .ok_or(DropReason::NoBackend)?;
    let backend = rule
        .backend(&snapshot.health, key, keep)
        .ok_or(DropReason::NoBackend)?;
    Ok((rule, at, backend))
}

impl Rule {
    fn takes(&self, key: &FlowKey) -> bool {
        let protocol = match self.protocol {
            Some(only) => key.protocol == only,
            None => key.protocol == Protocol::TCP || key.protocol == Protocol::UDP,
        };
        protocol && (self.port == 0 || self.port == key.destination_port)
    }

    /// A flow stays where it is while that backend is up; when it goes down, TCP stays and all else moves, and when
    /// the last one is down TCP goes on in a Standard balancer of several backends alone (LB-07). A new flow goes
    /// where its hash says, among those that are up.
    fn backend(&self, health: &Health, key: &FlowKey, keep: Option<NicId>) -> Option<Backend> {
        let is_up = |backend: &&Backend| backend.health.is_none_or(|id| health.is_up(id));
        let up = self.backends.iter().filter(is_up).count();
        let kept = keep.and_then(|keep| self.backends.iter().find(|backend| backend.nic == keep));
        if let Some(kept) = kept.filter(|kept| self.keeps(health, key, kept)) {
            return Some(*kept);
        }
        let at = scale(self.distribution.hash(key), up);
        self.backends.iter().filter(is_up).nth(at).copied()
    }

    /// Whether a flow that went to this backend so far stays there.
    fn keeps(&self, health: &Health, key: &FlowKey, kept: &Backend) -> bool {
        let is_up = |backend: &Backend| backend.health.is_none_or(|id| health.is_up(id));
        let survives = || self.backends.iter().any(is_up) || (self.keeps_tcp && self.backends.len() > 1);
        is_up(kept) || (key.protocol == Protocol::TCP && survives())
    }
}

impl Distribution {
    /// The same for both directions of a flow.
    fn hash(self, key: &FlowKey) -> u64 {
        let ends = [
            self.end(key.source, key.source_port),
            self.end(key.destination, key.destination_port),
        ];
        let protocol = match self {
            Self::SourceIp => 0,
            Self::FiveTuple | Self::SourceIpProtocol => u64::from(key.protocol.0) + 1,
        };
        // Both ends weigh alike, and equal ends do not cancel out.
        spread(
            spread(ends[0].wrapping_add(ends[1]))
                ^ spread(ends[0] ^ ends[1]).rotate_left(17)
                ^ spread(protocol),
        )
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves go in")]
    fn end(self, address: u128, port: u16) -> u64 {
        let address = spread(address as u64 ^ spread((address >> 64) as u64));
        match self {
            Self::FiveTuple => spread(address ^ u64::from(port)),
            Self::SourceIp | Self::SourceIpProtocol => address,
        }
    }
}

/// A hash as a position below `count`, each as likely.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the product's upper half is below the count"
)]
fn scale(hash: u64, count: usize) -> usize {
    ((u128::from(hash) * count as u128) >> 64) as usize
}
