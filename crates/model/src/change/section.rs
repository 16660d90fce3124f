//! Objects of one kind by name, whose case does not matter.

use indexmap::IndexMap;

use super::Refusal;
pub(super) use crate::keys::{position, same, value};
use crate::problems::join;
use crate::words::shown;

/// The name as it is declared.
pub(super) fn spelled<T>(map: &IndexMap<String, T>, name: &str) -> Option<String> {
    let (name, _) = map.get_index(position(map, name)?)?;
    Some(name.clone())
}

/// The object, for a change of its parts.
///
/// # Errors
/// `ParentResourceNotFound`.
pub(super) fn find<'a, T>(
    map: &'a mut IndexMap<String, T>,
    at: &str,
    name: &str,
) -> Result<&'a mut T, Refusal> {
    let found = position(map, name).and_then(|index| map.get_index_mut(index));
    found.map(|(_, object)| object).ok_or_else(|| {
        Refusal::new(
            "ParentResourceNotFound",
            join(at, name),
            format!("there is no '{}' in {at}", shown(name)),
        )
        .help("create it first")
    })
}

/// Creates or replaces. Never refused: what the object says is checked with the whole lab.
#[expect(
    clippy::unnecessary_wraps,
    reason = "an operation like those that may be refused"
)]
pub(super) fn put<T: Clone>(map: &mut IndexMap<String, T>, name: &str, object: &T) -> Result<(), Refusal> {
    match position(map, name).and_then(|index| map.get_index_mut(index)) {
        Some((_, old)) => old.clone_from(object),
        None => drop(map.insert(name.to_owned(), object.clone())),
    }
    Ok(())
}

/// # Errors
/// `ResourceNotFound`.
pub(super) fn delete<T>(map: &mut IndexMap<String, T>, at: &str, name: &str) -> Result<(), Refusal> {
    let index = position(map, name).ok_or_else(|| missing(at, name))?;
    map.shift_remove_index(index);
    Ok(())
}

pub(super) fn missing(at: &str, name: &str) -> Refusal {
    Refusal::new(
        "ResourceNotFound",
        join(at, name),
        format!("there is no '{}' in {at}", shown(name)),
    )
}
