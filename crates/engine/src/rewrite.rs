//! Step 9: what the fabric changes in a packet: addresses at the Internet edge, 1:1, and nothing else (NET-08: no TTL).
//! Reads: the hop's rewrite. Writes: addresses and checksums of the packet.
//! Ends with: nothing today.

use packet::FlowKey;

/// Addresses (128-bit form) to put in place of a packet's own. Default: none, the packet passes untouched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub source: Option<u128>,
    pub destination: Option<u128>,
}

impl Rewrite {
    /// The key of the packet as its receiver sees it: what inbound rules are asked about (NSG-15).
    #[must_use]
    pub fn apply(self, key: &FlowKey) -> FlowKey {
        FlowKey {
            source: self.source.unwrap_or(key.source),
            destination: self.destination.unwrap_or(key.destination),
            ..*key
        }
    }

    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}
