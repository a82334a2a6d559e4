//! The edges of the topology as Prometheus series, computed from the rollup when they are asked for.
//!
//! Nothing is stored twice: a selection reads the same rows as the topology and turns them into samples. So the
//! series agree with the topology to the last call, reach back as far as the rollup does, and follow revisions.
//!
//! | file | what |
//! |---|---|
//! | `families.rs` | names, help and how each is read out of a rollup row |
//! | `entities.rs` | which series a row belongs to: edge, route, egress, service graph, span metrics |
//! | `increments.rs` | rows → what each series gained in each window |
//! | `points.rs` | at which times samples are made, and what a counter shows then |
//! | `buckets.rs` | the sketch as classic histogram buckets |
//! | `gauges.rs` | the graph of a window as gauges for the node graph panel |
//! | `select.rs` | a selection of PromQL answered from rows |
//! | `exemplars.rs` | the slowest calls with their traces |
//!
//! Invariants:
//! - `increase(x[r])` at `t` is exactly the sum of the windows that start in `[t-r, t)`: the number that
//!   `/api/v1/topology?start=t-r&end=t` shows. Selections for `rate` and `increase` put samples at the edges of the
//!   window to this end (`points.rs`).
//! - Read as they are, counters count from 00:00 UTC, as those of a process that restarts every midnight.
//! - A revision changes the past: within one answer all samples follow the same knowledge, so a counter never falls.

mod buckets;
mod entities;
pub(crate) mod exemplars;
mod families;
mod gauges;
mod increments;
mod points;
mod select;
#[cfg(test)]
mod tests;

pub(crate) use families::families;
pub(crate) use select::{LabelReach, Selection, VirtualSeries, label_sets, matches, names_of, rows_needed, select};
