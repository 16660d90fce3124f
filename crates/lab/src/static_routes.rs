//! A site's routes: what it answers for, and the ways to what its gateways lead to.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::error::{Attempt, Result};
use crate::network::{interface_index, with_netlink};
use crate::route_watch::destination;

/// Marks our routes, so that those of the site's own programs are left alone. Not taken in iproute2's rt_protos.
const OURS: RouteProtocol = RouteProtocol::Other(0x70);

/// The kernel's table of own addresses.
const LOCAL_TABLE: u32 = 255;

/// Makes the namespace of the calling thread send the prefixes through the interfaces, and nothing else that an earlier
/// call said. Run it inside by `Namespace::run`.
///
/// # Errors
/// The interface that does not exist, or the route the kernel refused; what was done before it stays.
pub fn set(routes: &[(String, Vec<Ipv4Net>)]) -> Result<()> {
    let mut wanted = HashMap::new();
    for (interface, prefixes) in routes {
        let index = interface_index(interface)?;
        wanted.extend(prefixes.iter().map(|prefix| (prefix.trunc(), index)));
    }
    with_netlink(async |netlink| {
        let mut present = HashSet::new();
        for (prefix, index, route) in ours(&netlink).await? {
            if wanted.get(&prefix) == Some(&index) {
                present.insert(prefix);
                continue;
            }
            let removed = netlink.route().del(route).execute().await;
            removed.attempt(|| format!("remove the route to {prefix}"))?;
        }
        for (prefix, index) in wanted.iter().filter(|(prefix, _)| !present.contains(prefix)) {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(prefix.network(), prefix.prefix_len())
                .output_interface(*index)
                .scope(RouteScope::Link)
                .protocol(OURS)
                .build();
            let added = netlink.route().add(route).replace().execute().await;
            added.attempt(|| format!("add a route to {prefix}"))?;
        }
        Ok(())
    })
}

/// Makes every address of the prefixes the namespace's own, as those of an interface are. In a namespace without rules
/// of its own the kernel looks up local and other routes together, so that a longer route still leads away.
pub(crate) async fn own(netlink: &Handle, prefixes: &[IpNet]) -> Result<()> {
    let lo = interface_index("lo")?;
    let ipv4 = prefixes.iter().filter_map(|prefix| match prefix {
        IpNet::V4(prefix) => Some(prefix.trunc()),
        IpNet::V6(_) => None,
    });
    // One that an interface has as its address is there already; all of them would leave no way out.
    for prefix in ipv4.filter(|prefix| (1..32).contains(&prefix.prefix_len())) {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(prefix.network(), prefix.prefix_len())
            .output_interface(lo)
            .table_id(LOCAL_TABLE)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .build();
        let added = netlink.route().add(route).replace().execute().await;
        added.attempt(|| format!("make {prefix} the namespace's own"))?;
    }
    Ok(())
}

async fn ours(netlink: &Handle) -> Result<Vec<(Ipv4Net, u32, RouteMessage)>> {
    let all = netlink
        .route()
        .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
        .execute();
    let all: std::result::Result<Vec<RouteMessage>, _> = all.try_collect().await;
    let all = all.attempt(|| "read the routes".to_owned())?;
    let ours = all.into_iter().filter(|route| route.header.protocol == OURS);
    let parts = ours.filter_map(|route| {
        let index = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        Some((destination(&route)?, index.unwrap_or_default(), route))
    });
    Ok(parts.collect())
}
