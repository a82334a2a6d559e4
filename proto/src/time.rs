//! Time: nanoseconds since the Unix epoch, ranges that cannot be inverted, and the only clock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds in one second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A point in time, nanoseconds since 1970-01-01T00:00:00Z. Good until the year 2554.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// The epoch itself: what senders write when they do not know.
    pub const ZERO: Self = Self(0);

    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(NANOS_PER_SEC))
    }

    /// From seconds with a fraction; negative and non-finite values become the epoch.
    #[must_use]
    pub fn from_secs_f64(secs: f64) -> Self {
        if secs.is_finite() && secs > 0.0 { Self((secs * 1e9) as u64) } else { Self::ZERO }
    }

    /// Seconds since the epoch with a fraction.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Milliseconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Nanoseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self + duration`, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// `self - duration`, saturating at the epoch.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The start of the window of `width_nanos` that contains `self`.
    #[must_use]
    pub const fn window_start(self, width_nanos: u64) -> Self {
        if width_nanos == 0 { self } else { Self(self.0 - self.0 % width_nanos) }
    }
}

impl fmt::Debug for UnixNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

/// A half-open range of time `[start, end)` that is never inverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    start: UnixNanos,
    end: UnixNanos,
}

impl TimeRange {
    /// Everything.
    pub const ALL: Self = Self { start: UnixNanos(0), end: UnixNanos(u64::MAX) };

    /// `None` when `end` is before `start`.
    #[must_use]
    pub fn new(start: UnixNanos, end: UnixNanos) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// First instant inside.
    #[must_use]
    pub const fn start(self) -> UnixNanos {
        self.start
    }

    /// First instant after.
    #[must_use]
    pub const fn end(self) -> UnixNanos {
        self.end
    }

    /// Length in seconds.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.end.since(self.start) as f64 / 1e9
    }

    /// Whether `at` lies inside.
    #[must_use]
    pub fn contains(self, at: UnixNanos) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether the closed interval `[first, last]` touches this range.
    #[must_use]
    pub fn overlaps(self, first: UnixNanos, last: UnixNanos) -> bool {
        first < self.end && last >= self.start
    }
}

/// Reads the time. The only abstraction over a clock; everything that needs "now" is handed one.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> UnixNanos;

    /// Time that has passed since some moment before the first call, whatever the wall clock was
    /// set to meanwhile: never goes back.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> UnixNanos {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixNanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

/// A clock that moves only when told, for tests and simulation.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug, Default)]
struct Hands {
    wall: AtomicU64,
    passed: AtomicU64,
}

impl ManualClock {
    /// Starts at `now`.
    #[must_use]
    pub fn new(now: UnixNanos) -> Self {
        Self(Arc::new(Hands { wall: AtomicU64::new(now.0), passed: AtomicU64::new(0) }))
    }

    /// Moves forward.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.wall.fetch_add(nanos, Ordering::SeqCst);
        self.0.passed.fetch_add(nanos, Ordering::SeqCst);
    }

    /// Sets the time of day, backwards too: clocks step. No time passes by that.
    pub fn set(&self, now: UnixNanos) {
        self.0.wall.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixNanos {
        UnixNanos(self.0.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.passed.load(Ordering::SeqCst))
    }
}
