//! Instant selectors: the latest sample of each series at each step, unless it is too old or the series has ended.

use std::sync::Arc;

use super::rate::interpolate_histogram;
use super::row::Row;
use super::stream::Sink;
use super::window::{Pointer, Scratch, SeriesData, Windows, with_hints};
use super::{Evaluated, Evaluator, Grid};
use crate::ast::{At, Duration, Expr, Extension, MatrixSelector, VectorSelector};
use crate::histogram::FloatHistogram;
use crate::storage::{Select, SeriesView};
use crate::value::{QueryResult, Sample, Series, is_absent};

/// The instants a selector looks at: those of the grid, or one pinned by `@`, moved by the offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference {
    grid: Grid,
    pinned: Option<i64>,
    offset: i64,
}

impl Reference {
    pub(super) fn new(grid: &Grid, at: Option<At>, offset: &Duration) -> Self {
        let pinned = match at {
            Some(At::Timestamp(millis)) => Some(millis),
            // `@ start()` and `@ end()` became timestamps before the evaluation.
            Some(At::Start | At::End) | None => None,
        };
        Self { grid: *grid, pinned, offset: offset.millis() }
    }

    pub(super) fn time(&self, step: usize) -> i64 {
        self.pinned.unwrap_or_else(|| self.grid.time(step)).saturating_sub(self.offset)
    }

    pub(super) fn first(&self) -> i64 {
        self.time(0)
    }

    pub(super) fn last(&self) -> i64 {
        self.time(self.grid.count - 1)
    }
}

/// What an instant selector asks of the store.
pub(super) fn instant_request<'r>(
    node: &'r VectorSelector,
    reference: &Reference,
    function: &'r str,
    lookback: i64,
    step: i64,
) -> Select<'r> {
    let after = if node.extension == Extension::Smoothed { lookback } else { 0 };
    Select {
        matchers: &node.matchers,
        min_time: reference.first().saturating_sub(lookback).saturating_add(1),
        max_time: reference.last().saturating_add(after),
        function,
        range: 0,
        step,
    }
}

/// What a range selector asks of the store.
pub(super) fn range_request<'r>(
    node: &'r MatrixSelector,
    reference: &Reference,
    function: &'r str,
    lookback: i64,
    step: i64,
) -> Select<'r> {
    let range = node.range.millis();
    let (before, after) = reach(node.vector.extension, lookback);
    Select {
        matchers: &node.vector.matchers,
        min_time: reference.first().saturating_sub(range).saturating_sub(before).saturating_add(1),
        max_time: reference.last().saturating_add(after),
        function,
        range,
        step,
    }
}

/// How far beyond a window its samples reach, before and after.
pub(super) fn reach(extension: Extension, lookback: i64) -> (i64, i64) {
    match extension {
        Extension::None => (0, 0),
        Extension::Anchored => (lookback, 0),
        Extension::Smoothed => (lookback, lookback),
    }
}

impl Evaluator<'_> {
    /// Streams an instant selector.
    pub(super) fn stream_selector(
        &self,
        node: &VectorSelector,
        grid: &Grid,
        reading: Reading,
        sink: Sink<'_>,
    ) -> Evaluated<()> {
        let reference = Reference::new(grid, node.at, &node.offset);
        let smoothed = node.extension == Extension::Smoothed;
        let function = if reading == Reading::Time { "timestamp" } else { "" };
        let request = instant_request(node, &reference, function, self.lookback, grid.step);
        let mut series_set = self.storage.select(&request)?;
        while let Some(series) = series_set.next()? {
            self.count_read(&series)?;
            let hinted = if self.only_statistics.get() { with_hints(series.histograms) } else { Vec::new() };
            let series = if hinted.is_empty() { series } else { SeriesView { histograms: &hinted, ..series } };
            let mut row = Row::new(series.labels.clone(), self.buffer(grid.count));
            let found = if smoothed {
                self.smooth(&series, &reference, node, &mut row)
            } else {
                latest(&series, &reference, self.lookback, reading, &mut row)
            };
            if found { sink(row)? } else { self.recycle(row) }
        }
        Ok(())
    }

    pub(super) fn count_read(&self, series: &SeriesView<'_>) -> Evaluated<()> {
        let read = self.samples_read.get() + series.timestamps.len() + series.histograms.len();
        self.samples_read.set(read);
        self.interrupted()
    }

    /// The value at each step interpolated between the samples around it; after the last sample its value stays.
    fn smooth(&self, series: &SeriesView<'_>, reference: &Reference, node: &VectorSelector, row: &mut Row) -> bool {
        let mut scratch = Scratch::default();
        let SeriesView { timestamps: times, values, histograms, .. } = scratch.without_stale(series);
        let mut found = false;
        for step in 0..row.values.len() {
            let time = reference.time(step);
            let window = |at: i64| at > time.saturating_sub(self.lookback) && at <= time.saturating_add(self.lookback);
            let split = times.partition_point(|at| *at <= time);
            let before =
                split.checked_sub(1).filter(|index| window(times[*index])).map(|i| (times[i], Point::Float(values[i])));
            let after =
                (split < times.len() && window(times[split])).then(|| (times[split], Point::Float(values[split])));
            let split = histograms.partition_point(|(at, _)| *at <= time);
            let histogram_before = split
                .checked_sub(1)
                .filter(|index| window(histograms[*index].0))
                .map(|i| (histograms[i].0, Point::Histogram(&histograms[i].1)));
            let histogram_after = histograms
                .get(split)
                .filter(|(at, _)| window(*at))
                .map(|(at, histogram)| (*at, Point::Histogram(histogram)));
            let Some((before_time, before)) = later(before, histogram_before) else { continue };
            let sample = match earlier(after, histogram_after) {
                Some((after_time, after)) if before_time < time => {
                    let fraction = (time - before_time) as f64 / (after_time - before_time) as f64;
                    match (before, after) {
                        (Point::Float(a), Point::Float(b)) => Some(Sample::Float(a + (b - a) * fraction)),
                        (Point::Histogram(a), Point::Histogram(b)) => interpolate_histogram(a, b, fraction, true)
                            .map(|histogram| Sample::Histogram(Arc::new(histogram))),
                        (Point::Float(_), Point::Histogram(_)) | (Point::Histogram(_), Point::Float(_)) => {
                            self.annotate(|a| a.mixed_floats_histograms(node.span, series.labels.metric_name()));
                            None
                        }
                    }
                }
                _ => Some(match before {
                    Point::Float(value) => Sample::Float(value),
                    Point::Histogram(histogram) => Sample::Histogram(Arc::clone(histogram)),
                }),
            };
            found |= sample.is_some();
            row.set(step, sample);
        }
        found
    }

    /// An instant query over a range vector returns the raw samples.
    pub(super) fn top_level_matrix(&self, expr: &Expr, grid: &Grid) -> Evaluated<QueryResult> {
        let mut result: Vec<Series> = Vec::new();
        let mut keep = |data: &SeriesData<'_>, windows: &Windows| {
            let window = windows.window(data, 0);
            self.hold(window.times.len() + window.histograms.len())?;
            if !window.is_empty() {
                result.push(Series {
                    labels: if data.drop_name { data.labels.without_name(true) } else { data.labels.clone() },
                    floats: window.times.iter().copied().zip(window.values.iter().copied()).collect(),
                    histograms: window.histograms.to_vec(),
                });
            }
            Ok(())
        };
        self.for_each_series(expr.unwrap_parens(), grid, "", &mut keep)?;
        result.sort_by(|a, b| a.labels.compare(&b.labels));
        Ok(QueryResult::Matrix(result))
    }
}

#[derive(Clone, Copy)]
enum Point<'p> {
    Float(f64),
    Histogram(&'p Arc<FloatHistogram>),
}

fn later<'p>(a: Option<(i64, Point<'p>)>, b: Option<(i64, Point<'p>)>) -> Option<(i64, Point<'p>)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.0 > b.0 { a } else { b }),
        (a, b) => a.or(b),
    }
}

fn earlier<'p>(a: Option<(i64, Point<'p>)>, b: Option<(i64, Point<'p>)>) -> Option<(i64, Point<'p>)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.0 < b.0 { a } else { b }),
        (a, b) => a.or(b),
    }
}

/// What is read off the samples a selector finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The sample.
    Value,
    /// Its time in seconds.
    Time,
    /// The time of a float; a histogram stays what it is.
    FloatTime,
    /// When its count began, in seconds; nothing when unknown.
    Start,
}

impl Reading {
    fn float(self, value: f64, time: i64, start: Option<&i64>) -> Option<f64> {
        match self {
            Self::Value => Some(value),
            Self::Time | Self::FloatTime => Some(time as f64 / 1000.0),
            Self::Start => start.filter(|start| **start != 0).map(|start| *start as f64 / 1000.0),
        }
    }
}

/// Fills a row with the latest sample in `(t - lookback, t]` of each step; false when there is none at all.
fn latest(series: &SeriesView<'_>, reference: &Reference, lookback: i64, reading: Reading, row: &mut Row) -> bool {
    let (mut floats, mut histograms) = (Pointer::default(), Pointer::default());
    let mut found = false;
    for step in 0..row.values.len() {
        let time = reference.time(step);
        let oldest = time.saturating_sub(lookback);
        floats.pass(time, series.timestamps.len(), |index| series.timestamps[index]);
        histograms.pass(time, series.histograms.len(), |index| series.histograms[index].0);
        let (float, histogram) = (floats.at, histograms.at);
        let float_at = float.checked_sub(1).map(|index| series.timestamps[index]).filter(|at| *at > oldest);
        let histogram_at = histogram.checked_sub(1).map(|index| series.histograms[index].0).filter(|at| *at > oldest);
        match (float_at, histogram_at) {
            (None, None) => {}
            (Some(at), other) if other.is_none_or(|other| other <= at) => {
                let value = series.values[float - 1];
                if is_absent(value) {
                    continue;
                }
                if let Some(value) = reading.float(value, at, series.starts.get(float - 1)) {
                    row.values[step] = value;
                    found = true;
                }
            }
            (_, Some(at)) => {
                let sample = &series.histograms[histogram - 1].1;
                if sample.is_stale() {
                    continue;
                }
                let read = match reading {
                    Reading::Value | Reading::FloatTime => Some(Sample::Histogram(Arc::clone(sample))),
                    _ => reading.float(0.0, at, series.histogram_starts.get(histogram - 1)).map(Sample::Float),
                };
                found |= read.is_some();
                row.set(step, read);
            }
            (Some(_), None) => {}
        }
    }
    found
}
