//! `replay`: a lab without a machine, on a clock of its own.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Write};
use std::net::IpAddr;
use std::path::Path;

use daemon::api::EventResult;
use daemon::replay::{self, InputError, ReplayError, ReplayOptions, Replayed, Sent, Stream, input};
use model::Topology;
use model::topology::Endpoint;

use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref;
use crate::output::{Cell, Output, Tone, View};
use crate::replay_args::ReplayArgs;

type Packets = Box<dyn Iterator<Item = Result<Sent, InputError>>>;

/// Replays, and shows what came of it.
pub(crate) fn replay(args: &ReplayArgs, output: Output) -> Outcome {
    let (file, lab) = match (args.operands.as_slice(), args.generate) {
        ([lab], Some(_)) => (None, lab),
        ([file, lab], None) => (Some(file.as_str()), lab),
        (_, Some(_)) => return Err(Failure::usage("with --generate there is no FILE, only the lab")),
        (_, None) => {
            return Err(Failure::usage("replay needs a FILE of packets and a lab file")
                .help("`peerlane replay traffic.pcap lab.vnet.yaml`, or --generate"));
        }
    };
    let loaded = lab_ref::from_file(lab)?;
    let packets: Packets = match file {
        Some(file) => recorded(file, replay::links(&loaded.topology))?,
        None => Box::new(input::stream(generated(args, &loaded.topology)?)),
    };
    let options = ReplayOptions {
        seed: args.seed,
        vm: args.vm.clone(),
    };
    let mut sink = args.write.as_deref().map(sink).transpose()?;
    let written = sink.as_mut().map(|sink| &mut **sink as &mut dyn Write);
    let replayed = replay::replay(loaded, &options, packets, written).map_err(|error| match error {
        ReplayError::NoVm(_) => Failure::not_found(error),
        _ => Failure::failed(error),
    })?;
    if args.write.as_deref() != Some(Path::new("-")) {
        show(&replayed, output)?;
    }
    Ok(exit::SUCCESS)
}

fn recorded(file: &str, links: Vec<String>) -> Result<Packets, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| Failure::failed(format_args!("{file}: {error}"));
    let reader: Box<dyn Read> = match file {
        "-" => Box::new(io::stdin().lock()),
        path => Box::new(BufReader::new(File::open(path).map_err(
            |error| match error.kind() {
                io::ErrorKind::NotFound => Failure::not_found(format_args!("{file}: {error}")),
                _ => unreadable(&error),
            },
        )?)),
    };
    Ok(Box::new(
        input::file(reader, links).map_err(|error| unreadable(&error))?,
    ))
}

fn sink(path: &Path) -> Result<Box<dyn Write>, Failure> {
    if path != Path::new("-") {
        let file = File::create(path);
        let file =
            file.map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", path.display())))?;
        return Ok(Box::new(BufWriter::new(file)));
    }
    if io::stdout().is_terminal() {
        return Err(Failure::usage("a capture is no text for a terminal").help("name a file: `-w FILE`"));
    }
    Ok(Box::new(BufWriter::new(io::stdout().lock())))
}

fn generated(args: &ReplayArgs, topology: &Topology) -> Result<Stream, Failure> {
    let addresses = |name: &Option<String>| -> Result<Vec<IpAddr>, Failure> {
        let name = name.as_deref().unwrap_or_default();
        let found = match topology.endpoint(name) {
            Ok(Endpoint::Nic(nic)) => topology.nics[nic.0].addresses.clone(),
            Ok(Endpoint::Address(address)) => vec![address],
            Ok(Endpoint::Internet) => topology.internet.clone().unwrap_or_default(),
            Ok(Endpoint::Site(site)) => topology.sites[site.0].addresses.clone(),
            Err(_) => Vec::new(),
        };
        match found.is_empty() {
            true => Err(Failure::not_found(format_args!("the lab has no {name}"))),
            false => Ok(found),
        }
    };
    let (from, to) = (addresses(&args.from)?, addresses(&args.to)?);
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
    let mut pairs = pairs.filter(|(from, to)| from.is_ipv4() == to.is_ipv4());
    let (from, to) = pairs
        .next()
        .ok_or_else(|| Failure::failed("sender and receiver have no address family in common"))?;
    let packets_per_second = args.generate.unwrap_or(1);
    let packets = u128::from(packets_per_second) * u128::from(args.duration) / 1_000_000_000;
    Ok(Stream {
        from,
        to,
        packets_per_second,
        packets: u64::try_from(packets).unwrap_or(u64::MAX),
        size: args.size,
    })
}

fn show(replayed: &Replayed, output: Output) -> Result<(), Failure> {
    output.show(replayed, |_| View {
        header: vec!["What", "Where", "Packets", "Bytes"],
        rows: rows(replayed),
        ..View::default()
    })
}

fn rows(replayed: &Replayed) -> Vec<Vec<Cell>> {
    let row = |tone: Tone, what: &str, at: &str, packets: u64, bytes: Option<u64>| {
        let bytes: Cell = bytes.map_or_else(|| "".into(), Cell::from);
        vec![Cell::new(tone, what), at.into(), packets.into(), bytes]
    };
    let skipped = replayed.skipped.iter();
    let mut rows = vec![row(Tone::Strong, "sent into the lab", "", replayed.packets, None)];
    rows.extend(skipped.map(|it| row(Tone::Notice, "skipped", &it.why, it.packets, None)));
    for it in &replayed.nics {
        rows.push(row(
            Tone::Plain,
            "sent",
            &it.nic,
            it.sent_packets,
            Some(it.sent_bytes),
        ));
        rows.push(row(
            Tone::Good,
            "received",
            &it.nic,
            it.received_packets,
            Some(it.received_bytes),
        ));
    }
    for it in &replayed.links {
        let did = [
            ("lost", it.lost),
            ("duplicated", it.duplicated),
            ("reordered", it.reordered),
            ("corrupted", it.corrupted),
            ("marked", it.marked),
            ("queue full", it.queue_full),
            ("down", it.down),
        ];
        let did = did.into_iter().filter(|(_, packets)| *packets > 0);
        rows.extend(did.map(|(what, packets)| row(Tone::Notice, what, &it.link, packets, None)));
    }
    let links = replayed.links.iter();
    rows.extend(links.map(|it| row(Tone::Plain, "crossed", &it.link, it.packets, Some(it.bytes))));
    rows.extend(replayed.drops.iter().map(|it| {
        let at = it.nic.as_deref().unwrap_or("-");
        row(Tone::Bad, &it.reason, at, it.packets, Some(it.bytes))
    }));
    rows.extend(replayed.events.iter().map(|it| {
        let (tone, state) = match it.state {
            EventResult::Pending => (Tone::Faint, "not reached"),
            EventResult::Done => (Tone::Good, "happened"),
            EventResult::Failed => (Tone::Bad, "failed"),
        };
        let what = format!("{} at {}", it.event, it.at);
        vec![
            Cell::new(tone, state),
            what.into(),
            "".into(),
            it.message.as_deref().unwrap_or_default().into(),
        ]
    }));
    rows
}
