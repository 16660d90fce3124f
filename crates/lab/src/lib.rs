//! Namespaces, addresses and links by netlink, the keeper, running commands.

pub mod down;
pub mod error;
pub mod exec;
pub mod keeper;
pub mod keeper_client;
mod keeper_programs;
mod keeper_protocol;
mod keeper_service;
pub mod namespace;
pub mod netns_names;
pub mod network;
pub mod rootless;
pub mod route_watch;
pub mod run_dir;
mod source_routing;
pub mod spec;
pub mod static_routes;
mod sysctl;

pub use error::{Error, Result};
pub use keeper_client::{HeldNamespace, Keeper};
pub use namespace::Namespace;
pub use route_watch::{RouteWatch, TableRoute};
pub use run_dir::{LabState, RunDir};
pub use spec::{InterfaceSpec, LabSpec, NamespaceKind, NamespaceSpec, Place};
