//! Chance: one seeded source, so that the same seed makes the same traffic.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::mesh::OwnTime;

/// A seeded source of chance.
#[derive(Debug)]
pub(crate) struct Chance(StdRng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Whether something of this probability happens.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.0.random::<f64>() < probability
    }

    /// From `low` to `high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.random::<f64>()
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0.random_range(0..end)
    }

    /// Time until the next of independent events that come `per_second` on average.
    pub(crate) fn gap_secs(&mut self, per_second: f64) -> f64 {
        -(1.0 - self.0.random::<f64>()).ln() / per_second
    }

    /// Log-normal; Box and Muller's method for the normal part.
    pub(crate) fn own_time_nanos(&mut self, time: OwnTime) -> u64 {
        let radius = (-2.0 * (1.0 - self.0.random::<f64>()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.0.random::<f64>()).cos();
        nanos(time.median_ms * (time.sigma * normal).exp())
    }

    /// The place that a number between 0 and the sum of `weights` falls on.
    pub(crate) fn pick(&mut self, weights: impl Iterator<Item = f64> + Clone) -> usize {
        let mut left = self.0.random::<f64>() * weights.clone().sum::<f64>();
        let mut last = 0;
        for (place, weight) in weights.enumerate() {
            last = place;
            if left < weight {
                break;
            }
            left -= weight;
        }
        last
    }

    /// Bytes of an id; never all zero, which would mean "absent".
    pub(crate) fn id<const N: usize>(&mut self) -> [u8; N] {
        loop {
            let bytes: [u8; N] = std::array::from_fn(|_| self.0.random());
            if bytes != [0; N] {
                return bytes;
            }
        }
    }
}

/// Milliseconds as whole microseconds in nanoseconds: Envoy's clock has no finer grain.
pub(crate) fn nanos(millis: f64) -> u64 {
    (millis * 1_000.0) as u64 * 1_000
}
