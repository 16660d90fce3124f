//! What Network Watcher answers from the compiled tables, and by real packets.

use std::net::IpAddr;

use control::compile::Compiled;
use control::diagnose::{self, Flow, Profile, Verbosity};
use control::explain::Query;
use control::{explain, present};
use model::topology::{Direction, Endpoint, NicIndex, PortRange, TestProtocol};
use serde_json::{Value, json};
use uuid::Uuid;

use super::kinds::{NICS, VMS};
use super::lab::{Lab, Target};
use super::read::Reader;
use crate::id::same;
use crate::{Answer, Error, Id, Probe, ProbeProtocol, Reply, Request};

/// How often connectivityCheck tries.
const PROBES: u32 = 3;

/// Reads a question and answers it.
type Question = fn(&Lab<'_>, &Reader<'_>) -> Result<Value, Error>;

/// effectiveRouteTable and effectiveNetworkSecurityGroups.
pub(super) fn of_nic(lab: &Lab<'_>, key: &str, action: &str) -> Result<Reply, Error> {
    let found = lab
        .topology
        .nics
        .iter()
        .position(|nic| same(&nic.name, key) && nic.vm.is_some());
    let body = if same(action, "effectiveRouteTable") {
        let nic = found.map(NicIndex).ok_or_else(|| not_running(key))?;
        shown(&present::effective_routes(lab.topology, nic))
    } else if same(action, "effectiveNetworkSecurityGroups") {
        let nic = found.map(NicIndex).ok_or_else(|| not_running(key))?;
        shown(&present::effective_nsgs(lab.topology, nic))
    } else {
        return Err(Error::new(
            404,
            "NotFound",
            format!("network interfaces have no action '{action}'"),
        ));
    };
    Ok(long(body))
}

/// The actions of a network watcher.
pub(super) fn of_watcher(
    lab: &Lab<'_>,
    target: &Target<'_>,
    action: &str,
    request: &Request,
) -> Result<Reply, Error> {
    let given = Reader::new(&request.body, "")?;
    let actions: [(&str, Question); 4] = [
        ("ipFlowVerify", ip_flow),
        ("nextHop", next_hop),
        ("networkConfigurationDiagnostic", configuration),
        ("securityGroupView", security_view),
    ];
    if let Some((_, answer)) = actions.iter().find(|(name, _)| same(name, action)) {
        return Ok(long(answer(lab, &given)?));
    }
    if same(action, "topology") {
        return topology(lab, target, &given);
    }
    if same(action, "connectivityCheck") {
        return Ok(Reply::Probe(asked(lab, &given)?.probe));
    }
    Err(Error::new(
        404,
        "NotFound",
        format!("network watchers here have no action '{action}'"),
    ))
}

/// What packets did, and by the explanation of their path, why (DIAG-07).
pub(super) fn probed(request: &Request, lab: &Lab<'_>, seen: &[Option<u64>]) -> Result<Answer, Error> {
    let asked = asked(lab, &Reader::new(&request.body, "")?)?;
    let query = Query {
        source: Endpoint::Nic(asked.nic),
        destination: Endpoint::Address(asked.destination),
        protocol: asked.protocol,
        source_port: asked
            .probe
            .source_port
            .unwrap_or(control::explain::DEFAULT_SOURCE_PORT),
        port: asked.probe.port,
    };
    let compiled = compiled(lab);
    let told =
        explain(lab.topology, &compiled, &query).map_err(|error| Error::bad("Sim.DIAG-07", error.0))?;
    let probes = diagnose::Probes(seen.to_vec());
    let ends = (asked.source, asked.destination);
    let found = diagnose::connectivity(lab.topology, &told, ends, &probes);
    Ok(Answer {
        status: 200,
        body: Some(shown(&found)),
        long_running: true,
        ..Answer::default()
    })
}

/// A connectivity check, read.
struct Asked {
    nic: NicIndex,
    source: IpAddr,
    destination: IpAddr,
    protocol: TestProtocol,
    probe: Probe,
}

fn asked(lab: &Lab<'_>, given: &Reader<'_>) -> Result<Asked, Error> {
    let (from, to) = (given.object("source")?, given.object("destination")?);
    let at = from.at("resourceId");
    let source = from
        .text("resourceId")?
        .ok_or_else(|| Error::body(&at, format!("{at} is missing")))?;
    let nic = nic_of(lab, source, None, &at)?;
    let own = &lab.topology.nics[nic.0];
    let destination = match (to.text("resourceId")?, to.address("address")?) {
        (_, Some(address)) => address.0,
        (Some(id), None) => {
            let far = nic_of(lab, id, None, &to.at("resourceId"))?;
            first(lab, far, true)?
        }
        (None, None) => {
            let at = to.at("address");
            return Err(Error::body(
                &at,
                "a destination is a resourceId or an address; names are not resolved",
            ));
        }
    };
    let address = own
        .addresses
        .iter()
        .copied()
        .find(|it| it.is_ipv4() == destination.is_ipv4());
    let address = address.ok_or_else(|| {
        Error::bad(
            "Sim.NET-10",
            "source and destination have no common address family",
        )
    })?;
    let icmp = given.text("protocol")?.is_some_and(|it| same(it, "Icmp"));
    let port: Option<u16> = to.number("port")?;
    let (protocol, kind, port) = match (icmp, port) {
        (true, _) => (TestProtocol::Icmp, ProbeProtocol::Icmp, 0),
        (false, Some(port)) => (TestProtocol::Tcp, ProbeProtocol::Tcp, port),
        (false, None) => return Err(Error::body(&to.at("port"), "a TCP check needs destination.port")),
    };
    Ok(Asked {
        nic,
        source: address,
        destination,
        protocol,
        probe: Probe {
            source: own.name.clone(),
            destination: destination.to_string(),
            protocol: kind,
            port,
            source_port: from.number("port")?,
            count: PROBES,
        },
    })
}

fn ip_flow(lab: &Lab<'_>, given: &Reader<'_>) -> Result<Value, Error> {
    let nic = target(lab, given)?;
    let word = given.text("direction")?.unwrap_or_default();
    let direction = match word {
        _ if same(word, "Inbound") => Direction::Inbound,
        _ if same(word, "Outbound") => Direction::Outbound,
        _ => return Err(Error::body("direction", "direction is Inbound or Outbound")),
    };
    let word = given.text("protocol")?.unwrap_or_default();
    let protocol = match word {
        _ if same(word, "TCP") => TestProtocol::Tcp,
        _ if same(word, "UDP") => TestProtocol::Udp,
        _ => return Err(Error::body("protocol", "protocol is TCP or UDP")),
    };
    let address = |name: &str| {
        let missing = || Error::body(name, format!("{name} is missing"));
        Ok::<_, Error>(given.address(name)?.ok_or_else(missing)?.0)
    };
    let port = |name: &str| match given.get(name).and_then(Value::as_str) {
        Some("*") => Ok(None),
        _ => given.number::<u16>(name),
    };
    let flow = Flow {
        direction,
        protocol,
        local: (address("localIPAddress")?, port("localPort")?),
        remote: (address("remoteIPAddress")?, port("remotePort")?),
    };
    Ok(shown(&diagnose::ip_flow(
        lab.topology,
        &compiled(lab),
        nic,
        &flow,
    )))
}

fn next_hop(lab: &Lab<'_>, given: &Reader<'_>) -> Result<Value, Error> {
    let nic = target(lab, given)?;
    let address = |name: &str| {
        let missing = || Error::body(name, format!("{name} is missing"));
        Ok::<_, Error>(given.address(name)?.ok_or_else(missing)?.0)
    };
    let (source, destination) = (address("sourceIPAddress")?, address("destinationIPAddress")?);
    let found = diagnose::next_hop(lab.topology, &compiled(lab), nic, source, destination);
    Ok(shown(
        &found.map_err(|refusal| Error::bad(refusal.code, refusal.message))?,
    ))
}

fn configuration(lab: &Lab<'_>, given: &Reader<'_>) -> Result<Value, Error> {
    let nic = target(lab, given)?;
    let word = given.text("verbosityLevel")?.unwrap_or("Normal");
    let verbosity = match word {
        _ if same(word, "Full") => Verbosity::Full,
        _ if same(word, "Minimum") => Verbosity::Minimum,
        _ => Verbosity::Normal,
    };
    let mut profiles = Vec::new();
    for (index, profile) in given.list("profiles")?.unwrap_or_default().iter().enumerate() {
        profiles.push(self::profile(&Reader::new(
            profile,
            &format!("profiles[{index}]"),
        )?)?);
    }
    Ok(shown(&diagnose::configuration(
        lab.topology,
        nic,
        &profiles,
        verbosity,
    )))
}

fn profile(given: &Reader<'_>) -> Result<Profile, Error> {
    let protocol = given.text("protocol")?.unwrap_or("*");
    let known = ["Tcp", "Udp", "Icmp"]
        .into_iter()
        .find(|known| same(known, protocol));
    let net = |name: &str| {
        let text = given.text(name)?.unwrap_or("*");
        let text = if text == "*" { "0.0.0.0/0" } else { text };
        let refused = || {
            Error::body(
                &given.at(name),
                format!("{} is an address or a prefix", given.at(name)),
            )
        };
        let net = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(ipnet::IpNet::from));
        net.map_err(|_| refused())
    };
    let ports = given.text("destinationPort")?.unwrap_or("*");
    let (first, last) = if ports == "*" {
        ("0", "65535")
    } else {
        ports.split_once('-').unwrap_or((ports, ports))
    };
    let refused = || {
        Error::body(
            &given.at("destinationPort"),
            "destinationPort is a port, a range, or '*'",
        )
    };
    Ok(Profile {
        direction: if given.text("direction")?.is_some_and(|it| same(it, "Outbound")) {
            Direction::Outbound
        } else {
            Direction::Inbound
        },
        protocol: known.unwrap_or("All"),
        source: net("source")?,
        destination: net("destination")?,
        destination_port: PortRange {
            first: first.parse().map_err(|_| refused())?,
            last: last.parse().map_err(|_| refused())?,
        },
    })
}

/// The NSGs of a VM's NICs.
fn security_view(lab: &Lab<'_>, given: &Reader<'_>) -> Result<Value, Error> {
    let nic = target(lab, given)?;
    let nsgs = present::effective_nsgs(lab.topology, nic);
    let rules: Vec<Value> = nsgs
        .value
        .iter()
        .flat_map(|nsg| nsg.effective_security_rules.iter().map(shown))
        .collect();
    let id = lab.reference(NICS, &lab.topology.nics[nic.0].name)["id"].clone();
    Ok(json!({ "networkInterfaces": [{
        "id": id,
        "securityRuleAssociations": { "effectiveSecurityRules": rules },
    }] }))
}

/// What a group consists of; its times are the present (DIAG-09).
fn topology(lab: &Lab<'_>, target: &Target<'_>, given: &Reader<'_>) -> Result<Reply, Error> {
    let named = given.text("targetResourceGroupName")?.map(str::to_owned);
    let within = |text: Option<&str>| text.and_then(Id::parse).and_then(|id| id.group);
    let vnet = within(given.object("targetVirtualNetwork")?.text("id")?);
    let group = named.or(vnet).unwrap_or_else(|| target.group.clone());
    let group = super::group_name(&lab.view, &group)?;
    let id = Uuid::new_v5(
        &Uuid::NAMESPACE_OID,
        format!("{group} {}", lab.view.now).as_bytes(),
    );
    let mut layout = diagnose::layout(lab.topology, id.to_string(), lab.view.now.to_owned());
    layout.resources.retain(|it| {
        Id::parse(&it.id)
            .and_then(|id| id.group)
            .is_some_and(|it| same(&it, &group))
    });
    Ok(Reply::ok(shown(&layout)))
}

/// The NIC that is asked about: `targetNicResourceId`, else the first of the VM.
fn target(lab: &Lab<'_>, given: &Reader<'_>) -> Result<NicIndex, Error> {
    let at = given.at("targetResourceId");
    let text = given
        .text("targetResourceId")?
        .ok_or_else(|| Error::body(&at, format!("{at} is missing")))?;
    nic_of(lab, text, given.text("targetNicResourceId")?, &at)
}

/// A VM's id means its first NIC; a NIC's id does as well.
fn nic_of(lab: &Lab<'_>, id: &str, nic: Option<&str>, at: &str) -> Result<NicIndex, Error> {
    let text = nic.unwrap_or(id);
    let parsed = Id::parse(text);
    let kind = parsed
        .as_ref()
        .and_then(|id| id.parts.first())
        .map(|part| part.0.clone())
        .unwrap_or_default();
    let kind = if same(&kind, NICS) { NICS } else { VMS };
    let key = lab
        .resolve(&json!({ "id": text }), kind, at)
        .map_err(|error| Error {
            status: 404,
            code: "ResourceNotFound".to_owned(),
            ..error
        })?;
    let found = diagnose::target(lab.topology, &key);
    found.map_err(|refusal| Error::bad(refusal.code, refusal.message))
}

fn first(lab: &Lab<'_>, nic: NicIndex, ipv4: bool) -> Result<IpAddr, Error> {
    let addresses = &lab.topology.nics[nic.0].addresses;
    let found = addresses.iter().copied().find(|it| it.is_ipv4() == ipv4);
    found
        .or(addresses.first().copied())
        .ok_or_else(|| Error::bad("Sim.NET-10", "the destination has no address"))
}

/// ROUTE-39, NSG-35: only of NICs of running VMs.
fn not_running(key: &str) -> Error {
    let message = format!("Network interface {key} must be attached to a running virtual machine.");
    Error::bad("Sim.ROUTE-39", message)
}

/// The tables that forward. Ids in them are those of a fresh lab only until it changes, so they are compiled again here.
fn compiled(lab: &Lab<'_>) -> Compiled {
    control::compile(lab.topology, lab.view.generation.snapshot.generation)
}

fn shown(body: &impl serde::Serialize) -> Value {
    serde_json::to_value(body).unwrap_or_default()
}

fn long(body: Value) -> Reply {
    Reply::Answer(Answer {
        status: 200,
        body: Some(body),
        long_running: true,
        ..Answer::default()
    })
}
