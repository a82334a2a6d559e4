//! The topology answer: a [`Graph`](crate::graph::Graph) in the words of the API.

mod answer;
pub mod format;
mod health;
mod unresolved;

pub use answer::{
    Calls, Decomposition, EdgeAnswer, ErrorShare, Errors, EvidenceAnswer, LatencyAnswer, NodeAnswer, Resilience,
    RouteShare, SideLatency, TlsAnswer, TopologyAnswer, VersionShare, WindowAnswer, edge_id, routes_shown,
};
pub(crate) use answer::{errors_by_class, millis, rfc3339};
pub use health::Health;
pub use unresolved::Unresolved;
