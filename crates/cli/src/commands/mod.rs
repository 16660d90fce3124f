//! One module per group of commands.

pub(crate) mod docs;
