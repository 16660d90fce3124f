//! The routes of one kernel table of a namespace, read and watched by netlink: how a routing daemon says what it learned.

use std::net::Ipv4Addr;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use ipnet::Ipv4Net;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::runtime;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::error::{Attempt, Result};
use crate::namespace::Namespace;

/// Watches the IPv4 routes of a table. It ends when this is dropped.
#[derive(Debug)]
pub struct RouteWatch {
    netlink: Handle,
    table: u32,
    changes: Arc<Notify>,
    tasks: [AbortHandle; 3],
}

/// A unicast route of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableRoute {
    pub prefix: Ipv4Net,
    /// More than one where the prefix has several ways of equal cost.
    pub next_hops: Vec<Ipv4Addr>,
}

impl RouteWatch {
    /// Begins to watch a table, which need not exist yet. Call it inside a runtime, which then does the work.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or netlink not be spoken there.
    pub fn open(namespace: &Namespace, table: u32) -> Result<Self> {
        let runtime = runtime::Handle::current();
        // A socket belongs to the namespace of the thread that makes it, whoever reads it later. The kernel drops what does
        // not fit one, so answers have a socket of their own.
        let opened = namespace.run(|| {
            let _inside = runtime.enter();
            let news = rtnetlink::new_multicast_connection(&[MulticastGroup::Ipv4Route])?;
            Ok((news, rtnetlink::new_connection()?))
        })?;
        let opened: std::io::Result<_> = opened;
        let ((news, _, mut messages), (connection, netlink, _)) =
            opened.attempt(|| "watch routes".to_owned())?;
        let changes = Arc::new(Notify::new());
        let noticed = Arc::clone(&changes);
        let hearing = runtime.spawn(news);
        let speaking = runtime.spawn(connection);
        // What has changed is read from the table: so a message that got lost, or came while nobody looked, costs nothing.
        let listening = runtime.spawn(async move {
            while messages.next().await.is_some() {
                noticed.notify_one();
            }
            noticed.notify_one();
        });
        Ok(Self {
            netlink,
            table,
            changes,
            tasks: [hearing, speaking, listening].map(|task| task.abort_handle()),
        })
    }

    /// Waits until a route of the namespace has changed since the last call.
    pub async fn changed(&self) {
        self.changes.notified().await;
    }

    /// The unicast routes of the table, sorted.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn routes(&self) -> Result<Vec<TableRoute>> {
        let mut routes: Vec<TableRoute> = self.dump().await?.iter().filter_map(unicast).collect();
        routes.sort_unstable();
        Ok(routes)
    }

    /// Empties the table: for whoever can no longer do it.
    ///
    /// # Errors
    /// The route that cannot be removed.
    pub async fn flush(&self) -> Result<()> {
        for route in self.dump().await? {
            let removed = self.netlink.route().del(route).execute().await;
            removed.attempt(|| format!("empty route table {}", self.table))?;
        }
        Ok(())
    }

    async fn dump(&self) -> Result<Vec<RouteMessage>> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = self.netlink.route().get(all).execute();
        let ours = routes.try_filter(|route| std::future::ready(table_of(route) == self.table));
        let ours: std::result::Result<Vec<RouteMessage>, _> = ours.try_collect().await;
        ours.attempt(|| format!("read route table {}", self.table))
    }
}

impl Drop for RouteWatch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The attribute has room for numbers above 255.
fn table_of(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| u32::from(route.header.table))
}

/// None for what carries no packet anywhere, as a blackhole.
fn unicast(route: &RouteMessage) -> Option<TableRoute> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut next_hops = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::MultiPath(hops) => {
                next_hops.extend(hops.iter().flat_map(|hop| &hop.attributes).filter_map(gateway));
            }
            other => next_hops.extend(gateway(other)),
        }
    }
    next_hops.sort_unstable();
    Some(TableRoute {
        prefix: destination(route)?,
        next_hops,
    })
}

/// A default route has no such attribute.
pub(crate) fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    Ipv4Net::new(address, route.header.destination_prefix_length).ok()
}

fn gateway(attribute: &RouteAttribute) -> Option<Ipv4Addr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    }
}
