//! Windows over one series: every step sees a contiguous part of its samples, and the parts only move forward.

use std::ops::Range;
use std::sync::Arc;

use super::selector::{Reference, range_request, reach};
use super::{Engine, Evaluated, Evaluator, Grid, execution, step_count};
use crate::ast::{Expr, Extension, MatrixSelector, Subquery};
use crate::histogram::{FloatHistogram, ResetHint};
use crate::storage::SeriesView;
use crate::value::is_absent;
use windrose_proto::metric::labels::Labels;

/// One series without staleness markers.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeriesData<'s> {
    pub(super) labels: &'s Labels,
    pub(super) drop_name: bool,
    pub(super) times: &'s [i64],
    pub(super) values: &'s [f64],
    pub(super) histograms: &'s [(i64, Arc<FloatHistogram>)],
    /// Parallel to the floats, or empty when starts are not used.
    pub(super) starts: &'s [i64],
    /// Parallel to the histograms, or empty.
    pub(super) histogram_starts: &'s [i64],
}

/// What one step sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'w> {
    /// Index of the first float in the series.
    pub(super) first: usize,
    pub(super) times: &'w [i64],
    pub(super) values: &'w [f64],
    pub(super) histograms: &'w [(i64, Arc<FloatHistogram>)],
    pub(super) starts: &'w [i64],
    pub(super) histogram_starts: &'w [i64],
    /// The window is `(start, end]`; with an extension the samples reach beyond it.
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Window<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.times.is_empty() && self.histograms.is_empty()
    }
}

/// The windows of all steps over one series.
#[derive(Debug)]
pub(super) struct Windows {
    reference: Reference,
    range: i64,
    before: i64,
    after: i64,
    floats: Vec<Range<usize>>,
    histograms: Vec<Range<usize>>,
}

impl Windows {
    fn new(reference: Reference, range: i64, extension: Extension, lookback: i64) -> Self {
        let (before, after) = reach(extension, lookback);
        Self { reference, range, before, after, floats: Vec::new(), histograms: Vec::new() }
    }

    /// Finds the parts of a series for every step.
    fn locate(&mut self, data: &SeriesData<'_>, steps: usize) {
        let bounds = |step: usize| {
            let time = self.reference.time(step);
            (time.saturating_sub(self.range).saturating_sub(self.before), time.saturating_add(self.after))
        };
        self.floats.clear();
        slide(&mut self.floats, data.times.len(), steps, |index| data.times[index], bounds);
        self.histograms.clear();
        if data.histograms.is_empty() {
            self.histograms.resize(steps, 0..0);
        } else {
            slide(&mut self.histograms, data.histograms.len(), steps, |index| data.histograms[index].0, bounds);
        }
    }

    /// The floats of a step and the bounds of its window.
    #[inline]
    pub(super) fn floats(&self, step: usize) -> (Range<usize>, i64, i64) {
        let end = self.reference.time(step);
        (self.floats[step].clone(), end.saturating_sub(self.range), end)
    }

    /// The window of a step.
    pub(super) fn window<'w>(&self, data: &SeriesData<'w>, step: usize) -> Window<'w> {
        let floats = self.floats[step].clone();
        let histograms = self.histograms[step].clone();
        let end = self.reference.time(step);
        Window {
            first: floats.start,
            times: &data.times[floats.clone()],
            values: &data.values[floats.clone()],
            histograms: &data.histograms[histograms.clone()],
            starts: data.starts.get(floats).unwrap_or_default(),
            histogram_starts: data.histogram_starts.get(histograms).unwrap_or_default(),
            start: end.saturating_sub(self.range),
            end,
        }
    }
}

fn slide(
    out: &mut Vec<Range<usize>>,
    len: usize,
    steps: usize,
    time: impl Fn(usize) -> i64,
    bounds: impl Fn(usize) -> (i64, i64),
) {
    let (mut low, mut high) = (Pointer::default(), Pointer::default());
    for step in 0..steps {
        let (start, end) = bounds(step);
        high.pass(end, len, &time);
        low.pass(start, high.at, &time);
        out.push(low.at..high.at);
    }
}

/// An index into ascending times that only moves forward. Scrapes are regular, so that it mostly moves as far as it did
/// the time before: two comparisons per step instead of one per sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pointer {
    /// The first index not passed yet.
    pub(super) at: usize,
    stride: usize,
}

impl Pointer {
    /// Passes every time up to and including `bound`.
    #[inline]
    pub(super) fn pass(&mut self, bound: i64, len: usize, time: impl Fn(usize) -> i64) {
        let mut at = (self.at + self.stride).min(len);
        while at < len && time(at) <= bound {
            at += 1;
        }
        while at > self.at && time(at - 1) > bound {
            at -= 1;
        }
        self.stride = at - self.at;
        self.at = at;
    }
}

/// Uses a series and its windows.
pub(super) type SeriesVisitor<'v> = &'v mut dyn FnMut(&SeriesData<'_>, &Windows) -> Evaluated<()>;

impl Evaluator<'_> {
    /// Visits every series of a range vector expression.
    pub(super) fn for_each_series(
        &self,
        expr: &Expr,
        grid: &Grid,
        function: &str,
        visit: SeriesVisitor<'_>,
    ) -> Evaluated<()> {
        match expr {
            Expr::Paren(node) => self.for_each_series(&node.expr, grid, function, visit),
            Expr::Matrix(node) => self.for_each_selected(node, grid, function, visit),
            Expr::Subquery(node) => self.for_each_computed(node, grid, visit),
            _ => execution(format!("unexpected {} where a range vector is needed", expr.value_type().documented())),
        }
    }

    fn for_each_selected(
        &self,
        node: &MatrixSelector,
        grid: &Grid,
        function: &str,
        visit: SeriesVisitor<'_>,
    ) -> Evaluated<()> {
        let reference = Reference::new(grid, node.vector.at, &node.vector.offset);
        let mut windows = Windows::new(reference, node.range.millis(), node.vector.extension, self.lookback);
        let request = range_request(node, &reference, function, self.lookback, grid.step);
        let mut series_set = self.storage.select(&request)?;
        let mut scratch = Scratch::default();
        while let Some(series) = series_set.next()? {
            self.count_read(&series)?;
            let series = scratch.without_stale(&series);
            let hinted = if self.only_statistics.get() { with_hints(series.histograms) } else { Vec::new() };
            let with_starts = self.engine.use_start_timestamps;
            let data = SeriesData {
                labels: series.labels,
                drop_name: false,
                times: series.timestamps,
                values: series.values,
                histograms: if hinted.is_empty() { series.histograms } else { &hinted },
                starts: if with_starts { series.starts } else { &[] },
                histogram_starts: if with_starts { series.histogram_starts } else { &[] },
            };
            windows.locate(&data, grid.count);
            visit(&data, &windows)?;
        }
        Ok(())
    }

    /// A subquery evaluates its expression at the multiples of its step inside the windows of all outer steps.
    fn for_each_computed(&self, node: &Subquery, grid: &Grid, visit: SeriesVisitor<'_>) -> Evaluated<()> {
        let reference = Reference::new(grid, node.at, &node.offset);
        let Some(inner) = subquery_grid(&reference, node, &self.engine)? else { return Ok(()) };
        let mut windows = Windows::new(reference, node.range.millis(), Extension::None, 0);
        let (mut times, mut values, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
        self.stream(&node.expr, &inner, &mut |row| {
            times.clear();
            values.clear();
            histograms.clear();
            for index in 0..inner.count {
                if let Some(histogram) = row.histogram(index) {
                    histograms.push((inner.time(index), without_hint(histogram)));
                } else if !is_absent(row.values[index]) {
                    times.push(inner.time(index));
                    values.push(row.values[index]);
                }
            }
            let data = SeriesData {
                labels: &row.labels,
                drop_name: row.drop_name,
                times: &times,
                values: &values,
                histograms: &histograms,
                starts: &[],
                histogram_starts: &[],
            };
            windows.locate(&data, grid.count);
            visit(&data, &windows)?;
            self.recycle(row);
            Ok(())
        })
    }
}

/// The multiples of the step of a subquery in `(first - range, last]`; `None` when there is none.
pub(super) fn subquery_grid(reference: &Reference, node: &Subquery, engine: &Engine) -> Evaluated<Option<Grid>> {
    let step = if node.step.is_set() { node.step.millis() } else { engine.default_subquery_step };
    let after = reference.first().saturating_sub(node.range.millis());
    let start = after.div_euclid(step).checked_mul(step).and_then(|multiple| multiple.checked_add(step));
    let Some(start) = start else { return Ok(None) };
    let count = step_count(start, reference.last(), step);
    if count > engine.limits.max_steps {
        return execution("subquery has too many steps; increase its step or shorten its range");
    }
    Ok((count > 0).then_some(Grid { start, step, count }))
}

/// Subqueries may skip or repeat samples, so that what the store knew about resets no longer holds.
fn without_hint(histogram: &Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    match histogram.hint {
        ResetHint::Unknown | ResetHint::Gauge => Arc::clone(histogram),
        ResetHint::Reset | ResetHint::NotReset => {
            let mut copy = FloatHistogram::clone(histogram);
            copy.hint = ResetHint::Unknown;
            Arc::new(copy)
        }
    }
}

/// The histograms with what can be seen of resets between neighbours; empty when there is nothing to add.
pub(super) fn with_hints(histograms: &[(i64, Arc<FloatHistogram>)]) -> Vec<(i64, Arc<FloatHistogram>)> {
    if histograms.iter().skip(1).all(|(_, histogram)| histogram.hint != ResetHint::Unknown) {
        return Vec::new();
    }
    let mut hinted = histograms.to_vec();
    for index in 1..hinted.len() {
        let (before, current) = (&histograms[index - 1].1, &mut hinted[index].1);
        if current.hint == ResetHint::Unknown {
            let mut copy = FloatHistogram::clone(current);
            copy.hint = if current.detect_reset(before) { ResetHint::Reset } else { ResetHint::NotReset };
            *current = Arc::new(copy);
        }
    }
    hinted
}

/// Buffers for a series whose staleness markers are taken out.
#[derive(Default)]
pub(super) struct Scratch {
    times: Vec<i64>,
    values: Vec<f64>,
    starts: Vec<i64>,
    histograms: Vec<(i64, Arc<FloatHistogram>)>,
    histogram_starts: Vec<i64>,
}

impl Scratch {
    /// The series without staleness markers; copies only the columns that hold any.
    pub(super) fn without_stale<'s>(&'s mut self, series: &SeriesView<'s>) -> SeriesView<'s> {
        let mut clean = *series;
        if has_stale(series.values) {
            self.times.clear();
            self.values.clear();
            self.starts.clear();
            for (index, value) in series.values.iter().enumerate().filter(|(_, value)| !is_absent(**value)) {
                self.times.push(series.timestamps[index]);
                self.values.push(*value);
                self.starts.extend(series.starts.get(index));
            }
            (clean.timestamps, clean.values, clean.starts) = (&self.times, &self.values, &self.starts);
        }
        if series.histograms.iter().any(|(_, histogram)| histogram.is_stale()) {
            self.histograms.clear();
            self.histogram_starts.clear();
            for (index, sample) in series.histograms.iter().enumerate().filter(|(_, sample)| !sample.1.is_stale()) {
                self.histograms.push(sample.clone());
                self.histogram_starts.extend(series.histogram_starts.get(index));
            }
            (clean.histograms, clean.histogram_starts) = (&self.histograms, &self.histogram_starts);
        }
        clean
    }
}

/// Whether there is a staleness marker. Blocks without NaN, which are nearly all, are passed without a branch per
/// value.
fn has_stale(values: &[f64]) -> bool {
    values.chunks(64).any(|block| {
        let has_nan = block.iter().fold(false, |found, value| found | value.is_nan());
        has_nan && block.iter().any(|value| is_absent(*value))
    })
}
