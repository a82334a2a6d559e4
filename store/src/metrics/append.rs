//! Appending: a batch of samples, stored and visible as a whole.
//!
//! A batch is written to the log first and then applied to the head under one lock, so that a
//! reader sees all of a scraped page or nothing of it.

use std::sync::Arc;

use windrose_proto::metric::{Exemplar, Labels, Metadata};

use super::head::SeriesRef;
use super::series::{Epoch, Outcome};
use super::stats::{DropReason, add};
use super::{MetricStore, Tenant};
use crate::wal;

/// Times that can be stored, in milliseconds: those that nanoseconds in 64 bits can say. 1677 to 2262.
const TIMESTAMP_LIMIT_MS: i64 = i64::MAX / 1_000_000;

/// A batch being collected: a scraped page, a remote-write request. Dropping it stores nothing.
#[derive(Debug)]
pub struct Append {
    store: MetricStore,
    tenant: Arc<Tenant>,
    pub(super) batch: Batch,
}

/// What a batch holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub(super) samples: Vec<Sample>,
    pub(super) exemplars: Vec<(SeriesRef, Exemplar)>,
    pub(super) metadata: Vec<(Box<str>, Metadata)>,
}

/// One sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) series: SeriesRef,
    pub(super) timestamp_ms: i64,
    pub(super) value: f64,
}

/// When a commit returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// When it is on disk as far as the sync policy promises.
    OnceDurable,
    /// When the log has it.
    OnceWritten,
}

/// What became of the samples of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendReport {
    /// Stored.
    pub stored: u64,
    /// Were there already.
    pub duplicates: u64,
    /// Another value was there for the same time, and stays.
    pub conflicts: u64,
    /// Their time is outside what can be stored.
    pub too_old: u64,
    /// Exemplars stored.
    pub exemplars: u64,
}

/// A series that cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeriesLimit {
    /// The tenant has too many.
    #[error(
        "the tenant has {limit} active series, the limit: drop labels with many values or raise metrics.max_series"
    )]
    Series { limit: usize },
    /// It has too many labels.
    #[error("the series has {labels} labels, more than the {limit} allowed by metrics.max_labels_per_series")]
    Labels { labels: usize, limit: usize },
    /// Its labels are too long.
    #[error("the labels of the series take {bytes} bytes, more than the {limit} allowed by metrics.max_label_bytes")]
    LabelBytes { bytes: usize, limit: usize },
}

impl SeriesLimit {
    /// The reason in metrics.
    #[must_use]
    pub const fn reason(&self) -> DropReason {
        match self {
            Self::Series { .. } => DropReason::SeriesLimit,
            Self::Labels { .. } => DropReason::LabelLimit,
            Self::LabelBytes { .. } => DropReason::LabelBytesLimit,
        }
    }
}

/// Nothing of the batch was stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Series have expired since their references were given out: look them up again and repeat.
    #[error("{} series expired: look them up again and repeat the batch", series.len())]
    Expired {
        /// The references that are void.
        series: Vec<SeriesRef>,
    },
    /// The log refused: see the cause for whether to repeat.
    #[error(transparent)]
    Log(#[from] wal::AppendError),
}

impl Append {
    pub(super) fn new(store: MetricStore, tenant: Arc<Tenant>) -> Self {
        Self { store, tenant, batch: Batch::default() }
    }

    /// Finds or creates a series.
    ///
    /// # Errors
    /// When a limit forbids it. Counted; the rest of the batch is not affected.
    pub fn series(&mut self, labels: &Labels) -> Result<SeriesRef, SeriesLimit> {
        let pairs = labels.iter().map(|label| (&*label.name, &*label.value));
        if let Some(known) = self.tenant.head().find(pairs.clone()) {
            return Ok(known);
        }
        self.check_labels(pairs)?;
        self.create(labels)
    }

    /// Finds or creates a series by labels that are sorted by name, unique and not empty. Copies
    /// them only when the series is new.
    ///
    /// # Errors
    /// When a limit forbids it. Counted; the rest of the batch is not affected.
    pub fn series_of(&mut self, labels: &[(&str, &str)]) -> Result<SeriesRef, SeriesLimit> {
        debug_assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "labels must be sorted and unique");
        debug_assert!(labels.iter().all(|(_, value)| !value.is_empty()), "empty labels are absent");
        if let Some(known) = self.tenant.head().find(labels.iter().copied()) {
            return Ok(known);
        }
        self.check_labels(labels.iter().copied())?;
        self.create(&Labels::from_pairs(labels.iter().copied()))
    }

    fn check_labels<'a>(
        &self,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Result<(), SeriesLimit> {
        let config = &self.store.inner.config;
        let count = labels.len();
        let bytes: usize = labels.map(|(name, value)| name.len() + value.len()).sum();
        let limit = if count > config.max_labels_per_series {
            SeriesLimit::Labels { labels: count, limit: config.max_labels_per_series }
        } else if bytes > config.max_label_bytes {
            SeriesLimit::LabelBytes { bytes, limit: config.max_label_bytes }
        } else {
            return Ok(());
        };
        Err(self.refused(limit))
    }

    fn create(&self, labels: &Labels) -> Result<SeriesRef, SeriesLimit> {
        let mut head = self.tenant.head_mut();
        let limit = self.store.inner.config.max_series;
        // Somebody else may have been faster.
        if let Some(known) = head.find(labels.iter().map(|label| (&*label.name, &*label.value))) {
            return Ok(known);
        }
        if head.index.len() >= limit {
            drop(head);
            return Err(self.refused(SeriesLimit::Series { limit }));
        }
        let created = head.create(labels, self.store.inner.epoch());
        add(&self.store.inner.counters.series_created, 1);
        Ok(created)
    }

    fn refused(&self, limit: SeriesLimit) -> SeriesLimit {
        self.store.inner.counters.dropped(limit.reason(), 1);
        limit
    }

    /// Adds a sample.
    #[inline]
    pub fn sample(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64) {
        self.batch.samples.push(Sample { series, timestamp_ms, value });
    }

    /// Makes room for samples to come.
    pub fn reserve(&mut self, samples: usize) {
        self.batch.samples.reserve(samples);
    }

    /// Adds an exemplar.
    pub fn exemplar(&mut self, series: SeriesRef, exemplar: Exemplar) {
        self.batch.exemplars.push((series, exemplar));
    }

    /// Counts native histograms, which cannot be stored.
    pub fn drop_native_histograms(&self, count: u64) {
        self.store.inner.counters.dropped(DropReason::NativeHistogram, count);
    }

    /// Says what a metric family is. Costs a lookup when that is known.
    pub fn metadata(&mut self, family: &str, metadata: &Metadata) {
        if self.tenant.head().needs_metadata(family, metadata, self.store.inner.epoch()) {
            self.batch.metadata.push((family.into(), metadata.clone()));
        }
    }

    /// Stores the batch: it is on disk as far as the sync policy promises, and visible to readers.
    ///
    /// # Errors
    /// Nothing was stored then.
    pub async fn commit(self) -> Result<AppendReport, AppendError> {
        self.commit_as(Answer::OnceDurable).await
    }

    /// Stores a batch that nobody is told of, such as a scraped page: it is visible to readers and
    /// survives the process, and is on disk a second later.
    ///
    /// # Errors
    /// Nothing was stored then.
    pub async fn commit_lazily(self) -> Result<AppendReport, AppendError> {
        self.commit_as(Answer::OnceWritten).await
    }

    async fn commit_as(mut self, answer: Answer) -> Result<AppendReport, AppendError> {
        let too_old = self.drop_out_of_bounds();
        let mut report = self.store.inner.commit(&self.tenant, self.batch, answer).await?;
        report.too_old = too_old;
        Ok(report)
    }

    fn drop_out_of_bounds(&mut self) -> u64 {
        let before = self.batch.samples.len();
        self.batch.samples.retain(|sample| sample.timestamp_ms.unsigned_abs() <= TIMESTAMP_LIMIT_MS.unsigned_abs());
        let dropped = (before - self.batch.samples.len()) as u64;
        self.store.inner.counters.dropped(DropReason::OutOfBounds, dropped);
        dropped
    }
}

impl Batch {
    /// Whether there is nothing to store.
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.exemplars.is_empty() && self.metadata.is_empty()
    }

    /// Every series the batch names, in its order, repetitions next to each other left out.
    pub(super) fn references(&self) -> impl Iterator<Item = SeriesRef> {
        let samples = self.samples.iter().map(|sample| sample.series);
        let mut last = None;
        samples.chain(self.exemplars.iter().map(|(series, _)| *series)).filter(move |series| {
            let is_new = last != Some(*series);
            last = Some(*series);
            is_new
        })
    }

    /// Makes the batch visible. Its series must be live.
    pub(super) fn apply(self, head: &mut super::head::Head, epoch: Epoch) -> AppendReport {
        let mut report = AppendReport::default();
        for sample in self.samples {
            match head.append(sample.series, sample.timestamp_ms, sample.value, epoch) {
                Outcome::Stored => report.stored += 1,
                Outcome::Duplicate => report.duplicates += 1,
                Outcome::Conflict => report.conflicts += 1,
            }
        }
        for (series, exemplar) in self.exemplars {
            report.exemplars += u64::from(head.append_exemplar(series, exemplar, epoch));
        }
        for (family, metadata) in self.metadata {
            head.set_metadata(&family, metadata, epoch);
        }
        report
    }
}
