//! `histogram </ x` and `histogram >/ x`: the observations below or above a value.
//!
//! A bucket that holds the value is split as a quantile would split it. The sum of what stays is not known, so it is
//! estimated from the middles of the remaining buckets; if nothing is cut off, it stays as it is.

use super::FloatHistogram;
use super::buckets::Bucket;

impl FloatHistogram {
    /// Keeps observations below `bound`.
    pub fn trim_above(&mut self, bound: f64) {
        self.trim(&Cut { bound, keeps_below: true, custom: self.is_custom() });
    }

    /// Keeps observations above `bound`.
    pub fn trim_below(&mut self, bound: f64) {
        self.trim(&Cut { bound, keeps_below: false, custom: self.is_custom() });
    }

    fn trim(&mut self, cut: &Cut) {
        let positive: Vec<Bucket> = self.positive_buckets().collect();
        let negative: Vec<Bucket> = self.negative_buckets().collect();
        let zero = self.narrowed_zero_bucket();
        let mut rest = Rest::default();
        for (slot, bucket) in self.positive.iter_mut().zip(&positive) {
            slot.1 = rest.keep(cut, bucket, cut.custom);
        }
        for (slot, bucket) in self.negative.iter_mut().zip(&negative) {
            slot.1 = rest.keep(cut, bucket, false);
        }
        self.zero_count = rest.keep(cut, &zero, true);
        if rest.removed {
            self.count = rest.count;
            self.sum = rest.sum;
        }
        self.compact();
    }

    /// The zero bucket, taken to hold values of one sign only when all other buckets have that sign.
    fn narrowed_zero_bucket(&self) -> Bucket {
        let mut zero = self.zero_bucket();
        match (self.negative.is_empty(), self.positive.is_empty()) {
            (true, false) => zero.lower = 0.0,
            (false, true) => zero.upper = 0.0,
            (true, true) | (false, false) => {}
        }
        zero
    }
}

/// Where to cut and which side stays.
struct Cut {
    bound: f64,
    keeps_below: bool,
    custom: bool,
}

/// What has stayed so far.
#[derive(Default)]
struct Rest {
    count: f64,
    sum: f64,
    removed: bool,
}

impl Rest {
    /// Takes what stays of a bucket and returns its count.
    fn keep(&mut self, cut: &Cut, bucket: &Bucket, linear: bool) -> f64 {
        if bucket.count == 0.0 {
            return 0.0;
        }
        let (count, value) = cut.remainder(bucket, linear);
        // A bucket moved in value only, because an infinite one ends at the cut now, was cut as well.
        self.removed |= count != bucket.count || value != middle(bucket.lower, bucket.upper, linear);
        self.count += count;
        self.sum += count * value;
        count
    }
}

impl Cut {
    /// How much of a bucket stays, and the value it is taken to have.
    fn remainder(&self, bucket: &Bucket, linear: bool) -> (f64, f64) {
        let (lower, upper) = (bucket.lower, bucket.upper);
        let whole = (bucket.count, middle(lower, upper, linear));
        let (inside, outside) = if self.keeps_below {
            (upper <= self.bound, lower >= self.bound)
        } else {
            (lower >= self.bound, upper <= self.bound)
        };
        if inside {
            return whole;
        }
        if outside {
            return (0.0, 0.0);
        }
        // The first custom bucket starts at zero when it ends above; its part below zero holds nothing.
        let lower = if lower == f64::NEG_INFINITY && upper > 0.0 && upper.is_finite() && self.bound >= 0.0 {
            0.0
        } else {
            lower
        };
        if lower == f64::NEG_INFINITY {
            let below_zero = self.keeps_below && upper <= 0.0;
            return if below_zero { (bucket.count, self.bound) } else { (0.0, 0.0) };
        }
        if upper == f64::INFINITY {
            return if self.keeps_below { (0.0, 0.0) } else { (bucket.count, self.bound) };
        }
        let below = share_below(lower, upper, self.bound, linear) * bucket.count;
        if self.keeps_below {
            (below, middle(lower, self.bound, linear))
        } else {
            (bucket.count - below, middle(self.bound, upper, linear))
        }
    }
}

/// The value observations of a bucket are taken to have.
fn middle(lower: f64, upper: f64, linear: bool) -> f64 {
    match (lower == f64::NEG_INFINITY, upper == f64::INFINITY) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if linear => (lower + upper) / 2.0,
        (false, false) => {
            let magnitude = (lower * upper).sqrt();
            if upper <= 0.0 { -magnitude } else { magnitude }
        }
    }
}

/// The share of a finite bucket at or below a value inside it.
fn share_below(lower: f64, upper: f64, value: f64, linear: bool) -> f64 {
    if linear {
        return (value - lower) / (upper - lower);
    }
    let (from, to, at) = (lower.abs().log2(), upper.abs().log2(), value.abs().log2());
    if lower > 0.0 { (at - from) / (to - from) } else { 1.0 - (at - to) / (from - to) }
}
