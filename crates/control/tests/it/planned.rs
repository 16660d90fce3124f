//! What a plan lists, by name.

use control::plan::{Action, Declared, ObjectChange};
use model::service_tags::ServiceTags;
use model::{Loaded, Source};

const LAB: &str = "
apiVersion: peerlane/v1
kind: Lab
name: planned
profile: azure-2025
vnets:
  one: { addressSpace: [10.0.0.0/16], subnets: { s: { addressPrefix: 10.0.0.0/24, networkSecurityGroup: guard } } }
  two: { addressSpace: [10.1.0.0/16], subnets: { s: { addressPrefix: 10.1.0.0/24 } } }
networkSecurityGroups: { guard: { securityRules: {} } }
networkGroups: { all: { members: [MEMBERS] } }
securityAdminConfigurations:
  corp:
    ruleCollections:
      base:
        appliesToGroups: [all]
        rules:
          no-ssh: { priority: PRIORITY, direction: Inbound, access: Deny, protocol: Tcp, destinationPortRanges: ['22'] }
EXTRA";

fn lab(members: &str, priority: &str, extra: &str) -> Loaded {
    let text = LAB
        .replace("MEMBERS", members)
        .replace("PRIORITY", priority)
        .replace("EXTRA", extra);
    let name = "planned.vnet.yaml".to_owned();
    model::load(Source::Text { name, text }).unwrap_or_else(|errors| panic!("{errors}"))
}

fn objects(before: &Loaded, after: &Loaded) -> Vec<ObjectChange> {
    let [before, after] = [before, after].map(|lab| Declared {
        config: &lab.config,
        topology: &lab.topology,
    });
    control::plan(before, after, &[]).objects
}

#[test]
fn groups_admin_rules_flow_logs_and_tags_are_objects() {
    let before = lab("one", "100", "");
    let flow_log = "
flowLogs: { log: { networkSecurityGroup: guard } }
";
    let mut after = lab("one, two", "200", flow_log);
    after.topology.service_tags = ServiceTags::read(
        r#"{ "values": [ { "name": "Sql", "properties": { "addressPrefixes": ["198.51.100.0/24"] } } ] }"#,
    )
    .unwrap();
    let changes = objects(&before, &after);
    let named = |kind: &str, name: &str| {
        let mut found = changes.iter();
        let found = found.find(|it| it.kind.ends_with(kind) && it.name == name);
        found.unwrap_or_else(|| panic!("no {kind} {name} in {changes:#?}"))
    };
    let group = named("networkManagers/networkGroups", "all");
    assert_eq!((group.action, group.properties.len()), (Action::Update, 1));
    let rule = named("ruleCollections/rules", "corp/base/no-ssh");
    let property = &rule.properties[0];
    assert_eq!(
        (property.before.as_u64(), property.after.as_u64()),
        (Some(100), Some(200))
    );
    assert_eq!(named("flowLogs", "log").action, Action::Create);
    assert_eq!(named("serviceTags", "Sql").action, Action::Update);
    assert_eq!(named("serviceTags", "Storage").action, Action::Delete);
    // What is the same is not listed.
    let of_corp = changes.iter().filter(|it| it.name.starts_with("corp"));
    assert_eq!(of_corp.count(), 1);
    assert_eq!(objects(&after, &after), []);
}
