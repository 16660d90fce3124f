//! `meter`: what crossed each peering of a running lab, and its price.

use std::fs;

use daemon::api::Meter;
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::MeterArgs;
use crate::commands::counters;
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref;
use crate::output::{Cell, Output, Tone, View};
use crate::prices::PriceList;

/// One peering, as its own VNet is charged for it (PEER-37). Wire packets and IP bytes.
#[derive(Debug, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Charge {
    /// `vnet/peering`.
    peering: String,
    egress_bytes: u64,
    ingress_bytes: u64,
    egress_packets: u64,
    ingress_packets: u64,
    /// Null where the price list has no zone with the VNet's region.
    usd: Option<f64>,
}

/// Traffic and charges by peering.
pub(crate) fn meter(args: &MeterArgs, output: Output) -> Outcome {
    let prices = match &args.prices {
        None => {
            PriceList::published().map_err(|error| Failure::failed(format_args!("price list: {error}")))?
        }
        Some(file) => {
            let unusable =
                |error: &dyn std::fmt::Display| Failure::failed(format_args!("{}: {error}", file.display()));
            let text = fs::read_to_string(file).map_err(|error| unusable(&error))?;
            PriceList::parse(&text).map_err(|error| unusable(&error))?
        }
    };
    let meters = counters::client(args.lab.as_deref())?
        .meter()
        .map_err(lab_ref::unanswered)?;
    let charges: Vec<Charge> = meters.into_iter().map(|meter| charge(meter, &prices)).collect();
    output.show(&charges, |_| View {
        header: vec![
            "Peering",
            "Egress bytes",
            "Ingress bytes",
            "Egress packets",
            "Ingress packets",
            "USD",
        ],
        rows: charges
            .iter()
            .map(|charge| {
                vec![
                    Cell::new(Tone::Strong, &charge.peering),
                    charge.egress_bytes.into(),
                    charge.ingress_bytes.into(),
                    charge.egress_packets.into(),
                    charge.ingress_packets.into(),
                    charge
                        .usd
                        .map_or_else(|| String::from("-"), |usd| format!("{usd:.6}"))
                        .into(),
                ]
            })
            .collect(),
        ..View::default()
    })?;
    Ok(exit::SUCCESS)
}

fn charge(meter: Meter, prices: &PriceList) -> Charge {
    let usd = prices.usd(
        &meter.location,
        &meter.remote_location,
        meter.egress_bytes,
        meter.ingress_bytes,
    );
    Charge {
        peering: meter.peering,
        egress_bytes: meter.egress_bytes,
        ingress_bytes: meter.ingress_bytes,
        egress_packets: meter.egress_packets,
        ingress_packets: meter.ingress_packets,
        usd,
    }
}
