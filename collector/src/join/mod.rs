//! The join: `derive` is a pure function of the spans of one trace; the joiner keeps the spans of
//! open traces, derives again what changed and applies the difference.
//!
//! | file | what |
//! |---|---|
//! | `derive/` | spans of one trace → request, hops, verdicts (the trace-level rules) |
//! | `diff.rs` | which hops to take back and which to add |
//! | `editions.rs` | which overrides a trace is read with |
//! | `edge_keys.rs` | keys of edges, shared |
//! | `open_trace.rs` | the spans of one trace that may still grow, without duplicates |
//! | `tenant.rs` | all open traces of one tenant and what they have emitted so far |
//! | `across/` | what traces can tell about each other |
//! | `uses.rs` | what became of every span |
//! | `joiner.rs` | all tenants: ingest, tick, seal hand-over, publication |

mod across;
pub mod derive;
mod diff;
mod edge_keys;
mod editions;
pub mod joiner;
mod open_trace;
mod tenant;
#[cfg(test)]
mod tests;
pub mod uses;
