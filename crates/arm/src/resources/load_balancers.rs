//! Internal load balancers: frontends, backend pools, probes and rules.

use model::change::Operation;
use model::config::{
    Address, BalancedProtocol, BalancingRule, Frontend, HealthProbe, HealthProtocol, LoadBalancer,
    LoadBalancerSku, LoadDistribution,
};
use serde_json::{Map, Value, json};

use super::body::{self, set};
use super::kinds::{BALANCERS, By, Kind, NETWORK, NICS};
use super::lab::{Lab, Target};
use super::nics;
use super::read::{Child, Reader};
use crate::Error;
use crate::id::same;

pub(super) const KIND: Kind = Kind {
    provider: NETWORK,
    name: BALANCERS,
    owned: &[
        "frontendIPConfigurations",
        "backendAddressPools",
        "probes",
        "loadBalancingRules",
    ],
    children: &[
        "frontendIPConfigurations",
        "backendAddressPools",
        "probes",
        "loadBalancingRules",
        "inboundNatRules",
        "outboundRules",
    ],
    carried_out: By::Model {
        keys: |lab| lab.config.load_balancers.keys().cloned().collect(),
        show,
        put,
        delete: |_, key| Ok(vec![Operation::DeleteLoadBalancer { name: key.to_owned() }]),
    },
};

fn put(lab: &Lab<'_>, target: &Target<'_>, body: &Value) -> Result<Vec<Operation>, Error> {
    let whole = Reader::new(body, "")?;
    let given = whole.object("properties")?;
    let old = lab.config.load_balancers.get(&target.key);
    let sku = whole
        .object("sku")?
        .word("name", LoadBalancerSku::of, LoadBalancerSku::WORDS)?;
    let mut balancer = LoadBalancer {
        sku: sku.or(old.and_then(|old| old.sku)),
        ..LoadBalancer::default()
    };
    for child in given.children("frontendIPConfigurations")?.unwrap_or_default() {
        balancer
            .frontends
            .insert(child.name.clone(), frontend(lab, old, &child)?);
    }
    for child in given.children("backendAddressPools")?.unwrap_or_default() {
        // Members come and go by their NICs.
        let members = old
            .and_then(|old| old.backend_pools.get(&child.name).cloned())
            .unwrap_or_default();
        balancer.backend_pools.insert(child.name, members);
    }
    for child in given.children("probes")?.unwrap_or_default() {
        balancer
            .probes
            .insert(child.name.clone(), probe(&child.properties)?);
    }
    for child in given.children("loadBalancingRules")?.unwrap_or_default() {
        balancer
            .rules
            .insert(child.name.clone(), rule(&child.properties)?);
    }
    for name in ["inboundNatRules", "inboundNatPools", "outboundRules"] {
        if !given.list(name)?.unwrap_or_default().is_empty() {
            let message = format!(
                "{name} are not carried out: a load balancer here is internal, and the fabric does no NAT"
            );
            return Err(Error {
                target: Some(given.at(name)),
                ..Error::bad("Sim.LB-01", message)
            });
        }
    }
    Ok(vec![Operation::PutLoadBalancer {
        name: target.key.clone(),
        balancer: Box::new(balancer),
    }])
}

fn frontend(lab: &Lab<'_>, old: Option<&LoadBalancer>, child: &Child<'_>) -> Result<Frontend, Error> {
    let own = &child.properties;
    let Some(id) = own.get("subnet") else {
        let message =
            "only internal load balancers are carried out: give the frontend a subnet, not a public address";
        return Err(Error {
            target: Some(own.at("subnet")),
            ..Error::bad("Sim.LB-01", message)
        });
    };
    let subnet = lab.resolve_subnet(id, &own.at("subnet"))?;
    let fixed = own
        .text("privateIPAllocationMethod")?
        .is_some_and(|it| same(it, "Static"));
    let given: Option<Address> = own.address("privateIPAddress")?;
    let before = old.and_then(|old| old.frontends.get(&child.name));
    let before = before
        .filter(|it| same(&it.subnet, &subnet))
        .and_then(|it| it.private_ip_address);
    Ok(Frontend {
        subnet,
        private_ip_address: if fixed { given } else { before },
    })
}

fn probe(own: &Reader<'_>) -> Result<HealthProbe, Error> {
    let missing = |name: &str| Error::body(&own.at(name), format!("{} is missing", own.at(name)));
    Ok(HealthProbe {
        protocol: own
            .word("protocol", HealthProtocol::of, HealthProtocol::WORDS)?
            .ok_or_else(|| missing("protocol"))?,
        port: own.number("port")?.ok_or_else(|| missing("port"))?,
        request_path: own.text("requestPath")?.map(str::to_owned),
        interval_in_seconds: own.number("intervalInSeconds")?,
        number_of_probes: own.number("numberOfProbes")?.or(own.number("probeThreshold")?),
    })
}

fn rule(own: &Reader<'_>) -> Result<BalancingRule, Error> {
    let missing = |name: &str| Error::body(&own.at(name), format!("{} is missing", own.at(name)));
    let child = |name: &str| {
        let id = own.object(name)?.text("id")?;
        Ok::<_, Error>(id.and_then(|id| id.rsplit('/').next()).map(str::to_owned))
    };
    let listed = own.list("backendAddressPools")?.unwrap_or_default().first();
    let listed = listed
        .and_then(|it| it["id"].as_str()?.rsplit('/').next())
        .map(str::to_owned);
    Ok(BalancingRule {
        frontend: child("frontendIPConfiguration")?.ok_or_else(|| missing("frontendIPConfiguration"))?,
        backend_pool: child("backendAddressPool")?
            .or(listed)
            .ok_or_else(|| missing("backendAddressPool"))?,
        probe: child("probe")?,
        protocol: own
            .word("protocol", BalancedProtocol::of, BalancedProtocol::WORDS)?
            .ok_or_else(|| missing("protocol"))?,
        frontend_port: own
            .number("frontendPort")?
            .ok_or_else(|| missing("frontendPort"))?,
        backend_port: own.number("backendPort")?.unwrap_or(0),
        load_distribution: own.word("loadDistribution", LoadDistribution::of, LoadDistribution::WORDS)?,
        enable_floating_ip: own.flag("enableFloatingIP")?,
        idle_timeout_in_minutes: own.number("idleTimeoutInMinutes")?,
        enable_tcp_reset: own.flag("enableTcpReset")?,
    })
}

fn show(lab: &Lab<'_>, key: &str) -> Map<String, Value> {
    let topology = lab.topology;
    let found = topology.load_balancers.iter().find(|it| same(&it.name, key));
    let (Some(declared), Some(balancer)) = (lab.config.load_balancers.get(key), found) else {
        return Map::new();
    };
    let id = lab.id(&KIND, key);
    let mut properties = Map::new();
    let rules_of = |of: fn(&BalancingRule) -> &str, name: &str| -> Vec<Value> {
        let own = declared.rules.iter().filter(|(_, rule)| same(of(rule), name));
        own.map(|(rule, _)| json!({ "id": format!("{id}/loadBalancingRules/{rule}") }))
            .collect()
    };
    let frontends = balancer.frontends.iter().map(|it| {
        let fixed = declared
            .frontends
            .get(&it.name)
            .is_some_and(|it| it.private_ip_address.is_some());
        let own = json!({
            "privateIPAddress": it.address,
            "privateIPAllocationMethod": if fixed { "Static" } else { "Dynamic" },
            "privateIPAddressVersion": "IPv4",
            "subnet": { "id": lab.subnet_id(it.subnet) },
            "loadBalancingRules": rules_of(|rule| &rule.frontend, &it.name),
        });
        body::child(&id, "frontendIPConfigurations", &it.name, members(own))
    });
    properties.insert("frontendIPConfigurations".to_owned(), frontends.collect());
    let pools = declared.backend_pools.iter().map(|(name, given)| {
        let nics = lab.nics().filter(|nic| {
            let vm = nic.vm.map(|vm| &topology.vms[vm.0]);
            let first = vm.filter(|vm| {
                vm.nics
                    .first()
                    .is_some_and(|it| same(&topology.nics[it.0].name, &nic.name))
            });
            given
                .iter()
                .any(|it| same(it, &nic.name) || first.is_some_and(|vm| same(it, &vm.name)))
        });
        let configurations = nics.filter_map(|nic| {
            let first = nics::configuration_names(lab, &nic.name, 1);
            let nic = lab.reference(NICS, &nic.name)["id"].as_str()?.to_owned();
            Some(json!({ "id": format!("{nic}/ipConfigurations/{}", first.first()?) }))
        });
        let own = json!({
            "backendIPConfigurations": configurations.collect::<Vec<_>>(),
            "loadBalancingRules": rules_of(|rule| &rule.backend_pool, name),
        });
        body::child(&id, "backendAddressPools", name, members(own))
    });
    properties.insert("backendAddressPools".to_owned(), pools.collect());
    let probes = declared.probes.iter().map(|(name, probe)| {
        let mut own = members(json!({
            "protocol": probe.protocol.word(),
            "port": probe.port,
            "intervalInSeconds": probe.interval_in_seconds.unwrap_or(15),
            "numberOfProbes": probe.number_of_probes.unwrap_or(2),
            "loadBalancingRules": rules_of(|rule| rule.probe.as_deref().unwrap_or_default(), name),
        }));
        set(&mut own, "requestPath", probe.request_path.clone());
        body::child(&id, "probes", name, own)
    });
    properties.insert("probes".to_owned(), probes.collect());
    let rules = declared
        .rules
        .iter()
        .map(|(name, rule)| body::child(&id, "loadBalancingRules", name, shown(&id, rule)));
    properties.insert("loadBalancingRules".to_owned(), rules.collect());
    for name in ["inboundNatRules", "inboundNatPools", "outboundRules"] {
        properties.insert(name.to_owned(), json!([]));
    }
    properties
}

fn shown(id: &str, rule: &BalancingRule) -> Map<String, Value> {
    let mut own = members(json!({
        "frontendIPConfiguration": { "id": format!("{id}/frontendIPConfigurations/{}", rule.frontend) },
        "backendAddressPool": { "id": format!("{id}/backendAddressPools/{}", rule.backend_pool) },
        "backendAddressPools": [{ "id": format!("{id}/backendAddressPools/{}", rule.backend_pool) }],
        "protocol": rule.protocol.word(),
        "frontendPort": rule.frontend_port,
        "backendPort": rule.backend_port,
        "loadDistribution": rule.load_distribution.unwrap_or_default().word(),
        "enableFloatingIP": rule.enable_floating_ip.unwrap_or(false),
        "idleTimeoutInMinutes": rule.idle_timeout_in_minutes.unwrap_or(4),
        "enableTcpReset": rule.enable_tcp_reset.unwrap_or(false),
    }));
    let probe = rule
        .probe
        .as_ref()
        .map(|probe| json!({ "id": format!("{id}/probes/{probe}") }));
    set(&mut own, "probe", probe);
    own
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
