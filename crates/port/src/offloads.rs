//! How much work a port leaves to whoever takes its packets, as levels of which each includes the lower ones.

use std::fmt;

use packet::VnetHeader;

/// The level negotiated with the kernel for a TUN. What a port may hand over is what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offloads {
    /// Wire packets with complete checksums.
    None,
    /// Wire packets whose checksum may be partial.
    Checksum,
    /// TCP super-packets.
    Tso,
    /// TCP and UDP super-packets.
    Uso,
}

impl Offloads {
    /// All levels, the one to try first at the front.
    pub const DESCENDING: [Self; 4] = [Self::Uso, Self::Tso, Self::Checksum, Self::None];

    /// The word for it in output and state: `uso`, `tso`, `checksum`, `none`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Checksum => "checksum",
            Self::Tso => "tso",
            Self::Uso => "uso",
        }
    }

    /// The level with this [`Offloads::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::DESCENDING.into_iter().find(|level| level.name() == name)
    }

    /// The lowest level at which a port takes a packet with this vnet header as it is.
    #[inline]
    #[must_use]
    pub const fn needed_by(vnet: &VnetHeader) -> Self {
        match vnet.gso_type {
            VnetHeader::GSO_NONE if vnet.needs_checksum() => Self::Checksum,
            VnetHeader::GSO_NONE => Self::None,
            VnetHeader::GSO_UDP_L4 => Self::Uso,
            _ => Self::Tso,
        }
    }
}

impl fmt::Display for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_level() {
        for level in Offloads::DESCENDING {
            assert_eq!(Offloads::from_name(&level.to_string()), Some(level));
        }
        assert_eq!(Offloads::from_name("USO"), None);
        assert!(Offloads::DESCENDING.is_sorted_by(|a, b| a > b));
    }
}
