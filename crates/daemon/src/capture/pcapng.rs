//! A capture as pcapng: one interface per port and link, times in nanoseconds, what became of a packet as its comment.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use packet::{Packet, split};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};
use port::{WriteError, gso};

use super::names::Places;
use super::tap::{Direction, Fate, Place, Record};
use super::vxlan;

/// Nanoseconds, as a power of ten.
const NANOSECONDS: u8 = 9;
/// No packet is longer: an IPv6 payload of 65,535 bytes and all headers around it.
const LONGEST: u32 = 1 << 18;

/// What a super-packet, and a packet on a link, looks like in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As its segments, checksums finished.
    Segments,
    /// As it was read.
    AsRead,
    /// As its segments, each in VXLAN.
    Vxlan,
}

/// How much of which packets is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of each packet.
    pub(crate) bytes: u32,
    /// Packets that may still be written.
    pub(crate) packets: u64,
}

/// Writes blocks into memory, from where [`Writer::take`] takes them.
pub(crate) struct Writer {
    blocks: PcapNgWriter<Vec<u8>>,
    interfaces: BTreeMap<Place, Interface>,
    form: Form,
    limits: Limits,
    /// What to add to CLOCK_MONOTONIC for the time of day.
    epoch_ns: u64,
    whole: Packet,
    segment: Packet,
    fragment: Packet,
    frame: Vec<u8>,
}

#[derive(Debug)]
struct Interface {
    id: u32,
    /// Wire packets written.
    written: u64,
    /// Wire packets that did not fit into the ring.
    missed: u64,
}

impl Writer {
    pub(crate) fn new(form: Form, limits: Limits, epoch_ns: u64) -> Result<Self, PcapError> {
        let section = SectionHeaderBlock {
            // The crate writes the two halves of a statistics block's time in the order of this byte order only.
            endianness: Endianness::Big,
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(concat!(
                "peerlane ",
                env!("CARGO_PKG_VERSION")
            )))],
            ..SectionHeaderBlock::default()
        };
        Ok(Self {
            blocks: PcapNgWriter::with_section_header(Vec::new(), section)?,
            interfaces: BTreeMap::new(),
            form,
            limits,
            epoch_ns,
            whole: Packet::new(),
            segment: Packet::new(),
            fragment: Packet::new(),
            frame: Vec::new(),
        })
    }

    /// Whether as many packets are written as were asked for.
    pub(crate) fn is_full(&self) -> bool {
        self.limits.packets == 0
    }

    /// Bytes that wait to be taken.
    pub(crate) fn waiting(&self) -> usize {
        self.blocks.get_ref().len()
    }

    /// Whole blocks.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.blocks.get_mut())
    }

    /// Describes a place before its first packet, once.
    pub(crate) fn describe(&mut self, place: Place, places: &Places) -> Result<u32, PcapError> {
        if let Some(interface) = self.interfaces.get(&place) {
            return Ok(interface.id);
        }
        let text = |text: &str| Cow::Owned(text.to_owned());
        let mut options = vec![InterfaceDescriptionOption::IfName(text(places.name(place)))];
        let description = places.get(place).map_or("", |named| &named.description);
        if !description.is_empty() {
            options.push(InterfaceDescriptionOption::IfDescription(text(description)));
        }
        options.push(InterfaceDescriptionOption::IfTsResol(NANOSECONDS));
        self.blocks.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: match self.form {
                Form::Vxlan => DataLink::ETHERNET,
                Form::Segments | Form::AsRead => DataLink::RAW,
            },
            snaplen: self.limits.bytes.min(LONGEST),
            options,
        })?;
        let id = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        let interface = Interface {
            id,
            written: 0,
            missed: 0,
        };
        self.interfaces.insert(place, interface);
        Ok(id)
    }

    /// Writes the wire packets of a record.
    pub(crate) fn write(&mut self, record: &Record, places: &Places) -> Result<(), PcapError> {
        let interface = self.describe(record.place, places)?;
        let comment = comment(record.fate, places);
        let ends = places.get(record.place).and_then(|named| named.ends);
        let Self {
            blocks,
            form,
            limits,
            frame,
            whole,
            segment,
            fragment,
            ..
        } = self;
        let (mut written, mut missed, mut result) = (0, record.missed, Ok(()));
        let timestamp = Duration::from_nanos(self.epoch_ns + record.at_ns);
        let mut emit = |bytes: &[u8]| {
            if limits.packets == 0 || result.is_err() {
                return;
            }
            let mut original = bytes.len();
            let mut data = bytes;
            if let (Form::Vxlan, Some((from, to))) = (*form, ends) {
                vxlan::encapsulate(&bytes[..bytes.len().min(vxlan::LONGEST)], from, to, frame);
                original = frame.len();
                data = frame.as_slice();
            }
            let cut = data.len().min(limits.bytes as usize);
            let mut options = vec![
                EnhancedPacketOption::Comment(Cow::Borrowed(&comment)),
                EnhancedPacketOption::Flags(match record.direction {
                    Direction::Inbound => 1,
                    Direction::Outbound => 2,
                }),
            ];
            if missed > 0 {
                options.push(EnhancedPacketOption::DropCount(std::mem::take(&mut missed)));
            }
            let block = EnhancedPacketBlock {
                interface_id: interface,
                timestamp,
                original_len: u32::try_from(original).unwrap_or(u32::MAX),
                data: Cow::Borrowed(&data[..cut]),
                options,
            };
            result = blocks.write_pcapng_block(block).map(drop);
            limits.packets -= 1;
            written += 1;
        };
        let wire = if *form == Form::AsRead {
            Err(WriteError::Refused)
        } else {
            whole.copy_from(&record.bytes, record.vnet);
            gso::segments(whole, segment, |segment| {
                let Some(mtu) = record.fragment else {
                    emit(segment.bytes());
                    return Ok(());
                };
                split::fragments(segment, mtu, fragment, |fragment| {
                    emit(fragment.bytes());
                    Ok::<_, WriteError>(())
                })
            })
        };
        if wire.is_err() {
            // What cannot be read has no segments; nothing of it was written yet.
            emit(&record.bytes);
        }
        if let Some(interface) = self.interfaces.get_mut(&record.place) {
            interface.written += written;
            interface.missed += record.missed;
        }
        result
    }

    /// Writes what each interface came to; `missed` was not told of yet.
    pub(crate) fn finish(
        &mut self,
        now_ns: u64,
        missed: &HashMap<Place, u64>,
        places: &Places,
    ) -> Result<(), PcapError> {
        for place in missed.keys() {
            self.describe(*place, places)?;
        }
        for (place, interface) in &self.interfaces {
            let missed = interface.missed + missed.get(place).copied().unwrap_or(0);
            self.blocks.write_pcapng_block(InterfaceStatisticsBlock {
                interface_id: interface.id,
                timestamp: self.epoch_ns + now_ns,
                options: vec![
                    InterfaceStatisticsOption::IsbIfRecv(interface.written + missed),
                    InterfaceStatisticsOption::IsbIfDrop(missed),
                ],
            })?;
        }
        Ok(())
    }
}

/// What became of a packet. `Drop REASON` stands once for every packet that is lost.
fn comment(fate: Fate, places: &Places) -> String {
    match fate {
        Fate::Passed => String::from("Forward"),
        Fate::To(port) => format!("Forward to {}", places.name(Place::Port(port))),
        Fate::Over(link) => format!("Forward over {}", places.name(Place::Link(link))),
        Fate::LostOver(link, reason) => {
            format!(
                "Forward over {}, lost there: {}",
                places.name(Place::Link(link)),
                reason.name()
            )
        }
        Fate::Lost(reason, nic) => {
            let nic = nic.and_then(|nic| places.nic(nic));
            let at = nic.map_or_else(String::new, |nic| format!(" at {nic}"));
            format!("Drop {}{at}: {}", reason.name(), reason.text())
        }
        Fate::OfFabric => String::from("From the fabric"),
    }
}
