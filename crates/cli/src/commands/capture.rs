//! `capture`: packets of a running lab as pcapng, into a file or a pipe.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use daemon::api::CaptureRequest;
use pcap_file::PcapError;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgParser};

use crate::capture_args::CaptureArgs;
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::{self, LabRef};
use crate::output::say;

/// Where a capture goes. Only whole blocks are written, so that what is there can be read however it ends.
struct Sink<'a> {
    path: Option<&'a Path>,
    to: Option<Box<dyn Write>>,
    parser: Option<PcapNgParser>,
    /// The beginning of a block.
    rest: Vec<u8>,
    packets: u64,
    missed: u64,
}

/// Captures until Ctrl-C, a limit, or the end of the lab or of the reader.
pub(crate) fn capture(args: &CaptureArgs) -> Outcome {
    let path = args.write.as_deref().filter(|path| *path != Path::new("-"));
    if path.is_none() && io::stdout().is_terminal() {
        return Err(Failure::usage("a capture is no text for a terminal").help(
            "name a file (`-w FILE`), or send it to a program (`| wireshark -k -i -`, `| tcpdump -nr -`)",
        ));
    }
    let (reference, filter) = operands(&args.operands)?;
    let client = lab_ref::connect(&lab_ref::running(&reference)?)?;
    let request = CaptureRequest {
        ports: args.vm.clone(),
        links: args.link.clone(),
        drops: args.drops,
        filter: (!filter.is_empty()).then(|| filter.join(" ")),
        raw: args.raw,
        vxlan: args.vxlan,
        snap_bytes: args.snapshot_length,
        packets: args.count,
        milliseconds: args.duration.map(|seconds| seconds.saturating_mul(1000)),
    };
    let mut sink = Sink {
        path,
        to: None,
        parser: None,
        rest: Vec::new(),
        packets: 0,
        missed: 0,
    };
    let written = client
        .capture(&request, |piece| sink.write(piece))
        .map_err(lab_ref::unanswered)?;
    match written {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            let to = path.map_or_else(
                || String::from("standard output"),
                |path| path.display().to_string(),
            );
            return Err(Failure::failed(format_args!(
                "cannot write the capture to {to}: {error}"
            )));
        }
        Ok(()) => {}
    }
    say(format_args!("{} packets captured", sink.packets));
    if sink.missed > 0 {
        say(format_args!(
            "{} more are missing: they came faster than they were taken",
            sink.missed
        ));
    }
    Ok(exit::SUCCESS)
}

/// LAB where the first word is a file or names a running lab; the rest is the filter.
fn operands(operands: &[String]) -> Result<(LabRef, &[String]), Failure> {
    let Some((first, rest)) = operands.split_first() else {
        return Ok((LabRef::Only, &[]));
    };
    let reference = LabRef::parse(Some(first));
    let is_lab = match &reference {
        LabRef::Running(name) => {
            let labs = daemon::list().map_err(lab_ref::not_up)?;
            // Without any lab running it is that which is to be said.
            labs.is_empty() || labs.iter().any(|lab| lab.name == *name)
        }
        _ => true,
    };
    Ok(match is_lab {
        true => (reference, rest),
        false => (LabRef::Only, operands),
    })
}

impl Sink<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.rest.extend_from_slice(piece);
        let whole = self.whole_blocks()?;
        let to = match &mut self.to {
            Some(to) => to,
            unopened => unopened.insert(match self.path {
                Some(path) => Box::new(File::create(path)?),
                None => Box::new(io::stdout()),
            }),
        };
        to.write_all(&self.rest[..whole])?;
        to.flush()?;
        self.rest.drain(..whole);
        Ok(())
    }

    /// How many bytes of what is there are whole blocks; they are counted.
    fn whole_blocks(&mut self) -> io::Result<usize> {
        let mut source = self.rest.as_slice();
        if self.parser.is_none() {
            match PcapNgParser::new(source) {
                Ok((behind, parser)) => (source, self.parser) = (behind, Some(parser)),
                Err(PcapError::IncompleteBuffer) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        while let Some(parser) = &mut self.parser {
            let block = match parser.next_block(source) {
                Ok((behind, block)) => {
                    source = behind;
                    block
                }
                Err(PcapError::IncompleteBuffer) => break,
                Err(error) => return Err(io::Error::other(error)),
            };
            match block {
                Block::EnhancedPacket(_) => self.packets += 1,
                Block::InterfaceStatistics(statistics) => {
                    self.missed += statistics
                        .options
                        .iter()
                        .map(|option| match option {
                            InterfaceStatisticsOption::IsbIfDrop(missed) => *missed,
                            _ => 0,
                        })
                        .sum::<u64>();
                }
                _ => {}
            }
        }
        Ok(self.rest.len() - source.len())
    }
}
