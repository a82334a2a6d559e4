//! The log of a table after the Delta Lake protocol: which files make up the table at which
//! version, with atomic commits on any object store.
//!
//! ```text
//! <table>/_delta_log/00000000000000000000.json             one commit, one action a line
//! <table>/_delta_log/00000000000000000020.checkpoint.parquet  all live actions up to a version
//! <table>/_delta_log/_last_checkpoint                      which checkpoint to start from
//! ```
//!
//! Written: reader version 1, writer version 2 (plain appends and removals, no table features), so
//! that everything that knows Delta Lake can read the tables while Windrose is not running. Tables
//! that another writer upgraded to features we do not know are refused, not misread.
//!
//! Invariants: a commit exists whole or not at all (conditional put); a commit with an application
//! transaction that the table has seen is not repeated; `action`, `schema` and `state` are pure.

mod action;
mod checkpoint;
mod log;
mod schema;
mod state;
#[cfg(test)]
mod tests;

pub use action::{Action, Add, Metadata, Protocol, Remove, Txn};
pub use log::{Commit, LogError, TableDefinition, TableLog, Version};
pub use schema::delta_schema;
pub use state::TableState;
