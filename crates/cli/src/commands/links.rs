//! `links`: what each link of a lab is set to do, and of a running lab what it has done.

use control::present::{self, LinkRow};
use daemon::api::LinkCounters;
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::LabArg;
use crate::failure::{Outcome, exit};
use crate::lab_ref::{self, Lab};
use crate::output::{Cell, Output, Tone, View};

/// One direction of a link.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct LinkReport {
    #[serde(flatten)]
    link: LinkRow,
    /// Since the daemon started; null where the lab is a file.
    counters: Option<LinkCounters>,
}

/// Columns of the histogram of how late packets were: titles, and what they end before in nanoseconds.
const LATE: [(&str, u64); 8] = [
    ("<5 us", 5_000),
    ("<20 us", 20_000),
    ("<50 us", 50_000),
    ("<100 us", 100_000),
    ("<200 us", 200_000),
    ("<1 ms", 1_000_000),
    ("<10 ms", 10_000_000),
    ("more", u64::MAX),
];

/// Settings and counters of every link that does something.
pub(crate) fn links(args: &LabArg, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let counted = match &lab.running {
        Some(client) => Some(client.links().map_err(lab_ref::unanswered)?),
        None => None,
    };
    let rows = present::links(&lab.topology).into_iter();
    let reports: Vec<LinkReport> = rows
        .map(|(link, back)| {
            let same = |it: &&LinkCounters| (it.link == link.link) && it.back == back;
            let counters = counted.as_ref();
            let none = || LinkCounters {
                link: link.link.clone(),
                back,
                ..LinkCounters::default()
            };
            let counters = counters.map(|all| all.iter().find(same).cloned().unwrap_or_else(none));
            LinkReport { link, counters }
        })
        .collect();
    output.show(&reports, |_| View {
        header: header(counted.is_some()),
        rows: reports.iter().map(row).collect(),
        text: reports
            .is_empty()
            .then(|| "no link does anything: all peerings are regional, and `links` has none".to_owned()),
        below: lateness(&reports),
    })?;
    Ok(exit::SUCCESS)
}

/// How late packets came out of links, as shares of them; None: none did.
fn lateness(reports: &[LinkReport]) -> Option<Box<View>> {
    let counters = reports.iter().filter_map(|report| report.counters.as_ref());
    let rows: Vec<Vec<Cell>> = counters
        .filter_map(|counters| {
            let late = counters.late.as_ref()?;
            let name = if counters.back { " (back)" } else { "" };
            let mut row = vec![
                Cell::new(Tone::Strong, format!("{}{name}", counters.link)),
                late.packets.into(),
            ];
            row.extend(
                [late.p50_ns, late.p99_ns, late.max_ns].map(|ns| Cell::from(time(ns as f64 / 1000.0))),
            );
            let mut from_ns = 0;
            for (_, end_ns) in LATE {
                let ours = late.histogram.iter();
                let within = ours.filter(|bucket| (from_ns..end_ns).contains(&bucket.at_most_ns));
                let packets: u64 = within.map(|bucket| bucket.packets).sum();
                let share = packets as f64 * 100.0 / late.packets.max(1) as f64;
                row.push(or_none((packets > 0).then(|| format!("{share:.2}%"))).into());
                from_ns = end_ns;
            }
            Some(row)
        })
        .collect();
    let mut header = vec!["Late at", "Packets", "p50", "p99", "Most"];
    header.extend(LATE.iter().map(|(title, _)| *title));
    (!rows.is_empty()).then(|| {
        Box::new(View {
            header,
            rows,
            ..View::default()
        })
    })
}

fn header(counted: bool) -> Vec<&'static str> {
    let mut header = vec!["Link", "From", "To", "Latency", "Jitter", "Loss", "Rate", "Queue"];
    if counted {
        header.extend(["Packets", "Bytes", "Lost", "Queue full", "Waiting"]);
    }
    header
}

fn row(report: &LinkReport) -> Vec<Cell> {
    let link = &report.link;
    let latency = match (link.down, link.latency_source) {
        (true, _) => Cell::new(Tone::Bad, "down"),
        (false, Some("estimate")) => format!("~{} (estimate)", time(link.latency_us)).into(),
        _ => time(link.latency_us).into(),
    };
    let jitter = link.jitter.as_ref();
    let queue = link.queue_bytes.map(|bytes| format!("{bytes} B"));
    let mut cells = vec![
        Cell::new(Tone::Strong, &link.link),
        link.from.as_str().into(),
        link.to.as_str().into(),
        latency,
        or_none(jitter.map(|it| format!("{} {}", time(it.deviation_us), it.distribution))).into(),
        or_none((link.loss > 0.0).then(|| format!("{:.3}%", link.loss * 100.0))).into(),
        or_none(link.rate_bps.map(rate)).into(),
        or_none(queue.or(link.queue_us.map(time))).into(),
    ];
    if let Some(counters) = &report.counters {
        cells.extend([
            counters.packets.into(),
            counters.bytes.into(),
            counters.lost.into(),
            counters.queue_full.into(),
            counters.waiting_packets.into(),
        ]);
    }
    cells
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn time(us: f64) -> String {
    if us == 0.0 {
        "-".to_owned()
    } else if us < 1000.0 {
        format!("{us} us")
    } else {
        format!("{} ms", us / 1000.0)
    }
}

fn rate(bps: u64) -> String {
    let (unit, scale) = match bps {
        1_000_000_000.. => ("Gbit/s", 1e9),
        1_000_000.. => ("Mbit/s", 1e6),
        _ => ("kbit/s", 1e3),
    };
    format!("{} {unit}", bps as f64 / scale)
}
