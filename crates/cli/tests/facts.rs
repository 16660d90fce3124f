//! What a guest sees of its network interface.

use crate::support::{Peerlane, User, two_vnets, unique};

/// Shows: VNET-01.
#[test]
fn a_nic_has_no_link_layer() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("facts");
    peerlane.up(&peerlane.file(&name, &two_vnets(&name, "")));
    let ran = peerlane.exec(&name, "a", &["ip", "-j", "link", "show", "eth0"]);
    let links = ran.json();
    let link = &links[0];
    assert_eq!(link["link_type"], "none", "{links:#}");
    assert!(link["address"].is_null(), "{links:#}");
    let flags: Vec<&str> = link["flags"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it.as_str())
        .collect();
    assert!(
        flags.contains(&"NOARP") && !flags.contains(&"BROADCAST"),
        "{links:#}"
    );
    // One region and one subscription each, however the file says it.
    let two = two_vnets("twice", "").replace("one: { ", "one: { location: [westus2, eastus], ");
    let ran = peerlane.run_with_stdin(["validate", "-", "-o", "json"], &two);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(ran.json()["errors"][0]["target"], "vnets.one.location", "{ran:?}");
}
