//! The declared state written back as a lab file.

use crate::config::Config;

/// A lab file that declares `config` and nothing else: what a running lab has become, `peeringState` and
/// `remoteAddressSpace` of its peerings included.
///
/// # Errors
/// What keeps it from being written, which is a defect of ours.
pub fn export(config: &Config) -> Result<String, String> {
    serde_saphyr::to_string(config).map_err(|error| error.to_string())
}
