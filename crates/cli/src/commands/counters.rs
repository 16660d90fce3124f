//! `drops`, `flows`: what a running lab's engine counts.

use daemon::Client;

use crate::args::LabArg;
use crate::failure::{Outcome, exit};
use crate::lab_ref::{self, LabRef};
use crate::output::{Cell, Output, Tone, View};

/// Lost packets by reason and NIC.
pub(crate) fn drops(args: &LabArg, output: Output) -> Outcome {
    let drops = client(args.lab.as_deref())?
        .drops()
        .map_err(lab_ref::unanswered)?;
    output.show(&drops, |_| View {
        header: vec!["Reason", "NIC", "Packets", "Bytes"],
        rows: drops
            .iter()
            .map(|drop| {
                vec![
                    Cell::new(Tone::Bad, &drop.reason),
                    drop.nic.as_deref().unwrap_or("-").into(),
                    drop.packets.into(),
                    drop.bytes.into(),
                ]
            })
            .collect(),
        ..View::default()
    })?;
    Ok(exit::SUCCESS)
}

/// The records of the flow tables.
pub(crate) fn flows(args: &LabArg, output: Output) -> Outcome {
    let flows = client(args.lab.as_deref())?
        .flows()
        .map_err(lab_ref::unanswered)?;
    output.show(&flows, |_| View {
        header: vec![
            "NIC",
            "Direction",
            "Protocol",
            "Source",
            "Destination",
            "Packets",
            "Bytes",
            "Idle ms",
        ],
        rows: flows
            .iter()
            .map(|flow| {
                let address = |ip, port| std::net::SocketAddr::new(ip, port).to_string();
                vec![
                    flow.nic.as_str().into(),
                    flow.direction.as_str().into(),
                    flow.protocol.as_str().into(),
                    address(flow.source, flow.source_port).into(),
                    address(flow.destination, flow.destination_port).into(),
                    flow.packets.into(),
                    flow.bytes.into(),
                    flow.idle_ms.into(),
                ]
            })
            .collect(),
        ..View::default()
    })?;
    Ok(exit::SUCCESS)
}

pub(crate) fn client(lab: Option<&str>) -> Result<Client, crate::failure::Failure> {
    lab_ref::connect(&lab_ref::running(&LabRef::parse(lab))?)
}
