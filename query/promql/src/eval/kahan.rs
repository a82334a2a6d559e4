//! Compensated summation (Neumaier's variant), in exactly the steps Prometheus takes.

/// Adds `value` to `sum`; the second result is the compensation to add at the end.
#[inline]
pub(crate) fn increment(value: f64, sum: f64, compensation: f64) -> (f64, f64) {
    let total = sum + value;
    if total.is_infinite() {
        return (total, 0.0);
    }
    let lost = if sum.abs() >= value.abs() { (sum - total) + value } else { (value - total) + sum };
    (total, compensation + lost)
}

/// A running mean that adds up while the sum stays finite and averages incrementally from then on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mean {
    sum: f64,
    compensation: f64,
    mean: f64,
    count: f64,
    incremental: bool,
}

impl Mean {
    pub(crate) fn new(first: f64) -> Self {
        Self { sum: first, compensation: 0.0, mean: 0.0, count: 1.0, incremental: false }
    }

    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.incremental {
            let (sum, compensation) = increment(value, self.sum, self.compensation);
            if !sum.is_infinite() {
                (self.sum, self.compensation) = (sum, compensation);
                return;
            }
            self.incremental = true;
            self.mean = self.sum / (self.count - 1.0);
            self.compensation /= self.count - 1.0;
        }
        let share = (self.count - 1.0) / self.count;
        (self.mean, self.compensation) = increment(value / self.count, share * self.mean, share * self.compensation);
    }

    pub(crate) fn result(&self) -> f64 {
        if self.incremental {
            self.mean + self.compensation
        } else {
            self.sum / self.count + self.compensation / self.count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancellation_loses_nothing() {
        let (mut sum, mut compensation) = (0.0, 0.0);
        for value in [1.0, 1e100, 1.0, -1e100] {
            (sum, compensation) = increment(value, sum, compensation);
        }
        assert_eq!(sum + compensation, 2.0);
    }

    #[test]
    fn mean_survives_overflow() {
        let mut mean = Mean::new(f64::MAX);
        mean.add(f64::MAX);
        mean.add(f64::MAX);
        assert!((mean.result() - f64::MAX).abs() < f64::MAX * 1e-12);
    }
}
