//! `top`: a terminal screen of what a running lab forwards and drops, second by second.

mod app;
mod table;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use app::{App, Next, Sample};
pub(crate) use table::View;
pub(crate) use view::draw;
