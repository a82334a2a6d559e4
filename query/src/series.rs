//! Calls, errors and latency per step of time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::edge::{EdgeStats, LIVE_WINDOW_NANOS, Latency, SEALED_WINDOW_NANOS, SpanStats};
use windrose_proto::time::{NANOS_PER_SEC, TimeRange, UnixNanos};

use crate::http::error::ApiError;
use crate::topology::{millis, rfc3339};

/// Quantiles of an answer that asks for none.
pub const DEFAULT_QUANTILES: &[f64] = &[0.5, 0.9, 0.95, 0.99];

/// Points of one series, as Prometheus limits them.
const POINTS_MAX: u64 = 11_000;
/// Points of a series when no step is given.
const POINTS_DEFAULT: u64 = 60;

/// Which side's latency is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    #[default]
    Client,
    Server,
}

impl Side {
    /// From the parameter's words.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "client" => Some(Self::Client),
            "server" => Some(Self::Server),
            _ => None,
        }
    }

    /// The wire word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    /// This side of a rollup.
    #[must_use]
    pub const fn of(self, stats: &SpanStats) -> &Latency {
        match self {
            Self::Client => &stats.client,
            Self::Server => &stats.server,
        }
    }
}

/// Steps of equal width that cover a range.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    width_nanos: u64,
}

impl Steps {
    /// The default width is a sixtieth of the range, rounded up to whole minutes, the width of
    /// sealed windows. No step is narrower than a live window.
    ///
    /// # Errors
    /// When the step makes too many points.
    pub fn new(range: TimeRange, step: Option<Duration>) -> Result<Self, ApiError> {
        let range_nanos = range.end().since(range.start());
        let width_nanos = match step {
            Some(step) => u64::try_from(step.as_nanos()).unwrap_or(u64::MAX).max(LIVE_WINDOW_NANOS),
            None => (range_nanos / POINTS_DEFAULT).div_ceil(SEALED_WINDOW_NANOS).max(1) * SEALED_WINDOW_NANOS,
        };
        if range_nanos / width_nanos > POINTS_MAX {
            return Err(ApiError::bad_data(format!(
                "invalid parameter \"step\": more than {POINTS_MAX} points: take a wider step or a shorter range"
            )));
        }
        Ok(Self { width_nanos })
    }

    /// The parts of `range` that lie in one step each.
    pub fn cut(self, range: TimeRange) -> impl Iterator<Item = TimeRange> {
        let mut at = range.start();
        std::iter::from_fn(move || {
            let step = at.window_start(self.width_nanos);
            let end = UnixNanos(step.0.saturating_add(self.width_nanos)).min(range.end());
            let part = TimeRange::new(at, end).filter(|_| at < end)?;
            at = end;
            Some(part)
        })
    }

    /// Width of a step.
    #[must_use]
    pub fn width_seconds(self) -> f64 {
        self.width_nanos as f64 / NANOS_PER_SEC as f64
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Point {
    /// Start of the step, RFC 3339.
    pub time: String,
    pub calls: i64,
    pub errors: i64,
    /// Counted by proxies in this step; `null` when none is scraped.
    pub counter_requests: Option<i64>,
    /// Observations of latency.
    pub count: i64,
    /// By quantile, milliseconds; `null` without observations.
    pub quantiles_ms: BTreeMap<String, Option<f64>>,
    /// Exact; `null` without observations, and where late corrections took back all of the slowest calls that are kept.
    pub max_ms: Option<f64>,
    /// Exact.
    pub mean_ms: Option<f64>,
}

/// What happened in one step.
#[derive(Debug, Default)]
pub struct Bin {
    pub spans: SpanStats,
    client_calls: Option<i64>,
    server_calls: Option<i64>,
}

impl Bin {
    /// Adds a part of the step.
    pub fn add(&mut self, stats: &EdgeStats) {
        self.spans.merge(&stats.spans);
        for (into, from) in
            [(&mut self.client_calls, &stats.client_counters), (&mut self.server_calls, &stats.server_counters)]
        {
            if !from.is_absent() {
                *into = Some(into.unwrap_or(0) + from.calls);
            }
        }
    }
}

/// Latency quantiles of a rollup.
#[must_use]
pub fn quantiles_ms(latency: &Latency, quantiles: &[f64]) -> BTreeMap<String, Option<f64>> {
    let max = latency.slowest.max_nanos().map(|max| max as f64);
    let value = |q: f64| latency.sketch.quantile_nanos(q).map(|nanos| millis(max.map_or(nanos, |max| nanos.min(max))));
    quantiles.iter().map(|q| (q.to_string(), value(*q))).collect()
}

/// Words the steps in which anything happened, by the instants at which they start.
#[must_use]
pub fn points(bins: &BTreeMap<UnixNanos, Bin>, steps: Steps, side: Side, quantiles: &[f64]) -> Vec<Point> {
    let point = |(start, bin): (&UnixNanos, &Bin)| {
        let latency = side.of(&bin.spans);
        Point {
            time: rfc3339(start.window_start(steps.width_nanos)),
            calls: bin.spans.calls,
            errors: bin.spans.errors,
            counter_requests: bin.client_calls.or(bin.server_calls),
            count: latency.count,
            quantiles_ms: quantiles_ms(latency, quantiles),
            max_ms: latency.slowest.max_nanos().map(|nanos| millis(nanos as f64)),
            mean_ms: latency.mean_nanos().map(millis),
        }
    };
    bins.iter().map(point).collect()
}
