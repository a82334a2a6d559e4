//! Quantiles and fractions: of plain values, of classic buckets, of native histograms.

use hashbrown::HashMap;

use super::row::Row;
use super::stream::Sink;
use super::{Evaluated, Evaluator, Grid, execution};
use crate::annotations::Monotonicity;
use crate::ast::{Call, Expr, Span};
use crate::histogram::{Bucket, FloatHistogram};
use crate::number::{format_openmetrics, parse_float};
use crate::value::{ABSENT, is_absent};
use windrose_proto::metric::labels::{BUCKET, Labels};

/// Counts of neighbouring buckets that differ by less than this relative amount differ by rounding only.
const SMALL_DELTA: f64 = 1e-12;

/// A quantile of values in any order; they are sorted on the way.
pub(super) fn of_values(quantile: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || quantile.is_nan() {
        return f64::NAN;
    }
    if let Some(outside) = out_of_range(quantile) {
        return outside;
    }
    // NaN sorts before everything, as if it were the smallest value.
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal)));
    let rank = quantile * (values.len() - 1) as f64;
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min((values.len() - 1) as f64);
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

fn out_of_range(quantile: f64) -> Option<f64> {
    match quantile {
        q if q < 0.0 => Some(f64::NEG_INFINITY),
        q if q > 1.0 => Some(f64::INFINITY),
        _ => None,
    }
}

/// A cumulative bucket of a classic histogram.
#[derive(Clone, Copy, Debug)]
struct ClassicBucket {
    bound: f64,
    count: f64,
}

/// How the input had to be bent to be monotonic.
#[derive(Clone, Copy, Debug)]
struct Forced {
    min_bucket: f64,
    max_bucket: f64,
    max_diff: f64,
}

/// Adds up buckets with equal bounds; they are sorted.
fn coalesce(buckets: &mut Vec<ClassicBucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.bound == kept.bound;
        if same {
            kept.count += next.count;
        }
        same
    });
}

fn ensure_monotonic(buckets: &mut [ClassicBucket]) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let mut previous = buckets.first()?.count;
    for bucket in &mut buckets[1..] {
        if bucket.count == previous {
            continue;
        }
        if nearly_equal(previous, bucket.count) {
            bucket.count = previous;
        } else if bucket.count < previous {
            let diff = previous - bucket.count;
            let merged =
                forced.get_or_insert(Forced { min_bucket: bucket.bound, max_bucket: bucket.bound, max_diff: diff });
            merged.min_bucket = merged.min_bucket.min(bucket.bound);
            merged.max_bucket = merged.max_bucket.max(bucket.bound);
            merged.max_diff = merged.max_diff.max(diff);
            bucket.count = previous;
        } else {
            previous = bucket.count;
        }
    }
    forced
}

fn nearly_equal(a: f64, b: f64) -> bool {
    let sum = a.abs() + b.abs();
    let diff = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < SMALL_DELTA * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < SMALL_DELTA
}

/// The quantile of sorted classic buckets, interpolated linearly inside its bucket.
fn of_classic(quantile: f64, buckets: &mut Vec<ClassicBucket>) -> (f64, Option<Forced>) {
    if quantile.is_nan() {
        return (f64::NAN, None);
    }
    if let Some(outside) = out_of_range(quantile) {
        return (outside, None);
    }
    if buckets.last().is_none_or(|last| last.bound != f64::INFINITY) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let forced = ensure_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 || observations.is_nan() {
        return (f64::NAN, None);
    }
    let mut rank = quantile * observations;
    let at = buckets[..last].partition_point(|bucket| bucket.count < rank);
    if at == last {
        return (buckets[last - 1].bound, forced);
    }
    if at == 0 && buckets[0].bound <= 0.0 {
        return (buckets[0].bound, forced);
    }
    let (mut start, end, mut count) = (0.0, buckets[at].bound, buckets[at].count);
    if at > 0 {
        start = buckets[at - 1].bound;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// The share of observations between two bounds, of sorted classic buckets.
fn fraction_of_classic(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    if buckets.last().is_none_or(|last| last.bound != f64::INFINITY) {
        return f64::NAN;
    }
    coalesce(buckets);
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() || count.is_nan() {
        return f64::NAN;
    }
    let mut rank = 0.0;
    let cells = buckets.iter().enumerate().map(|(index, bucket)| {
        let below = match index {
            0 if bucket.bound > 0.0 => 0.0,
            0 => f64::NEG_INFINITY,
            _ => buckets[index - 1].bound,
        };
        let cell = Cell { lower: below, upper: bucket.bound, count: bucket.count - rank, linear: true };
        rank = bucket.count;
        cell
    });
    fraction(lower, upper, cells, count, count)
}

/// Part of the number line with its observations.
struct Cell {
    lower: f64,
    upper: f64,
    count: f64,
    linear: bool,
}

impl Cell {
    /// Observations at or below a value inside the cell. In an infinite cell nothing is known: all lie at its finite
    /// end.
    fn below(&self, value: f64) -> f64 {
        if self.lower == f64::NEG_INFINITY {
            return self.count;
        }
        if self.linear {
            return self.count * (value - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper, at) = (self.lower.abs().log2(), self.upper.abs().log2(), value.abs().log2());
        let share = if value > 0.0 { (at - lower) / (upper - lower) } else { 1.0 - (at - upper) / (lower - upper) };
        self.count * share
    }
}

fn fraction(lower: f64, upper: f64, cells: impl Iterator<Item = Cell>, count: f64, total: f64) -> f64 {
    if lower >= upper {
        return 0.0;
    }
    let (mut rank, mut lower_rank, mut upper_rank) = (0.0, None, None);
    for cell in cells {
        for (bound, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && cell.lower >= bound {
                *found = Some(rank);
            }
            if found.is_none() && cell.lower < bound && cell.upper > bound {
                *found = Some(rank + cell.below(bound));
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += cell.count;
    }
    let settle = |found: Option<f64>| found.filter(|rank| *rank <= count).unwrap_or(count);
    (settle(upper_rank) - settle(lower_rank)) / total
}

/// A zero bucket next to buckets of one sign only is taken to hold values of that sign only; the first custom bucket
/// starts at zero when it ends above.
fn narrowed(histogram: &FloatHistogram, mut bucket: Bucket) -> Bucket {
    if histogram.is_custom() {
        if bucket.lower == f64::NEG_INFINITY && bucket.upper > 0.0 {
            bucket.lower = 0.0;
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        if histogram.negative.is_empty() && !histogram.positive.is_empty() {
            bucket.lower = 0.0;
        } else if histogram.positive.is_empty() && !histogram.negative.is_empty() {
            bucket.upper = 0.0;
        }
    }
    bucket
}

/// What NaN observations did to a native quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NanEffect {
    None,
    Result,
    Skew,
}

fn of_native(quantile: f64, histogram: &FloatHistogram) -> (f64, NanEffect) {
    if let Some(outside) = out_of_range(quantile) {
        return (outside, NanEffect::None);
    }
    if histogram.count == 0.0 || quantile.is_nan() {
        return (f64::NAN, NanEffect::None);
    }
    let has_nan = histogram.sum.is_nan();
    let forward = has_nan || quantile < 0.5;
    let mut buckets = histogram.all_buckets();
    if !forward {
        buckets.reverse();
    }
    let mut rank = if forward { quantile } else { 1.0 - quantile } * histogram.count;
    let (mut count, mut found) = (0.0, None);
    for bucket in buckets.iter().filter(|bucket| bucket.count != 0.0) {
        count += bucket.count;
        found = Some(*bucket);
        if count >= rank {
            break;
        }
    }
    let Some(bucket) = found.map(|bucket| narrowed(histogram, bucket)) else {
        let effect = if has_nan { NanEffect::Result } else { NanEffect::None };
        return (f64::NAN, effect);
    };
    if histogram.is_custom() {
        if bucket.lower == f64::NEG_INFINITY {
            return (bucket.upper, NanEffect::None);
        }
        if bucket.upper == f64::INFINITY {
            return (bucket.lower, NanEffect::None);
        }
    }
    let count = count.min(histogram.count);
    if count < rank {
        return if has_nan { (f64::NAN, NanEffect::Result) } else { (bucket.upper, NanEffect::None) };
    }
    rank = if forward { rank - (count - bucket.count) } else { count - rank };
    let total: f64 = buckets.iter().map(|bucket| bucket.count).sum();
    let effect = if has_nan && total < histogram.count { NanEffect::Skew } else { NanEffect::None };
    (interpolate(histogram, &bucket, rank / bucket.count), effect)
}

/// The value at a fraction of a bucket: exponential where the buckets are.
fn interpolate(histogram: &FloatHistogram, bucket: &Bucket, fraction: f64) -> f64 {
    if histogram.is_custom() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return bucket.lower + (bucket.upper - bucket.lower) * fraction;
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        (lower + (upper - lower) * fraction).exp2()
    } else {
        -(upper + (lower - upper) * (1.0 - fraction)).exp2()
    }
}

/// The fraction and whether NaN observations were left out.
fn fraction_of_native(lower: f64, upper: f64, histogram: &FloatHistogram) -> (f64, bool) {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    let buckets = histogram.all_buckets();
    let inside: f64 = buckets.iter().map(|bucket| bucket.count).sum();
    let has_nan = histogram.sum.is_nan() && inside < histogram.count;
    let count = if histogram.sum.is_nan() { inside } else { histogram.count };
    let cells = buckets.into_iter().map(|bucket| {
        let bucket = narrowed(histogram, bucket);
        let linear = histogram.is_custom() || (bucket.lower <= 0.0 && bucket.upper >= 0.0);
        Cell { lower: bucket.lower, upper: bucket.upper, count: bucket.count, linear }
    });
    (fraction(lower, upper, cells, count, histogram.count), has_nan)
}

/// Variance of the observations, each taken to lie in the middle of its bucket.
pub(super) fn histogram_variance(histogram: &FloatHistogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let (mut variance, mut lost) = (0.0, 0.0);
    for bucket in histogram.all_buckets().iter().filter(|bucket| bucket.count != 0.0) {
        let value = if histogram.is_custom() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let middle = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -middle } else { middle }
        };
        let delta = value - mean;
        (variance, lost) = super::kahan::increment(bucket.count * delta * delta, variance, lost);
    }
    (variance + lost) / histogram.count
}

/// All that belongs to one histogram: its classic buckets sorted by bound, and its native samples.
struct HistogramGroup {
    labels: Labels,
    drop_name: bool,
    classic: Vec<(f64, Vec<f64>)>,
    native: Option<Row>,
}

/// What is computed per histogram and step.
#[derive(Clone, Copy)]
enum Question<'q> {
    Quantile(&'q [f64]),
    Fraction(&'q [f64], &'q [f64]),
}

impl Evaluator<'_> {
    pub(super) fn stream_histogram_function(&self, call: &Call, grid: &Grid, sink: Sink<'_>) -> Evaluated<()> {
        let name = call.function.name;
        let vector_index = match name {
            "histogram_quantiles" => 0,
            "histogram_quantile" => 1,
            _ => 2,
        };
        let vector = &call.args[vector_index];
        let scalars: Vec<(&Expr, Vec<f64>)> = call
            .args
            .iter()
            .filter(|arg| arg.value_type() == crate::ast::ValueType::Scalar)
            .map(|arg| self.scalar(arg, grid).map(|values| (arg, values)))
            .collect::<Evaluated<_>>()?;
        if name != "histogram_fraction" {
            for (arg, values) in &scalars {
                for quantile in values.iter().filter(|quantile| !(0.0..=1.0).contains(*quantile)) {
                    self.annotate(|a| a.invalid_quantile(arg.span(), *quantile));
                }
            }
        }
        let groups = self.histogram_groups(vector, grid)?;
        let mut rows = Vec::new();
        match (name, scalars.as_slice()) {
            ("histogram_fraction", [(_, lower), (_, upper)]) => {
                for group in &groups {
                    rows.push(self.answer(group, Question::Fraction(lower, upper), grid, vector.span()));
                }
            }
            ("histogram_quantile", [(_, quantile)]) => {
                for group in &groups {
                    rows.push(self.answer(group, Question::Quantile(quantile), grid, vector.span()));
                }
            }
            ("histogram_quantiles", quantiles) => {
                let label = super::label_functions::literal(&call.args[1])?;
                for group in &groups {
                    for (_, quantile) in quantiles {
                        let row = self.answer(group, Question::Quantile(quantile), grid, vector.span());
                        split_by_quantile(&row, quantile, &label.value, &mut rows);
                    }
                }
            }
            _ => return execution(format!("function {name} needs other arguments")),
        }
        rows.retain(|row: &Row| !row.is_empty());
        for row in &mut rows {
            row.drop_name = true;
            if self.drops_names_now() {
                row.settle_name();
            }
        }
        self.merge_same_labels(rows)?.into_iter().try_for_each(sink)
    }

    /// Sorts the input into histograms. What is neither a bucket nor a native histogram is annotated and left out.
    fn histogram_groups(&self, vector: &Expr, grid: &Grid) -> Evaluated<Vec<HistogramGroup>> {
        let span = vector.span();
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut groups: Vec<HistogramGroup> = Vec::new();
        self.stream(vector, grid, &mut |mut row| {
            self.hold(row.weight())?;
            let mut group_of = |groups: &mut Vec<HistogramGroup>, labels: Labels, drop_name: bool| {
                *index.entry(labels.clone()).or_insert_with(|| {
                    groups.push(HistogramGroup { labels, drop_name, classic: Vec::new(), native: None });
                    groups.len() - 1
                })
            };
            let native = row.histograms.take();
            if row.values.iter().any(|value| !is_absent(*value)) {
                let bound_text = row.labels.get(BUCKET);
                match parse_float(bound_text) {
                    None => self.annotate(|a| a.bad_bucket_label(span, row.labels.metric_name(), bound_text)),
                    Some(bound) => {
                        let mut builder = row.labels.builder();
                        builder.set(BUCKET, "");
                        let at = group_of(&mut groups, builder.build(), row.drop_name);
                        groups[at].classic.push((bound, std::mem::take(&mut row.values)));
                    }
                }
            }
            if native.is_some() {
                let mut native_row = Row::new(row.labels.clone(), vec![ABSENT; grid.count]);
                native_row.histograms = native;
                let at = group_of(&mut groups, row.labels.clone(), row.drop_name);
                groups[at].native = Some(native_row);
            }
            Ok(())
        })?;
        for group in &mut groups {
            group.classic.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
        }
        Ok(groups)
    }

    fn answer(&self, group: &HistogramGroup, question: Question<'_>, grid: &Grid, span: Span) -> Row {
        let mut row = Row::new(group.labels.clone(), vec![ABSENT; grid.count]);
        row.drop_name = group.drop_name;
        let metric = group.labels.metric_name();
        let mut buckets = Vec::with_capacity(group.classic.len());
        for step in 0..grid.count {
            buckets.clear();
            for (bound, counts) in &group.classic {
                if !is_absent(counts[step]) {
                    buckets.push(ClassicBucket { bound: *bound, count: counts[step] });
                }
            }
            let native = group.native.as_ref().and_then(|native| native.histogram(step));
            row.values[step] = match (native, buckets.is_empty()) {
                (None, true) => continue,
                (Some(_), false) => {
                    self.annotate(|a| a.mixed_classic_native(span, metric));
                    continue;
                }
                (Some(histogram), true) => self.answer_native(histogram, question, step, span, metric),
                (None, false) => self.answer_classic(&mut buckets, question, step, span, metric, grid.time(step)),
            };
        }
        row
    }

    fn answer_native(
        &self,
        histogram: &FloatHistogram,
        question: Question<'_>,
        step: usize,
        span: Span,
        metric: &str,
    ) -> f64 {
        match question {
            Question::Quantile(quantile) => {
                let (value, effect) = of_native(quantile[step], histogram);
                match effect {
                    NanEffect::None => {}
                    NanEffect::Result => self.annotate(|a| a.quantile_nan_result(span, metric)),
                    NanEffect::Skew => self.annotate(|a| a.quantile_nan_skew(span, metric)),
                }
                value
            }
            Question::Fraction(lower, upper) => {
                let (value, has_nan) = fraction_of_native(lower[step], upper[step], histogram);
                if has_nan {
                    self.annotate(|a| a.fraction_nan(span, metric));
                }
                value
            }
        }
    }

    fn answer_classic(
        &self,
        buckets: &mut Vec<ClassicBucket>,
        question: Question<'_>,
        step: usize,
        span: Span,
        metric: &str,
        time: i64,
    ) -> f64 {
        match question {
            Question::Fraction(lower, upper) => fraction_of_classic(lower[step], upper[step], buckets),
            Question::Quantile(quantile) => {
                let (value, forced) = of_classic(quantile[step], buckets);
                if let Some(forced) = forced {
                    let metric = if self.drops_names_now() { "" } else { metric };
                    let details = Monotonicity {
                        first_time: time,
                        last_time: time,
                        min_bucket: forced.min_bucket,
                        max_bucket: forced.max_bucket,
                        max_diff: forced.max_diff,
                        count: 1,
                    };
                    self.annotate(|a| a.forced_monotonicity(span, metric, details));
                }
                value
            }
        }
    }
}

/// Labels a row with its quantile; when the quantile changes over the steps, so does the series.
fn split_by_quantile(row: &Row, quantiles: &[f64], label: &str, out: &mut Vec<Row>) {
    let mut seen: Vec<u64> = Vec::new();
    for quantile in quantiles {
        let bits = quantile.to_bits();
        if seen.contains(&bits) {
            continue;
        }
        seen.push(bits);
        let mut builder = row.labels.builder();
        builder.set(label, &format_openmetrics(*quantile));
        let picked = row.values.iter().zip(quantiles);
        let values = picked.map(|(value, q)| if q.to_bits() == bits { *value } else { ABSENT }).collect();
        let mut labelled = Row::new(builder.build(), values);
        labelled.drop_name = row.drop_name;
        out.push(labelled);
    }
}
