//! An explanation for people: the verdict first, then every hop with what decided there.

use std::fmt::Write;

use control::present::{Drop, Explanation, Hop, HopRoute};
use engine::DropReason;
use model::topology::TestProtocol;

use crate::commands::explain::Explained;
use crate::output::{Cell, Palette, Tone, View};
use crate::probes::Question;

/// The whole picture.
pub(crate) fn text(question: &Question, explained: &Explained, palette: Palette) -> String {
    let explanation = &explained.explanation;
    let mut out = headline(question, explanation, palette);
    let hops = explanation.forward.iter().chain(&explanation.reply);
    let width = hops
        .map(|hop| node(hop).chars().count())
        .max()
        .unwrap_or_default();
    for (title, hops, path) in [
        ("forward", &explanation.forward, "forward"),
        ("return", &explanation.reply, "return"),
    ] {
        let lost = explanation.drop.as_ref().filter(|drop| drop.path == path);
        if hops.is_empty() && lost.is_none() {
            continue;
        }
        let _ = writeln!(out, "\n{}", palette.paint(Tone::Strong, title));
        for (position, hop) in hops.iter().enumerate() {
            let last = position + 1 == hops.len() && lost.is_none();
            write_hop(&mut out, hop, width, last, palette);
        }
        if let Some(drop) = lost {
            write_drop(&mut out, drop, palette);
        }
    }
    if let Some(verified) = &explained.verified {
        let (tone, word) = if verified.agrees {
            (Tone::Good, "agree")
        } else {
            (Tone::Bad, "DIFFER")
        };
        let _ = writeln!(
            out,
            "\n{} {}: {}",
            palette.paint(Tone::Strong, "packets"),
            palette.paint(tone, word),
            verified.packets.text()
        );
    }
    if !explanation.findings.is_empty() {
        let _ = writeln!(out, "\n{}", palette.paint(Tone::Strong, "findings"));
        for finding in &explanation.findings {
            let _ = writeln!(
                out,
                "  {} {}",
                palette.paint(Tone::Notice, &format!("! {}:", finding.code)),
                finding.message
            );
        }
    }
    out
}

/// One row per hop, for tsv.
pub(crate) fn rows(explanation: &Explanation) -> View {
    let row = |path: &'static str, hop: &Hop| {
        let route = hop.route.as_ref().map(route_text).unwrap_or_default();
        let optional = |text: &Option<String>| Cell::from(text.as_deref().unwrap_or_default());
        vec![
            path.into(),
            node(hop).into(),
            hop.direction.into(),
            optional(&hop.nsg),
            optional(&hop.rule),
            route.into(),
            optional(&hop.link),
        ]
    };
    let forward = explanation.forward.iter().map(|hop| row("forward", hop));
    let reply = explanation.reply.iter().map(|hop| row("return", hop));
    let lost = explanation.drop.as_ref().map(|drop| {
        let reason = drop.reason.unwrap_or("guest");
        [drop.path, &drop.at, "Drop", reason]
            .into_iter()
            .map(Cell::from)
            .collect()
    });
    View {
        header: vec!["Path", "NIC", "Direction", "NSG", "Rule", "Route", "Link"],
        rows: forward.chain(reply).chain(lost).collect(),
        ..View::default()
    }
}

fn headline(question: &Question, explanation: &Explanation, palette: Palette) -> String {
    let verdict = if explanation.verdict == "Allow" {
        palette.paint(Tone::Good, "✔ Allow")
    } else {
        palette.paint(Tone::Bad, "✘ Deny")
    };
    let end = |name: &str, address: std::net::IpAddr| {
        let address = address.to_string();
        if name == address {
            address
        } else {
            format!("{} {address}", palette.paint(Tone::Strong, name))
        }
    };
    let what = match (question.protocol, question.port) {
        (TestProtocol::Icmp, _) | (_, None) => format!("{:?}", question.protocol),
        (protocol, Some(port)) => format!("{protocol:?} {port}"),
    };
    let mut line = format!(
        "{verdict}  {} → {}  {what}\n",
        end(&question.from, question.source),
        end(&question.to, question.destination)
    );
    if let Some(drop) = &explanation.drop {
        let _ = writeln!(line, "  {}", drop_text(drop, palette));
    }
    line
}

fn write_hop(out: &mut String, hop: &Hop, width: usize, last: bool, palette: Palette) {
    let (branch, rail) = if last { ("└", " ") } else { ("├", "│") };
    let rail = palette.paint(Tone::Faint, rail);
    let branch = palette.paint(Tone::Faint, branch);
    let arrow = if hop.direction == "Outbound" { "out" } else { "in " };
    let mut decisions = decisions(hop, palette).into_iter();
    let first = decisions.next().unwrap_or_default();
    let name = palette.paint(Tone::Strong, &format!("{:width$}", node(hop)));
    let _ = writeln!(out, "  {branch} {name}  {arrow}  {first}");
    let gap = " ".repeat(width + 7);
    for line in decisions {
        let _ = writeln!(out, "  {rail} {gap}{line}");
    }
}

/// What decided at a hop, one line each: NSGs in the order they were asked, the route, the peering.
fn decisions(hop: &Hop, palette: Palette) -> Vec<String> {
    let mut lines: Vec<String> = hop
        .evaluated
        .iter()
        .map(|said| {
            let (tone, mark) = if said.access == "Allow" {
                (Tone::Good, "✔")
            } else {
                (Tone::Bad, "✘")
            };
            let place = if said.association == "Subnet" {
                "subnet"
            } else {
                "NIC"
            };
            format!(
                "{} NSG {} at the {place}: {}",
                palette.paint(tone, mark),
                said.nsg,
                palette.paint(tone, &said.rule)
            )
        })
        .collect();
    if let Some(choice) = &hop.load_balancer {
        let rule = choice.rule.as_deref().unwrap_or("?");
        let backend = choice.backend.as_deref().unwrap_or("?");
        lines.push(format!(
            "⚖ rule {rule} of frontend {} chose {backend}",
            choice.frontend
        ));
    }
    if lines.is_empty() {
        let by_state = hop.rule.as_deref() == Some("state");
        lines.push(match (by_state, &hop.node) {
            (true, _) => format!("{} passed by state", palette.paint(Tone::Good, "✔")),
            (false, Some(_)) => palette.paint(Tone::Faint, "· no NSG (not a NIC)"),
            (false, None) => palette.paint(Tone::Faint, "· no NSG"),
        });
    }
    lines.extend(
        hop.route
            .as_ref()
            .map(|route| format!("→ route {}", route_text(route))),
    );
    lines.extend(hop.link.as_ref().map(|link| match link.contains('/') {
        true => format!("⇄ peering {link}"),
        false => format!("⇄ connection {link}"),
    }));
    lines
}

/// The end of the path; the headline says it in full.
fn write_drop(out: &mut String, drop: &Drop, palette: Palette) {
    let branch = palette.paint(Tone::Faint, "└");
    let what = palette.paint(
        Tone::Bad,
        &format!("✘ dropped: {}", drop.reason.unwrap_or("in the guest")),
    );
    let _ = writeln!(out, "  {branch} {what}");
}

/// Where and why: `NsgInbound at db-nic: an NSG rule … denies it (db-nsg securityRules/deny-all)`.
fn drop_text(drop: &Drop, palette: Palette) -> String {
    let Some(reason) = drop.reason else {
        let lost = palette.paint(Tone::Bad, &format!("✘ lost behind {}", drop.at));
        return format!("{lost}, on the {} path: the guest does not forward it", drop.path);
    };
    let text = DropReason::ALL
        .iter()
        .find(|known| known.name() == reason)
        .map_or("", |known| known.text());
    let culprit = match (&drop.nsg, &drop.rule, &drop.route) {
        (Some(nsg), Some(rule), _) => format!(" ({nsg} {rule})"),
        (_, _, Some(route)) => format!(" (route {})", route_text(route)),
        _ => String::new(),
    };
    let what = palette.paint(Tone::Bad, &format!("✘ {reason} at {}", drop.at));
    format!("{what}, on the {} path: {text}{culprit}", drop.path)
}

fn route_text(route: &HopRoute) -> String {
    let hops = route.next_hop_ip_address.join(" ");
    let blank = if hops.is_empty() { "" } else { " " };
    format!(
        "{} → {}{blank}{hops} ({})",
        route.address_prefix, route.next_hop_type, route.source
    )
}

fn node(hop: &Hop) -> &str {
    hop.nic.as_deref().or(hop.node.as_deref()).unwrap_or("?")
}
