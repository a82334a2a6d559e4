//! The graph: sums of rollup rows merged into nodes and edges of one scope. Everything the API says about
//! topology, latency, routes and egress is read from here; cost depends on edges and
//! their routes, never on traffic.
//!
//! | file | what |
//! |---|---|
//! | `names.rs` | which rollup nodes are the same node (aliases, missing namespaces and clusters) |
//! | `aggregate.rs` | sums of rows → [`Graph`] |
//! | `routes.rs` | the public routes of a graph, by number |
//! | `unsplit.rs` | counters of a service as a whole beside edges to its parts |
//! | `select.rs` | focus, namespace, direction and route filters |

mod aggregate;
mod names;
mod routes;
mod select;
#[cfg(test)]
mod tests;
mod unsplit;

pub(crate) use aggregate::ratio;
pub use aggregate::{EdgeTotals, Graph, NodeTotals, RouteTotals, Traffic, Volume, VolumeSource};
pub use names::{NodeId, Resolver, Scope};
pub use routes::{RouteId, Routes};
pub use select::{FocusDirection, Selection};
