//! Platform services, security admin rules, service tags and service endpoints, from lab files.

use control::compile;
use control::compile::Compiled;
use control::present::{EffectiveNsgs, EffectiveRoute, effective_nsgs, effective_routes};
use engine::filter::{Access, Filtered, inbound, outbound};
use engine::snapshot::NicId;
use model::Topology;
use model::topology::NicIndex;
use packet::key::mapped;
use packet::{FlowKey, Protocol};

fn lab(text: &str) -> (Topology, Compiled) {
    let source = model::Source::Text {
        name: "services.vnet.yaml".to_owned(),
        text: format!("apiVersion: peerlane/v1\nkind: Lab\nname: services\n{text}"),
    };
    let topology = model::load(source)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .topology;
    let compiled = compile(&topology, 1);
    (topology, compiled)
}

/// A packet of 10.1.0.4 to an address and port, or the other way round.
fn key(address: &str, port: u16, protocol: Protocol) -> FlowKey {
    FlowKey {
        source: mapped("10.1.0.4".parse().unwrap()),
        destination: mapped(address.parse().unwrap()),
        source_port: 50000,
        destination_port: port,
        protocol,
    }
}

/// The verdict, and the rule that gave it.
fn told(compiled: &Compiled, filtered: &Filtered) -> (Access, String) {
    let (filter, decision) = filtered.decisions.into_iter().flatten().last().unwrap();
    let rule = &compiled.provenance.filters[filter.index()].rules[usize::from(decision.rule.unwrap())];
    (filtered.access, rule.name.clone())
}

const SILENT: &str = "
vnets: { v: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24, networkSecurityGroup: n } } } }
vms: { a: { subnet: v/s, privateIPAddress: 10.1.0.4 } }
networkSecurityGroups: { n: { securityRules: {
  in: { priority: 100, direction: Inbound, access: Deny, protocol: '*' },
  out: { priority: 200, direction: Outbound, access: Deny, protocol: '*' }";

/// DHCP, DNS and IMDS pass a rule that denies everything, on their own ports only; probes do not pass.
/// Shows: NSG-14.
#[test]
fn platform_services_pass_whatever_the_rules_say() {
    let (_, compiled) = lab(&format!("{SILENT} }} }} }}"));
    let ask = |address, port, protocol| {
        let filtered = outbound(&compiled.snapshot, NicId(0), &key(address, port, protocol));
        told(&compiled, &filtered)
    };
    let platform = |name: &str| (Access::Allow, format!("platformRules/{name}"));
    let denied = (Access::Deny, "securityRules/out".to_owned());
    assert_eq!(ask("168.63.129.16", 67, Protocol::UDP), platform("AllowDhcp"));
    assert_eq!(ask("168.63.129.16", 53, Protocol::UDP), platform("AllowDns"));
    assert_eq!(ask("168.63.129.16", 53, Protocol::TCP), platform("AllowDns"));
    assert_eq!(ask("169.254.169.254", 80, Protocol::TCP), platform("AllowImds"));
    assert_eq!(ask("168.63.129.16", 80, Protocol::TCP), denied);
    assert_eq!(ask("169.254.169.254", 53, Protocol::UDP), denied);
    assert_eq!(ask("169.254.169.254", 443, Protocol::TCP), denied);
    assert_eq!(ask("10.1.0.5", 53, Protocol::UDP), denied);
    let probe = key("168.63.129.16", 80, Protocol::TCP).reversed();
    let filtered = inbound(&compiled.snapshot, NicId(0), &probe);
    assert_eq!(
        told(&compiled, &filtered),
        (Access::Deny, "securityRules/in".to_owned())
    );
}

/// A rule that names a service's tag denies that service and no other; one with a higher priority may allow a part of it.
/// Shows: NSG-14.
#[test]
fn platform_services_are_denied_by_their_tags() {
    let (_, compiled) = lab(&format!(
        "{SILENT},
  dns-over-tcp: {{ priority: 110, direction: Outbound, access: Allow, protocol: Tcp, destinationAddressPrefix: AzurePlatformDNS }},
  no-dns: {{ priority: 120, direction: Outbound, access: Deny, protocol: '*', destinationAddressPrefix: AzurePlatformDNS }},
  no-imds: {{ priority: 130, direction: Outbound, access: Deny, protocol: Udp, destinationAddressPrefix: AzurePlatformIMDS }}
  }} }} }}"
    ));
    let ask = |address, port, protocol| {
        let filtered = outbound(&compiled.snapshot, NicId(0), &key(address, port, protocol));
        told(&compiled, &filtered)
    };
    let rule = |access, name: &str| (access, name.to_owned());
    assert_eq!(
        ask("168.63.129.16", 53, Protocol::UDP),
        rule(Access::Deny, "securityRules/no-dns")
    );
    assert_eq!(
        ask("168.63.129.16", 53, Protocol::TCP),
        rule(Access::Allow, "securityRules/dns-over-tcp")
    );
    assert_eq!(
        ask("168.63.129.16", 67, Protocol::UDP),
        rule(Access::Allow, "platformRules/AllowDhcp")
    );
    // A rule about UDP does not speak of it.
    assert_eq!(
        ask("169.254.169.254", 80, Protocol::TCP),
        rule(Access::Allow, "platformRules/AllowImds")
    );
}

const MANAGED: &str = "
profile: azure-2025
vnets: { v: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24, networkSecurityGroup: n } } } }
vms: { a: { subnet: v/s, privateIPAddress: 10.1.0.4 } }
networkSecurityGroups: { n: {} }
networkGroups: { all: { members: [v] }, none: {} }
securityAdminConfigurations:
  first:
    ruleCollections:
      late: { appliesToGroups: [all], rules: {
        low: { access: Deny, priority: 300, direction: Outbound, protocol: Any } } }
      early: { appliesToGroups: [all], rules: {
        high: { access: AlwaysAllow, priority: 200, direction: Outbound, protocol: Tcp, destinationPortRanges: ['443', '8000-8099'],
                destinations: [ { addressPrefixType: ServiceTag, addressPrefix: Storage.WestUS2 },
                                { addressPrefixType: IPPrefix, addressPrefix: 198.51.100.0/24 } ] } } }
      elsewhere: { appliesToGroups: [none], rules: {
        top: { access: Deny, priority: 1, direction: Outbound, protocol: Any } } }
  second:
    ruleCollections:
      base: { appliesToGroups: [all], rules: {
        top: { access: AlwaysAllow, priority: 1, direction: Outbound, protocol: Any } } }";

/// Configuration by configuration, in each by priority whatever the collection; platform services pass.
/// Shows: NSG-43.
#[test]
fn admin_rules_are_asked_in_order_and_first() {
    let (_, compiled) = lab(MANAGED);
    let ask = |address, port, protocol| {
        let filtered = outbound(&compiled.snapshot, NicId(0), &key(address, port, protocol));
        told(&compiled, &filtered)
    };
    let rule = |access, name: &str| (access, name.to_owned());
    assert_eq!(
        ask("20.150.68.4", 443, Protocol::TCP),
        rule(Access::Allow, "securityAdminRules/high")
    );
    assert_eq!(
        ask("198.51.100.9", 8050, Protocol::TCP),
        rule(Access::Allow, "securityAdminRules/high")
    );
    assert_eq!(
        ask("20.150.32.4", 443, Protocol::TCP),
        rule(Access::Deny, "securityAdminRules/low")
    );
    // Allowed there, it is left to the NSG, whose platform rule allows it.
    assert_eq!(
        ask("168.63.129.16", 53, Protocol::UDP),
        rule(Access::Allow, "platformRules/AllowDns")
    );
}

/// Shows: NSG-35, NSG-36.
#[test]
fn admin_rules_are_shown_with_the_manager_as_their_place() {
    let (topology, _) = lab(MANAGED);
    let EffectiveNsgs { value, .. } = effective_nsgs(&topology, NicIndex(0));
    let places: Vec<(bool, bool)> = value
        .iter()
        .map(|nsg| {
            (
                nsg.association.network_manager.is_some(),
                nsg.association.subnet.is_some(),
            )
        })
        .collect();
    assert_eq!(places, [(true, false), (true, false), (false, true)]);
    let names: Vec<&str> = value
        .iter()
        .flat_map(|nsg| nsg.effective_security_rules.iter().map(|rule| rule.name.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            "securityAdminRules/high",
            "securityAdminRules/low",
            "securityAdminRules/top",
            "defaultSecurityRules/AllowVnetInBound",
            "defaultSecurityRules/AllowAzureLoadBalancerInBound",
            "defaultSecurityRules/DenyAllInBound",
            "defaultSecurityRules/AllowVnetOutBound",
            "defaultSecurityRules/AllowInternetOutBound",
            "defaultSecurityRules/DenyAllOutBound",
        ]
    );
    let high = &value[0].effective_security_rules[0];
    assert_eq!(high.access, "AlwaysAllow");
    assert_eq!(
        high.destination_address_prefixes,
        ["Storage.WestUS2", "198.51.100.0/24"]
    );
    assert_eq!(high.destination_port_ranges, ["443-443", "8000-8099"]);
    let expanded = high.expanded_destination_address_prefix.as_ref().unwrap();
    let storage = topology.service_tags.prefixes("Storage.WestUS2");
    assert_eq!(expanded.len(), storage.len() + 1);
    assert_eq!(value[0].tag_map["Storage.WestUS2"].len(), storage.len());
}

fn endpoint_rows(topology: &Topology, nic: usize) -> Vec<EffectiveRoute> {
    let rows = effective_routes(topology, NicIndex(nic)).value;
    rows.into_iter()
        .filter(|row| row.next_hop_type == "VirtualNetworkServiceEndpoint")
        .collect()
}

/// In the subnets that enable it only, and never listed in a classic VNet, where packets follow them all the same.
/// Shows: ROUTE-09, PEER-32.
#[test]
fn service_endpoints_are_rows_of_their_subnet() {
    let (topology, compiled) = lab("
vnets:
  v: { addressSpace: [10.1.0.0/16], subnets: { with: { addressPrefix: 10.1.0.0/24, serviceEndpoints: [microsoft.storage, Microsoft.Storage.Global] },
       without: { addressPrefix: 10.1.1.0/24 } } }
  c: { addressSpace: [10.2.0.0/16], deploymentModel: Classic, subnets: { s: { addressPrefix: 10.2.0.0/24, serviceEndpoints: [Microsoft.Sql] } } }
vms: { a: { subnet: v/with }, b: { subnet: v/without }, c: { subnet: c/s } }");
    let rows = endpoint_rows(&topology, 0);
    let mut prefixes: Vec<&str> = rows.iter().map(|row| row.address_prefix[0].as_str()).collect();
    let mut storage: Vec<String> = (topology.service_tags.prefixes("Storage").iter())
        .map(ToString::to_string)
        .collect();
    prefixes.sort_unstable();
    storage.sort_unstable();
    assert_eq!(prefixes, storage);
    assert!(
        rows.iter()
            .all(|row| (row.source, row.state) == ("Default", "Active"))
    );
    assert!(endpoint_rows(&topology, 1).is_empty());
    assert!(endpoint_rows(&topology, 2).is_empty());
    let fib = &compiled.snapshot.fibs[compiled.snapshot.nics[2].fib.index()];
    let sql = fib.lookup(mapped("13.66.136.4".parse().unwrap())).unwrap();
    assert_eq!(
        fib.routes()[sql.index()].next_hop,
        engine::fib::NextHop::ServiceEndpoint
    );
}

/// Shows: ROUTE-33, ROUTE-37, ROUTE-40.
#[test]
fn a_service_tag_is_one_row_with_its_prefixes() {
    let (topology, _) = lab("
vnets: { v: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24, routeTable: t } } } }
routeTables: { t: { routes: {
  all: { addressPrefix: storage, nextHopType: None },
  region: { addressPrefix: Storage.WestUS2, nextHopType: VirtualAppliance, nextHopIpAddress: 10.1.0.9 },
  plain: { addressPrefix: 10.9.0.0/16, nextHopType: None } } } }
vms: { a: { subnet: v/s } }");
    let rows = effective_routes(&topology, NicIndex(0)).value;
    let user: Vec<&EffectiveRoute> = rows.iter().filter(|row| row.source == "User").collect();
    let shown: Vec<(&str, &str, usize)> = user
        .iter()
        .map(|row| (row.name.as_deref().unwrap(), row.state, row.address_prefix.len()))
        .collect();
    let (all, region) = (
        topology.service_tags.prefixes("Storage").len(),
        topology.service_tags.prefixes("Storage.WestUS2").len(),
    );
    // The first prefix of Storage is of WestUS2, so that the row of what it lost stands first.
    assert_eq!(
        shown,
        [
            ("all", "Invalid", region),
            ("all", "Active", all - region),
            ("region", "Active", region),
            ("plain", "Active", 1)
        ]
    );
    assert_eq!(user[2].destination_service_tags, ["Storage.WestUS2"]);
    assert_eq!(user[2].tag_map["Storage.WestUS2"], user[2].address_prefix);
    assert!(user[3].destination_service_tags.is_empty() && user[3].tag_map.is_empty());
    assert!(rows.iter().all(|row| !row.has_bgp_override));
}
