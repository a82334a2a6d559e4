//! Reading one tenant's metrics: series and their samples, labels, exemplars, metadata.
//!
//! What is in memory is copied compressed under the lock, so that appending waits for a reader
//! only as long as that takes; decoding happens while the result is iterated.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::path::Path;
use roaring::RoaringBitmap;
use windrose_proto::metric::{Exemplar, Labels, Matcher, Metadata};

use super::Tenant;
use super::blocks::{Block, Found};
use super::cardinality::Cardinality;
use super::chunk::{self, Chunk};
use super::head::Head;
use super::index::SeriesIndex;

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
    /// The object store failed; trying again may help.
    #[error("object store failed reading {path}")]
    Store {
        path: Path,
        #[source]
        source: object_store::Error,
    },
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
        let (in_memory, blocks) =
            self.in_memory(tenant, min_ms, max_ms, |head| select_in(head, matchers, min_ms, max_ms, limits));
        let in_memory = in_memory?;
        let found = if blocks.is_empty() {
            Vec::new()
        } else {
            tenant.archive.select(&blocks, matchers, (min_ms, max_ms), limits).await?
        };
        let series = merge(found, in_memory);
        if series.len() > limits.max_series {
            return Err(ReadError::TooManySeries { series: series.len(), limit: limits.max_series });
        }
        let samples = series.iter().flat_map(|series| &series.chunks).map(|chunk| chunk.count() as u64).sum();
        if samples > limits.max_samples {
            return Err(ReadError::TooManySamples { samples, limit: limits.max_samples });
        }
        Ok(SelectedSeries::new(series, min_ms, max_ms))
    }

    /// Looks at the head, and says which blocks have to be looked at besides. In this order: what
    /// leaves the head meanwhile is in a block by then.
    fn in_memory<T>(
        &self,
        tenant: &Tenant,
        min_ms: i64,
        max_ms: i64,
        look: impl FnOnce(&Head) -> T,
    ) -> (T, Vec<Arc<Block>>) {
        let (found, complete_from_ms) = {
            let head = tenant.head();
            (look(&head), head.complete_from_ms)
        };
        let Some(last_ms) = complete_from_ms.checked_sub(1) else { return (found, Vec::new()) };
        let catalog = tenant.blocks.catalog();
        let blocks = catalog.get(&tenant.id).map_or(&[][..], |blocks| blocks.as_slice());
        let wanted = blocks.iter().filter(|block| block.overlaps(min_ms, max_ms.min(last_ms)));
        (found, wanted.map(Arc::clone).collect())
    }

    /// The label sets of series that match one of `sets` and have samples in `[min_ms, max_ms]` (of
    /// series in files: in a block that overlaps it), sorted, at most `limit`.
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
        let found = self.listed(sets, (min_ms, max_ms), |index, slots| {
            let mut slots: Vec<u32> = slots.iter().collect();
            slots.sort_by(|left, right| index.compare(*left, *right));
            slots.truncate(limit);
            slots.into_iter().map(|slot| index.labels(slot)).collect::<Vec<_>>()
        });
        let mut series = found.await?;
        series.sort_by(Labels::compare);
        series.dedup();
        series.truncate(limit);
        Ok(series)
    }

    /// The label names of series that match one of `sets` (all series when there is none) and have
    /// samples in `[min_ms, max_ms]` (see [`Self::series`]), sorted, at most `limit`.
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
        let found = self.listed(sets, (min_ms, max_ms), |index, slots| shared(index.names(Some(slots))));
        Ok(first_sorted(found.await?, limit))
    }

    /// The values of a label among series that match one of `sets` (all series when there is none)
    /// and have samples in `[min_ms, max_ms]` (see [`Self::series`]), sorted, at most `limit`.
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
        let found = self.listed(sets, (min_ms, max_ms), |index, slots| shared(index.values(name, Some(slots))));
        Ok(first_sorted(found.await?, limit))
    }

    /// Lists something of the matching series, in memory and in blocks.
    async fn listed<T>(
        &self,
        sets: &[Vec<Matcher>],
        (min_ms, max_ms): (i64, i64),
        list: impl Fn(&SeriesIndex, &RoaringBitmap) -> Vec<T>,
    ) -> Result<Vec<T>, ReadError> {
        let Some(tenant) = &self.tenant else { return Ok(Vec::new()) };
        let (mut found, blocks) = self.in_memory(tenant, min_ms, max_ms, |head| {
            let slots = if sets.is_empty() { head.index.live().clone() } else { head.index.select_any(sets) };
            list(&head.index, &in_range(head, slots, min_ms, max_ms))
        });
        if !blocks.is_empty() {
            found.extend(tenant.archive.with_series(&blocks, sets, list).await?);
        }
        Ok(found)
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
        // Exemplars leave memory for want of room too: every block of the range may have more.
        let catalog = tenant.blocks.catalog();
        let blocks = catalog.get(&tenant.id).map_or(&[][..], |blocks| blocks.as_slice());
        let blocks: Vec<_> = blocks.iter().filter(|block| block.overlaps(min_ms, max_ms)).map(Arc::clone).collect();
        let mut found = if blocks.is_empty() { Vec::new() } else { tenant.archive.exemplars(&blocks, sets).await? };
        {
            let head = tenant.head();
            let slots = head.index.select_any(sets);
            found
                .extend(slots.iter().map(|slot| (head.index.labels(slot), head.exemplars_of(slot).cloned().collect())));
        }
        found.sort_by(|left, right| left.0.compare(&right.0));
        found.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1.append(&mut later.1);
            }
            same
        });
        for (_, exemplars) in &mut found {
            exemplars.retain(|exemplar| (min_ms..=max_ms).contains(&exemplar.timestamp));
            exemplars.sort_by_key(|exemplar| exemplar.timestamp);
            exemplars.dedup();
        }
        found.retain(|(_, exemplars)| !exemplars.is_empty());
        Ok(found)
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

fn select_in(
    head: &Head,
    matchers: &[Matcher],
    min_ms: i64,
    max_ms: i64,
    limits: ReadLimits,
) -> Result<Vec<Found>, ReadError> {
    let mut slots: Vec<u32> = in_range(head, head.index.select(matchers), min_ms, max_ms).iter().collect();
    if slots.len() > limits.max_series {
        return Err(ReadError::TooManySeries { series: slots.len(), limit: limits.max_series });
    }
    slots.sort_by(|left, right| head.index.compare(*left, *right));
    let found = |slot: u32| Found {
        id: head.index.id_of(slot),
        labels: head.index.labels(slot),
        chunks: head.series[slot as usize].chunks(min_ms, max_ms).collect(),
    };
    Ok(slots.into_iter().map(found).collect())
}

/// Two lists in label order as one; a series in both keeps the chunks of both.
fn merge(left: Vec<Found>, right: Vec<Found>) -> Vec<Selected> {
    if left.is_empty() {
        return right.into_iter().map(Selected::from).collect();
    }
    let mut merged = Vec::with_capacity(left.len().max(right.len()));
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(first), Some(second)) = (left.peek(), right.peek()) {
        let order = if first.id == second.id { Ordering::Equal } else { first.labels.compare(&second.labels) };
        match order {
            Ordering::Less => merged.extend(left.next().map(Selected::from)),
            Ordering::Greater => merged.extend(right.next().map(Selected::from)),
            Ordering::Equal => {
                let more = right.next().map_or_else(Vec::new, |found| found.chunks);
                merged.extend(left.next().map(|mut found| {
                    found.chunks.extend(more);
                    Selected::from(found)
                }));
            }
        }
    }
    merged.extend(left.map(Selected::from));
    merged.extend(right.map(Selected::from));
    merged.retain(|series| !series.chunks.is_empty());
    merged
}

fn in_range(head: &Head, mut slots: RoaringBitmap, min_ms: i64, max_ms: i64) -> RoaringBitmap {
    let outside: RoaringBitmap =
        slots.iter().filter(|slot| !head.series[*slot as usize].overlaps(min_ms, max_ms)).collect();
    slots -= outside;
    slots
}

fn shared(texts: Vec<&Arc<str>>) -> Vec<Arc<str>> {
    texts.into_iter().map(Arc::clone).collect()
}

fn first_sorted(texts: Vec<Arc<str>>, limit: usize) -> Vec<String> {
    let sorted: BTreeSet<Arc<str>> = texts.into_iter().collect();
    sorted.into_iter().take(limit).map(|text| (*text).to_owned()).collect()
}

/// A selected series, compressed.
#[derive(Debug)]
struct Selected {
    labels: Labels,
    /// In the order in which they were stored: blocks before memory; they may overlap.
    chunks: Vec<Chunk>,
}

impl From<Found> for Selected {
    fn from(found: Found) -> Self {
        Self { labels: found.labels, chunks: found.chunks }
    }
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
        for selected in self.series.by_ref() {
            self.timestamps.clear();
            self.values.clear();
            chunk::decode_all(&selected.chunks, &mut self.timestamps, &mut self.values);
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
