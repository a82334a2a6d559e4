//! Topology, latency, traces, SQL and the HTTP API over the store.
//!
//! Invariant: talks to no proxy and reads no file itself; everything comes from a snapshot of the
//! store. Queries run on a runtime of their own.

mod edge_series;
pub mod graph;
pub mod http;
mod prometheus;
pub mod sampling;
pub mod scrape_status;
pub mod series;
pub mod sql;
pub mod topology;
pub mod traces;
