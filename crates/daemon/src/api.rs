//! The bodies of the control socket, as its server writes them and its client reads them. Names are the contract's.

use std::net::IpAddr;

use engine::DelayError;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/state`.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct State {
    pub name: String,
    pub state: LabState,
    /// Process id of the daemon, in the PID namespace of the machine.
    pub pid: u32,
    /// The lab file as it was named to `up`; `-` for standard input.
    pub file: String,
    /// Of the tables that forward now.
    pub generation: u64,
    /// `vnet` or `plain`.
    pub io: String,
    pub workers: usize,
    pub ports: Vec<PortState>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub enum LabState {
    /// The daemon lives and the lab is not complete yet, or no more.
    Starting,
    Running,
    /// The daemon is gone and the keeper still holds the lab: `up` of the same file goes on with it, `down` ends it.
    Orphaned,
}

/// One port of [`State`] and `GET /v1/ports`. Packets and bytes are wire packets and IP bytes.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortState {
    /// The NIC, the VNet of a VNet port, or `internet`.
    pub name: String,
    pub namespace: String,
    pub interface: String,
    /// What the kernel took of checksum, TSO and USO, for people.
    pub offload: String,
    /// False: the interface is gone; what is sent there is lost as `PortGone`.
    pub forwarding: bool,
    /// None for the Internet, which is no NIC.
    pub counters: Option<PortCounters>,
}

/// `GET /v1/overview`: what `top` shows, all of one moment.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    pub name: String,
    /// Of the machine's monotonic clock.
    #[serde(rename = "at_ns")]
    pub at_ns: u64,
    pub generation: u64,
    pub ports: Vec<PortState>,
    pub meter: Vec<Meter>,
    pub links: Vec<LinkCounters>,
    pub drops: Vec<Drop>,
    /// Records of NSG state, and how many there can be.
    pub flows: u64,
    pub flow_capacity: u64,
    /// None: nothing was under way yet.
    pub late: Option<Lateness>,
}

/// How much after their time packets that were under way arrived, since the daemon started. Super-packets as one.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Lateness {
    pub packets: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
    /// In order of their ends; without those that are empty.
    pub histogram: Vec<LatenessBucket>,
}

/// So many packets were later than the bucket before says, and no later than this.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct LatenessBucket {
    pub at_most_ns: u64,
    pub packets: u64,
}

impl Lateness {
    /// None: nothing was under way yet.
    pub(crate) fn of(error: &DelayError) -> Option<Self> {
        let buckets = error.buckets();
        let histogram = buckets.map(|(at_most_ns, packets)| LatenessBucket { at_most_ns, packets });
        Some(Self {
            packets: error.count(),
            p50_ns: error.quantile_ns(0.5)?,
            p99_ns: error.quantile_ns(0.99)?,
            max_ns: error.max_ns(),
            histogram: histogram.collect(),
        })
    }
}

/// What went through a port.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortCounters {
    /// From the port into the engine.
    pub received_packets: u64,
    pub received_bytes: u64,
    /// From the engine to the port.
    pub sent_packets: u64,
    pub sent_bytes: u64,
}

/// One line of `GET /v1/drops`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Drop {
    /// A drop reason of the contract.
    pub reason: String,
    /// The NIC at which the packet was lost; None where no NIC is known.
    pub nic: Option<String>,
    pub packets: u64,
    pub bytes: u64,
}

/// One line of `GET /v1/meter`: what crossed a peering since the daemon started, as its own VNet sees it (PEER-37).
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Meter {
    /// `vnet/peering`.
    pub peering: String,
    pub location: String,
    pub remote_location: String,
    /// Sent by the own VNet.
    pub egress_bytes: u64,
    pub egress_packets: u64,
    /// Received by it.
    pub ingress_bytes: u64,
    pub ingress_packets: u64,
}

/// One line of `GET /v1/links`: one direction of a link since the daemon started. Wire packets and IP bytes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkCounters {
    /// `vnet/peering`, or the connection's name.
    pub link: String,
    /// Of a connection: towards its gateway. Of a peering with a classic VNet: from that VNet.
    pub back: bool,
    /// What came out at the far end.
    pub packets: u64,
    pub bytes: u64,
    /// By chance.
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupted: u64,
    /// Told of congestion (ECN).
    pub marked: u64,
    /// Found no room, or were dropped by the queue's management.
    pub queue_full: u64,
    /// Came while the link was down.
    pub refused: u64,
    /// On the link now.
    pub waiting_packets: u64,
    pub waiting_bytes: u64,
    /// How late packets were whose last link this was. None: none yet.
    pub late: Option<Lateness>,
}

/// One line of `GET /v1/flows`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    pub nic: String,
    /// `Inbound` or `Outbound`, seen from the NIC.
    pub direction: String,
    /// `Tcp`, `Udp`, `Icmp`, or the protocol's number.
    pub protocol: String,
    pub source: IpAddr,
    pub source_port: u16,
    pub destination: IpAddr,
    pub destination_port: u16,
    pub packets: u64,
    pub bytes: u64,
    /// Since the last packet.
    #[serde(rename = "idle_ms")]
    pub idle_ms: u64,
}

/// One line of `GET /v1/health`: a backend that a probe asks, in the order of the lab file.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendHealth {
    pub load_balancer: String,
    pub probe: String,
    pub nic: String,
    /// The address that is asked.
    pub address: IpAddr,
    pub health: HealthState,
    /// Why the latest probe failed, for people.
    pub fault: Option<String>,
}

/// LB-05.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub enum HealthState {
    Up,
    Down,
    /// The lab comes up, and the backend has not answered yet; it gets no flows.
    Pending,
}

/// `GET /v1/lab`: the running lab's file, from which a client compiles the same model.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct LabFile {
    pub file: String,
    pub text: String,
    /// What the file that `serviceTags` names held when it was read; None: it is yet to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tags: Option<String>,
}

/// `POST /v1/event`: what is to happen now; answered with the generation that forwards from then on.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventRequest {
    /// As an entry of `events:`, in YAML or JSON; its `at` counts for nothing.
    pub text: String,
}

/// One line of `GET /v1/events`: what happened, in the order it did, then what is to come.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventState {
    /// How long after the lab came up it happened, or is to happen.
    pub at: String,
    /// In words: stop VM web.
    pub event: String,
    pub state: EventResult,
    /// The generation that it made.
    pub generation: Option<u64>,
    /// Why it failed.
    pub message: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub enum EventResult {
    Pending,
    Done,
    /// The lab is as it was before.
    Failed,
}

/// One route of `GET /v1/learned-routes`: what a gateway heard over BGP. The answer is null where none speaks.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnedRoute {
    pub gateway: String,
    pub connection: String,
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// The neighbour's ASN.
    pub as_path: Vec<u32>,
}

/// `POST /v1/apply`: what the lab is to become; answered with [`control::Plan`].
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyRequest {
    /// Where the text comes from, for people; `-` for standard input.
    pub file: String,
    pub text: String,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/captures`: what to capture; answered with pcapng for as long as it lasts, whose number is in the header
/// [`CAPTURE_HEADER`] and ends it by `POST /v1/captures/NUMBER/stop`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CaptureRequest {
    /// VMs, NICs, and other ports by their names. With no links either: all of both.
    pub ports: Vec<String>,
    /// `vnet/peering`: that direction.
    pub links: Vec<String>,
    /// Only packets that are lost there.
    pub drops: bool,
    /// In tcpdump's language, a part of it.
    pub filter: Option<String>,
    /// Super-packets and partial checksums as they were read; else segments with finished checksums.
    pub raw: bool,
    /// Only links, their packets in VXLAN.
    pub vxlan: bool,
    /// Of each packet at most; None or 0: all.
    pub snap_bytes: Option<u32>,
    /// The capture ends after so many.
    pub packets: Option<u64>,
    /// The capture ends after so long.
    pub milliseconds: Option<u64>,
}

/// The number of a capture, in the head of its answer.
pub const CAPTURE_HEADER: &str = "peerlane-capture";

/// `POST /v1/edit`: objects created, updated and deleted together, all or none; answered with [`control::Plan`].
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EditRequest {
    pub edits: Vec<Edit>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// One object of an [`EditRequest`].
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Edit {
    pub verb: EditVerb,
    pub kind: EditKind,
    /// The VNet of a peering or a subnet, the NSG of a rule, the route table of a route; absent for the others.
    #[serde(default)]
    pub parent: String,
    pub name: String,
    /// As the lab file spells them. Of an update: those that change, null takes one away.
    #[serde(default)]
    pub properties: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub enum EditVerb {
    /// Or replace.
    Create,
    Update,
    /// Of a peering: its remote address space becomes what the remote VNet has.
    Sync,
    Delete,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub enum EditKind {
    Vnet,
    Subnet,
    Peering,
    Nsg,
    Rule,
    RouteTable,
    Route,
}

/// `change` of `GET /v1/watch`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Change {
    /// That forwards from then on.
    pub generation: u64,
    /// What was done, for people.
    pub what: Vec<String>,
}

/// `rates` of `GET /v1/watch`: what the NICs carried since the last one.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Rates {
    /// How long that was.
    pub seconds: f64,
    /// Those that carried something.
    pub nics: Vec<NicRate>,
}

/// One NIC of [`Rates`]: wire packets and IP bytes.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NicRate {
    pub nic: String,
    /// Into the fabric.
    pub transmitted_packets: u64,
    pub transmitted_bytes: u64,
    /// From the fabric.
    pub received_packets: u64,
    pub received_bytes: u64,
}

impl From<Edit> for model::change::Edit {
    fn from(edit: Edit) -> Self {
        use model::change::{Kind, Verb};
        Self {
            verb: match edit.verb {
                EditVerb::Create => Verb::Create,
                EditVerb::Update => Verb::Update,
                EditVerb::Sync => Verb::Sync,
                EditVerb::Delete => Verb::Delete,
            },
            kind: match edit.kind {
                EditKind::Vnet => Kind::Vnet,
                EditKind::Subnet => Kind::Subnet,
                EditKind::Peering => Kind::Peering,
                EditKind::Nsg => Kind::Nsg,
                EditKind::Rule => Kind::Rule,
                EditKind::RouteTable => Kind::RouteTable,
                EditKind::Route => Kind::Route,
            },
            parent: edit.parent,
            name: edit.name,
            properties: edit.properties,
        }
    }
}

/// `POST /v1/probe`: one packet exchange between real sockets. Names are resolved by the client:
/// only namespaces and addresses are left here.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeRequest {
    /// Namespace of the sender: a VM, a VNet with a port, or `internet`.
    pub from: String,
    /// Address the sender binds; the sender's kernel must own it.
    pub source: IpAddr,
    /// Namespace of the receiver, where a listener is started; None for an address nobody owns.
    pub to: Option<String>,
    /// What the sender connects to.
    pub destination: IpAddr,
    /// What the receiver binds; None: the destination. It differs only when the fabric rewrites the destination (`publicIPAddress`).
    #[serde(default)]
    pub listen: Option<IpAddr>,
    /// Whoever may get the packet where the destination is a load balancer's, instead of `to`.
    #[serde(default)]
    pub backends: Vec<ProbeBackend>,
    pub protocol: ProbeProtocol,
    /// Destination port; 0 for Icmp.
    #[serde(default)]
    pub port: u16,
    /// None: 50000, or any free one when that is in use.
    #[serde(default)]
    pub source_port: Option<u16>,
}

/// One place where a balanced packet may arrive.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeBackend {
    /// A VM, or a VNet with a port.
    pub namespace: String,
    pub address: IpAddr,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Hash, Serialize)]
pub enum ProbeProtocol {
    Tcp,
    Udp,
    Icmp,
}

/// What the sender's socket saw.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeResult {
    pub result: ProbeOutcome,
    /// For Deny: the engine's drop record of the packet or of its reply; None when the engine dropped neither.
    pub reason: Option<String>,
    /// Where it was dropped.
    pub nic: Option<String>,
    /// `forward`: the packet was dropped; `return`: its reply.
    pub path: Option<String>,
    /// From sending to the answer, for Allow.
    #[serde(rename = "latency_us")]
    pub latency_us: Option<u64>,
    /// The port the sender used, where the protocol has ports.
    pub source_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub enum ProbeOutcome {
    /// Data, or an RST, came back within a second.
    Allow,
    Deny,
}

/// The body of every answer that is not 2xx.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub message: String,
    /// ARM's code of a refused change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}
