//! At which times samples are made, and what a counter shows then.
//!
//! A counter is a step function `C(t)`: the sum of all windows that start before `t`. PromQL's `increase(x[r])` takes
//! the last sample minus the first inside `(t-r, t]` and stretches the difference to the whole window, because usually
//! no sample lies exactly on an edge. For `rate` and `increase` samples are therefore made right at both edges:
//!
//! ```text
//!        t-r  t-r+1ms                               t
//!    ─────┤     ●───────────────────────────────────●     values C(t-r) and C(t)
//!         └ excluded
//! ```
//!
//! The samples span `r - 1 ms`, so the difference is stretched by `r / (r - 1 ms)`; values are made smaller by that
//! factor beforehand. A counter that starts at zero is not stretched at all (it cannot have been below zero), so the
//! values start well above it.

use super::increments::Gain;

/// Steps of one selection; Prometheus allows 11,000 points per series, a subquery inside may have more.
const STEPS_MAX: i64 = 1_000_000;

/// Without a step to go by, a range holds at most about this many samples.
const GRID_POINTS: i64 = 11_000;

/// Distance of samples when nothing else is known: that of live windows.
const GRID_MILLIS: i64 = 10_000;

/// Counters restart at midnight UTC.
pub(super) const DAY_MILLIS: i64 = 86_400_000;

/// A sample to be made: its timestamp, and the time the counter is read at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) at: i64,
    pub(super) read: i64,
}

/// How the value at a point is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Since midnight.
    Daily,
    /// From a base that only matters by its differences, made smaller for windows of this many milliseconds.
    Edges { range: i64 },
}

/// The times of one selection.
#[derive(Clone, Debug)]
pub(super) struct Points {
    points: Vec<Point>,
    reading: Reading,
}

/// The instants a selection is evaluated at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    first: i64,
    last: i64,
    step: i64,
}

impl Ends {
    /// From first to last, none later than `latest`; `None` when there are too many.
    pub(super) fn new(first: i64, last: i64, step: i64, latest: i64) -> Option<Self> {
        let (last, step) = (last.min(latest), step.max(1));
        let ends = Self { first, last, step };
        (ends.count() <= STEPS_MAX).then_some(ends)
    }

    pub(super) const fn count(self) -> i64 {
        if self.last < self.first { 0 } else { self.last.saturating_sub(self.first) / self.step + 1 }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = i64> {
        (0..self.count()).map(move |index| self.first + index * self.step)
    }

    pub(super) const fn first(self) -> i64 {
        self.first
    }
}

/// Whether a selection is answered at the edges of its windows.
pub(super) fn is_edge_function(function: &str, range: i64) -> bool {
    matches!(function, "rate" | "increase") && range >= 2
}

impl Points {
    /// The times for `function` over windows of `range` (0: none) that end at `ends`.
    pub(super) fn new(ends: Ends, function: &str, range: i64, earliest: i64) -> Self {
        let mut points: Vec<Point> = Vec::new();
        let same = |at| Point { at, read: at };
        if is_edge_function(function, range) {
            for end in ends.iter() {
                points.push(Point { at: end - range + 1, read: end - range });
                points.push(same(end));
            }
        } else {
            points.extend(ends.iter().map(same));
            if range > 0 {
                let from = ends.first().saturating_sub(range).saturating_add(1).max(earliest);
                points.extend(grid(from, ends.last).map(same));
            }
        }
        points.sort_unstable_by_key(|point| (point.at, point.read));
        // Of two samples at one time the one that ends a window counts.
        points.reverse();
        points.dedup_by_key(|point| point.at);
        points.reverse();
        let reading = if is_edge_function(function, range) { Reading::Edges { range } } else { Reading::Daily };
        Self { points, reading }
    }

    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// The samples of a counter that first gained anything at `born`: none before.
    pub(super) fn read(&self, gains: &[Gain], born: i64) -> (Vec<i64>, Vec<f64>) {
        let mut reader = Reader::new(gains, self.reading);
        let alive = self.points.iter().filter(|point| self.is_alive(point, born));
        alive.map(|point| (point.at, reader.at(point.read))).unzip()
    }

    /// A window that ends after the series was born also has the zero from before: what was gained since then counts.
    const fn is_alive(&self, point: &Point, born: i64) -> bool {
        match self.reading {
            Reading::Edges { range } if point.read < point.at => born < point.read.saturating_add(range),
            Reading::Edges { .. } | Reading::Daily => born < point.read,
        }
    }
}

/// Multiples of some tens of seconds, and every midnight, where counters start anew.
fn grid(from: i64, to: i64) -> impl Iterator<Item = i64> {
    let tens = (to.saturating_sub(from).max(0) / GRID_POINTS) / GRID_MILLIS + 1;
    let multiples = move |every: i64| {
        let first = from.saturating_add(every - 1).div_euclid(every) * every;
        (first..=to).step_by(usize::try_from(every).unwrap_or(usize::MAX))
    };
    multiples(tens * GRID_MILLIS).chain(multiples(DAY_MILLIS))
}

/// Walks a counter forward in time.
struct Reader {
    gains: Vec<Gain>,
    next: usize,
    sum: f64,
    shown: f64,
    day: i64,
    reading: Reading,
    base: f64,
}

impl Reader {
    fn new(gains: &[Gain], reading: Reading) -> Self {
        let mut gains = gains.to_vec();
        gains.sort_by_key(|(at, _)| *at);
        let base = gains.iter().map(|(_, gain)| gain.max(0.0)).sum();
        Self { gains, next: 0, sum: 0.0, shown: 0.0, day: i64::MIN, reading, base }
    }

    fn at(&mut self, time: i64) -> f64 {
        let day = time.div_euclid(DAY_MILLIS);
        let midnight = day * DAY_MILLIS;
        let daily = self.reading == Reading::Daily;
        if daily && day != self.day {
            (self.day, self.sum, self.shown) = (day, 0.0, 0.0);
        }
        while let Some((at, gain)) = self.gains.get(self.next).filter(|(at, _)| *at < time) {
            if !daily || *at >= midnight {
                self.sum += gain;
            }
            self.next += 1;
        }
        // A correction in a window that is not yet paired with what it corrects must not look like a restart.
        self.shown = self.sum.max(self.shown);
        match self.reading {
            Reading::Daily => self.shown,
            Reading::Edges { range } => (self.base + self.shown) * ((range - 1) as f64 / range as f64),
        }
    }
}
