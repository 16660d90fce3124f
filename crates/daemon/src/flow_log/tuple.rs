//! One line of a flow log: what happened to a flow at a NIC, in Azure's comma-separated form (NSG-40).

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use engine::flow_log::FlowCounts;
use packet::Protocol;

/// Which fields a line has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The first eight, and the beginnings of flows only.
    One,
    Two,
}

/// What a line is about (NSG-41).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A flow begins, or is denied: nothing is counted yet.
    Begin,
    /// A flow goes on; its counts since the line before.
    Continue(FlowCounts),
    /// A flow is over; its counts since the line before.
    End(FlowCounts),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) epoch_seconds: i64,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) protocol: LoggedProtocol,
    /// Seen from the NIC.
    pub(crate) inbound: bool,
    pub(crate) allowed: bool,
    pub(crate) state: State,
}

/// Flow logs know two protocols (NSG-42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoggedProtocol {
    Tcp,
    Udp,
}

impl LoggedProtocol {
    /// None: flows of this protocol are not logged.
    pub(crate) fn of(protocol: Protocol) -> Option<Self> {
        match protocol {
            Protocol::TCP => Some(Self::Tcp),
            Protocol::UDP => Some(Self::Udp),
            _ => None,
        }
    }
}

impl Tuple {
    /// The line, or nothing where this version does not have it.
    pub(crate) fn line(&self, version: Version) -> Option<String> {
        match (version, self.state) {
            (Version::One, State::Begin) => Some(self.common()),
            (Version::One, _) => None,
            (Version::Two, _) => Some(self.to_string()),
        }
    }

    fn common(&self) -> String {
        let protocol = match self.protocol {
            LoggedProtocol::Tcp => 'T',
            LoggedProtocol::Udp => 'U',
        };
        format!(
            "{},{},{},{},{},{protocol},{},{}",
            self.epoch_seconds,
            self.source,
            self.destination,
            self.source_port,
            self.destination_port,
            if self.inbound { 'I' } else { 'O' },
            if self.allowed { 'A' } else { 'D' },
        )
    }
}

impl Display for Tuple {
    fn fmt(&self, line: &mut Formatter<'_>) -> fmt::Result {
        let (letter, counts) = match self.state {
            State::Begin => return write!(line, "{},B,,,,", self.common()),
            State::Continue(counts) => ('C', counts),
            State::End(counts) => ('E', counts),
        };
        let FlowCounts {
            packets_to_destination,
            bytes_to_destination,
            packets_to_source,
            bytes_to_source,
        } = counts;
        write!(
            line,
            "{},{letter},{packets_to_destination},{bytes_to_destination},{packets_to_source},{bytes_to_source}",
            self.common(),
        )
    }
}

#[cfg(test)]
mod tests {
    use engine::flow_log::FlowCounts;

    use super::{LoggedProtocol, State, Tuple, Version};

    /// Reads a line back, field by field.
    fn read(line: &str) -> Tuple {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0);
        let counts = FlowCounts {
            packets_to_destination: number(9),
            bytes_to_destination: number(10),
            packets_to_source: number(11),
            bytes_to_source: number(12),
        };
        Tuple {
            epoch_seconds: fields[0].parse().unwrap(),
            source: fields[1].parse().unwrap(),
            destination: fields[2].parse().unwrap(),
            source_port: fields[3].parse().unwrap(),
            destination_port: fields[4].parse().unwrap(),
            protocol: if fields[5] == "T" {
                LoggedProtocol::Tcp
            } else {
                LoggedProtocol::Udp
            },
            inbound: fields[6] == "I",
            allowed: fields[7] == "A",
            state: match fields.get(8).copied() {
                Some("C") => State::Continue(counts),
                Some("E") => State::End(counts),
                _ => State::Begin,
            },
        }
    }

    /// Shows: NSG-40.
    #[test]
    fn lines_are_those_of_the_published_samples() {
        let vector: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/vectors/flow_log.json")).unwrap();
        let lines = |value: &serde_json::Value| -> Vec<String> {
            let lines = value.as_array().unwrap().iter();
            lines.map(|line| line.as_str().unwrap().to_owned()).collect()
        };
        let second = lines(&vector["valid"]);
        assert_eq!(second.len(), 3);
        for line in second.iter().chain(&lines(&vector["aggregation"]["tuples"])) {
            assert_eq!(read(line).line(Version::Two).as_ref(), Some(line));
        }
        for line in lines(&vector["v1valid"]) {
            assert_eq!(read(&line).line(Version::One), Some(line));
        }
        // The first version knows beginnings only.
        assert_eq!(read(&second[1]).line(Version::One), None);
    }

    #[test]
    fn counts_of_one_flow_add_up_over_its_lines() {
        let vector: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/vectors/flow_log.json")).unwrap();
        let aggregation = &vector["aggregation"];
        let (mut packets, mut bytes) = (0, 0);
        for line in aggregation["tuples"].as_array().unwrap() {
            if let State::Continue(counts) | State::End(counts) = read(line.as_str().unwrap()).state {
                packets += counts.packets_to_destination + counts.packets_to_source;
                bytes += counts.bytes_to_destination + counts.bytes_to_source;
            }
        }
        assert_eq!(aggregation["totalPackets"], packets);
        assert_eq!(aggregation["totalBytes"], bytes);
    }
}
