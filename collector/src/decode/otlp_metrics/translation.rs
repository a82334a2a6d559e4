//! Metrics of one resource as series: which samples a point becomes, and which points become none.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};
use windrose_proto::attributes::KeyValue;
use windrose_proto::metric::{Metadata, MetricKind, STALE_MARKER_BITS};
use windrose_proto::span::Resource;
use windrose_proto::time::UnixNanos;

use super::labels::{Identity, PointLabels, value_text};
use super::names::{NameKind, metric_name, unit_name};
use super::stats::hand_on;
use super::{
    HistogramValue, Metric, OtlpSink, Point, PointExemplar, PointRefusal, PointValue, Shape, SummaryValue, Temporality,
};
use crate::decode::remote_write::{RemoteExemplar, RemoteLabels, RemoteSeries};

/// The flag of a point that says that its series has ended.
pub(super) const NO_RECORDED_VALUE: u32 = 1;

/// Most bounds of one histogram: SDKs have about 15, Envoy 19. Each is a series.
const BOUNDS_MAX: usize = 1024;

/// Most characters of an exemplar's labels, as OpenMetrics has it; beyond it only its ids are kept.
const EXEMPLAR_LABELS_MAX_CHARS: usize = 128;

/// What a resource says of itself.
const TARGET_INFO: &str = "target_info";

/// Half of the time after which a query no longer finds a sample: `target_info` is found at the time of
/// every point of a request, however far apart they are.
const TARGET_INFO_INTERVAL_MS: i64 = 150_000;

/// Most samples of `target_info` for one resource of a request, the latest ones: seven weeks.
const TARGET_INFO_SAMPLES_MAX: i64 = 28_800;

/// The metrics of one resource.
pub(in super::super) struct Translation<'s> {
    sink: &'s mut dyn OtlpSink,
    resource: Arc<Resource>,
    identity: Identity,
    /// Of the points that became samples, the earliest and the latest, in milliseconds.
    times: Option<(i64, i64)>,
}

/// A family and where its samples go.
struct Family<'f> {
    name: &'f str,
    sink: &'f mut dyn OtlpSink,
}

/// What all samples of a point share.
#[derive(Clone, Copy)]
struct Stamp {
    millis: i64,
    /// The series ends here, whatever the point says.
    is_end: bool,
}

impl<'s> Translation<'s> {
    pub(in super::super) fn new(resource: Arc<Resource>, sink: &'s mut dyn OtlpSink) -> Self {
        let identity = Identity::of_resource(&resource.attributes);
        Self { sink, resource, identity, times: None }
    }

    /// Hands a metric on.
    pub(in super::super) fn take(&mut self, metric: &Metric) {
        let Metric { unreadable_points, unreadable_cause, exponential_points, .. } = metric;
        let named = |cause: &str| format!("{cause}: metric {:?}", &*metric.name);
        if *unreadable_points > 0 {
            let cause = || named(unreadable_cause.as_deref().unwrap_or_default());
            self.sink.refuse(PointRefusal::Unreadable, *unreadable_points, &cause);
        }
        if *exponential_points > 0 {
            self.sink.refuse(PointRefusal::Exponential, *exponential_points, &|| {
                named(
                    "exponential histograms are not stored yet, send explicit buckets \
                     (OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=explicit_bucket_histogram)",
                )
            });
        }
        if metric.points.is_empty() {
            return;
        }
        hand_on(metric, &self.resource, self.sink);
        let points = metric.points.len() as u64;
        if let Some((reason, cause)) = refusal_of_all(metric) {
            return self.sink.refuse(reason, points, &|| named(cause));
        }
        let (kind, name_kind) = kind_of(metric);
        let Some(name) = metric_name(&metric.name, &metric.unit, name_kind) else {
            return self.sink.refuse(PointRefusal::BadLabels, points, &|| named("a name without a letter or digit"));
        };
        let metadata = Metadata { kind, help: metric.description.to_string(), unit: unit_name(&metric.unit) };
        self.sink.metadata(&name, metadata);
        for point in &metric.points {
            let mut family = Family { name: &name, sink: &mut *self.sink };
            match family.take(point, &self.identity) {
                Ok(millis) => {
                    let (earliest, latest) = self.times.unwrap_or((millis, millis));
                    self.times = Some((earliest.min(millis), latest.max(millis)));
                }
                Err((reason, cause)) => self.sink.refuse(reason, 1, &|| named(cause)),
            }
        }
    }

    /// Hands on what the resource says of itself, at the times of its points.
    pub(in super::super) fn finish(self) {
        let Some((earliest, latest)) = self.times else { return };
        let labels = match PointLabels::of_target(&self.resource.attributes, &self.identity) {
            Ok(Some(labels)) => labels,
            Ok(None) => return,
            Err(cause) => return self.sink.refuse(PointRefusal::BadLabels, 1, &|| format!("{cause}: resource")),
        };
        let help = "Target metadata".to_owned();
        self.sink.metadata(TARGET_INFO, Metadata { kind: MetricKind::Gauge, help, unit: String::new() });
        let steps = latest.saturating_sub(earliest).div_euclid(TARGET_INFO_INTERVAL_MS).min(TARGET_INFO_SAMPLES_MAX);
        let samples = (0..=steps).rev().map(|step| (latest - step * TARGET_INFO_INTERVAL_MS, 1.0)).collect();
        let labels = Ok(labels.series(TARGET_INFO, None));
        self.sink.series(&RemoteSeries { labels, samples, exemplars: SmallVec::new(), histograms: 0 });
    }
}

/// Why none of a metric's points can be taken.
fn refusal_of_all(metric: &Metric) -> Option<(PointRefusal, &'static str)> {
    let counts_since = matches!(metric.shape, Shape::Sum | Shape::Histogram);
    match metric.temporality {
        Temporality::Delta if counts_since => Some((
            PointRefusal::Delta,
            "delta temporality is not stored, send totals (SDKs: \
             OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=cumulative; Collector: the deltatocumulative \
             processor; Envoy: report_counters_as_deltas and report_histograms_as_deltas false)",
        )),
        Temporality::Unstated if counts_since => {
            Some((PointRefusal::Unreadable, "a sum or histogram that does not state its temporality"))
        }
        Temporality::Delta | Temporality::Unstated | Temporality::Cumulative => None,
    }
}

fn kind_of(metric: &Metric) -> (MetricKind, NameKind) {
    match metric.shape {
        Shape::Sum if metric.is_monotonic => (MetricKind::Counter, NameKind::Counter),
        Shape::Sum => (MetricKind::Gauge, NameKind::Other),
        Shape::Histogram => (MetricKind::Histogram, NameKind::Other),
        Shape::Summary => (MetricKind::Summary, NameKind::Other),
        Shape::Gauge | Shape::Nothing | Shape::Exponential => (MetricKind::Gauge, NameKind::Gauge),
    }
}

type Refused = (PointRefusal, &'static str);

impl Family<'_> {
    /// Hands on the samples of a point; returns their time.
    fn take(&mut self, point: &Point, identity: &Identity) -> Result<i64, Refused> {
        if point.time == UnixNanos::ZERO {
            return Err((PointRefusal::NoTime, "a point without a time"));
        }
        if point.attributes.is_cut() {
            return Err((PointRefusal::BadLabels, "too many attributes"));
        }
        let stamp = Stamp { millis: millis(point.time), is_end: point.flags & NO_RECORDED_VALUE != 0 };
        let labels =
            PointLabels::new(point.attributes.iter(), identity).map_err(|cause| (PointRefusal::BadLabels, cause))?;
        match &point.value {
            PointValue::Number(Some(value)) => self.number(&labels, stamp, *value, &point.exemplars),
            PointValue::Number(None) if stamp.is_end => self.number(&labels, stamp, 0.0, &[]),
            PointValue::Number(None) => return Err((PointRefusal::Unreadable, "a point without a value")),
            PointValue::Histogram(histogram) => {
                check(histogram)?;
                self.histogram(&labels, stamp, histogram, &point.exemplars);
            }
            PointValue::Summary(summary) if summary.quantiles.len() > BOUNDS_MAX => {
                return Err((PointRefusal::Unreadable, "a summary of more than 1024 quantiles"));
            }
            PointValue::Summary(summary) => self.summary(&labels, stamp, summary),
        }
        Ok(stamp.millis)
    }

    fn number(&mut self, labels: &PointLabels<'_>, stamp: Stamp, value: f64, exemplars: &[PointExemplar]) {
        let texts: Vec<ExemplarTexts<'_>> = exemplars.iter().map(ExemplarTexts::of).collect();
        let exemplars = texts.iter().filter_map(|texts| texts.exemplar(stamp)).collect();
        sample(&mut *self.sink, labels.series(self.name, None), stamp, value, exemplars);
    }

    fn histogram(
        &mut self,
        labels: &PointLabels<'_>,
        stamp: Stamp,
        histogram: &HistogramValue,
        exemplars: &[PointExemplar],
    ) {
        let HistogramValue { count, sum, bucket_counts, bounds } = histogram;
        // Without counts the bounds say nothing.
        let bounds = if bucket_counts.is_empty() { &[][..] } else { bounds };
        let bound_texts: Vec<String> = bounds.iter().map(f64::to_string).collect();
        let bucket_name = format!("{}_bucket", self.name);
        let texts: Vec<ExemplarTexts<'_>> = exemplars.iter().map(ExemplarTexts::of).collect();
        let mut by_bucket: Vec<(usize, RemoteExemplar<'_>)> = texts
            .iter()
            .filter_map(|texts| texts.exemplar(stamp))
            .map(|exemplar| (bounds.partition_point(|bound| *bound < exemplar.value), exemplar))
            .collect();
        by_bucket.sort_by_key(|(bucket, _)| *bucket);
        let mut waiting = by_bucket.into_iter().peekable();
        let mut so_far = 0_u64;
        for (bucket, (le, own)) in bound_texts.iter().zip(bucket_counts).enumerate() {
            so_far = so_far.saturating_add(*own);
            let exemplars = std::iter::from_fn(|| waiting.next_if(|(place, _)| *place == bucket));
            let exemplars = exemplars.map(|(_, exemplar)| exemplar).collect();
            let labels = labels.series(&bucket_name, Some(("le", le)));
            sample(&mut *self.sink, labels, stamp, so_far as f64, exemplars);
        }
        let beyond = waiting.map(|(_, exemplar)| exemplar).collect();
        let series = labels.series(&bucket_name, Some(("le", "+Inf")));
        sample(&mut *self.sink, series, stamp, *count as f64, beyond);
        self.totals(labels, stamp, *count, *sum);
    }

    fn summary(&mut self, labels: &PointLabels<'_>, stamp: Stamp, summary: &SummaryValue) {
        for (quantile, value) in &summary.quantiles {
            let quantile = quantile.to_string();
            let series = labels.series(self.name, Some(("quantile", &quantile)));
            sample(&mut *self.sink, series, stamp, *value, SmallVec::new());
        }
        self.totals(labels, stamp, summary.count, Some(summary.sum));
    }

    fn totals(&mut self, labels: &PointLabels<'_>, stamp: Stamp, count: u64, sum: Option<f64>) {
        if let Some(sum) = sum {
            let name = format!("{}_sum", self.name);
            sample(&mut *self.sink, labels.series(&name, None), stamp, sum, SmallVec::new());
        }
        let name = format!("{}_count", self.name);
        sample(&mut *self.sink, labels.series(&name, None), stamp, count as f64, SmallVec::new());
    }
}

fn sample<'s>(
    sink: &mut dyn OtlpSink,
    labels: RemoteLabels<'s>,
    stamp: Stamp,
    value: f64,
    exemplars: SmallVec<[RemoteExemplar<'s>; 1]>,
) {
    let value = if stamp.is_end { f64::from_bits(STALE_MARKER_BITS) } else { value };
    let samples = smallvec![(stamp.millis, value)];
    sink.series(&RemoteSeries { labels: Ok(labels), samples, exemplars, histograms: 0 });
}

/// Whether the parts of a histogram fit together.
pub(super) fn check(histogram: &HistogramValue) -> Result<(), Refused> {
    let HistogramValue { bucket_counts, bounds, .. } = histogram;
    if bounds.len() > BOUNDS_MAX {
        return Err((PointRefusal::Unreadable, "a histogram of more than 1024 bounds"));
    }
    if !bucket_counts.is_empty() && bucket_counts.len() != bounds.len() + 1 {
        return Err((PointRefusal::Unreadable, "a histogram whose buckets do not fit its bounds"));
    }
    let is_rising = bounds.windows(2).all(|pair| pair[0] < pair[1]) && bounds.iter().all(|bound| bound.is_finite());
    if is_rising { Ok(()) } else { Err((PointRefusal::Unreadable, "a histogram whose bounds do not rise")) }
}

fn millis(time: UnixNanos) -> i64 {
    // At most 2^64 / 10^6.
    (time.0 / 1_000_000).cast_signed()
}

/// An exemplar and the texts its labels are made of.
struct ExemplarTexts<'p> {
    exemplar: &'p PointExemplar,
    trace_id: Option<String>,
    span_id: Option<String>,
    attributes: Vec<(&'p str, Cow<'p, str>)>,
}

impl<'p> ExemplarTexts<'p> {
    fn of(exemplar: &'p PointExemplar) -> Self {
        let trace_id = exemplar.trace_id.map(|id| id.to_string());
        let span_id = exemplar.span_id.map(|id| id.to_string());
        let pair = |KeyValue { key, value }: &'p KeyValue| (&**key, value_text(value));
        let attributes = exemplar.attributes.iter().map(pair).collect();
        Self { exemplar, trace_id, span_id, attributes }
    }

    /// `None` when it has no value, or the point says that there is none.
    fn exemplar(&self, stamp: Stamp) -> Option<RemoteExemplar<'_>> {
        let value = self.exemplar.value.filter(|value| !value.is_nan() && !stamp.is_end)?;
        let ids = [("trace_id", self.trace_id.as_deref()), ("span_id", self.span_id.as_deref())];
        let mut labels: RemoteLabels<'_> = ids.into_iter().filter_map(|(name, id)| Some((name, id?))).collect();
        let others = self.attributes.iter().map(|(key, value)| (*key, &**value));
        let others = others.filter(|(key, value)| !key.is_empty() && !value.is_empty());
        let all = labels.iter().copied().chain(others.clone());
        let chars: usize = all.map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        if chars <= EXEMPLAR_LABELS_MAX_CHARS {
            labels.extend(others);
        }
        // Ids come first and stay first among equals.
        labels.sort_by_key(|(name, _)| *name);
        labels.dedup_by_key(|(name, _)| *name);
        let time = self.exemplar.time;
        let timestamp_ms = if time == UnixNanos::ZERO { stamp.millis } else { millis(time) };
        Some(RemoteExemplar { labels, value, timestamp_ms })
    }
}
