//! Latency sketch: an exponential histogram with growth 2^(1/16).
//!
//! Bucket `i` holds values in `[2^(i/16), 2^((i+1)/16))` nanoseconds, so a value read back as the
//! geometric middle of its bucket is off by at most 2.2 %. Merging is addition, so a sketch can be
//! subtracted again, and it converts to a Prometheus native histogram of schema 4 by relabelling.
//!
//! Invariant: `counts` is sorted by bucket and holds no zero. Counts are signed because a
//! correction row may take away what an earlier row added.

/// Sub-buckets per power of two.
const PER_OCTAVE: u32 = 16;
/// log2 of [`PER_OCTAVE`].
const OCTAVE_BITS: u32 = 4;

/// Bucket number of a latency; `0 ..= 1023`. Values of 0 and 1 ns share bucket 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub u16);

impl Bucket {
    /// The bucket of `nanos`.
    #[must_use]
    pub fn of(nanos: u64) -> Self {
        if nanos <= 1 {
            return Self(0);
        }
        let octave = nanos.ilog2();
        // The fraction in [1, 2) with 53 significant bits is exact enough to find the sixteenth:
        // a value on a boundary may land one bucket off by one part in 2^52.
        let fraction = nanos as f64 / (1_u64 << octave) as f64;
        let boundary = SIXTEENTHS.partition_point(|bound| *bound <= fraction) as u32;
        Self((octave * PER_OCTAVE + boundary.saturating_sub(1)) as u16)
    }

    /// Lower bound in nanoseconds (inclusive).
    #[must_use]
    pub fn lower_nanos(self) -> f64 {
        let octave = u32::from(self.0) >> OCTAVE_BITS;
        SIXTEENTHS[usize::from(self.0) % PER_OCTAVE as usize] * f64::from(octave).exp2()
    }

    /// Upper bound in nanoseconds (exclusive).
    #[must_use]
    pub fn upper_nanos(self) -> f64 {
        Self(self.0 + 1).lower_nanos()
    }

    /// The value a member of the bucket is read back as: the geometric middle.
    #[must_use]
    pub fn middle_nanos(self) -> f64 {
        (self.lower_nanos() * self.upper_nanos()).sqrt()
    }
}

/// 2^(i/16) for i in 0..16.
const SIXTEENTHS: [f64; 16] = [
    1.0,
    1.044_273_782_427_413_8,
    1.090_507_732_665_257_7,
    1.138_788_634_756_691_7,
    1.189_207_115_002_721,
    1.241_857_812_073_484,
    1.296_839_554_651_009_6,
    1.354_255_546_936_892_7,
    std::f64::consts::SQRT_2,
    1.476_826_145_939_499_3,
    1.542_210_825_407_940_8,
    1.610_490_331_949_254_3,
    1.681_792_830_507_429,
    1.756_252_160_373_299_5,
    1.834_008_086_409_342_4,
    1.915_206_561_397_147_2,
];

/// A mergeable, subtractable distribution of latencies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sketch {
    counts: Vec<(Bucket, i64)>,
}

impl Sketch {
    /// Adds `count` observations (negative: takes them away).
    pub fn add(&mut self, nanos: u64, count: i64) {
        self.add_to(Bucket::of(nanos), count);
    }

    fn add_to(&mut self, bucket: Bucket, count: i64) {
        match self.counts.binary_search_by_key(&bucket, |(at, _)| *at) {
            Ok(place) => {
                self.counts[place].1 += count;
                if self.counts[place].1 == 0 {
                    self.counts.remove(place);
                }
            }
            Err(place) if count != 0 => self.counts.insert(place, (bucket, count)),
            Err(_) => {}
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, 1);
    }

    /// Takes all of `other` away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, -1);
    }

    /// One pass over both lists: adding up the windows of an edge is what a topology answer mostly
    /// does, and after the first few windows its buckets are all there already.
    fn combine(&mut self, other: &Self, sign: i64) {
        let (mut place, mut missing, mut has_zero) = (0, 0, false);
        for (bucket, count) in &other.counts {
            while self.counts.get(place).is_some_and(|(at, _)| at < bucket) {
                place += 1;
            }
            match self.counts.get_mut(place) {
                Some((at, sum)) if at == bucket => {
                    *sum += sign * count;
                    has_zero |= *sum == 0;
                }
                _ => missing += 1,
            }
        }
        if missing > 0 {
            self.insert_missing(other, sign, missing);
        }
        if has_zero {
            self.counts.retain(|(_, count)| *count != 0);
        }
    }

    /// Inserts the buckets of `other` that are not here, of which there are `missing`.
    fn insert_missing(&mut self, other: &Self, sign: i64, missing: usize) {
        let here = std::mem::take(&mut self.counts);
        self.counts.reserve_exact(here.len() + missing);
        let mut here = here.into_iter().peekable();
        for (bucket, count) in &other.counts {
            while let Some(entry) = here.next_if(|(at, _)| at < bucket) {
                self.counts.push(entry);
            }
            if here.peek().is_none_or(|(at, _)| at != bucket) {
                self.counts.push((*bucket, sign * count));
            }
        }
        self.counts.extend(here);
    }

    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// Whether nothing was observed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Buckets with their counts, ascending.
    #[must_use]
    pub fn buckets(&self) -> &[(Bucket, i64)] {
        &self.counts
    }

    /// From stored buckets in any order; repeated buckets add up.
    #[must_use]
    pub fn from_buckets(buckets: impl IntoIterator<Item = (Bucket, i64)>) -> Self {
        let mut sketch = Self::default();
        for (bucket, count) in buckets {
            sketch.add_to(bucket, count);
        }
        sketch
    }

    /// The value at quantile `q` in `[0, 1]` by nearest rank, within 2.2 %; `None` when empty.
    #[must_use]
    pub fn quantile_nanos(&self, q: f64) -> Option<f64> {
        let total: i64 = self.counts.iter().map(|(_, count)| (*count).max(0)).sum();
        if total == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as i64).clamp(1, total);
        let mut seen = 0;
        for (bucket, count) in &self.counts {
            seen += (*count).max(0);
            if seen >= rank {
                return Some(bucket.middle_nanos());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
