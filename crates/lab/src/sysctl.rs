//! Settings under /proc/sys/net of the calling thread's network namespace: all set, none inherited from the machine.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::spec::{InterfaceSpec, NamespaceSpec, Place};

const NET: &str = "/proc/sys/net";

/// Of every interface: nothing is sent unasked, nothing learned, no answer filtered by its source.
const IPV4: [(&str, &str); 3] = [
    ("rp_filter", "0"),
    ("send_redirects", "0"),
    ("accept_redirects", "0"),
];

/// As [`IPV4`]; addr_gen_mode 1 is "none": no link-local address. Nobody else has our addresses, so none is probed for.
const IPV6: [(&str, &str); 6] = [
    ("accept_redirects", "0"),
    ("accept_ra", "0"),
    ("autoconf", "0"),
    ("router_solicitations", "0"),
    ("addr_gen_mode", "1"),
    ("accept_dad", "0"),
];

/// What holds for the whole namespace: only for one of the lab, before its interfaces are set.
pub(crate) fn set_namespace(spec: &NamespaceSpec) -> Result<()> {
    if spec.place != Place::Lab {
        return Ok(());
    }
    let forwarding = if spec.forwarding { "1" } else { "0" };
    // First: it resets others.
    set("ipv4/ip_forward", forwarding)?;
    for (name, value) in IPV4 {
        set_scopes("ipv4", name, value)?;
    }
    // Ping without capabilities, for every group that can be named here.
    set("ipv4/ping_group_range", "0 2147483647").or_else(|_| set("ipv4/ping_group_range", "0 0"))?;
    if Path::new(NET).join("ipv6").exists() {
        set("ipv6/conf/all/disable_ipv6", "0")?;
        set("ipv6/conf/all/forwarding", forwarding)?;
        for (name, value) in IPV6 {
            set_scopes("ipv6", name, value)?;
        }
    }
    Ok(())
}

/// What holds for one interface, before it is up.
pub(crate) fn set_interface(interface: &InterfaceSpec) -> Result<()> {
    let name = &interface.name;
    for (setting, value) in IPV4 {
        set(&format!("ipv4/conf/{name}/{setting}"), value)?;
    }
    let accept_local = if interface.source_routing { "1" } else { "0" };
    set(&format!("ipv4/conf/{name}/accept_local"), accept_local)?;
    if !Path::new(NET).join("ipv6").exists() {
        if interface.ipv6 {
            return Err(Error::machine(
                format!("{name} has IPv6 addresses and this kernel runs without IPv6"),
                "boot without ipv6.disable=1, or leave IPv6 out of the lab",
            ));
        }
        return Ok(());
    }
    for (setting, value) in IPV6 {
        set(&format!("ipv6/conf/{name}/{setting}"), value)?;
    }
    set(
        &format!("ipv6/conf/{name}/disable_ipv6"),
        if interface.ipv6 { "0" } else { "1" },
    )
}

/// Other addresses of a subnet stay when its first one goes.
pub(crate) fn promote_secondaries(interface: &str) -> Result<()> {
    set(&format!("ipv4/conf/{interface}/promote_secondaries"), "1")
}

fn set_scopes(family: &str, name: &str, value: &str) -> Result<()> {
    for scope in ["all", "default"] {
        set(&format!("{family}/conf/{scope}/{name}"), value)?;
    }
    Ok(())
}

fn set(name: &str, value: &str) -> Result<()> {
    let path = Path::new(NET).join(name);
    // Unlike fs::write this does not truncate, which some settings take for a first, empty value.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|error| {
        Error::machine(
            format!("cannot set {} to {value}: {error}", path.display()),
            "a container needs /proc/sys writable for its own network namespaces (as with --privileged)",
        )
    })
}
