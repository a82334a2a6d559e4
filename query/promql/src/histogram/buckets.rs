//! Bucket bounds and walks over buckets.

use std::fmt;

use super::{FloatHistogram, SparseBuckets};
use crate::number::format_general;

/// One bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether the lower bound belongs to it.
    pub lower_inclusive: bool,
    /// Whether the upper bound belongs to it.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.lower_inclusive { '[' } else { '(' };
        let close = if self.upper_inclusive { ']' } else { ')' };
        let (lower, upper) = (format_general(self.lower), format_general(self.upper));
        write!(f, "{open}{lower},{upper}{close}:{}", format_general(self.count))
    }
}

impl FloatHistogram {
    /// The upper bound of the positive bucket `index`.
    pub fn bound(&self, index: i32) -> f64 {
        if self.is_custom() {
            return match usize::try_from(index) {
                Err(_) => f64::NEG_INFINITY,
                Ok(index) => self.custom_values.get(index).copied().unwrap_or(f64::INFINITY),
            };
        }
        exponential_bound(index, self.schema)
    }

    fn positive_bucket(&self, index: i32, count: f64) -> Bucket {
        let (lower, upper) = (self.bound(index - 1), self.bound(index));
        let lower_inclusive = if self.is_custom() { index == 0 } else { lower < 0.0 };
        Bucket { lower, upper, lower_inclusive, upper_inclusive: true, count }
    }

    fn negative_bucket(&self, index: i32, count: f64) -> Bucket {
        let (lower, upper) = (-self.bound(index), -self.bound(index - 1));
        Bucket { lower, upper, lower_inclusive: true, upper_inclusive: false, count }
    }

    /// The zero bucket.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    /// Positive buckets, upwards.
    pub fn positive_buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.positive.iter().map(|(index, count)| self.positive_bucket(*index, *count))
    }

    /// Negative buckets, away from zero.
    pub fn negative_buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.negative.iter().map(|(index, count)| self.negative_bucket(*index, *count))
    }

    /// All buckets upwards; the zero bucket only when it is not empty.
    pub fn all_buckets(&self) -> Vec<Bucket> {
        let mut buckets: Vec<Bucket> = self.negative_buckets().collect();
        buckets.reverse();
        if self.zero_count != 0.0 {
            buckets.push(self.zero_bucket());
        }
        buckets.extend(self.positive_buckets());
        buckets
    }
}

/// The upper bound of an exponential bucket.
pub(super) fn exponential_bound(index: i32, schema: i32) -> f64 {
    // The largest bucket ends at the largest float; beyond it lies only infinity.
    const LARGEST_EXPONENT: i64 = 1024;
    let power = if schema < 0 {
        i64::from(index) << schema.unsigned_abs().min(31)
    } else {
        let per_octave = 1_i64 << schema.min(31);
        let (octave, fraction) = (i64::from(index).div_euclid(per_octave), i64::from(index).rem_euclid(per_octave));
        if fraction != 0 {
            if octave >= LARGEST_EXPONENT {
                return f64::INFINITY;
            }
            return (fraction as f64 / per_octave as f64).exp2() * exp2_integer(octave);
        }
        octave
    };
    match power {
        LARGEST_EXPONENT => f64::MAX,
        _ if power > LARGEST_EXPONENT => f64::INFINITY,
        _ => exp2_integer(power),
    }
}

fn exp2_integer(power: i64) -> f64 {
    f64::from(i32::try_from(power.clamp(-1100, 1100)).unwrap_or(0)).exp2()
}

/// Buckets at a coarser resolution: `steps` halvings of the resolution.
pub(super) fn reduce(buckets: &SparseBuckets, steps: i32) -> SparseBuckets {
    let mut out: SparseBuckets = Vec::with_capacity(buckets.len());
    for (index, count) in buckets {
        let target = ((index - 1) >> steps.min(31)) + 1;
        match out.last_mut() {
            Some((last, sum)) if *last == target => *sum += count,
            _ => out.push((target, *count)),
        }
    }
    out
}
