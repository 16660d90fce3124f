//! What the user declares (`Config`), its validation, and the checked result (`Topology`).

pub mod topology;

pub use topology::Topology;
