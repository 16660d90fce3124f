//! One module per group of commands.

pub(crate) mod balancers;
pub(crate) mod bench;
pub(crate) mod capture;
pub(crate) mod change;
pub(crate) mod counters;
pub(crate) mod docs;
pub(crate) mod doctor;
pub(crate) mod edit;
pub(crate) mod event;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod links;
pub(crate) mod meter;
pub(crate) mod path_view;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod test;
pub(crate) mod top;
pub(crate) mod validate;
pub(crate) mod watch;
pub(crate) mod watcher;
