//! Functions over range vectors.

use std::sync::Arc;

use super::kahan::{Mean, increment};
use super::rate::{RateContext, RateKind, count_resets, is_new_count};
use super::row::Row;
use super::stream::{Sink, names_are_equal};
use super::window::{SeriesData, Window};
use super::{Evaluated, Evaluator, Grid, SAME_LABELSET, execution};
use crate::annotations::HistogramOp;
use crate::ast::{Call, Expr, Extension, Span, ValueType};
use crate::histogram::{AddOutcome, FloatHistogram, IncompatibleSchema, ResetHint};
use crate::number::format_fixed;
use crate::value::Sample;

/// Functions that know `anchored` and `smoothed`.
const ANCHORED_FUNCTIONS: [&str; 5] = ["changes", "delta", "increase", "rate", "resets"];
const SMOOTHED_FUNCTIONS: [&str; 3] = ["delta", "increase", "rate"];

/// The functions, resolved once per call.
#[derive(Clone, Copy, Debug)]
enum RangeFunction {
    Rate(RateKind),
    InstantRate(RateKind),
    Count,
    Present,
    Edge { is_first: bool, is_time: bool },
    Sum,
    Average,
    Changes,
    Resets,
    Float(FloatFunction),
}

/// Those that only look at floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FloatFunction {
    Min,
    Max,
    TimeOfMin,
    TimeOfMax,
    Deviation,
    Variance,
    MedianDeviation,
    Quantile,
    Derivative,
    Predict,
    Smooth,
}

impl RangeFunction {
    fn find(name: &str, extension: Extension) -> Option<Self> {
        let rate = |is_counter: bool, is_rate: bool| RateKind { is_counter, is_rate, extension };
        Some(match name {
            "rate" => Self::Rate(rate(true, true)),
            "increase" => Self::Rate(rate(true, false)),
            "delta" => Self::Rate(rate(false, false)),
            "irate" => Self::InstantRate(rate(true, true)),
            "idelta" => Self::InstantRate(rate(false, false)),
            "count_over_time" => Self::Count,
            "present_over_time" => Self::Present,
            "first_over_time" => Self::Edge { is_first: true, is_time: false },
            "last_over_time" => Self::Edge { is_first: false, is_time: false },
            "ts_of_first_over_time" => Self::Edge { is_first: true, is_time: true },
            "ts_of_last_over_time" => Self::Edge { is_first: false, is_time: true },
            "sum_over_time" => Self::Sum,
            "avg_over_time" => Self::Average,
            "changes" => Self::Changes,
            "resets" => Self::Resets,
            "min_over_time" => Self::Float(FloatFunction::Min),
            "max_over_time" => Self::Float(FloatFunction::Max),
            "ts_of_min_over_time" => Self::Float(FloatFunction::TimeOfMin),
            "ts_of_max_over_time" => Self::Float(FloatFunction::TimeOfMax),
            "stddev_over_time" => Self::Float(FloatFunction::Deviation),
            "stdvar_over_time" => Self::Float(FloatFunction::Variance),
            "mad_over_time" => Self::Float(FloatFunction::MedianDeviation),
            "quantile_over_time" => Self::Float(FloatFunction::Quantile),
            "deriv" => Self::Float(FloatFunction::Derivative),
            "predict_linear" => Self::Float(FloatFunction::Predict),
            "double_exponential_smoothing" => Self::Float(FloatFunction::Smooth),
            _ => return None,
        })
    }
}

/// What a function sees besides the window.
struct Scope<'c> {
    /// Scalar arguments at this step.
    scalars: &'c [f64],
    /// Time of the evaluation, which with `@` or offset is not the end of the window.
    time: i64,
    /// The first argument, where annotations point.
    span: Span,
    metric: &'c str,
    extension: Extension,
}

impl Evaluator<'_> {
    pub(super) fn stream_range_function(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let name = call.function.name;
        let Some(matrix) = call.args.iter().find(|arg| arg.value_type() == ValueType::Matrix) else {
            return execution(format!("function {name} needs a range vector"));
        };
        let extension = extension_of(matrix);
        check_extension(name, extension)?;
        if name == "absent_over_time" {
            return self.stream_absent_over_time(matrix, grid, sink);
        }
        let Some(function) = RangeFunction::find(name, extension) else {
            return execution(format!("function {name} is not implemented"));
        };
        let scalars: Vec<Vec<f64>> = call
            .args
            .iter()
            .filter(|arg| arg.value_type() == ValueType::Scalar)
            .map(|arg| self.scalar(arg, grid))
            .collect::<Evaluated<_>>()?;
        let keeps_name = matches!(name, "first_over_time" | "last_over_time");
        let now = self.drops_names_now() && !keeps_name;
        let must_be_unique = now && !names_are_equal(matrix);
        let mut seen = hashbrown::HashSet::new();
        let mut resets = Vec::new();
        let mut scalars_now = vec![0.0; scalars.len()];
        let span = call.args[0].span();
        self.for_each_series(matrix, grid, name, &mut |data, windows| {
            if matches!(function, RangeFunction::Rate(RateKind { is_counter: true, .. })) {
                count_resets(data, &mut resets);
            }
            let metric = data.labels.metric_name();
            let mut row = Row::new(data.labels.clone(), self.buffer(grid.count));
            row.drop_name = data.drop_name || !keeps_name;
            let (mut found, mut found_float) = (false, false);
            let plain = extension == Extension::None && data.histograms.is_empty() && data.starts.is_empty();
            let context = |kind| RateContext { kind, span, metric, resets: &resets, annotations: &self.annotations };
            match function {
                RangeFunction::Rate(kind) if plain => {
                    found = context(kind).evaluate_plain(data, windows, &mut row.values);
                    found_float = found;
                }
                _ => {
                    for step in 0..grid.count {
                        let window = windows.window(data, step);
                        if window.is_empty() {
                            continue;
                        }
                        scalars_now.iter_mut().zip(&scalars).for_each(|(now, all)| *now = all[step]);
                        let scope = Scope { scalars: &scalars_now, time: grid.time(step), span, metric, extension };
                        let sample = match function {
                            RangeFunction::Rate(kind) => context(kind).evaluate(&window),
                            RangeFunction::InstantRate(kind) => context(kind).instant_value(&window),
                            function => self.range_function(function, &window, &scope)?,
                        };
                        found |= sample.is_some();
                        match sample {
                            Some(Sample::Float(value)) => {
                                row.values[step] = value;
                                found_float = true;
                            }
                            Some(histogram) => row.set(step, Some(histogram)),
                            None => {}
                        }
                    }
                }
            }
            if found_float && matches!(name, "rate" | "increase") && !looks_like_counter(metric) {
                self.annotate(|a| a.possible_non_counter(span, metric));
            }
            if !found {
                self.recycle(row);
                return Ok(());
            }
            if now {
                row.settle_name();
            }
            if must_be_unique && !seen.insert(row.labels.clone()) {
                return execution(SAME_LABELSET);
            }
            sink(row)
        })
    }

    fn range_function(
        &self,
        function: RangeFunction,
        window: &Window<'_>,
        scope: &Scope<'_>,
    ) -> Evaluated<Option<Sample>> {
        let float = |value: f64| Ok(Some(Sample::Float(value)));
        match function {
            RangeFunction::Count => float((window.times.len() + window.histograms.len()) as f64),
            RangeFunction::Present => float(1.0),
            RangeFunction::Edge { is_first, is_time } => Ok(edge_sample(is_first, is_time, window)),
            RangeFunction::Sum => Ok(self.sum_or_average(false, window, scope)),
            RangeFunction::Average => Ok(self.sum_or_average(true, window, scope)),
            RangeFunction::Changes => Ok(count_transitions(window, scope.extension, differs)),
            RangeFunction::Resets => Ok(count_transitions(window, scope.extension, is_reset)),
            RangeFunction::Float(function) => self.float_function(function, window, scope),
            RangeFunction::Rate(_) | RangeFunction::InstantRate(_) => execution("rates are evaluated apart"),
        }
    }

    /// Functions that look at floats only and say so when histograms were passed over.
    fn float_function(
        &self,
        function: FloatFunction,
        window: &Window<'_>,
        scope: &Scope<'_>,
    ) -> Evaluated<Option<Sample>> {
        use FloatFunction as F;
        if function == F::Smooth {
            check_factor("smoothing", "sf", scope.scalars[0])?;
            check_factor("trend", "tf", scope.scalars[1])?;
        }
        if window.times.is_empty() {
            return Ok(None);
        }
        if function == F::Quantile && !(0.0..=1.0).contains(&scope.scalars[0]) {
            self.annotate(|a| a.invalid_quantile(scope.span, scope.scalars[0]));
        }
        if !window.histograms.is_empty() {
            self.annotate(|a| a.histogram_ignored_in_mixed_range(scope.span, scope.metric));
        }
        if matches!(function, F::Derivative | F::Predict | F::Smooth) && window.times.len() < 2 {
            return Ok(None);
        }
        let values = window.values;
        let seconds = |index: usize| window.times[index] as f64 / 1000.0;
        let value = match function {
            F::Min => extreme(values, |candidate, best| candidate < best).1,
            F::Max => extreme(values, |candidate, best| candidate > best).1,
            F::TimeOfMin => seconds(extreme(values, |candidate, best| candidate <= best).0),
            F::TimeOfMax => seconds(extreme(values, |candidate, best| candidate >= best).0),
            F::Deviation => variance(values).sqrt(),
            F::Variance => variance(values),
            F::MedianDeviation => median_absolute_deviation(values),
            F::Quantile => super::quantile::of_values(scope.scalars[0], &mut values.to_vec()),
            F::Derivative => linear_regression(window, window.times[0]).0,
            F::Predict => {
                let (slope, intercept) = linear_regression(window, scope.time);
                slope * scope.scalars[0] + intercept
            }
            F::Smooth => smooth(values, scope.scalars[0], scope.scalars[1]),
        };
        Ok(Some(Sample::Float(value)))
    }

    fn sum_or_average(&self, average: bool, window: &Window<'_>, scope: &Scope<'_>) -> Option<Sample> {
        if window.histograms.is_empty() {
            return Some(Sample::Float(if average { mean(window.values) } else { sum(window.values) }));
        }
        if !window.times.is_empty() {
            self.annotate(|a| a.mixed_floats_histograms(scope.span, scope.metric));
            return None;
        }
        let mut total = HistogramSum::new(&window.histograms[0].1, average);
        for (_, histogram) in &window.histograms[1..] {
            if total.add(histogram).is_err() {
                self.annotate(|a| a.mixed_exponential_custom(scope.span, scope.metric));
                return None;
            }
        }
        if total.reset_seen && total.not_reset_seen {
            self.annotate(|a| a.counter_reset_collision(scope.span, HistogramOp::Aggregate));
        }
        if total.bounds_reconciled {
            self.annotate(|a| a.mismatched_custom_buckets(scope.span, HistogramOp::Aggregate));
        }
        Some(Sample::Histogram(Arc::new(total.finish())))
    }

    fn stream_absent_over_time(&self, matrix: &Expr, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let mut present = vec![false; grid.count];
        self.for_each_series(matrix, grid, "absent_over_time", &mut |data: &SeriesData<'_>, windows| {
            for (step, present) in present.iter_mut().enumerate() {
                *present |= !windows.window(data, step).is_empty();
            }
            Ok(())
        })?;
        self.sink_absent(matrix, &present, sink)
    }
}

fn extension_of(matrix: &Expr) -> Extension {
    match matrix.unwrap_parens() {
        Expr::Matrix(node) => node.vector.extension,
        _ => Extension::None,
    }
}

fn check_extension(name: &str, extension: Extension) -> Evaluated<()> {
    let (word, allowed): (&str, &[&str]) = match extension {
        Extension::None => return Ok(()),
        Extension::Anchored => ("anchored", &ANCHORED_FUNCTIONS),
        Extension::Smoothed => ("smoothed", &SMOOTHED_FUNCTIONS),
    };
    if allowed.contains(&name) {
        return Ok(());
    }
    execution(format!("{word} modifier can only be used with: {} - not with {name}", allowed.join(", ")))
}

fn looks_like_counter(metric: &str) -> bool {
    metric.is_empty() || ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| metric.ends_with(suffix))
}

fn check_factor(kind: &str, symbol: &str, factor: f64) -> Evaluated<()> {
    if factor <= 0.0 || factor >= 1.0 {
        let shown = if factor.is_finite() { format!("{factor:.6}") } else { format_fixed(factor) };
        return execution(format!("invalid {kind} factor. Expected: 0 < {symbol} < 1, got: {shown}"));
    }
    Ok(())
}

fn edge_sample(is_first: bool, is_time: bool, window: &Window<'_>) -> Option<Sample> {
    let pick = |len: usize| if is_first { 0 } else { len - 1 };
    let float = (!window.times.is_empty()).then(|| {
        let index = pick(window.times.len());
        (window.times[index], Sample::Float(window.values[index]))
    });
    let histogram = (!window.histograms.is_empty()).then(|| {
        let (time, histogram) = &window.histograms[pick(window.histograms.len())];
        (*time, Sample::Histogram(Arc::clone(histogram)))
    });
    let (time, sample) = match (float, histogram) {
        (Some(float), Some(histogram)) => {
            if (float.0 < histogram.0) == is_first {
                float
            } else {
                histogram
            }
        }
        (float, histogram) => float.or(histogram)?,
    };
    Some(if is_time { Sample::Float(time as f64 / 1000.0) } else { sample })
}

/// Counts neighbours for which `counts` holds, over floats and histograms in time order. With `anchored` the last
/// sample before the window takes part.
fn count_transitions(
    window: &Window<'_>,
    extension: Extension,
    counts: fn(&Moment<'_>, &Moment<'_>) -> bool,
) -> Option<Sample> {
    let start = |starts: &[i64], index: usize| starts.get(index).copied().unwrap_or(0);
    let mut points: Vec<Moment<'_>> = Vec::with_capacity(window.times.len() + window.histograms.len());
    points.extend(window.times.iter().zip(window.values).enumerate().map(|(index, (time, value))| Moment {
        time: *time,
        start: start(window.starts, index),
        value: PointRef::Float(*value),
    }));
    if !window.histograms.is_empty() {
        points.extend(window.histograms.iter().enumerate().map(|(index, (time, histogram))| Moment {
            time: *time,
            start: start(window.histogram_starts, index),
            value: PointRef::Histogram(histogram),
        }));
        points.sort_by_key(|point| point.time);
    }
    let mut first = 0;
    if extension == Extension::Anchored {
        if points.last().is_none_or(|point| point.time <= window.start) {
            return None;
        }
        first = points.partition_point(|point| point.time <= window.start).saturating_sub(1);
    }
    let count = points[first..].windows(2).filter(|pair| counts(&pair[0], &pair[1])).count();
    Some(Sample::Float(count as f64))
}

struct Moment<'p> {
    time: i64,
    start: i64,
    value: PointRef<'p>,
}

#[derive(Clone, Copy)]
enum PointRef<'p> {
    Float(f64),
    Histogram(&'p FloatHistogram),
}

fn differs(before: &Moment<'_>, current: &Moment<'_>) -> bool {
    match (before.value, current.value) {
        (PointRef::Float(a), PointRef::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (PointRef::Histogram(a), PointRef::Histogram(b)) => !a.equals(b),
        (PointRef::Float(_), PointRef::Histogram(_)) | (PointRef::Histogram(_), PointRef::Float(_)) => true,
    }
}

fn is_reset(before: &Moment<'_>, current: &Moment<'_>) -> bool {
    if is_new_count(before.start, before.time, current.start, current.time) {
        return true;
    }
    match (before.value, current.value) {
        (PointRef::Float(a), PointRef::Float(b)) => b < a,
        (PointRef::Histogram(a), PointRef::Histogram(b)) => b.detect_reset(a),
        (PointRef::Float(_), PointRef::Histogram(_)) | (PointRef::Histogram(_), PointRef::Float(_)) => true,
    }
}

fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut compensation) = (0.0, 0.0);
    for value in values {
        (sum, compensation) = increment(*value, sum, compensation);
    }
    if sum.is_infinite() { sum } else { sum + compensation }
}

fn mean(values: &[f64]) -> f64 {
    let mut mean = Mean::new(values[0]);
    values[1..].iter().for_each(|value| mean.add(*value));
    mean.result()
}

/// The best value and its index; NaN loses against anything.
fn extreme(values: &[f64], better: fn(f64, f64) -> bool) -> (usize, f64) {
    let mut best = (0, values[0]);
    for (index, value) in values.iter().enumerate() {
        if better(*value, best.1) || best.1.is_nan() {
            best = (index, *value);
        }
    }
    best
}

/// Welford's method with compensated sums.
fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut mean_lost, mut squares, mut squares_lost) = (0.0, 0.0, 0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        let delta = value - (mean + mean_lost);
        (mean, mean_lost) = increment(delta / (index + 1) as f64, mean, mean_lost);
        (squares, squares_lost) = increment(delta * (value - (mean + mean_lost)), squares, squares_lost);
    }
    (squares + squares_lost) / values.len() as f64
}

fn median_absolute_deviation(values: &[f64]) -> f64 {
    let median = super::quantile::of_values(0.5, &mut values.to_vec());
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    super::quantile::of_values(0.5, &mut deviations)
}

/// Least squares over seconds relative to `origin`: slope and value there.
fn linear_regression(window: &Window<'_>, origin: i64) -> (f64, f64) {
    let first = window.values[0];
    if window.values.iter().all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let mut sums = [(0.0, 0.0); 4];
    for (time, y) in window.times.iter().zip(window.values) {
        let x = (time - origin) as f64 / 1000.0;
        for ((sum, lost), value) in sums.iter_mut().zip([x, *y, x * y, x * x]) {
            (*sum, *lost) = increment(value, *sum, *lost);
        }
    }
    let [x, y, xy, xx] = sums.map(|(sum, lost)| sum + lost);
    let count = window.values.len() as f64;
    let slope = (xy - x * y / count) / (xx - x * x / count);
    (slope, y / count - slope * x / count)
}

/// Holt's double exponential smoothing.
fn smooth(values: &[f64], smoothing: f64, trend_factor: f64) -> f64 {
    let (mut before, mut current) = (0.0, values[0]);
    let mut trend = values[1] - values[0];
    for (index, value) in values.iter().enumerate().skip(1) {
        if index > 1 {
            trend = trend_factor * (current - before) + (1.0 - trend_factor) * trend;
        }
        let smoothed = smoothing * value + (1.0 - smoothing) * (current + trend);
        (before, current) = (current, smoothed);
    }
    current
}

/// Sum or mean of histograms, compensated, switching to an incremental mean when the sum overflows.
#[derive(Clone, Debug)]
pub(super) struct HistogramSum {
    total: FloatHistogram,
    compensation: FloatHistogram,
    count: f64,
    average: bool,
    incremental: bool,
    pub(super) reset_seen: bool,
    pub(super) not_reset_seen: bool,
    pub(super) bounds_reconciled: bool,
}

impl HistogramSum {
    pub(super) fn new(first: &FloatHistogram, average: bool) -> Self {
        let compensation = FloatHistogram {
            schema: first.schema,
            zero_threshold: first.zero_threshold,
            custom_values: Arc::clone(&first.custom_values),
            hint: first.hint,
            ..FloatHistogram::default()
        };
        let mut sum = Self {
            total: first.clone(),
            compensation,
            count: 1.0,
            average,
            incremental: false,
            reset_seen: false,
            not_reset_seen: false,
            bounds_reconciled: false,
        };
        sum.track(first.hint);
        sum
    }

    fn track(&mut self, hint: ResetHint) {
        self.reset_seen |= hint == ResetHint::Reset;
        self.not_reset_seen |= hint == ResetHint::NotReset;
    }

    pub(super) fn add(&mut self, histogram: &FloatHistogram) -> Result<(), IncompatibleSchema> {
        self.track(histogram.hint);
        self.count += 1.0;
        if !self.incremental {
            if !self.average {
                let outcome = self.total.add_compensated(histogram, &mut self.compensation)?;
                self.note(outcome);
                return Ok(());
            }
            let (mut total, mut compensation) = (self.total.clone(), self.compensation.clone());
            let outcome = total.add_compensated(histogram, &mut compensation)?;
            self.note(outcome);
            if !total.has_overflow() {
                (self.total, self.compensation) = (total, compensation);
                return Ok(());
            }
            self.incremental = true;
            self.total.divide(self.count - 1.0);
            self.compensation.divide(self.count - 1.0);
        }
        let share = (self.count - 1.0) / self.count;
        self.total.scale(share);
        self.compensation.scale(share);
        let mut part = histogram.clone();
        part.divide(self.count);
        let outcome = self.total.add_compensated(&part, &mut self.compensation)?;
        self.note(outcome);
        Ok(())
    }

    fn note(&mut self, outcome: AddOutcome) {
        self.bounds_reconciled |= outcome.bounds_reconciled;
    }

    pub(super) fn finish(mut self) -> FloatHistogram {
        if self.average && !self.incremental {
            self.total.divide(self.count);
            self.compensation.divide(self.count);
        }
        self.compensation.hint = self.total.hint;
        let kept = self.total.clone();
        // The compensation has the layout of the total, so this cannot fail; were it to, the plain sum stands.
        if self.total.add(&self.compensation).is_err() {
            self.total = kept;
        }
        self.total.compact();
        self.total
    }
}
