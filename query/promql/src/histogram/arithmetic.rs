//! Addition, subtraction and scaling. Differing resolutions meet at the coarser one, differing zero buckets at the
//! wider one, differing custom bounds at the bounds they share.

use std::sync::Arc;

use super::buckets::reduce;
use super::{FloatHistogram, ResetHint, SparseBuckets};

/// Exponential and custom buckets cannot be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncompatibleSchema;

/// What a combination had to do beyond adding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddOutcome {
    /// One side said reset, the other not.
    pub reset_collision: bool,
    /// Custom bounds differed.
    pub bounds_reconciled: bool,
}

impl FloatHistogram {
    /// Multiplies everything; a negative factor makes it a gauge.
    pub fn scale(&mut self, factor: f64) -> &mut Self {
        self.map_counts(|value| value * factor);
        if factor < 0.0 {
            self.hint = ResetHint::Gauge;
        }
        self
    }

    /// Divides everything; a negative divisor makes it a gauge. Division by zero drops the buckets, whose counts
    /// would all be infinite or NaN.
    pub fn divide(&mut self, divisor: f64) -> &mut Self {
        self.map_counts(|value| value / divisor);
        if divisor < 0.0 {
            self.hint = ResetHint::Gauge;
        }
        if divisor == 0.0 {
            self.positive.clear();
            self.negative.clear();
        }
        self
    }

    fn map_counts(&mut self, apply: impl Fn(f64) -> f64) {
        self.zero_count = apply(self.zero_count);
        self.count = apply(self.count);
        self.sum = apply(self.sum);
        for (_, count) in self.positive.iter_mut().chain(&mut self.negative) {
            *count = apply(*count);
        }
    }

    /// Adds another histogram.
    pub fn add(&mut self, other: &Self) -> Result<AddOutcome, IncompatibleSchema> {
        self.combine(other, 1.0)
    }

    /// Subtracts another histogram.
    pub fn subtract(&mut self, other: &Self) -> Result<AddOutcome, IncompatibleSchema> {
        self.combine(other, -1.0)
    }

    fn combine(&mut self, other: &Self, sign: f64) -> Result<AddOutcome, IncompatibleSchema> {
        let mut outcome = AddOutcome::default();
        self.combine_with(other, sign, &mut outcome, &mut |_, sum, value| *sum += value)?;
        Ok(outcome)
    }

    /// Adds with compensation: what each sum loses to rounding gathers in `compensation`, which has the same layout.
    pub fn add_compensated(&mut self, other: &Self, compensation: &mut Self) -> Result<AddOutcome, IncompatibleSchema> {
        let mut outcome = AddOutcome::default();
        let mut lost: Vec<(Slot, f64)> = Vec::new();
        self.combine_with(other, 1.0, &mut outcome, &mut |slot, sum, value| {
            let (total, rest) = crate::eval::kahan::increment(value, *sum, 0.0);
            *sum = total;
            if rest != 0.0 {
                lost.push((slot, rest));
            }
        })?;
        compensation.adopt_layout(self);
        for (slot, rest) in lost {
            match slot {
                Slot::Zero => compensation.zero_count += rest,
                Slot::Count => compensation.count += rest,
                Slot::Sum => compensation.sum += rest,
                Slot::Positive(index) => *entry(&mut compensation.positive, index) += rest,
                Slot::Negative(index) => *entry(&mut compensation.negative, index) += rest,
            }
        }
        Ok(outcome)
    }

    /// Brings a compensation to the layout of its histogram.
    fn adopt_layout(&mut self, main: &Self) {
        if self.schema != main.schema || self.custom_values != main.custom_values {
            if main.is_custom() {
                self.positive = remap_custom(&self.positive, &self.custom_values, &main.custom_values);
            } else {
                *self = self.at_schema(main.schema);
            }
            self.schema = main.schema;
            self.custom_values = Arc::clone(&main.custom_values);
        }
        self.zero_threshold = main.zero_threshold;
    }

    fn combine_with(
        &mut self,
        other: &Self,
        sign: f64,
        outcome: &mut AddOutcome,
        add: &mut dyn FnMut(Slot, &mut f64, f64),
    ) -> Result<(), IncompatibleSchema> {
        if self.is_custom() != other.is_custom() {
            return Err(IncompatibleSchema);
        }
        outcome.reset_collision = self.adjust_hint(other);
        if self.is_custom() {
            add(Slot::Count, &mut self.count, sign * other.count);
            add(Slot::Sum, &mut self.sum, sign * other.sum);
            if self.custom_values == other.custom_values {
                merge(&mut self.positive, &other.positive, sign, Slot::Positive, add);
                return Ok(());
            }
            outcome.bounds_reconciled = true;
            let shared = intersect(&self.custom_values, &other.custom_values);
            self.positive = remap_custom(&self.positive, &self.custom_values, &shared);
            let theirs = remap_custom(&other.positive, &other.custom_values, &shared);
            merge(&mut self.positive, &theirs, sign, Slot::Positive, add);
            self.custom_values = shared;
            return Ok(());
        }
        let their_zero = self.reconcile_zero_buckets(other);
        add(Slot::Zero, &mut self.zero_count, sign * their_zero);
        add(Slot::Count, &mut self.count, sign * other.count);
        add(Slot::Sum, &mut self.sum, sign * other.sum);
        if other.schema < self.schema {
            let steps = self.schema - other.schema;
            self.positive = reduce(&self.positive, steps);
            self.negative = reduce(&self.negative, steps);
            self.schema = other.schema;
        }
        let outside = |buckets: &SparseBuckets| -> SparseBuckets {
            let kept = buckets.iter().filter(|(index, _)| other.bound(index - 1) >= self.zero_threshold).copied();
            let kept: SparseBuckets = kept.collect();
            if other.schema > self.schema { reduce(&kept, other.schema - self.schema) } else { kept }
        };
        let (positive, negative) = (outside(&other.positive), outside(&other.negative));
        merge(&mut self.positive, &positive, sign, Slot::Positive, add);
        merge(&mut self.negative, &negative, sign, Slot::Negative, add);
        Ok(())
    }

    /// Settles the hint of the result; true when the two contradict each other.
    fn adjust_hint(&mut self, other: &Self) -> bool {
        use ResetHint::{Gauge, NotReset, Reset, Unknown};
        let (hint, collision) = match (self.hint, other.hint) {
            (mine, theirs) if mine == theirs => (mine, false),
            (Gauge, _) | (_, Gauge) => (Gauge, false),
            (Unknown, _) | (_, Unknown) => (Unknown, false),
            (Reset | NotReset, _) => (Unknown, true),
        };
        self.hint = hint;
        collision
    }

    /// Widens the zero bucket of `self` as needed and returns the zero count of `other` at that width.
    fn reconcile_zero_buckets(&mut self, other: &Self) -> f64 {
        let (mut count, mut threshold) = (other.zero_count, other.zero_threshold);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (count, threshold) = other.zero_count_at(self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                let (mine, wider) = self.zero_count_at(threshold);
                (self.zero_count, self.zero_threshold) = (mine, wider);
                let schema = self.schema;
                for buckets in [&mut self.positive, &mut self.negative] {
                    buckets.retain(|(index, _)| super::buckets::exponential_bound(index - 1, schema) >= wider);
                }
            }
            // A NaN threshold never equals anything; give up rather than spin.
            if threshold.is_nan() || self.zero_threshold.is_nan() {
                break;
            }
        }
        count
    }

    /// The zero count if the zero bucket were at least `threshold` wide; the width grows to the end of any bucket it
    /// would cut.
    pub(super) fn zero_count_at(&self, threshold: f64) -> (f64, f64) {
        let mut threshold = threshold;
        loop {
            let mut count = self.zero_count;
            let mut wider = threshold;
            for (index, bucket) in self.positive.iter().chain(&self.negative) {
                let (lower, upper) = (self.bound(index - 1), self.bound(*index));
                if lower >= threshold {
                    continue;
                }
                count += bucket;
                if upper > threshold && *bucket != 0.0 {
                    wider = wider.max(upper);
                }
            }
            if wider == threshold {
                return (count, threshold);
            }
            threshold = wider;
        }
    }

    /// A copy at a coarser resolution.
    #[must_use]
    pub fn at_schema(&self, schema: i32) -> Self {
        let mut copy = self.clone();
        if !self.is_custom() && schema < self.schema {
            let steps = self.schema - schema;
            copy.positive = reduce(&self.positive, steps);
            copy.negative = reduce(&self.negative, steps);
            copy.schema = schema;
        }
        copy
    }

    /// Whether a count or the sum is infinite.
    pub fn has_overflow(&self) -> bool {
        self.zero_count.is_infinite()
            || self.count.is_infinite()
            || self.sum.is_infinite()
            || self.positive.iter().chain(&self.negative).any(|(_, count)| count.is_infinite())
    }
}

/// The field a value is added to.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Zero,
    Count,
    Sum,
    Positive(i32),
    Negative(i32),
}

fn entry(buckets: &mut SparseBuckets, index: i32) -> &mut f64 {
    let at = match buckets.binary_search_by_key(&index, |(index, _)| *index) {
        Ok(at) => at,
        Err(at) => {
            buckets.insert(at, (index, 0.0));
            at
        }
    };
    &mut buckets[at].1
}

fn merge(
    mine: &mut SparseBuckets,
    theirs: &SparseBuckets,
    sign: f64,
    slot: fn(i32) -> Slot,
    add: &mut dyn FnMut(Slot, &mut f64, f64),
) {
    for (index, count) in theirs {
        add(slot(*index), entry(mine, *index), sign * count);
    }
}

/// The bounds both have.
pub(super) fn intersect(a: &[f64], b: &[f64]) -> Arc<[f64]> {
    a.iter().copied().filter(|bound| b.contains(bound)).collect()
}

/// Moves custom buckets to a subset of their bounds.
pub(super) fn remap_custom(buckets: &SparseBuckets, from: &[f64], to: &[f64]) -> SparseBuckets {
    let mut out: SparseBuckets = Vec::with_capacity(buckets.len());
    for (index, count) in buckets {
        let upper = usize::try_from(*index).ok().and_then(|index| from.get(index)).copied().unwrap_or(f64::INFINITY);
        let target = to.iter().position(|bound| *bound >= upper).unwrap_or(to.len());
        *entry(&mut out, i32::try_from(target).unwrap_or(i32::MAX)) += count;
    }
    out
}
