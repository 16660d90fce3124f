//! Checks what was declared against the rules of Azure, and resolves it into a `Topology`.

use crate::config::Config;
use crate::problems::Problems;
use crate::topology::{ForwardedSemantics, Profile, Settings, Topology};

/// The result is of use only when no problem was recorded.
pub(crate) fn check(config: &Config, _problems: &mut Problems) -> Topology {
    let settings = config.settings.clone().unwrap_or_default();
    Topology {
        name: config.name.clone(),
        resource_group: config
            .resource_group
            .clone()
            .unwrap_or_else(|| config.name.clone()),
        profile: match config.profile {
            Some(crate::config::Profile::Azure2025) => Profile::Azure2025,
            _ => Profile::Azure2018,
        },
        settings: Settings {
            forwarded_semantics: match settings.forwarded_semantics {
                Some(crate::config::ForwardedSemantics::Tag) => ForwardedSemantics::Tag,
                _ => ForwardedSemantics::Drop,
            },
            tag_includes_default_route: settings.tag_includes_default_route.unwrap_or(true),
            none_routes: settings
                .none_routes
                .map(|list| list.into_iter().map(|cidr| cidr.0).collect()),
            fabric_mtu: settings.fabric_mtu,
        },
        vnets: Vec::new(),
        subnets: Vec::new(),
        peerings: Vec::new(),
        route_tables: Vec::new(),
        nsgs: Vec::new(),
        asgs: Vec::new(),
        nics: Vec::new(),
        vms: Vec::new(),
        internet: None,
        tests: Vec::new(),
    }
}
