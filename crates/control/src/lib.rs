//! Topology -> effective routes and rules -> Snapshot; explain.
