//! A synthetic mesh that pushes spans over gRPC and is scraped over HTTP, as real proxies do.
//!
//! | file | what |
//! |---|---|
//! | `mesh.rs` | the services, what they call and how they misbehave |
//! | `traffic.rs`, `random.rs` | the generator: seed and time in, events out; pure |
//! | `span.rs`, `counters.rs` | Envoy's spans and pages |
//! | `truth.rs` | what really happened, to compare answers with |
//! | `fleet.rs` | the proxies at work: batches, pushes, pages |
//! | `screen.rs` | the table in the terminal |

mod counters;
mod fleet;
mod mesh;
mod random;
pub(crate) mod screen;
mod span;
#[cfg(test)]
mod tests;
mod traffic;
mod truth;

pub use fleet::{Driver, Fleet, Progress};
pub use truth::{Truth, TruthCounts, TruthEdge};
