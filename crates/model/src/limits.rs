//! How many of what there may be, as data: VNET-10, PEER-38, PEER-40, NSG-34, ROUTE-34.

use indexmap::IndexMap;

use crate::topology::Profile;

macro_rules! limits {
    ($($(#[doc = $doc:literal])* $limit:ident = $name:literal, $rule:literal, $old:expr, $new:expr;)+) => {
        /// A number Azure allows at most.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Limit { $($(#[doc = $doc])* $limit,)+ }

        impl Limit {
            pub(crate) const ALL: &[Self] = &[$(Self::$limit),+];

            /// Its name in `settings.limits`.
            #[must_use]
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$limit => $name,)+ }
            }

            /// The code of the refusal, `Sim.` and the rule.
            #[must_use]
            pub(crate) const fn code(self) -> &'static str {
                match self { $(Self::$limit => concat!("Sim.", $rule),)+ }
            }

            /// What a subscription starts with, and what support raises it to.
            #[must_use]
            pub(crate) const fn numbers(self, profile: Profile) -> [u64; 2] {
                match (self, profile) {
                    $((Self::$limit, Profile::Azure2018) => $old, (Self::$limit, Profile::Azure2025) => $new,)+
                }
            }
        }
    };
}

limits! {
    /// Of one subscription; its refusal has a code of its own.
    VirtualNetworks = "virtualNetworks", "VNET-10", [50, 1000], [1000, 1000];
    Subnets = "subnetsPerVirtualNetwork", "VNET-10", [1000, 10_000], [3000, 3000];
    PrivateAddresses = "privateIPAddressesPerVirtualNetwork", "VNET-10", [4096, 8192], [65_536, 65_536];
    /// Of a VNet and its peers. Azure-2018 documents none.
    PeeredAddresses = "privateIPAddressesPerPeeredVirtualNetworks", "VNET-10", [u64::MAX, u64::MAX], [128_000, 128_000];
    NicAddresses = "privateIPAddressesPerNetworkInterface", "VNET-10", [256, 256], [256, 256];
    /// Azure-2025 documents none.
    Nics = "networkInterfaces", "VNET-10", [350, 20_000], [u64::MAX, u64::MAX];
    /// More is for the hubs of a network manager.
    Peerings = "peeringsPerVirtualNetwork", "PEER-38", [10, 50], [500, 1000];
    PeeredSubnets = "subnetsPerPeering", "PEER-40", [200, 200], [200, 200];
    Nsgs = "networkSecurityGroups", "NSG-34", [100, 5000], [5000, 5000];
    Rules = "rulesPerNetworkSecurityGroup", "NSG-34", [200, 1000], [1000, 1000];
    RuleAddresses = "addressesPerRuleField", "NSG-34", [4000, 4000], [4000, 4000];
    Asgs = "applicationSecurityGroups", "NSG-34", [3000, 3000], [3000, 3000];
    NicAsgs = "applicationSecurityGroupsPerNetworkInterface", "NSG-34", [20, 20], [20, 20];
    RuleAsgs = "applicationSecurityGroupsPerRuleField", "NSG-34", [10, 10], [10, 10];
    NsgAsgs = "applicationSecurityGroupsPerNetworkSecurityGroup", "NSG-34", [100, 100], [100, 100];
    RouteTables = "routeTables", "ROUTE-34", [100, 200], [200, 200];
    Routes = "routesPerRouteTable", "ROUTE-34", [100, 400], [400, 400];
}

/// The limits of one lab.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    pub(crate) profile: Profile,
    pub(crate) given: &'a IndexMap<String, u64>,
}

impl Limits<'_> {
    /// As `settings.limits` says; else, of azure-2018, what support raises it to, as such a lab is a grown one, and of azure-2025
    /// what a subscription starts with.
    pub(crate) fn most(&self, limit: Limit) -> usize {
        let [first, raised] = limit.numbers(self.profile);
        let usual = match self.profile {
            Profile::Azure2018 => raised,
            Profile::Azure2025 => first,
        };
        let most = self.given.get(limit.name()).copied().unwrap_or(usual);
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}
