//! Warnings and infos of a query: each text once, in the order they first came up, with the place in the query.

use hashbrown::HashMap;

use crate::ast::Span;
use crate::number::{format_general, format_two_digits};
use crate::parse::line_column;
use windrose_proto::metric::quote::quote;

/// More distinct annotations than this are only counted: metric names come from data, so the set has no natural
/// bound.
const MAX_KEPT: usize = 1_000;

/// The API shows at most this many of each kind.
pub const MAX_SHOWN: usize = 10;

/// Whether the result may be wrong or is merely odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Severity {
    Warning,
    Info,
}

/// How much `histogram_quantile` had to bend its input; merged over all steps and series of one metric.
#[derive(Clone, Debug)]
pub(crate) struct Monotonicity {
    pub(crate) first_time: i64,
    pub(crate) last_time: i64,
    pub(crate) min_bucket: f64,
    pub(crate) max_bucket: f64,
    pub(crate) max_diff: f64,
    pub(crate) count: usize,
}

#[derive(Clone, Debug)]
struct Annotation {
    severity: Severity,
    text: String,
    span: Span,
    monotonicity: Option<Monotonicity>,
}

/// The annotations of one query.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    list: Vec<Annotation>,
    known: HashMap<(Severity, usize, String), usize>,
    dropped_warnings: usize,
    dropped_infos: usize,
}

impl Annotations {
    fn add(&mut self, severity: Severity, span: Span, text: String, monotonicity: Option<Monotonicity>) {
        let key = (severity, span.start, text);
        if let Some(index) = self.known.get(&key) {
            if let (Some(old), Some(new)) = (&mut self.list[*index].monotonicity, monotonicity) {
                old.merge(&new);
            }
            return;
        }
        if self.list.len() >= MAX_KEPT {
            match severity {
                Severity::Warning => self.dropped_warnings += 1,
                Severity::Info => self.dropped_infos += 1,
            }
            return;
        }
        self.list.push(Annotation { severity, text: key.2.clone(), span, monotonicity });
        self.known.insert(key, self.list.len() - 1);
    }

    pub(crate) fn warn(&mut self, span: Span, text: String) {
        self.add(Severity::Warning, span, text, None);
    }

    pub(crate) fn info(&mut self, span: Span, text: String) {
        self.add(Severity::Info, span, text, None);
    }

    pub(crate) fn forced_monotonicity(&mut self, span: Span, metric: &str, details: Monotonicity) {
        let text = with_metric(
            "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
            metric,
        );
        self.add(Severity::Info, span, text, Some(details));
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The texts as the API shows them: warnings, then infos, each capped at `limit` (0: no cap) with a last entry
    /// that says how many were left out.
    pub fn to_strings(&self, query: &str, limit: usize) -> (Vec<String>, Vec<String>) {
        (
            self.texts(query, limit, Severity::Warning, self.dropped_warnings),
            self.texts(query, limit, Severity::Info, self.dropped_infos),
        )
    }

    fn texts(&self, query: &str, limit: usize, severity: Severity, dropped: usize) -> Vec<String> {
        let all = self.list.iter().filter(|annotation| annotation.severity == severity);
        let total = all.clone().count() + dropped;
        let shown = if limit == 0 { total } else { limit };
        let mut texts: Vec<String> = all.take(shown).map(|annotation| annotation.render(query)).collect();
        if texts.len() < total {
            let kind = if severity == Severity::Warning { "warning" } else { "info" };
            texts.push(format!("{} more {kind} annotations omitted", total - texts.len()));
        }
        texts
    }
}

impl Annotation {
    fn render(&self, query: &str) -> String {
        let kind = if self.severity == Severity::Warning { "warning" } else { "info" };
        let (line, column) = line_column(query, self.span.start);
        let details = self.monotonicity.as_ref().map_or_else(String::new, Monotonicity::render);
        format!("PromQL {kind}: {}{details} ({line}:{column})", self.text)
    }
}

impl Monotonicity {
    fn merge(&mut self, other: &Self) {
        self.first_time = self.first_time.min(other.first_time);
        self.last_time = self.last_time.max(other.last_time);
        self.min_bucket = self.min_bucket.min(other.min_bucket);
        self.max_bucket = self.max_bucket.max(other.max_bucket);
        self.max_diff = self.max_diff.max(other.max_diff);
        self.count += other.count;
    }

    fn render(&self) -> String {
        format!(
            ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
            format_general(self.min_bucket),
            format_general(self.max_bucket),
            format_two_digits(self.max_diff),
            self.count,
            rfc3339(self.first_time),
            rfc3339(self.last_time)
        )
    }
}

fn rfc3339(millis: i64) -> String {
    let seconds = millis.div_euclid(1000);
    let civil = crate::eval::civil::Civil::from_unix(seconds);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
    )
}

/// Appends the metric name when it is known.
pub(crate) fn with_metric(text: &str, metric: &str) -> String {
    if metric.is_empty() { text.to_owned() } else { format!("{text} for metric name {}", quote(metric)) }
}

/// What two histograms were put through when something about them had to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistogramOp {
    Add,
    Sub,
    Aggregate,
}

impl HistogramOp {
    fn noun(self) -> &'static str {
        match self {
            Self::Add => "addition",
            Self::Sub => "subtraction",
            Self::Aggregate => "aggregation",
        }
    }
}

/// The texts. They are those of Prometheus, because dashboards and alerts match on them.
impl Annotations {
    pub(crate) fn invalid_quantile(&mut self, span: Span, quantile: f64) {
        self.warn(span, format!("quantile value should be between 0 and 1, got {}", format_general(quantile)));
    }

    pub(crate) fn invalid_ratio(&mut self, span: Span, ratio: f64, capped: f64) {
        let (got, to) = (format_general(ratio), format_general(capped));
        self.warn(span, format!("ratio value should be between -1 and 1, got {got}, capping to {to}"));
    }

    pub(crate) fn bad_bucket_label(&mut self, span: Span, metric: &str, label: &str) {
        let text = format!("bucket label \"le\" is missing or has a malformed value of {}", quote(label));
        self.warn(span, with_metric(&text, metric));
    }

    pub(crate) fn mixed_floats_histograms(&mut self, span: Span, metric: &str) {
        self.warn(span, format!("encountered a mix of histograms and floats for metric name {}", quote(metric)));
    }

    pub(crate) fn mixed_floats_histograms_aggregation(&mut self, span: Span) {
        self.warn(span, "encountered a mix of histograms and floats for aggregation".to_owned());
    }

    pub(crate) fn mixed_classic_native(&mut self, span: Span, metric: &str) {
        self.warn(span, with_metric("vector contains a mix of classic and native histograms", metric));
    }

    pub(crate) fn not_a_counter(&mut self, span: Span, metric: &str) {
        self.warn(span, format!("this native histogram metric is not a counter: {}", quote(metric)));
    }

    pub(crate) fn not_a_gauge(&mut self, span: Span, metric: &str) {
        self.warn(span, format!("this native histogram metric is not a gauge: {}", quote(metric)));
    }

    pub(crate) fn mixed_exponential_custom(&mut self, span: Span, metric: &str) {
        self.warn(
            span,
            format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                quote(metric)
            ),
        );
    }

    pub(crate) fn incompatible_bucket_layout(&mut self, span: Span, operator: &str) {
        self.warn(span, format!("incompatible bucket layout encountered for binary operator {operator}"));
    }

    pub(crate) fn counter_reset_collision(&mut self, span: Span, op: HistogramOp) {
        self.warn(span, format!("conflicting counter resets during histogram {}", op.noun()));
    }

    pub(crate) fn mismatched_custom_buckets(&mut self, span: Span, op: HistogramOp) {
        self.info(span, format!("mismatched custom buckets were reconciled during {}", op.noun()));
    }

    pub(crate) fn possible_non_counter(&mut self, span: Span, metric: &str) {
        self.info(
            span,
            format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                quote(metric)
            ),
        );
    }

    pub(crate) fn incompatible_types(&mut self, span: Span, lhs: &str, operator: &str, rhs: &str) {
        self.info(
            span,
            format!(
                "incompatible sample types encountered for binary operator {}: {lhs} {operator} {rhs}",
                quote(operator)
            ),
        );
    }

    pub(crate) fn histogram_ignored_in_aggregation(&mut self, span: Span, aggregation: &str) {
        self.info(span, format!("ignored histogram in {aggregation} aggregation"));
    }

    pub(crate) fn histogram_ignored_in_mixed_range(&mut self, span: Span, metric: &str) {
        self.info(
            span,
            format!(
                "ignored histograms in a range containing both floats and histograms for metric name {}",
                quote(metric)
            ),
        );
    }

    pub(crate) fn quantile_nan_result(&mut self, span: Span, metric: &str) {
        self.info(span, with_metric("input to histogram_quantile has NaN observations, result is NaN", metric));
    }

    pub(crate) fn quantile_nan_skew(&mut self, span: Span, metric: &str) {
        let text = "input to histogram_quantile has NaN observations, result is skewed higher";
        self.info(span, with_metric(text, metric));
    }

    pub(crate) fn fraction_nan(&mut self, span: Span, metric: &str) {
        let text = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
        self.info(span, with_metric(text, metric));
    }

    pub(crate) fn overlapping_start(&mut self, span: Span, metric: &str) {
        self.warn(
            span,
            format!("sample has start time that overlaps with previous sample timestamp for metric {}", quote(metric)),
        );
    }

    pub(crate) fn ineffective_sort(&mut self, span: Span) {
        self.warn(span, "sort is ineffective for range queries since results are always ordered by labels".to_owned());
    }
}
