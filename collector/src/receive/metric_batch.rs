//! A request's samples on their way into a batch of the metric store, and the count of those that
//! do not get there.

use std::sync::Arc;

use windrose_proto::limits;
use windrose_proto::metric::{Exemplar, Labels, Metadata};
use windrose_proto::span::Resource;
use windrose_proto::time::UnixNanos;
use windrose_store::metrics::{Append, AppendReport};

use super::metric_stats::{MetricProtocolStats, SampleReject};
use crate::decode::{OtlpSink, PointRefusal, RemoteSeries, RemoteSink, Stat};
use crate::metrics_map::pushed::{PushedPages, page_name};

/// Samples may state times up to so far ahead, as with Prometheus: beyond that a clock is wrong.
const FUTURE_MAX_MILLIS: i64 = 10 * 60 * 1000;

/// What a sample takes in a batch: its series, its time, its value.
const SAMPLE_BYTES: usize = 24;

/// What an exemplar takes beside the texts of its labels, which share one allocation.
const EXEMPLAR_BYTES: usize = 128;

/// A batch being filled.
#[derive(Debug)]
pub(super) struct MetricBatch {
    pub(super) append: Append,
    pub(super) rejected: Rejected,
    /// What the batch occupies, for admission.
    pub(super) memory_bytes: usize,
    /// What of it counts for edges.
    pub(super) pages: PushedPages,
    samples: usize,
    lines: usize,
    latest_ms: i64,
}

/// Samples that are not stored, by reason, and the first of them in words.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    counts: [u64; SampleReject::ALL.len()],
    first: Option<String>,
}

impl MetricBatch {
    pub(super) fn new(append: Append, now: UnixNanos) -> Self {
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let latest_ms = now.saturating_add(FUTURE_MAX_MILLIS);
        let (rejected, pages) = (Rejected::default(), PushedPages::default());
        Self { append, rejected, memory_bytes: 0, pages, samples: 0, lines: 0, latest_ms }
    }
}

impl Rejected {
    pub(super) fn count(&mut self, reason: SampleReject, samples: u64, cause: impl FnOnce() -> String) {
        if samples == 0 {
            return;
        }
        self.counts[reason as usize] += samples;
        if self.first.is_none() {
            self.first = Some(cause());
        }
    }

    /// Adds what the store found out.
    pub(super) fn count_report(&mut self, report: AppendReport) {
        let conflict = || "another value is stored for the same series and time".to_owned();
        self.count(SampleReject::Conflict, report.conflicts, conflict);
        self.count(SampleReject::OutOfBounds, report.too_old, || "a time outside the years 1677 to 2262".to_owned());
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn book(&self, stats: &MetricProtocolStats) {
        for (reason, count) in SampleReject::ALL.iter().zip(self.counts) {
            stats.count_rejected(*reason, count);
        }
    }

    /// `3 samples not stored (2 bad_labels, 1 conflict), the first: no metric name in {…}`
    pub(super) fn summary(&self) -> String {
        let mut text = format!("{} samples not stored (", self.total());
        let counts = SampleReject::ALL.iter().zip(self.counts).filter(|(_, count)| *count > 0);
        for (place, (reason, count)) in counts.enumerate() {
            text.push_str(&format!("{}{count} {}", if place == 0 { "" } else { ", " }, reason.as_str()));
        }
        text.push_str(&format!("), the first: {}", self.first.as_deref().unwrap_or_default()));
        text
    }
}

impl RemoteSink for MetricBatch {
    fn series(&mut self, series: &RemoteSeries<'_>) {
        let count = series.samples.len() as u64;
        let labels = match &series.labels {
            Ok(labels) => labels,
            Err(problem) => {
                let all = count + series.histograms;
                return self.rejected.count(SampleReject::BadLabels, all, || (*problem).to_owned());
            }
        };
        let name = || Labels::from_pairs(labels.iter().copied()).to_string();
        self.rejected.count(SampleReject::NativeHistogram, series.histograms, || {
            format!("native histograms are not stored: {}", name())
        });
        if self.samples.saturating_add(series.samples.len()) > limits::SAMPLES_PER_REQUEST_MAX {
            return self.rejected.count(SampleReject::TooMany, count, || {
                format!("more than {} samples in one request", limits::SAMPLES_PER_REQUEST_MAX)
            });
        }
        self.samples += series.samples.len();
        self.memory_bytes += series.samples.len() * SAMPLE_BYTES;
        let reference = match self.append.series_of(labels) {
            Ok(reference) => reference,
            Err(limit) => return self.rejected.count(SampleReject::SeriesLimit, count, || limit.to_string()),
        };
        for (timestamp_ms, value) in &series.samples {
            if *timestamp_ms > self.latest_ms {
                self.rejected.count(SampleReject::TooNew, 1, || {
                    format!("time {timestamp_ms} ms is more than ten minutes ahead: {}", name())
                });
            } else {
                self.append.sample(reference, *timestamp_ms, *value);
            }
        }
        for exemplar in &series.exemplars {
            let labels = Labels::from_pairs(exemplar.labels.iter().copied());
            let texts = exemplar.labels.iter().map(|(name, value)| name.len() + value.len());
            self.memory_bytes += EXEMPLAR_BYTES + texts.sum::<usize>();
            let exemplar = Exemplar { labels, value: exemplar.value, timestamp: exemplar.timestamp_ms };
            self.append.exemplar(reference, exemplar);
        }
    }

    fn metadata(&mut self, family: &str, metadata: Metadata) {
        self.append.metadata(family, &metadata);
    }
}

impl OtlpSink for MetricBatch {
    fn refuse(&mut self, reason: PointRefusal, points: u64, cause: &dyn Fn() -> String) {
        let reason = match reason {
            PointRefusal::Unreadable => SampleReject::BadPoint,
            PointRefusal::BadLabels => SampleReject::BadLabels,
            PointRefusal::NoTime => SampleReject::NoTime,
            PointRefusal::Delta => SampleReject::DeltaTemporality,
            PointRefusal::Exponential => SampleReject::NativeHistogram,
        };
        self.rejected.count(reason, points, cause);
    }

    fn page_name(&self, metric: &str, is_counter: bool) -> Option<String> {
        page_name(metric, is_counter)
    }

    fn stat(&mut self, resource: &Arc<Resource>, stat: &Stat<'_>) {
        // As series they are refused for the same reasons, which is said there.
        let is_too_new = stat.time.as_millis() > self.latest_ms.cast_unsigned();
        if !is_too_new && self.lines < limits::SAMPLES_PER_REQUEST_MAX {
            self.lines += 1;
            self.memory_bytes += self.pages.push(resource, stat);
        }
    }
}
