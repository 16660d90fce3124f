//! Which two VNets may be peered, and with which gateway flags: PEER-25..27, PEER-29, PEER-30, PEER-34, GW-09..11.

use crate::check::peerings::{Declared, SoFar};
use crate::check::{Scope, gateways};
use crate::problems::Problems;
use crate::topology::{Profile, Topology, Vnet};

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

/// PEER-25, PEER-29, PEER-30, PEER-34: which two VNets may be peered.
pub(crate) fn pair(scope: &Scope<'_>, one: &Declared, topology: &Topology, problems: &mut Problems) {
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

/// PEER-26, PEER-27, GW-09, GW-10, GW-11: the gateway flags.
pub(crate) fn flags(
    scope: &Scope<'_>,
    one: &Declared,
    declared: &[Declared],
    topology: &Topology,
    so_far: &SoFar,
    problems: &mut Problems,
) {
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
    let shown = one.shown(topology);
    let old = topology.profile == Profile::Azure2018;
    let reverse = declared
        .iter()
        .find(|other| (other.from, other.to) == (one.to, one.from));
    let no_transit = reverse.is_some_and(|back| back.given.allow_gateway_transit != Some(true));
    let (code, message, help) = if old && from.location != to.location {
        let message = format!("peering {shown} joins two regions and cannot have {flag}");
        ("Sim.PEER-26", message, format!("remove '{flag}'"))
    } else if old && from.classic != to.classic {
        let message = format!("peering {shown} joins two deployment models and cannot have {flag}");
        ("Sim.PEER-27", message, format!("remove '{flag}'"))
    } else if !uses {
        return;
    } else if to.classic {
        let message = format!(
            "the gateway of classic virtual network {} cannot be used from afar",
            to.name
        );
        let help = "transit between the models needs the gateway in the ResourceManager VNet";
        ("Sim.PEER-27", message, help.to_owned())
    } else if so_far.uses_gateway.contains(&one.from) {
        let message = format!("{} uses the gateway of another peer already", from.name);
        (
            "Sim.GW-11",
            message,
            "keep useRemoteGateways on one peering".to_owned(),
        )
    } else if gateways::stands_in(scope, one.from) {
        let message = format!(
            "{} has a gateway of its own and cannot use a remote one",
            from.name
        );
        let help = "a VNet has one gateway, local or remote: remove 'useRemoteGateways' or the gateway";
        ("Sim.GW-09", message, help.to_owned())
    } else if !gateways::stands_in(scope, one.to) {
        let message = format!(
            "Peering {shown} cannot have UseRemoteGateway flag set to true because remote virtual network {} referenced \
             by the peering does not have any gateways.",
            to.name
        );
        let help = format!("remove 'useRemoteGateways', or give {} a gateway", to.name);
        ("RemoteVnetHasNoGateways", message, help)
    } else if no_transit {
        let message = format!(
            "Peering {shown} cannot have UseRemoteGateways flag set to true, because corresponding remote peering has \
             AllowGatewayTransit flag set to false."
        );
        let help = format!("set 'allowGatewayTransit: true' on the peering of {}", to.name);
        ("Sim.GW-10", message, help)
    } else {
        return;
    };
    problems.error(code, one.place(flag), message).help(help);
}
