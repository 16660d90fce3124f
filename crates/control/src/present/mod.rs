//! The shapes that people and programs see (contract, Azure's own tools); the only module here that knows JSON.

mod explanation;
mod links;
mod load_balancers;
mod peerings;
mod routes;
pub(crate) mod rules;

pub use explanation::{BalancerHop, Drop, Evaluated, Explanation, Finding, Hop, HopRoute};
pub use links::{JitterRow, LinkRow, links};
pub use load_balancers::{LoadBalancerRow, load_balancers};
pub use peerings::{PeeringRow, peerings, peerings_of};
pub(crate) use routes::hop_route;
pub use routes::{EffectiveRoute, EffectiveRoutes, effective_route, effective_routes, route_columns};
pub use rules::{
    Association, EffectiveNsg, EffectiveNsgs, EffectiveRule, Reference, effective_nsgs, resource_id,
};
