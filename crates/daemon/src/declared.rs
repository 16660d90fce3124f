//! The lab file that declares what runs: it stays with the keeper, beyond the life of a daemon.

use lab::{HeldLab, LabSpec};

use crate::api::LabFile;
use crate::up::UpError;

/// For the keeper.
///
/// # Errors
/// None that is known.
pub(crate) fn hold(file: &LabFile, spec: &LabSpec) -> Result<HeldLab, UpError> {
    let declared = serde_json::to_string(file)
        .map_err(|error| UpError::failed(format!("cannot write down what the lab is: {error}")))?;
    Ok(HeldLab {
        spec: spec.clone(),
        declared,
    })
}

/// From the keeper.
///
/// # Errors
/// Another version wrote it otherwise.
pub(crate) fn held(lab: &HeldLab) -> Result<LabFile, UpError> {
    serde_json::from_str(&lab.declared).map_err(|error| {
        let name = &lab.spec.name;
        UpError::failed(format!("what lab {name} is cannot be read: {error}"))
            .with_remedy(format!("`peerlane down {name}` ends it"))
    })
}

/// The checked model.
///
/// # Errors
/// It is refused; with the first of its errors.
pub(crate) fn load(file: &LabFile) -> Result<model::Loaded, UpError> {
    let source = model::Source::Text {
        name: file.file.clone(),
        text: file.text.clone(),
    };
    model::reload(source).map_err(|errors| {
        let first = errors.errors.first().map(ToString::to_string).unwrap_or_default();
        UpError::failed(format!("the lab file is not valid: {first}"))
            .with_remedy("`peerlane validate` shows all its errors")
    })
}
