//! `rate`, `increase`, `delta` and their instant and extended relatives.

use std::sync::Arc;

use super::window::{SeriesData, Window, Windows};
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
    /// constant time. Empty when the series never falls.
    pub(super) resets: &'c [u32],
    pub(super) annotations: &'c std::cell::RefCell<Annotations>,
}

/// A window edge farther than this many average intervals from the nearest sample means the series ends there.
const EXTRAPOLATION_THRESHOLD: f64 = 1.1;

/// Counts of falls up to each sample; empty when there is none at all, as in most series.
pub(super) fn count_resets(data: &SeriesData<'_>, out: &mut Vec<u32>) {
    out.clear();
    let falls: usize = data.values.windows(2).map(|pair| usize::from(pair[1] < pair[0])).sum();
    if falls == 0 {
        return;
    }
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
        if floats > 0 {
            let (increase, begin) = self.float_increase(window)?;
            let zero = zero_share(window.values[0], increase);
            let covered = Covered { begin, first: window.times[0], last: window.times[floats - 1], samples: floats };
            let factor = self.extrapolation(window.start, window.end, &covered, zero);
            return Some(Sample::Float(increase * if self.kind.is_rate { factor / seconds } else { factor }));
        }
        if histograms > 0 {
            let (mut increase, begin) = self.histogram_increase_from_start(window)?;
            let (first, last) = (&window.histograms[0], &window.histograms[histograms - 1]);
            let zero = zero_share(first.1.count, increase.count);
            let covered = Covered { begin, first: first.0, last: last.0, samples: histograms };
            let factor = self.extrapolation(window.start, window.end, &covered, zero);
            increase.scale(if self.kind.is_rate { factor / seconds } else { factor });
            return Some(Sample::Histogram(Arc::new(increase)));
        }
        None
    }

    /// All windows of a series that has neither histograms nor known starts nor an extension: nearly every series of
    /// nearly every dashboard. The same arithmetic as [`Self::evaluate`] in a loop without choices. False when no
    /// window has two samples.
    pub(super) fn evaluate_plain(&self, data: &SeriesData<'_>, windows: &Windows, out: &mut [f64]) -> bool {
        let mut found = false;
        for (step, out) in out.iter_mut().enumerate() {
            let (range, start, end) = windows.floats(step);
            let first = range.start;
            let (times, values) = (&data.times[range.clone()], &data.values[range]);
            let ([first_time, .., last_time], [first_value, .., last_value]) = (times, values) else { continue };
            let mut increase = last_value - first_value;
            let last = first + values.len() - 1;
            if self.kind.is_counter && !self.resets.is_empty() && self.resets[last] != self.resets[first] {
                increase = values.windows(2).filter(|pair| pair[1] < pair[0]).fold(increase, |sum, pair| sum + pair[0]);
            }
            let covered = Covered { begin: None, first: *first_time, last: *last_time, samples: values.len() };
            let factor = self.extrapolation(start, end, &covered, zero_share(*first_value, increase));
            let seconds = (end - start) as f64 / 1000.0;
            *out = increase * if self.kind.is_rate { factor / seconds } else { factor };
            found = true;
        }
        found
    }

    /// When the count of the first sample began, if that is known to be inside the window: there the counter was
    /// zero.
    fn known_start(&self, window: &Window<'_>, starts: &[i64], first: i64) -> Option<i64> {
        let start = *starts.first()?;
        (self.kind.is_counter && start != 0 && start > window.start && start < first).then_some(start)
    }

    /// The increase over the samples, and since when; `None` for a single sample of unknown start.
    fn float_increase(&self, window: &Window<'_>) -> Option<(f64, Option<i64>)> {
        let values = window.values;
        let begin = self.known_start(window, window.starts, window.times[0]);
        if values.len() < 2 {
            return begin.map(|begin| (values[0], Some(begin)));
        }
        let mut increase = values[values.len() - 1] - values[0];
        if begin.is_some() {
            increase += values[0];
        }
        if !self.kind.is_counter {
            return Some((increase, begin));
        }
        let falls = self.resets.get(window.first + values.len() - 1).zip(self.resets.get(window.first));
        if window.starts.is_empty() && falls.is_none_or(|(last, first)| last == first) {
            return Some((increase, begin));
        }
        self.check_overlaps(window.starts, |index| window.times[index]);
        for index in 1..values.len() {
            let anew = begins_anew(window.starts, index, |index| window.times[index]);
            if anew || values[index] < values[index - 1] {
                increase += values[index - 1];
            }
        }
        Some((increase, begin))
    }

    /// Complains about a count that began before the sample before it, which belongs to another count.
    fn check_overlaps(&self, starts: &[i64], time: impl Fn(usize) -> i64) {
        let overlaps = starts
            .windows(2)
            .enumerate()
            .any(|(index, pair)| pair[0] != 0 && pair[1] != 0 && pair[0] != pair[1] && pair[1] < time(index));
        if overlaps {
            self.annotate(|a| a.overlapping_start(self.span, self.metric));
        }
    }

    fn histogram_increase_from_start(&self, window: &Window<'_>) -> Option<(FloatHistogram, Option<i64>)> {
        let points = window.histograms;
        let begin = self.known_start(window, window.histogram_starts, points[0].0);
        if points.len() < 2 {
            let begin = begin?;
            let mut increase = FloatHistogram::clone(&points[0].1);
            increase.hint = ResetHint::Gauge;
            return Some((increase, Some(begin)));
        }
        self.check_overlaps(window.histogram_starts, |index| points[index].0);
        let mut increase = self.histogram_increase(points, window.histogram_starts)?;
        if begin.is_some() {
            self.combine(&mut increase, &points[0].1, HistogramOp::Add)?;
        }
        Some((increase, begin))
    }

    /// How much longer the window is than what the samples cover, as far as the series may be taken to reach.
    /// `zero_share` tells how far before the first sample a counter was zero, in units of the covered time.
    #[inline]
    fn extrapolation(&self, start: i64, end: i64, covered: &Covered, zero_share: Option<f64>) -> f64 {
        let seconds = |millis: i64| millis as f64 / 1000.0;
        if covered.samples < 2 {
            return 1.0;
        }
        let length = seconds(covered.last - covered.begin.unwrap_or(covered.first));
        let average = seconds(covered.last - covered.first) / (covered.samples - 1) as f64;
        let threshold = average * EXTRAPOLATION_THRESHOLD;
        let mut to_start = if covered.begin.is_some() { 0.0 } else { seconds(covered.first - start) };
        let mut to_end = seconds(end - covered.last);
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if self.kind.is_counter {
            let to_zero = zero_share.map_or(to_start, |share| length * share);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        (length + to_start + to_end) / length
    }

    fn histogram_increase(&self, points: &[(i64, Arc<FloatHistogram>)], starts: &[i64]) -> Option<FloatHistogram> {
        let anew = |index: usize| begins_anew(starts, index, |index| points[index].0);
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
        if self.kind.is_counter && (anew(1) || second.detect_reset(first)) {
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
            for (index, (_, current)) in points.iter().enumerate().skip(1) {
                if anew(index) || current.detect_reset(&previous) {
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
        let start = |starts: &[i64], index: usize| starts.get(index).copied().unwrap_or(0);
        let float = |index: usize| Point {
            time: window.times[index],
            start: start(window.starts, index),
            sample: Sample::Float(window.values[index]),
        };
        let histogram = |index: usize| Point {
            time: window.histograms[index].0,
            start: start(window.histogram_starts, index),
            sample: Sample::Histogram(Arc::clone(&window.histograms[index].1)),
        };
        let last_two = |len: usize| len.saturating_sub(2)..len;
        let mut last: Vec<Point> = last_two(window.times.len()).map(float).collect();
        last.extend(last_two(window.histograms.len()).map(histogram));
        last.sort_by_key(|point| point.time);
        let [.., previous, latest] = last.as_slice() else { return None };
        let (before_time, before, time, current) = (previous.time, &previous.sample, latest.time, &latest.sample);
        let anew = is_new_count(previous.start, previous.time, latest.start, latest.time);
        let seconds = (time - before_time) as f64 / 1000.0;
        if seconds == 0.0 {
            return None;
        }
        match (before, current) {
            (Sample::Float(before), Sample::Float(current)) => {
                let reset = self.kind.is_counter && (anew || current < before);
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
                let reset = self.kind.is_counter && (anew || current.detect_reset(before));
                if !reset {
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

/// How far before its first sample a counter was zero, in units of the time its samples cover. Only asked for while it
/// can matter: samples are never extrapolated by more than 1.1 of that time.
#[inline]
fn zero_share(first: f64, increase: f64) -> Option<f64> {
    (increase > 0.0 && first >= 0.0 && first < 2.0 * increase).then(|| first / increase)
}

/// A sample with its time and the start of its count.
struct Point {
    time: i64,
    start: i64,
    sample: Sample,
}

/// What the samples of a window cover.
struct Covered {
    /// Where the count is known to have begun inside the window.
    begin: Option<i64>,
    first: i64,
    last: i64,
    samples: usize,
}

/// Whether a sample belongs to another count than the one before it, going by when the counts began.
///
/// A start at the previous sample is a new count for deltas; for a count of unknown start it means nothing, which
/// shows in the previous sample having no proper start itself.
pub(super) fn is_new_count(before_start: i64, before_time: i64, start: i64, time: i64) -> bool {
    if start == 0 || start >= time || start < before_time {
        return false;
    }
    start > before_time || (before_start != 0 && before_start < before_time)
}

/// [`is_new_count`] for the sample at `index`; false when starts are not known.
fn begins_anew(starts: &[i64], index: usize, time: impl Fn(usize) -> i64) -> bool {
    match (starts.get(index - 1), starts.get(index)) {
        (Some(before), Some(start)) => is_new_count(*before, time(index - 1), *start, time(index)),
        _ => false,
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
