//! What of a page is kept: labels of its series, limits, times. Pure.

use thiserror::Error;
use windrose_proto::time::UnixNanos;

use super::relabel::{self, LabelSet};
use super::target::Target;
use crate::exposition::Series;

#[cfg(test)]
pub(super) mod tests;

/// How much a page held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    pub samples: usize,
    /// After `metric_relabel_configs`.
    pub samples_kept: usize,
    /// Series that the previous page did not hold.
    pub series_added: usize,
    /// Samples of series that the store refused.
    pub samples_refused: usize,
    /// Samples whose stated time is too far in the future.
    pub samples_too_new: usize,
}

/// Why a page is refused as a whole, as Prometheus does.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PageError {
    #[error("{0}")]
    Parse(String),
    #[error("label name \"{name}\" is not unique: invalid sample of {metric}")]
    LabelTwice { metric: String, name: String },
    #[error("sample limit exceeded: {0} samples")]
    SampleLimit(usize),
    #[error("label_limit exceeded (metric: {metric}, number of labels: {found}, limit: {limit})")]
    LabelLimit { metric: String, found: usize, limit: usize },
    #[error("label_name_length_limit exceeded (metric: {metric}, label name: {name}, limit: {limit})")]
    LabelName { metric: String, name: String, limit: usize },
    #[error("label_value_length_limit exceeded (metric: {metric}, label name: {name}, limit: {limit})")]
    LabelValue { metric: String, name: String, limit: usize },
}

/// The name of a metric among its labels.
pub const NAME_LABEL: &str = "__name__";

/// A page may state times up to so far ahead, as with Prometheus: beyond that a clock is wrong, and
/// the samples would hide all that follow.
pub const FUTURE_MAX_MILLIS: i64 = 10 * 60 * 1000;

/// The labels under which a sample is stored: the page's and the target's, then relabelled. `None`
/// when relabelling drops it.
///
/// # Errors
/// When a label is given twice: which series it is cannot be known.
pub fn series_labels(target: &Target, series: &Series<'_>) -> Result<Option<LabelSet>, PageError> {
    let mut labels: LabelSet = LabelSet::new();
    for label in series.labels.iter() {
        let value = normal_value(&label.name, label.value.into_owned());
        if labels.insert(label.name.clone().into_owned(), value).is_some() {
            let (metric, name) = (series.name.clone().into_owned(), label.name.into_owned());
            return Err(PageError::LabelTwice { metric, name });
        }
    }
    attach_target(&mut labels, target);
    labels.insert(NAME_LABEL.to_owned(), series.name.clone().into_owned());
    labels.retain(|_, value| !value.is_empty());
    let is_kept = relabel::apply(&target.pool.metric_relabel.rules, &mut labels) && labels.contains_key(NAME_LABEL);
    Ok(is_kept.then_some(labels))
}

/// When a sample was taken: the page's own time where it states one and `honor_timestamps` is on.
#[must_use]
pub fn sample_millis(target: &Target, stated: Option<i64>, scraped_at: UnixNanos) -> i64 {
    stated.filter(|_| target.pool.honor_timestamps).unwrap_or_else(|| millis(scraped_at))
}

/// The time of a scrape as samples carry it.
#[must_use]
pub fn millis(at: UnixNanos) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

/// Where page and target use one name: the page wins if it is honoured, else its label is renamed
/// with `exported_` as often as it takes.
fn attach_target(labels: &mut LabelSet, target: &Target) {
    for (name, value) in &target.labels {
        if let Some(scraped) = labels.get(name) {
            if target.pool.honor_labels {
                // An empty label of the page takes the target's away.
                continue;
            }
            let scraped = scraped.clone();
            if !scraped.is_empty() {
                let mut renamed = format!("exported_{name}");
                while labels.contains_key(&renamed) || target.labels.contains_key(&renamed) {
                    renamed.insert_str(0, "exported_");
                }
                labels.insert(renamed, scraped);
            }
        }
        labels.insert(name.clone(), value.clone());
    }
}

/// Bounds are written as floats, so that `le="1"` and `le="1.0"` are one series, and so are
/// `le="1000000"` and `le="1e+06"`.
fn normal_value(name: &str, value: String) -> String {
    if !matches!(name, "le" | "quantile") {
        return value;
    }
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() => bound_text(number),
        _ => value,
    }
}

/// A number as Prometheus writes bounds, which is how Go writes floats: the shortest digits, with an
/// exponent of at least two digits below 1e-4 and from 1e6 on, or else with a fraction.
fn bound_text(number: f64) -> String {
    let scientific = format!("{number:e}");
    let parts = scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)));
    match parts {
        Some((digits, exponent)) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => {
            let text = number.to_string();
            if text.contains('.') { text } else { format!("{text}.0") }
        }
    }
}

/// Whether the labels of a series are within the limits of its job.
///
/// # Errors
/// With the first limit that is exceeded.
pub fn check_labels(target: &Target, labels: &LabelSet) -> Result<(), PageError> {
    let limits = &target.pool.limits;
    let metric = || labels.get(NAME_LABEL).cloned().unwrap_or_default();
    if limits.label != 0 && labels.len() > limits.label {
        return Err(PageError::LabelLimit { metric: metric(), found: labels.len(), limit: limits.label });
    }
    for (name, value) in labels {
        if limits.label_name_bytes != 0 && name.len() > limits.label_name_bytes {
            let limit = limits.label_name_bytes;
            return Err(PageError::LabelName { metric: metric(), name: name.clone(), limit });
        }
        if limits.label_value_bytes != 0 && value.len() > limits.label_value_bytes {
            let limit = limits.label_value_bytes;
            return Err(PageError::LabelValue { metric: metric(), name: name.clone(), limit });
        }
    }
    Ok(())
}
