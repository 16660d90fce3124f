//! The parser and the edits, against etherparse and against anything a guest may send.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "../support/mod.rs"]
mod support;

mod edit;
mod fragment;
mod hostile;
mod mss;
mod offload;
mod parse;
mod split;
