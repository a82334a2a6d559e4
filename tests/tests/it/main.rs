//! The product's tests as a black box, in one binary: one link, one place to look.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod access_logs;
mod answers;
mod buckets;
mod captures;
mod cli;
mod counters;
mod disturbed;
mod durability;
mod edges;
mod envoy;
mod hostile;
mod otlp_metrics;
mod overrides;
mod prometheus;
mod pushed;
mod receive;
mod seed;
mod support;
mod tables;
mod tidy;
mod variants;
