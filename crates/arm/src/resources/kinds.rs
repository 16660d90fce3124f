//! The types of resources there are, and what each does with a body.

use model::change::Operation;
use serde_json::{Map, Value};

use super::lab::{Lab, Target};
use super::{
    asgs, connections, gateways, load_balancers, nics, nsgs, public_ips, route_tables, vms, vnets, watchers,
};
use crate::Error;
use crate::id::same;

pub(super) const NETWORK: &str = "Microsoft.Network";
pub(super) const COMPUTE: &str = "Microsoft.Compute";
pub(super) const VNETS: &str = "virtualNetworks";
pub(super) const ROUTE_TABLES: &str = "routeTables";
pub(super) const NSGS: &str = "networkSecurityGroups";
pub(super) const ASGS: &str = "applicationSecurityGroups";
pub(super) const NICS: &str = "networkInterfaces";
pub(super) const BALANCERS: &str = "loadBalancers";
pub(super) const GATEWAYS: &str = "virtualNetworkGateways";
pub(super) const SITES: &str = "localNetworkGateways";
pub(super) const CONNECTIONS: &str = "connections";
pub(super) const VMS: &str = "virtualMachines";
pub(super) const PUBLIC_IPS: &str = "publicIPAddresses";
pub(super) const WATCHERS: &str = "networkWatchers";

type Properties = Map<String, Value>;

/// A type of top-level resource.
pub(super) struct Kind {
    pub(super) provider: &'static str,
    pub(super) name: &'static str,
    /// Properties that the model has, or that follow from it: they are not kept beside it.
    pub(super) owned: &'static [&'static str],
    /// Properties whose entries are resources of their own, at their own paths.
    pub(super) children: &'static [&'static str],
    pub(super) carried_out: By,
}

/// Who carries out what a resource says.
pub(super) enum By {
    /// An object of the lab.
    Model {
        keys: fn(&Lab<'_>) -> Vec<String>,
        show: fn(&Lab<'_>, &str) -> Properties,
        put: fn(&Lab<'_>, &Target<'_>, &Value) -> Result<Vec<Operation>, Error>,
        delete: fn(&Lab<'_>, &str) -> Result<Vec<Operation>, Error>,
    },
    /// It is kept, and objects of the lab refer to it.
    Store {
        show: fn(&Lab<'_>, &str) -> Properties,
        /// May add to the body what the service decides.
        put: fn(&Lab<'_>, &Target<'_>, &mut Value) -> Result<(), Error>,
        delete: fn(&Lab<'_>, &str) -> Result<(), Error>,
    },
    /// It is kept and does nothing; what a user may think it does.
    Nobody(&'static str),
}

static KINDS: &[Kind] = &[
    vnets::KIND,
    route_tables::KIND,
    nsgs::KIND,
    asgs::KIND,
    nics::KIND,
    load_balancers::KIND,
    gateways::KIND,
    gateways::SITE_KIND,
    connections::KIND,
    vms::KIND,
    public_ips::KIND,
    watchers::KIND,
    idle(
        NETWORK,
        "natGateways",
        "no NAT: packets to the Internet keep their addresses",
    ),
    idle(NETWORK, "ddosProtectionPlans", "nothing is protected"),
    idle(NETWORK, "bastionHosts", "use `peerlane shell VM`"),
    idle(NETWORK, "publicIPPrefixes", "no addresses are taken from it"),
    idle(
        NETWORK,
        "expressRouteCircuits",
        "a connection names its circuit by itself",
    ),
    idle(NETWORK, "privateEndpoints", "it has no address"),
    idle(NETWORK, "privateDnsZones", "names are not resolved"),
    idle(NETWORK, "serviceEndpointPolicies", "nothing is filtered by it"),
    idle(
        COMPUTE,
        "disks",
        "a VM is a network namespace, which has no disk of its own",
    ),
    idle(
        COMPUTE,
        "images",
        "a VM is a network namespace, which boots no image",
    ),
    idle(COMPUTE, "availabilitySets", "all VMs run on one machine"),
    idle(COMPUTE, "proximityPlacementGroups", "all VMs run on one machine"),
    idle(
        COMPUTE,
        "sshPublicKeys",
        "nobody logs in: use `peerlane shell VM`",
    ),
    idle(
        "Microsoft.Storage",
        "storageAccounts",
        "nothing can be stored in it",
    ),
    idle(
        "Microsoft.OperationalInsights",
        "workspaces",
        "nothing is collected in it",
    ),
    idle(
        "Microsoft.ManagedIdentity",
        "userAssignedIdentities",
        "nobody can use it",
    ),
];

/// The type of a provider; None: there is none of this name.
pub(super) fn of(provider: &str, name: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|kind| same(kind.provider, provider) && same(kind.name, name))
}

/// A type of Microsoft.Network, or virtualMachines.
pub(super) fn network(name: &str) -> Option<&'static Kind> {
    of(NETWORK, name).or_else(|| of(COMPUTE, name))
}

pub(super) fn all() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter()
}

const fn idle(provider: &'static str, name: &'static str, instead: &'static str) -> Kind {
    Kind {
        provider,
        name,
        owned: &[],
        children: &[],
        carried_out: By::Nobody(instead),
    }
}

impl Kind {
    /// Objects of the lab, not only kept.
    pub(super) fn modelled(&self) -> bool {
        matches!(self.carried_out, By::Model { .. })
    }

    pub(super) fn keys(&self, lab: &Lab<'_>) -> Vec<String> {
        match &self.carried_out {
            By::Model { keys, .. } => keys(lab),
            By::Store { .. } | By::Nobody(_) => {
                let own = |key: &&String| {
                    let mut parts = key.split('/').skip(1);
                    parts.next().is_some_and(|it| same(it, self.provider))
                        && parts.next().is_some_and(|it| same(it, self.name))
                        && parts.count() == 1
                };
                let mut keys: Vec<String> = lab.config.resources.keys().filter(own).cloned().collect();
                if self.name == WATCHERS {
                    keys.extend(watchers::of_regions(lab, &keys));
                }
                keys
            }
        }
    }

    /// The properties that follow from the lab.
    pub(super) fn show(&self, lab: &Lab<'_>, key: &str) -> Properties {
        match &self.carried_out {
            By::Model { show, .. } | By::Store { show, .. } => show(lab, key),
            By::Nobody(_) => Properties::new(),
        }
    }

    /// Such as `Microsoft.Network/virtualNetworks`.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.provider, self.name)
    }
}
