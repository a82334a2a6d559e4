//! Reading one tenant's metrics: series and their samples, labels, exemplars, metadata.
//!
//! What is in memory is copied compressed under the lock, so that appending waits for a reader
//! only as long as that takes; decoding happens while the result is iterated.

use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringBitmap;
use windrose_proto::metric::{Exemplar, Labels, Matcher, Metadata};

use super::Tenant;
use super::cardinality::Cardinality;
use super::chunk::Chunk;
use super::head::Head;

/// What a selection may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Series.
    pub max_series: usize,
    /// Samples before they are cut to the time range; whole chunks are counted.
    pub max_samples: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { max_series: 1_000_000, max_samples: 200_000_000 }
    }
}

/// Reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The selection is too large.
    #[error("the selection has {series} series, more than the {limit} allowed: add matchers")]
    TooManySeries { series: usize, limit: usize },
    /// The selection is too large.
    #[error("the selection has {samples} samples, more than the {limit} allowed: add matchers or shorten the range")]
    TooManySamples { samples: u64, limit: u64 },
}

/// Reads the metrics of one tenant. Every call sees everything acknowledged before it.
#[derive(Clone, Debug)]
pub struct MetricReader {
    /// `None` when nothing was ever stored for the tenant.
    tenant: Option<Arc<Tenant>>,
}

impl MetricReader {
    pub(super) const fn new(tenant: Option<Arc<Tenant>>) -> Self {
        Self { tenant }
    }

    /// The series that satisfy all of `matchers` with their samples in `[min_ms, max_ms]`, sorted by
    /// [`Labels::compare`]. Series without samples there are left out.
    ///
    /// # Errors
    /// When the selection exceeds a limit or blocks cannot be read.
    pub async fn select(
        &self,
        matchers: &[Matcher],
        min_ms: i64,
        max_ms: i64,
        limits: ReadLimits,
    ) -> Result<SelectedSeries, ReadError> {
        let Some(tenant) = &self.tenant else { return Ok(SelectedSeries::new(Vec::new(), min_ms, max_ms)) };
        let head = tenant.head();
        let mut slots: Vec<u32> = in_range(&head, head.index.select(matchers), min_ms, max_ms).iter().collect();
        if slots.len() > limits.max_series {
            return Err(ReadError::TooManySeries { series: slots.len(), limit: limits.max_series });
        }
        slots.sort_by(|left, right| head.index.compare(*left, *right));
        let mut series = Vec::with_capacity(slots.len());
        let mut samples = 0;
        for slot in slots {
            let chunks: Vec<Chunk> = head.series[slot as usize].chunks(min_ms, max_ms).collect();
            samples += chunks.iter().map(|chunk| chunk.count() as u64).sum::<u64>();
            if samples > limits.max_samples {
                return Err(ReadError::TooManySamples { samples, limit: limits.max_samples });
            }
            series.push(Selected { labels: head.index.labels(slot), chunks });
        }
        Ok(SelectedSeries::new(series, min_ms, max_ms))
    }

    /// The label sets of series that match one of `sets` and have samples in `[min_ms, max_ms]`,
    /// sorted, at most `limit`.
    ///
    /// # Errors
    /// When blocks cannot be read.
    pub async fn series(
        &self,
        sets: &[Vec<Matcher>],
        min_ms: i64,
        max_ms: i64,
        limit: usize,
    ) -> Result<Vec<Labels>, ReadError> {
        let Some(tenant) = &self.tenant else { return Ok(Vec::new()) };
        let head = tenant.head();
        let mut slots: Vec<u32> = in_range(&head, head.index.select_any(sets), min_ms, max_ms).iter().collect();
        slots.sort_by(|left, right| head.index.compare(*left, *right));
        slots.truncate(limit);
        Ok(slots.into_iter().map(|slot| head.index.labels(slot)).collect())
    }

    /// The label names of series that match one of `sets` (all series when there is none) and have
    /// samples in `[min_ms, max_ms]`, sorted, at most `limit`.
    ///
    /// # Errors
    /// When blocks cannot be read.
    pub async fn label_names(
        &self,
        sets: &[Vec<Matcher>],
        min_ms: i64,
        max_ms: i64,
        limit: usize,
    ) -> Result<Vec<String>, ReadError> {
        let Some(tenant) = &self.tenant else { return Ok(Vec::new()) };
        let head = tenant.head();
        let slots = listed(&head, sets, min_ms, max_ms);
        Ok(first_sorted(head.index.names(Some(&slots)), limit))
    }

    /// The values of a label among series that match one of `sets` (all series when there is none)
    /// and have samples in `[min_ms, max_ms]`, sorted, at most `limit`.
    ///
    /// # Errors
    /// When blocks cannot be read.
    pub async fn label_values(
        &self,
        name: &str,
        sets: &[Vec<Matcher>],
        min_ms: i64,
        max_ms: i64,
        limit: usize,
    ) -> Result<Vec<String>, ReadError> {
        let Some(tenant) = &self.tenant else { return Ok(Vec::new()) };
        let head = tenant.head();
        let slots = listed(&head, sets, min_ms, max_ms);
        Ok(first_sorted(head.index.values(name, Some(&slots)), limit))
    }

    /// The exemplars in `[min_ms, max_ms]` of series that match one of `sets`, series sorted,
    /// exemplars by time.
    ///
    /// # Errors
    /// When blocks cannot be read.
    pub async fn exemplars(
        &self,
        sets: &[Vec<Matcher>],
        min_ms: i64,
        max_ms: i64,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, ReadError> {
        let Some(tenant) = &self.tenant else { return Ok(Vec::new()) };
        let head = tenant.head();
        let mut slots: Vec<u32> = head.index.select_any(sets).iter().collect();
        slots.sort_by(|left, right| head.index.compare(*left, *right));
        let found = slots.into_iter().map(|slot| {
            let inside = |exemplar: &&Exemplar| (min_ms..=max_ms).contains(&exemplar.timestamp);
            (slot, head.exemplars_of(slot).filter(inside).cloned().collect::<Vec<_>>())
        });
        Ok(found
            .filter(|(_, exemplars)| !exemplars.is_empty())
            .map(|(slot, exemplars)| (head.index.labels(slot), exemplars))
            .collect())
    }

    /// What is known of metric families, by name.
    pub fn metadata(&self) -> impl Iterator<Item = (Arc<str>, Metadata)> + use<> {
        let known: Vec<_> = self.tenant.as_ref().map_or_else(Vec::new, |tenant| {
            tenant.head().metadata().map(|(family, metadata)| (Arc::clone(family), metadata.clone())).collect()
        });
        known.into_iter()
    }

    /// Where the series are; lists of at most `top` entries.
    #[must_use]
    pub fn cardinality(&self, top: usize) -> Cardinality {
        self.tenant.as_ref().map_or_else(Cardinality::default, |tenant| Cardinality::of(&tenant.head(), top))
    }
}

fn listed(head: &Head, sets: &[Vec<Matcher>], min_ms: i64, max_ms: i64) -> RoaringBitmap {
    let slots = if sets.is_empty() { head.index.live().clone() } else { head.index.select_any(sets) };
    in_range(head, slots, min_ms, max_ms)
}

fn in_range(head: &Head, mut slots: RoaringBitmap, min_ms: i64, max_ms: i64) -> RoaringBitmap {
    let outside: RoaringBitmap =
        slots.iter().filter(|slot| !head.series[*slot as usize].overlaps(min_ms, max_ms)).collect();
    slots -= outside;
    slots
}

fn first_sorted(texts: Vec<&Arc<str>>, limit: usize) -> Vec<String> {
    let sorted: BTreeSet<&Arc<str>> = texts.into_iter().collect();
    sorted.into_iter().take(limit).map(|text| (**text).to_owned()).collect()
}

/// A selected series, compressed.
#[derive(Debug)]
struct Selected {
    labels: Labels,
    /// In no particular order; they may overlap.
    chunks: Vec<Chunk>,
}

/// Selected series, decoded one by one while they are taken.
#[derive(Debug)]
pub struct SelectedSeries {
    series: std::vec::IntoIter<Selected>,
    min_ms: i64,
    max_ms: i64,
    current: Option<Selected>,
    timestamps: Vec<i64>,
    values: Vec<f64>,
}

/// One series with its samples in the selected range: times grow strictly.
#[derive(Clone, Copy, Debug)]
pub struct SeriesSlice<'a> {
    pub labels: &'a Labels,
    pub timestamps: &'a [i64],
    pub values: &'a [f64],
}

impl SelectedSeries {
    fn new(series: Vec<Selected>, min_ms: i64, max_ms: i64) -> Self {
        let series = series.into_iter();
        Self { series, min_ms, max_ms, current: None, timestamps: Vec::new(), values: Vec::new() }
    }

    /// Series that may still come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether no more can come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.len() == 0
    }

    /// The next series that has samples in the range.
    ///
    /// # Errors
    /// When a block turns out to be damaged.
    #[expect(clippy::should_implement_trait, reason = "it lends: an Iterator cannot")]
    pub fn next(&mut self) -> Result<Option<SeriesSlice<'_>>, ReadError> {
        for mut selected in self.series.by_ref() {
            self.timestamps.clear();
            self.values.clear();
            decode(&mut selected.chunks, &mut self.timestamps, &mut self.values);
            let from = self.timestamps.partition_point(|timestamp| *timestamp < self.min_ms);
            let to = self.timestamps.partition_point(|timestamp| *timestamp <= self.max_ms);
            if from < to {
                let (timestamps, values) = (&self.timestamps[from..to], &self.values[from..to]);
                let labels = &self.current.insert(selected).labels;
                return Ok(Some(SeriesSlice { labels, timestamps, values }));
            }
        }
        Ok(None)
    }
}

/// Decodes chunks into samples with strictly growing times. Of samples of the same time that of the
/// earlier chunk in the list stays.
fn decode(chunks: &mut [Chunk], timestamps: &mut Vec<i64>, values: &mut Vec<f64>) {
    chunks.sort_by_key(|chunk| chunk.first_ms);
    let overlapping = chunks.windows(2).any(|pair| pair[1].first_ms <= pair[0].last_ms);
    chunks.iter().for_each(|chunk| chunk.decode(timestamps, values));
    if !overlapping {
        return;
    }
    let mut samples: Vec<(i64, f64)> = timestamps.drain(..).zip(values.drain(..)).collect();
    samples.sort_by_key(|(timestamp, _)| *timestamp);
    samples.dedup_by_key(|(timestamp, _)| *timestamp);
    timestamps.extend(samples.iter().map(|(timestamp, _)| *timestamp));
    values.extend(samples.iter().map(|(_, value)| *value));
}
