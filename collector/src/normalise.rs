//! Normalise: what each proxy's telemetry says, in the words of the one model.
//!
//! Everything here is pure: values in, values out. The rules are numbered in the documentation of
//! the model; the id of the rule that decided travels with the value.

pub mod cluster;
pub mod host;
