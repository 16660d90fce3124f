//! Step 9: what the fabric changes in a packet: addresses at the Internet edge, 1:1, and nothing else (NET-08: no TTL).
//! Reads: the hop's rewrite. Writes: addresses and checksums of the packet.
//! Ends with: nothing today.

use packet::{FlowKey, Headers, Packet, Side, edit};

use crate::route::Hop;

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

    /// The packet that an ICMP error quotes, as its sender, the error's receiver, had sent it. `error` is the
    /// error's own key.
    pub(crate) fn apply_to_quoted(self, quoted: &FlowKey, error: &FlowKey) -> FlowKey {
        let source = self.destination.filter(|_| quoted.source == error.destination);
        let destination = self.source.filter(|_| quoted.destination == error.source);
        Self { source, destination }.apply(quoted)
    }

    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// Puts the hop's addresses into a packet. An ICMP error quotes a packet that went the other way, so what the edge
/// changes on one side of the error it changes on the other side of the quote.
pub(crate) fn rewrite(packet: &mut Packet, headers: &Headers, hop: &Hop) {
    if hop.rewrite.is_none() {
        return;
    }
    let Rewrite { source, destination } = hop.rewrite;
    let quoted = headers
        .quoted
        .map(|quoted| hop.rewrite.apply_to_quoted(&quoted, &headers.key));
    if let Some(source) = source {
        edit::set_address(packet, headers, Side::Source, source);
    }
    if let Some(destination) = destination {
        edit::set_address(packet, headers, Side::Destination, destination);
    }
    if let Some(quoted) = quoted {
        edit::set_quoted_address(packet, headers, Side::Source, quoted.source);
        edit::set_quoted_address(packet, headers, Side::Destination, quoted.destination);
    }
}
