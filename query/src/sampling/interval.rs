//! Totals with their 95 % confidence intervals.

/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// An estimated total.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Total {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Total {
    /// A total that is counted.
    #[must_use]
    pub const fn exact(value: f64) -> Self {
        Self { value, low: value, high: value }
    }

    /// The sum with an independent total. Distances to the bounds add as squares, each side by
    /// itself (the method of variance estimates recovery), so that a bound never passes what is
    /// possible as plus-minus would.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let value = self.value + other.value;
        let below = (self.value - self.low).hypot(other.value - other.low);
        let above = (self.high - self.value).hypot(other.high - other.value);
        Self { value, low: value - below, high: value + above }
    }

    /// This many requests times `events / requests` of a sample. The events of one request come
    /// together, `cluster` of them, so they vary like a count of clusters.
    #[must_use]
    pub fn times_mean(self, events: i64, requests: i64, cluster: f64) -> Self {
        if events <= 0 || requests <= 0 || self.value <= 0.0 {
            return Self::exact(0.0);
        }
        let mean = events as f64 / requests as f64;
        let value = self.value * mean;
        let unsampled = (1.0 - requests as f64 / self.value).max(0.0);
        let of_count = (cluster * unsampled / events as f64).sqrt() * Z;
        let below = ((self.value - self.low) / self.value).hypot(of_count);
        let above = ((self.high - self.value) / self.value).hypot(of_count);
        Self { value, low: (value * (1.0 - below)).max(events as f64).min(value), high: value * (1.0 + above) }
    }
}

/// The part of `counted` calls that `of_part` of `sampled` stand for: Wilson's interval, which
/// holds for small samples and for shares near 0 and 1, narrowed by what part was seen at all and
/// widened by `design_effect`.
pub(super) fn share_of(counted: i64, sampled: i64, of_part: i64, design_effect: f64) -> Total {
    let (all, n) = (counted as f64, sampled as f64);
    if sampled <= 0 {
        return Total { value: 0.0, low: 0.0, high: all };
    }
    let share = of_part as f64 / n;
    let unseen = (1.0 - n / all).max(0.0);
    if unseen == 0.0 {
        return Total::exact(of_part as f64);
    }
    let n = n / (design_effect.max(1.0) * unseen);
    let z2 = Z * Z;
    let center = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    Total {
        value: all * share,
        low: all * (center - half).clamp(0.0, share),
        high: all * (center + half).clamp(share, 1.0),
    }
}
