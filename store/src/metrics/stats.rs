//! Counters of the metric store, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a sample, a series or an exemplar was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The same sample was there already.
    Duplicate,
    /// Another value was there for that time.
    Conflict,
    /// The time cannot be stored.
    OutOfBounds,
    /// The tenant has as many series as it may.
    SeriesLimit,
    /// The series has more labels than it may.
    LabelLimit,
    /// The labels of the series are longer than they may be.
    LabelBytesLimit,
    /// A scraped native histogram.
    NativeHistogram,
    /// The log refused the batch.
    Log,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::Duplicate,
        Self::Conflict,
        Self::OutOfBounds,
        Self::SeriesLimit,
        Self::LabelLimit,
        Self::LabelBytesLimit,
        Self::NativeHistogram,
        Self::Log,
    ];

    /// As it stands in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::OutOfBounds => "out_of_bounds",
            Self::SeriesLimit => "series_limit",
            Self::LabelLimit => "label_limit",
            Self::LabelBytesLimit => "label_bytes_limit",
            Self::NativeHistogram => "native_histogram",
            Self::Log => "log",
        }
    }
}

/// Counters since the process started.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) samples: AtomicU64,
    pub(super) exemplars: AtomicU64,
    pub(super) series_created: AtomicU64,
    pub(super) series_expired: AtomicU64,
    pub(super) blocks_written: AtomicU64,
    pub(super) blocks_removed: AtomicU64,
    pub(super) block_failures: AtomicU64,
    pub(super) replay_nanos: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Counters {
    pub(super) fn dropped(&self, reason: DropReason, count: u64) {
        add(&self.dropped[reason as usize], count);
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// What the metric store has done and holds, all tenants together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricStats {
    /// Samples stored since the start.
    pub samples: u64,
    /// Exemplars stored since the start.
    pub exemplars: u64,
    /// Series that appeared since the start.
    pub series_created: u64,
    /// Series that left memory since the start.
    pub series_expired: u64,
    /// What was not stored, and why.
    pub dropped: Vec<(DropReason, u64)>,
    /// Series in memory.
    pub active_series: u64,
    /// Chunks in memory.
    pub chunks: u64,
    /// Memory of samples in memory.
    pub sample_bytes: u64,
    /// Memory of the series index.
    pub index_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Blocks in the tables.
    pub blocks: u64,
    /// Bytes of their files.
    pub block_bytes: u64,
    /// Blocks written since the start.
    pub blocks_written: u64,
    /// Blocks removed by retention since the start.
    pub blocks_removed: u64,
    /// Attempts to write or remove a block that failed since the start.
    pub block_failures: u64,
    /// How long replaying the log took at the start.
    pub replay_nanos: u64,
}

impl MetricStats {
    pub(super) fn of(counters: &Counters) -> Self {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            samples: load(&counters.samples),
            exemplars: load(&counters.exemplars),
            series_created: load(&counters.series_created),
            series_expired: load(&counters.series_expired),
            dropped: DropReason::ALL.map(|reason| (reason, load(&counters.dropped[reason as usize]))).into(),
            blocks_written: load(&counters.blocks_written),
            blocks_removed: load(&counters.blocks_removed),
            block_failures: load(&counters.block_failures),
            replay_nanos: load(&counters.replay_nanos),
            ..Self::default()
        }
    }
}
