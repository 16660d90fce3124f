//! Step 10: the simulated backbone between two VNets. Today every link is perfect and passes everything at once.
//! Reads: the hop. Writes: nothing.
//! Ends with: nothing today.

use crate::reason::DropReason;
use crate::route::Hop;

/// Sends a packet on its way over the link of the peering it crosses, if it crosses one.
///
/// # Errors
/// None today.
#[inline]
pub(crate) fn pass(_hop: &Hop) -> Result<(), DropReason> {
    Ok(())
}
