//! Counters of the log, for the process to export. Relaxed atomics: each is right by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the histogram of sync times; the last bucket of
/// [`WalStats::fsync_buckets`] counts what took longer. From a fast NVMe to a stalled disk.
pub const FSYNC_BUCKETS_MICROS: [u64; 12] =
    [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 200_000, 1_000_000, 5_000_000];

/// Counters and gauges of one log.
#[derive(Debug, Default)]
pub struct WalStats {
    /// Records acknowledged.
    pub appended_records: AtomicU64,
    /// Their bytes, headers included.
    pub appended_bytes: AtomicU64,
    /// Groups committed; `appended_records / groups` is how many share a sync.
    pub groups: AtomicU64,
    /// Successful syncs.
    pub fsyncs: AtomicU64,
    /// Time spent in them.
    pub fsync_nanos_sum: AtomicU64,
    /// The longest of them.
    pub fsync_nanos_max: AtomicU64,
    /// How many took how long; see [`FSYNC_BUCKETS_MICROS`]. Not cumulative.
    pub fsync_buckets: [AtomicU64; FSYNC_BUCKETS_MICROS.len() + 1],
    /// Failed syncs.
    pub fsync_failures: AtomicU64,
    /// Failed writes.
    pub write_failures: AtomicU64,
    /// Segments that were given up after a failed write or sync.
    pub abandoned_segments: AtomicU64,
    /// Appends refused because the budget or the disk was used up.
    pub refused_out_of_space: AtomicU64,
    /// Appends refused because the record does not fit into a segment.
    pub refused_too_large: AtomicU64,
    /// Appends refused because the queue stayed full.
    pub refused_overloaded: AtomicU64,
    /// Appends that failed with an error of the disk.
    pub refused_io: AtomicU64,
    /// Bytes of records that wait for the commit thread (gauge).
    pub queued_bytes: AtomicU64,
    /// Segments, the active one included (gauge).
    pub segments: AtomicU64,
    /// Bytes of all files of the log, as counted against the budget (gauge).
    pub disk_bytes: AtomicU64,
    /// Segments cut.
    pub cut_segments: AtomicU64,
    /// Bytes committed but not yet taken by the consumer (gauge).
    pub lag_bytes: AtomicU64,
    /// How often the consumer fell back to reading files.
    pub lag_episodes: AtomicU64,
    /// Records the consumer got from the files.
    pub replayed_records: AtomicU64,
    /// Bytes of unfinished, never acknowledged writes found after a crash.
    pub torn_bytes: AtomicU64,
    /// Places where acknowledged data could not be read back.
    pub damaged_places: AtomicU64,
    /// Their bytes.
    pub damaged_bytes: AtomicU64,
}

impl WalStats {
    pub(crate) fn synced(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&self.fsyncs, 1);
        add(&self.fsync_nanos_sum, nanos);
        self.fsync_nanos_max.fetch_max(nanos, Ordering::Relaxed);
        let bucket = FSYNC_BUCKETS_MICROS.iter().position(|bound| nanos <= bound * 1_000);
        add(&self.fsync_buckets[bucket.unwrap_or(FSYNC_BUCKETS_MICROS.len())], 1);
    }
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

pub(crate) fn set(gauge: &AtomicU64, to: u64) {
    gauge.store(to, Ordering::Relaxed);
}
