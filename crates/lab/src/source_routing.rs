//! Policy routing of a VNet port: what one of its addresses sends goes out of the TUN, even to its other addresses.
//!
//! The kernel's first rule, `lookup local`, would hand it over directly. So it moves behind ours:
//!
//! ```text
//! 1: iif TUN lookup local          what the engine delivers is received
//! 2: from NIC to NIC lookup local  a NIC reaches itself, as in a VM
//! 3: from NIC lookup T             T: default dev TUN
//! 4: lookup local                  was 0:
//! ```

use std::net::IpAddr;

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion};

use crate::error::{Attempt, Result};
use crate::network::{addresses_of, default_route, families};
use crate::spec::InterfaceSpec;

/// The kernel's table of own addresses.
const LOCAL_TABLE: u32 = 255;

const DELIVERED: u32 = 1;
const ITSELF: u32 = 2;
const FROM_NIC: u32 = 3;
const LOCAL: u32 = 4;
/// Where the kernel puts `lookup local`.
const KERNEL_LOCAL: u32 = 0;

/// Marks our rules, so that those of others are left alone. Not taken in iproute2's rt_protos.
const OURS: RouteProtocol = RouteProtocol::Other(0x70);

/// Tables are this and the interface's index: one per TUN, gone with it, and far from any number people choose.
const TABLE: u32 = 0x706c_0000;

/// Adds the rules of an interface of index `index` and moves `lookup local`.
///
/// # Errors
/// The rule or route the kernel refused.
pub(crate) async fn add(netlink: &Handle, interface: &InterfaceSpec, index: u32) -> Result<()> {
    let name = &interface.name;
    for ipv4 in families(interface) {
        let table = TABLE.wrapping_add(index);
        let added = netlink
            .route()
            .add(default_route(ipv4, index, Some(table)))
            .replace()
            .execute()
            .await;
        added.attempt(|| format!("add the source route of {name}"))?;
        for rule in rules(interface, ipv4, table) {
            add_rule(netlink, rule).await?;
        }
        // Last: until now nothing has changed for anybody.
        delete_rule(netlink, local(ipv4, KERNEL_LOCAL, RouteProtocol::Kernel)).await?;
    }
    Ok(())
}

/// Removes the rules of an interface; the last one moves `lookup local` back.
///
/// # Errors
/// The rule the kernel refused.
pub(crate) async fn remove(netlink: &Handle, interface: &InterfaceSpec) -> Result<()> {
    for ipv4 in families(interface) {
        let sources: Vec<IpAddr> = addresses_of(interface, ipv4).collect();
        let ours: Vec<RuleMessage> = list(netlink, ipv4).await?;
        let (own, others): (Vec<_>, Vec<_>) = ours
            .into_iter()
            .partition(|rule| belongs(rule, interface, &sources));
        if others.iter().all(|rule| is_at(rule, LOCAL)) {
            add_rule(netlink, local(ipv4, KERNEL_LOCAL, RouteProtocol::Kernel)).await?;
            delete_rule(netlink, local(ipv4, LOCAL, OURS)).await?;
        }
        for rule in own {
            delete_rule(netlink, rule).await?;
        }
    }
    Ok(())
}

/// Removes the rules of addresses that an interface has no more.
///
/// # Errors
/// The rule the kernel refused.
pub(crate) async fn remove_sources(netlink: &Handle, sources: &[IpAddr]) -> Result<()> {
    for ipv4 in [true, false] {
        if !sources.iter().any(|source| source.is_ipv4() == ipv4) {
            continue;
        }
        let of_sources = |rule: &RuleMessage| {
            rule.attributes.iter().any(
                |attribute| matches!(attribute, RuleAttribute::Source(source) if sources.contains(source)),
            )
        };
        for rule in list(netlink, ipv4).await?.into_iter().filter(of_sources) {
            delete_rule(netlink, rule).await?;
        }
    }
    Ok(())
}

/// All rules of an interface and family but the kernel's, in the order in which they are to be added.
fn rules(interface: &InterfaceSpec, ipv4: bool, table: u32) -> Vec<RuleMessage> {
    let mut delivered = local(ipv4, DELIVERED, OURS);
    delivered
        .attributes
        .push(RuleAttribute::Iifname(interface.name.clone()));
    let mut rules = vec![local(ipv4, LOCAL, OURS), delivered];
    let length = if ipv4 { 32 } else { 128 };
    for address in addresses_of(interface, ipv4) {
        let mut itself = local(ipv4, ITSELF, OURS);
        itself.header.src_len = length;
        itself.header.dst_len = length;
        itself.attributes.extend([
            RuleAttribute::Source(address),
            RuleAttribute::Destination(address),
        ]);
        let mut from = lookup(ipv4, FROM_NIC, table, OURS);
        from.header.src_len = length;
        from.attributes.push(RuleAttribute::Source(address));
        rules.extend([itself, from]);
    }
    rules
}

fn local(ipv4: bool, priority: u32, protocol: RouteProtocol) -> RuleMessage {
    lookup(ipv4, priority, LOCAL_TABLE, protocol)
}

fn lookup(ipv4: bool, priority: u32, table: u32, protocol: RouteProtocol) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = if ipv4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(priority),
        RuleAttribute::Table(table),
        RuleAttribute::Protocol(protocol),
    ];
    rule
}

async fn add_rule(netlink: &Handle, rule: RuleMessage) -> Result<()> {
    let what = format!("add the rule {:?}", rule.attributes);
    let mut request = netlink.rule().add();
    *request.message_mut() = rule;
    tolerate(request.execute().await, rustix::io::Errno::EXIST).attempt(|| what)
}

async fn delete_rule(netlink: &Handle, rule: RuleMessage) -> Result<()> {
    let what = format!("delete the rule {:?}", rule.attributes);
    tolerate(netlink.rule().del(rule).execute().await, rustix::io::Errno::NOENT).attempt(|| what)
}

/// Adding what exists and deleting what does not are done already.
fn tolerate(
    done: std::result::Result<(), rtnetlink::Error>,
    errno: rustix::io::Errno,
) -> std::result::Result<(), rtnetlink::Error> {
    match done {
        Err(rtnetlink::Error::NetlinkError(refusal)) if refusal.raw_code() == -errno.raw_os_error() => Ok(()),
        done => done,
    }
}

async fn list(netlink: &Handle, ipv4: bool) -> Result<Vec<RuleMessage>> {
    let version = if ipv4 { IpVersion::V4 } else { IpVersion::V6 };
    let rules = netlink.rule().get(version).execute();
    let all: Vec<RuleMessage> = rules
        .try_collect()
        .await
        .attempt(|| "list the rules".to_owned())?;
    Ok(all
        .into_iter()
        .filter(|rule| rule.attributes.contains(&RuleAttribute::Protocol(OURS)))
        .collect())
}

fn is_at(rule: &RuleMessage, priority: u32) -> bool {
    rule.attributes.contains(&RuleAttribute::Priority(priority))
}

fn belongs(rule: &RuleMessage, interface: &InterfaceSpec, sources: &[IpAddr]) -> bool {
    rule.attributes.iter().any(|attribute| match attribute {
        RuleAttribute::Iifname(name) => *name == interface.name,
        RuleAttribute::Source(source) => sources.contains(source),
        _ => false,
    })
}
