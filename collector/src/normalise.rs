//! Normalise: what each proxy's telemetry says, in the words of the one model.
//!
//! Everything here is pure: values in, values out. The rules are numbered in the documentation of
//! the model; the id of the rule that decided travels with the value.
//!
//! | file | rules |
//! |---|---|
//! | `normaliser.rs` | a span to a normalised span, by all of the following |
//! | `attrs.rs`, `resource.rs`, `reading.rs` | the attributes the rules look at, read once |
//! | `proxy_kind.rs` | P: which proxy wrote it |
//! | `vantage.rs` | V: from where it was seen |
//! | `identity.rs`, `node_id.rs` | I, N: who the process is |
//! | `cluster.rs`, `host.rs` | C, X: what upstream clusters and hosts name |
//! | `role.rs`, `names.rs` | R1–R3, R6: what the node is on the path |
//! | `destination.rs`, `source.rs` | T, S: where to and from whom |
//! | `outcome.rs` | O, F: how it ended and whose fault that was |
//! | `protocol.rs`, `route.rs` | protocol, encryption, route templates |
//! | `fact.rs` | what other traces say, stored as a span |
//! | `overrides.rs` | what the operator knows better |
//! | `intern.rs` | shared copies of what recurs |

mod attrs;
pub mod cluster;
mod destination;
pub mod fact;
pub mod host;
mod identity;
mod intern;
pub mod names;
pub mod node_id;
mod normaliser;
pub mod outcome;
pub mod overrides;
mod protocol;
mod proxy_kind;
mod reading;
mod resource;
pub(crate) mod role;
pub mod route;
mod source;
pub(crate) mod vantage;

#[cfg(test)]
mod tests;

pub use normaliser::Normaliser;
