//! Points as lines of a page: what a proxy pushes read like what it would have been scraped for.

use std::sync::Arc;

use windrose_proto::span::Resource;
use windrose_proto::time::UnixNanos;

use super::labels::{Identity, PointLabels};
use super::translation::{NO_RECORDED_VALUE, check};
use super::{HistogramValue, Metric, OtlpSink, Point, PointValue, Shape, Stat, Temporality};

/// A start time this many times smaller than the time of its point is in microseconds: as nanoseconds it
/// would lie in the first days of 1970.
const MICROSECONDS_BELOW: u64 = 500;

/// Hands the points of a metric on, if its name is asked for. Points that cannot be read as lines are left
/// out: as series they are refused with the cause.
pub(super) fn hand_on(metric: &Metric, resource: &Arc<Resource>, sink: &mut dyn OtlpSink) {
    let is_counter = metric.shape == Shape::Sum && metric.is_monotonic;
    if metric.temporality == Temporality::Unstated && matches!(metric.shape, Shape::Sum | Shape::Histogram) {
        return;
    }
    let Some(name) = sink.page_name(&metric.name, is_counter) else { return };
    // A gauge has no temporality, whatever is stated.
    let is_delta = metric.temporality == Temporality::Delta && matches!(metric.shape, Shape::Sum | Shape::Histogram);
    let identity = Identity::default();
    for point in &metric.points {
        let is_told = point.time != UnixNanos::ZERO && point.flags & NO_RECORDED_VALUE == 0;
        if !is_told || point.attributes.is_cut() {
            continue;
        }
        let Ok(labels) = PointLabels::new(point.attributes.iter(), &identity) else { continue };
        let start = start_of(point);
        let mut lines = Lines { name: &name, labels: &labels, time: point.time, start, is_delta, resource, sink };
        match &point.value {
            PointValue::Number(None) => {}
            PointValue::Number(Some(value)) => lines.line("", None, *value),
            PointValue::Histogram(histogram) if check(histogram).is_err() => {}
            PointValue::Histogram(histogram) => lines.histogram(histogram),
            PointValue::Summary(summary) => lines.totals(summary.count, Some(summary.sum)),
        }
    }
}

/// Where the lines of a point go, and what they share.
struct Lines<'l> {
    name: &'l str,
    labels: &'l PointLabels<'l>,
    time: UnixNanos,
    start: Option<UnixNanos>,
    is_delta: bool,
    resource: &'l Arc<Resource>,
    sink: &'l mut dyn OtlpSink,
}

impl Lines<'_> {
    fn line(&mut self, part: &str, bound: Option<&str>, value: f64) {
        let Self { time, start, is_delta, .. } = *self;
        let named;
        let name = if part.is_empty() {
            self.name
        } else {
            named = [self.name, part].concat();
            &named
        };
        let labels = self.labels.series(name, bound.map(|bound| ("le", bound)));
        self.sink.stat(self.resource, &Stat { labels, value, time, start, is_delta });
    }

    fn histogram(&mut self, histogram: &HistogramValue) {
        let mut so_far = 0_u64;
        for (bound, own) in histogram.bounds.iter().zip(&histogram.bucket_counts) {
            so_far = so_far.saturating_add(*own);
            self.line("_bucket", Some(&bound.to_string()), so_far as f64);
        }
        self.totals(histogram.count, histogram.sum);
    }

    fn totals(&mut self, count: u64, sum: Option<f64>) {
        if let Some(sum) = sum {
            self.line("_sum", None, sum);
        }
        self.line("_count", None, count as f64);
    }
}

/// Since when a point counts. Envoy's sink writes microseconds where nanoseconds belong: always for totals,
/// and for the first difference.
fn start_of(point: &Point) -> Option<UnixNanos> {
    let UnixNanos(start) = point.start;
    let start = if start < point.time.0 / MICROSECONDS_BELOW { start.saturating_mul(1000) } else { start };
    Some(UnixNanos(start)).filter(|start| *start != UnixNanos::ZERO && *start <= point.time)
}
