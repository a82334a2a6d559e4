//! Rollup rows as a series of points: counts, errors and latency per step of time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use windrose_proto::edge::{EdgeRow, LIVE_WINDOW_NANOS, Latency, SEALED_WINDOW_NANOS, SpanStats};
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
    /// Exact.
    pub max_ms: Option<f64>,
    /// Exact.
    pub mean_ms: Option<f64>,
}

#[derive(Default)]
struct Bin {
    spans: SpanStats,
    client_calls: Option<i64>,
    server_calls: Option<i64>,
}

/// Latency quantiles of a rollup.
#[must_use]
pub fn quantiles_ms(latency: &Latency, quantiles: &[f64]) -> BTreeMap<String, Option<f64>> {
    let max = latency.slowest.max_nanos().map(|max| max as f64);
    let value = |q: f64| latency.sketch.quantile_nanos(q).map(|nanos| millis(max.map_or(nanos, |max| nanos.min(max))));
    quantiles.iter().map(|q| (q.to_string(), value(*q))).collect()
}

/// Groups rows by step. Steps without any row are left out.
#[must_use]
pub fn points(rows: &[EdgeRow], steps: Steps, side: Side, quantiles: &[f64]) -> Vec<Point> {
    let mut bins: BTreeMap<UnixNanos, Bin> = BTreeMap::new();
    for row in rows {
        let bin = bins.entry(row.window_start.window_start(steps.width_nanos)).or_default();
        bin.spans.merge(&row.stats.spans);
        for (into, from) in
            [(&mut bin.client_calls, &row.stats.client_counters), (&mut bin.server_calls, &row.stats.server_counters)]
        {
            if !from.is_absent() {
                *into = Some(into.unwrap_or(0) + from.calls);
            }
        }
    }
    let point = |(start, bin): (UnixNanos, Bin)| {
        let latency = side.of(&bin.spans);
        Point {
            time: rfc3339(start),
            calls: bin.spans.calls,
            errors: bin.spans.errors,
            counter_requests: bin.client_calls.or(bin.server_calls),
            count: latency.count,
            quantiles_ms: quantiles_ms(latency, quantiles),
            max_ms: latency.slowest.max_nanos().map(|nanos| millis(nanos as f64)),
            mean_ms: latency.mean_nanos().map(millis),
        }
    };
    bins.into_iter().map(point).collect()
}
