//! A store in memory, for tests and for evaluating over data already at hand.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::histogram::FloatHistogram;
use crate::storage::{Select, SeriesSet, SeriesView, Storage, StorageError};
use crate::value::Sample;
use windrose_proto::metric::labels::Labels;

#[derive(Debug, Default)]
struct MemorySeries {
    labels: Labels,
    timestamps: Vec<i64>,
    values: Vec<f64>,
    histograms: Vec<(i64, Arc<FloatHistogram>)>,
    starts: Vec<i64>,
    histogram_starts: Vec<i64>,
}

/// Series kept sorted by labels, samples by time. A later sample at the same instant replaces the earlier one.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    series: Vec<MemorySeries>,
    index: HashMap<Labels, usize>,
    sorted: Vec<usize>,
}

impl MemoryStorage {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one sample.
    pub fn append(&mut self, labels: &Labels, timestamp: i64, sample: Sample) {
        self.append_started(labels, timestamp, 0, sample);
    }

    /// Adds one sample whose count began at `start` (0: unknown).
    pub fn append_started(&mut self, labels: &Labels, timestamp: i64, start: i64, sample: Sample) {
        let index = match self.index.get(labels) {
            Some(index) => *index,
            None => self.insert_series(labels),
        };
        let series = &mut self.series[index];
        match sample {
            Sample::Float(value) => {
                let at = series.timestamps.partition_point(|existing| *existing < timestamp);
                if series.timestamps.get(at) == Some(&timestamp) {
                    (series.values[at], series.starts[at]) = (value, start);
                } else {
                    series.timestamps.insert(at, timestamp);
                    series.values.insert(at, value);
                    series.starts.insert(at, start);
                }
            }
            Sample::Histogram(histogram) => {
                let at = series.histograms.partition_point(|(existing, _)| *existing < timestamp);
                match series.histograms.get_mut(at) {
                    Some(existing) if existing.0 == timestamp => {
                        existing.1 = histogram;
                        series.histogram_starts[at] = start;
                    }
                    _ => {
                        series.histograms.insert(at, (timestamp, histogram));
                        series.histogram_starts.insert(at, start);
                    }
                }
            }
        }
    }

    fn insert_series(&mut self, labels: &Labels) -> usize {
        let index = self.series.len();
        self.series.push(MemorySeries { labels: labels.clone(), ..MemorySeries::default() });
        self.index.insert(labels.clone(), index);
        let at = self.sorted.partition_point(|other| self.series[*other].labels < *labels);
        self.sorted.insert(at, index);
        index
    }
}

impl Storage for MemoryStorage {
    fn select<'a>(&'a self, request: &Select<'_>) -> Result<Box<dyn SeriesSet + 'a>, StorageError> {
        let matches = |series: &MemorySeries| {
            request.matchers.iter().all(|matcher| matcher.matches(series.labels.get(&matcher.name)))
        };
        let series = self.sorted.iter().map(|index| &self.series[*index]).filter(|series| matches(series)).collect();
        Ok(Box::new(MemoryCursor { series, next: 0, min_time: request.min_time, max_time: request.max_time }))
    }
}

struct MemoryCursor<'a> {
    series: Vec<&'a MemorySeries>,
    next: usize,
    min_time: i64,
    max_time: i64,
}

impl SeriesSet for MemoryCursor<'_> {
    fn next(&mut self) -> Result<Option<SeriesView<'_>>, StorageError> {
        let Some(series) = self.series.get(self.next) else { return Ok(None) };
        self.next += 1;
        let floats = window(&series.timestamps, self.min_time, self.max_time, |timestamp| *timestamp);
        let histograms = window(&series.histograms, self.min_time, self.max_time, |(timestamp, _)| *timestamp);
        Ok(Some(SeriesView {
            labels: &series.labels,
            timestamps: &series.timestamps[floats.clone()],
            values: &series.values[floats.clone()],
            histograms: &series.histograms[histograms.clone()],
            starts: &series.starts[floats],
            histogram_starts: &series.histogram_starts[histograms],
        }))
    }
}

fn window<T>(items: &[T], min: i64, max: i64, time: impl Fn(&T) -> i64) -> std::ops::Range<usize> {
    let start = items.partition_point(|item| time(item) < min);
    let end = items.partition_point(|item| time(item) <= max);
    start..end.max(start)
}
