//! Counter resets between two histograms.

use super::arithmetic::{intersect, remap_custom};
use super::buckets::reduce;
use super::{FloatHistogram, ResetHint, SparseBuckets};

impl FloatHistogram {
    /// Whether the counter behind both was reset after `previous`: any count went down, or the layout changed in a
    /// way a running counter never does.
    pub fn detect_reset(&self, previous: &Self) -> bool {
        match self.hint {
            ResetHint::Reset => return true,
            ResetHint::NotReset => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.is_custom() != previous.is_custom() || self.count < previous.count {
            return true;
        }
        if self.is_custom() {
            if self.custom_values == previous.custom_values {
                return any_decrease(&self.positive, &previous.positive);
            }
            let shared = intersect(&self.custom_values, &previous.custom_values);
            return any_decrease(
                &remap_custom(&self.positive, &self.custom_values, &shared),
                &remap_custom(&previous.positive, &previous.custom_values, &shared),
            );
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero_count, threshold) = previous.zero_count_at(self.zero_threshold);
        if threshold != self.zero_threshold || self.zero_count < zero_count {
            return true;
        }
        let at_mine = |buckets: &SparseBuckets| -> SparseBuckets {
            let outside = buckets.iter().filter(|(index, _)| previous.bound(index - 1) >= self.zero_threshold);
            reduce(&outside.copied().collect(), previous.schema - self.schema)
        };
        any_decrease(&self.positive, &at_mine(&previous.positive))
            || any_decrease(&self.negative, &at_mine(&previous.negative))
    }
}

fn any_decrease(current: &SparseBuckets, previous: &SparseBuckets) -> bool {
    previous.iter().any(|(index, before)| {
        let now = current.binary_search_by_key(index, |(index, _)| *index).map_or(0.0, |at| current[at].1);
        now < *before
    })
}
