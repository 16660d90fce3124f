//! The packet path through the crate's public face, on hand-built snapshots.

// `cfg(test)` tells clippy that what is not itself a test may unwrap.
#[cfg(test)]
mod backbone;
#[cfg(test)]
mod balance;
mod capacity;
#[cfg(test)]
mod drops;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod flow_log;
#[cfg(test)]
mod fragment_model;
mod fragments;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod index;
#[cfg(test)]
mod shadow;
#[cfg(test)]
mod state;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod too_big;
