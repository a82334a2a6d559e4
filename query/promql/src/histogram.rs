//! Native histograms with float counts: exponential buckets and custom ones, in one sparse representation.
//!
//! Buckets are `(index, count)` pairs in index order; a missing index is an empty bucket. For exponential schemas
//! bucket `i` covers `(bound(i-1), bound(i)]` mirrored for negative values; for custom buckets bucket `i` ends at
//! `custom_values[i]` and the last one at infinity.

mod arithmetic;
mod buckets;
mod reset;
#[cfg(test)]
mod tests;
mod trim;

use std::fmt;
use std::sync::Arc;

pub use arithmetic::{AddOutcome, IncompatibleSchema};
pub use buckets::Bucket;

use crate::number::format_general;

/// The schema number that stands for custom buckets.
pub const CUSTOM_SCHEMA: i32 = -53;

/// What is known about counter resets before this sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHint {
    /// Nothing.
    #[default]
    Unknown,
    /// There was one.
    Reset,
    /// There was none.
    NotReset,
    /// It is a gauge; resets mean nothing.
    Gauge,
}

/// Buckets of one sign in index order.
pub type SparseBuckets = Vec<(i32, f64)>;

/// A native histogram.
#[derive(Clone, Debug, Default)]
pub struct FloatHistogram {
    /// Resolution: buckets grow by the factor `2^(2^-schema)`; [`CUSTOM_SCHEMA`] for custom buckets.
    pub schema: i32,
    /// Reset information.
    pub hint: ResetHint,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations.
    pub sum: f64,
    /// Buckets of positive values, or all custom buckets.
    pub positive: SparseBuckets,
    /// Buckets of negative values.
    pub negative: SparseBuckets,
    /// Upper bounds of custom buckets but the last.
    pub custom_values: Arc<[f64]>,
}

impl FloatHistogram {
    /// Whether the buckets are custom ones.
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Whether this is a staleness marker.
    pub fn is_stale(&self) -> bool {
        crate::value::is_absent(self.sum)
    }

    /// Drops empty buckets.
    pub fn compact(&mut self) {
        self.positive.retain(|(_, count)| *count != 0.0);
        self.negative.retain(|(_, count)| *count != 0.0);
    }

    /// Bit-for-bit equality of everything but the reset hint; empty buckets do not count.
    pub fn equals(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let same_buckets = |a: &SparseBuckets, b: &SparseBuckets| {
            let full = |list: &SparseBuckets| -> Vec<(i32, u64)> {
                list.iter().filter(|(_, count)| *count != 0.0).map(|(index, count)| (*index, count.to_bits())).collect()
            };
            full(a) == full(b)
        };
        self.schema == other.schema
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && (self.is_custom()
                || (same(self.zero_threshold, other.zero_threshold) && same(self.zero_count, other.zero_count)))
            && self.custom_values.len() == other.custom_values.len()
            && self.custom_values.iter().zip(other.custom_values.iter()).all(|(a, b)| same(*a, *b))
            && same_buckets(&self.positive, &other.positive)
            && same_buckets(&self.negative, &other.negative)
    }

    /// Approximate size in samples, for limits: a float is one.
    pub fn weight(&self) -> usize {
        // One for the fixed fields and one per two buckets: 16 bytes each against 16 bytes of a float point.
        8 + self.positive.len() + self.negative.len()
    }
}

impl PartialEq for FloatHistogram {
    fn eq(&self, other: &Self) -> bool {
        self.equals(other) && self.hint == other.hint
    }
}

impl fmt::Display for FloatHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", format_general(self.count), format_general(self.sum))?;
        for bucket in self.all_buckets().into_iter().filter(|bucket| bucket.count != 0.0) {
            write!(f, ", {bucket}")?;
        }
        f.write_str("}")
    }
}
