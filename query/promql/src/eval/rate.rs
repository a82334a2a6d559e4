//! `rate`, `increase`, `delta` and their instant and extended relatives.

use std::sync::Arc;

use super::window::{SeriesData, Window};
use crate::annotations::{Annotations, HistogramOp};
use crate::ast::{Extension, Span};
use crate::histogram::{FloatHistogram, ResetHint};
use crate::value::Sample;

/// Which of the family.
#[derive(Clone, Copy, Debug)]
pub(super) struct RateKind {
    /// Counters may only rise; a fall is a reset.
    pub(super) is_counter: bool,
    /// Per second rather than over the window.
    pub(super) is_rate: bool,
    pub(super) extension: Extension,
}

/// A function over the windows of one series, with what it needs to complain.
pub(super) struct RateContext<'c> {
    pub(super) kind: RateKind,
    pub(super) span: Span,
    pub(super) metric: &'c str,
    /// `resets[i]` counts the falls among the floats up to index i, so that a window without one is recognised in
    /// constant time.
    pub(super) resets: &'c [u32],
    pub(super) annotations: &'c std::cell::RefCell<Annotations>,
}

/// A window edge farther than this many average intervals from the nearest sample means the series ends there.
const EXTRAPOLATION_THRESHOLD: f64 = 1.1;

/// Counts of falls up to each sample.
pub(super) fn count_resets(data: &SeriesData<'_>, out: &mut Vec<u32>) {
    out.clear();
    let mut count = 0;
    let mut previous = f64::NEG_INFINITY;
    out.extend(data.values.iter().map(|value| {
        count += u32::from(*value < previous);
        previous = *value;
        count
    }));
}

impl RateContext<'_> {
    fn annotate(&self, add: impl FnOnce(&mut Annotations)) {
        add(&mut self.annotations.borrow_mut());
    }

    pub(super) fn evaluate(&self, window: &Window<'_>) -> Option<Sample> {
        let (floats, histograms) = (window.times.len(), window.histograms.len());
        if floats > 0 && histograms > 0 {
            self.annotate(|a| a.mixed_floats_histograms(self.span, self.metric));
            return None;
        }
        let seconds = (window.end - window.start) as f64 / 1000.0;
        if self.kind.extension != Extension::None {
            if histograms > 0 {
                let mut result = self.extended_histogram(window)?;
                if self.kind.is_rate {
                    result.divide(seconds);
                }
                return Some(Sample::Histogram(Arc::new(result)));
            }
            let increase = self.extended_float(window)?;
            return Some(Sample::Float(if self.kind.is_rate { increase / seconds } else { increase }));
        }
        if floats > 1 {
            let increase = self.float_increase(window);
            let factor = self.extrapolation(
                window,
                (window.times[0], window.times[floats - 1], floats),
                (increase > 0.0 && window.values[0] >= 0.0).then(|| window.values[0] / increase),
            );
            let factor = if self.kind.is_rate { factor / seconds } else { factor };
            return Some(Sample::Float(increase * factor));
        }
        if histograms > 1 {
            let mut increase = self.histogram_increase(window.histograms)?;
            let (first, last) = (&window.histograms[0], &window.histograms[histograms - 1]);
            let factor = self.extrapolation(
                window,
                (first.0, last.0, histograms),
                (increase.count > 0.0 && first.1.count >= 0.0).then(|| first.1.count / increase.count),
            );
            increase.scale(if self.kind.is_rate { factor / seconds } else { factor });
            // Scaling by a negative factor is impossible here; the hint stays that of a gauge.
            return Some(Sample::Histogram(Arc::new(increase)));
        }
        None
    }

    fn float_increase(&self, window: &Window<'_>) -> f64 {
        let values = window.values;
        let mut increase = values[values.len() - 1] - values[0];
        if !self.kind.is_counter {
            return increase;
        }
        let falls = self.resets[window.first + values.len() - 1] - self.resets[window.first];
        if falls == 0 {
            return increase;
        }
        for pair in values.windows(2) {
            if pair[1] < pair[0] {
                increase += pair[0];
            }
        }
        increase
    }

    /// How much longer the window is than what the samples cover, as far as the series may be taken to reach.
    /// `zero_share` tells how far before the first sample a counter was zero, in units of the covered time.
    fn extrapolation(
        &self,
        window: &Window<'_>,
        (first, last, samples): (i64, i64, usize),
        zero_share: Option<f64>,
    ) -> f64 {
        let covered = (last - first) as f64 / 1000.0;
        let average = covered / (samples - 1) as f64;
        let threshold = average * EXTRAPOLATION_THRESHOLD;
        let mut to_start = (first - window.start) as f64 / 1000.0;
        let mut to_end = (window.end - last) as f64 / 1000.0;
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if self.kind.is_counter {
            let to_zero = zero_share.map_or(to_start, |share| covered * share);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        (covered + to_start + to_end) / covered
    }

    fn histogram_increase(&self, points: &[(i64, Arc<FloatHistogram>)]) -> Option<FloatHistogram> {
        let (first, last) = (&points[0].1, &points[points.len() - 1].1);
        let is_gauge = |histogram: &FloatHistogram| histogram.hint == ResetHint::Gauge;
        if self.kind.is_counter && points.iter().any(|(_, histogram)| is_gauge(histogram)) {
            self.annotate(|a| a.not_a_counter(self.span, self.metric));
        }
        let both_gauges = is_gauge(first) && is_gauge(last);
        if !self.kind.is_counter && !both_gauges {
            self.annotate(|a| a.not_a_gauge(self.span, self.metric));
        }
        // After a reset between the first two the first one no longer matters, nor does its layout.
        let second = &points[1].1;
        let mut previous: Arc<FloatHistogram> = Arc::clone(first);
        if self.kind.is_counter && second.detect_reset(first) {
            previous = Arc::new(FloatHistogram {
                schema: second.schema,
                custom_values: Arc::clone(&second.custom_values),
                ..FloatHistogram::default()
            });
        }
        let custom = previous.is_custom();
        let relevant = if self.kind.is_counter { &points[1..] } else { &points[points.len() - 1..] };
        if relevant.iter().any(|(_, histogram)| histogram.is_custom() != custom) {
            self.annotate(|a| a.mixed_exponential_custom(self.span, self.metric));
            return None;
        }
        let schema = relevant.iter().map(|(_, histogram)| histogram.schema).fold(previous.schema, i32::min);
        let mut increase = last.at_schema(schema);
        self.combine(&mut increase, &previous, HistogramOp::Sub)?;
        if self.kind.is_counter {
            for (_, current) in &points[1..] {
                if current.detect_reset(&previous) {
                    self.combine(&mut increase, &previous, HistogramOp::Add)?;
                }
                previous = Arc::clone(current);
            }
        }
        increase.hint = ResetHint::Gauge;
        increase.compact();
        Some(increase)
    }

    /// Adds or subtracts; contradicting hints are no news here, because resets are dealt with one by one.
    fn combine(&self, target: &mut FloatHistogram, other: &FloatHistogram, op: HistogramOp) -> Option<()> {
        let outcome = if op == HistogramOp::Sub { target.subtract(other) } else { target.add(other) };
        match outcome {
            Err(_) => {
                self.annotate(|a| a.mixed_exponential_custom(self.span, self.metric));
                None
            }
            Ok(outcome) => {
                if outcome.bounds_reconciled {
                    self.annotate(|a| a.mismatched_custom_buckets(self.span, op));
                }
                Some(())
            }
        }
    }

    /// `irate` and `idelta`: the last two samples.
    pub(super) fn instant_value(&self, window: &Window<'_>) -> Option<Sample> {
        let floats = window.times.iter().zip(window.values).map(|(time, value)| (*time, Sample::Float(*value)));
        let histograms =
            window.histograms.iter().map(|(time, histogram)| (*time, Sample::Histogram(Arc::clone(histogram))));
        let skip = |len: usize| len.saturating_sub(2);
        let mut last: Vec<(i64, Sample)> =
            floats.skip(skip(window.times.len())).chain(histograms.skip(skip(window.histograms.len()))).collect();
        last.sort_by_key(|(time, _)| *time);
        let [.., (before_time, before), (time, current)] = last.as_slice() else { return None };
        let seconds = (time - before_time) as f64 / 1000.0;
        if seconds == 0.0 {
            return None;
        }
        match (before, current) {
            (Sample::Float(before), Sample::Float(current)) => {
                let reset = self.kind.is_counter && current < before;
                let change = if reset { *current } else { current - before };
                Some(Sample::Float(if self.kind.is_rate { change / seconds } else { change }))
            }
            (Sample::Histogram(before), Sample::Histogram(current)) => {
                let gauges = [before, current].iter().filter(|histogram| histogram.hint == ResetHint::Gauge).count();
                if self.kind.is_counter && gauges > 0 {
                    self.annotate(|a| a.not_a_counter(self.span, self.metric));
                }
                if !self.kind.is_counter && gauges < 2 {
                    self.annotate(|a| a.not_a_gauge(self.span, self.metric));
                }
                let mut change = FloatHistogram::clone(current);
                if !self.kind.is_counter || !current.detect_reset(before) {
                    self.combine(&mut change, before, HistogramOp::Sub)?;
                }
                change.hint = ResetHint::Gauge;
                change.compact();
                if self.kind.is_rate {
                    change.divide(seconds);
                }
                Some(Sample::Histogram(Arc::new(change)))
            }
            (Sample::Float(_), Sample::Histogram(_)) | (Sample::Histogram(_), Sample::Float(_)) => {
                self.annotate(|a| a.mixed_floats_histograms(self.span, self.metric));
                None
            }
        }
    }

    /// The indexes of the samples that stand for the two edges, `None` when nothing is inside the window.
    fn edges(&self, window: &Window<'_>, len: usize, time: impl Fn(usize) -> i64) -> Option<(usize, usize)> {
        let smoothed = self.kind.extension == Extension::Smoothed;
        let search = |found: &dyn Fn(usize) -> bool| (0..len - 1).find(|index| found(*index)).unwrap_or(len - 1);
        let first = search(&|index| time(index) > window.start).saturating_sub(1);
        let last = if smoothed { search(&|index| time(index) >= window.end) } else { len - 1 };
        (time(last) > window.start && time(first) <= window.end).then_some((first, last))
    }

    fn extended_float(&self, window: &Window<'_>) -> Option<f64> {
        let (times, values) = (window.times, window.values);
        let (mut first, mut last) = self.edges(window, times.len(), |index| times[index])?;
        let smoothed = self.kind.extension == Extension::Smoothed;
        let between = |left: usize, time: i64| {
            let base = if self.kind.is_counter && values[left + 1] < values[left] { 0.0 } else { values[left] };
            let fraction = (time - times[left]) as f64 / (times[left + 1] - times[left]) as f64;
            base + (values[left + 1] - base) * fraction
        };
        let left = if smoothed && times[first] < window.start && first + 1 < times.len() {
            between(first, window.start)
        } else {
            values[first]
        };
        let right =
            if smoothed && last > 0 && times[last] > window.end { between(last - 1, window.end) } else { values[last] };
        let mut increase = right - left;
        if self.kind.is_counter {
            if times[first] <= window.start {
                first += 1;
            }
            if times[last] >= window.end {
                last = last.saturating_sub(1);
            }
            let inside = if first <= last { &values[first..=last] } else { &[] };
            let mut previous = left;
            for value in inside.iter().chain([&right]) {
                if *value < previous {
                    increase += previous;
                }
                previous = *value;
            }
        }
        Some(increase)
    }

    fn extended_histogram(&self, window: &Window<'_>) -> Option<FloatHistogram> {
        let points = window.histograms;
        let (first, last) = self.edges(window, points.len(), |index| points[index].0)?;
        let used = &points[first..=last];
        let is_gauge = |histogram: &FloatHistogram| histogram.hint == ResetHint::Gauge;
        if used.iter().any(|(_, histogram)| histogram.is_custom() != used[0].1.is_custom()) {
            self.annotate(|a| a.mixed_exponential_custom(self.span, self.metric));
            return None;
        }
        if self.kind.is_counter && used.iter().any(|(_, histogram)| is_gauge(histogram)) {
            self.annotate(|a| a.not_a_counter(self.span, self.metric));
        }
        if !self.kind.is_counter && !used.iter().all(|(_, histogram)| is_gauge(histogram)) {
            self.annotate(|a| a.not_a_gauge(self.span, self.metric));
        }
        let smoothed = self.kind.extension == Extension::Smoothed;
        let between = |left: usize, time: i64| {
            let (from, to) = (&points[left], &points[left + 1]);
            interpolate_histogram(&from.1, &to.1, (time - from.0) as f64 / (to.0 - from.0) as f64, self.kind.is_counter)
        };
        let interpolates_left = smoothed && points[first].0 < window.start && first + 1 < points.len();
        let left =
            if interpolates_left { between(first, window.start)? } else { FloatHistogram::clone(&points[first].1) };
        let mut increase = if smoothed && last > 0 && points[last].0 > window.end {
            between(last - 1, window.end)?
        } else {
            FloatHistogram::clone(&points[last].1)
        };
        self.combine(&mut increase, &left, HistogramOp::Sub)?;
        if self.kind.is_counter {
            for index in first + 1..=last {
                // The interpolated left edge already started from zero if the counter was reset on the way.
                let both_interpolated = interpolates_left && index == first + 1;
                if both_interpolated || !points[index].1.detect_reset(&points[index - 1].1) {
                    continue;
                }
                let before = if index == first + 1 { &left } else { &*points[index - 1].1 };
                self.combine(&mut increase, before, HistogramOp::Add)?;
            }
        }
        increase.hint = ResetHint::Gauge;
        increase.compact();
        Some(increase)
    }
}

/// The histogram at a fraction of the way; a reset counter starts from zero.
pub(super) fn interpolate_histogram(
    from: &FloatHistogram,
    to: &FloatHistogram,
    fraction: f64,
    is_counter: bool,
) -> Option<FloatHistogram> {
    if is_counter && to.detect_reset(from) {
        let mut result = to.clone();
        result.scale(fraction);
        return Some(result);
    }
    let mut result = to.clone();
    result.subtract(from).ok()?;
    result.scale(fraction);
    result.add(from).ok()?;
    result.compact();
    Some(result)
}
