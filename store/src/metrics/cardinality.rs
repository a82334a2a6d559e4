//! Where the series are: what `/api/v1/status/tsdb` shows.

use super::head::Head;

/// Numbers of one tenant's series in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Active series.
    pub series: u64,
    /// Different label name and value pairs.
    pub label_pairs: u64,
    /// Chunks in memory.
    pub chunks: u64,
    /// Earliest and latest sample time appended since the start.
    pub time_range_ms: Option<(i64, i64)>,
    /// Metric names with the most series.
    pub series_by_metric: Vec<(String, u64)>,
    /// Label names with the most values.
    pub values_by_label: Vec<(String, u64)>,
    /// Label names whose values take the most memory.
    pub bytes_by_label: Vec<(String, u64)>,
    /// `name=value` pairs with the most series.
    pub series_by_pair: Vec<(String, u64)>,
}

impl Cardinality {
    pub(super) fn of(head: &Head, top: usize) -> Self {
        let mut cardinality = Self {
            series: head.index.len() as u64,
            chunks: head.sample_bytes_and_chunks().1 as u64,
            time_range_ms: head.range,
            ..Self::default()
        };
        for (name, values) in head.index.series_per_value() {
            cardinality.label_pairs += values.len() as u64;
            cardinality.values_by_label.push((name.to_owned(), values.len() as u64));
            let bytes = values.iter().map(|(value, series)| value.len() as u64 * series).sum();
            cardinality.bytes_by_label.push((name.to_owned(), bytes));
            if name == windrose_proto::metric::labels::METRIC_NAME {
                cardinality.series_by_metric =
                    values.iter().map(|(value, series)| ((*value).to_owned(), *series)).collect();
            }
            let pairs = largest(values.into_iter().collect(), top);
            cardinality
                .series_by_pair
                .extend(pairs.into_iter().map(|(value, series)| (format!("{name}={value}"), series)));
        }
        for list in [
            &mut cardinality.series_by_metric,
            &mut cardinality.values_by_label,
            &mut cardinality.bytes_by_label,
            &mut cardinality.series_by_pair,
        ] {
            *list = largest(std::mem::take(list), top);
        }
        cardinality
    }
}

/// The largest first; equal ones by name, so that answers do not change from call to call.
fn largest<T: Ord>(mut list: Vec<(T, u64)>, top: usize) -> Vec<(T, u64)> {
    list.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    list.truncate(top);
    list
}
