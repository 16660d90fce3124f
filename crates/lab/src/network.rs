//! Addresses, links, routes, rules and sysctls of a namespace, by netlink and /proc.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use crate::error::{Attempt, Result};
use crate::source_routing;
use crate::spec::{InterfaceSpec, NamespaceSpec, Place};
use crate::static_routes;
use crate::sysctl;

/// Makes the namespace of the calling thread what `spec` says: run it inside by `Namespace::run`, once its
/// interfaces exist. May be repeated. In a namespace that is not the lab's only the spec's interfaces are touched.
///
/// # Errors
/// What the kernel refused. Nothing is taken back: a namespace of the lab goes with the lab, for others there is
/// [`unconfigure`].
pub fn configure(spec: &NamespaceSpec) -> Result<()> {
    let mut interfaces = Vec::new();
    for interface in &spec.interfaces {
        interfaces.push((interface, interface_index(&interface.name)?));
    }
    with_netlink(async |netlink| {
        for (interface, index) in &interfaces {
            // Azure carries no multicast. Off before anything else, so that no group is joined and reported.
            let link = LinkUnspec::new_with_index(*index).multicast(false).build();
            let set = netlink.link().set(link).execute().await;
            set.attempt(|| format!("set up {}", interface.name))?;
        }
        sysctl::set_namespace(spec)?;
        if spec.place == Place::Lab {
            let lo = LinkUnspec::new_with_index(interface_index("lo")?).up().build();
            netlink
                .link()
                .set(lo)
                .execute()
                .await
                .attempt(|| "set up lo".to_owned())?;
        }
        if spec.stopped {
            return set_down(&netlink, spec).await;
        }
        for (interface, index) in interfaces {
            sysctl::set_interface(interface)?;
            configure_interface(&netlink, interface, index).await?;
        }
        static_routes::own(&netlink, &spec.own_prefixes).await
    })
}

/// Takes back what [`configure`] did and the end of the interfaces does not: rules in a namespace that is not the
/// lab's. Run it inside, before or after they are gone. May be repeated.
///
/// # Errors
/// The request the kernel refused.
pub fn unconfigure(spec: &NamespaceSpec) -> Result<()> {
    if spec.place == Place::Lab {
        return Ok(());
    }
    with_netlink(async |netlink| {
        for interface in spec
            .interfaces
            .iter()
            .filter(|interface| interface.source_routing)
        {
            source_routing::remove(&netlink, interface).await?;
        }
        Ok(())
    })
}

/// Takes back what [`configure`] did for `old` and `new` has no more: addresses, their rules, default routes. Run it
/// inside, once `new` is configured. Interfaces that `new` has not at all are left to whoever closes them.
///
/// # Errors
/// The request the kernel refused.
pub fn withdraw(old: &NamespaceSpec, new: &NamespaceSpec) -> Result<()> {
    with_netlink(async |netlink| {
        for after in &new.interfaces {
            let Some(before) = old.interfaces.iter().find(|before| before.name == after.name) else {
                continue;
            };
            let addresses = before.addresses.iter().copied();
            let gone: Vec<IpNet> = addresses.filter(|it| !after.addresses.contains(it)).collect();
            if !gone.is_empty() {
                remove_addresses(&netlink, after, &gone).await?;
            }
        }
        Ok(())
    })
}

/// Takes the interfaces of a stopped VM down, and with them its routes. Run it inside.
///
/// # Errors
/// The request the kernel refused.
pub fn stop(spec: &NamespaceSpec) -> Result<()> {
    with_netlink(async |netlink| set_down(&netlink, spec).await)
}

async fn set_down(netlink: &Handle, spec: &NamespaceSpec) -> Result<()> {
    for interface in &spec.interfaces {
        let link = LinkUnspec::new_with_index(interface_index(&interface.name)?).down();
        let set = netlink.link().set(link.build()).execute().await;
        set.attempt(|| format!("take down {}", interface.name))?;
    }
    Ok(())
}

async fn remove_addresses(netlink: &Handle, interface: &InterfaceSpec, gone: &[IpNet]) -> Result<()> {
    let index = interface_index(&interface.name)?;
    // Or the kernel takes the other addresses of a subnet with its first one.
    sysctl::promote_secondaries(&interface.name)?;
    if interface.source_routing {
        let sources: Vec<IpAddr> = gone.iter().map(IpNet::addr).collect();
        source_routing::remove_sources(netlink, &sources).await?;
    }
    let cannot = || format!("read the addresses of {}", interface.name);
    let present = netlink.address().get().set_link_index_filter(index).execute();
    let present: Vec<AddressMessage> = present.try_collect().await.attempt(cannot)?;
    for message in present {
        let own = message.attributes.iter().any(|attribute| match attribute {
            AddressAttribute::Address(address) => gone
                .iter()
                .any(|it| it.addr() == *address && it.prefix_len() == message.header.prefix_len),
            _ => false,
        });
        if own {
            let deleted = netlink.address().del(message).execute().await;
            deleted.attempt(|| format!("remove an address of {}", interface.name))?;
        }
    }
    Ok(())
}

/// A default route without a gateway, in the main table unless given another.
pub(crate) fn default_route(ipv4: bool, index: u32, table: Option<u32>) -> RouteMessage {
    if ipv4 {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(index)
            .scope(RouteScope::Link);
        return table
            .into_iter()
            .fold(route, RouteMessageBuilder::table_id)
            .build();
    }
    let route = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index);
    table
        .into_iter()
        .fold(route, RouteMessageBuilder::table_id)
        .build()
}

async fn configure_interface(netlink: &Handle, interface: &InterfaceSpec, index: u32) -> Result<()> {
    let name = &interface.name;
    let link = LinkUnspec::new_with_index(index)
        .mtu(interface.mtu)
        .txqueuelen(interface.tx_queue_length);
    netlink
        .link()
        .set(link.up().build())
        .execute()
        .await
        .attempt(|| format!("set up {name}"))?;
    for address in &interface.addresses {
        let mut request = netlink
            .address()
            .add(index, address.addr(), address.prefix_len())
            .replace();
        if address.addr().is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request
            .execute()
            .await
            .attempt(|| format!("add {address} to {name}"))?;
    }
    if interface.default_route {
        for ipv4 in families(interface) {
            let route = default_route(ipv4, index, None);
            let added = netlink.route().add(route).replace().execute().await;
            added.attempt(|| format!("add the default route of {name}"))?;
        }
    }
    if interface.source_routing {
        source_routing::add(netlink, interface, index).await?;
    }
    Ok(())
}

/// IPv4 (true) and IPv6 (false) as far as the interface has them.
pub(crate) fn families(interface: &InterfaceSpec) -> impl Iterator<Item = bool> + use<> {
    let ipv4 = interface
        .addresses
        .iter()
        .any(|address| matches!(address, IpNet::V4(_)));
    [ipv4.then_some(true), interface.ipv6.then_some(false)]
        .into_iter()
        .flatten()
}

/// Addresses of one family.
pub(crate) fn addresses_of(interface: &InterfaceSpec, ipv4: bool) -> impl Iterator<Item = IpAddr> {
    interface
        .addresses
        .iter()
        .map(IpNet::addr)
        .filter(move |address| address.is_ipv4() == ipv4)
}

pub(crate) fn interface_index(name: &str) -> Result<u32> {
    let cannot = || format!("find interface {name}");
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    netdevice::name_to_index(socket.attempt(cannot)?, name).attempt(cannot)
}

/// A netlink connection on this thread: its socket belongs to the namespace the thread is in.
pub(crate) fn with_netlink<F: Future<Output = Result<()>>>(work: impl FnOnce(Handle) -> F) -> Result<()> {
    let cannot = || "speak netlink".to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .attempt(cannot)?;
    runtime.block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection().attempt(cannot)?;
        let speaking = tokio::spawn(connection);
        let done = work(netlink).await;
        speaking.abort();
        done
    })
}
