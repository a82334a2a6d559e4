//! OTLP metrics as series, by the rules of Prometheus 3.
//!
//! The walkers over protobuf and JSON (`otlp_protobuf/metrics.rs`, `otlp_json/metrics.rs`) read one
//! [`Metric`] at a time; a [`Translation`] turns it into series and hands these on. Nothing of a metric is
//! kept, so memory is bounded by the largest one, which the budget of the body bounds.
//!
//! | OTLP | series |
//! |---|---|
//! | gauge; sum that may fall | one gauge |
//! | cumulative monotonic sum | one counter, `_total` |
//! | cumulative histogram | `_bucket{le}`, `_sum` where it is stated, `_count` |
//! | summary | `{quantile}`, `_sum`, `_count` |
//! | exponential histogram, delta temporality | none: refused with the cause |
//! | resource | `job`, `instance`; what else it says as `target_info` |
//!
//! Series have no start times: a counter that fell was reset, as with scraped ones.
//!
//! A sink may ask for metrics by name and gets their points as lines of a page besides ([`Stat`]), those of
//! delta temporality too, with their start times.

use std::sync::Arc;

use bytes::Bytes;
use windrose_proto::Text;
use windrose_proto::attributes::KeyValue;
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::span::Resource;
use windrose_proto::time::UnixNanos;

use super::DecodeError;
use super::otlp_json::walk_metrics_json;
use super::otlp_protobuf::walk_metrics_protobuf;
use super::remote_write::{RemoteLabels, RemoteSink};
use super::sink::CappedAttributes;

mod labels;
mod names;
mod stats;
#[cfg(test)]
mod tests;
mod translation;

pub(super) use translation::Translation;

/// The two forms of an `ExportMetricsServiceRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpForm {
    Protobuf,
    Json,
}

/// Why a point is not made into samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PointRefusal {
    /// It cannot be read, or contradicts itself.
    Unreadable,
    /// Its labels or its metric's name cannot be spelled.
    BadLabels,
    /// It states no time.
    NoTime,
    /// It tells a difference instead of a total.
    Delta,
    /// It is an exponential histogram.
    Exponential,
}

/// Takes series of a request one by one, and the count of the points that become none.
pub trait OtlpSink: RemoteSink {
    fn refuse(&mut self, reason: PointRefusal, points: u64, cause: &dyn Fn() -> String);

    /// Under which name the numbers of a metric are wanted as lines of a page, if they are.
    fn page_name(&self, metric: &str, is_counter: bool) -> Option<String> {
        let _unwanted = (metric, is_counter);
        None
    }

    /// Takes a number of a metric that was asked for by [`Self::page_name`].
    fn stat(&mut self, resource: &Arc<Resource>, stat: &Stat<'_>) {
        let _unwanted = (resource, stat);
    }
}

/// A number of a point, as a line of a proxy's page would tell it: of a histogram with the parts
/// `_bucket`, `_sum` and `_count`, buckets containing those below them.
#[derive(Clone, Debug, PartialEq)]
pub struct Stat<'a> {
    /// Sorted by name, the metric's own name among them; nothing of the resource.
    pub labels: RemoteLabels<'a>,
    pub value: f64,
    pub time: UnixNanos,
    /// Since when it counts, where that is stated.
    pub start: Option<UnixNanos>,
    /// It counts since `start` only, not on from the point before.
    pub is_delta: bool,
}

/// Walks an `ExportMetricsServiceRequest` that is not compressed.
///
/// # Errors
/// `bad_body` where it is no such message; what came before has been handed on.
pub fn walk_otlp_metrics(form: OtlpForm, content: &Bytes, sink: &mut dyn OtlpSink) -> Result<(), DecodeError> {
    match form {
        OtlpForm::Protobuf => walk_metrics_protobuf(content, sink),
        OtlpForm::Json => walk_metrics_json(content, sink),
    }
}

/// What the points of a metric are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    /// None was stated.
    #[default]
    Nothing,
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

/// Since when the numbers of a point count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Temporality {
    #[default]
    Unstated,
    /// Since the point before.
    Delta,
    /// Since the process started.
    Cumulative,
}

/// One metric as it was read.
#[derive(Debug, Default)]
pub(super) struct Metric {
    pub(super) name: Text,
    pub(super) description: Text,
    pub(super) unit: Text,
    pub(super) shape: Shape,
    pub(super) temporality: Temporality,
    pub(super) is_monotonic: bool,
    pub(super) points: Vec<Point>,
    /// Points of exponential histograms, which are only counted.
    pub(super) exponential_points: u64,
    pub(super) unreadable_points: u64,
    /// What is wrong with the first of them.
    pub(super) unreadable_cause: Option<String>,
}

/// One point of a metric.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) attributes: CappedAttributes,
    pub(super) time: UnixNanos,
    /// As stated; zero where it is not.
    pub(super) start: UnixNanos,
    pub(super) flags: u32,
    pub(super) exemplars: Vec<PointExemplar>,
    pub(super) value: PointValue,
}

/// What a point says. Which of them is meant follows from the shape of its metric.
#[derive(Debug)]
pub(super) enum PointValue {
    /// `None` when none is stated.
    Number(Option<f64>),
    Histogram(HistogramValue),
    Summary(SummaryValue),
}

/// A histogram with bounds of its own.
#[derive(Debug, Default)]
pub(super) struct HistogramValue {
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    /// One per bound and one for what lies beyond; or none.
    pub(super) bucket_counts: Vec<u64>,
    pub(super) bounds: Vec<f64>,
}

/// Quantiles that the sender computed.
#[derive(Debug, Default)]
pub(super) struct SummaryValue {
    pub(super) count: u64,
    pub(super) sum: f64,
    /// Quantile and value.
    pub(super) quantiles: Vec<(f64, f64)>,
}

/// One observation behind a point.
#[derive(Debug, Default)]
pub(super) struct PointExemplar {
    pub(super) attributes: Vec<KeyValue>,
    pub(super) time: UnixNanos,
    pub(super) value: Option<f64>,
    pub(super) trace_id: Option<TraceId>,
    pub(super) span_id: Option<SpanId>,
}

impl Metric {
    /// Points of `shape` follow. A metric has points of one shape; the last one stated is meant.
    pub(super) fn begin(&mut self, shape: Shape) {
        if self.shape != shape {
            self.points.clear();
            self.exponential_points = 0;
        }
        self.shape = shape;
    }

    /// Takes what became of reading a point.
    pub(super) fn take(&mut self, read: Result<Point, impl std::fmt::Display>) {
        match read {
            Ok(point) => self.points.push(point),
            Err(cause) => {
                self.unreadable_points += 1;
                self.unreadable_cause.get_or_insert_with(|| cause.to_string());
            }
        }
    }
}

impl Temporality {
    pub(super) const fn from_otlp(number: i32) -> Self {
        match number {
            1 => Self::Delta,
            2 => Self::Cumulative,
            _ => Self::Unstated,
        }
    }
}

impl Point {
    /// A point of a metric of `shape` with nothing in it.
    pub(super) fn empty(shape: Shape) -> Self {
        let value = match shape {
            Shape::Histogram => PointValue::Histogram(HistogramValue::default()),
            Shape::Summary => PointValue::Summary(SummaryValue::default()),
            Shape::Nothing | Shape::Gauge | Shape::Sum | Shape::Exponential => PointValue::Number(None),
        };
        let (attributes, exemplars) = (CappedAttributes::default(), Vec::new());
        Self { attributes, time: UnixNanos::ZERO, start: UnixNanos::ZERO, flags: 0, exemplars, value }
    }
}
