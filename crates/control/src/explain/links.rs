//! What the links on a packet's way do to it, where that is more than to delay it.

use engine::route::{Hop, PATH_MTU};
use engine::snapshot::{Link, LinkId, Loss};
use model::Topology;
use model::topology::LatencySource;

use crate::compile::Compiled;
use crate::present::Finding;

/// `test` waits this long for an answer.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Findings about every link that the hop crosses.
pub(super) fn findings(topology: &Topology, compiled: &Compiled, hop: &Hop) -> Vec<Finding> {
    let crossed = hop.links(&compiled.snapshot);
    let links = crossed
        .into_iter()
        .filter_map(|id| Some((id, compiled.snapshot.links.get(id.index())?)));
    links
        .flat_map(|(id, link)| of_link(topology, compiled, id, link))
        .collect()
}

fn of_link(topology: &Topology, compiled: &Compiled, id: LinkId, link: &Link) -> Vec<Finding> {
    let Some(origin) = compiled.provenance.links.get(id.index()) else {
        return Vec::new();
    };
    let name = origin.name(topology);
    let mut findings = Vec::new();
    let mut found = |code, message| findings.push(Finding { code, message });
    if link.down {
        let message =
            format!("the link {name} is down: nothing passes; say `down: false` in links, or remove it");
        found("LinkDown", message);
    }
    if link.loses_all() {
        found("LinkLoss", format!("the link {name} loses every packet"));
    } else if link.loss != Loss::None {
        let message = format!("the link {name} loses packets by chance: one that should pass may not arrive");
        found("LinkLoss", message);
    }
    if link.mtu < PATH_MTU {
        let message = format!(
            "the link {name} takes {} bytes, not {PATH_MTU}: of larger packets those with DF are dropped as TooBig, \
             which their sender is told, others travel in fragments",
            link.mtu
        );
        found("PathMtu", message);
    }
    if link.latency_ns >= PATIENCE_NS {
        let message = format!(
            "the link {name} takes {} s: `test` calls that Deny, since it waits 1 s for an answer",
            link.latency_ns as f64 / 1e9
        );
        found("LinkSlow", message);
    }
    if let Some(peering) = origin.peering(topology)
        && peering.latency_source == LatencySource::Estimate
    {
        let message = format!(
            "no latency is published for {name}: {} ms is an estimate from the distance of its regions",
            peering.latency_us as f64 / 1e3
        );
        found("LatencyEstimate", message);
    }
    findings
}
